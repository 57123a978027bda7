#include "arena.h"

#include <stdlib.h>

static void *system_alloc(void *context, size_t size) {
    (void)context;
    return calloc(1, size);
}

static void system_free(void *context, void *memory, size_t size) {
    (void)context;
    (void)size;
    free(memory);
}

const sg_allocator sg_malloc_allocator = {.alloc = system_alloc, .free = system_free};

void sg_arena_init(sg_arena *arena, const sg_allocator *allocator, uint64_t max_bytes) {
    *arena = (sg_arena){.allocator = *allocator, .max_bytes = max_bytes};
}

sg_ref sg_arena_alloc(sg_arena *arena, size_t size) {
    if (!sg_arena_has_room(arena, size))
        return 0;
    void *memory = arena->allocator.alloc(arena->allocator.context, size);
    if (memory == NULL)
        return 0;
    arena->bytes += size;
    return (sg_ref)((uintptr_t)memory - arena->base);
}

void sg_arena_free(sg_arena *arena, sg_ref ref, size_t size) {
    if (ref == 0)
        return;
    void *memory = sg_arena_find(arena, ref, size);
    if (SG_UNLIKELY(memory == NULL))
        return;
    arena->bytes -= size;
    sg_touch(arena, memory, size); /* it may be given out again before this change is whole */
    arena->allocator.free(arena->allocator.context, memory, size);
}
