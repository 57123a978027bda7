#include "file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#if defined(__linux__)
#include <sched.h>
#include <sys/mount.h>
#endif

#include "owner.h"
#include "support.h"

#define MB (UINT64_C(1) << 20)
#define LAYOUT UINT64_C(0x5eed)
#define NOBODY 65534

/* cmocka's checks jump back into the runner, which a forked child must not do. */
#define CHILD_CHECK(what)                                                                       \
    do {                                                                                        \
        if (!(what)) {                                                                          \
            fprintf(stderr, "%s:%d: in a child: %s\n", __FILE__, __LINE__, #what);              \
            _exit(1);                                                                           \
        }                                                                                       \
    } while (0)
#define SKIPPED 77

static const char *base;         /* where the directory of these tests is made */
static char directory[PATH_MAX]; /* and that directory, made for each test */
static char file_path[PATH_MAX]; /* "f" in it */
static int descriptors;          /* open before the test */

static void path_in(char path[PATH_MAX], const char *name) {
    assert_true((size_t)snprintf(path, PATH_MAX, "%s/%s", directory, name) < PATH_MAX);
}

/* Gives up on hanging; a child has none of its parent's alarms. */
static void guard(void) { (void)alarm(120); }

static void nap(void) { (void)nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL); }

static int count_descriptors(void) {
    int count = 0;
    for (int fd = 0; fd < 1000; fd++)
        count += fcntl(fd, F_GETFD) != -1;
    return count;
}

/* How many names a directory has, by the beginning of the name. */
static unsigned count_names(const char *where, const char *beginning) {
    DIR *list = opendir(where);
    unsigned count = 0;
    const struct dirent *entry;
    assert_non_null(list);
    while ((entry = readdir(list)) != NULL)
        count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
                 strncmp(entry->d_name, beginning, strlen(beginning)) == 0;
    (void)closedir(list);
    return count;
}

/* How many mappings are shared: of files, and nothing else here has any. `otherwise` where
 * the system does not tell. */
static unsigned count_mappings(unsigned otherwise) {
    unsigned count = 0;
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[PATH_MAX + 200];
    if (maps == NULL)
        return otherwise;
    while (fgets(line, sizeof line, maps) != NULL)
        count += strstr(line, " rw-s ") != NULL;
    (void)fclose(maps);
    return count;
}

/* --- opening --- */

typedef struct {
    int calls;
    uint64_t size;
    int names;       /* that the directory had meanwhile but for temporary ones; -1: not asked */
    bool zeroed;
    bool has_header;
    int naps;
} formatting;

static void format(void *context, void *memory, uint64_t size) {
    formatting *f = context;
    unsigned char *bytes = memory;
    const sg_file_header *header = memory;
    f->calls++;
    f->size = size;
    f->has_header = header->size == size && header->layout == LAYOUT;
    f->zeroed = true;
    for (uint64_t i = SG_FILE_HEADER; i < size; i += 61)
        f->zeroed = f->zeroed && bytes[i] == 0;
    if (f->names == 0)
        f->names = (int)(count_names(directory, "") - count_names(directory, ".sluicegate-"));
    for (int i = 0; i < f->naps; i++)
        nap();
    memcpy(bytes + SG_FILE_HEADER, "formatted", 9);
}

static sg_file_error last(sg_file *file, const char *path, uint64_t size, int *error) {
    formatting f = {.names = -1};
    memset(file, 0xff, sizeof *file);
    return sg_file_open(file, path, size, LAYOUT, format, &f, error);
}

/* A file that must open. */
static sg_file opened(const char *path, uint64_t size) {
    sg_file file;
    int error = -1;
    EQUAL(last(&file, path, size, &error), SG_FILE_OK);
    EQUAL(error, 0);
    assert_non_null(file.base);
    assert_memory_equal(file.base + SG_FILE_HEADER, "formatted", 9);
    return file;
}

/* One that must not; returns the system's error. */
static int refused(const char *path, uint64_t size, sg_file_error expected) {
    sg_file file;
    int error = -1;
    EQUAL(last(&file, path, size, &error), expected);
    assert_null(file.base);
    EQUAL(file.size, 0);
    assert_false(file.made);
    assert_true(error >= 0);
    return error;
}

static sg_file_header *header_of(const sg_file *file) {
    return (sg_file_header *)(void *)file->base;
}

static void make(const char *path, uint64_t size) {
    sg_file file = opened(path, size);
    assert_true(file.made);
    sg_file_close(&file);
}

/* Bytes of a file, changed behind its back. */
static void put(const char *path, uint64_t at, const void *bytes, size_t size) {
    int fd = open(path, O_WRONLY);
    assert_true(fd >= 0);
    EQUAL(pwrite(fd, bytes, size, (off_t)at), size);
    (void)close(fd);
}

static void put_header(const char *path, const sg_file_header *header) {
    put(path, 0, header, sizeof *header);
}

static sg_file_header header_at(const char *path) {
    sg_file_header header;
    int fd = open(path, O_RDONLY);
    assert_true(fd >= 0);
    EQUAL(pread(fd, &header, sizeof header, 0), sizeof header);
    (void)close(fd);
    return header;
}

static ino_t inode_of(const char *path) {
    struct stat st;
    EQUAL(lstat(path, &st), 0);
    return st.st_ino;
}

/* --- children --- */

/* Whether the child passed; false when it said that it cannot be done here. */
static bool passed(pid_t child, const char *what) {
    int status;
    EQUAL(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == SKIPPED) {
        printf("skipped: %s: needs root and Linux\n", what);
        return false;
    }
    EQUAL(WEXITSTATUS(status), 0);
    return true;
}

/* Runs `does` in a child of its own. */
static bool in_child(void (*does)(void), const char *what) {
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        guard();
        does();
        _exit(0);
    }
    return passed(pid, what);
}

static bool opens_in_child(sg_file *file, const char *path, uint64_t size,
                           sg_file_error expected) {
    int error = -1;
    sg_file_error found = last(file, path, size, &error);
    if (found != expected)
        fprintf(stderr, "%d (errno %d) in place of %d\n", (int)found, error, (int)expected);
    return found == expected;
}

/* A mount table that nobody else sees. */
static bool has_private_mounts(void) {
#if defined(__linux__)
    return unshare(CLONE_NEWNS) == 0 && mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
#else
    return false;
#endif
}

