#include "pages.h"

/* Pages change hands by one word each, with no lock: a process that is killed between two of
 * them leaves nothing worse than a page that its shard has and does not use, which the next
 * who takes the shard over gives back (sg_heap_repair). */

static bool take(uint32_t *owners, uint32_t page, uint32_t owner) {
    uint32_t nobody = 0;
    return __atomic_load_n(&owners[page], __ATOMIC_RELAXED) == 0 &&
           __atomic_compare_exchange_n(&owners[page], &nobody, owner, false, __ATOMIC_ACQ_REL,
                                       __ATOMIC_RELAXED);
}

uint32_t sg_page_take(const sg_map *map, uint32_t owner) {
    uint32_t *owners = sg_page_owners(map);
    sg_root *root = map->root;
    const uint32_t pages = map->pages;
    uint32_t at = __atomic_load_n(&root->page_hint, __ATOMIC_RELAXED);
    for (uint32_t n = 0; n < pages; n++, at++) {
        if (at >= pages)
            at = 0;
        if (!take(owners, at, owner))
            continue;
        __atomic_store_n(&root->page_hint, at + 1, __ATOMIC_RELAXED);
        __atomic_fetch_sub(&root->pages_free, 1, __ATOMIC_RELAXED);
        return at + 1;
    }
    __atomic_store_n(&root->pages_free, 0, __ATOMIC_RELAXED);
    return 0;
}

void sg_page_give(const sg_map *map, uint32_t page, uint32_t owner) {
    uint32_t *owners = sg_page_owners(map);
    if (!__atomic_compare_exchange_n(&owners[page], &owner, 0, false, __ATOMIC_ACQ_REL,
                                     __ATOMIC_RELAXED))
        return;
    __atomic_fetch_add(&map->root->pages_free, 1, __ATOMIC_RELAXED);
    /* The first ones are taken again first, so that those that are free at the end lie side by
     * side, where a limiter that comes late needs them. */
    if (page < __atomic_load_n(&map->root->page_hint, __ATOMIC_RELAXED))
        __atomic_store_n(&map->root->page_hint, page, __ATOMIC_RELAXED);
}

uint32_t sg_page_take_row(const sg_map *map, uint32_t owner, uint32_t count) {
    uint32_t *owners = sg_page_owners(map);
    /* From the end, where single pages are taken last. */
    uint32_t row = 0;
    for (uint32_t at = map->pages; at-- > 0;) {
        if (!take(owners, at, owner)) {
            while (row > 0)
                sg_page_give(map, at + row--, owner);
            continue;
        }
        __atomic_fetch_sub(&map->root->pages_free, 1, __ATOMIC_RELAXED);
        if (++row == count)
            return at + 1;
    }
    while (row > 0)
        sg_page_give(map, --row, owner);
    return 0;
}

void sg_pages_recount(const sg_map *map) {
    uint32_t free = 0;
    for (uint32_t i = 0; i < map->pages; i++)
        free += sg_page_owner(map, i) == 0;
    __atomic_store_n(&map->root->pages_free, free, __ATOMIC_RELAXED);
}
