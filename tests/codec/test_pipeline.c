/* One connection without a connection: what is sent, what replies come to, and how it ends.
 *
 * Every request must end exactly once, whatever the server says, whenever the connection ends, and
 * whatever its owner does meanwhile. */
#include <stdlib.h>

#include "memory.h"
#include "pipeline.h"
#include "support.h"

#define NOW ":1800000000000000\r\n"

enum { ASKS = 4096, PLANS = 4, ORDERS = 3, WORDS_MAX = 1100 };

/* What became of a request; the request itself is gone then. */
typedef struct {
    sg_request *request; /* NULL: it has ended, or never was */
    unsigned decided, replied, failed, forgotten, redirected;
    sg_failure failure;
    sg_redirect how;
    unsigned slot;
    uint64_t claim;
    bool allowed, unwanted;
    char text[64];
    sg_resp_type type;
} fate;

typedef struct {
    sg_request request; /* first */
    size_t id;
    char name[24];
} ask;

typedef struct fixture fixture;

struct fixture {
    sg_pipeline pipeline;
    sg_plan plans[PLANS]; /* gcra, the same with other numbers, a log, both */
    sg_order orders[ORDERS];
    fate fates[ASKS];
    size_t asked, ended;
    size_t ends[ASKS]; /* which ended, in that order */
    void (*react)(fixture *f, size_t id); /* what the owner does when called back */
    unsigned depth;
    bool by_chance; /* whether redirected ones are added again */
};

/* ---- the owner */

static void react(fixture *f, size_t id) {
    if (f->react != NULL && f->depth == 0) {
        f->depth++;
        f->react(f, id);
        f->depth--;
    }
}

static fate *fate_of(fixture *f, const sg_request *r) { return &f->fates[((const ask *)r)->id]; }

static bool wanted(void *owner, sg_request *r) { return !fate_of(owner, r)->unwanted; }

static void end(fixture *f, sg_request *r) {
    f->ends[f->ended++] = ((ask *)r)->id;
    react(f, ((ask *)r)->id);
    assert_true(r->over); /* whatever was done, it is there as long as its owner looks at it */
}

static void decided(void *owner, sg_request *r, const sg_answer *answer) {
    fate *fate = fate_of(owner, r);
    fate->decided++;
    fate->allowed = answer->decision.allowed;
    fate->claim = r->claim;
    if (r->op == SG_RESERVE)
        assert_true(answer->ticket.open == answer->decision.allowed);
    end(owner, r);
}

static void replied(void *owner, sg_request *r, const sg_reply *reply) {
    fate *fate = fate_of(owner, r);
    fate->replied++;
    fate->type = reply->nodes[0].type;
    end(owner, r);
}

static void failed(void *owner, sg_request *r, sg_failure failure, const char *text,
                   size_t length) {
    fate *fate = fate_of(owner, r);
    fate->failed++;
    fate->failure = failure;
    length = length < sizeof fate->text - 1 ? length : sizeof fate->text - 1;
    if (length > 0)
        memcpy(fate->text, text, length);
    end(owner, r);
}

static void forget(void *owner, sg_request *r) {
    fate *fate = fate_of(owner, r);
    fate->forgotten++;
    fate->request = NULL;
    assert_null(r->command);
    memset(r, 0xa5, sizeof *r);
    free(r);
}

static void free_owned(sg_request *r) {
    if (r->command != NULL)
        sg_command_free(r->command);
    free(r->command);
    free(r);
}

static void redirected(void *owner, sg_request *r, sg_redirect how, unsigned slot,
                       const char *node, size_t length) {
    fixture *f = owner;
    fate *fate = fate_of(f, r);
    fate->redirected++;
    fate->how = how;
    fate->slot = slot;
    length = length < sizeof fate->text - 1 ? length : sizeof fate->text - 1;
    if (length > 0)
        memcpy(fate->text, node, length);
    if (f->by_chance && random_below(2)) {
        fate->redirected--;
        sg_pipeline_add(&f->pipeline, r);
        return;
    }
    fate->request = NULL;
    free_owned(r);
}

static const sg_owner_calls calls = {wanted, decided, replied, failed, forget, redirected};

static fixture *fixture_new(void) {
    fixture *f = calloc(1, sizeof *f);
    const sg_quota quotas[] = {quota_of(SG_GCRA, 60, 60, 0), quota_of(SG_GCRA, 60, 30, 0),
                               quota_of(SG_SLIDING_LOG, 60, 60, 0)};
    const uint8_t kinds[] = {SG_GCRA, SG_GCRA, SG_SLIDING_LOG};
    const sg_quota two[] = {quotas[0], quotas[2]};
    const uint8_t two_kinds[] = {SG_GCRA, SG_SLIDING_LOG};
    const uint64_t keep[SG_QUOTAS_MAX] = {0};
    for (unsigned i = 0; i < 3; i++)
        sg_plan_init(&f->plans[i], 1, &kinds[i], &quotas[i], keep);
    sg_plan_init(&f->plans[3], 2, two_kinds, two, keep);
    if (sg_pipeline_init(&f->pipeline, &calls, f, 7))
        return f;
    free(f);
    return NULL;
}

