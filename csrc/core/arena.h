/* Where segments, logs and marks live. A piece is named by a sg_ref, not by a pointer:
 * in private memory the ref is the address, in a mapping shared by processes it is an
 * offset, which holds in each of them. */
#ifndef SG_ARENA_H
#define SG_ARENA_H

#include "sg.h"

typedef uint64_t sg_ref; /* 0 is none */

/* The memory under a private arena; a test's own makes each allocation fail in turn. */
typedef struct {
    void *(*alloc)(void *context, size_t size);
    void (*free)(void *context, void *memory, size_t size);
    void *context;
} sg_allocator;

extern const sg_allocator sg_malloc_allocator;

typedef struct {
    sg_allocator allocator;
    uint64_t bytes;     /* in use now */
    uint64_t max_bytes; /* 0: no bound */
} sg_arena;

void sg_arena_init(sg_arena *arena, const sg_allocator *allocator, uint64_t max_bytes);

/* A piece of `size` bytes, zeroed, aligned to 16; 0 when there is none to be had or the
 * bound would be passed. */
sg_ref sg_arena_alloc(sg_arena *arena, size_t size);
void sg_arena_free(sg_arena *arena, sg_ref ref, size_t size);

/* Whether `size` more bytes stay inside the bound. */
static inline bool sg_arena_has_room(const sg_arena *arena, size_t size) {
    return arena->max_bytes == 0 || arena->bytes + size <= arena->max_bytes;
}

static inline void *sg_arena_at(const sg_arena *arena, sg_ref ref) {
    (void)arena;
    return (void *)(uintptr_t)ref;
}

#endif
