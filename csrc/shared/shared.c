#include "shared.h"

#include <stdlib.h>
#include <string.h>

#include "moment.h"

#define MB (UINT64_C(1) << 20)
#define LIVES_NS INT64_C(10000000)

static uint64_t rounded(uint64_t bytes, uint64_t step) { return (bytes + step - 1) / step * step; }

/* ---- the file's division, which follows from its size alone */

static void divide(sg_map *map, void *base, uint64_t size) {
    map->base = (uintptr_t)base;
    map->root = (sg_root *)(map->base + SG_FILE_HEADER);
    map->size = size;
    map->seats = (uint32_t)sg_min(sg_max(size / MB, SG_SEATS_MIN), SG_SEATS_MAX);
    map->shards = SG_SHARDS_MIN;
    while (map->shards < SG_SHARDS_MAX && map->shards * 2 * MB <= size)
        map->shards *= 2;
    map->seats_at = rounded(SG_FILE_HEADER + sizeof(sg_root), 4096);
    map->owners_at = rounded(map->seats_at + map->seats * sizeof(sg_seat), 4096);
    /* A word a page; what lies behind the last one is never read. */
    const uint64_t rest = size - map->owners_at;
    map->pages = (uint32_t)(rest / (SG_PAGE + sizeof(uint32_t))) - 1;
    map->pages_at = rounded(map->owners_at + map->pages * sizeof(uint32_t), 4096);
}

static void format(void *context, void *base, uint64_t size) {
    (void)context;
    sg_map map;
    divide(&map, base, size);
    map.root->size = size;
    map.root->seats = map.seats;
    map.root->shards = map.shards;
    map.root->pages = map.root->pages_free = map.pages;
    map.root->seats_at = map.seats_at;
    map.root->owners_at = map.owners_at;
    map.root->pages_at = map.pages_at;
}

/* Whatever another build has otherwise, so that it is refused. */
static uint64_t layout(void) {
    const uint64_t words[] = {SG_SHARED_VERSION, sizeof(sg_root),   sizeof(sg_entry),
                              sizeof(sg_seat),   sizeof(sg_shard),  sizeof(sg_record),
                              sizeof(sg_log),    sizeof(sg_cell),   SG_PAGE,
                              SG_TICKS_PER_NS,   SG_SEGMENT_LAYOUT, SG_SHARED_TOPK};
    uint64_t mixed = UINT64_C(0xcbf29ce484222325); /* FNV-1a, of words */
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        mixed = (mixed ^ words[i]) * UINT64_C(0x100000001b3);
    return mixed;
}

/* The root is divided again by every process, and compared: it is not believed. */
bool sg_shared_map(sg_shared *shared, void *base, uint64_t size) {
    sg_map *map = &shared->locks.map;
    divide(map, base, size);
    const sg_root *root = shared->root = map->root;
    shared->locks.seats = (sg_seat *)(map->base + (uintptr_t)map->seats_at);
    return root->size == size && root->seats == map->seats && root->shards == map->shards &&
           root->pages == map->pages && root->seats_at == map->seats_at &&
           root->owners_at == map->owners_at && root->pages_at == map->pages_at;
}

static void clear_all(sg_shared *shared) {
    sg_shared_table *t = malloc(sizeof *t);
    for (uint32_t i = 0; t != NULL && i < SG_ENTRIES; i++) {
        if (sg_shared_table_at(t, shared, i))
            (void)sg_shared_clear(t);
    }
    free(t);
}

sg_shared_error sg_shared_open(sg_shared *shared, const char *path, uint64_t size, bool keep,
                               sg_file_error *file_error, int *system_error) {
    memset(shared, 0, sizeof *shared);
    if (size != 0 && size < SG_SHARED_SIZE_MIN) {
        *file_error = SG_FILE_TOO_SMALL;
        return SG_SHARED_FILE;
    }
    *file_error = sg_file_open(&shared->file, path, size, layout(), format, NULL, system_error);
    if (*file_error != SG_FILE_OK)
        return SG_SHARED_FILE;
    if (shared->file.size < SG_SHARED_SIZE_MIN ||
        !sg_shared_map(shared, shared->file.base, shared->file.size)) {
        sg_file_close(&shared->file);
        *file_error = SG_FILE_OTHER_LAYOUT;
        return SG_SHARED_FILE;
    }
    if (!sg_seat_take(&shared->locks)) {
        sg_file_close(&shared->file);
        return SG_SHARED_NO_SEAT;
    }
    if (!keep && sg_seats_alive(&shared->locks) == 1)
        clear_all(shared);
    return SG_SHARED_OK;
}

