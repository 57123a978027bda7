#include "slots.h"

sg_status sg_slots_acquire(sg_table *table, sg_fingerprint fp, uint64_t limit, sg_ticks now,
                           bool *acquired, uint64_t *held) {
    sg_cell *cell = sg_table_find(table, fp);
    uint64_t count = cell == NULL ? 0 : cell->words[0];
    *acquired = count < limit;
    *held = count;
    if (!*acquired)
        return SG_OK;
    if (cell == NULL) {
        sg_status status = sg_table_insert(table, fp, now, &cell);
        if (status != SG_OK) {
            *acquired = false;
            return status;
        }
    }
    if (cell->words[0]++ == 0)
        table->body->marked++; /* as a ban does, a held slot keeps its cell */
    *held = cell->words[0];
    return SG_OK;
}

void sg_slots_release(sg_table *table, sg_fingerprint fp) {
    sg_cell *cell = sg_table_find(table, fp);
    if (cell == NULL || cell->words[0] == 0)
        return;
    if (--cell->words[0] == 0) {
        table->body->marked--;
        sg_table_remove(table, cell);
    }
}

uint64_t sg_slots_count(sg_table *table, sg_fingerprint fp) {
    const sg_cell *cell = sg_table_find(table, fp);
    return cell == NULL ? 0 : cell->words[0];
}