static bool mounts(const char *kind, const char *where, const char *options) {
#if defined(__linux__)
    return mount("none", where, kind, 0, options) == 0;
#else
    (void)kind, (void)where, (void)options;
    return false;
#endif
}

#define CROWD_MAX 16

/* What one of several that opened a path at once has met. */
typedef struct {
    sg_file_error error;
    int system_error;
    bool made;
    uint64_t size;
    uint8_t secret[16];
} meeting;

/* `people` processes open the file at once, each adds one to a number in it. Called in tests
 * and in children: returns whether all have met in one file that one of them made. */
static bool meet(unsigned people, uint64_t size, int naps, meeting *first) {
    int start[2], results[2];
    pid_t pids[CROWD_MAX];
    sg_file file;
    int error;
    if (pipe(start) != 0 || pipe(results) != 0)
        return false;
    for (unsigned i = 0; i < people; i++) {
        pids[i] = fork();
        if (pids[i] == 0) {
            char byte;
            meeting m = {0};
            formatting f = {.names = -1, .naps = naps};
            guard();
            (void)close(start[1]);
            CHILD_CHECK(read(start[0], &byte, 1) == 0);
            m.error = sg_file_open(&file, file_path, size, LAYOUT, format, &f, &m.system_error);
            if (m.error == SG_FILE_OK) {
                CHILD_CHECK(count_mappings(1) == 1);
                m.made = file.made;
                m.size = file.size;
                memcpy(m.secret, header_of(&file)->secret, 16);
                CHILD_CHECK(memcmp(file.base + SG_FILE_HEADER, "formatted", 9) == 0);
                atomic_fetch_add((_Atomic uint64_t *)(void *)(file.base + file.size - 8), 1);
            }
            CHILD_CHECK(write(results[1], &m, sizeof m) == sizeof m);
            _exit(0);
        }
    }
    (void)close(start[0]);
    (void)close(start[1]); /* off they go */
    (void)close(results[1]);
    unsigned makers = 0, came = 0;
    bool same = true;
    meeting m;
    while (read(results[0], &m, sizeof m) == sizeof m) {
        if (came++ == 0)
            *first = m;
        if (m.error != SG_FILE_OK)
            fprintf(stderr, "one of a crowd: %d, errno %d\n", (int)m.error, m.system_error);
        same = same && m.error == SG_FILE_OK && memcmp(m.secret, first->secret, 16) == 0;
        makers += m.made;
    }
    (void)close(results[0]);
    for (unsigned i = 0; i < people; i++) {
        int status;
        same = waitpid(pids[i], &status, 0) == pids[i] && status == 0 && same;
    }
    uint64_t counted = 0;
    if (last(&file, file_path, size, &error) == SG_FILE_OK) {
        counted = *(uint64_t *)(void *)(file.base + file.size - 8);
        same = same && memcmp(header_of(&file)->secret, first->secret, 16) == 0;
        sg_file_close(&file);
    }
    if (makers != 1 || came != people || counted != people || !same)
        fprintf(stderr, "%u came, %u made it, %u in one file\n", came, makers, (unsigned)counted);
    return makers == 1 && came == people && counted == people && same;
}

/* --- each test: a new directory, in which it leaves no temporary file --- */

static int set_up(void **state) {
    (void)state;
    guard();
    if (snprintf(directory, sizeof directory, "%s/sluicegate-test-XXXXXX", base) < 0 ||
        mkdtemp(directory) == NULL)
        return -1;
    path_in(file_path, "f");
    descriptors = count_descriptors();
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    int leaked = count_descriptors() - descriptors;
    unsigned left = count_names(directory, ".sluicegate-");
    bool mapped = count_mappings(0) != 0;
    DIR *list = opendir(directory);
    const struct dirent *entry;
    while (list != NULL && (entry = readdir(list)) != NULL)
        if (unlinkat(dirfd(list), entry->d_name, 0) != 0)
            (void)unlinkat(dirfd(list), entry->d_name, AT_REMOVEDIR);
    if (list != NULL)
        (void)closedir(list);
    int removed = rmdir(directory);
    if (leaked != 0 || left != 0 || mapped || removed != 0)
        fprintf(stderr, "left over: %d descriptors, %u temporary files, mapped %d, rmdir %d\n",
                leaked, left, mapped, removed);
    return leaked != 0 || left != 0 || mapped || removed != 0 ? -1 : 0;
}

/* --- what is made --- */

static void a_file_is_made_whole(void **state) {
    (void)state;
    static const mode_t umasks[] = {0, 022, 0777};
    for (size_t i = 0; i < COUNT(umasks); i++) {
        struct timespec from, to;
        struct stat st;
        sg_file file;
        formatting f = {0};
        int error = -1;
        mode_t before = umask(umasks[i]);
        (void)clock_gettime(CLOCK_MONOTONIC, &from);
        EQUAL(sg_file_open(&file, file_path, 2 * MB, LAYOUT, format, &f, &error), SG_FILE_OK);
        (void)clock_gettime(CLOCK_MONOTONIC, &to);
        (void)umask(before);
        EQUAL(error, 0);
        assert_true(file.made);
        EQUAL(file.size, 2 * MB);
        EQUAL((uintptr_t)file.base % 4096, 0);

        EQUAL(f.calls, 1);
        EQUAL(f.size, 2 * MB);
        assert_true(f.zeroed && f.has_header);
        EQUAL(f.names, 0); /* nobody could see it */

        EQUAL(stat(file_path, &st), 0);
        EQUAL(st.st_mode, S_IFREG | 0600);
        EQUAL(st.st_nlink, 1);
        EQUAL(st.st_size, 2 * MB);
        assert_true((uint64_t)st.st_blocks * 512 >= 2 * MB); /* no hole that a page may miss */

        const sg_file_header *header = header_of(&file);
        char boot[40];
        sg_boot_id(boot);
        assert_memory_equal(header->magic, SG_FILE_MAGIC, 8);
        EQUAL(header->version, SG_FILE_VERSION);
        EQUAL(header->unused, 0);
        EQUAL(header->layout, LAYOUT);
        EQUAL(header->size, 2 * MB);
        EQUAL(header->pid_namespace, sg_pid_namespace());
        assert_memory_equal(header->boot_id, boot, 40);
        assert_in_range(header->born_ns,
                        (uint64_t)from.tv_sec * 1000000000 + (uint64_t)from.tv_nsec,
                        (uint64_t)to.tv_sec * 1000000000 + (uint64_t)to.tv_nsec);
        sg_file_close(&file);
        assert_null(file.base);
        sg_file_close(&file); /* of a closed one: nothing */
        EQUAL(unlink(file_path), 0);
    }
    EQUAL(count_names(directory, ""), 0);
}

