#include "heap.h"

#include <string.h>

#define SPARE 0xffffu /* the class of a page in the list of spare ones */

static const uint16_t sizes[SG_CLASSES] = {
    0,    16,   32,   48,   64,   80,   96,   112,  128,  160,   192,   224,   256,
    320,  384,  448,  512,  640,  768,  896,  1024, 1280,  1536,  1792,  2048, 2560,
    3072, 3584, 4096, 5120, 6144, 7168, 8192, 10240, 12288, 14336, SG_PIECE_MAX};

unsigned sg_heap_class(size_t size) {
    if (size > SG_PIECE_MAX)
        return 0;
    if (size <= 128)
        return size == 0 ? 1 : (unsigned)(size + 15) / 16;
    /* Four to a doubling. */
    const unsigned bits = 63u - (unsigned)__builtin_clzll(size - 1);
    const unsigned quarter = (unsigned)((size - 1) >> (bits - 2)) & 3u;
    return 9u + (bits - 7u) * 4u + quarter;
}

uint32_t sg_heap_piece(unsigned class) { return sizes[class]; }

static uint16_t most(unsigned class) { return (uint16_t)(SG_PIECE_MAX / sizes[class]); }

static sg_page *damage(const sg_heap_view *view) {
    sg_arena_damage(view->arena);
    return NULL;
}

static sg_page *raw_page(const sg_heap_view *view, uint32_t index) {
    return (sg_page *)(view->map->base + (uintptr_t)view->map->pages_at +
                       (uintptr_t)index * SG_PAGE);
}

static uint32_t index_of(const sg_heap_view *view, const void *at) {
    const uintptr_t offset = (uintptr_t)at - view->map->base - (uintptr_t)view->map->pages_at;
    return (uint32_t)(offset / SG_PAGE);
}

static bool is_ours(const sg_heap_view *view, uint32_t index) {
    return index < view->map->pages && sg_page_owner(view->map, index) == view->owner;
}

/* The page of a link, which is of that class (or spare); NULL and damage where it cannot be. */
static sg_page *linked_page(const sg_heap_view *view, uint32_t link, unsigned class) {
    if (link == 0 || !is_ours(view, link - 1))
        return damage(view);
    sg_page *page = raw_page(view, link - 1);
    if (page->class != class)
        return damage(view);
    if (class != SPARE && (page->fresh > most(class) || page->freed > page->fresh ||
                           page->used > page->fresh))
        return damage(view);
    return page;
}

static void touch_page(const sg_heap_view *view, const sg_page *page) {
    sg_touch(view->arena, page, sizeof *page);
}

/* ---- lists of pages */

static bool push(const sg_heap_view *view, uint32_t *head, sg_page *page, unsigned class) {
    const uint32_t link = index_of(view, page) + 1;
    if (*head != 0) {
        sg_page *first = linked_page(view, *head, class);
        if (first == NULL)
            return false;
        touch_page(view, first);
        first->prev = link;
    }
    sg_touch(view->arena, head, sizeof *head);
    page->prev = 0;
    page->next = *head;
    *head = link;
    return true;
}

static bool unlink_page(const sg_heap_view *view, uint32_t *head, sg_page *page, unsigned class) {
    sg_page *next = NULL, *prev = NULL;
    if (page->next != 0 && (next = linked_page(view, page->next, class)) == NULL)
        return false;
    if (page->prev != 0 && (prev = linked_page(view, page->prev, class)) == NULL)
        return false;
    if (prev == NULL && *head != index_of(view, page) + 1)
        return damage(view) != NULL;
    if (next != NULL) {
        touch_page(view, next);
        next->prev = page->prev;
    }
    if (prev != NULL) {
        touch_page(view, prev);
        prev->next = page->next;
    } else {
        sg_touch(view->arena, head, sizeof *head);
        *head = page->next;
    }
    page->next = page->prev = 0;
    return true;
}

