/* The pages of the file: each belongs to one shard, or to nobody.
 *
 * A limiter may take pages as long as it has less than SG_PAGES_SHARE times those that are
 * free (A. Choudhury and E. Hahne, "Dynamic queue length thresholds for shared-memory packet
 * switches", 1998): one alone gets four fifths of the file, and however many there are, one
 * that comes late still finds some. Beyond that it forgets its own keys, and nobody else's. */
#ifndef SG_PAGES_H
#define SG_PAGES_H

#include "layout.h"

#define SG_PAGES_SHARE 4u

/* Whose the pages are: the number of the shard + 1, or 0. */
static inline uint32_t *sg_page_owners(const sg_root *root, uintptr_t base) {
    return (uint32_t *)(base + (uintptr_t)root->owners_at);
}

/* Takes a page for the shard `owner`; its index + 1, or 0 where none is free. */
uint32_t sg_page_take(sg_root *root, uintptr_t base, uint32_t owner);
void sg_page_give(sg_root *root, uintptr_t base, uint32_t page, uint32_t owner);

/* Takes `count` pages that lie side by side; the index of the first + 1, or 0. */
uint32_t sg_page_take_row(sg_root *root, uintptr_t base, uint32_t owner, uint32_t count);

#endif
