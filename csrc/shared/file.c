#define _FILE_OFFSET_BITS 64
#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#if defined(__APPLE__)
#include <sys/random.h>
#endif

#include "owner.h"

_Static_assert(offsetof(sg_file_header, secret) == 88, "the header has no holes");
_Static_assert(sizeof(sg_file_header) <= SG_FILE_HEADER, "the header fits its place");
_Static_assert(sizeof(off_t) == 8, "files of more than 2 GB");

/* To look a name up in it, without the right to list it. */
#if defined(O_PATH)
#define OPEN_DIRECTORY (O_PATH | O_DIRECTORY | O_CLOEXEC)
#elif defined(O_SEARCH)
#define OPEN_DIRECTORY (O_SEARCH | O_DIRECTORY | O_CLOEXEC)
#else
#define OPEN_DIRECTORY (O_RDONLY | O_DIRECTORY | O_CLOEXEC)
#endif

#define TRIES 100         /* how often the path may change under us */
#define MAKER_WAIT_MS 2000
#define LOCK_WAIT_MS 5000
#define PIECE (UINT64_C(4) << 20)

/* One call of sg_file_open. */
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
} request;

typedef enum {
    DONE,   /* mapped, or `error` says why not */
    ABSENT, /* there is no file */
    CHANGED /* the path does not lead where it did; to be looked at again */
} step;

static step fail(request *r, sg_file_error error, int system_error) {
    r->error = error;
    r->system_error = system_error;
    return DONE;
}

static step fail_by_errno(request *r, int error) {
    switch (error) {
    case EACCES:
    case EPERM:
    case EROFS:
        return fail(r, SG_FILE_NO_PERMISSION, error);
    case ENOSPC:
    case EDQUOT:
    case EFBIG: /* by RLIMIT_FSIZE */
        return fail(r, SG_FILE_NO_SPACE, error);
    default:
        return fail(r, SG_FILE_SYSTEM, error);
    }
}

/* Any number of threads may do this at once: it is a nap, not a deadline. */
static void wait_a_ms(void) { (void)nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL); }

/* Locks a file, or says by errno why not. Never waits for long: the holder may be stopped. */
static bool lock_within(int fd, int operation, int ms) {
    while (flock(fd, operation | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            return false;
        if (ms-- == 0) {
            errno = ETIMEDOUT;
            return false;
        }
        wait_a_ms();
    }
    return true;
}

/* Unlocks before it closes: a child forked meanwhile has the descriptor too. */
static void unlock_and_close(int fd) {
    if (fd >= 0) {
        (void)flock(fd, LOCK_UN);
        (void)close(fd);
    }
}

static bool map(request *r, int fd, uint64_t size) {
    void *base = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED) {
        fail(r, SG_FILE_SYSTEM, errno);
        return false;
    }
    r->file->base = base;
    r->file->size = size;
    return true;
}

/* --- a file that is there --- */

/* Whose file it is decides before anything in it does. */
static sg_file_error check_inode(const struct stat *st) {
    if (!S_ISREG(st->st_mode))
        return SG_FILE_NOT_REGULAR;
    if (st->st_uid != geteuid())
        return SG_FILE_NOT_OURS;
    if (st->st_mode & 077)
        return SG_FILE_OPEN_TO_OTHERS;
    return SG_FILE_OK;
}

static step fail_to_open(request *r, int error) {
    struct stat st;
    switch (error) {
    case ENOENT:
        return ABSENT;
    case ELOOP:
        return fail(r, SG_FILE_LINK, error);
    case EISDIR:
    case ENXIO: /* a socket, a device without a driver */
    case ENODEV:
    case EOPNOTSUPP:
        return fail(r, SG_FILE_NOT_REGULAR, error);
    case EACCES:
    case EPERM:
        /* Nobody can open another user's file of mode 0600 to look at it. */
        if (fstatat(r->directory, r->name, &st, AT_SYMLINK_NOFOLLOW) == 0) {
            sg_file_error found = check_inode(&st);
            if (found != SG_FILE_OK)
                return fail(r, found, error);
        }
        return fail(r, SG_FILE_NO_PERMISSION, error);
    default:
        return fail_by_errno(r, error);
    }
}