/* Ends all, and sees that everything has ended once. */
static void fixture_end(fixture *f) {
    f->react = NULL;
    sg_pipeline_drop(&f->pipeline, SG_UNSENT, "the end", 7);
    EQUAL(f->pipeline.waiting.count, 0);
    EQUAL(f->pipeline.flying, 0);
    assert_null(f->pipeline.waiting.first);
    for (size_t i = 0; i < f->asked; i++) {
        const fate *fate = &f->fates[i];
        assert_null(fate->request);
        EQUAL(fate->forgotten + fate->redirected, 1);
        if (fate->unwanted)
            AT_MOST(fate->decided + fate->replied + fate->failed, 1);
        else
            EQUAL(fate->decided + fate->replied + fate->failed + fate->redirected, 1);
    }
    sg_pipeline_free(&f->pipeline);
    free(f);
}

/* ---- asking */

static size_t add(fixture *f, sg_request_kind kind) {
    ask *a = calloc(1, sizeof *a);
    assert_true(f->asked < ASKS);
    a->id = f->asked++;
    a->request.kind = (uint8_t)kind;
    a->request.script = -1;
    a->request.deadline_ns = 1000;
    a->request.name = a->name;
    a->request.name_length = (size_t)snprintf(a->name, sizeof a->name, "k%zu", a->id);
    f->fates[a->id].request = &a->request;
    return a->id;
}

/* A check of a limiter by one of the plans; its key is called by its number. */
static size_t check(fixture *f, unsigned limiter, unsigned plan, sg_check_op op) {
    const size_t id = add(f, SG_CHECK);
    sg_request *r = f->fates[id].request;
    r->op = (uint8_t)op;
    r->plan = &f->plans[plan];
    r->order = &f->orders[limiter];
    r->repeatable = op == SG_PEEK;
    r->ttl_us = op == SG_RESERVE ? 60000000 : 0;
    for (unsigned i = 0; i < SG_QUOTAS_MAX; i++)
        r->costs[i] = 1;
    sg_pipeline_add(&f->pipeline, r);
    return id;
}

/* PING, or a script that changes a key. */
static size_t words(fixture *f, int script, unsigned limiter) {
    const size_t id = add(f, SG_WORDS);
    sg_request *r = f->fates[id].request;
    r->command = calloc(1, sizeof *r->command);
    r->script = script;
    if (script < 0) {
        sg_command_plain(r->command);
        sg_command_argument(r->command, "PING", 4);
    } else {
        r->order = &f->orders[limiter];
        sg_command_begin(r->command, (sg_script_id)script, 1);
        sg_command_key(r->command, r->name, r->name_length);
    }
    sg_pipeline_add(&f->pipeline, r);
    return id;
}

/* ---- what was sent, read as a server reads it */

typedef struct {
    unsigned words;
    char *word[WORDS_MAX];
    size_t length[WORDS_MAX];
} sent;

static size_t number_at(char **at, char kind) {
    assert_int_equal(**at, kind);
    const size_t number = strtoul(*at + 1, at, 10);
    assert_memory_equal(*at, "\r\n", 2);
    *at += 2;
    return number;
}

static bool next_command(const sg_pipeline *p, size_t *offset, sent *s) {
    if (*offset == p->out_used)
        return false;
    char *at = p->out + *offset;
    s->words = (unsigned)number_at(&at, '*');
    assert_true(s->words <= WORDS_MAX);
    for (unsigned i = 0; i < s->words; i++) {
        s->length[i] = number_at(&at, '$');
        s->word[i] = at;
        at += s->length[i] + 2;
    }
    *offset = (size_t)(at - p->out);
    return true;
}

static void is_word(const sent *s, unsigned i, const char *text) {
    assert_true(i < s->words);
    EQUAL(s->length[i], strlen(text));
    assert_memory_equal(s->word[i], text, s->length[i]);
}

static void is_key(const sent *s, unsigned i, size_t id) {
    char name[24];
    snprintf(name, sizeof name, "k%zu", id);
    is_word(s, i, name);
}

/* Writes, and expects a command for each number: so many keys, beginning with that of the given
 * id; they are those that follow it. */
typedef struct {
    const char *verb;
    unsigned keys;
    size_t first;
} expected;

static void sends(fixture *f, const expected *all, size_t count) {
    size_t offset = 0;
    sent s;
    sg_pipeline_write(&f->pipeline);
    for (size_t i = 0; i < count; i++) {
        assert_true(next_command(&f->pipeline, &offset, &s));
        is_word(&s, 0, all[i].verb);
        for (unsigned k = 0; k < all[i].keys; k++)
            is_key(&s, 3 + k, all[i].first + k);
    }
    assert_false(next_command(&f->pipeline, &offset, &s));
    sg_pipeline_sent(&f->pipeline);
}

#define SENDS(f, ...)                                                                    \
    sends(f, (const expected[]){__VA_ARGS__}, COUNT(((const expected[]){__VA_ARGS__})))

static bool feed(fixture *f, const char *text) {
    return sg_pipeline_feed(&f->pipeline, text, strlen(text));
}

static void fails_with(const fixture *f, size_t id, sg_failure failure, const char *text) {
    EQUAL(f->fates[id].failed, 1);
    EQUAL(f->fates[id].failure, failure);
    assert_string_equal(f->fates[id].text, text);
}

