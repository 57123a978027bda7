/* Who is hottest: the heaviest keys of a stream, in bounded memory, O(1) an event.
 *
 * One row of HeavyKeeper (Gong et al., "HeavyKeeper: An Accurate Algorithm for Finding
 * Top-k Elephant Flows", USENIX ATC 2018): a bucket belongs to one key; events of other
 * keys wear it down, the less likely the heavier it is. A key has the choice of four
 * buckets, and wears down the lightest: heavy ones seldom meet. Counts are halved once a
 * minute, so that the list tells of now. */
#ifndef SG_TOPK_H
#define SG_TOPK_H

#include "arena.h"
#include "fingerprint.h"
#include "sg.h"

#define SG_TOPK_BUCKETS 128u
#define SG_TOPK_NAME 64u /* bytes of a key that are kept */

typedef struct {
    uint64_t fingerprint; /* 0: free */
    uint64_t count;
    uint8_t name_length;
    uint8_t cut; /* the key was longer than the name */
    char name[SG_TOPK_NAME];
} sg_topk_entry;

typedef struct {
    sg_topk_entry *entries; /* SG_TOPK_BUCKETS of them, made at the first event */
    sg_ticks halved;        /* when counts were last halved */
    uint64_t random;
    bool failed;            /* there was no memory: counts nothing, changes no decision */
} sg_topk;

/* Counts one event in `buckets` buckets, a multiple of 4; *halved and *random belong to them. */
void sg_topk_count(sg_topk_entry *entries, unsigned buckets, sg_ticks *halved, uint64_t *random,
                   sg_fingerprint fp, const char *name, size_t length, sg_ticks now);

/* Puts the used ones of `buckets` among the `found` that *out has, heaviest first, up to
 * `most`; returns how many it has then. */
size_t sg_topk_gather(const sg_topk_entry *entries, unsigned buckets, sg_topk_entry *out,
                      size_t found, size_t most);

void sg_topk_init(sg_topk *topk, uint64_t seed);
void sg_topk_free(sg_topk *topk, sg_arena *arena);
void sg_topk_add(sg_topk *topk, sg_arena *arena, sg_fingerprint fp, const char *name,
                 size_t length, sg_ticks now);

/* Copies up to `most` entries, heaviest first; returns how many. */
size_t sg_topk_list(const sg_topk *topk, sg_topk_entry *out, size_t most);

#endif
