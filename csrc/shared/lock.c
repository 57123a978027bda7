#include "lock.h"

#include <sched.h>
#include <time.h>

#include "file.h"
#include "moment.h"
#include "pages.h"

#if defined(__x86_64__) || defined(__i386__)
#define RELAX() __builtin_ia32_pause()
#else
#define RELAX() ((void)0)
#endif

#define SPINS 64u   /* a holder that runs is done within less */
#define YIELDS 32u  /* then it needs the processor */
#define NAP_NS 50000
#define LOOK_NS INT64_C(1000000) /* a look costs some microseconds: one a millisecond */
/* A holder that was not seen running so many times in a row is no longer just waiting for a
 * processor, or for a page. */
#define LOOKS 4u
/* A holder that runs and does not let go for so long does not have it: the file was damaged.
 * One of the lowest priority gets the processor back within seconds even among a hundred busy
 * ones. */
#define GIVE_UP_NS INT64_C(30000000000)

static void nap(void) {
    const struct timespec t = {.tv_nsec = NAP_NS};
    nanosleep(&t, NULL);
}

/* What the holder said of itself before it took the lock is seen by who sees it taken. */
static uint64_t read_word(const sg_lock *lock) {
    return __atomic_load_n(&lock->word, __ATOMIC_ACQUIRE);
}

static bool swap_word(sg_lock *lock, uint64_t *word, uint64_t next) {
    return __atomic_compare_exchange_n(&lock->word, word, next, false, __ATOMIC_ACQ_REL,
                                       __ATOMIC_RELAXED);
}

static uint64_t offset_of(const sg_locks *locks, const sg_lock *lock) {
    return (uintptr_t)lock - locks->map.base;
}

/* The seat that a word names, or NULL: a damaged word names any. */
static sg_seat *seat_of(const sg_locks *locks, uint64_t holder) {
    return holder >= 1 && holder <= locks->map.seats ? &locks->seats[holder - 1] : NULL;
}

/* ---- what a lock is about */

static const uint64_t directory_at = SG_FILE_HEADER + offsetof(sg_root, lock);

/* The page at an offset, or UINT64_MAX. */
static uint64_t page_of(const sg_map *map, uint64_t offset) {
    const uint64_t page = (offset - map->pages_at) / SG_PAGE;
    return offset >= map->pages_at && page < map->pages ? page : UINT64_MAX;
}

bool sg_lock_is_at(const sg_locks *locks, uint64_t offset) {
    const uint64_t page = page_of(&locks->map, offset);
    if (offset == directory_at)
        return true;
    return page != UINT64_MAX && offset % SG_SHARD_BYTES == 0 &&
           sg_page_owner(&locks->map, page) >= SG_ROW_OWNER(0);
}

typedef struct {
    const sg_map *map;
    uint64_t lock;
} protected;

/* Whatever damaged notes say, under the lock nothing else was changed. The rest may be in
 * use by others just now. */
static bool is_protected(const void *context, uint64_t offset, uint64_t size) {
    const protected *p = context;
    const uint64_t end = offset + size, page = page_of(p->map, offset);
    if (size == 0 || size > SG_UNDO_BYTES || end < offset)
        return false;
    if (p->lock == directory_at)
        return offset >= SG_FILE_HEADER + offsetof(sg_root, entries) &&
               end <= SG_FILE_HEADER + sizeof(sg_root);
    if (offset >= p->lock + sizeof(sg_lock) && end <= p->lock + SG_SHARD_BYTES)
        return true;
    return page != UINT64_MAX && page_of(p->map, end - 1) == page &&
           sg_page_owner(p->map, page) == p->lock / SG_SHARD_BYTES;
}

void sg_lock_undo(const sg_locks *locks, sg_seat *seat, const sg_lock *lock) {
    const protected p = {.map = &locks->map, .lock = offset_of(locks, lock)};
    (void)sg_undo_all(&seat->undo, locks->map.base, is_protected, &p);
}

/* ---- holders */

/* How the holder of `word` does. Dead, too, where nobody can have it: the seat is not taken,
 * or has another lock, or none. */
static sg_owner_state look(const sg_locks *locks, const sg_lock *lock, uint64_t word) {
    const sg_seat *seat = seat_of(locks, sg_lock_holder(word));
    if (seat == NULL || seat == &locks->seats[locks->mine])
        return SG_OWNER_DEAD;
    const sg_owner process = __atomic_load_n(&seat->process, __ATOMIC_RELAXED);
    const sg_owner thread = __atomic_load_n(&seat->thread, __ATOMIC_RELAXED);
    const uint64_t holding = __atomic_load_n(&seat->holding, __ATOMIC_ACQUIRE);
    if (process == 0 || holding != offset_of(locks, lock))
        return SG_OWNER_DEAD;
    /* The word is read again by who acts on this: if it is the same, so was the holding. */
    return sg_owner_look(thread);
}

