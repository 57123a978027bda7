/* State on a server: what server.c, router.c, link.c, ask.c and words.c share.
 *
 * A limiter over a server has a Server (its name there). Whoever asks is on a loop, and the store
 * has a Router for each loop: it says over which Link (one connection) a key's questions go. A Link
 * keeps what waits and flies (csrc/redis/pipeline.h); its Python subclass has the transport.
 * An answer resolves the future that the asker awaits. */
#ifndef SGPY_SERVER_H
#define SGPY_SERVER_H

#include "../redis/denied.h"
#include "../redis/name.h"
#include "../redis/pipeline.h"
#include "../redis/purse.h"
#include "../redis/slot.h"
#include "binding.h"

typedef struct sgpy_link sgpy_link;
typedef struct sgpy_ask sgpy_ask;
typedef struct sgpy_draw sgpy_draw;
typedef struct sgpy_lease sgpy_lease;

/* A plan, for as long as one request or limiter uses it. */
struct sgpy_plan {
    size_t users;
    uint64_t kept; /* of its server, when it was made */
    sg_plan plan;
};

#define SGPY_OTHER_PLANS 8u /* plans by `quotas=` that a server keeps */

struct sgpy_server {
    PyObject_HEAD
    sgpy_state *state;
    PyObject *store;   /* Python's: has the routers, and hears of failures */
    PyObject *name;    /* str: the limiter's */
    sgpy_table *table; /* counts, and decides where the policy is "local" */
    PyObject *router;  /* of the loop that was asked from last, or NULL */
    char *head;        /* how the names of its keys begin */
    size_t head_length;
    sg_secret digests;
    uint64_t keep_us[SG_QUOTAS_MAX]; /* the longest period known of each quota */
    uint64_t kept;     /* changes with keep_us */
    sg_order order;
    bool degraded;     /* the last check was decided without the server */
    bool warned;       /* of state of another shape */
    sg_denied *denied; /* refusals remembered; NULL until one is */
    sgpy_lease *lease; /* units drawn; NULL until some are */
    struct {
        PyObject *quotas;
        sgpy_plan *plan;
    } others[SGPY_OTHER_PLANS];
    unsigned next_other;
    PyObject *weakrefs;
};

typedef struct {
    PyObject_HEAD
    sgpy_state *state;
    PyObject *loop;
    sgpy_link *single;  /* where there are no slots, or not known yet; NULL: Python is asked */
    sgpy_link **slots;  /* SG_HASH_SLOTS of them, each held, or NULL */
    sgpy_ask *later_first, *later_last; /* to be asked again soon */
    bool closed;
    PyObject *weakrefs;
} sgpy_router;

#define SGPY_TRIP_BOUNDS 12u /* see link.c */

struct sgpy_link {
    PyObject_HEAD
    sgpy_state *state;
    sg_pipeline pipeline;
    bool made;
    PyObject *router;        /* a Router, or NULL: nobody is sent elsewhere */
    PyObject *where;         /* str: its server, for errors */
    PyObject *call_soon, *create_future, *flush;
    PyObject *down;          /* str: why nothing is sent now; NULL: it is */
    bool scheduled;          /* a flush is due */
    bool hurry;              /* something is due before armed_ns */
    bool asked;              /* while it was down */
    bool unfit;              /* an error told of the server itself, and Python knows */
    bool writing;            /* what waits is being put together, or handed to the transport */
    uint8_t alone;           /* how many left alone, one after the other; at most SGPY_ALONE */
    int64_t armed_ns;        /* when expire() is called next */
    int64_t progress_ns;     /* when bytes last came, or something was sent to an idle link */
    int64_t patience_ns;     /* the longest timeout of what was asked */
    /* One round trip at a time is timed, by the readings of the clock that there are anyway. */
    size_t timed;            /* replies until the one that ends it; 0: none is timed */
    int64_t timed_ns;        /* when it was sent */
    uint64_t trips[SGPY_TRIP_BOUNDS + 1]; /* those timed, by how long they took; the rest last */
    uint64_t trips_ns;       /* all of them together */
    PyObject *weakrefs;
};

typedef enum {
    SGPY_ASK_CHECK = 0,
    SGPY_ASK_DRAW, /* a check, for those who wait for its units */
    SGPY_ASK_RAW,
    SGPY_ASK_CHANGE,
    SGPY_ASK_ALL,
} sgpy_ask_kind;

/* Results of several asks that one future waits for. */
typedef struct {
    Py_ssize_t users, left;
    PyObject *list, *future, *error;
    const sgpy_ask *visitor; /* the one of its asks that shows the garbage collector what it has */
} sgpy_many;

/* One of the limiters of a hit_all. */
typedef struct {
    sgpy_limiter *limiter; /* held */
    sgpy_server *server;   /* held: the limiter's when it was asked */
    PyObject *quotas;      /* held */
    sgpy_plan *plan;       /* held */
    PyObject *key;         /* held */
    sg_fingerprint fp;
    sgpy_key bytes;
    uint64_t costs[SG_QUOTAS_MAX];
    bool enabled; /* the limiter was */
    bool merged;  /* into an earlier one */
} sgpy_member;

