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

/* Whose the pages are: the number of the shard (its offset in SG_SHARD_BYTES), that of the
 * limiter whose shards they hold (SG_ROW_OWNER), or 0. */
#define SG_ROW_OWNER(entry) (UINT32_C(0x80000000) | (uint32_t)(entry))
static inline uint32_t *sg_page_owners(const sg_map *map) {
    return (uint32_t *)(map->base + (uintptr_t)map->owners_at);
}

static inline uint32_t sg_page_owner(const sg_map *map, uint64_t page) {
    return __atomic_load_n(&sg_page_owners(map)[page], __ATOMIC_RELAXED);
}

/* Takes a page for the shard `owner`; its index + 1, or 0 where none is free. */
uint32_t sg_page_take(const sg_map *map, uint32_t owner);
/* After what may have left it wrong: counts the free pages anew. */
void sg_pages_recount(const sg_map *map);

void sg_page_give(const sg_map *map, uint32_t page, uint32_t owner);

/* Takes `count` pages that lie side by side; the index of the first + 1, or 0. */
uint32_t sg_page_take_row(const sg_map *map, uint32_t owner, uint32_t count);

#endif
