/* What the files of the binding share: the module's state, the struct of each type, and
 * the calls between them. A file a type; the rule itself is in csrc/core.
 *
 * The GIL is the lock of every table. No Python code may run between the moment a cell is
 * looked for and the moment it is done with, so every call is in this order: convert the
 * key and the cost, read the clock (each may run Python code), charge (never does), make
 * the decision, tell the observer. */
#ifndef SGPY_BINDING_H
#define SGPY_BINDING_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <string.h>
#include <structmember.h>

#include "../core/blocks.h"
#include "../core/decide.h"
#include "../core/fingerprint.h"
#include "../core/holders.h"
#include "../core/limiter.h"
#include "../core/quota.h"
#include "../core/sg.h"
#include "../core/slots.h"
#include "../core/table.h"
#include "../core/topk.h"
#include "../shared/shared.h"
#include "monotonic.h"

/* Dead objects kept for the next ones; off where the GIL is. */
#ifdef Py_GIL_DISABLED
#define SGPY_FREE_MAX 0u
#else
#define SGPY_FREE_MAX 128u
#endif

#define SGPY_STRINGS 40 /* interned strings that connections.c may keep */

#define SGPY_HOT_MAX 64u /* bytes of a key that a limiter remembers */

#define SGPY_FIELDS 6 /* header fields that fields.c knows */

typedef struct sgpy_state sgpy_state;
typedef struct sgpy_call sgpy_call;
typedef struct sgpy_decision sgpy_decision;
typedef struct sgpy_server sgpy_server;
typedef struct sgpy_plan sgpy_plan;

/* Every object that the module's state owns, so that traverse and clear miss none. */
#define SGPY_STATE_TYPES(X)                                                                  \
    X(Quota_Type) X(Decision_Type) X(Clock_Type) X(Table_Type) X(Limiter_Type)              \
    X(Handle_Type) X(Receipt_Type) X(Slots_Type) X(Slot_Type) X(Call_Type)                  \
    X(ConnectionInfo_Type) X(Connections_Type) X(Server_Type) X(Link_Type) X(Router_Type)      \
    X(Ticket_Type) X(Sender_Type) X(HttpGate_Type) X(MessageGate_Type) X(FrameSend_Type)        \
    X(SharedFile_Type)
#define SGPY_STATE_OBJECTS(X)                                                                \
    X(StoreError) X(StoreFullError) X(observer) X(released) X(str_throw) X(str_close) X(str_quotas_of)  \
    X(running_loop) X(str_set_result) X(str_set_exception) X(str_done) X(str_type) X(str_headers)    \
    X(str_response_start) X(str_path) X(str_root_path) X(str_client) X(str_text) X(str_bytes) X(str_empty)    \
    X(str_websocket_send) X(str_websocket_receive)

struct sgpy_state {
#define X(name) PyTypeObject *name;
    SGPY_STATE_TYPES(X)
#undef X
#define X(name) PyObject *name;
    SGPY_STATE_OBJECTS(X)
#undef X
    PyObject *algorithms[SG_ALGORITHMS]; /* their names */
    PyObject *strings[SGPY_STRINGS];     /* connections.c's; NULL where unused */
    PyObject *field_titles[SGPY_FIELDS]; /* str, as they are written */
    PyObject *field_names[SGPY_FIELDS];  /* bytes, in small letters */
    sgpy_decision *free_decisions;
    sgpy_call *free_calls;
    unsigned free_decisions_count, free_calls_count;
    sgpy_monotonic monotonic;
    uint64_t tables; /* made so far */
    bool closed;     /* the free lists take nothing more */
};

/* The state of the module that made `type`, or NULL while the module is torn down.
 * `type` is one of the module's own, not a subclass made in Python. */
sgpy_state *sgpy_state_of_type(PyTypeObject *type);

/* The same by a module object. */
static inline sgpy_state *sgpy_state_of_module(PyObject *module) {
    return (sgpy_state *)PyModule_GetState(module);
}

/* The state for a type that may be a subclass: sets RuntimeError and returns NULL where
 * there is none. */
sgpy_state *sgpy_state_for(PyTypeObject *type);

/* ---- args.c */

/* The arguments of a fast call, by the names in `names` (total of them, NULL-terminated;
 * the first `positional` may be given by place, the first `required` must be given). What
 * is not given is NULL. Borrowed. -1: TypeError. */
int sgpy_args(const char *function, const char *const *names, Py_ssize_t positional,
              Py_ssize_t required, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
              PyObject **out);

/* ---- quota.c */