static void the_second_opens_what_the_first_made(void **state) {
    (void)state;
    sg_file one = opened(file_path, MB), two;
    formatting f = {.names = -1};
    int error = -1;
    EQUAL(sg_file_open(&two, file_path, 0, LAYOUT, format, &f, &error), SG_FILE_OK);
    assert_true(one.made && !two.made);
    EQUAL(f.calls, 0);
    EQUAL(two.size, MB);
    assert_true(one.base != two.base);
    one.base[MB - 1] = 77;
    EQUAL(two.base[MB - 1], 77);

    /* A forked child shares it, and what is closed stays on the file system. */
    pid_t pid = fork();
    if (pid == 0) {
        two.base[MB - 1] = 78;
        _exit(0);
    }
    assert_true(passed(pid, "a fork"));
    EQUAL(one.base[MB - 1], 78);
    sg_file_close(&one);
    sg_file_close(&two);
    two = opened(file_path, MB);
    assert_false(two.made);
    EQUAL(two.base[MB - 1], 78);
    sg_file_close(&two);
}

static void each_file_has_a_secret(void **state) {
    (void)state;
    static const uint8_t none[16];
    char other[PATH_MAX];
    path_in(other, "other");
    make(file_path, MB);
    make(other, MB);
    sg_file_header a = header_at(file_path), b = header_at(other);
    assert_memory_not_equal(a.secret, b.secret, 16);
    assert_memory_not_equal(a.secret, none, 16);
    assert_memory_not_equal(b.secret, none, 16);
}

static void a_path_may_be_relative(void **state) {
    (void)state;
    int before = open(".", O_RDONLY);
    EQUAL(chdir(directory), 0);
    make("g", MB);
    make("./f", MB);
    EQUAL(fchdir(before), 0);
    (void)close(before);
    sg_file file = opened(file_path, 0);
    assert_false(file.made);
    sg_file_close(&file);
    EQUAL(count_names(directory, ""), 2);
}

static void sizes_have_bounds(void **state) {
    (void)state;
    EQUAL(refused(file_path, 1, SG_FILE_TOO_SMALL), 0);
    EQUAL(refused(file_path, MB - 4096, SG_FILE_TOO_SMALL), 0);
    EQUAL(refused(file_path, MB + 1, SG_FILE_UNEVEN), 0);
    EQUAL(refused(file_path, MB + 2048, SG_FILE_UNEVEN), 0);
    EQUAL(refused(file_path, (UINT64_C(1) << 40) + 4096, SG_FILE_TOO_LARGE), 0);
    EQUAL(refused(file_path, UINT64_MAX - 1, SG_FILE_TOO_LARGE), 0);
    EQUAL(count_names(directory, ""), 0);
    make(file_path, MB);
    EQUAL(unlink(file_path), 0);
    make(file_path, 5 * MB + 4096); /* the last piece is a small one */
    sg_file file = opened(file_path, 0);
    EQUAL(file.size, 5 * MB + 4096);
    sg_file_close(&file);
    EQUAL(unlink(file_path), 0);
    make(file_path, 0);
    file = opened(file_path, 64 * MB);
    EQUAL(file.size, 64 * MB);
    sg_file_close(&file);
}

static void a_file_keeps_its_size(void **state) {
    (void)state;
    make(file_path, 2 * MB);
    ino_t inode = inode_of(file_path);
    EQUAL(refused(file_path, MB, SG_FILE_OTHER_SIZE), 0);
    EQUAL(refused(file_path, 3 * MB, SG_FILE_OTHER_SIZE), 0);
    sg_file file = opened(file_path, 2 * MB);
    sg_file_close(&file);
    file = opened(file_path, 0);
    EQUAL(file.size, 2 * MB);
    sg_file_close(&file);
    EQUAL(inode_of(file_path), inode);
}

/* --- what is not opened --- */

static void what_is_no_file_is_refused(void **state) {
    (void)state;
    char slash[PATH_MAX + 1];
    EQUAL(mkdir(file_path, 0700), 0);
    (void)refused(file_path, MB, SG_FILE_NOT_REGULAR);
    (void)snprintf(slash, sizeof slash, "%s/", file_path);
    (void)refused(slash, MB, SG_FILE_NOT_REGULAR);
    EQUAL(rmdir(file_path), 0);

    EQUAL(mkfifo(file_path, 0600), 0); /* must not wait for its other end */
    (void)refused(file_path, MB, SG_FILE_NOT_REGULAR);
    EQUAL(unlink(file_path), 0);

    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(file_path) < sizeof address.sun_path) {
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);
        memcpy(address.sun_path, file_path, strlen(file_path) + 1);
        EQUAL(bind(fd, (const struct sockaddr *)&address, sizeof address), 0);
        (void)close(fd);
        (void)refused(file_path, MB, SG_FILE_NOT_REGULAR);
        EQUAL(unlink(file_path), 0);
    }
    (void)refused("/dev/null", MB, SG_FILE_NOT_REGULAR);
    (void)refused("", MB, SG_FILE_NOT_REGULAR);
    (void)refused("/", MB, SG_FILE_NOT_REGULAR);
    (void)refused("/dev", MB, SG_FILE_NOT_REGULAR);
    (void)refused(".", MB, SG_FILE_NOT_REGULAR);
    EQUAL(count_names(directory, ""), 0);
}

static void no_link_is_followed(void **state) {
    (void)state;
    char target[PATH_MAX], again[PATH_MAX];
    path_in(target, "target");
    path_in(again, "again");

    EQUAL(symlink(target, file_path), 0); /* to nothing: nothing is made there */
    (void)refused(file_path, MB, SG_FILE_LINK);
    EQUAL(access(target, F_OK), -1);
    make(target, MB); /* to a good file */
    (void)refused(file_path, MB, SG_FILE_LINK);
    EQUAL(unlink(file_path), 0);
    EQUAL(symlink("f", file_path), 0); /* to itself */
    (void)refused(file_path, MB, SG_FILE_LINK);
    EQUAL(unlink(file_path), 0);

    EQUAL(link(target, again), 0);
    EQUAL(refused(target, MB, SG_FILE_HARD_LINKS), 0);
    EQUAL(refused(again, MB, SG_FILE_HARD_LINKS), 0);
    EQUAL(unlink(again), 0);
    sg_file file = opened(target, MB);
    assert_false(file.made);
    sg_file_close(&file);
}

