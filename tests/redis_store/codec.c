/* csrc/redis for ctypes: what the tests of tests/redis drive servers with. Built by codec.py. */
#include <stdlib.h>
#include <string.h>

#include "command.h"
#include "name.h"
#include "request.h"
#include "slot.h"


typedef struct {
    uint32_t seen, allowed, shadow, binding;
    uint64_t remaining, retry, reset, level;
} answer;

typedef struct {
    uint32_t algorithm, shadow, hole, unused;
    uint64_t limit, period_us, burst, keep_us;
} numbers;

static void *test_alloc(void *context, size_t size) {
    (void)context;
    return calloc(1, size);
}

static void test_free(void *context, void *pointer, size_t size) {
    (void)context;
    (void)size;
    free(pointer);
}

sg_plan *codec_plan(unsigned count, const numbers *given) {
    sg_quota quotas[SG_QUOTAS_MAX] = {0};
    uint8_t algorithms[SG_QUOTAS_MAX];
    uint64_t keep[SG_QUOTAS_MAX];
    for (unsigned i = 0; i < count; i++) {
        const numbers *n = &given[i];
        algorithms[i] = (uint8_t)n->algorithm;
        keep[i] = n->keep_us;
        quotas[i].unlimited = n->hole != 0;
        if (!n->hole && sg_quota_init(&quotas[i], (sg_algorithm)n->algorithm, n->limit,
                                      n->period_us, n->burst, n->shadow != 0) != SG_QUOTA_OK)
            return NULL;
    }
    sg_plan *plan = malloc(sizeof *plan);
    if (plan != NULL)
        sg_plan_init(plan, count, algorithms, quotas, keep);
    return plan;
}

void codec_release(void *memory) { free(memory); }
sg_command *codec_command(void) { return calloc(1, sizeof(sg_command)); }
void codec_command_free(sg_command *command) {
    sg_command_free(command);
    free(command);
}
unsigned codec_plan_logs(const sg_plan *plan) { return plan->logs; }
const uint8_t *codec_plan_bytes(const sg_plan *plan) { return plan->bytes; }
size_t codec_plan_length(const sg_plan *plan) { return plan->length; }

/* `checks` names behind one another, and as many rows of costs. */
bool codec_batch(const sg_plan *plan, unsigned op, unsigned checks, const char *names,
                     const size_t *lengths, const uint64_t *costs, uint64_t ttl_us,
                     uint64_t claim, sg_command *command) {
    bool good = true;
    sg_batch *batch = calloc(1, sizeof *batch);
    sg_batch_begin(batch, plan, (sg_check_op)op);
    for (unsigned i = 0; i < checks && good; i++) {
        good = sg_batch_add(batch, names, lengths[i], costs + i * plan->count);
        names += lengths[i];
    }
    sg_batch_command(batch, ttl_us, claim, command);
    sg_batch_free(batch);
    free(batch);
    return good;
}

size_t codec_ticket_size(void) { return sizeof(sg_ticket); }
bool codec_ticket_open(const sg_ticket *ticket) { return ticket->open; }

void codec_answer(const sg_plan *plan, unsigned op, const uint64_t *costs, const char *bytes,
                      size_t length, uint64_t now_us, uint64_t ttl_us, uint64_t claim,
                      answer *out, sg_ticket *ticket) {
    sg_decision d;
    memset(&d, 0, sizeof d);
    sg_seen seen = op == SG_PEEK ? sg_answer_peek(plan, costs, bytes, length, now_us, &d)
                   : op == SG_HIT
                       ? sg_answer_hit(plan, costs, bytes, length, now_us, &d)
                       : sg_answer_reserve(plan, costs, ttl_us, claim, bytes, length, now_us, &d,
                                           ticket);
    *out = (answer){.seen = seen, .allowed = d.allowed, .shadow = d.shadow, .binding = d.binding,
                    .retry = d.verdict.retry, .reset = d.verdict.reset, .level = d.verdict.level};
    if (seen != SG_SEEN_ERROR && d.binding < SG_QUOTAS_MAX)
        out->remaining = sg_remaining(&plan->quotas[d.binding], &d.verdict);
}

void codec_key(sg_command *command, const sg_plan *plan, const char *name, size_t length) {
    sg_command_key(command, name, length);
    sg_command_rings(command, plan, name, length);
}

size_t codec_row(const sg_plan *plan, unsigned change, const uint64_t *costs, uint8_t *out) {
    return change ? sg_row_of_change(plan, costs, out) : sg_row_of_costs(plan, costs, out);
}

size_t codec_settle(const sg_plan *plan, sg_ticket *ticket, const uint64_t *costs,
                        uint8_t *out) {
    ticket->open = false;
    return sg_settle_argument(plan, ticket, costs, out);
}

int codec_project(const sg_plan *plan, const char **values, const size_t *lengths,
                      uint64_t now_us, const uint64_t *costs, size_t events, uint64_t *wait) {
    const sg_allocator allocator = {.alloc = test_alloc, .free = test_free};
    sg_text texts[SG_QUOTAS_MAX + 1];
    sg_seen seen;
    for (unsigned i = 0; i <= plan->logs; i++)
        texts[i] = (sg_text){.bytes = values[i], .length = lengths[i]};
    sg_status status = sg_answer_project(plan, &allocator, texts, now_us, costs, events, &seen,
                                         wait);
    return status != SG_OK || seen == SG_SEEN_ERROR ? -1 : (int)seen;
}

size_t codec_name(const char *prefix, size_t prefix_length, const char *limiter,
                      size_t limiter_length, const char *subject, size_t length, char *out) {
    const sg_secret secret = sg_name_secret(prefix, prefix_length);
    char *head = malloc(sg_name_head_room(prefix_length, limiter_length));
    const size_t used = sg_name_head(prefix, prefix_length, limiter, limiter_length, head);
    const size_t all = sg_name_write(head, used, &secret, subject, length, out);
    free(head);
    return all;
}
