/* A file that is not there: all of its space, its header and what the caller formats, and only then
 * its name. */
#include "file_parts.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#if defined(__APPLE__)
#include <sys/random.h>
#endif

#define MAKER_WAIT_MS 2000
#define PIECE (UINT64_C(4) << 20)

_Static_assert(offsetof(sg_file_header, secret) == 88, "the header has no holes");
_Static_assert(sizeof(sg_file_header) <= SG_FILE_HEADER, "the header fits its place");

/* Unlocks before it closes: a child forked meanwhile has the descriptor too. */
static void unlock_and_close(int fd) {
    if (fd >= 0) {
        (void)flock(fd, LOCK_UN);
        (void)close(fd);
    }
}

static bool is_there(const sg_file_request *r) {
    struct stat st;
    return fstatat(r->directory, r->name, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

/* A lock on the directory, so that a dozen workers that start at once do not each take the
 * space of the whole file until the first one is done: a tmpfs may have room for one. Nothing
 * else rests on it. In a directory like /dev/shm other users can hold it too, so it is waited
 * for a while and then done without. -1: not had, or no longer needed. */
static int take_turn(const sg_file_request *r) {
    int fd = openat(r->directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    for (int ms = 0; ms < MAKER_WAIT_MS && !is_there(r); ms++) {
        if (sg_file_lock_within(fd, LOCK_EX, 0))
            return fd;
        if (errno != ETIMEDOUT)
            break;
        sg_file_wait_a_ms();
    }
    (void)close(fd);
    return -1;
}

static int write_zeros(int fd, uint64_t size) {
    static const char zeros[1 << 16];
    uint64_t done = 0;
    while (done < size) {
        uint64_t left = size - done;
        ssize_t n = pwrite(fd, zeros, left < sizeof zeros ? (size_t)left : sizeof zeros,
                           (off_t)done);
        if (n < 0 && errno != EINTR)
            return errno;
        if (n > 0)
            done += (uint64_t)n;
    }
    return 0;
}

/* Whether there may be room. A tmpfs is memory: to fill it up only to find that it is too
 * small can have the kernel kill processes that have nothing to do with it. */
static bool may_fit(int fd, uint64_t size) {
    struct statvfs fs;
    /* One without a bound tells of no blocks. */
    return fstatvfs(fd, &fs) != 0 || fs.f_blocks == 0 || fs.f_frsize == 0 ||
           size / fs.f_frsize <= fs.f_bfree;
}

/* Space for the whole file, now: a page of a mapping for which there is none is a SIGBUS.
 * Returns an errno. */
static int allocate(int fd, uint64_t size) {
    if (!may_fit(fd, size))
        return ENOSPC;
#if defined(__APPLE__)
    fstore_t want = {.fst_flags = F_ALLOCATEALL, .fst_posmode = F_PEOFPOSMODE,
                     .fst_length = (off_t)size};
    if (fcntl(fd, F_PREALLOCATE, &want) == 0)
        return ftruncate(fd, (off_t)size) == 0 ? 0 : errno;
    return errno == ENOTSUP || errno == EINVAL ? write_zeros(fd, size) : errno;
#else
    /* In pieces: tmpfs gives all back when a signal comes, and a profiler's timer comes each
     * few milliseconds. */
    for (uint64_t done = 0; done < size;) {
        uint64_t piece = size - done < PIECE ? size - done : PIECE;
        int error = posix_fallocate(fd, (off_t)done, (off_t)piece);
        if (error == EOPNOTSUPP || error == EINVAL || error == ENOSYS)
            return write_zeros(fd, size); /* done was 0, or else all of it is written again */
        if (error == 0)
            done += piece;
        else if (error != EINTR)
            return error;
    }
    return 0;
#endif
}

static bool fill_header(const sg_file_request *r, sg_file_header *header, uint64_t size) {
    struct timespec now;
    memcpy(header->magic, SG_FILE_MAGIC, sizeof header->magic);
    header->version = SG_FILE_VERSION;
    header->layout = r->layout;
    header->size = size;
    header->pid_namespace = r->pid_namespace;
    memcpy(header->boot_id, r->boot_id, sizeof header->boot_id);
    if (clock_gettime(CLOCK_MONOTONIC, &now) != 0)
        return false;
    header->born_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    return getentropy(header->secret, sizeof header->secret) == 0;
}

#define TEMPORARY_BYTES 32

/* A file with a name of its own, which lasts until the real one is given. Its lock tells
 * those who meet both names to wait. */
static int open_temporary(const sg_file_request *r, char name[TEMPORARY_BYTES]) {
    uint64_t random;
    if (getentropy(&random, sizeof random) != 0)
        return -1;
    (void)snprintf(name, TEMPORARY_BYTES, ".sluicegate-%016llx", (unsigned long long)random);
    int fd = openat(r->directory, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        name[0] = '\0';
    else
        (void)flock(fd, LOCK_EX | LOCK_NB);
    return fd;
}

/* A file without a name vanishes with a process killed at any moment. Not every system and
 * file system has them: SG_STEP_ABSENT. */
static sg_file_step make(sg_file_request *r, bool nameless) {
    char temporary[TEMPORARY_BYTES] = "";
    const uint64_t size = r->size != 0 ? r->size : SG_FILE_SIZE_USUAL;
    sg_file_step s = SG_STEP_DONE;
    int fd = -1;
    if (nameless) {
#if defined(O_TMPFILE)
        fd = openat(r->directory, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
#endif
        if (fd < 0)
            return SG_STEP_ABSENT;
    } else {
        fd = open_temporary(r, temporary);
    }
    /* The mode whatever the umask and the directory's ACL are. */
    if (fd < 0 || fchmod(fd, 0600) != 0) {
        s = sg_file_fail_by_errno(r, errno);
        goto out;
    }
    int error = allocate(fd, size);
    if (error != 0) {
        /* ENOMEM: of a tmpfs, in a cgroup whose memory is used up */
        s = error == ENOMEM ? sg_file_fail(r, SG_FILE_NO_SPACE, error)
                            : sg_file_fail_by_errno(r, error);
        goto out;
    }
    if (!sg_file_map(r, fd, size))
        goto out;
    if (!fill_header(r, (sg_file_header *)(void *)r->file->base, size)) {
        s = sg_file_fail(r, SG_FILE_SYSTEM, errno);
        goto out;
    }
    r->format(r->context, r->file->base, size);
    (void)fsync(fd); /* else a power cut can leave the name to a file of zeros */
    int linked;
    if (nameless) {
        char path[32];
        (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        linked = linkat(AT_FDCWD, path, r->directory, r->name, AT_SYMLINK_FOLLOW);
    } else {
        linked = linkat(r->directory, temporary, r->directory, r->name, 0);
    }
    if (linked == 0)
        r->file->made = true;
    else if (errno == EEXIST)
        s = SG_STEP_CHANGED; /* somebody else was first */
    else
        s = nameless ? SG_STEP_ABSENT : sg_file_fail_by_errno(r, errno);
out:
    if (!r->file->made)
        sg_file_close(r->file);
    if (temporary[0] != '\0')
        (void)unlinkat(r->directory, temporary, 0);
    unlock_and_close(fd);
    return s;
}

sg_file_step sg_file_make(sg_file_request *r) {
    if (r->size == SG_FILE_AS_IT_IS)
        return sg_file_fail(r, SG_FILE_ABSENT, 0);
    int turn = take_turn(r);
    sg_file_step s = is_there(r) ? SG_STEP_CHANGED : make(r, true);
    if (s == SG_STEP_ABSENT)
        s = make(r, false);
    unlock_and_close(turn);
    return s;
}