/* Reads what there is of the header; the rest is zeros. A mapping would be a SIGBUS in a
 * short file. */
static bool read_header(int fd, sg_file_header *header) {
    memset(header, 0, sizeof *header);
    size_t done = 0;
    while (done < sizeof *header) {
        ssize_t n = pread(fd, (char *)header + done, sizeof *header - done, (off_t)done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return false;
        if (n == 0)
            break;
        done += (size_t)n;
    }
    return true;
}

/* Where either does not tell its boot, they are taken to be of the same: to keep a file too
 * long is wrong for the quotas of one period, to take it from its users for good. */
static bool is_of_another_boot(const request *r, const sg_file_header *header) {
    return r->boot_id[0] != '\0' && header->boot_id[0] != '\0' &&
           memcmp(r->boot_id, header->boot_id, sizeof r->boot_id) != 0;
}

static sg_file_error check_header(const request *r, const sg_file_header *header,
                                  uint64_t length) {
    if (header->version != SG_FILE_VERSION)
        return SG_FILE_OTHER_VERSION;
    if (header->layout != r->layout)
        return SG_FILE_OTHER_LAYOUT;
    if (header->pid_namespace != r->pid_namespace)
        return SG_FILE_OTHER_NAMESPACE;
    if (header->size != length || length < SG_FILE_SIZE_MIN || length > SG_FILE_SIZE_MAX ||
        length % SG_FILE_STEP != 0 || length > SIZE_MAX)
        return SG_FILE_CUT;
    if (r->size != 0 && r->size != SG_FILE_AS_IT_IS && r->size != length)
        return SG_FILE_OTHER_SIZE;
    return SG_FILE_OK;
}

/* Takes the name from a file that an earlier boot left, so that one can be made in its place.
 * Under the file's own lock: of several processes that found it only the first takes the
 * name, and no later one the name of what was made since. */
static step drop_stale(request *r, int fd, const struct stat *opened) {
    if (!lock_within(fd, LOCK_EX, LOCK_WAIT_MS))
        return fail(r, SG_FILE_SYSTEM, errno);
    struct stat now;
    step s = CHANGED;
    if (fstatat(r->directory, r->name, &now, AT_SYMLINK_NOFOLLOW) == 0 &&
        now.st_dev == opened->st_dev && now.st_ino == opened->st_ino &&
        unlinkat(r->directory, r->name, 0) != 0 && errno != ENOENT)
        s = fail_by_errno(r, errno);
    (void)flock(fd, LOCK_UN);
    return s;
}

static step open_existing(request *r) {
    struct stat st;
    sg_file_header header;
    step s = DONE;
    /* O_NONBLOCK: some devices wait to be ready, and outside of Linux fifos may for a reader. */
    int fd = openat(r->directory, r->name,
                    O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return fail_to_open(r, errno);
    if (fstat(fd, &st) != 0) {
        s = fail(r, SG_FILE_SYSTEM, errno);
        goto out;
    }
    sg_file_error found = check_inode(&st);
    /* A second name can be that of the maker's temporary, who holds a lock until it is gone. */
    if (found == SG_FILE_OK && st.st_nlink > 1) {
        if (lock_within(fd, LOCK_SH, LOCK_WAIT_MS))
            (void)flock(fd, LOCK_UN);
        if (fstat(fd, &st) == 0 && st.st_nlink > 1)
            found = SG_FILE_HARD_LINKS;
    }
    if (found != SG_FILE_OK) {
        s = fail(r, found, 0);
        goto out;
    }
    if (st.st_nlink == 0) {
        s = CHANGED;
        goto out;
    }
    if (!read_header(fd, &header)) {
        s = fail(r, SG_FILE_SYSTEM, errno);
        goto out;
    }
    if (memcmp(header.magic, SG_FILE_MAGIC, sizeof header.magic) != 0) {
        s = fail(r, SG_FILE_OTHER_MAGIC, 0);
        goto out;
    }
    if ((uint64_t)st.st_size < sizeof header) {
        s = fail(r, SG_FILE_CUT, 0); /* its boot may be cut off too */
        goto out;
    }
    if (is_of_another_boot(r, &header)) {
        s = r->size == SG_FILE_AS_IT_IS ? ABSENT : drop_stale(r, fd, &st);
        goto out;
    }
    found = check_header(r, &header, (uint64_t)st.st_size);
    if (found != SG_FILE_OK)
        s = fail(r, found, 0);
    else
        (void)map(r, fd, header.size);
out:
    (void)close(fd);
    return s;
}

/* --- a file that is not there --- */

static bool is_there(const request *r) {
    struct stat st;
    return fstatat(r->directory, r->name, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

/* A lock on the directory, so that a dozen workers that start at once do not each take the
 * space of the whole file until the first one is done: a tmpfs may have room for one. Nothing
 * else rests on it. In a directory like /dev/shm other users can hold it too, so it is waited
 * for a while and then done without. -1: not had, or no longer needed. */
static int take_turn(const request *r) {
    int fd = openat(r->directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    for (int ms = 0; ms < MAKER_WAIT_MS && !is_there(r); ms++) {
        if (lock_within(fd, LOCK_EX, 0))
            return fd;
        if (errno != ETIMEDOUT)
            break;
        wait_a_ms();
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

static bool fill_header(const request *r, sg_file_header *header, uint64_t size) {
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
static int open_temporary(const request *r, char name[TEMPORARY_BYTES]) {
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
 * file system has them: ABSENT. */
static step make(request *r, bool nameless) {
    char temporary[TEMPORARY_BYTES] = "";
    const uint64_t size = r->size != 0 ? r->size : SG_FILE_SIZE_USUAL;
    step s = DONE;
    int fd = -1;
    if (nameless) {
#if defined(O_TMPFILE)
        fd = openat(r->directory, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
#endif
        if (fd < 0)
            return ABSENT;
    } else {
        fd = open_temporary(r, temporary);
    }
    /* The mode whatever the umask and the directory's ACL are. */
    if (fd < 0 || fchmod(fd, 0600) != 0) {
        s = fail_by_errno(r, errno);
        goto out;
    }
    int error = allocate(fd, size);
    if (error != 0) {
        /* ENOMEM: of a tmpfs, in a cgroup whose memory is used up */
        s = error == ENOMEM ? fail(r, SG_FILE_NO_SPACE, error) : fail_by_errno(r, error);
        goto out;
    }
    if (!map(r, fd, size))
        goto out;
    if (!fill_header(r, (sg_file_header *)(void *)r->file->base, size)) {
        s = fail(r, SG_FILE_SYSTEM, errno);
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
        s = CHANGED; /* somebody else was first */
    else
        s = nameless ? ABSENT : fail_by_errno(r, errno);
out:
    if (!r->file->made)
        sg_file_close(r->file);
    if (temporary[0] != '\0')
        (void)unlinkat(r->directory, temporary, 0);
    unlock_and_close(fd);
    return s;
}

static step make_in_turn(request *r) {
    if (r->size == SG_FILE_AS_IT_IS)
        return fail(r, SG_FILE_ABSENT, 0);
    int turn = take_turn(r);
    step s = is_there(r) ? CHANGED : make(r, true);
    if (s == ABSENT)
        s = make(r, false);
    unlock_and_close(turn);
    return s;
}

/* --- */

static sg_file_error check_size(uint64_t size) {
    if (size == 0 || size == SG_FILE_AS_IT_IS)
        return SG_FILE_OK;
    if (size < SG_FILE_SIZE_MIN)
        return SG_FILE_TOO_SMALL;
    if (size > SG_FILE_SIZE_MAX || size > SIZE_MAX)
        return SG_FILE_TOO_LARGE;
    return size % SG_FILE_STEP != 0 ? SG_FILE_UNEVEN : SG_FILE_OK;
}

static step open_directory(request *r, const char *path) {
    char directory[PATH_MAX] = ".";
    const char *slash = strrchr(path, '/');
    r->name = slash != NULL ? slash + 1 : path;
    if (*r->name == '\0')
        return fail(r, SG_FILE_NOT_REGULAR, 0);
    if (slash != NULL) {
        /* The slash of the root stays. */
        size_t length = slash == path ? 1 : (size_t)(slash - path);
        if (length >= sizeof directory)
            return fail(r, SG_FILE_SYSTEM, ENAMETOOLONG);
        memcpy(directory, path, length);
        directory[length] = '\0';
    }
    r->directory = open(directory, OPEN_DIRECTORY);
    if (r->directory < 0)
        return errno == ENOENT || errno == ENOTDIR ? fail(r, SG_FILE_NO_DIRECTORY, errno)
                                                   : fail_by_errno(r, errno);
    return ABSENT;
}

sg_file_error sg_file_open(sg_file *file, const char *path, uint64_t size, uint64_t layout,
                           sg_file_format *format, void *context, int *system_error) {
    request r = {.file = file, .directory = -1, .size = size, .layout = layout,
                 .format = format, .context = context, .error = check_size(size),
                 .pid_namespace = sg_pid_namespace()};
    *file = (sg_file){0};
    if (r.error == SG_FILE_OK && open_directory(&r, path) != DONE) {
        sg_boot_id(r.boot_id);
        step s = CHANGED;
        for (int i = 0; i < TRIES && s != DONE; i++) {
            s = open_existing(&r);
            if (s == ABSENT)
                s = make_in_turn(&r);
        }
        if (s != DONE)
            fail(&r, SG_FILE_SYSTEM, EAGAIN);
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

const char *sg_file_why(sg_file_error error) {
    switch (error) {
    case SG_FILE_OK:
        return "is open";
    case SG_FILE_NOT_REGULAR:
        return "is not a regular file: give the path of a file, or one where there is nothing yet";
    case SG_FILE_LINK:
        return "is a symbolic link, which is not followed: give the path that it leads to, if "
               "that is yours";
    case SG_FILE_NOT_OURS:
        return "belongs to another user: give another path, or run all workers as one user";
    case SG_FILE_OPEN_TO_OTHERS:
        return "can be read or written by other users: remove it when no process uses it, or "
               "chmod it to 0600";
    case SG_FILE_HARD_LINKS:
        return "has a second name (a hard link): remove that, or the file when no process uses "
               "it";
    case SG_FILE_TOO_SMALL:
        return "cannot be made as small as size= says: give 4MB at least";
    case SG_FILE_TOO_LARGE:
        return "cannot be made as large as size= says: give 1TB at most";
    case SG_FILE_UNEVEN:
        return "cannot be made of the size that size= says: give a multiple of 4096 bytes";
    case SG_FILE_OTHER_MAGIC:
        return "is not a file of sluicegate: give another path, or remove the file if nothing "
               "needs it";
    case SG_FILE_OTHER_VERSION:
        return "was made by another version of sluicegate: run one version in all workers, or "
               "remove the file when no process uses it";
    case SG_FILE_OTHER_LAYOUT:
        return "was made by another build or version of sluicegate, which lays it out "
               "differently: run the same in all workers, or remove the file when no process "
               "uses it";
    case SG_FILE_OTHER_SIZE:
        return "has its size from who made it, and size= says another: leave size= away, give "
               "its size, or remove the file when no process uses it";
    case SG_FILE_OTHER_NAMESPACE:
        return "was made in another namespace of processes (another container), where a process "
               "that dies cannot be seen from here: give each container a path of its own, let "
               "them share one (docker run --pid), or remove the file when no process uses it";
    case SG_FILE_CUT:
        return "is shorter or longer than its header says, so something else has changed it: "
               "remove it when no process uses it";
    case SG_FILE_NO_SPACE:
        return "finds no space: the file system (a tmpfs, perhaps) or a quota is full, so give a "
               "smaller size= or make room";
    case SG_FILE_NO_DIRECTORY:
        return "is in a directory that does not exist: make the directory, or give another path";
    case SG_FILE_NO_PERMISSION:
        return "may not be opened or made by this user: give a path in a directory that the user "
               "may write to";
    case SG_FILE_ABSENT:
        return "is not there, or is from before the last boot, and is made by whoever has limiters "
               "in it: start that first, or give the path that it gives";
    case SG_FILE_SYSTEM:
        break;
    }
    return "could not be opened, and the system says why: see its error";
}