/* A second name is that of a temporary file while its maker holds its lock. */
static void a_maker_with_two_names_is_waited_for(void **state) {
    (void)state;
    char temporary[PATH_MAX];
    int ready[2];
    path_in(temporary, "temporary");
    make(file_path, MB);
    EQUAL(link(file_path, temporary), 0);
    EQUAL(pipe(ready), 0);
    pid_t pid = fork();
    if (pid == 0) {
        guard();
        int fd = open(temporary, O_RDWR);
        CHILD_CHECK(flock(fd, LOCK_EX) == 0);
        CHILD_CHECK(write(ready[1], "r", 1) == 1);
        for (int ms = 0; ms < 100; ms++)
            nap();
        CHILD_CHECK(unlink(temporary) == 0);
        _exit(0);
    }
    char byte;
    EQUAL(read(ready[0], &byte, 1), 1);
    (void)close(ready[0]);
    (void)close(ready[1]);
    sg_file file = opened(file_path, MB);
    assert_false(file.made);
    sg_file_close(&file);
    assert_true(passed(pid, "a maker"));
}

/* A name taken from a file just opened: it is not the file of the path any more. */
static void a_file_without_names_is_left(void **state) {
    (void)state;
    char second[PATH_MAX];
    path_in(second, "second");
    make(file_path, MB);
    EQUAL(link(file_path, second), 0); /* so that it is waited for */
    sg_file_header old = header_at(file_path);
    int fd = open(file_path, O_RDWR);
    EQUAL(flock(fd, LOCK_EX), 0);
    pid_t pid = fork();
    if (pid == 0) {
        guard();
        (void)close(fd);
        sg_file file;
        CHILD_CHECK(opens_in_child(&file, file_path, MB, SG_FILE_OK));
        CHILD_CHECK(file.made && memcmp(header_of(&file)->secret, old.secret, 16) != 0);
        _exit(0);
    }
    for (int ms = 0; ms < 100; ms++)
        nap();
    EQUAL(unlink(file_path), 0);
    EQUAL(unlink(second), 0);
    (void)close(fd);
    assert_true(passed(pid, "a file without names"));
}

static void what_others_may_open_is_refused(void **state) {
    (void)state;
    make(file_path, MB);
    for (mode_t bit = 1; bit <= 040; bit *= 2) {
        EQUAL(chmod(file_path, 0600 | bit), 0);
        EQUAL(refused(file_path, MB, SG_FILE_OPEN_TO_OTHERS), 0);
    }
    EQUAL(chmod(file_path, 0600), 0);
    sg_file file = opened(file_path, MB);
    assert_false(file.made);
    sg_file_close(&file);
}

static void become_nobody(void) {
    if (geteuid() != 0)
        _exit(SKIPPED);
    CHILD_CHECK(setgid(NOBODY) == 0 && setuid(NOBODY) == 0);
}

static void nobody_opens_the_file_of_root(void) {
    sg_file file;
    become_nobody();
    CHILD_CHECK(opens_in_child(&file, file_path, MB, SG_FILE_NOT_OURS));
}

static void a_file_of_another_user_is_refused(void **state) {
    (void)state;
    make(file_path, MB);
    EQUAL(chmod(directory, 0755), 0);
    if (!in_child(nobody_opens_the_file_of_root, "a file of another user"))
        return;
    EQUAL(chmod(file_path, 0666), 0);
    assert_true(in_child(nobody_opens_the_file_of_root, "a file of another user"));
    EQUAL(chmod(file_path, 0600), 0);
    EQUAL(chown(file_path, NOBODY, (gid_t)-1), 0);
    EQUAL(refused(file_path, MB, SG_FILE_NOT_OURS), 0); /* though root may open it */
    EQUAL(chown(file_path, 0, (gid_t)-1), 0);
    sg_file file = opened(file_path, MB);
    assert_false(file.made);
    sg_file_close(&file);
}

static void nobody_meets_closed_doors(void) {
    sg_file file;
    become_nobody();
    CHILD_CHECK(opens_in_child(&file, file_path, MB, SG_FILE_OK));
    sg_file_close(&file);
    CHILD_CHECK(chmod(file_path, 0) == 0); /* ours, but closed to us */
    CHILD_CHECK(opens_in_child(&file, file_path, MB, SG_FILE_NO_PERMISSION));
    CHILD_CHECK(unlink(file_path) == 0);
    CHILD_CHECK(chmod(directory, 0500) == 0);
    CHILD_CHECK(opens_in_child(&file, file_path, MB, SG_FILE_NO_PERMISSION));
    CHILD_CHECK(chmod(directory, 0) == 0);
    CHILD_CHECK(opens_in_child(&file, file_path, MB, SG_FILE_NO_PERMISSION));
    CHILD_CHECK(chmod(directory, 0300) == 0); /* not to be listed, which is not needed */
    CHILD_CHECK(opens_in_child(&file, file_path, MB, SG_FILE_OK));
    CHILD_CHECK(file.made);
}

static void what_is_not_permitted_is_refused(void **state) {
    (void)state;
    if (geteuid() == 0)
        EQUAL(chown(directory, NOBODY, NOBODY), 0);
    (void)in_child(nobody_meets_closed_doors, "permissions");
}

static void root_meets_a_read_only_file_system(void) {
#if defined(__linux__)
    sg_file file;
    if (!has_private_mounts() || mount("none", directory, "tmpfs", MS_RDONLY, NULL) != 0)
        _exit(SKIPPED);
    CHILD_CHECK(opens_in_child(&file, file_path, MB, SG_FILE_NO_PERMISSION));
#else
    _exit(SKIPPED);
#endif
}

static void a_read_only_file_system_is_refused(void **state) {
    (void)state;
    (void)in_child(root_meets_a_read_only_file_system, "a read-only file system");
}