/* ---- what leaves together */

static void checks_of_one_kind_leave_together(void **state) {
    (void)state;
    fixture *f = fixture_new();
    check(f, 0, 0, SG_HIT);
    check(f, 0, 0, SG_HIT);
    check(f, 0, 0, SG_HIT);
    check(f, 1, 1, SG_HIT); /* another limiter, another plan */
    check(f, 1, 1, SG_HIT);
    SENDS(f, {"EVALSHA", 3, 0}, {"EVALSHA", 2, 3});
    EQUAL(f->pipeline.flying, 5);
    assert_true(feed(f, "*4\r\n$-1\r\n$-1\r\n$-1\r\n" NOW));
    EQUAL(f->ended, 3);
    assert_true(feed(f, "*3\r\n$-1\r\n$1\r\n!\r\n" NOW));
    assert_true(f->fates[3].decided == 1 && f->fates[3].allowed);
    fails_with(f, 4, SG_FOREIGN, "");
    for (size_t i = 0; i < 5; i++)
        EQUAL(f->ends[i], i);
    fixture_end(f);
}

/* Two limiters take turns: each has one command all the same. */
static void groups_of_two_limiters_are_found(void **state) {
    (void)state;
    fixture *f = fixture_new();
    size_t offset = 0;
    sent s;
    for (unsigned i = 0; i < 100; i++)
        check(f, i % 2, i % 2, SG_HIT);
    sg_pipeline_write(&f->pipeline);
    for (unsigned limiter = 0; limiter < 2; limiter++) {
        assert_true(next_command(&f->pipeline, &offset, &s));
        is_word(&s, 2, "50");
        for (unsigned i = 0; i < 50; i++)
            is_key(&s, 3 + i, 2 * i + limiter);
    }
    assert_false(next_command(&f->pipeline, &offset, &s));
    fixture_end(f);
}

static void a_batch_is_cut(void **state) {
    (void)state;
    fixture *f = fixture_new();
    for (unsigned i = 0; i < 2 * SG_BATCH_MAX + 1; i++)
        check(f, 0, 0, SG_HIT);
    SENDS(f, {"EVALSHA", SG_BATCH_MAX, 0}, {"EVALSHA", SG_BATCH_MAX, SG_BATCH_MAX},
          {"EVALSHA", 1, 2 * SG_BATCH_MAX});
    fixture_end(f);
}

/* What a limiter is asked is done in that order: a change of what is done begins a new command. */
static void a_limiter_keeps_its_order(void **state) {
    (void)state;
    fixture *f = fixture_new();
    check(f, 0, 0, SG_HIT);
    check(f, 0, 0, SG_HIT);
    check(f, 0, 0, SG_PEEK); /* another operation */
    check(f, 0, 0, SG_HIT);
    check(f, 0, 1, SG_HIT); /* other numbers */
    check(f, 0, 0, SG_HIT);
    words(f, SG_SCRIPT_CHANGE, 0); /* a change */
    check(f, 0, 0, SG_HIT);
    check(f, 0, 0, SG_RESERVE);
    const size_t longer = check(f, 0, 0, SG_RESERVE);
    f->fates[longer].request->ttl_us++; /* a reservation for longer */
    SENDS(f, {"EVALSHA", 2, 0}, {"EVALSHA", 1, 2}, {"EVALSHA", 1, 3}, {"EVALSHA", 1, 4},
          {"EVALSHA", 1, 5}, {"EVALSHA", 1, 6}, {"EVALSHA", 1, 7}, {"EVALSHA", 1, 8},
          {"EVALSHA", 1, 9});
    fixture_end(f);
}

/* Slots of a cluster are served one by one; a slot that moves has no company. */
static void slots_leave_apart(void **state) {
    (void)state;
    fixture *f = fixture_new();
    f->fates[check(f, 0, 0, SG_HIT)].request->slot = 1;
    f->fates[check(f, 0, 0, SG_HIT)].request->slot = 1;
    f->fates[check(f, 0, 0, SG_HIT)].request->slot = 2;
    f->fates[check(f, 0, 0, SG_HIT)].request->slot = 2;
    f->fates[check(f, 0, 0, SG_HIT)].request->alone = true;
    f->fates[check(f, 0, 0, SG_HIT)].request->asking = true;
    check(f, 0, 0, SG_HIT);
    SENDS(f, {"EVALSHA", 2, 0}, {"EVALSHA", 2, 2}, {"EVALSHA", 1, 4}, {"ASKING", 0, 0},
          {"EVALSHA", 1, 5}, {"EVALSHA", 1, 6});
    fixture_end(f);
}