/* Takes the lock over from a dead holder and undoes what it left half done. */
static bool inherit(sg_locks *locks, sg_lock *lock, uint64_t word) {
    /* Who died while it undid another's changes had made none of its own. */
    const uint64_t dead = sg_lock_dead(word) != 0 ? sg_lock_dead(word) : sg_lock_holder(word);
    uint64_t mine = sg_lock_next(word, locks->mine + 1u, dead);
    if (read_word(lock) != word || !swap_word(lock, &word, mine))
        return false;
    sg_seat *seat = seat_of(locks, dead);
    if (seat != NULL && seat != &locks->seats[locks->mine] &&
        __atomic_load_n(&seat->holding, __ATOMIC_ACQUIRE) == offset_of(locks, lock))
        sg_lock_undo(locks, seat, lock);
    __atomic_store_n(&lock->word, sg_lock_next(mine, locks->mine + 1u, 0), __ATOMIC_RELEASE);
    locks->inherited++;
    return true;
}

/* ---- waiting */

static sg_stall *stall_of(sg_locks *locks, const sg_lock *lock) {
    const uint64_t offset = offset_of(locks, lock);
    return &locks->stalls[(offset >> 6 ^ offset >> 12) % SG_STALLS];
}

/* Whether the lock is as it was when it was found stalled, so that nobody waits again. */
static bool is_stalled(sg_locks *locks, const sg_lock *lock, uint64_t word, int64_t now) {
    sg_stall *stall = stall_of(locks, lock);
    if (stall->lock != offset_of(locks, lock) || stall->word != word)
        return false;
    if (now - stall->looked_ns < LOOK_NS)
        return true;
    stall->looked_ns = now;
    const sg_owner_state state = look(locks, lock, word);
    return state == SG_OWNER_STOPPED || state == SG_OWNER_SLEEPS ||
           (state == SG_OWNER_RUNS && stall->for_good);
}

static sg_lock_result stalled(sg_locks *locks) {
    __atomic_store_n(&locks->seats[locks->mine].holding, 0, __ATOMIC_RELEASE);
    locks->stalled++;
    return SG_LOCK_STALLED;
}

sg_lock_result sg_lock_wait(sg_locks *locks, sg_lock *lock) {
    int64_t started = 0, looked = 0, moved = 0;
    uint64_t seen = 0; /* the word, since `moved` */
    unsigned still = 0;
    for (unsigned turn = 0;; turn++) {
        uint64_t word = read_word(lock);
        if (sg_lock_holder(word) == 0 && !sg_lock_is_free(word)) {
            if (inherit(locks, lock, word))
                return SG_LOCK_INHERITED;
            continue;
        }
        if (sg_lock_is_free(word)) {
            if (swap_word(lock, &word, sg_lock_next(word, locks->mine + 1u, 0)))
                return SG_LOCK_TAKEN;
            continue;
        }
        if (turn < SPINS) {
            RELAX();
            continue;
        }
        const int64_t now = sg_moment_ns();
        if (started == 0) {
            if (is_stalled(locks, lock, word, now))
                return stalled(locks);
            started = looked = now;
        }
        if (word != seen) {
            /* A lock that moves is waited for, however often others are quicker. */
            seen = word;
            moved = now;
            still = 0;
        }
        if (now - looked >= LOOK_NS) {
            looked = now;
            const sg_owner_state state = look(locks, lock, word);
            if (state == SG_OWNER_DEAD) {
                if (inherit(locks, lock, word))
                    return SG_LOCK_INHERITED;
                continue;
            }
            still = state != SG_OWNER_RUNS ? still + 1 : 0;
            const bool for_good = now - moved >= GIVE_UP_NS;
            if (for_good || (now - started >= SG_LOCK_WAIT_NS - 2 * LOOK_NS && still >= LOOKS)) {
                *stall_of(locks, lock) = (sg_stall){.lock = offset_of(locks, lock),
                                                    .word = word,
                                                    .looked_ns = now,
                                                    .for_good = for_good};
                return stalled(locks);
            }
        }
        if (turn < SPINS + YIELDS)
            sched_yield();
        else
            nap();
    }
}