struct sgpy_ask {
    sg_request request; /* first */
    sgpy_state *state;
    sgpy_link *link;    /* borrowed: that in which it is */
    uint8_t kind;       /* sgpy_ask_kind */
    bool detailed;      /* the result is (Decision, refusals, remaining of each quota) */
    bool leases;        /* by the limiter's own numbers: it may spend what was drawn */
    bool quiet;         /* a refusal is not counted: its asker goes on waiting */
    bool unheard;       /* its failure says nothing of the server: all of it is torn down */
    PyObject *future;   /* or NULL: `many`, or nobody waits */
    sgpy_many *many;
    Py_ssize_t index;   /* in `many` */
    /* of one limiter */
    sgpy_limiter *limiter;
    sgpy_server *server; /* the limiter's when it was asked; it may have moved on */
    PyObject *quotas;
    sgpy_plan *plan;
    PyObject *key;
    sgpy_key bytes;     /* of key */
    sg_fingerprint fp;
    int64_t made_ns;    /* of a draw */
    sgpy_member *members; /* of a hit_all */
    unsigned member_count;
    char name[];
};

/* ---- server.c */

int sgpy_server_init_type(PyObject *module, sgpy_state *st);

/* The plan of a limiter's own numbers, borrowed; NULL with MemoryError. */
sgpy_plan *sgpy_plan_of(sgpy_limiter *limiter);
/* The plan of other numbers; a new reference. Runs no Python code. */
sgpy_plan *sgpy_plan_of_rows(sgpy_server *server, PyObject *quotas, const sg_quota *rows);
static inline sgpy_plan *sgpy_plan_hold(sgpy_plan *plan) {
    plan->users++;
    return plan;
}

/* The running loop's router of a server's store, borrowed from the server; NULL with an
 * exception. May run Python code. */
sgpy_router *sgpy_server_router(sgpy_server *server);

/* Tells the store: decided by the server again, or not. May run Python code (logging). */
void sgpy_server_failed(sgpy_server *server, PyObject *why);
void sgpy_server_recovered(sgpy_server *server);
void sgpy_server_other_shape(sgpy_server *server);

/* ---- router.c */

int sgpy_router_init_type(PyObject *module, sgpy_state *st);

/* The link that serves a slot, borrowed from the router; NULL with an exception. */
sgpy_link *sgpy_router_link(sgpy_router *router, unsigned slot);

/* An ask that has to be sent elsewhere, or again in a while; it is the router's now. */
void sgpy_router_redirect(sgpy_router *router, sgpy_ask *ask, sg_redirect how, unsigned slot,
                          const char *node, size_t length);

/* Drops what it was to ask again (tp_clear, close). */
void sgpy_router_drop_later(sgpy_router *router, const char *why);

/* ---- link.c */

int sgpy_link_init_type(PyObject *module, sgpy_state *st);

#define SGPY_NO_LINK "this Link was not made, or is being torn down"

/* Sends it with all else of this turn of the loop. -1 with an exception (there is no loop any
 * more): it is still the caller's. */
int sgpy_link_add(sgpy_link *link, sgpy_ask *ask);

/* The same for a check, which may leave at once: where as many wait as one command takes, so that
 * the server begins while more are asked for; and where SGPY_ALONE before it were asked for one
 * after the other, so that there is nothing to wait for. It may be over when this returns. 1 with an
 * exception: it is the link's, but who asks is interrupted (KeyboardInterrupt, SystemExit). */
int sgpy_link_ask(sgpy_link *link, sgpy_ask *ask);
#define SGPY_ALONE 8u

static inline int64_t sgpy_now_ns(sgpy_state *st) { return sgpy_monotonic_ns(&st->monotonic); }

/* ---- ask.c: an ask's life, and how it is sent */

/* An ask with room for a name; all else is zero. NULL with MemoryError. */
sgpy_ask *sgpy_ask_new(sgpy_state *st, size_t name_room);
void sgpy_ask_free(sgpy_ask *ask);
int sgpy_ask_traverse(sgpy_ask *ask, visitproc visit, void *arg);
void sgpy_many_release(sgpy_many *many); /* may be NULL */

/* Gives a result (stolen; NULL: the exception that is set) to who waits. Leaves no exception. */
void sgpy_ask_deliver(sgpy_ask *ask, PyObject *result);

/* The exception that is set, as an object; the error indicator is clear then. */
PyObject *sgpy_take_exception(void);

/* What happened, as text, NULL with an exception; and the StoreError of it, set. */
PyObject *sgpy_ask_describe(const sgpy_ask *ask, sg_failure failure, const char *text,
                            size_t length);
void sgpy_ask_raise(sgpy_ask *ask, sg_failure failure, const char *text, size_t length);

/* StoreError, or RuntimeError while the module is torn down. */
PyObject *sgpy_store_error(const sgpy_state *st);