/* A batch has one id; the claims of its checks are counted on from it. */
static void claims_are_consecutive(void **state) {
    (void)state;
    fixture *f = fixture_new();
    size_t offset = 0;
    sent s;
    for (unsigned i = 0; i < 3; i++)
        check(f, 0, 0, SG_RESERVE);
    sg_pipeline_write(&f->pipeline);
    assert_true(next_command(&f->pipeline, &offset, &s));
    is_word(&s, 1, sg_scripts[SG_SCRIPT_DECIDE].sha1);
    is_word(&s, s.words - 2, "2");
    sg_bytes argument = {(const uint8_t *)s.word[s.words - 1], s.length[s.words - 1], false};
    EQUAL(sg_bytes_take(&argument, 7), 60000000);
    const uint64_t claim = sg_bytes_take(&argument, 7);
    assert_true(feed(f, "*4\r\n$-1\r\n$-1\r\n$-1\r\n" NOW));
    for (unsigned i = 0; i < 3; i++)
        EQUAL(f->fates[i].claim, claim + i);
    AT_MOST(claim, (UINT64_C(1) << 51) - 1);
    fixture_end(f);
}

/* ---- errors */

static void a_script_that_is_not_known_is_sent_whole(void **state) {
    (void)state;
    fixture *f = fixture_new();
    check(f, 0, 0, SG_HIT);
    check(f, 0, 0, SG_HIT);
    check(f, 0, 0, SG_PEEK);
    words(f, SG_SCRIPT_CHANGE, 0);
    SENDS(f, {"EVALSHA", 2, 0}, {"EVALSHA", 1, 2}, {"EVALSHA", 1, 3});
    check(f, 0, 0, SG_HIT); /* asked later, so it comes later */
    const char unknown[] = "-NOSCRIPT No matching script.\r\n";
    assert_true(feed(f, unknown));
    assert_true(feed(f, unknown));
    assert_true(feed(f, unknown));
    EQUAL(f->ended, 0);
    EQUAL(f->pipeline.waiting.count, 5);
    size_t offset = 0;
    sent s;
    sg_pipeline_write(&f->pipeline);
    assert_true(next_command(&f->pipeline, &offset, &s));
    is_word(&s, 0, "EVAL");
    is_word(&s, 1, sg_scripts[SG_SCRIPT_GCRA].text);
    is_key(&s, 3, 0);
    is_key(&s, 4, 1);
    assert_true(next_command(&f->pipeline, &offset, &s));
    is_word(&s, 1, sg_scripts[SG_SCRIPT_DECIDE].text);
    is_key(&s, 3, 2);
    assert_true(next_command(&f->pipeline, &offset, &s));
    is_word(&s, 1, sg_scripts[SG_SCRIPT_CHANGE].text);
    assert_true(next_command(&f->pipeline, &offset, &s));
    is_word(&s, 0, "EVALSHA");
    assert_false(next_command(&f->pipeline, &offset, &s));
    /* Who says so of a text that was sent makes no sense, and is not asked for ever. */
    assert_true(feed(f, unknown));
    fails_with(f, 0, SG_REFUSED, "NOSCRIPT No matching script.");
    fixture_end(f);
}

static void words_without_a_script_are_not_repeated(void **state) {
    (void)state;
    fixture *f = fixture_new();
    words(f, -1, 0);
    sg_pipeline_write(&f->pipeline);
    assert_true(feed(f, "-NOSCRIPT what?\r\n"));
    fails_with(f, 0, SG_REFUSED, "NOSCRIPT what?");
    fixture_end(f);
}

static void what_moved_goes_to_its_owner(void **state) {
    (void)state;
    fixture *f = fixture_new();
    check(f, 0, 0, SG_HIT);
    check(f, 1, 1, SG_HIT);
    sg_pipeline_write(&f->pipeline);
    assert_true(feed(f, "-MOVED 3999 127.0.0.1:6381\r\n-ASK 16383 [::1]:7\r\n"));
    EQUAL(f->fates[0].how, SG_MOVED);
    EQUAL(f->fates[0].slot, 3999);
    assert_string_equal(f->fates[0].text, "127.0.0.1:6381");
    EQUAL(f->fates[1].how, SG_ASK);
    EQUAL(f->fates[1].slot, 16383);
    fixture_end(f);
}

static void a_redirect_that_is_none_is_an_error(void **state) {
    (void)state;
    static const char *const texts[] = {"MOVED ",        "MOVED 1",        "MOVED 1 ",
                                        "MOVED x a:1",   "MOVED 16384 a:1", "ASK  a:1",
                                        "MOVED 99999999999 a:1", "MOVED", "ASK 1:2"};
    for (size_t i = 0; i < COUNT(texts); i++) {
        fixture *f = fixture_new();
        char reply[64];
        check(f, 0, 0, SG_HIT);
        sg_pipeline_write(&f->pipeline);
        snprintf(reply, sizeof reply, "-%s\r\n", texts[i]);
        assert_true(feed(f, reply));
        fails_with(f, 0, SG_REFUSED, texts[i]);
        fixture_end(f);
    }
}

/* Of a batch whose slot is being moved some keys are here and some there: one by one they are
 * found. */
static void a_batch_in_a_moving_slot_is_taken_apart(void **state) {
    (void)state;
    fixture *f = fixture_new();
    check(f, 0, 0, SG_HIT);
    check(f, 0, 0, SG_HIT);
    sg_pipeline_write(&f->pipeline);
    sg_pipeline_sent(&f->pipeline);
    assert_true(feed(f, "-TRYAGAIN Multiple keys request during rehashing of slot\r\n"));
    SENDS(f, {"EVALSHA", 1, 0}, {"EVALSHA", 1, 1});
    assert_true(feed(f, "-TRYAGAIN\r\n-ASK 5 a:1\r\n"));
    EQUAL(f->fates[0].how, SG_LATER);
    EQUAL(f->fates[1].how, SG_ASK);
    fixture_end(f);
}

