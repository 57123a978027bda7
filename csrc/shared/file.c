#include "file_parts.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "owner.h"

/* To look a name up in it, without the right to list it. */
#if defined(O_PATH)
#define OPEN_DIRECTORY (O_PATH | O_DIRECTORY | O_CLOEXEC)
#elif defined(O_SEARCH)
#define OPEN_DIRECTORY (O_SEARCH | O_DIRECTORY | O_CLOEXEC)
#else
#define OPEN_DIRECTORY (O_RDONLY | O_DIRECTORY | O_CLOEXEC)
#endif

#define TRIES 100 /* how often the path may change under us */

/* ---- what opening and making share */

sg_file_step sg_file_fail(sg_file_request *r, sg_file_error error, int system_error) {
    r->error = error;
    r->system_error = system_error;
    return SG_STEP_DONE;
}

sg_file_step sg_file_fail_by_errno(sg_file_request *r, int error) {
    switch (error) {
    case EACCES:
    case EPERM:
    case EROFS:
        return sg_file_fail(r, SG_FILE_NO_PERMISSION, error);
    case ENOSPC:
    case EDQUOT:
    case EFBIG: /* by RLIMIT_FSIZE */
        return sg_file_fail(r, SG_FILE_NO_SPACE, error);
    default:
        return sg_file_fail(r, SG_FILE_SYSTEM, error);
    }
}

/* Any number of threads may do this at once: it is a nap, not a deadline. */
void sg_file_wait_a_ms(void) { (void)nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL); }

bool sg_file_lock_within(int fd, int operation, int ms) {
    while (flock(fd, operation | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            return false;
        if (ms-- == 0) {
            errno = ETIMEDOUT;
            return false;
        }
        sg_file_wait_a_ms();
    }
    return true;
}

bool sg_file_map(sg_file_request *r, int fd, uint64_t size) {
    void *base = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED) {
        sg_file_fail(r, SG_FILE_SYSTEM, errno);
        return false;
    }
    r->file->base = base;
    r->file->size = size;
    return true;
}

/* ---- one call */

static sg_file_error check_size(uint64_t size) {
    if (size == 0 || size == SG_FILE_AS_IT_IS)
        return SG_FILE_OK;
    if (size < SG_FILE_SIZE_MIN)
        return SG_FILE_TOO_SMALL;
    if (size > SG_FILE_SIZE_MAX || size > SIZE_MAX)
        return SG_FILE_TOO_LARGE;
    return size % SG_FILE_STEP != 0 ? SG_FILE_UNEVEN : SG_FILE_OK;
}

static sg_file_step open_directory(sg_file_request *r, const char *path) {
    char directory[PATH_MAX] = ".";
    const char *slash = strrchr(path, '/');
    r->name = slash != NULL ? slash + 1 : path;
    if (*r->name == '\0')
        return sg_file_fail(r, SG_FILE_NOT_REGULAR, 0);
    if (slash != NULL) {
        /* The slash of the root stays. */
        size_t length = slash == path ? 1 : (size_t)(slash - path);
        if (length >= sizeof directory)
            return sg_file_fail(r, SG_FILE_SYSTEM, ENAMETOOLONG);
        memcpy(directory, path, length);
        directory[length] = '\0';
    }
    r->directory = open(directory, OPEN_DIRECTORY);
    if (r->directory < 0)
        return errno == ENOENT || errno == ENOTDIR ? sg_file_fail(r, SG_FILE_NO_DIRECTORY, errno)
                                                   : sg_file_fail_by_errno(r, errno);
    return SG_STEP_ABSENT;
}

sg_file_error sg_file_open(sg_file *file, const char *path, uint64_t size, uint64_t layout,
                           sg_file_format *format, void *context, int *system_error) {
    sg_file_request r = {.file = file, .directory = -1, .size = size, .layout = layout,
                         .format = format, .context = context, .error = check_size(size),
                         .pid_namespace = sg_pid_namespace()};
    *file = (sg_file){0};
    if (r.error == SG_FILE_OK && open_directory(&r, path) != SG_STEP_DONE) {
        sg_boot_id(r.boot_id);
        sg_file_step s = SG_STEP_CHANGED;
        for (int i = 0; i < TRIES && s != SG_STEP_DONE; i++) {
            s = sg_file_open_existing(&r);
            if (s == SG_STEP_ABSENT)
                s = sg_file_make(&r);
        }
        if (s != SG_STEP_DONE)
            sg_file_fail(&r, SG_FILE_SYSTEM, EAGAIN);
        (void)close(r.directory);
    }
    *system_error = r.error != SG_FILE_OK ? r.system_error : 0;
    return r.error;
}

void sg_file_close(sg_file *file) {
    if (file->base != NULL)
        (void)munmap(file->base, (size_t)file->size);
    *file = (sg_file){0};
}
