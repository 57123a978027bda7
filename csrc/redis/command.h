/* The words of one command, EVALSHA of a script, as they are put together. */
#ifndef SG_COMMAND_H
#define SG_COMMAND_H

#include "script.h"
#include "state.h"

typedef struct {
    char *bytes; /* of all words */
    size_t used, room;
    size_t *ends; /* where each word ends in `bytes` */
    int words, words_room;
    bool failed; /* an allocation did; sg_command_words says so */
    const char **argv;
    size_t *lengths;
} sg_command;

/* Begins "EVALSHA sha1 keys"; *command is zeroed or was used before. */
void sg_command_begin(sg_command *command, sg_script_id script, unsigned keys);
/* Begins a command without words. */
void sg_command_plain(sg_command *command);
void sg_command_free(sg_command *command);

/* First all keys, of which the rings of a state key's logs are some, then all arguments. */
void sg_command_key(sg_command *command, const char *name, size_t length);
void sg_command_rings(sg_command *command, const sg_plan *plan, const char *name, size_t length);
void sg_command_argument(sg_command *command, const void *bytes, size_t length);

/* Ends it. The words, good until the next begin or free; false: no memory. */
bool sg_command_words(sg_command *command, int *argc, const char ***argv, const size_t **lengths);

/* Checks of one plan and one operation that wait for one command. A key is sent once however often
 * it is checked. */
#define SG_BATCH_MAX 256u

typedef enum { SG_PEEK = 0, SG_HIT, SG_RESERVE } sg_check_op;

typedef struct {
    const sg_plan *plan;
    sg_check_op op;
    unsigned checks, keys;
    bool one_row;                /* all costs are those of the first check */
    uint16_t place[SG_BATCH_MAX];
    uint16_t hashed[2 * SG_BATCH_MAX]; /* key number + 1 by the hash of its name */
    size_t starts[SG_BATCH_MAX + 1];   /* of the names */
    char *names;
    size_t names_room;
    uint8_t rows[SG_BATCH_MAX * SG_ROW_BYTES];
} sg_batch;

/* Empties it; *batch is zeroed or was used before. */
void sg_batch_begin(sg_batch *batch, const sg_plan *plan, sg_check_op op);
void sg_batch_free(sg_batch *batch);

/* Adds a check, whose answer is that of its number in the reply. False: it is full, or there is no
 * memory. */
bool sg_batch_add(sg_batch *batch, const char *name, size_t length, const uint64_t *costs);

/* The command of what was added. Reserving: ttl and the claim of the first check. */
void sg_batch_command(const sg_batch *batch, uint64_t ttl_us, uint64_t claim,
                      sg_command *command);

#endif