static void asking_stands_before_its_command(void **state) {
    (void)state;
    fixture *f = fixture_new();
    f->fates[check(f, 0, 0, SG_HIT)].request->asking = true;
    SENDS(f, {"ASKING", 0, 0}, {"EVALSHA", 1, 0});
    assert_true(feed(f, "-ERR This instance has cluster support disabled\r\n"));
    EQUAL(f->ended, 0);
    assert_true(feed(f, "*2\r\n$-1\r\n" NOW));
    EQUAL(f->fates[0].decided, 1);
    fixture_end(f);
}

/* ---- replies out of shape */

static void a_reply_of_another_shape_ends_the_stream(void **state) {
    (void)state;
    static const char *const replies[] = {
        "*2\r\n$-1\r\n" NOW,                         /* too few */
        "*4\r\n$-1\r\n$-1\r\n$-1\r\n" NOW,           /* too many */
        "*3\r\n$-1\r\n$-1\r\n$-1\r\n",               /* no time */
        "*3\r\n$-1\r\n$-1\r\n:-1\r\n",               /* a time that cannot be */
        "*3\r\n" NOW "$-1\r\n$-1\r\n",               /* in another place */
        "*3\r\n$-1\r\n:5\r\n" NOW,                   /* a number for a text */
        "*3\r\n$-1\r\n+OK\r\n" NOW,                  /* a status */
        "*3\r\n$-1\r\n-ERR x\r\n" NOW,               /* an error within */
        "*3\r\n$-1\r\n*0\r\n" NOW,                   /* nested */
        "*3\r\n$-1\r\n*1\r\n$-1\r\n" NOW,            /* nested */
        "*2\r\n*2\r\n$-1\r\n$-1\r\n" NOW,            /* nested */
        "+OK\r\n", ":3\r\n", "$-1\r\n", "$2\r\nOK\r\n", "*-1\r\n", "*0\r\n",
    };
    for (size_t i = 0; i < COUNT(replies); i++) {
        fixture *f = fixture_new();
        check(f, 0, 0, SG_HIT);
        check(f, 0, 0, SG_HIT);
        sg_pipeline_write(&f->pipeline);
        assert_false(feed(f, replies[i]));
        EQUAL(f->ended, 0); /* the owner ends the connection, which fails them */
        sg_pipeline_drop(&f->pipeline, SG_UNSENT, "nonsense", 8);
        fails_with(f, 0, SG_LOST, "nonsense");
        fixture_end(f);
    }
}

static void a_reply_that_nobody_asked_for_ends_the_stream(void **state) {
    (void)state;
    fixture *f = fixture_new();
    assert_false(feed(f, "+hello\r\n"));
    sg_pipeline_lost(&f->pipeline, "", 0);
    check(f, 0, 0, SG_HIT);
    assert_false(feed(f, "*2\r\n$-1\r\n" NOW)); /* it was not sent yet */
    fixture_end(f);
}

static void words_take_any_reply(void **state) {
    (void)state;
    fixture *f = fixture_new();
    for (unsigned i = 0; i < 4; i++)
        words(f, -1, 0);
    sg_pipeline_write(&f->pipeline);
    assert_true(feed(f, "+PONG\r\n*1\r\n*1\r\n-ERR x\r\n$-1\r\n-ERR y\r\n"));
    EQUAL(f->fates[0].type, SG_RESP_STATUS);
    EQUAL(f->fates[1].type, SG_RESP_ARRAY);
    EQUAL(f->fates[2].type, SG_RESP_NIL);
    fails_with(f, 3, SG_REFUSED, "ERR y");
    fixture_end(f);
}

static void replies_may_be_cut_anywhere(void **state) {
    (void)state;
    const char text[] = "*3\r\n$-1\r\n$9\r\n\0\0\0\0\0\0\0\0\0\r\n" NOW
                        "+PONG\r\n*2\r\n$-1\r\n" NOW;
    const size_t length = sizeof text - 1;
    for (size_t cut = 0; cut <= length; cut++) {
        fixture *f = fixture_new();
        check(f, 0, 0, SG_HIT);
        check(f, 0, 0, SG_HIT);
        words(f, -1, 0);
        check(f, 1, 0, SG_PEEK);
        sg_pipeline_write(&f->pipeline);
        assert_true(sg_pipeline_feed(&f->pipeline, text, cut));
        assert_true(sg_pipeline_feed(&f->pipeline, text + cut, length - cut));
        EQUAL(f->ended, 4);
        for (size_t i = 0; i < 4; i++)
            EQUAL(f->fates[i].decided + f->fates[i].replied, 1);
        fixture_end(f);
    }
}

/* ---- ends */

