/* Tables that lie in shared memory, and how every operation gets at the table of a key:
 * between sgpy_enter and sgpy_leave the lock of a shard is held, so nothing that may run
 * Python code stands there, not even the making of an exception. */
#ifndef SGPY_SHARED_H
#define SGPY_SHARED_H

#include "binding.h"

typedef struct {
    PyObject_HEAD
    PyObject *path; /* str */
    sg_shared shared;
    bool open;
} sgpy_file;

int sgpy_file_init_type(PyObject *module, sgpy_state *st);

/* A slot that could not be given back. */
typedef struct {
    sg_fingerprint fp;
    sg_owner owner;
} sgpy_debt;

/* What a table has besides, whose state is in a file. */
struct sgpy_sharing {
    sg_shared_table table;
    sgpy_file *file;    /* held */
    PyObject *listener; /* called with True when a lock is found stalled, with False at the end */
    uint32_t stalled;   /* the shard + 1; 0: none */
    bool told;
    sgpy_debt *owed;
    size_t owed_count, owed_room;
};

/* Makes `table`, which has a core without state, one of the limiter `name` in the file. -1 with
 * an exception. */
int sgpy_share(sgpy_table *table, PyObject *file, PyObject *name, PyObject *text,
               PyObject *listener, unsigned count, const uint8_t *algorithms);
void sgpy_unshare(sgpy_table *table);

sg_table *sgpy_enter_shared(sgpy_table *table, sg_fingerprint fp);
void sgpy_leave_shared(sgpy_table *table);

/* The table that has the key's state, locked; NULL where a stopped process has its lock. */
static inline sg_table *sgpy_enter(sgpy_table *table, sg_fingerprint fp) {
    return SG_LIKELY(table->sharing == NULL) ? &table->core : sgpy_enter_shared(table, fp);
}

sg_table *sgpy_enter_shared_at(sgpy_table *table, sg_fingerprint fp, sg_ticks *now);

/* The same, for what happens at *now, which sg_shared_moment may move on. */
static inline sg_table *sgpy_enter_at(sgpy_table *table, sg_fingerprint fp, sg_ticks *now) {
    return SG_LIKELY(table->sharing == NULL) ? &table->core
                                             : sgpy_enter_shared_at(table, fp, now);
}

static inline void sgpy_leave(sgpy_table *table) {
    if (SG_UNLIKELY(table->sharing != NULL)) {
        sgpy_leave_shared(table);
    }
}

/* What is counted, and the keys of which there is most; of an entered table. */
static inline sg_counts *sgpy_counts(sgpy_table *table) {
    return SG_LIKELY(table->sharing == NULL) ? &table->counts
                                             : &table->sharing->table.shard->counts;
}

static inline void sgpy_count_key(sgpy_table *table, bool refused, sg_fingerprint fp,
                                  const char *name, size_t length, sg_ticks now) {
    if (SG_LIKELY(table->sharing == NULL)) {
        sg_topk_add(refused ? &table->top_refused : &table->hot, &table->names, fp, name, length,
                    now);
        return;
    }
    sg_shard *shard = table->sharing->table.shard;
    sg_shared_topk *top = refused ? &shard->refused : &shard->hot;
    sg_topk_count(top->entries, SG_SHARED_TOPK, &top->halved, &top->random, fp, name, length,
                  now);
}

/* Takes the numbers of quotas into account, by which state expires. */
static inline void sgpy_know(sgpy_table *table, const sg_quota *rows) {
    sg_table_know(table->sharing == NULL ? &table->core : &table->sharing->table.table, rows);
}

/* Sets what that error of a file's limiter comes to. */
void sgpy_raise_shared(const sgpy_state *st, const sgpy_file *file, sg_shared_error error);

/* Sets the StoreError of a lock that was not to be had. */
void sgpy_raise_stalled(const sgpy_table *table);

/* Tells the listener if a lock has just been found stalled, or is no longer. May run Python
 * code; an exception that is set stays set. */
void sgpy_tell_slow(sgpy_table *table);

static inline void sgpy_tell(sgpy_table *table) {
    if (SG_UNLIKELY(table->sharing != NULL &&
                    (table->sharing->stalled != 0) != table->sharing->told)) {
        sgpy_tell_slow(table);
    }
}

/* Whether the status means that there is no room: in a file nothing else can be the matter. */
static inline bool sgpy_is_full(const sgpy_table *table, sg_status status) {
    return status == SG_FULL || (status == SG_NO_MEMORY && table->sharing != NULL);
}

/* Remembers a slot that could not be given back, and gives back those that can be. */
void sgpy_owe(sgpy_table *table, sg_fingerprint fp, sg_owner owner);
void sgpy_pay_slow(sgpy_table *table);

static inline void sgpy_pay(sgpy_table *table) {
    if (SG_UNLIKELY(table->sharing != NULL && table->sharing->owed_count > 0)) {
        sgpy_pay_slow(table);
    }
}

/* This process, as others know it; 0 of private memory. Of an entered table. */
static inline sg_owner sgpy_self(const sgpy_table *table) {
    return table->sharing == NULL ? 0 : table->sharing->file->shared.locks.process;
}

/* Who tells whether another process lives; of a shared table. */
static inline sg_witness sgpy_witness(const sgpy_table *table) {
    return (sg_witness){.lives = sg_shared_lives, .context = &table->sharing->file->shared};
}

/* How often it was cleared, by any process: what was taken before counts no more. */
static inline uint64_t sgpy_epoch(const sgpy_table *table) {
    return table->sharing == NULL
               ? table->epoch
               : __atomic_load_n(&table->sharing->table.entry->epoch, __ATOMIC_RELAXED);
}

static inline sg_shared_sum sgpy_added_up(const sgpy_table *table) {
    sg_shared_sum sum = {.counts = table->counts,
                         .keys = table->core.body->keys,
                         .evictions = table->core.body->evictions,
                         .bytes = sg_table_bytes(&table->core)};
    if (table->sharing != NULL) {
        sg_shared_add_up(&table->sharing->table, &sum);
    }
    return sum;
}

PyObject *sgpy_shared_clear(sgpy_table *table);

/* Slots that the living hold, of all keys, and how many keys these are. */
void sgpy_shared_held(sgpy_table *table, uint64_t *slots, uint64_t *keys);
size_t sgpy_shared_top(sgpy_table *table, bool refused, sg_topk_entry *out, size_t most);

#endif
