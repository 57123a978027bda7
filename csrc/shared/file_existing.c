/* A file that is there: whose it is, whether it is ours, of this boot and of this layout. */
#include "file_parts.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#define LOCK_WAIT_MS 5000

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

static sg_file_step fail_to_open(sg_file_request *r, int error) {
    struct stat st;
    switch (error) {
    case ENOENT:
        return SG_STEP_ABSENT;
    case ELOOP:
        return sg_file_fail(r, SG_FILE_LINK, error);
    case EISDIR:
    case ENXIO: /* a socket, a device without a driver */
    case ENODEV:
    case EOPNOTSUPP:
        return sg_file_fail(r, SG_FILE_NOT_REGULAR, error);
    case EACCES:
    case EPERM:
        /* Nobody can open another user's file of mode 0600 to look at it. */
        if (fstatat(r->directory, r->name, &st, AT_SYMLINK_NOFOLLOW) == 0) {
            sg_file_error found = check_inode(&st);
            if (found != SG_FILE_OK)
                return sg_file_fail(r, found, error);
        }
        return sg_file_fail(r, SG_FILE_NO_PERMISSION, error);
    default:
        return sg_file_fail_by_errno(r, error);
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
static bool is_of_another_boot(const sg_file_request *r, const sg_file_header *header) {
    return r->boot_id[0] != '\0' && header->boot_id[0] != '\0' &&
           memcmp(r->boot_id, header->boot_id, sizeof r->boot_id) != 0;
}

static sg_file_error check_header(const sg_file_request *r, const sg_file_header *header,
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
static sg_file_step drop_stale(sg_file_request *r, int fd, const struct stat *opened) {
    if (!sg_file_lock_within(fd, LOCK_EX, LOCK_WAIT_MS))
        return sg_file_fail(r, SG_FILE_SYSTEM, errno);
    struct stat now;
    sg_file_step s = SG_STEP_CHANGED;
    if (fstatat(r->directory, r->name, &now, AT_SYMLINK_NOFOLLOW) == 0 &&
        now.st_dev == opened->st_dev && now.st_ino == opened->st_ino &&
        unlinkat(r->directory, r->name, 0) != 0 && errno != ENOENT)
        s = sg_file_fail_by_errno(r, errno);
    (void)flock(fd, LOCK_UN);
    return s;
}

sg_file_step sg_file_open_existing(sg_file_request *r) {
    struct stat st;
    sg_file_header header;
    sg_file_step s = SG_STEP_DONE;
    /* O_NONBLOCK: some devices wait to be ready, and outside of Linux fifos may for a reader. */
    int fd = openat(r->directory, r->name,
                    O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return fail_to_open(r, errno);
    if (fstat(fd, &st) != 0) {
        s = sg_file_fail(r, SG_FILE_SYSTEM, errno);
        goto out;
    }
    sg_file_error found = check_inode(&st);
    /* A second name can be that of the maker's temporary, who holds a lock until it is gone. */
    if (found == SG_FILE_OK && st.st_nlink > 1) {
        if (sg_file_lock_within(fd, LOCK_SH, LOCK_WAIT_MS))
            (void)flock(fd, LOCK_UN);
        if (fstat(fd, &st) == 0 && st.st_nlink > 1)
            found = SG_FILE_HARD_LINKS;
    }
    if (found != SG_FILE_OK) {
        s = sg_file_fail(r, found, 0);
        goto out;
    }
    if (st.st_nlink == 0) {
        s = SG_STEP_CHANGED;
        goto out;
    }
    if (!read_header(fd, &header)) {
        s = sg_file_fail(r, SG_FILE_SYSTEM, errno);
        goto out;
    }
    if (memcmp(header.magic, SG_FILE_MAGIC, sizeof header.magic) != 0) {
        s = sg_file_fail(r, SG_FILE_OTHER_MAGIC, 0);
        goto out;
    }
    if ((uint64_t)st.st_size < sizeof header) {
        s = sg_file_fail(r, SG_FILE_CUT, 0); /* its boot may be cut off too */
        goto out;
    }
    if (is_of_another_boot(r, &header)) {
        s = r->size == SG_FILE_AS_IT_IS ? SG_STEP_ABSENT : drop_stale(r, fd, &st);
        goto out;
    }
    found = check_header(r, &header, (uint64_t)st.st_size);
    if (found != SG_FILE_OK)
        s = sg_file_fail(r, found, 0);
    else
        (void)sg_file_map(r, fd, header.size);
out:
    (void)close(fd);
    return s;
}
