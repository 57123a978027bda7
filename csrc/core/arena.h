/* Where segments, logs and marks live. A piece is named by a sg_ref, not by a pointer:
 * in private memory the ref is the address, in a mapping shared by processes it is an
 * offset, which holds in each of them.
 *
 * What lies in a mapping outlives the process that changes it, at whatever instruction that
 * is killed. So a change of a shared piece is announced (sg_touch), and undone by whoever
 * finds the dead one's lock, unless it was whole (sg_commit). And what lies there may have
 * been written by anybody who may write the file: no ref of it is followed unchecked. */
#ifndef SG_ARENA_H
#define SG_ARENA_H

#include "sg.h"
#include "undo.h"

typedef uint64_t sg_ref; /* 0 is none */

/* Of a mapping: pieces are cut from pages, behind their heads. */
#define SG_ARENA_PAGE 16384u
#define SG_ARENA_HEAD 32u

/* The memory under an arena; a test's own makes each allocation fail in turn. */
typedef struct {
    void *(*alloc)(void *context, size_t size);
    void (*free)(void *context, void *memory, size_t size);
    bool (*has_room)(void *context, size_t size); /* NULL: max_bytes alone is the bound */
    void *context;
} sg_allocator;

extern const sg_allocator sg_malloc_allocator;

typedef struct {
    sg_allocator allocator;
    uint64_t bytes;     /* in use now; of private memory */
    uint64_t max_bytes; /* 0: no bound */
    /* of a mapping; private memory has zeros */
    uintptr_t base;
    uint64_t size;
    uint64_t start;         /* of the pages that pieces are cut from */
    uint32_t pages;
    uint32_t owner;         /* whose pages these pieces lie in */
    const uint32_t *owners; /* a word a page */
    sg_undo *undo; /* where changes are noted before they are made; NULL: nowhere */
    bool *damaged; /* set when something that was found there cannot be */
} sg_arena;

void sg_arena_init(sg_arena *arena, const sg_allocator *allocator, uint64_t max_bytes);

/* A piece of `size` bytes, zeroed, aligned to 16; 0 when there is none to be had or the
 * bound would be passed. */
sg_ref sg_arena_alloc(sg_arena *arena, size_t size);
void sg_arena_free(sg_arena *arena, sg_ref ref, size_t size);

/* Whether `size` more bytes stay inside the bound. */
static inline bool sg_arena_has_room(const sg_arena *arena, size_t size) {
    if (arena->allocator.has_room != NULL)
        return arena->allocator.has_room(arena->allocator.context, size);
    return arena->max_bytes == 0 || arena->bytes + size <= arena->max_bytes;
}

/* The piece of a ref that this process has just been given; NULL of 0. */
static inline void *sg_arena_at(const sg_arena *arena, sg_ref ref) {
    return ref == 0 ? NULL : (void *)(arena->base + (uintptr_t)ref);
}

static inline bool sg_arena_is_shared(const sg_arena *arena) { return arena->size != 0; }

/* Says that the mapping holds what it cannot: what reads it goes on as if nothing were
 * there, and the owner of the mapping clears that part of it. */
static inline void sg_arena_damage(const sg_arena *arena) { *arena->damaged = true; }

/* The piece of `bytes` bytes that a ref found in memory names; NULL of 0, and of one that no
 * such piece can have. What lies in another's page, under another's lock, is never touched. */
static inline void *sg_arena_find(const sg_arena *arena, sg_ref ref, size_t bytes) {
    if (SG_LIKELY(!sg_arena_is_shared(arena)))
        return (void *)(uintptr_t)ref;
    if (ref == 0)
        return NULL;
    const uint64_t page = (ref - arena->start) / SG_ARENA_PAGE;
    const uint64_t at = (ref - arena->start) % SG_ARENA_PAGE;
    if (SG_UNLIKELY(page >= arena->pages || at < SG_ARENA_HEAD || ref % 16 != 0 ||
                    bytes > SG_ARENA_PAGE - at ||
                    __atomic_load_n(&arena->owners[page], __ATOMIC_RELAXED) != arena->owner)) {
        sg_arena_damage(arena);
        return NULL;
    }
    return (void *)(arena->base + (uintptr_t)ref);
}

/* Before `size` bytes at `at` are changed. Not needed for one aligned word, which is changed
 * whole or not at all, unless others must change with it; nor for a piece just allocated. */
static inline void sg_touch(const sg_arena *arena, const void *at, size_t size) {
    if (SG_UNLIKELY(arena->undo != NULL))
        sg_undo_note(arena->undo, arena->base, at, size);
}

/* All that was changed so far stands, whatever happens next. */
static inline void sg_commit(const sg_arena *arena) {
    if (SG_UNLIKELY(arena->undo != NULL))
        sg_undo_forget(arena->undo);
}

#endif
