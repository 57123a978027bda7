/* The file that processes share: made whole or not at all, opened only where it is what it
 * should be.
 *
 * It is one user's own. What that user's other programs do to it meanwhile, above all to
 * shorten it while it is mapped (SIGBUS), is not guarded against. */
#ifndef SG_FILE_H
#define SG_FILE_H

#include <stdbool.h>
#include <stdint.h>

#define SG_FILE_HEADER 4096u /* bytes before what the caller formats */
#define SG_FILE_STEP 4096u   /* sizes are multiples of it */
#define SG_FILE_SIZE_MIN (UINT64_C(1) << 20)
#define SG_FILE_SIZE_MAX (UINT64_C(1) << 40)
#define SG_FILE_SIZE_USUAL (UINT64_C(64) << 20)
#define SG_FILE_AS_IT_IS UINT64_MAX /* as a size: what it has, and it is not made */

#define SG_FILE_MAGIC "sluicegt" /* without its NUL */
#define SG_FILE_VERSION 1u       /* of this header; magic and boot_id lie the same in all */

/* Written before the file has a name, and never again. */
typedef struct {
    char magic[8];
    uint32_t version;
    uint32_t unused;
    uint64_t layout; /* the caller's: what follows the header, and how */
    uint64_t size;   /* of the whole file, in bytes */
    uint64_t pid_namespace;
    char boot_id[40];
    uint64_t born_ns; /* by CLOCK_MONOTONIC */
    uint8_t secret[16];
} sg_file_header;

typedef struct {
    unsigned char *base; /* the header; NULL when it is closed */
    uint64_t size;       /* bytes, the header's among them */
    bool made;           /* by this call */
} sg_file;

typedef enum {
    SG_FILE_OK,
    SG_FILE_NOT_REGULAR,
    SG_FILE_LINK,
    SG_FILE_NOT_OURS,
    SG_FILE_OPEN_TO_OTHERS,
    SG_FILE_HARD_LINKS,
    SG_FILE_TOO_SMALL, /* this and the next two: the size that was asked for */
    SG_FILE_TOO_LARGE,
    SG_FILE_UNEVEN,
    SG_FILE_OTHER_MAGIC,
    SG_FILE_OTHER_VERSION,
    SG_FILE_OTHER_LAYOUT,
    SG_FILE_OTHER_SIZE,
    SG_FILE_OTHER_NAMESPACE,
    SG_FILE_CUT, /* its length is not what its header says */
    SG_FILE_NO_SPACE,
    SG_FILE_NO_DIRECTORY,
    SG_FILE_NO_PERMISSION,
    SG_FILE_ABSENT, /* nor is it to be made */
    SG_FILE_SYSTEM, /* see *system_error */
} sg_file_error;

/* Called on the zeroed mapping of a new file, its header filled, before anybody else can see
 * it. `size` is that of the whole file. */
typedef void sg_file_format(void *context, void *base, uint64_t size);

/* Maps the file at `path`, and makes it where there is none, or where the one there is of
 * ours but from before a reboot. Several processes at once end with the same file, made by
 * one of them. size: bytes of the whole file; 0: what it has, or the usual size when it is
 * made; SG_FILE_AS_IT_IS: what it has, and none is made or replaced. *system_error: errno
 * behind the error, 0 where there is none behind it.
 *
 * May wait for another process that is making the file, some seconds at the most. A process
 * forked afterwards shares the mapping. */
sg_file_error sg_file_open(sg_file *file, const char *path, uint64_t size, uint64_t layout,
                           sg_file_format *format, void *context, int *system_error);

/* Unmaps. The file stays. */
void sg_file_close(sg_file *file);

/* What is wrong and what to do, in one sentence that begins small, to stand behind the path. */
const char *sg_file_why(sg_file_error error);

#endif
