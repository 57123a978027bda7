/* What lies where in the file: its bytes as every process sees them. No pointer is in it;
 * offsets count from the start of the file.
 *
 *   header   what kind of file this is (file.h)
 *   root     how it is divided, and the limiters it knows
 *   seats    one a process: who it is, and how to undo what it was doing
 *   pages    the rest, and before them a word a page that says whose it is
 *
 * A limiter has a row of shards, which lie in pages. A key belongs to one shard, which has
 * a lock, a table and the pages that its pieces are cut from. */
#ifndef SG_LAYOUT_H
#define SG_LAYOUT_H

#include "../core/table.h"
#include "../core/topk.h"
#include "owner.h"

#define SG_SHARED_VERSION 1u
#define SG_SEGMENT_LAYOUT 1u /* of what lies in pieces: segments, records, logs, holders */
#define SG_SHARED_SIZE_MIN (UINT64_C(4) << 20)

#define SG_SEATS_MIN 16u
#define SG_SEATS_MAX 1024u
#define SG_SHARDS_MIN 4u
#define SG_SHARDS_MAX 8192u
#define SG_SHARD_BYTES 4096u
#define SG_ENTRIES 256u      /* limiters that a file knows */
#define SG_NAME_BYTES 240u   /* of a limiter's name */
#define SG_TALLIES 8u        /* what its users count besides, each by one word */
#define SG_TEXT_BYTES 480u   /* of its quotas, as people read them */

#define SG_PAGE SG_ARENA_PAGE
#define SG_PIECE_MAX (SG_PAGE - SG_ARENA_HEAD) /* what lies behind a page's head */
#define SG_CLASSES 37u               /* sizes of pieces, 1 to 36 */

/* Who has it, who had it and died, and how often it was taken: see lock.h. */
typedef struct {
    uint64_t word;
} sg_lock;

typedef struct {
    sg_owner process; /* whose seat it is; 0: nobody's */
    sg_owner thread;  /* the one of it that last took a lock */
    uint64_t holding; /* offset of the lock that it takes or has; 0: none */
    uint64_t unused[5];
    sg_undo undo;
} sg_seat;

/* The pages that the pieces of one shard are cut from. */
typedef struct {
    uint32_t partial[SG_CLASSES]; /* of each size, the first page that has a free piece; + 1 */
    uint32_t spare;               /* the first page that has no piece in use; + 1 */
    uint32_t pages;               /* all of them */
    uint32_t unused;
} sg_heap;

/* What a shard has counted. Not undone: a count that is one too high for a process that was
 * killed tells of an event that nobody learned of. */
typedef struct {
    uint64_t admitted, refused, banned, shadow_refused, full;
    uint64_t damages; /* times that the shard was cleared because it could not be */
} sg_counts;

/* The keys of which a shard sees most; a key is counted in its own shard alone. */
#define SG_SHARED_TOPK 16u
typedef struct {
    sg_ticks halved;
    uint64_t random;
    sg_topk_entry entries[SG_SHARED_TOPK];
} sg_shared_topk;

typedef struct {
    sg_lock lock;
    uint64_t unused[7]; /* what is waited for, and what is written, in different lines */
    sg_table_body body;
    sg_heap heap;
    sg_counts counts;
    sg_ticks latest; /* when it was last entered by the clock of all processes; never undone */
    sg_shared_topk hot, refused;
} sg_shard;

/* The numbers of one quota by which all processes let state expire. */
typedef struct {
    uint64_t limit, period_us, burst; /* zeros: unknown */
} sg_known;

typedef struct {
    uint32_t used; /* set last */
    uint32_t name_length;
    uint8_t count; /* of quotas; 0: slots */
    uint8_t algorithm[SG_QUOTAS_MAX];
    uint8_t unused[7];
    uint64_t shards; /* offset of the first */
    uint64_t epoch;  /* of clear(): what was taken before one is void */
    uint64_t version; /* of what is known; odd while it is written */
    sg_known known[SG_QUOTAS_MAX];
    uint32_t text_length;
    uint32_t unused2;
    uint64_t tallies[SG_TALLIES];
    char name[SG_NAME_BYTES];
    char text[SG_TEXT_BYTES];
} sg_entry;

typedef struct {
    uint64_t size;
    uint32_t seats, shards, pages;
    uint32_t page_hint;  /* before it there is hardly a free page */
    uint32_t pages_free; /* about: a process killed at the wrong moment leaves it off by one */
    uint32_t unused;
    uint64_t seats_at, owners_at, pages_at;
    sg_lock lock; /* of the entries */
    uint64_t origin; /* where a clock of the callers' own begins, for all of them; 0: nowhere yet */
    sg_entry entries[SG_ENTRIES];
} sg_root;

/* Where a process has the file, and how that is divided, which its size alone tells: nobody
 * reads it from the file again, where it may be written to at any time. */
typedef struct {
    uintptr_t base;
    sg_root *root;
    uint64_t size;
    uint64_t seats_at, owners_at, pages_at;
    uint32_t seats, shards, pages;
} sg_map;

/* Shard i of a limiter whose first one lies at the offset `row`. */
static inline sg_shard *sg_shard_of_row(const sg_map *map, uint64_t row, uint64_t i) {
    return (sg_shard *)(map->base + (uintptr_t)row + (uintptr_t)i * SG_SHARD_BYTES);
}

/* At the start of a page that a shard has. */
typedef struct {
    uint32_t next, prev; /* in the list of its size, or of the spare ones; + 1 */
    uint16_t class;      /* 0: none */
    uint16_t used;       /* pieces in use */
    uint16_t fresh;      /* pieces from this one on were never in use */
    uint16_t freed;      /* the first piece that was and is not; + 1 */
    uint64_t unused[2];
} sg_page;

_Static_assert(sizeof(sg_shard) <= SG_SHARD_BYTES, "a shard has its place");
_Static_assert(sizeof(sg_page) == SG_PAGE - SG_PIECE_MAX, "pieces stay aligned to 16");
_Static_assert(offsetof(sg_seat, undo) == 64, "one line is written by other seats' owners");

#endif
