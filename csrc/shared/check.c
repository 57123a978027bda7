/* The checker: walks everything that a limiter has in the file and says what cannot be. It
 * reads what the core reads, by itself, so that one finds the other's faults. */
#include <stdlib.h>
#include <string.h>

#include "../core/claims.h"
#include "../core/holders.h"
#include "../core/segment.h"
#include "shared.h"

typedef struct {
    sg_shared_table *t;
    uint64_t faults;
    const char *first;
    uint32_t *in_use; /* pieces found, a page */
    unsigned char *seen; /* a bit for 16 bytes: pieces must not overlap */
    uint64_t keys, marked;
} check;

static void fault(check *c, const char *what) {
    if (c->faults++ == 0)
        c->first = what;
}

static const sg_page *page_at(const check *c, uint64_t i) {
    const sg_map *map = &c->t->shared->locks.map;
    return (const sg_page *)(map->base + (uintptr_t)map->pages_at +
                             (uintptr_t)i * SG_PAGE);
}

/* A piece that something names. */
static void piece(check *c, sg_ref ref, size_t size) {
    const sg_map *map = &c->t->shared->locks.map;
    if (ref < map->pages_at || ref - map->pages_at >= (uint64_t)map->pages * SG_PAGE) {
        fault(c, "a piece lies outside of the pages");
        return;
    }
    const uint64_t i = (ref - map->pages_at) / SG_PAGE, at = (ref - map->pages_at) % SG_PAGE;
    const sg_page *page = page_at(c, i);
    if (sg_page_owner(map, i) != c->t->heap.owner) {
        fault(c, "a piece lies in a page of another shard");
        return;
    }
    if (page->class == 0 || page->class >= SG_CLASSES || sg_heap_piece(page->class) < size) {
        fault(c, "a piece lies in a page of smaller ones");
        return;
    }
    const uint32_t bytes = sg_heap_piece(page->class);
    if (at < sizeof *page || (at - sizeof *page) % bytes != 0 ||
        (at - sizeof *page) / bytes >= page->fresh) {
        fault(c, "a ref names no piece of its page");
        return;
    }
    const uint64_t bit = (ref - map->pages_at) / 16;
    if (c->seen[bit / 8] >> (bit % 8) & 1)
        fault(c, "two things lie in one piece");
    c->seen[bit / 8] = (unsigned char)(c->seen[bit / 8] | 1u << (bit % 8));
    c->in_use[i]++;
}

static void check_cell(check *c, const sg_cell *cell) {
    sg_table *table = &c->t->table;
    c->keys++;
    if (table->layout.quotas == 0) {
        const sg_holders *h = sg_holders_of(table, cell);
        if (h == NULL || h->used == 0) {
            fault(c, "a key is there that nobody holds");
            return;
        }
        c->marked++;
        for (uint32_t i = 0; i < h->used; i++) {
            if (h->shares[i].owner == 0 || h->shares[i].count == 0)
                fault(c, "a share is nobody's, or nothing");
        }
        piece(c, cell->words[0], sg_holders_bytes(h->capacity));
        return;
    }
    if (cell->hi & SG_CELL_MARKED) {
        const sg_record *record = sg_cell_record(table, cell);
        c->marked++;
        if (record == NULL) {
            fault(c, "a marked key has no record");
        } else {
            piece(c, cell->words[0], sizeof *record);
            if (record->claims != 0)
                piece(c, record->claims, record->capacity * sg_claim_bytes(table));
        }
    }
    for (unsigned i = 0; i < table->layout.quotas; i++) {
        const sg_state state = sg_cell_state(table, cell, i);
        const sg_log *log = sg_state_log(table, i, &state);
        if (log == NULL)
            continue;
        piece(c, state.log.log, sg_log_bytes(log->capacity));
        uint64_t total = 0;
        for (unsigned k = 0; k < log->length; k++) {
            total += sg_log_at(log, k)->count;
            if (k > 0 && sg_log_at(log, k)->at < sg_log_at(log, k - 1)->at)
                fault(c, "the times of a log go back");
        }
        if (total != log->total)
            fault(c, "the total of a log is not that of its entries");
    }
}

static void check_segment(check *c, uint64_t place, uint64_t shard) {
    sg_table *table = &c->t->table;
    sg_ref ref = *sg_ref_at(table, place);
    sg_segment *s = sg_segment_at(table, place);
    if (s == NULL) {
        if (ref != 0)
            fault(c, "a segment cannot be one");
        return;
    }
    piece(c, ref, sg_segment_bytes(table, s->capacity));
    for (uint32_t i = 0; i < s->used; i++) {
        const sg_cell *cell = sg_cell_at(table, s, i);
        if (s->tags[i] != sg_tag_of(cell->lo))
            fault(c, "a tag is not its cell's");
        if (sg_place_of(table, cell->lo) != place || (cell->lo >> 40 & c->t->mask) != shard)
            fault(c, "a key is where nobody looks for it");
        for (uint32_t k = 0; k < i; k++) {
            const sg_cell *other = sg_cell_at(table, s, k);
            if (other->lo == cell->lo && (other->hi | 0xff) == (cell->hi | 0xff))
                fault(c, "a key is there twice");
        }
        check_cell(c, cell);
    }
}