static void count_pages(const sg_heap_view *view, uint32_t pages) {
    sg_touch(view->arena, &view->heap->pages, sizeof view->heap->pages);
    /* Other shards add theirs up without the lock. */
    __atomic_store_n(&view->heap->pages, pages, __ATOMIC_RELAXED);
}

/* ---- pages */

static bool may_take(const sg_heap_view *view) {
    const uint32_t free = __atomic_load_n(&view->map->root->pages_free, __ATOMIC_RELAXED);
    uint64_t taken = 0;
    if (free > view->map->pages)
        sg_pages_recount(view->map); /* damaged */
    if (free == 0 || free > view->map->pages)
        return false;
    for (uint32_t i = 0; i < view->map->shards; i++) {
        const sg_shard *shard = sg_shard_of_row(view->map, view->row, i);
        taken += __atomic_load_n(&shard->heap.pages, __ATOMIC_RELAXED);
    }
    return taken < (uint64_t)SG_PAGES_SHARE * free;
}

/* A page for pieces of `class`, at the head of its list. */
static sg_page *new_page(const sg_heap_view *view, unsigned class) {
    sg_heap *heap = view->heap;
    sg_page *page;
    if (heap->spare != 0) {
        page = linked_page(view, heap->spare, SPARE);
        if (page == NULL)
            return NULL;
        touch_page(view, page);
        if (!unlink_page(view, &heap->spare, page, SPARE))
            return NULL;
    } else {
        if (!may_take(view))
            return NULL;
        const uint32_t link = sg_page_take(view->map, view->owner);
        if (link == 0)
            return NULL;
        page = raw_page(view, link - 1);
        touch_page(view, page);
        count_pages(view, heap->pages + 1);
    }
    page->class = (uint16_t)class;
    page->used = page->fresh = page->freed = 0;
    return push(view, &heap->partial[class], page, class) ? page : NULL;
}

/* ---- pieces */

static unsigned char *piece_at(sg_page *page, unsigned class, unsigned i) {
    return (unsigned char *)page + sizeof *page + (size_t)i * sizes[class];
}

static void *cut(const sg_heap_view *view, sg_page *page, unsigned class) {
    unsigned char *piece;
    touch_page(view, page);
    if (page->freed != 0) {
        piece = piece_at(page, class, page->freed - 1u);
        uint16_t next;
        memcpy(&next, piece, sizeof next);
        if (next > page->fresh)
            return damage(view);
        sg_touch(view->arena, piece, sizeof(uint64_t));
        page->freed = next;
    } else if (page->fresh < most(class)) {
        piece = piece_at(page, class, page->fresh++);
    } else {
        return damage(view);
    }
    page->used++;
    if (page->freed == 0 && page->fresh == most(class) &&
        !unlink_page(view, &view->heap->partial[class], page, class))
        return NULL;
    return piece;
}

static void *heap_alloc(void *context, size_t size) {
    const sg_heap_view *view = context;
    const unsigned wanted = sg_heap_class(size);
    if (wanted == 0)
        return NULL;
    unsigned class = wanted;
    sg_page *page = view->heap->partial[class] != 0
                        ? linked_page(view, view->heap->partial[class], class)
                        : new_page(view, class);
    /* Without a page of its own size, a larger piece does. */
    while (page == NULL && !*view->arena->damaged && ++class < SG_CLASSES) {
        if (view->heap->partial[class] != 0)
            page = linked_page(view, view->heap->partial[class], class);
    }
    void *piece = page == NULL ? NULL : cut(view, page, class);
    return piece == NULL ? NULL : memset(piece, 0, size);
}

static bool heap_has_room(void *context, size_t size) {
    const sg_heap_view *view = context;
    const unsigned wanted = sg_heap_class(size);
    if (wanted == 0)
        return false;
    if (view->heap->partial[wanted] != 0 || view->heap->spare != 0 || may_take(view))
        return true;
    for (unsigned class = wanted + 1; class < SG_CLASSES; class++) {
        if (view->heap->partial[class] != 0)
            return true;
    }
    return false;
}

