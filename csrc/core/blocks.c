#include "blocks.h"

#include <stdlib.h>
#include <string.h>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#define LARGEST ((size_t)2 << 20)
#define SMALLEST ((size_t)2 << 10)

struct sg_block {
    sg_block *next;
    size_t size;
};

/* The header of a block keeps its pieces aligned. */
#define HEADER ((sizeof(sg_block) + SG_BLOCKS_GRAIN - 1) / SG_BLOCKS_GRAIN * SG_BLOCKS_GRAIN)
#define LISTS_BYTES (SG_BLOCKS_CLASSES * sizeof(void *))

static size_t class_of(size_t size) { return (size + SG_BLOCKS_GRAIN - 1) / SG_BLOCKS_GRAIN; }

void sg_blocks_init(sg_blocks *blocks) { memset(blocks, 0, sizeof *blocks); }

void sg_blocks_release(sg_blocks *blocks) {
    sg_block *block = blocks->blocks;
    while (block != NULL) {
        sg_block *next = block->next;
        free(block);
        block = next;
    }
    free(blocks->freed);
    sg_blocks_init(blocks);
}

/* A new block, half of what is in use at the most, and large enough for
 * a piece of `bytes`. */
static bool add_block(sg_blocks *blocks, size_t bytes) {
    size_t size = SMALLEST;
    while (size < LARGEST && (size < blocks->in_use / 2 || size < bytes + HEADER))
        size *= 2;
    sg_block *block = NULL;
    if (size == LARGEST) {
        block = aligned_alloc(LARGEST, LARGEST);
#if defined(MADV_HUGEPAGE)
        if (block != NULL)
            (void)madvise(block, LARGEST, MADV_HUGEPAGE); /* a wish; small pages do as well */
#endif
    } else {
        block = malloc(size);
    }
    if (block == NULL)
        return false;
    block->next = blocks->blocks;
    block->size = size;
    blocks->blocks = block;
    blocks->free_from = (char *)block + HEADER;
    blocks->free_to = (char *)block + size;
    return true;
}

/* What is left of the newest block, before another one takes its place. */
static void keep_rest(sg_blocks *blocks) {
    size_t size = (size_t)(blocks->free_to - blocks->free_from) / SG_BLOCKS_GRAIN;
    if (size == 0)
        return;
    void **piece = (void *)blocks->free_from;
    if (size < SG_BLOCKS_CLASSES) {
        *piece = blocks->freed[size];
        blocks->freed[size] = piece;
    }
    blocks->free_from = blocks->free_to;
}

static void *blocks_alloc(void *context, size_t size) {
    sg_blocks *blocks = context;
    const size_t class = class_of(size);
    void *piece;
    if (class >= SG_BLOCKS_CLASSES || class == 0) {
        piece = calloc(1, size == 0 ? 1 : size);
        if (piece != NULL)
            blocks->in_use += size;
        return piece;
    }
    if (blocks->freed == NULL) {
        blocks->freed = calloc(1, LISTS_BYTES);
        if (blocks->freed == NULL)
            return NULL;
    }
    const size_t bytes = class * SG_BLOCKS_GRAIN;
    if (blocks->freed[class] != NULL) {
        piece = blocks->freed[class];
        blocks->freed[class] = *(void **)piece;
    } else {
        if ((size_t)(blocks->free_to - blocks->free_from) < bytes) {
            if (blocks->free_to != NULL)
                keep_rest(blocks);
            if (!add_block(blocks, bytes))
                return NULL;
        }
        piece = blocks->free_from;
        blocks->free_from += bytes;
    }
    blocks->in_use += size;
    return memset(piece, 0, bytes);
}

static void blocks_free(void *context, void *memory, size_t size) {
    sg_blocks *blocks = context;
    const size_t class = class_of(size);
    blocks->in_use -= size;
    if (class >= SG_BLOCKS_CLASSES || class == 0) {
        free(memory);
    } else {
        *(void **)memory = blocks->freed[class];
        blocks->freed[class] = memory;
    }
    if (blocks->in_use == 0)
        sg_blocks_release(blocks);
}

sg_allocator sg_blocks_allocator(sg_blocks *blocks) {
    return (sg_allocator){.alloc = blocks_alloc, .free = blocks_free, .context = blocks};
}