void sg_shared_close(sg_shared *shared) {
    if (shared->file.base == NULL)
        return;
    sg_seat_leave(&shared->locks);
    sg_file_close(&shared->file);
}

/* ---- the numbers that all processes let state expire by */

static bool take_directory(sg_shared *shared) {
    return sg_seat_ready(&shared->locks) &&
           sg_lock_take(&shared->locks, &shared->root->lock) != SG_LOCK_STALLED;
}

static void leave_directory(sg_shared *shared) {
    sg_undo_forget(&shared->locks.seats[shared->locks.mine].undo);
    sg_lock_leave(&shared->locks, &shared->root->lock);
}

static void note(sg_shared *shared, const void *at, size_t size) {
    sg_undo_note(&shared->locks.seats[shared->locks.mine].undo, shared->locks.map.base, at, size);
}

/* Learns what others know, and tells them what is known here. */
static void exchange(sg_shared_table *t) {
    sg_entry *entry = t->entry;
    for (unsigned i = 0; i < t->table.layout.quotas; i++) {
        const sg_known *known = &entry->known[i];
        sg_quota theirs;
        if (known->limit > 0 &&
            sg_quota_init(&theirs, t->table.layout.algorithm[i], known->limit, known->period_us,
                          known->burst, false) == SG_QUOTA_OK)
            sg_table_learn(&t->table, i, &theirs);
        const sg_quota *ours = &t->table.quotas[i];
        const sg_known told = {.limit = ours->limit,
                               .period_us = ours->period / SG_TICKS_PER_US,
                               .burst = ours->burst};
        if (ours->unlimited || memcmp(known, &told, sizeof told) == 0)
            continue;
        note(t->shared, known, sizeof *known);
        entry->known[i] = told;
        __atomic_store_n(&entry->version, entry->version + 1, __ATOMIC_RELAXED);
    }
    t->version = entry->version; /* written under the lock alone */
    t->table.learned = false;
}

static bool exchange_known(sg_shared_table *t) {
    if (!take_directory(t->shared))
        return false;
    exchange(t);
    leave_directory(t->shared);
    return true;
}

/* ---- the directory */

static bool entry_is_good(const sg_shared *shared, const sg_entry *entry) {
    const sg_map *map = &shared->locks.map;
    const uint64_t row = (uint64_t)map->shards * SG_SHARD_BYTES;
    if (__atomic_load_n(&entry->used, __ATOMIC_ACQUIRE) != 1 || entry->name_length == 0 ||
        entry->name_length > SG_NAME_BYTES || entry->text_length > SG_TEXT_BYTES ||
        entry->count > SG_QUOTAS_MAX || entry->shards % SG_PAGE != map->pages_at % SG_PAGE ||
        entry->shards < map->pages_at || entry->shards > map->size - row)
        return false;
    /* Nor are another's pages taken for shards. */
    const uint64_t first = (entry->shards - map->pages_at) / SG_PAGE;
    for (uint64_t page = first; page < first + rounded(row, SG_PAGE) / SG_PAGE; page++) {
        if (page >= map->pages ||
            sg_page_owner(map, page) != SG_ROW_OWNER(entry - map->root->entries))
            return false;
    }
    for (unsigned i = 0; i < entry->count; i++) {
        if (entry->algorithm[i] >= SG_ALGORITHMS)
            return false;
    }
    return true;
}