static void heap_free(void *context, void *memory, size_t size) {
    sg_heap_view *view = context;
    sg_heap *heap = view->heap;
    const uint32_t index = index_of(view, memory);
    if (!is_ours(view, index)) {
        (void)damage(view);
        return;
    }
    sg_page *page = raw_page(view, index);
    const unsigned class = page->class;
    if (class == 0 || class >= SG_CLASSES || size > sizes[class] ||
        linked_page(view, index + 1, class) == NULL) {
        (void)damage(view);
        return;
    }
    const size_t offset = (size_t)((unsigned char *)memory - (unsigned char *)page) - sizeof *page;
    const size_t i = offset / sizes[class];
    if (offset % sizes[class] != 0 || i >= page->fresh || page->used == 0) {
        (void)damage(view);
        return;
    }
    touch_page(view, page);
    const bool was_full = page->freed == 0 && page->fresh == most(class);
    memcpy(memory, &page->freed, sizeof page->freed); /* the piece was noted by the arena */
    page->freed = (uint16_t)(i + 1);
    page->used--;
    if (page->used > 0) {
        if (was_full)
            (void)push(view, &heap->partial[class], page, class);
        return;
    }
    if (!was_full && !unlink_page(view, &heap->partial[class], page, class))
        return;
    page->class = SPARE;
    view->emptied = true;
    (void)push(view, &heap->spare, page, SPARE);
}

sg_allocator sg_heap_allocator(sg_heap_view *view) {
    return (sg_allocator){
        .alloc = heap_alloc, .free = heap_free, .has_room = heap_has_room, .context = view};
}

/* ---- giving pages back */

void sg_heap_trim(sg_heap_view *view) {
    sg_heap *heap = view->heap;
    view->emptied = false;
    while (heap->spare != 0) {
        sg_page *page = linked_page(view, heap->spare, SPARE);
        if (page == NULL || page->next == 0)
            return; /* one is kept, for the next piece */
        touch_page(view, page);
        if (!unlink_page(view, &heap->spare, page, SPARE))
            return;
        page->class = 0;
        count_pages(view, heap->pages - 1);
        sg_commit(view->arena);
        sg_page_give(view->map, index_of(view, page), view->owner);
    }
}

/* Visits all pages: only where a process has died. */
static uint32_t give_all(sg_heap_view *view, bool unused_alone) {
    uint32_t kept = 0;
    for (uint32_t i = 0; i < view->map->pages; i++) {
        if (!is_ours(view, i))
            continue;
        sg_page *page = raw_page(view, i);
        if (unused_alone && page->class != 0) {
            kept++;
            continue;
        }
        memset(page, 0, sizeof *page);
        sg_page_give(view->map, i, view->owner);
    }
    return kept;
}

void sg_heap_repair(sg_heap_view *view) {
    __atomic_store_n(&view->heap->pages, give_all(view, true), __ATOMIC_RELAXED);
    sg_pages_recount(view->map);
}

bool sg_heap_is_empty(const sg_heap_view *view) {
    for (unsigned class = 1; class < SG_CLASSES; class++) {
        if (view->heap->partial[class] != 0)
            return false;
    }
    if (view->heap->spare == 0)
        return view->heap->pages == 0;
    const sg_page *page = linked_page(view, view->heap->spare, SPARE);
    return page != NULL && page->next == 0 && page->prev == 0 && view->heap->pages == 1;
}

void sg_heap_clear(sg_heap_view *view) {
    (void)give_all(view, false);
    memset(view->heap->partial, 0, sizeof view->heap->partial);
    view->heap->spare = 0;
    __atomic_store_n(&view->heap->pages, 0, __ATOMIC_RELAXED);
}