static void a_directory_must_be_there(void **state) {
    (void)state;
    char path[PATH_MAX];
    path_in(path, "none/f");
    EQUAL(refused(path, MB, SG_FILE_NO_DIRECTORY), ENOENT);
    make(file_path, MB);
    path_in(path, "f/g"); /* a file in its place */
    EQUAL(refused(path, MB, SG_FILE_NO_DIRECTORY), ENOTDIR);
}

static void other_errors_are_the_systems(void **state) {
    (void)state;
    char path[PATH_MAX], name[301];
    static char longest[2 * PATH_MAX];
    memset(name, 'n', 300);
    name[300] = '\0';
    path_in(path, name);
    EQUAL(refused(path, MB, SG_FILE_SYSTEM), ENAMETOOLONG);
    memset(longest, '/', sizeof longest - 2);
    longest[sizeof longest - 2] = 'f';
    EQUAL(refused(longest, MB, SG_FILE_SYSTEM), ENAMETOOLONG);
}

/* --- headers --- */

static void refused_and_untouched(const sg_file_header *header, sg_file_error expected) {
    put_header(file_path, header);
    ino_t inode = inode_of(file_path);
    EQUAL(refused(file_path, MB, expected), 0);
    EQUAL(inode_of(file_path), inode);
    sg_file_header after = header_at(file_path);
    assert_memory_equal(&after, header, sizeof after);
}

static void another_header_is_refused(void **state) {
    (void)state;
    make(file_path, MB);
    const sg_file_header good = header_at(file_path);
    sg_file_header h = good;
    h.magic[7] ^= 1;
    refused_and_untouched(&h, SG_FILE_OTHER_MAGIC);
    h = good;
    h.version++;
    refused_and_untouched(&h, SG_FILE_OTHER_VERSION);
    h = good;
    h.layout++;
    refused_and_untouched(&h, SG_FILE_OTHER_LAYOUT);
    h = good;
    h.pid_namespace++;
    refused_and_untouched(&h, SG_FILE_OTHER_NAMESPACE);
    static const uint64_t sizes[] = {0, 4096, MB - 4096, MB + 4096, 2 * MB, UINT64_MAX};
    for (size_t i = 0; i < COUNT(sizes); i++) {
        h = good;
        h.size = sizes[i];
        refused_and_untouched(&h, SG_FILE_CUT);
    }
    put_header(file_path, &good);
    sg_file file = opened(file_path, MB);
    assert_false(file.made);
    sg_file_close(&file);
}

static void a_cut_file_is_refused(void **state) {
    (void)state;
    static const struct {
        uint64_t length;
        sg_file_error error;
    } cuts[] = {
        {2 * MB, SG_FILE_CUT}, {MB + 1, SG_FILE_CUT}, {MB - 1, SG_FILE_CUT},
        {MB - 4096, SG_FILE_CUT}, {4096, SG_FILE_CUT}, {104, SG_FILE_CUT}, {60, SG_FILE_CUT},
        {8, SG_FILE_CUT}, {7, SG_FILE_OTHER_MAGIC}, {0, SG_FILE_OTHER_MAGIC},
    };
    make(file_path, MB);
    for (size_t i = 0; i < COUNT(cuts); i++) {
        struct stat st;
        EQUAL(truncate(file_path, (off_t)cuts[i].length), 0);
        EQUAL(refused(file_path, 0, cuts[i].error), 0);
        EQUAL(stat(file_path, &st), 0);
        EQUAL(st.st_size, cuts[i].length);
    }
    EQUAL(unlink(file_path), 0);

    /* A header that fits the length, but no file is made so. */
    static const uint64_t lengths[] = {4096, MB - 4096, MB + 2048, MB + 1};
    make(file_path, MB);
    for (size_t i = 0; i < COUNT(lengths); i++) {
        sg_file_header h = header_at(file_path);
        h.size = lengths[i];
        put_header(file_path, &h);
        EQUAL(truncate(file_path, (off_t)lengths[i]), 0);
        EQUAL(refused(file_path, 0, SG_FILE_CUT), 0);
    }
}

static void random_headers_are_survived(void **state) {
    (void)state;
    /* Fewer where making a file waits for a disk. */
    const unsigned rounds = strcmp(base, "/dev/shm") == 0 ? 10000 : 1000;
    unsigned ok = 0, replaced = 0;
    make(file_path, MB);
    sg_file_header good = header_at(file_path);
    for (unsigned i = 0; i < rounds; i++) {
        sg_file_header h = good;
        unsigned char *bytes = (unsigned char *)&h;
        uint64_t length = MB;
        switch (random_below(4)) {
        case 0: /* all of it */
            for (size_t j = 0; j < sizeof h; j++)
                bytes[j] = (unsigned char)random_bits();
            if (random_below(2) == 0)
                memcpy(h.magic, good.magic, sizeof h.magic);
            break;
        case 1: /* one bit */
            bytes[random_below(sizeof h)] ^= (unsigned char)(1u << random_below(8));
            break;
        case 2: /* a run of bytes */
            for (size_t j = random_below(sizeof h); j < sizeof h && random_below(8) != 0; j++)
                bytes[j] = (unsigned char)random_bits();
            break;
        default: /* the size, and the length of the file */
            h.size = random_skewed(8 * MB);
            length = random_below(2) == 0 ? h.size : random_skewed(2 * MB);
        }
        put_header(file_path, &h);
        EQUAL(truncate(file_path, (off_t)length), 0);
        ino_t inode = inode_of(file_path);
        sg_file file;
        int error = -1;
        /* One made anew need not be of the usual size. */
        bool aged = memcmp(h.boot_id, good.boot_id, sizeof h.boot_id) != 0;
        sg_file_error found = last(&file, file_path, aged ? MB : 0, &error);
        if (found == SG_FILE_OK) {
            ok++;
            replaced += file.made;
            file.base[file.size - 1] = 1; /* all of it can be reached */
            assert_true(file.made || (memcmp(h.magic, good.magic, 8) == 0 &&
                                      h.version == good.version && h.layout == good.layout &&
                                      h.size == length));
            /* Made anew only what seemed to be of another boot. */
            assert_true(!file.made || aged);
            if (file.made)
                good = *header_of(&file);
            sg_file_close(&file);
        } else {
            struct stat st;
            assert_null(file.base);
            EQUAL(inode_of(file_path), inode);
            EQUAL(stat(file_path, &st), 0);
            EQUAL(st.st_size, length);
        }
        EQUAL(truncate(file_path, (off_t)MB), 0);
    }
    assert_true(replaced > rounds / 100 && ok > replaced + rounds / 100 && ok < rounds / 10 * 9);
}