typedef struct {
    PyObject_HEAD
    sg_quota quota;
    uint64_t period_us;
    PyObject *name; /* str or NULL */
    /* as fields.c tells of it, once it has: the name as an item, and (field, policy); bytes */
    PyObject *label, *policy;
} sgpy_quota;

int sgpy_quota_init_type(PyObject *module, sgpy_state *st);
static inline bool sgpy_is_quota(const sgpy_state *st, PyObject *object) {
    return PyObject_TypeCheck(object, st->Quota_Type) != 0;
}
/* The algorithm of that name; -1 and an exception if there is none. */
int sgpy_algorithm(const sgpy_state *st, PyObject *name);

/* ---- clock.c */

typedef struct {
    PyObject_HEAD
    int64_t ns;
} sgpy_clock;

int sgpy_clock_init_type(PyObject *module, sgpy_state *st);

/* ---- table.c */

typedef enum { SGPY_DENY = 0, SGPY_ALLOW, SGPY_RAISE } sgpy_on_full;

typedef struct {
    PyObject_HEAD
    sgpy_state *state;
    PyObject *clock; /* NULL: CLOCK_MONOTONIC; a Clock; or a callable */
    bool clock_is_object; /* it is a Clock, which C reads */
    bool made;       /* core is initialised */
    uint8_t on_full; /* sgpy_on_full */
    int64_t origin_ns; /* what the clock showed when the table was made */
    uint64_t id;     /* no other table of this module has it, now or later */
    uint64_t epoch;  /* of clear(): what was taken before one is void */
    sg_secret secret;
    sg_counts counts; /* of private memory */
    uint64_t degraded;
    sg_topk hot, top_refused;
    sg_arena names; /* theirs, so that they take nothing of the bound on keys */
    sg_blocks blocks; /* where core has its memory */
    sg_table core;
    struct sgpy_sharing *sharing; /* its state is in shared memory (shared.h), and core's empty */
    PyObject *weakrefs;
} sgpy_table;

int sgpy_table_init_type(PyObject *module, sgpy_state *st);

/* The time of the table's clock. May run Python code (a callable clock), so hold a
 * reference to the table and look again at whatever may have been changed meanwhile.
 * Returns -1 and sets an exception if the clock fails. */
int sgpy_table_now_slow(sgpy_table *table, sg_ticks *now);

/* Its clock as its owner sees it, in seconds; -1.0 and an exception. May run Python code. */
double sgpy_table_time(sgpy_table *table);

/* ---- key.c */

/* A key as bytes. Good while the key object is held; sgpy_key_done when finished. */
typedef struct {
    const char *data;
    size_t length;
    PyObject *owned; /* a bytes object made for it, or NULL */
} sgpy_key;

int sgpy_key_read(PyObject *object, sgpy_key *key); /* -1: TypeError */
static inline void sgpy_key_done(sgpy_key *key) { Py_CLEAR(key->owned); }

/* A key that is used again and again: its bytes and its fingerprint are made once.
 * Zeroed memory is an empty one. */
typedef struct {
    PyObject *object; /* strong */
    sgpy_key key;
    uint64_t table; /* the id of the one whose secret made fp; 0: none yet */
    sg_fingerprint fp;
} sgpy_prepared;

/* Fills it (again). -1: TypeError, and it is as it was. */
int sgpy_prepare(sgpy_prepared *prepared, PyObject *object);
void sgpy_prepared_clear(sgpy_prepared *prepared); /* tp_clear and tp_dealloc */

/* Its fingerprint in that table. Runs no Python code. */
static inline sg_fingerprint sgpy_prepared_fp(sgpy_prepared *prepared, const sgpy_table *table) {
    if (SG_UNLIKELY(prepared->table != table->id)) {
        prepared->fp = sg_fingerprint_of(&table->secret, prepared->key.data, prepared->key.length);
        prepared->table = table->id;
    }
    return prepared->fp;
}

/* ---- cost.c */

/* One cost: TypeError unless an int (a bool is none), ValueError outside 0 to 2**40. */
int sgpy_cost_one(PyObject *object, uint64_t *cost);

/* A row of SG_QUOTAS_MAX costs of an int, or of a mapping by the names of `quotas`, a
 * tuple of Quota or None; NULL stands for 1. May run Python code. */
int sgpy_cost_row(const sgpy_state *st, PyObject *object, PyObject *quotas, uint64_t *row);

extern const uint64_t sgpy_ones[SG_QUOTAS_MAX];

/* Seconds to ticks: ValueError unless 0 < seconds <= 10 years. `what` names it. */
int sgpy_seconds(PyObject *object, const char *what, sg_ticks *ticks);

