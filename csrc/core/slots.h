/* Concurrency: how many slots of a key are held. In the memory of one process nobody
 * else can die holding one, so a key's state is its count. */
#ifndef SG_SLOTS_H
#define SG_SLOTS_H

#include "fingerprint.h"
#include "sg.h"
#include "table.h"

/* Takes a slot if fewer than `limit` are held; *held is the count afterwards. A status
 * other than SG_OK is no answer: nothing was taken. */
sg_status sg_slots_acquire(sg_table *table, sg_fingerprint fp, uint64_t limit, sg_ticks now,
                           bool *acquired, uint64_t *held);
void sg_slots_release(sg_table *table, sg_fingerprint fp);
uint64_t sg_slots_count(sg_table *table, sg_fingerprint fp);

#endif
