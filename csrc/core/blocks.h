/* An allocator for the many small pieces of one table: segments, logs, records.
 *
 * Pieces are cut from blocks and kept by size when they are freed. Blocks grow with what is
 * in use, up to 2 MB each on a huge page of their own where the system grants one: a table
 * of millions of keys is read at random, and with small pages half of that time goes into
 * finding the page. All of it goes back to the system with the table, or when nothing is in
 * use any more.
 *
 * Not safe for use by several threads at once. */
#ifndef SG_BLOCKS_H
#define SG_BLOCKS_H

#include "arena.h"

#define SG_BLOCKS_GRAIN 16u
#define SG_BLOCKS_CLASSES 512u /* pieces up to 8 KB; larger ones come from the system */

typedef struct sg_block sg_block;

typedef struct {
    sg_block *blocks;
    char *free_from, *free_to;     /* the part of the newest block that was never used */
    void **freed;                  /* a list a size class; made with the first block */
    size_t in_use;                 /* bytes of pieces */
} sg_blocks;

void sg_blocks_init(sg_blocks *blocks);

/* Whatever was cut from it is gone. It may be used again. */
void sg_blocks_release(sg_blocks *blocks);

sg_allocator sg_blocks_allocator(sg_blocks *blocks);

#endif