static void what_is_late_fails_and_its_reply_is_skipped(void **state) {
    (void)state;
    fixture *f = fixture_new();
    int64_t next;
    check(f, 0, 0, SG_HIT);
    check(f, 0, 0, SG_HIT);
    f->fates[1].request->deadline_ns = 2000;
    sg_pipeline_write(&f->pipeline);
    check(f, 0, 0, SG_HIT);
    f->fates[check(f, 0, 0, SG_HIT)].request->deadline_ns = 1500;
    EQUAL(sg_pipeline_expire(&f->pipeline, 999, &next), 0);
    EQUAL(next, 1000);
    EQUAL(sg_pipeline_expire(&f->pipeline, 1000, &next), 2);
    EQUAL(next, 1500);
    fails_with(f, 0, SG_TIMED_OUT, "");
    fails_with(f, 2, SG_UNSENT, "");
    EQUAL(f->pipeline.flying, 2);
    assert_true(feed(f, "*3\r\n$-1\r\n$-1\r\n" NOW));
    EQUAL(f->fates[0].decided, 0);
    EQUAL(f->fates[1].decided, 1);
    EQUAL(sg_pipeline_expire(&f->pipeline, 5000, &next), 1);
    EQUAL(next, INT64_MAX);
    fixture_end(f);
}

/* Where the connection ends, what charges nothing is asked again, before what waits. */
static void what_was_lost_is_asked_again_if_it_charges_nothing(void **state) {
    (void)state;
    fixture *f = fixture_new();
    check(f, 0, 0, SG_HIT);
    check(f, 0, 0, SG_PEEK);
    check(f, 1, 0, SG_PEEK);
    f->fates[2].request->deadline_ns = 1;
    sg_pipeline_write(&f->pipeline);
    int64_t next;
    EQUAL(sg_pipeline_expire(&f->pipeline, 1, &next), 1);
    sg_pipeline_sent(&f->pipeline);
    check(f, 0, 0, SG_PEEK);
    assert_true(feed(f, "*2\r\n$-1")); /* a part of a reply goes with it */
    sg_pipeline_lost(&f->pipeline, "gone", 4);
    fails_with(f, 0, SG_LOST, "gone");
    EQUAL(f->pipeline.waiting.count, 2);
    SENDS(f, {"EVALSHA", 1, 1});
    assert_true(feed(f, "*3\r\n$-1\r\n$-1\r\n" NOW));
    EQUAL(f->fates[1].decided + f->fates[3].decided, 2);
    fixture_end(f);
}

/* What belongs elsewhere by now is no place to put others behind. */
static void what_was_taken_leaves_no_place_behind(void **state) {
    (void)state;
    fixture *f = fixture_new();
    for (unsigned i = 0; i < 2; i++) {
        check(f, 0, 0, SG_PEEK);
        sg_pipeline_write(&f->pipeline);
        sg_pipeline_sent(&f->pipeline);
    }
    assert_true(feed(f, "-NOSCRIPT No matching script.\r\n")); /* the first waits once more */
    sg_request *taken = sg_pipeline_take_waiting(&f->pipeline);
    assert_ptr_equal(taken, f->fates[0].request);
    assert_null(taken->next);
    sg_pipeline_lost(&f->pipeline, "gone", 4);
    assert_null(taken->next);
    assert_ptr_equal(f->pipeline.waiting.first, f->fates[1].request);
    EQUAL(f->pipeline.waiting.count, 1);
    sg_pipeline_add(&f->pipeline, taken);
    fixture_end(f);
}

/* Half a reply, and nonsense, say nothing of what the next connection brings. */
static void what_was_read_of_a_dropped_stream_is_gone(void **state) {
    (void)state;
    static const char *const rests[] = {"*2\r\n$100\r\nabc", "nonsense\r\n"};
    for (size_t i = 0; i < COUNT(rests); i++) {
        fixture *f = fixture_new();
        check(f, 0, 0, SG_HIT);
        sg_pipeline_write(&f->pipeline);
        EQUAL(feed(f, rests[i]), i == 0);
        sg_pipeline_drop(&f->pipeline, SG_UNSENT, "silent", 6);
        check(f, 0, 0, SG_HIT);
        sg_pipeline_write(&f->pipeline);
        assert_true(feed(f, "*2\r\n$-1\r\n" NOW));
        EQUAL(f->fates[1].decided, 1);
        fixture_end(f);
    }
}

static void a_drop_fails_all(void **state) {
    (void)state;
    fixture *f = fixture_new();
    check(f, 0, 0, SG_HIT);
    sg_pipeline_write(&f->pipeline);
    check(f, 0, 0, SG_HIT);
    sg_pipeline_drop(&f->pipeline, SG_UNSENT, "closed", 6);
    fails_with(f, 0, SG_LOST, "closed"); /* it may be charged */
    fails_with(f, 1, SG_UNSENT, "closed");
    EQUAL(f->pipeline.out_used, 0);
    fixture_end(f);
}

static void what_nobody_waits_for_is_not_sent(void **state) {
    (void)state;
    fixture *f = fixture_new();
    check(f, 0, 0, SG_HIT);
    f->fates[check(f, 0, 0, SG_HIT)].unwanted = true;
    check(f, 0, 0, SG_HIT);
    sg_pipeline_write(&f->pipeline);
    EQUAL(f->pipeline.flying, 2);
    EQUAL(f->fates[1].forgotten, 1);
    EQUAL(f->ended, 0);
    f->fates[0].unwanted = true; /* too late: its reply comes all the same */
    assert_true(feed(f, "*3\r\n$-1\r\n$-1\r\n" NOW));
    fixture_end(f);
}