/* ---- decision.c */

enum {
    SGPY_ALLOWED = 1,
    SGPY_DEGRADED = 2,
    SGPY_SHADOW = 4,
    SGPY_MADE = 8,       /* by the constructor: the fields are as given */
    SGPY_UNLIMITED = 16, /* nothing is limited */
    SGPY_TURNED = 32     /* a refusal that a shadow limiter turned */
};

/* Raw as the core gave it; the getters convert. No GC: it refers to a Quota alone. */
struct sgpy_decision {
    PyObject_HEAD
    sgpy_state *state; /* lives while the type does, which this object holds */
    PyObject *quota;   /* the very object, or NULL; links the free list */
    unsigned flags;
    uint64_t level; /* made: what remains */
    union {
        sg_ticks ticks;
        double seconds; /* made */
    } retry, reset;
    uint64_t limit; /* made */
};

/* Its fields. */
uint64_t sgpy_decision_limit(const sgpy_decision *decision);
uint64_t sgpy_decision_remaining(const sgpy_decision *decision);
double sgpy_decision_retry(const sgpy_decision *decision); /* seconds */
double sgpy_decision_reset(const sgpy_decision *decision);

int sgpy_decision_init_type(PyObject *module, sgpy_state *st);
void sgpy_decision_free_all(sgpy_state *st);

/* Ticks to seconds, rounded up to whole nanoseconds and so that no rounding of the float
 * is below them; SG_NEVER is inf. */
double sgpy_seconds_of(sg_ticks ticks);

/* A decision of raw values; quota may be NULL. Runs no Python code. */
PyObject *sgpy_decision_new(sgpy_state *st, unsigned flags, PyObject *quota, uint64_t level,
                            sg_ticks retry, sg_ticks reset);

/* ---- limiter.c */

/* What a check comes to that its server did not decide. */
typedef enum { SGPY_POLICY_RAISE = 0, SGPY_POLICY_ALLOW, SGPY_POLICY_DENY, SGPY_POLICY_LOCAL } sgpy_policy;

typedef struct {
    PyObject_HEAD
    sgpy_state *state;
    sgpy_table *table;  /* NULL until __init__, and after tp_clear */
    sgpy_server *server; /* whose the state is; NULL: the table's. With one, the table counts,
                            and decides where the policy is "local" */
    sgpy_table *local;   /* decides where a stopped process has the lock of shared memory, if
                            policy says so; NULL: none */
    bool plain;          /* there is a table and no server */
    PyObject *quotas;   /* tuple of count Quota or None */
    unsigned count;
    bool shadow;
    bool enabled;
    uint64_t version;   /* changes with table, quotas */
    PyObject *hot_key;  /* the last short key, an exact str or bytes, held, and its bytes */
    const char *hot_name;
    size_t hot_length;
    sg_fingerprint hot_fp;
    sg_quota rows[SG_QUOTAS_MAX];
    /* over a server: see ask.c */
    uint8_t policy; /* sgpy_policy */
    int64_t timeout_ns;
    int64_t deny_ns; /* how long a refusal is remembered; 0: not */
    uint64_t lease;  /* units drawn at once; 0: none */
    sgpy_plan *plan; /* of rows; NULL: to be made */
    PyObject *weakrefs;
} sgpy_limiter;

int sgpy_limiter_init_type(PyObject *module, sgpy_state *st);
static inline bool sgpy_is_limiter(const sgpy_state *st, PyObject *object) {
    return PyObject_TypeCheck(object, st->Limiter_Type) != 0;
}

/* Reads a sequence of Quota or None for that table: their rows, and a new tuple of the
 * very objects. -1: TypeError or ValueError. */
int sgpy_rows_of(const sgpy_table *table, PyObject *quotas, sg_quota *rows, PyObject **tuple);

/* ---- event.c */

/* All that one event needs, made before anything is charged. */
typedef struct {
    sgpy_limiter *limiter; /* borrowed from the caller */
    sgpy_table *table;     /* held */
    PyObject *quotas;      /* held: the tuple whose numbers count */
    sgpy_key key;          /* good while the caller holds the key object */
    sg_fingerprint fp;
    sg_ticks now;
    uint64_t costs[SG_QUOTAS_MAX];
    uint64_t version;     /* of the limiter; another one now: the event is void */
    const sg_quota *rows; /* the limiter's own, or those of quotas= */
} sgpy_event;

/* Converts key and cost (NULL: 1) and reads the clock: all that may run Python code. After
 * it, and until Python code runs, the event is good. -1 with an exception, and then there
 * is nothing to end. */
