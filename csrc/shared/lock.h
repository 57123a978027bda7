/* Locks in a mapping, which outlive whoever takes them.
 *
 * A lock is one word: the seat that has it, the seat whose changes its holder has still to
 * undo, and a count that changes each time it is taken, so that nobody mistakes one holding
 * for another. There is no pthread object in the mapping: glibc keeps pointers in a robust
 * mutex, which whoever writes the file could aim anywhere.
 *
 * Who waits yields the processor, and looks at the holder now and then. Of a dead one the
 * lock is taken over and what it left half done is undone. A holder that the system has not
 * yet given the processor back is waited for. One that is stopped is not: the lock is
 * stalled, and stays so for this process until the holder moves.
 *
 * A process takes one lock at a time. */
#ifndef SG_LOCK_H
#define SG_LOCK_H

#include <sys/types.h>

#include "layout.h"

typedef enum {
    SG_LOCK_TAKEN = 0,
    SG_LOCK_INHERITED, /* taken from a dead holder, whose changes were undone */
    SG_LOCK_STALLED,   /* not to be had within SG_LOCK_WAIT_NS */
} sg_lock_result;

#define SG_LOCK_WAIT_NS INT64_C(20000000)

/* A lock that was found stalled, and when its holder was last looked at. */
typedef struct {
    uint64_t lock, word;
    int64_t looked_ns;
    bool for_good; /* the holder seemed to run, and was waited for in vain */
} sg_stall;

#define SG_STALLS 16u

/* One process's side of the locks. */
typedef struct {
    sg_map map;
    sg_seat *seats;
    uint32_t mine; /* index of this process's */
    sg_owner process, thread;
    pid_t pid;
    uint64_t inherited, stalled; /* how often */
    sg_stall stalls[SG_STALLS];
} sg_locks;

/* ---- the word */

static inline uint64_t sg_lock_holder(uint64_t word) { return word & 0xfff; } /* seat + 1 */
static inline uint64_t sg_lock_dead(uint64_t word) { return word >> 12 & 0xfff; }

/* In the place of a dead seat: its changes were undone, and what else an heir does is still to
 * be done. */
#define SG_LOCK_UNDONE 0xfffu

static inline bool sg_lock_is_free(uint64_t word) { return (word & 0xffffff) == 0; }

/* The word that follows when `holder` has the lock, with `dead`'s changes still to undo. */
static inline uint64_t sg_lock_next(uint64_t word, uint64_t holder, uint64_t dead) {
    return ((word >> 24) + 1) << 24 | dead << 12 | holder;
}

/* ---- seats */

/* Takes a seat for this process. False: all are taken by the living. */
bool sg_seat_take(sg_locks *locks);
void sg_seat_leave(sg_locks *locks);

/* Before a lock is taken: that the seat says which thread acts, and is not that of the
 * process which this one was forked from. False: there is no seat for the child. */
bool sg_seat_renew(sg_locks *locks);

static inline bool sg_seat_ready(sg_locks *locks) {
    return SG_LIKELY(locks->thread == sg_owner_self()) || sg_seat_renew(locks);
}

/* How many processes have a seat and live. */
uint32_t sg_seats_alive(const sg_locks *locks);

/* ---- taking and leaving */

sg_lock_result sg_lock_wait(sg_locks *locks, sg_lock *lock);

static inline sg_lock_result sg_lock_take(sg_locks *locks, sg_lock *lock) {
    sg_seat *seat = &locks->seats[locks->mine];
    uint64_t word = __atomic_load_n(&lock->word, __ATOMIC_RELAXED);
    __atomic_store_n(&seat->holding, (uintptr_t)lock - locks->map.base, __ATOMIC_RELAXED);
    /* Whoever sees it taken sees by whom. */
    if (SG_LIKELY(sg_lock_is_free(word) &&
                  __atomic_compare_exchange_n(&lock->word, &word,
                                              sg_lock_next(word, locks->mine + 1u, 0), false,
                                              __ATOMIC_ACQ_REL, __ATOMIC_RELAXED)))
        return SG_LOCK_TAKEN;
    return sg_lock_wait(locks, lock);
}

static inline void sg_lock_leave(sg_locks *locks, sg_lock *lock) {
    const uint64_t word = __atomic_load_n(&lock->word, __ATOMIC_RELAXED);
    __atomic_store_n(&lock->word, word & ~UINT64_C(0xffffff), __ATOMIC_RELEASE);
    /* In this order, and seen in no other: who has a lock says so all the while. Whom only a
     * damaged word names does not. */
    __atomic_store_n(&locks->seats[locks->mine].holding, 0, __ATOMIC_RELEASE);
}

/* Whether a lock lies at an offset. */
bool sg_lock_is_at(const sg_locks *locks, uint64_t offset);

/* Undoes what the owner of a seat left half done under the lock. */
void sg_lock_undo(const sg_locks *locks, sg_seat *seat, const sg_lock *lock);

#endif