/* ---- an owner who does something when called back */

static void drops(fixture *f, size_t id) {
    (void)id;
    sg_pipeline_drop(&f->pipeline, SG_UNSENT, "closed", 6);
}

static void loses(fixture *f, size_t id) {
    (void)id;
    sg_pipeline_lost(&f->pipeline, "gone", 4);
}

static void writes(fixture *f, size_t id) {
    if (id < ASKS / 2)
        check(f, 0, 0, SG_HIT);
    sg_pipeline_write(&f->pipeline);
}

static void feeds(fixture *f, size_t id) {
    (void)id;
    if (f->pipeline.handling)
        assert_false(feed(f, "+OK\r\n"));
}

static void an_owner_may_end_it_in_the_midst(void **state) {
    (void)state;
    static void (*const reactions[])(fixture *, size_t) = {drops, loses, writes, feeds};
    for (unsigned i = 0; i < 5 * COUNT(reactions); i++) {
        fixture *f = fixture_new();
        int64_t next;
        for (unsigned n = 0; n < 30; n++) {
            check(f, n % 3, n % 2, n % 5 ? SG_HIT : SG_PEEK);
            if (n == 20)
                sg_pipeline_write(&f->pipeline);
        }
        f->react = reactions[i / 5];
        switch (i % 5) {
        case 0: (void)feed(f, "*6\r\n$-1\r\n$-1\r\n$-1\r\n$-1\r\n$-1\r\n" NOW "-ERR x\r\n"); break;
        case 1: (void)sg_pipeline_expire(&f->pipeline, 1000, &next); break;
        case 2: sg_pipeline_lost(&f->pipeline, "", 0); break;
        case 3: sg_pipeline_drop(&f->pipeline, SG_UNSENT, "", 0); break;
        default: (void)feed(f, "-ERR x\r\n-NOSCRIPT\r\n-MOVED 1 a:1\r\n"); break;
        }
        fixture_end(f);
    }
}

/* What is asked in the midst of a failure comes after what has waited longer. */
static void asks_again(fixture *f, size_t id) {
    if (id < 10)
        check(f, 0, 0, SG_HIT);
}

static void what_waits_keeps_its_order_when_some_fail(void **state) {
    (void)state;
    fixture *f = fixture_new();
    int64_t next;
    for (unsigned i = 0; i < 4; i++)
        f->fates[check(f, 0, 0, SG_HIT)].request->deadline_ns = i % 2 ? 2000 : 1000;
    f->react = asks_again;
    EQUAL(sg_pipeline_expire(&f->pipeline, 1000, &next), 2);
    EQUAL(f->pipeline.waiting.count, 4);
    size_t offset = 0;
    sent s;
    sg_pipeline_write(&f->pipeline);
    assert_true(next_command(&f->pipeline, &offset, &s));
    is_key(&s, 3, 1);
    is_key(&s, 4, 3);
    is_key(&s, 5, 4);
    is_key(&s, 6, 5);
    fixture_end(f);
}

/* ---- anything */

/* What a server might say. */
static void any_reply(char *out, size_t room) {
    static const char *const errors[] = {
        "-NOSCRIPT No matching script.\r\n", "-MOVED 3999 127.0.0.1:6381\r\n", "-ASK 7 a:1\r\n",
        "-TRYAGAIN x\r\n", "-LOADING x\r\n", "-ERR wrong\r\n", "+OK\r\n", ":1\r\n"};
    unsigned count = 1 + (unsigned)random_below(3);
    size_t used = 0;
    if (random_below(3) == 0) {
        snprintf(out, room, "%s", errors[random_below(COUNT(errors))]);
        return;
    }
    used += (size_t)snprintf(out, room, "*%u\r\n", count + 1);
    while (count-- > 0)
        used += (size_t)snprintf(out + used, room - used, "%s",
                                 random_below(2) ? "$-1\r\n" : "$9\r\nabcdefghi\r\n");
    snprintf(out + used, room - used, NOW);
}

static void does_anything(fixture *f, size_t id) {
    (void)id;
    if (f->asked + 8 > ASKS)
        return;
    switch (random_below(16)) {
    case 0: drops(f, id); break;
    case 1: loses(f, id); break;
    case 2: writes(f, id); break;
    case 3: check(f, 0, (unsigned)random_below(PLANS), (sg_check_op)random_below(3)); break;
    case 4: feeds(f, id); break;
    default: break;
    }
}