static void check_list(check *c, uint32_t link, unsigned class, uint32_t *listed) {
    uint32_t before = 0;
    for (uint32_t n = 0; link != 0; n++) {
        const sg_map *map = &c->t->shared->locks.map;
        if (link > map->pages || n > map->pages) {
            fault(c, "a list of pages has no end");
            return;
        }
        const sg_page *page = page_at(c, link - 1);
        if (page->prev != before || page->class != class)
            fault(c, "a list of pages is torn");
        listed[link - 1]++;
        before = link;
        link = page->next;
    }
}

static void check_page(check *c, uint64_t i, const uint32_t *listed) {
    const sg_page *page = page_at(c, i);
    if (page->class == 0) {
        fault(c, "a page is taken and not used");
        return;
    }
    if (page->class >= SG_CLASSES) {
        if (c->in_use[i] != 0 || listed[i] != 1)
            fault(c, "a spare page has pieces in use, or is not listed");
        return;
    }
    const uint32_t most = SG_PIECE_MAX / sg_heap_piece(page->class);
    if (page->fresh > most || page->freed > page->fresh) {
        fault(c, "a page has more pieces than it can");
        return;
    }
    if (page->used != c->in_use[i])
        fault(c, page->used > c->in_use[i] ? "a piece is lost" : "a piece in use counts as free");
    const bool full = page->freed == 0 && page->fresh == most;
    if (listed[i] != (full ? 0 : 1))
        fault(c, "a page with a free piece is not listed, or a full one is");
    uint32_t freed = 0;
    for (uint16_t link = page->freed; link != 0 && freed <= most; freed++) {
        const unsigned char *at = (const unsigned char *)page + sizeof *page +
                                  (size_t)(link - 1) * sg_heap_piece(page->class);
        memcpy(&link, at, sizeof link);
        if (link > page->fresh) {
            fault(c, "a freed piece names none");
            break;
        }
    }
    if (page->used + freed != page->fresh)
        fault(c, "pieces in use and freed ones are not all");
}

static void check_shard(check *c, uint32_t shard) {
    sg_shared_table *t = c->t;
    const sg_map *map = &t->shared->locks.map;
    uint32_t *listed = calloc(map->pages, sizeof *listed);
    if (listed == NULL || !sg_shared_enter_shard(t, shard)) {
        fault(c, "a shard was not to be had");
        free(listed);
        return;
    }
    sg_table *table = &t->table;
    c->keys = c->marked = 0;
    /* A page may have been another shard's when that was looked at. */
    for (uint64_t i = 0; i < map->pages; i++) {
        if (sg_page_owner(map, i) == t->heap.owner) {
            c->in_use[i] = 0;
            memset(c->seen + i * (SG_PAGE / 128), 0, SG_PAGE / 128);
        }
    }
    for (uint64_t place = 0; place < sg_segments(table) && !t->damaged; place++)
        check_segment(c, place, shard);
    for (unsigned chunk = 1; chunk < SG_TABLE_CHUNKS; chunk++) {
        if (table->body->chunks[chunk] != 0)
            piece(c, table->body->chunks[chunk], sg_chunk_bytes(chunk));
    }
    if (c->keys != table->body->keys)
        fault(c, "the keys are not as many as is said");
    if (c->marked != table->body->marked)
        fault(c, "the marked keys are not as many as is said");
    for (unsigned class = 1; class < SG_CLASSES; class++)
        check_list(c, t->heap.heap->partial[class], class, listed);
    check_list(c, t->heap.heap->spare, 0xffff, listed);
    uint32_t pages = 0;
    for (uint64_t i = 0; i < map->pages; i++) {
        if (sg_page_owner(map, i) != t->heap.owner)
            continue;
        pages++;
        check_page(c, i, listed);
    }
    if (pages != t->heap.heap->pages)
        fault(c, "the pages are not as many as is said");
    if (t->damaged)
        fault(c, "something names what cannot be");
    if (table->arena.undo->overflows != 0)
        fault(c, "a change was too large to be noted");
    t->damaged = false; /* a check changes nothing */
    sg_shared_leave(t);
    free(listed);
}

uint64_t sg_shared_check(sg_shared_table *t, const char **what) {
    const sg_map *map = &t->shared->locks.map;
    check c = {.t = t};
    c.in_use = calloc(map->pages, sizeof *c.in_use);
    c.seen = calloc((size_t)map->pages * SG_PAGE / 128 + 1, 1);
    if (c.in_use == NULL || c.seen == NULL)
        fault(&c, "there is no memory for the check");
    else
        for (uint32_t i = 0; i <= t->mask; i++)
            check_shard(&c, i);
    free(c.in_use);
    free(c.seen);
    if (what != NULL)
        *what = c.first;
    return c.faults;
}