int sgpy_event_begin(sgpy_event *event, sgpy_limiter *limiter, PyObject *key, PyObject *cost);

/* The same by other numbers, whose rows are put into `rows`, which must outlive it. */
int sgpy_event_begin_with(sgpy_event *event, sgpy_limiter *limiter, PyObject *key,
                          PyObject *cost, PyObject *quotas, sg_quota *rows);
void sgpy_event_end(sgpy_event *event);

/* The numbers of quotas=, as the limiter's own class reads them: sluicegate.Limiter takes
 * rate strings too. A new tuple of Quota or None, and its rows. May run Python code. */
int sgpy_other_rows(sgpy_limiter *limiter, sgpy_table *table, PyObject *quotas, sg_quota *rows,
                    PyObject **tuple);

/* 0, or -1 and RuntimeError for a limiter whose __init__ was not called. */
int sgpy_limiter_ready(const sgpy_limiter *limiter);

/* ---- hit.c */

/* What a charge came to, without an object made of it. */
typedef struct {
    sg_decision decision;
    unsigned flags; /* of sgpy_decision */
} sgpy_outcome;

/* Charges and counts. Runs no Python code. `name`, `length` are the key's bytes (for
 * top-k); `costs` has one cost a quota. Where the table is full its on_full decides (the
 * outcome is degraded). Returns -1 with an exception: MemoryError, StoreFullError. */
int sgpy_charge(sgpy_limiter *limiter, const sg_quota *rows, sg_fingerprint fp,
                const char *name, size_t length, const uint64_t *costs, sg_ticks now,
                sgpy_outcome *out);

/* What a hit would come to; charges and counts nothing. Runs no Python code. -1 with an
 * exception. */
int sgpy_look(const sgpy_event *event, sgpy_outcome *out);

/* Like sgpy_charge; when it is charged, *receipt is open. */
int sgpy_reserve(const sgpy_event *event, sg_ticks ttl, sgpy_outcome *out, sg_receipt *receipt);

/* The same two, counted by sgpy_count when it is sure: an event of several limiters. */
int sgpy_reserve_uncounted(const sgpy_event *event, sg_ticks ttl, sgpy_outcome *out,
                           sg_receipt *receipt);
int sgpy_charge_uncounted(const sgpy_event *event, sgpy_outcome *out);
void sgpy_count(const sgpy_event *event, const sgpy_outcome *out);

/* Settles a reservation at nothing, or at what it reserved. What cannot be had stays charged. */
void sgpy_refund(const sgpy_event *event, sg_receipt *receipt);
void sgpy_keep(const sgpy_event *event, sg_receipt *receipt);

/* Counts what a server has decided. */
void sgpy_count_elsewhere(sgpy_table *table, sg_fingerprint fp, const char *name, size_t length,
                          const sgpy_outcome *out);

/* The flags of an outcome; the refusal of a shadow limiter is turned to an admission. */
void sgpy_set_flags(const sgpy_limiter *limiter, sgpy_outcome *out);

/* The outcome of a disabled limiter, which admits all. */
void sgpy_admit(sgpy_outcome *out);

/* The Decision of an outcome; `quotas` is the tuple whose numbers were used. */
PyObject *sgpy_outcome_decision(sgpy_state *st, PyObject *quotas, const sgpy_outcome *outcome);

/* Tells the observer of testing.record, if there is one, and passes `decision` on (steals
 * it): NULL with an exception if the observer fails. */
PyObject *sgpy_observed(sgpy_limiter *limiter, PyObject *key, PyObject *decision);

/* The whole of a hit by a key object: cost and quotas may be NULL. Returns a Decision. */
PyObject *sgpy_hit(sgpy_limiter *limiter, PyObject *key, PyObject *cost, PyObject *quotas);

/* The same by a prepared key. */
PyObject *sgpy_hit_prepared(sgpy_limiter *limiter, sgpy_prepared *prepared, PyObject *cost);

/* Whether it decides here, and without Python code until that is done. */
static inline bool sgpy_is_usual(const sgpy_limiter *limiter) {
    const sgpy_table *table = limiter->table;
    return limiter->plain && (table->clock == NULL || table->clock_is_object);
}

/* ---- awaitable.c */

/* What an awaitable runs when it is first sent None. Returns a new reference, the result;
 * or sets *delegate to a new reference of an awaitable and returns NULL without an
 * exception: the rest is as `return await delegate`; or returns NULL with an exception.
 * The arguments are held for the call; a, b, c are as given, NULL included. */
