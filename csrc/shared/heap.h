/* The pieces of one shard, cut from its pages: a page has pieces of one size, and what is
 * freed in it is linked by index. A size is a multiple of 16, four to each doubling.
 *
 * The shard's lock is held. Each change is noted (core/undo.h), so that a process killed at
 * any instruction of this leaves a heap as it was before. Nothing that is read is trusted:
 * what cannot be is damage (arena.h), and then there is no memory. */
#ifndef SG_HEAP_H
#define SG_HEAP_H

#include "pages.h"

typedef struct {
    sg_arena *arena; /* of the table whose pieces these are */
    const sg_map *map;
    sg_heap *heap;
    uint32_t owner; /* of its pages */
    uint64_t row;   /* offset of the limiter's first shard */
    bool emptied;   /* a page came to have no piece in use */
} sg_heap_view;

/* As the allocator of an arena; the context is a sg_heap_view. */
sg_allocator sg_heap_allocator(sg_heap_view *view);

/* Gives back to the file the pages that have no piece in use, all but one. Everything else
 * was committed. */
void sg_heap_trim(sg_heap_view *view);

/* After a dead process's changes were undone: gives back what it had taken and not yet used. */
void sg_heap_repair(sg_heap_view *view);

/* Whether it has no piece, and no page but the spare one. */
bool sg_heap_is_empty(const sg_heap_view *view);

/* Gives all pages back and forgets every piece, whatever is in them. */
void sg_heap_clear(sg_heap_view *view);

/* The class of a size: 1 to SG_CLASSES - 1; 0 for one that is too large. And back. */
unsigned sg_heap_class(size_t size);
uint32_t sg_heap_piece(unsigned class);

#endif
