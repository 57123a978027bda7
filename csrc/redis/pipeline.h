/* One connection to a server: what waits to be sent, what was sent and is not yet answered.
 *
 * Checks that wait together leave as few commands: those of one plan and one operation as one
 * EVALSHA of up to SG_BATCH_MAX. Requests of one limiter keep their order. Replies come back in
 * order, and each is handed to the owner of its request as a decision, with no object between.
 *
 * No I/O and no clock: bytes and times are arguments. Not for several threads at once. The owner is
 * called back in the midst of what is called here; it may do anything then but free the pipeline,
 * and feeding it is refused. In `wanted` it does nothing. */
#ifndef SG_PIPELINE_H
#define SG_PIPELINE_H

#include "command.h"
#include "request.h"
#include "resp.h"

typedef enum {
    SG_TIMED_OUT = 0, /* no answer by the deadline; if it was sent it may be charged */
    SG_LOST,          /* the connection ended before its reply; it may be charged */
    SG_UNSENT,        /* it never left: not charged */
    SG_REFUSED,       /* the server answered with an error, whose text is given */
    SG_FOREIGN,       /* the key holds what is not ours */
    SG_NO_ROOM,       /* no memory here */
} sg_failure;

typedef enum { SG_MOVED = 0, SG_ASK, SG_LATER } sg_redirect;

typedef enum { SG_CHECK = 0, SG_WORDS } sg_request_kind;

/* What keeps the requests of one limiter in order; zeroed at first. One a limiter's name. */
typedef struct {
    uint64_t pass; /* of a pipeline's write */
    const sg_plan *plan;
    uint64_t ttl_us;
    uint32_t run;
    uint8_t op;
} sg_order;

typedef struct sg_request sg_request;

/* The owner's struct begins with it. */
struct sg_request {
    sg_request *next;
    uint8_t kind; /* sg_request_kind */
    uint8_t op;   /* sg_check_op */
    bool repeatable; /* charges nothing: is sent again if its reply is lost */
    bool evaluate;   /* the script's text is sent, for the server did not know it */
    bool asking;     /* behind ASKING, as the cluster said */
    bool alone;      /* in a command of its own: its slot is moving */
    bool over;       /* answered already, by a failure: its reply is skipped */
    bool held;       /* is not to be forgotten just now */
    uint8_t redirects;
    unsigned slot;      /* 0 where there are no slots */
    int64_t deadline_ns;
    sg_order *order;    /* NULL: has none to keep */
    /* a check */
    const sg_plan *plan; /* lives as long as the request */
    uint64_t costs[SG_QUOTAS_MAX];
    uint64_t ttl_us, claim; /* of a reservation; the claim is given when it is sent */
    const char *name;       /* its key's, which lives as long as it */
    size_t name_length;
    /* words */
    sg_command *command; /* freed with the request */
    int script;          /* an sg_script_id; -1: no script */
};

/* What a check came to. */
typedef struct {
    sg_seen seen; /* SG_SEEN or SG_SEEN_OTHER */
    sg_decision decision;
    sg_ticket ticket; /* of a reservation */
    const char *bytes; /* what the server replied of it; NULL: nil */
    size_t length;
    uint64_t now_us;
} sg_answer;

typedef struct {
    /* Whether anybody still waits for it; asked before it is sent. */
    bool (*wanted)(void *owner, sg_request *request);
    /* One of these once, unless it was not wanted. */
    void (*decided)(void *owner, sg_request *request, const sg_answer *answer);
    void (*replied)(void *owner, sg_request *request, const sg_reply *reply);
    void (*failed)(void *owner, sg_request *request, sg_failure failure, const char *text,
                   size_t length);
    /* Last of all, once: the pipeline is done with it. Its command is freed. */
    void (*forget)(void *owner, sg_request *request);
    /* It belongs elsewhere (or here, later), and is the owner's again. node: "host:port". */
    void (*redirected)(void *owner, sg_request *request, sg_redirect how, unsigned slot,
                       const char *node, size_t length);
} sg_owner_calls;

/* Requests in their order, linked by `next`. */
typedef struct {
    sg_request *first, *last;
    size_t count;
} sg_row;

typedef struct sg_flight sg_flight;
typedef struct sg_group sg_group;

typedef struct {
    const sg_owner_calls *calls;
    void *owner;
    uint64_t pass, random;
    sg_row waiting;
    sg_request *put_back; /* the last of those that wait to be sent again; they come first */
    size_t flying;        /* requests, those that are over among them */
    sg_flight *flights;       /* a ring, in the order of the replies to come */
    size_t flight_first, flight_count, flight_room;
    sg_group *groups;
    size_t group_count, group_room;
    uint32_t texts; /* of scripts, by their numbers: under way to the server */
    sg_resp *resp;  /* NULL: none is needed yet */
    uint64_t ends;  /* of streams so far */
    sg_command command;
    sg_batch *batch;
    char *out; /* to be written */
    size_t out_used, out_room;
    bool handling; /* the owner is being called */
} sg_pipeline;

/* False: no memory. `seed`: by chance; makes the ids of claims. */
bool sg_pipeline_init(sg_pipeline *p, const sg_owner_calls *calls, void *owner, uint64_t seed);
/* Nothing waits or flies any more: see sg_pipeline_drop. */
void sg_pipeline_free(sg_pipeline *p);

/* Takes a request, behind all that wait. */
void sg_pipeline_add(sg_pipeline *p, sg_request *request);

/* All that wait, as a row; they are the caller's. */
sg_request *sg_pipeline_take_waiting(sg_pipeline *p);

/* Appends the commands of all that wait to `out`; requests for which there is no memory fail. The
 * caller sends `out`, then sg_pipeline_sent. */
void sg_pipeline_write(sg_pipeline *p);
void sg_pipeline_sent(sg_pipeline *p);

/* Bytes of the stream. False: it makes no sense; the connection is to be ended. What comes after
 * sg_pipeline_lost or _drop is another stream. */
bool sg_pipeline_feed(sg_pipeline *p, const char *bytes, size_t length);

/* Fails what is past its deadline; returns how many. *next: the earliest deadline of the rest
 * (INT64_MAX: none). */
size_t sg_pipeline_expire(sg_pipeline *p, int64_t now_ns, int64_t *next);

/* The connection has ended: what can be sent again waits again, what else was sent has failed. */
void sg_pipeline_lost(sg_pipeline *p, const char *text, size_t length);

/* Every request that waits or flies. */
void sg_pipeline_each(const sg_pipeline *p, void (*visit)(void *context, sg_request *request),
                      void *context);

/* Fails all that waits and flies. */
void sg_pipeline_drop(sg_pipeline *p, sg_failure failure, const char *text, size_t length);

#endif
