/* Seats: one a process, taken when it opens the file and left when it closes it, or found
 * empty when it has died. */
#include "lock.h"

#include <string.h>
#include <time.h>
#include <unistd.h>

/* Whether the lock that a dead seat last named is still its own, or is being freed of it. */
static uint64_t left_behind(const sg_locks *locks, const sg_seat *seat, sg_lock **lock) {
    const uint64_t offset = __atomic_load_n(&seat->holding, __ATOMIC_ACQUIRE);
    const uint64_t index = (uint64_t)(seat - locks->seats) + 1;
    *lock = NULL;
    if (!sg_lock_is_at(locks, offset))
        return 0;
    sg_lock *named = (sg_lock *)(locks->map.base + (uintptr_t)offset);
    const uint64_t word = __atomic_load_n(&named->word, __ATOMIC_ACQUIRE);
    if (sg_lock_holder(word) != index && sg_lock_dead(word) != index)
        return 0;
    *lock = named;
    return word;
}

static void sit(sg_locks *locks, sg_seat *seat) {
    locks->mine = (uint32_t)(seat - locks->seats);
    __atomic_store_n(&seat->thread, locks->thread, __ATOMIC_RELAXED);
    __atomic_store_n(&seat->holding, 0, __ATOMIC_RELEASE);
    seat->undo.length = seat->undo.overflows = 0;
}

/* The seat of a dead process, once nothing it did is left to undo. */
static bool take_dead(sg_locks *locks, sg_seat *seat, sg_owner dead) {
    sg_lock *lock;
    uint64_t word = left_behind(locks, seat, &lock);
    const uint64_t index = (uint64_t)(seat - locks->seats) + 1;
    if (lock != NULL && sg_lock_holder(word) != index)
        return false; /* somebody undoes its changes just now */
    if (!__atomic_compare_exchange_n(&seat->process, &dead, locks->process, false,
                                     __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
        return false;
    /* From here on others see a living holder, and wait. */
    __atomic_store_n(&seat->thread, locks->thread, __ATOMIC_RELEASE);
    if (lock != NULL) {
        uint64_t mine = sg_lock_next(word, index, index);
        if (!__atomic_compare_exchange_n(&lock->word, &word, mine, false, __ATOMIC_ACQ_REL,
                                         __ATOMIC_RELAXED)) {
            /* An heir was quicker; the seat is its for a moment more. */
            __atomic_store_n(&seat->process, dead, __ATOMIC_RELEASE);
            return false;
        }
        sg_lock_undo(locks, seat, lock);
        __atomic_store_n(&lock->word, sg_lock_next(mine, 0, SG_LOCK_UNDONE), __ATOMIC_RELEASE);
        locks->inherited++;
    }
    return true;
}

bool sg_seat_take(sg_locks *locks) {
    locks->pid = getpid();
    locks->process = sg_owner_process();
    locks->thread = sg_owner_self();
    for (unsigned attempt = 0; attempt < 100; attempt++) {
        bool wait = false;
        for (uint32_t i = 0; i < locks->map.seats; i++) {
            sg_seat *seat = &locks->seats[i];
            sg_owner process = __atomic_load_n(&seat->process, __ATOMIC_ACQUIRE);
            if (process == 0) {
                if (__atomic_compare_exchange_n(&seat->process, &process, locks->process, false,
                                                __ATOMIC_ACQ_REL, __ATOMIC_RELAXED)) {
                    sit(locks, seat);
                    return true;
                }
            } else if (sg_owner_look(process) == SG_OWNER_DEAD) {
                if (take_dead(locks, seat, process)) {
                    sit(locks, seat);
                    return true;
                }
                wait = true;
            }
        }
        if (!wait)
            return false;
        const struct timespec t = {.tv_nsec = 1000000};
        nanosleep(&t, NULL);
    }
    return false;
}

bool sg_seat_renew(sg_locks *locks) {
    if (locks->pid != getpid()) {
        memset(locks->stalls, 0, sizeof locks->stalls);
        return sg_seat_take(locks);
    }
    locks->thread = sg_owner_self();
    __atomic_store_n(&locks->seats[locks->mine].thread, locks->thread, __ATOMIC_RELAXED);
    return true;
}

void sg_seat_leave(sg_locks *locks) {
    sg_owner process = locks->process;
    if (locks->pid != getpid())
        return; /* a child that never sat: the seat is its parent's */
    __atomic_compare_exchange_n(&locks->seats[locks->mine].process, &process, 0, false,
                                __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}

uint32_t sg_seats_alive(const sg_locks *locks) {
    uint32_t alive = 0;
    for (uint32_t i = 0; i < locks->map.seats; i++) {
        const sg_owner process = __atomic_load_n(&locks->seats[i].process, __ATOMIC_ACQUIRE);
        alive += process != 0 && sg_owner_look(process) != SG_OWNER_DEAD;
    }
    return alive;
}