static void bind(sg_shared_table *t, sg_shared *shared, sg_entry *entry) {
    const bool other_shape = t->other_shape;
    const sg_allocator allocator = sg_heap_allocator(&t->heap);
    memset(t, 0, sizeof *t);
    t->other_shape = other_shape;
    t->shared = shared;
    t->entry = entry;
    t->row = entry->shards;
    t->mask = shared->locks.map.shards - 1;
    (void)sg_table_init(&t->table, &allocator, entry->count, entry->algorithm, UINT64_MAX, 0);
    t->table.scratch = sg_malloc_allocator;
    t->table.arena.base = shared->locks.map.base;
    t->table.arena.size = shared->locks.map.size;
    t->table.arena.start = shared->locks.map.pages_at;
    t->table.arena.pages = shared->locks.map.pages;
    t->table.arena.owners = sg_page_owners(&shared->locks.map);
    t->table.arena.damaged = &t->damaged;
    t->heap = (sg_heap_view){.arena = &t->table.arena, .map = &shared->locks.map, .row = t->row};
}

static bool is_named(const sg_entry *entry, const char *name, size_t length) {
    return entry->name_length == length && memcmp(entry->name, name, length) == 0;
}

/* A new entry in place of a free one. Its shards come first, and a process that is killed
 * before `used` is set leaves them to whoever takes the place next. */
static sg_shared_error add_entry(sg_shared *shared, sg_entry *entry, const char *name,
                                 size_t name_length, unsigned count, const uint8_t *algorithms) {
    const sg_map *map = &shared->locks.map;
    const sg_root *root = map->root;
    const uint32_t owner = SG_ROW_OWNER(entry - root->entries);
    uint64_t rows = 0;
    for (uint32_t page = 0; page < map->pages; page++) {
        const uint32_t has = sg_page_owner(map, page);
        if (has == owner)
            sg_page_give(map, page, owner);
        else
            rows += has >= SG_ROW_OWNER(0);
    }
    const uint64_t row = (uint64_t)map->shards * SG_SHARD_BYTES;
    const uint32_t pages = (uint32_t)rounded(row, SG_PAGE) / SG_PAGE;
    /* A quarter is left for what they count: without a page they would refuse everything. */
    if ((rows + pages) * 4 > (uint64_t)map->pages * 3)
        return SG_SHARED_NO_PAGES;
    const uint32_t first = sg_page_take_row(map, owner, pages);
    if (first == 0)
        return SG_SHARED_NO_PAGES;
    memset(entry, 0, sizeof *entry);
    entry->shards = map->pages_at + (uint64_t)(first - 1) * SG_PAGE;
    memset((void *)(map->base + (uintptr_t)entry->shards), 0, row);
    for (uint32_t i = 0; i < map->shards; i++) {
        sg_shard *shard = sg_shard_of_row(map, entry->shards, i);
        shard->hot.random = shard->refused.random = 2 * i + 1;
    }
    entry->count = (uint8_t)count;
    for (unsigned i = 0; i < count; i++)
        entry->algorithm[i] = algorithms[i];
    memcpy(entry->name, name, name_length);
    entry->name_length = (uint32_t)name_length;
    __atomic_store_n(&entry->used, 1, __ATOMIC_RELEASE);
    return SG_SHARED_OK;
}

sg_shared_error sg_shared_table_open(sg_shared_table *t, sg_shared *shared, const char *name,
                                     size_t name_length, const char *text, size_t text_length,
                                     unsigned count, const uint8_t *algorithms) {
    sg_entry *free_entry = NULL, *found = NULL;
    sg_shared_error error = SG_SHARED_OK;
    memset(t, 0, sizeof *t);
    if (name_length == 0 || name_length > SG_NAME_BYTES)
        return SG_SHARED_NAME;
    if (!take_directory(shared))
        return SG_SHARED_STALLED;
    for (uint32_t i = 0; i < SG_ENTRIES && found == NULL; i++) {
        sg_entry *entry = &shared->root->entries[i];
        if (!entry_is_good(shared, entry)) {
            if (free_entry == NULL)
                free_entry = entry;
        } else if (is_named(entry, name, name_length)) {
            if (entry->count == count && memcmp(entry->algorithm, algorithms, count) == 0)
                found = entry;
            else if (entry->count > 0 && count > 0)
                t->other_shape = true;
        }
    }
    if (found == NULL && free_entry == NULL)
        error = SG_SHARED_NO_ENTRY;
    else if (found == NULL)
        error = add_entry(shared, found = free_entry, name, name_length, count, algorithms);
    if (error == SG_SHARED_OK) {
        /* A text half written by a process that was killed is a text half written. */
        const uint32_t kept = (uint32_t)sg_min(text_length, SG_TEXT_BYTES);
        if (kept > 0) {
            memcpy(found->text, text, kept);
            found->text_length = kept;
        }
        bind(t, shared, found);
        exchange(t);
    }
    leave_directory(shared);
    return error;
}

