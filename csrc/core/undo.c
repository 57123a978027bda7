#include "undo.h"

#include <string.h>

/* Stands behind the bytes that it is about, so that notes are read from the last one back. */
typedef struct {
    uint64_t offset;
    uint64_t size;
} note_end;

static size_t rounded(size_t size) { return (size + 7) / 8 * 8; }

void sg_undo_note(sg_undo *undo, uintptr_t base, const void *at, size_t size) {
    const size_t bytes = rounded(size);
    uint64_t length = undo->length;
    if (SG_UNLIKELY(length > SG_UNDO_BYTES ||
                    SG_UNDO_BYTES - length < bytes + sizeof(note_end))) {
        undo->overflows++;
        return;
    }
    const note_end end = {.offset = (uintptr_t)at - base, .size = size};
    memcpy(undo->notes + length, at, size);
    memcpy(undo->notes + length + bytes, &end, sizeof end);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    undo->length = length + bytes + sizeof end;
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
}

bool sg_undo_all(sg_undo *undo, uintptr_t base, sg_undo_may *may, const void *context) {
    uint64_t length = undo->length;
    bool good = length <= SG_UNDO_BYTES && length % 8 == 0;
    while (good && length > 0) {
        note_end end;
        good = length >= sizeof end;
        if (!good)
            break;
        length -= sizeof end;
        memcpy(&end, undo->notes + length, sizeof end);
        good = end.size <= length && rounded(end.size) <= length &&
               may(context, end.offset, end.size);
        if (!good)
            break;
        length -= rounded(end.size);
        memcpy((void *)(base + (uintptr_t)end.offset), undo->notes + length, end.size);
    }
    sg_undo_forget(undo);
    return good;
}
