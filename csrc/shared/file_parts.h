/* One call of sg_file_open, between the files that have a hand in it. Included first. */
#ifndef SG_FILE_PARTS_H
#define SG_FILE_PARTS_H

#define _FILE_OFFSET_BITS 64

#include <sys/stat.h>
#include <sys/types.h>

#include "file.h"

_Static_assert(sizeof(off_t) == 8, "files of more than 2 GB");

typedef struct {
    sg_file *file;
    int directory;
    const char *name; /* in the directory */
    uint64_t size;
    uint64_t layout;
    sg_file_format *format;
    void *context;
    char boot_id[40];
    uint64_t pid_namespace;
    sg_file_error error;
    int system_error;
} sg_file_request;

typedef enum {
    SG_STEP_DONE,   /* mapped, or `error` says why not */
    SG_STEP_ABSENT, /* there is no file */
    SG_STEP_CHANGED /* the path does not lead where it did; to be looked at again */
} sg_file_step;

/* Opens the file that is there. */
sg_file_step sg_file_open_existing(sg_file_request *r);

/* Makes the file where there is none. */
sg_file_step sg_file_make(sg_file_request *r);

/* ---- what both do */

sg_file_step sg_file_fail(sg_file_request *r, sg_file_error error, int system_error);
sg_file_step sg_file_fail_by_errno(sg_file_request *r, int error);

/* Locks a file, or says by errno why not. Never waits for long: the holder may be stopped. */
bool sg_file_lock_within(int fd, int operation, int ms);
void sg_file_wait_a_ms(void);

/* False: it failed, and the request says so. */
bool sg_file_map(sg_file_request *r, int fd, uint64_t size);

#endif