/* --- no space --- */

static void root_fills_a_tmpfs(void) {
    sg_file file;
    meeting m;
    int error = -1;
    if (!has_private_mounts() || !mounts("tmpfs", directory, "size=6m"))
        _exit(SKIPPED);
    CHILD_CHECK(last(&file, file_path, 0, &error) == SG_FILE_NO_SPACE);
    CHILD_CHECK(error == ENOSPC && file.base == NULL);
    CHILD_CHECK(count_names(directory, "") == 0);
    /* The space is given back, and is enough for one of several that want it at once. */
    for (int round = 0; round < 10; round++) {
        CHILD_CHECK(meet(8, 4 * MB, 2, &m));
        CHILD_CHECK(count_names(directory, "") == 1);
        CHILD_CHECK(unlink(file_path) == 0);
    }
}

/* What cannot fit is not tried: on a tmpfs that would take the machine's memory. */
static void root_asks_for_too_much(void) {
    sg_file file;
    int error = -1;
    struct timespec from, to;
    if (!has_private_mounts() || !mounts("tmpfs", directory, "size=512m"))
        _exit(SKIPPED);
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &from);
    CHILD_CHECK(last(&file, file_path, 516 * MB, &error) == SG_FILE_NO_SPACE && error == ENOSPC);
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &to);
    int64_t ns = (to.tv_sec - from.tv_sec) * INT64_C(1000000000) + (to.tv_nsec - from.tv_nsec);
    CHILD_CHECK(ns < 20000000); /* to clear 512 MB takes longer */
}

static void a_full_tmpfs_is_an_error(void **state) {
    (void)state;
    (void)in_child(root_fills_a_tmpfs, "a full tmpfs");
    (void)in_child(root_asks_for_too_much, "a small tmpfs");
}

static void a_limit_of_sizes_is_met(void) {
    sg_file file;
    int error = -1;
    const struct rlimit most = {3 * MB, 3 * MB};
    CHILD_CHECK(signal(SIGXFSZ, SIG_IGN) != SIG_ERR);
    CHILD_CHECK(setrlimit(RLIMIT_FSIZE, &most) == 0);
    CHILD_CHECK(last(&file, file_path, 8 * MB, &error) == SG_FILE_NO_SPACE);
    CHILD_CHECK(error == EFBIG && file.base == NULL);
    CHILD_CHECK(count_names(directory, "") == 0);
    CHILD_CHECK(opens_in_child(&file, file_path, 3 * MB, SG_FILE_OK));
}

static void a_limit_of_sizes_is_an_error(void **state) {
    (void)state;
    assert_true(in_child(a_limit_of_sizes_is_met, "a limit"));
}

static void a_limit_of_memory_is_met(void) {
    sg_file file;
    int error = -1;
    struct rlimit most = {512 * MB, 512 * MB};
    CHILD_CHECK(setrlimit(RLIMIT_AS, &most) == 0);
    CHILD_CHECK(last(&file, file_path, 600 * MB, &error) == SG_FILE_SYSTEM);
    CHILD_CHECK(error == ENOMEM && file.base == NULL);
    CHILD_CHECK(count_names(directory, "") == 0);
    CHILD_CHECK(last(&file, file_path, MB, &error) == SG_FILE_OK);
}