/* Writes the key's name behind the ask. */
void sgpy_ask_write_name(sgpy_ask *ask, const sgpy_server *server, const sgpy_key *key);

/* The link for an ask whose name is written, and its slot; NULL with an exception. */
sgpy_link *sgpy_ask_link(sgpy_ask *ask, sgpy_router *router);

/* Why a link is down; it hears that somebody asked. */
const char *sgpy_link_why_down(sgpy_link *link, size_t *length);

void sgpy_ask_set_deadline(sgpy_ask *ask, sgpy_link *link, int64_t timeout_ns);

/* Sends it, and returns its future (a new reference); on a failure it is freed, and NULL is
 * returned with an exception. Python is asked for a link, and may run code. */
PyObject *sgpy_ask_send(sgpy_ask *ask, sgpy_router *router, int64_t timeout_ns);

/* ---- answer.c: what becomes of it */

extern const sg_owner_calls sgpy_ask_calls;

/* Fails an ask that is in no link, and frees it. */
void sgpy_ask_give_up(sgpy_ask *ask, sg_failure failure, const char *text, size_t length);

/* Whether anybody still waits for it. */
bool sgpy_ask_wanted(const sgpy_ask *ask);

/* The result of a check: a Decision, (Decision, receipt or None; stolen), or the detailed one. */
PyObject *sgpy_ask_result(const sgpy_ask *ask, const sgpy_outcome *out, PyObject *receipt);

/* That of a check which the server did not decide, by policy; NULL with an exception. */
PyObject *sgpy_ask_result_without(sgpy_ask *ask, sg_failure failure, const char *text,
                                  size_t length);

/* Spends units that were drawn: the Decision, counted; NULL with *state told, or an exception. */
PyObject *sgpy_spend(sgpy_limiter *limiter, sgpy_server *server, PyObject *quotas,
                     const sg_plan *plan, PyObject *key, const sgpy_key *bytes, sg_fingerprint fp,
                     const uint64_t *costs, sg_purse_state *state);

/* ---- check.c: the checks of a Limiter over a server, for limiter.c */

PyObject *sgpy_limiter_ask(PyObject *op, PyObject *args, PyObject *kwargs);
PyObject *sgpy_limiter_ask_many(PyObject *op, PyObject *pairs);

/* ---- lease.c */

typedef enum {
    SGPY_LEASE_ASK = 0, /* it is to be asked about as any other */
    SGPY_LEASE_DONE,    /* the result was returned; the ask is the caller's */
    SGPY_LEASE_WAITS,   /* for a draw: it is the lease's */
} sgpy_leased;

/* Takes units that were drawn; runs no Python code. */
sg_purse_state sgpy_lease_take(sgpy_server *server, sg_fingerprint fp, const sg_plan *plan,
                               const uint64_t *costs, sg_decision *out);

/* A hit of a limiter that leases. NULL with an exception where it is DONE and failed. */
PyObject *sgpy_lease_hit(sgpy_ask *ask, sgpy_link *link, sgpy_leased *leased);

/* What a draw came to. */
void sgpy_lease_drawn(sgpy_ask *draw, const sg_answer *answer);
void sgpy_lease_failed(sgpy_ask *draw, sg_failure failure, const char *text, size_t length);

/* Forgets what is drawn of a key. */
void sgpy_lease_forget(sgpy_server *server, sg_fingerprint fp);

void sgpy_lease_free(sgpy_lease *lease); /* may be NULL */
int sgpy_lease_traverse(sgpy_lease *lease, visitproc visit, void *arg);

/* ---- words.c: commands that are no check */

PyObject *sgpy_limiter_change(PyObject *op, PyObject *args);
/* Sends what sg_settle_argument made. */
PyObject *sgpy_settle(sgpy_limiter *limiter, PyObject *key, PyObject *argument);
PyObject *sgpy_limiter_fetch(PyObject *op, PyObject *key);
PyObject *sgpy_limiter_foretell(PyObject *op, PyObject *args);
PyObject *sgpy_link_command(PyObject *op, PyObject *words);
PyObject *sgpy_server_slots(PyObject *op, PyObject *args);
/* Forgets what is remembered of its key, which a change of it makes void: that it was refused, and
 * what was drawn. */
void sgpy_forget_known(const sgpy_ask *ask);
/* What a reply to words comes to. */
void sgpy_words_replied(sgpy_ask *ask, const sg_reply *reply);

/* An ask of words with an empty command; NULL with MemoryError. */
sgpy_ask *sgpy_words_new(sgpy_state *st, sgpy_ask_kind kind, size_t name_room);

/* ---- together.c: hit_all */

PyObject *sgpy_ask_all(PyObject *module, PyObject *triples);
void sgpy_all_replied(sgpy_ask *ask, const sg_reply *reply);

/* ---- ticket.c: a reservation on a server */

int sgpy_ticket_init_type(PyObject *module, sgpy_state *st);
PyObject *sgpy_ticket_new(sgpy_limiter *limiter, sgpy_server *server, PyObject *quotas,
                          PyObject *key, const sg_ticket *ticket);

#endif
