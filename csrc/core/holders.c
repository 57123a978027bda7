#include "holders.h"

#include <string.h>

#define FIRST_CAPACITY 3u /* 64 bytes */

sg_holders *sg_holders_of(const sg_table *table, const sg_cell *cell) {
    sg_holders *h = cell == NULL ? NULL
                                 : sg_arena_find(&table->arena, cell->words[0], sizeof *h);
    if (h == NULL)
        return NULL;
    if (h->used > h->capacity || h->capacity > UINT16_MAX ||
        sg_arena_find(&table->arena, cell->words[0], sg_holders_bytes(h->capacity)) == NULL) {
        sg_arena_damage(&table->arena);
        return NULL;
    }
    return h;
}

void sg_holders_free(sg_table *table, const sg_cell *cell) {
    const sg_holders *h = sg_holders_of(table, cell);
    if (h != NULL)
        sg_arena_free(&table->arena, cell->words[0], sg_holders_bytes(h->capacity));
}

static uint64_t total(const sg_holders *h) {
    uint64_t count = 0;
    for (uint32_t i = 0; h != NULL && i < h->used; i++)
        count += h->shares[i].count;
    return count;
}

static sg_share *share_of(sg_holders *h, uint64_t owner) {
    for (uint32_t i = 0; h != NULL && i < h->used; i++) {
        if (h->shares[i].owner == owner)
            return &h->shares[i];
    }
    return NULL;
}

static void remove_share(sg_table *table, sg_holders *h, sg_share *share) {
    sg_touch(&table->arena, &h->used, sizeof h->used);
    sg_touch(&table->arena, share, sizeof *share);
    *share = h->shares[--h->used];
}

static void forget(sg_table *table, sg_cell *cell) {
    sg_touch(&table->arena, &table->body->marked, sizeof table->body->marked);
    table->body->marked--;
    sg_table_remove(table, cell);
}

/* Drops the shares of the dead, and the cell where none is left: then NULL. */
static sg_cell *bury(sg_table *table, sg_cell *cell, uint64_t self, const sg_witness *witness) {
    sg_holders *h = sg_holders_of(table, cell);
    for (uint32_t i = 0; h != NULL && i < h->used;) {
        sg_share *share = &h->shares[i];
        if (share->owner != self && !witness->lives(witness->context, share->owner))
            remove_share(table, h, share);
        else
            i++;
    }
    if (h == NULL || h->used > 0)
        return cell;
    forget(table, cell);
    return NULL;
}

/* A share of zero for the owner, in a cell that is made where there is none. */
static sg_status add_share(sg_table *table, sg_fingerprint fp, uint64_t owner, sg_ticks now,
                           sg_cell *cell, sg_share **out) {
    const bool known = cell != NULL;
    sg_holders *h = sg_holders_of(table, cell);
    if (!known) {
        sg_status status = sg_table_insert(table, fp, now, &cell);
        if (status != SG_OK)
            return status;
    }
    if (h == NULL || h->used == h->capacity) {
        const uint32_t capacity = h == NULL ? FIRST_CAPACITY : h->capacity * 2 + 1;
        sg_ref ref;
        sg_status status =
            sg_table_alloc(table, fp, sg_holders_bytes(capacity), now, &cell, &ref);
        if (status != SG_OK) {
            if (!known)
                sg_table_remove(table, cell);
            return status;
        }
        sg_holders *larger = sg_arena_at(&table->arena, ref);
        larger->capacity = capacity;
        if (h != NULL) {
            /* Of a damaged mapping the new piece may be the old one. */
            const uint32_t used = (uint32_t)sg_min(h->used, capacity / 2);
            memmove(larger->shares, h->shares, used * sizeof *h->shares);
            larger->used = used;
            sg_arena_free(&table->arena, cell->words[0], sg_holders_bytes(capacity / 2));
        }
        sg_touch(&table->arena, &cell->words[0], sizeof cell->words[0]);
        cell->words[0] = ref;
    }
    if (!known) {
        sg_touch(&table->arena, &table->body->marked, sizeof table->body->marked);
        table->body->marked++; /* as a ban does, a held slot keeps its cell */
    }
    h = sg_holders_of(table, cell);
    if (SG_UNLIKELY(h == NULL || h->used == h->capacity))
        return SG_NO_MEMORY; /* of a damaged mapping */
    sg_touch(&table->arena, &h->used, sizeof h->used);
    *out = &h->shares[h->used++];
    **out = (sg_share){.owner = owner};
    return SG_OK;
}

sg_status sg_holders_acquire(sg_table *table, sg_fingerprint fp, uint64_t limit, uint64_t owner,
                             const sg_witness *witness, sg_ticks now, bool *acquired,
                             uint64_t *held) {
    sg_cell *cell = sg_table_find(table, fp);
    uint64_t count = total(sg_holders_of(table, cell));
    if (count >= limit && cell != NULL) {
        cell = bury(table, cell, owner, witness);
        sg_commit(&table->arena);
        count = total(sg_holders_of(table, cell));
    }
    *held = count;
    *acquired = count < limit;
    if (!*acquired)
        return SG_OK;
    sg_share *share = share_of(sg_holders_of(table, cell), owner);
    if (share == NULL) {
        sg_status status = add_share(table, fp, owner, now, cell, &share);
        if (status != SG_OK) {
            *acquired = false;
            return status;
        }
    }
    sg_touch(&table->arena, share, sizeof *share);
    share->count++;
    *held = count + 1;
    return SG_OK;
}

void sg_holders_release(sg_table *table, sg_fingerprint fp, uint64_t owner) {
    sg_cell *cell = sg_table_find(table, fp);
    sg_holders *h = sg_holders_of(table, cell);
    sg_share *share = share_of(h, owner);
    if (share == NULL)
        return;
    sg_touch(&table->arena, share, sizeof *share);
    if (share->count > 1) {
        share->count--;
        return;
    }
    remove_share(table, h, share);
    if (h->used == 0)
        forget(table, cell);
}

uint64_t sg_holders_count(sg_table *table, sg_fingerprint fp, const sg_witness *witness) {
    sg_cell *cell = sg_table_find(table, fp);
    if (cell != NULL)
        cell = bury(table, cell, 0, witness);
    return total(sg_holders_of(table, cell));
}