bool sg_shared_table_at(sg_shared_table *t, sg_shared *shared, uint32_t i) {
    memset(t, 0, sizeof *t);
    if (i >= SG_ENTRIES || !take_directory(shared))
        return false;
    const bool good = entry_is_good(shared, &shared->root->entries[i]);
    if (good) {
        bind(t, shared, &shared->root->entries[i]);
        exchange(t);
    }
    leave_directory(shared);
    return good;
}

/* ---- shards */

static sg_shard *shard_at(const sg_shared_table *t, uint64_t i) {
    return sg_shard_of_row(&t->shared->locks.map, t->row, i);
}

/* Empties a shard whatever it holds. Whoever is killed in the middle leaves a body that is
 * none, and the next one begins again. */
static void empty(sg_shared_table *t, sg_shard *shard) {
    sg_table_body *body = &shard->body;
    body->level = UINT32_MAX;
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    sg_heap_clear(&t->heap);
    memset(shard->hot.entries, 0, sizeof shard->hot.entries);
    memset(shard->refused.entries, 0, sizeof shard->refused.entries);
    sg_count(&shard->counts.damages, 1);
    /* Evictions stay counted, and no two reservations have one id. */
    __atomic_store_n(&body->keys, 0, __ATOMIC_RELAXED);
    body->marked = body->sweep = 0;
    body->split = 0;
    body->first = 0;
    memset(body->chunks, 0, sizeof body->chunks);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    body->level = 0;
    t->damaged = false;
    sg_commit(&t->table.arena);
}

static bool enter(sg_shared_table *t, sg_shard *shard) {
    sg_locks *locks = &t->shared->locks;
    if (SG_UNLIKELY(!sg_seat_ready(locks)))
        return false;
    /* No state may expire here that still counts elsewhere. */
    if (SG_UNLIKELY(t->table.learned ||
                    __atomic_load_n(&t->entry->version, __ATOMIC_RELAXED) != t->version) &&
        !exchange_known(t))
        return false;
    const sg_lock_result result = sg_lock_take(locks, &shard->lock);
    if (SG_UNLIKELY(result == SG_LOCK_STALLED))
        return false;
    t->shard = shard;
    t->table.body = &shard->body;
    t->table.arena.undo = &locks->seats[locks->mine].undo;
    t->heap.heap = &shard->heap;
    t->heap.owner = t->table.arena.owner =
        (uint32_t)(((uintptr_t)shard - locks->map.base) / SG_SHARD_BYTES);
    if (SG_UNLIKELY(result == SG_LOCK_INHERITED))
        sg_heap_repair(&t->heap);
    if (SG_UNLIKELY(!sg_table_body_is_good(&shard->body)))
        empty(t, shard);
    return true;
}

bool sg_shared_enter(sg_shared_table *t, sg_fingerprint fp) {
    return enter(t, shard_at(t, sg_shared_shard_of(t, fp)));
}

bool sg_shared_enter_shard(sg_shared_table *t, uint32_t i) {
    return i <= t->mask && enter(t, shard_at(t, i));
}

/* Two processes get the lock in another order than they read the clock, by as long as one of them
 * was kept waiting; so it is read anew. Their counters differ by a little; so even then it may be
 * behind. Were state thought to lie ahead for that, a window would begin anew, and what was
 * reserved in it never come back. */
sg_ticks sg_shared_moment(sg_shared_table *t, sg_ticks now, sg_shared_clock *clock,
                          void *context) {
    sg_ticks *latest = &t->shard->latest;
    if (SG_UNLIKELY(*latest > now)) {
        now = clock(context);
        /* Farther ahead it cannot be, unless the file was damaged. */
        if (*latest > now && *latest - now < SG_TICKS_PER_SECOND)
            return *latest;
    }
    return *latest = now;
}

