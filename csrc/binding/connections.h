/* What the files of live connections share: info.c, message.c and connections.c. */
#ifndef SGPY_CONNECTIONS_H
#define SGPY_CONNECTIONS_H

#include "binding.h"

/* Their places in sgpy_state.strings. */
enum {
    STR_CONNECTION_ID,
    STR_MESSAGE_SIZE,
    STR_REMAINING,
    STR_DEGRADED,
    STR_NOT_FOUND,
    STR_TOO_LARGE,
    STR_RATE,
    STR_BANDWIDTH,
    STR_INTERNAL,
    STR_ELSEWHERE,
    STR_REFUSED,
    STR_ALLOWED,
    STR_REASON,
    STR_OK,
    STR_TEMPLATE, /* no string: the dict that every admitted message's result is copied from */
    STR_COUNT
};

_Static_assert(STR_COUNT <= SGPY_STRINGS, "more strings than the state has places for");

typedef enum { LAST_NEVER = 0, LAST_WALL, LAST_TICKS } last_kind;

typedef struct {
    PyObject_HEAD
    PyObject *connection_id;
    PyObject *client_id;
    PyObject *metadata;
    PyObject *plan;  /* Python's: the limits of this client */
    PyObject *place; /* Python's: the place it holds, given back when it is dropped */
    double connected_at;
    unsigned long long message_count, bytes_sent;
    /* When the last message was admitted: ticks of the table's clock as C wrote them, and
     * seconds of wall time once somebody has asked. */
    sg_ticks last_ticks;
    double last_wall;
    last_kind last;
    /* Set while it is registered. */
    sgpy_limiter *limiter; /* over messages and bytes; NULL before the first _add */
    sgpy_prepared client;
    uint64_t max_size;     /* UINT64_MAX: none */
    unsigned byte_quotas;  /* bit i: quota i is charged the size, not 1 */
} sgpy_info;

typedef struct {
    PyObject_HEAD
    sgpy_state *state;
    PyObject *live; /* dict: connection id to ConnectionInfo */
    unsigned long long messages, bytes; /* admitted */
    sgpy_table *tallied; /* where they are counted for all processes, too; or NULL */
} sgpy_connections;

/* Of the tallies of such a table. */
enum { TALLY_MESSAGES, TALLY_BYTES };

/* ---- info.c */

extern PyType_Spec sgpy_info_spec;

/* Works out the wall time of its last message, while its table still tells. -1: an exception. */
int sgpy_info_settle_last(sgpy_info *self);

/* ---- message.c: the check of a message */

typedef struct {
    sgpy_info *info;      /* a reference, or NULL */
    uint64_t size;
    PyObject *reason;     /* borrowed from the state; NULL: admitted */
    sgpy_limiter *limiter; /* a reference, or NULL */
    bool decided;         /* outcome holds */
    sgpy_outcome outcome;
} sgpy_message;

/* Decides and counts. -1: an exception. The caller ends with sgpy_message_done in any case. */
int sgpy_message_decide(sgpy_connections *self, PyObject *id, PyObject *size, uint64_t cost,
                        sgpy_message *m);
void sgpy_message_done(sgpy_message *m);

/* Bytes of a message; what fits no 64 bits is too large for anything. */
int sgpy_message_size(PyObject *object, uint64_t *size);

/* The Decision, where one was made (m->decided). */
PyObject *sgpy_message_decision(sgpy_state *st, const sgpy_message *m);

/* (info, reason, decision, size) of what was refused. */
PyObject *sgpy_message_refusal(sgpy_state *st, const sgpy_message *m);

/* Tells the observer, if there is one. -1: it raised. */
int sgpy_message_observe(sgpy_state *st, const sgpy_message *m);

/* The whole of it: a result dict, or the tuple of a refusal. */
PyObject *sgpy_message_check(sgpy_connections *self, PyObject *id, PyObject *size);

#endif