static void step(fixture *f, int64_t *now) {
    char reply[256];
    int64_t next;
    size_t id;
    switch (random_below(12)) {
    case 0:
    case 1:
    case 2:
    case 3:
        id = check(f, (unsigned)random_below(ORDERS), (unsigned)random_below(PLANS),
                   (sg_check_op)random_below(3));
        f->fates[id].request->deadline_ns = *now + 1 + (int64_t)random_below(30);
        f->fates[id].request->slot = (unsigned)random_below(2);
        f->fates[id].request->asking = random_below(8) == 0;
        f->fates[id].unwanted = random_below(8) == 0;
        break;
    case 4:
        id = words(f, random_below(2) ? -1 : (int)random_below(SG_SCRIPTS), 0);
        f->fates[id].request->repeatable = random_below(2);
        break;
    case 5:
    case 6:
        sg_pipeline_write(&f->pipeline);
        sg_pipeline_sent(&f->pipeline);
        break;
    case 7:
    case 8:
    case 9: {
        size_t length, at = 0;
        any_reply(reply, sizeof reply);
        length = strlen(reply);
        for (uint64_t n = random_below(6) == 0 ? 1 + random_below(3) : 0; n > 0; n--)
            reply[random_below(length)] = random_below(2) ? "*$:+-\r\n0189"[random_below(11)]
                                                          : (char)random_bits();
        while (at < length) {
            const size_t piece = 1 + random_below(length - at);
            char *exact = malloc(piece);
            memcpy(exact, reply + at, piece);
            const bool good = sg_pipeline_feed(&f->pipeline, exact, piece);
            free(exact);
            at += piece;
            if (!good) {
                sg_pipeline_drop(&f->pipeline, SG_UNSENT, "nonsense", 8);
                break;
            }
        }
        break;
    }
    case 10: (void)sg_pipeline_expire(&f->pipeline, *now, &next); break;
    default:
        if (random_below(4) == 0)
            sg_pipeline_lost(&f->pipeline, "gone", 4);
        break;
    }
    *now += (int64_t)random_below(4);
}

static size_t run_by_chance(unsigned steps) {
    fixture *f = fixture_new();
    int64_t now = 0;
    if (f == NULL)
        return 0;
    f->by_chance = true;
    f->react = does_anything;
    for (unsigned n = 0; n < steps && f->asked + 8 < ASKS; n++)
        step(f, &now);
    size_t decided = 0;
    for (size_t i = 0; i < f->asked; i++)
        decided += f->fates[i].decided;
    f->by_chance = false;
    memory_fail_at(0);
    fixture_end(f);
    return decided;
}

static void every_request_ends_once(void **state) {
    (void)state;
    size_t decided = 0;
    for (unsigned round = 0; round < 1500; round++)
        decided += run_by_chance(300);
    printf("decided: %zu\n", decided);
    assert_true(decided > 1000);
}

static void every_allocation_may_fail(void **state) {
    (void)state;
    const uint64_t from = random_get();
    for (uint64_t fail = 1;; fail++) {
        random_set(from);
        memory_fail_at(fail);
        run_by_chance(400);
        memory_fail_at(fail);
        fixture *f = fixture_new();
        if (f != NULL) {
            for (unsigned i = 0; i < 600; i++)
                check(f, i % 3, i % PLANS, (sg_check_op)(i % 3));
            sg_pipeline_write(&f->pipeline);
            (void)feed(f, "-NOSCRIPT\r\n");
            sg_pipeline_write(&f->pipeline);
            for (size_t i = 0; i < f->asked; i++) {
                if (f->fates[i].failed > 0)
                    EQUAL(f->fates[i].failure, SG_NO_ROOM);
            }
        }
        const uint64_t failures = memory_failures();
        memory_fail_at(0);
        if (f != NULL)
            fixture_end(f);
        if (failures == 0)
            break;
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(checks_of_one_kind_leave_together),
        cmocka_unit_test(groups_of_two_limiters_are_found),
        cmocka_unit_test(a_batch_is_cut),
        cmocka_unit_test(a_limiter_keeps_its_order),
        cmocka_unit_test(slots_leave_apart),
        cmocka_unit_test(claims_are_consecutive),
        cmocka_unit_test(a_script_that_is_not_known_is_sent_whole),
        cmocka_unit_test(words_without_a_script_are_not_repeated),
        cmocka_unit_test(what_moved_goes_to_its_owner),
        cmocka_unit_test(a_redirect_that_is_none_is_an_error),
        cmocka_unit_test(a_batch_in_a_moving_slot_is_taken_apart),
        cmocka_unit_test(asking_stands_before_its_command),
        cmocka_unit_test(a_reply_of_another_shape_ends_the_stream),
        cmocka_unit_test(a_reply_that_nobody_asked_for_ends_the_stream),
        cmocka_unit_test(words_take_any_reply),
        cmocka_unit_test(replies_may_be_cut_anywhere),
        cmocka_unit_test(what_is_late_fails_and_its_reply_is_skipped),
        cmocka_unit_test(what_was_lost_is_asked_again_if_it_charges_nothing),
        cmocka_unit_test(what_was_taken_leaves_no_place_behind),
        cmocka_unit_test(what_was_read_of_a_dropped_stream_is_gone),
        cmocka_unit_test(a_drop_fails_all),
        cmocka_unit_test(what_nobody_waits_for_is_not_sent),
        cmocka_unit_test(an_owner_may_end_it_in_the_midst),
        cmocka_unit_test(what_waits_keeps_its_order_when_some_fail),
        cmocka_unit_test(every_request_ends_once),
        cmocka_unit_test(every_allocation_may_fail),
    };
    random_seed();
    return cmocka_run_group_tests_name("pipeline", tests, NULL, NULL);
}