static void no_address_space_is_an_error(void **state) {
    (void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    printf("skipped: a limit of memory: the sanitizer needs more\n");
    (void)a_limit_of_memory_is_met;
#else
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
    printf("skipped: a limit of memory: the sanitizer needs more\n");
    return;
#endif
#endif
    assert_true(in_child(a_limit_of_memory_is_met, "a limit of memory"));
#endif
}

/* --- several at once --- */

static void of_many_one_makes_it(void **state) {
    (void)state;
    for (int round = 0; round < 30; round++) {
        meeting m;
        assert_true(meet(16, MB, round % 3, &m));
        EQUAL(m.size, MB);
        EQUAL(count_names(directory, ""), 1);
        EQUAL(unlink(file_path), 0);
    }
}

/* Where nobody can lock the directory, all make a file and one wins. */
static void nobody_meets_without_turns(void) {
    become_nobody();
    CHILD_CHECK(chmod(directory, 0300) == 0);
    for (int round = 0; round < 30; round++) {
        meeting m;
        CHILD_CHECK(meet(16, MB, round % 3, &m));
        CHILD_CHECK(unlink(file_path) == 0);
    }
    CHILD_CHECK(chmod(directory, 0700) == 0);
}

static void without_turns_still_one_makes_it(void **state) {
    (void)state;
    if (geteuid() == 0)
        EQUAL(chown(directory, NOBODY, NOBODY), 0);
    (void)in_child(nobody_meets_without_turns, "a directory that cannot be locked");
}

/* Another user can lock a directory like /dev/shm and keep it. */
static void a_locked_directory_holds_nobody_for_long(void **state) {
    (void)state;
    struct timespec from, to;
    int lock = open(directory, O_RDONLY | O_DIRECTORY);
    EQUAL(flock(lock, LOCK_EX), 0);
    (void)clock_gettime(CLOCK_MONOTONIC, &from);
    make(file_path, MB);
    (void)clock_gettime(CLOCK_MONOTONIC, &to);
    AT_MOST(to.tv_sec - from.tv_sec, 30);
    (void)close(lock);
}

/* No /proc: a file without a name cannot be given one, and one with a temporary name is made.
 * The same happens where there are no files without a name. */
static void root_meets_without_proc(void) {
    struct stat st;
    sg_file made;
    if (!has_private_mounts())
        _exit(SKIPPED);
    CHILD_CHECK(opens_in_child(&made, file_path, MB, SG_FILE_OK));
    sg_file_close(&made);
    if (!mounts("tmpfs", "/proc", NULL))
        _exit(SKIPPED);
    /* Not replaced, though its boot is not known to be this one. */
    CHILD_CHECK(opens_in_child(&made, file_path, MB, SG_FILE_OTHER_NAMESPACE));
    CHILD_CHECK(unlink(file_path) == 0);
    for (int round = 0; round < 30; round++) {
        meeting m;
        mode_t before = umask(round % 2 == 0 ? 0 : 0777);
        CHILD_CHECK(meet(16, MB, round % 3, &m));
        (void)umask(before);
        CHILD_CHECK(stat(file_path, &st) == 0);
        CHILD_CHECK(st.st_mode == (S_IFREG | 0600) && st.st_nlink == 1);
        CHILD_CHECK(count_names(directory, "") == 1);
        CHILD_CHECK(unlink(file_path) == 0);
    }
    sg_file file;
    int error;
    const struct rlimit most = {3 * MB, 3 * MB};
    CHILD_CHECK(signal(SIGXFSZ, SIG_IGN) != SIG_ERR);
    CHILD_CHECK(setrlimit(RLIMIT_FSIZE, &most) == 0);
    CHILD_CHECK(last(&file, file_path, 8 * MB, &error) == SG_FILE_NO_SPACE);
    CHILD_CHECK(count_names(directory, "") == 0);
}

static void a_temporary_name_does_as_well(void **state) {
    (void)state;
    (void)in_child(root_meets_without_proc, "a temporary name");
}

/* A file system that cannot allocate by itself. */
static void root_meets_on_ramfs(void) {
    meeting m;
    if (!has_private_mounts() || !mounts("ramfs", directory, NULL))
        _exit(SKIPPED);
    CHILD_CHECK(meet(4, 5 * MB + 4096, 0, &m));
    CHILD_CHECK(count_names(directory, "") == 1);
}

static void what_cannot_allocate_is_written(void **state) {
    (void)state;
    (void)in_child(root_meets_on_ramfs, "ramfs");
}

/* Signals in a row, as a profiler's timer sends them, only delay it. */
static void on_signal(int number) { (void)number; }

static void signals_only_delay(void **state) {
    (void)state;
    struct sigaction act = {.sa_handler = on_signal}, before;
    const pid_t parent = getpid();
    (void)sigemptyset(&act.sa_mask);
    EQUAL(sigaction(SIGUSR1, &act, &before), 0);
    pid_t pid = fork();
    if (pid == 0) {
        guard();
        while (getppid() == parent) {
            (void)kill(parent, SIGUSR1);
            (void)nanosleep(&(struct timespec){.tv_nsec = 3000000}, NULL);
        }
        _exit(0);
    }
    for (int i = 0; i < 5; i++) {
        make(file_path, 0);
        EQUAL(unlink(file_path), 0);
    }
    (void)kill(pid, SIGKILL);
    EQUAL(waitpid(pid, NULL, 0), pid);
    EQUAL(sigaction(SIGUSR1, &before, NULL), 0);
}

/* Killed at any moment, a maker leaves nothing behind, and the next one goes on. */
static void a_killed_maker_leaves_nothing(void **state) {
    (void)state;
#if defined(__linux__)
    for (int round = 0; round < 200; round++) {
        pid_t pid = fork();
        if (pid == 0) {
            sg_file file;
            int error;
            guard();
            (void)last(&file, file_path, 4 * MB, &error);
            _exit(0);
        }
        (void)nanosleep(&(struct timespec){.tv_nsec = (long)random_below(4000000)}, NULL);
        (void)kill(pid, SIGKILL);
        EQUAL(waitpid(pid, NULL, 0), pid);
        EQUAL(count_names(directory, ".sluicegate-"), 0);
        sg_file file = opened(file_path, 4 * MB);
        sg_file_close(&file);
        EQUAL(count_names(directory, ""), 1);
        EQUAL(unlink(file_path), 0);
    }
#endif
}

/* --- after a reboot --- */

static void age(const char *path) {
    sg_file_header header = header_at(path);
    header.boot_id[0] = header.boot_id[0] == 'x' ? 'y' : 'x';
    put_header(path, &header);
}

static void a_reboot_begins_anew(void **state) {
    (void)state;
    sg_file old = opened(file_path, MB);
    old.base[MB - 1] = 7;
    sg_file_header before = header_at(file_path);
    age(file_path);
    sg_file file = opened(file_path, 2 * MB); /* nothing of the old one counts */
    assert_true(file.made);
    EQUAL(file.size, 2 * MB);
    EQUAL(file.base[MB - 1], 0);
    assert_memory_not_equal(header_of(&file)->secret, before.secret, 16);
    EQUAL(old.base[MB - 1], 7); /* nobody's mapping was changed */
    sg_file_close(&file);
    sg_file_close(&old);
    file = opened(file_path, 0);
    assert_false(file.made);
    sg_file_close(&file);

    /* Of another version, layout, namespace and length: it is of the other boot above all. */
    sg_file_header h = header_at(file_path);
    h.version++;
    h.layout++;
    h.pid_namespace++;
    h.size++;
    put_header(file_path, &h);
    age(file_path);
    EQUAL(truncate(file_path, 5000), 0);
    file = opened(file_path, MB);
    assert_true(file.made);
    sg_file_close(&file);

    /* One that does not tell its boot is taken to be of this. */
    h = header_at(file_path);
    memset(h.boot_id, 0, sizeof h.boot_id);
    put_header(file_path, &h);
    file = opened(file_path, MB);
    assert_false(file.made);
    sg_file_close(&file);
    EQUAL(count_names(directory, ""), 1);
}

static void as_it_is_none_is_made(void **state) {
    (void)state;
    EQUAL(refused(file_path, SG_FILE_AS_IT_IS, SG_FILE_ABSENT), 0);
    EQUAL(count_names(directory, ""), 0);

    make(file_path, 2 * MB);
    sg_file file = opened(file_path, SG_FILE_AS_IT_IS);
    assert_false(file.made);
    EQUAL(file.size, 2 * MB);
    sg_file_close(&file);

    /* Who comes to use it makes the one after a reboot, and says of which size. */
    age(file_path);
    const sg_file_header old = header_at(file_path);
    EQUAL(refused(file_path, SG_FILE_AS_IT_IS, SG_FILE_ABSENT), 0);
    const sg_file_header now = header_at(file_path);
    assert_memory_equal(&now, &old, sizeof old);
}

/* What is not ours is not removed, of whichever boot it says it is. */
static void a_reboot_removes_only_what_is_ours(void **state) {
    (void)state;
    char again[PATH_MAX];
    make(file_path, MB);
    age(file_path);
    ino_t inode = inode_of(file_path);
    EQUAL(chmod(file_path, 0640), 0);
    (void)refused(file_path, MB, SG_FILE_OPEN_TO_OTHERS);
    EQUAL(chmod(file_path, 0600), 0);
    path_in(again, "again");
    EQUAL(link(file_path, again), 0);
    (void)refused(file_path, MB, SG_FILE_HARD_LINKS);
    EQUAL(unlink(again), 0);
    if (geteuid() == 0) {
        EQUAL(chown(file_path, NOBODY, (gid_t)-1), 0);
        (void)refused(file_path, MB, SG_FILE_NOT_OURS);
        EQUAL(chown(file_path, 0, (gid_t)-1), 0);
    }
    put(file_path, 0, "notmagic", 8);
    (void)refused(file_path, MB, SG_FILE_OTHER_MAGIC);
    EQUAL(inode_of(file_path), inode);
}

static void after_a_reboot_one_makes_it(void **state) {
    (void)state;
    make(file_path, MB);
    for (int round = 0; round < 100; round++) {
        meeting m;
        sg_file_header before = header_at(file_path);
        age(file_path);
        assert_true(meet(8, MB, round % 2, &m));
        assert_memory_not_equal(m.secret, before.secret, 16);
        EQUAL(count_names(directory, ""), 1);
    }
}

/* One who replaces an old file checks the path under the old file's lock: here it changes
 * while another one waits for that. */
static void a_late_one_does_not_remove_the_new_file(void **state) {
    (void)state;
    char old[PATH_MAX];
    int result[2];
    path_in(old, "old");
    make(file_path, MB);
    age(file_path);
    int fd = open(file_path, O_RDWR);
    EQUAL(flock(fd, LOCK_EX), 0);
    EQUAL(pipe(result), 0);
    pid_t pid = fork();
    if (pid == 0) {
        guard();
        (void)close(fd);
        sg_file file;
        CHILD_CHECK(opens_in_child(&file, file_path, MB, SG_FILE_OK));
        CHILD_CHECK(!file.made);
        CHILD_CHECK(write(result[1], header_of(&file)->secret, 16) == 16);
        _exit(0);
    }
    for (int ms = 0; ms < 100; ms++)
        nap(); /* it has opened the old file, and waits */
    EQUAL(rename(file_path, old), 0);
    make(file_path, MB);
    sg_file_header made = header_at(file_path);
    (void)close(fd);
    uint8_t secret[16];
    assert_true(passed(pid, "a late one"));
    EQUAL(read(result[0], secret, 16), 16);
    (void)close(result[0]);
    (void)close(result[1]);
    assert_memory_equal(secret, made.secret, 16);
    EQUAL(access(old, F_OK), 0); /* nor what no longer is at the path */
}

/* A process that is stopped while it holds the lock of the old file holds nobody for long. */
static void a_stopped_one_holds_nobody_for_long(void **state) {
    (void)state;
    make(file_path, MB);
    age(file_path);
    int fd = open(file_path, O_RDWR);
    EQUAL(flock(fd, LOCK_EX), 0);
    EQUAL(refused(file_path, MB, SG_FILE_SYSTEM), ETIMEDOUT);
    (void)close(fd);
    sg_file file = opened(file_path, MB);
    assert_true(file.made);
    sg_file_close(&file);
}

/* --- */

static void each_error_says_what_to_do(void **state) {
    (void)state;
    for (int i = SG_FILE_OK; i <= SG_FILE_SYSTEM; i++) {
        const char *why = sg_file_why((sg_file_error)i);
        assert_true(strlen(why) > 5);
        assert_true(why[0] >= 'a' && why[0] <= 'z');
        assert_null(strchr(why, '\n'));
        for (int j = SG_FILE_OK; j < i; j++)
            assert_true(strcmp(why, sg_file_why((sg_file_error)j)) != 0);
    }
    assert_non_null(strstr(sg_file_why(SG_FILE_OTHER_SIZE), "leave size= away"));
    assert_non_null(strstr(sg_file_why(SG_FILE_NO_SPACE), "tmpfs"));
}

static int seed(void **state) {
    (void)state;
    random_seed();
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(a_file_is_made_whole),
        TEST(the_second_opens_what_the_first_made),
        TEST(each_file_has_a_secret),
        TEST(a_path_may_be_relative),
        TEST(sizes_have_bounds),
        TEST(a_file_keeps_its_size),
        TEST(what_is_no_file_is_refused),
        TEST(no_link_is_followed),
        TEST(a_maker_with_two_names_is_waited_for),
        TEST(a_file_without_names_is_left),
        TEST(what_others_may_open_is_refused),
        TEST(a_file_of_another_user_is_refused),
        TEST(what_is_not_permitted_is_refused),
        TEST(a_read_only_file_system_is_refused),
        TEST(a_directory_must_be_there),
        TEST(other_errors_are_the_systems),
        TEST(another_header_is_refused),
        TEST(a_cut_file_is_refused),
        TEST(random_headers_are_survived),
        TEST(a_full_tmpfs_is_an_error),
        TEST(a_limit_of_sizes_is_an_error),
        TEST(no_address_space_is_an_error),
        TEST(of_many_one_makes_it),
        TEST(without_turns_still_one_makes_it),
        TEST(a_temporary_name_does_as_well),
        TEST(what_cannot_allocate_is_written),
        TEST(signals_only_delay),
        TEST(a_killed_maker_leaves_nothing),
        TEST(a_reboot_begins_anew),
        TEST(as_it_is_none_is_made),
        TEST(a_reboot_removes_only_what_is_ours),
        TEST(after_a_reboot_one_makes_it),
        TEST(a_late_one_does_not_remove_the_new_file),
        /* These wait for seconds. */
        TEST(a_locked_directory_holds_nobody_for_long),
        TEST(a_stopped_one_holds_nobody_for_long),
        TEST(each_error_says_what_to_do),
    };
    int failed = 0;
    if (access("/dev/shm", W_OK) == 0) {
        base = "/dev/shm";
        failed += cmocka_run_group_tests_name("file, on a tmpfs", tests, seed, NULL);
    }
    base = getenv("TMPDIR");
    if (base == NULL)
        base = "/tmp";
    failed += cmocka_run_group_tests_name("file, in the temporary directory", tests, seed, NULL);
    return failed;
}
