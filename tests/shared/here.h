/* A file that processes share, in a directory of its own, and limiters in it: what the tests
 * of csrc/shared begin with. */
#ifndef HERE_H
#define HERE_H

#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "limiter.h"
#include "shared.h"
#include "support.h"

#define HERE_SIZE SG_SHARED_SIZE_MIN

/* gcc and clang tell of a sanitizer each in their own way. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

typedef struct {
    char directory[64];
    char path[96];
} place;

static inline void place_make(place *p) {
    struct stat st;
    (void)snprintf(p->directory, sizeof p->directory, "%s/sluicegate.XXXXXX",
                   stat("/dev/shm", &st) == 0 && access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    assert_non_null(mkdtemp(p->directory));
    (void)snprintf(p->path, sizeof p->path, "%s/shared", p->directory);
}

static inline void place_remove(place *p) {
    (void)unlink(p->path);
    EQUAL(rmdir(p->directory), 0); /* nothing else was left in it */
}

static inline void open_file(sg_shared *shared, const place *p, uint64_t size) {
    sg_file_error error;
    int system_error;
    const sg_shared_error result = sg_shared_open(shared, p->path, size, true, &error, &system_error);
    if (result == SG_SHARED_FILE)
        fail_msg("%s: %s", p->path, sg_file_why(error));
    EQUAL(result, SG_SHARED_OK);
}

static inline void open_limiter(sg_shared_table *t, sg_shared *shared, const char *name,
                                unsigned count, const sg_quota *quotas) {
    uint8_t algorithms[SG_QUOTAS_MAX];
    for (unsigned i = 0; i < count; i++)
        algorithms[i] = quotas[i].algorithm;
    EQUAL(sg_shared_table_open(t, shared, name, strlen(name), "", 0, count, algorithms),
          SG_SHARED_OK);
    for (unsigned i = 0; i < count; i++)
        sg_table_learn(&t->table, i, &quotas[i]);
}

static inline void must_be_good(sg_shared_table *t) {
    const char *what = "";
    const uint64_t faults = sg_shared_check(t, &what);
    if (faults != 0)
        fail_msg("%llu faults, the first: %s", (unsigned long long)faults, what);
}

static inline sg_decision shared_hit(sg_shared_table *t, const sg_quota *quotas, uint64_t key,
                                     const uint64_t *costs, sg_ticks now) {
    sg_decision decision;
    assert_true(sg_shared_enter(t, key_of(key)));
    EQUAL(sg_hit(&t->table, quotas, key_of(key), costs, now, &decision), SG_OK);
    sg_shared_leave(t);
    return decision;
}

/* Waits for a child and wants it to have ended well. */
static inline void must_end_well(pid_t pid) {
    int status;
    EQUAL(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    EQUAL(WEXITSTATUS(status), 0);
}

#endif
