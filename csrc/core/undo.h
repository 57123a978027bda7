/* What is needed to undo a change that its maker did not live to finish: the bytes as they
 * were, noted before each change, put back in reverse.
 *
 * The notes lie in the same mapping as what they are about. Only the death of a process is
 * survived, not that of the machine: what a process has stored before it is killed is
 * stored, in its order, so the compiler alone has to be kept from another order. */
#ifndef SG_UNDO_H
#define SG_UNDO_H

#include "sg.h"

#define SG_UNDO_BYTES 65536u

typedef struct {
    uint64_t length;     /* bytes of notes; 0: nothing to undo */
    uint64_t overflows;  /* changes too large to be noted: a fault of ours, counted for tests */
    unsigned char notes[SG_UNDO_BYTES];
} sg_undo;

/* Notes the `size` bytes at `at`, which lie in the mapping at `base`. */
void sg_undo_note(sg_undo *undo, uintptr_t base, const void *at, size_t size);

/* What was noted is done. */
static inline void sg_undo_forget(sg_undo *undo) {
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    undo->length = 0;
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
}

/* Whether `size` bytes at an offset may be put back. */
typedef bool sg_undo_may(const void *context, uint64_t offset, uint64_t size);

/* Puts all that was noted back and forgets it. May be broken off and begun again. Of a damaged
 * file: from a note that cannot be, or may not, on all are passed over; then false. */
bool sg_undo_all(sg_undo *undo, uintptr_t base, sg_undo_may *may, const void *context);

#endif
