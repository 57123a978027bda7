/* The methods of Limiter, for its table of methods. */
#ifndef SGPY_OPERATIONS_H
#define SGPY_OPERATIONS_H

#include "binding.h"

#define SGPY_FAST_METHOD(name)                                                               \
    PyObject *name(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)

SGPY_FAST_METHOD(sgpy_limiter_hit_nowait);
SGPY_FAST_METHOD(sgpy_limiter_hit_awaitable);
SGPY_FAST_METHOD(sgpy_limiter_peek_nowait);
SGPY_FAST_METHOD(sgpy_limiter_project_nowait);
SGPY_FAST_METHOD(sgpy_limiter_penalize_nowait);
SGPY_FAST_METHOD(sgpy_limiter_reward_nowait);
SGPY_FAST_METHOD(sgpy_limiter_reset_nowait);
SGPY_FAST_METHOD(sgpy_limiter_ban_nowait);
SGPY_FAST_METHOD(sgpy_limiter_unban_nowait);
SGPY_FAST_METHOD(sgpy_limiter_reserve_nowait);
SGPY_FAST_METHOD(sgpy_limiter_bind);
PyObject *sgpy_limiter_hit_many_nowait(PyObject *op, PyObject *pairs);

#endif