typedef PyObject *(*sgpy_call_fn)(sgpy_state *st, PyObject *self, PyObject *a, PyObject *b,
                                  PyObject *c, PyObject **delegate);

typedef struct {
    sgpy_call_fn run;
    const char *name;     /* "hit" */
    const char *qualname; /* "Limiter.hit" */
} sgpy_call_kind;

/* A coroutine object in C. `kind` must be static; takes its own references. */
PyObject *sgpy_call_new(sgpy_state *st, const sgpy_call_kind *kind, PyObject *self,
                        PyObject *a, PyObject *b, PyObject *c);
int sgpy_call_init_type(PyObject *module, sgpy_state *st);
void sgpy_call_free_all(sgpy_state *st);

/* ---- the other types, each in its file */

int sgpy_handle_init_type(PyObject *module, sgpy_state *st);
int sgpy_receipt_init_type(PyObject *module, sgpy_state *st);
int sgpy_slots_init_types(PyObject *module, sgpy_state *st);
int sgpy_connections_init(PyObject *module, sgpy_state *st);
int sgpy_http_gate_init_type(PyObject *module, sgpy_state *st);
int sgpy_message_gate_init_type(PyObject *module, sgpy_state *st);
int sgpy_frame_send_init_type(PyObject *module, sgpy_state *st);

PyObject *sgpy_handle_new(sgpy_limiter *limiter, PyObject *key);
PyObject *sgpy_receipt_new(sgpy_limiter *limiter, sgpy_table *table, PyObject *quotas,
                           const sg_quota *rows, const sg_receipt *receipt);
/* Of several limiters that one event asked, what each says. */
typedef struct {
    const sgpy_outcome *out;
    const sg_quota *rows;
} sgpy_one;

/* Whether `one` binds, and not `other`: of refusals that with the longest wait, of admissions that
 * with the least left. */
bool sgpy_binds(const sgpy_one *one, const sgpy_one *other);

/* several.c: module function */
PyObject *sgpy_hit_all_nowait(PyObject *module, PyObject *triples);

/* ---- server.c, link.c, router.c, ask.c; without hiredis they are left out, and no limiter has a
 * server */

#ifdef SG_REDIS
int sgpy_server_init_types(PyObject *module, sgpy_state *st);

/* Decides on the server: a Decision where that is known here, else *delegate is a new future of
 * one; or NULL with an exception. */
PyObject *sgpy_ask_hit(sgpy_limiter *limiter, PyObject *key, PyObject *cost, PyObject *quotas,
                       PyObject **delegate);

void sgpy_plan_release(sgpy_plan *plan); /* may be NULL */
PyObject *sgpy_server_object(sgpy_server *server);
#else
static inline PyObject *sgpy_ask_hit(sgpy_limiter *limiter, PyObject *key, PyObject *cost,
                                     PyObject *quotas, PyObject **delegate) {
    (void)limiter, (void)key, (void)cost, (void)quotas, (void)delegate;
    return NULL;
}
static inline void sgpy_plan_release(sgpy_plan *plan) { (void)plan; }
static inline PyObject *sgpy_server_object(sgpy_server *server) { return (PyObject *)server; }
#endif

/* Whether an object, or NULL, is a str that says `text`, which is ASCII. */
static inline bool sgpy_is_text(PyObject *object, PyObject *text) {
    return object == text ||
           (object != NULL && PyUnicode_Check(object) && PyUnicode_IS_COMPACT_ASCII(object) &&
            PyUnicode_GET_LENGTH(object) == PyUnicode_GET_LENGTH(text) &&
            memcmp(PyUnicode_1BYTE_DATA(object), PyUnicode_1BYTE_DATA(text),
                   (size_t)PyUnicode_GET_LENGTH(text)) == 0);
}

/* Makes a heap type of `spec`, keeps it in *slot and adds it to the module. */
int sgpy_add_type(PyObject *module, PyType_Spec *spec, PyTypeObject **slot, bool exported);

/* Sets __match_args__ to the words of `names`. */
int sgpy_set_match_args(PyTypeObject *type, const char *names);

/* ---- the clock, read where it is cheap */

static inline int sgpy_table_now(sgpy_table *table, sg_ticks *now) {
    if (SG_LIKELY(table->clock == NULL)) {
        /* From the table's birth and a second on, so that no time is 0. */
        const int64_t ns = sgpy_monotonic_ns(&table->state->monotonic);
        *now = (uint64_t)(ns - table->origin_ns + 1000000000) * SG_TICKS_PER_NS;
        return 0;
    }
    return sgpy_table_now_slow(table, now);
}

#endif
