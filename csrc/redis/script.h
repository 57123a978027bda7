/* The Lua scripts, embedded by scripts/embed.py: each with what it needs as one text. What
 * each takes and replies stands at its head. */
#ifndef SG_SCRIPT_H
#define SG_SCRIPT_H

#include <stddef.h>

typedef enum {
    SG_SCRIPT_GCRA = 0, /* many hits of one gcra quota */
    SG_SCRIPT_DECIDE,   /* peek, hit, reserve, by any quotas */
    SG_SCRIPT_CHANGE,   /* penalize, reward, ban, unban, reset, settle */
    SG_SCRIPT_FETCH,    /* all of a key */
    SG_SCRIPT_ALL,      /* several limiters, all or none */
    SG_SCRIPT_SLOTS,    /* concurrency */
    SG_SCRIPTS
} sg_script_id;

typedef struct {
    const char *name;
    const char *sha1; /* 40 hex digits, for EVALSHA */
    const char *text; /* for SCRIPT LOAD */
    size_t length;
} sg_script;

extern const sg_script sg_scripts[SG_SCRIPTS];

#endif