void sg_shared_leave(sg_shared_table *t) {
    sg_shard *shard = t->shard;
    sg_commit(&t->table.arena);
    if (SG_UNLIKELY(t->heap.emptied))
        sg_heap_trim(&t->heap);
    if (SG_UNLIKELY(t->damaged))
        empty(t, shard);
    t->table.arena.undo = NULL;
    t->table.body = &t->table.own;
    t->shard = NULL;
    sg_lock_leave(&t->shared->locks, &shard->lock);
}

static void clear_shard(sg_shared_table *t) {
    sg_table_clear(&t->table);
    sg_heap_trim(&t->heap);
    if (t->table.body->keys != 0 || !sg_heap_is_empty(&t->heap))
        t->damaged = true;
    sg_shared_leave(t);
}

static uint32_t pages_of(const sg_map *map, uint32_t owner) {
    uint32_t pages = 0;
    for (uint32_t i = 0; i < map->pages; i++)
        pages += sg_page_owner(map, i) == owner;
    return pages;
}

/* Pages whose words are damaged are in no list. One look at all of them: those of no shard
 * are given back, and a shard that does not have as many as it says is emptied. */
static bool find_pages(sg_shared_table *t) {
    const sg_map *map = &t->shared->locks.map;
    const uint32_t first = (uint32_t)(t->row / SG_SHARD_BYTES);
    uint32_t *found = calloc(map->shards, sizeof *found);
    bool all = true;
    if (found == NULL)
        return true;
    for (uint32_t i = 0; i < map->pages; i++) {
        const uint32_t owner = sg_page_owner(map, i);
        if (owner - first < map->shards)
            found[owner - first]++;
        else if (owner != 0 && owner < SG_ROW_OWNER(0) &&
                 !sg_lock_is_at(&t->shared->locks, (uint64_t)owner * SG_SHARD_BYTES))
            sg_page_give(map, i, owner);
    }
    for (uint32_t i = 0; i < map->shards; i++) {
        const sg_heap *heap = &shard_at(t, i)->heap;
        if (found[i] == __atomic_load_n(&heap->pages, __ATOMIC_RELAXED))
            continue;
        if (!sg_shared_enter_shard(t, i)) {
            all = false;
            continue;
        }
        if (pages_of(map, first + i) != heap->pages)
            t->damaged = true;
        sg_shared_leave(t);
    }
    free(found);
    sg_pages_recount(map);
    return all;
}

bool sg_shared_clear(sg_shared_table *t) {
    bool all = true;
    /* First, so that nothing is void that is taken when its shard is empty. */
    __atomic_fetch_add(&t->entry->epoch, 1, __ATOMIC_RELAXED);
    for (uint32_t i = 0; i <= t->mask; i++) {
        if (sg_shared_enter_shard(t, i))
            clear_shard(t);
        else
            all = false;
    }
    return find_pages(t) && all;
}

static uint64_t read_count(const uint64_t *count) {
    return __atomic_load_n(count, __ATOMIC_RELAXED);
}

void sg_shared_add_up(const sg_shared_table *t, sg_shared_sum *sum) {
    memset(sum, 0, sizeof *sum);
    for (uint32_t i = 0; i <= t->mask; i++) {
        const sg_shard *shard = shard_at(t, i);
        const uint64_t *from = &shard->counts.admitted;
        uint64_t *to = &sum->counts.admitted;
        for (size_t k = 0; k < sizeof sum->counts / sizeof *to; k++)
            to[k] += read_count(&from[k]);
        sum->keys += read_count(&shard->body.keys);
        sum->evictions += read_count(&shard->body.evictions);
        sum->bytes += (uint64_t)__atomic_load_n(&shard->heap.pages, __ATOMIC_RELAXED) * SG_PAGE;
    }
}

bool sg_shared_lives(void *context, uint64_t owner) {
    sg_shared *shared = context;
    const int64_t now = sg_moment_ns();
    const size_t at = (owner ^ owner >> 22) % SG_SHARED_LIVES;
    if (shared->lives[at].owner != owner || now - shared->lives[at].looked_ns >= LIVES_NS) {
        shared->lives[at].owner = owner;
        shared->lives[at].looked_ns = now;
        shared->lives[at].lives = sg_owner_look(owner) != SG_OWNER_DEAD;
    }
    return shared->lives[at].lives;
}
