/* What a ref that was found in a mapping can name. Anybody who may write the file may have put
 * anything there: what no piece can be is taken for none, and said (sg_arena_damage). */
#include "claims.h"
#include "segment.h"

static void *none(const sg_table *table) {
    sg_arena_damage(&table->arena);
    return NULL;
}

sg_segment *sg_segment_check(const sg_table *table, sg_ref ref) {
    sg_segment *s = sg_arena_find(&table->arena, ref, sizeof *s);
    if (s == NULL)
        return NULL;
    const bool good = s->capacity > 0 && s->capacity % SG_SEGMENT_STEP == 0 &&
                      s->used <= s->capacity && s->capacity <= UINT16_MAX;
    return good && sg_arena_find(&table->arena, ref, sg_segment_bytes(table, s->capacity)) != NULL
               ? s : none(table);
}

sg_record *sg_record_check(const sg_table *table, sg_ref ref) {
    sg_record *record = sg_arena_find(&table->arena, ref, sizeof *record);
    if (record == NULL)
        return none(table); /* a cell that is marked has one */
    if (record->capacity == 0)
        return record->open == 0 && record->claims == 0 ? record : none(table);
    const bool good = record->open <= record->capacity && record->claims != 0;
    return good && sg_arena_find(&table->arena, record->claims,
                                 record->capacity * sg_claim_bytes(table)) != NULL
               ? record : none(table);
}

sg_log *sg_log_check(const sg_table *table, sg_ref ref) {
    sg_log *log = sg_arena_find(&table->arena, ref, sizeof *log);
    if (log == NULL)
        return NULL;
    const unsigned capacity = log->capacity;
    const bool good = capacity >= SG_LOG_MIN && capacity <= SG_LOG_MAX &&
                      (capacity & (capacity - 1)) == 0 && log->length <= capacity &&
                      log->head < capacity && log->merged <= log->length;
    return good && sg_arena_find(&table->arena, ref, sg_log_bytes(capacity)) != NULL ? log
                                                                                     : none(table);
}
