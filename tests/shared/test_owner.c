#include "owner.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#if defined(__linux__)
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#endif

#include "support.h"

/* cmocka's checks jump back into the runner, which a forked child must not do. */
#define CHILD_CHECK(what)                                                                       \
    do {                                                                                        \
        if (!(what)) {                                                                          \
            fprintf(stderr, "%s:%d: in a child: %s\n", __FILE__, __LINE__, #what);              \
            _exit(1);                                                                           \
        }                                                                                       \
    } while (0)
#define SKIPPED 77

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

static void nap(void) { (void)nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL); }

/* What an owner is seen as, once it has had time to become that. */
static sg_owner_state becomes(sg_owner owner, sg_owner_state expected) {
    sg_owner_state state = sg_owner_look(owner);
    for (int ms = 0; ms < 5000 && state != expected; ms++) {
        nap();
        state = sg_owner_look(owner);
    }
    return state;
}

/* Gives up on hanging; a child has none of its parent's alarms. */
static void guard(void) { (void)alarm(60); }

/* A child that tells its owner and then does as it is told. */
typedef struct {
    pid_t pid;
    sg_owner owner;
} person;

static person child_that(void (*does)(void)) {
    int ends[2];
    EQUAL(pipe(ends), 0);
    person child = {.pid = fork()};
    assert_true(child.pid >= 0);
    if (child.pid == 0) {
        guard();
        sg_owner self = sg_owner_self();
        CHILD_CHECK(write(ends[1], &self, sizeof self) == sizeof self);
        does();
        _exit(0);
    }
    EQUAL(read(ends[0], &child.owner, sizeof child.owner), sizeof child.owner);
    (void)close(ends[0]);
    (void)close(ends[1]);
    return child;
}

static void sleeps(void) { (void)poll(NULL, 0, -1); }

static void spins(void) {
    for (volatile uint64_t i = 0;; i++)
        ;
}

static void ends(void) {}

static void reap(person child) {
    (void)kill(child.pid, SIGKILL);
    EQUAL(waitpid(child.pid, NULL, 0), child.pid);
}

static void *tell_self(void *out) {
    *(sg_owner *)out = sg_owner_self();
    return NULL;
}

static void *tell_process(void *out) {
    *(sg_owner *)out = sg_owner_process();
    return NULL;
}

static void one_thread_has_one_name(void **state) {
    (void)state;
    sg_owner self = sg_owner_self(), other = 0;
    assert_true(self != 0);
    EQUAL(sg_owner_self(), self);
    EQUAL(sg_owner_look(self), SG_OWNER_RUNS);
#if defined(__linux__)
    EQUAL(self & 0x3fffff, getpid());
    assert_true(self >> 22 != 0);
    pthread_t thread;
    EQUAL(pthread_create(&thread, NULL, tell_self, &other), 0);
    EQUAL(pthread_join(thread, NULL), 0);
    assert_true(other != 0 && other != self);
    assert_true((other & 0x3fffff) != (self & 0x3fffff));
    EQUAL(becomes(other, SG_OWNER_DEAD), SG_OWNER_DEAD);
#else
    (void)other;
    (void)tell_self;
    EQUAL(self & 0x3fffff, getpid());
#endif
    EQUAL(sg_owner_self(), self);
}

static void a_process_is_its_first_thread(void **state) {
    (void)state;
    sg_owner from_thread = 0;
    pthread_t thread;
    EQUAL(sg_owner_process(), sg_owner_self());
    EQUAL(pthread_create(&thread, NULL, tell_process, &from_thread), 0);
    EQUAL(pthread_join(thread, NULL), 0);
    EQUAL(from_thread, sg_owner_self());
    pid_t pid = fork();
    if (pid == 0) {
        CHILD_CHECK(sg_owner_process() == sg_owner_self() && sg_owner_process() != from_thread);
        _exit(0);
    }
    assert_true(passed(pid, "a fork"));
}

static void nobody_is_dead(void **state) {
    (void)state;
    EQUAL(sg_owner_look(0), SG_OWNER_DEAD);
    EQUAL(sg_owner_look(UINT64_C(123) << 22), SG_OWNER_DEAD);
}

static void a_forked_child_is_another(void **state) {
    (void)state;
    sg_owner parent = sg_owner_self();
    pid_t pid = fork();
    if (pid == 0) {
        sg_owner self = sg_owner_self();
        CHILD_CHECK(self != parent);
        CHILD_CHECK((self & 0x3fffff) == (uint64_t)getpid());
        CHILD_CHECK(sg_owner_look(self) == SG_OWNER_RUNS);
        CHILD_CHECK(sg_owner_look(parent) != SG_OWNER_DEAD);
        pid_t grandchild = fork();
        if (grandchild == 0) {
            CHILD_CHECK(sg_owner_self() != self && sg_owner_self() != parent);
            _exit(0);
        }
        int status;
        CHILD_CHECK(waitpid(grandchild, &status, 0) == grandchild && status == 0);
        CHILD_CHECK(sg_owner_self() == self);
        _exit(0);
    }
    assert_true(passed(pid, "a fork"));
    EQUAL(sg_owner_self(), parent);
}

static void *fork_from_here(void *out) {
    sg_owner self = sg_owner_self();
    pid_t pid = fork();
    if (pid == 0) {
        CHILD_CHECK(sg_owner_self() != self);
        CHILD_CHECK((sg_owner_self() & 0x3fffff) == (uint64_t)getpid());
        _exit(0);
    }
    *(pid_t *)out = pid;
    return NULL;
}

static void a_fork_from_a_thread_is_another(void **state) {
    (void)state;
    pthread_t thread;
    pid_t pid;
    EQUAL(pthread_create(&thread, NULL, fork_from_here, &pid), 0);
    EQUAL(pthread_join(thread, NULL), 0);
    assert_true(passed(pid, "a fork from a thread"));
}

static void the_living_are_told_from_the_dead(void **state) {
    (void)state;
    person spinner = child_that(spins);
    EQUAL(becomes(spinner.owner, SG_OWNER_RUNS), SG_OWNER_RUNS);
    EQUAL(kill(spinner.pid, SIGSTOP), 0);
    EQUAL(becomes(spinner.owner, SG_OWNER_STOPPED), SG_OWNER_STOPPED);
    EQUAL(kill(spinner.pid, SIGCONT), 0);
    EQUAL(becomes(spinner.owner, SG_OWNER_RUNS), SG_OWNER_RUNS);
    reap(spinner);
    EQUAL(sg_owner_look(spinner.owner), SG_OWNER_DEAD);

#if defined(__linux__) /* macOS shows who sleeps as running */
    person sleeper = child_that(sleeps);
    EQUAL(becomes(sleeper.owner, SG_OWNER_SLEEPS), SG_OWNER_SLEEPS);
    reap(sleeper);
#endif

    /* Ended, and not waited for: its id is still taken. */
    person zombie = child_that(ends);
    EQUAL(becomes(zombie.owner, SG_OWNER_DEAD), SG_OWNER_DEAD);
    EQUAL(kill(zombie.pid, 0), 0);
    reap(zombie);
    EQUAL(sg_owner_look(zombie.owner), SG_OWNER_DEAD);
}

/* A later process of the same id is another one. */
static void another_start_is_another_owner(void **state) {
    (void)state;
    sg_owner self = sg_owner_self();
    EQUAL(sg_owner_look(self + (UINT64_C(1) << 22)), SG_OWNER_DEAD);
    EQUAL(sg_owner_look(self - (UINT64_C(1) << 22)), SG_OWNER_DEAD);
    EQUAL(sg_owner_look(self ^ (UINT64_C(1) << 63)), SG_OWNER_DEAD);
    /* One made where the system did not tell: only the id counts, and it is in use. */
    EQUAL(sg_owner_look(self & 0x3fffff), SG_OWNER_RUNS);
}

static void any_bits_may_be_asked_about(void **state) {
    (void)state;
    for (int i = 0; i < 100000; i++) {
        sg_owner owner = random_bits();
        if (i % 4 == 0)
            owner = (owner & ~UINT64_C(0x3fffff)) | (sg_owner_self() & 0x3fffff);
        if (owner == sg_owner_self())
            continue;
        if (owner >> 22 != 0)
            EQUAL(sg_owner_look(owner), SG_OWNER_DEAD);
        else
            AT_MOST(sg_owner_look(owner), SG_OWNER_DEAD);
    }
}

/* It is asked for with each lock, so a thread asks the system once. */
static void it_costs_little(void **state) {
    (void)state;
    struct timespec from, to;
    sg_owner self = sg_owner_self();
    (void)clock_gettime(CLOCK_MONOTONIC, &from);
    for (int i = 0; i < 1000000; i++)
        assert_true(sg_owner_self() == self);
    (void)clock_gettime(CLOCK_MONOTONIC, &to);
    int64_t ns = (to.tv_sec - from.tv_sec) * INT64_C(1000000000) + (to.tv_nsec - from.tv_nsec);
    assert_true(ns / 1000000 < 500);
}

static void namespace_and_boot_stay(void **state) {
    (void)state;
    char id[41] = "", again[40];
    EQUAL(sg_pid_namespace(), sg_pid_namespace());
    memset(id, 'x', 40);
    sg_boot_id(id);
    sg_boot_id(again);
    assert_memory_equal(id, again, 40);
    assert_true(strlen(id) > 0 && strlen(id) < 40);
    for (size_t i = strlen(id); i < 40; i++)
        EQUAL(id[i], 0);
#if defined(__linux__)
    assert_true(sg_pid_namespace() != 0);
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "r");
    char text[64] = "";
    assert_non_null(file);
    assert_non_null(fgets(text, sizeof text, file));
    (void)fclose(file);
    text[strcspn(text, "\n")] = '\0';
    assert_string_equal(id, text);
#endif
}

#if defined(__linux__)

/* A name may look like the fields that follow it. */
static void sleeps_under_a_name(const char *name) {
    int ends[2];
    EQUAL(pipe(ends), 0);
    pid_t pid = fork();
    if (pid == 0) {
        guard();
        CHILD_CHECK(prctl(PR_SET_NAME, name) == 0);
        sg_owner self = sg_owner_self();
        CHILD_CHECK(write(ends[1], &self, sizeof self) == sizeof self);
        sleeps();
        _exit(0);
    }
    person child = {.pid = pid};
    EQUAL(read(ends[0], &child.owner, sizeof child.owner), sizeof child.owner);
    (void)close(ends[0]);
    (void)close(ends[1]);
    EQUAL(child.owner & 0x3fffff, pid);
    /* Started within a second of us, so the right field was read. */
    AT_MOST((child.owner >> 22) - (sg_owner_self() >> 22), 60 * 100);
    EQUAL(becomes(child.owner, SG_OWNER_SLEEPS), SG_OWNER_SLEEPS);
    reap(child);
    EQUAL(sg_owner_look(child.owner), SG_OWNER_DEAD);
}

static void a_name_means_nothing(void **state) {
    (void)state;
    static const char *const names[] = {"a) R 1 (", ") Z 1 1 1 1", ")\n) X (\n", "(((((", ")))))",
                                        ") R", " ", "\\) T 0 0"};
    for (size_t i = 0; i < COUNT(names); i++)
        sleeps_under_a_name(names[i]);
}

static bool write_text(const char *path, const char *text) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t n = write(fd, text, strlen(text));
    (void)close(fd);
    return n == (ssize_t)strlen(text);
}

/* A mount table that nobody else sees. */
static bool has_private_mounts(void) {
    return unshare(CLONE_NEWNS) == 0 && mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
}

/* `freeze`: how the freezer at `root` is told; its state is polled, as it takes a while. */
static void freezes(const char *root, const char *control, const char *freeze,
                    const char *thaw) {
    char group[128], procs[160], switch_path[160], pid[16];
    (void)snprintf(group, sizeof group, "%s/sluicegate-test-%d", root, (int)getpid());
    (void)snprintf(procs, sizeof procs, "%s/cgroup.procs", group);
    (void)snprintf(switch_path, sizeof switch_path, "%s/%s", group, control);
    CHILD_CHECK(mkdir(group, 0700) == 0);
    person spinner = child_that(spins);
    (void)snprintf(pid, sizeof pid, "%d", (int)spinner.pid);
    bool moved = write_text(procs, pid), frozen = moved && write_text(switch_path, freeze);
    sg_owner_state cold = frozen ? becomes(spinner.owner, SG_OWNER_STOPPED) : SG_OWNER_DEAD;
    bool thawed = write_text(switch_path, thaw);
    sg_owner_state warm = becomes(spinner.owner, SG_OWNER_RUNS);
    reap(spinner);
    for (int ms = 0; rmdir(group) != 0 && ms < 5000; ms++)
        nap();
    CHILD_CHECK(moved && frozen && thawed);
    CHILD_CHECK(cold == SG_OWNER_STOPPED);
    CHILD_CHECK(warm == SG_OWNER_RUNS);
}

static void try_freezer(const char *kind, const char *options, const char *control,
                        const char *freeze, const char *thaw) {
    pid_t pid = fork();
    if (pid == 0) {
        guard();
        if (!has_private_mounts() || mount("none", "/mnt", kind, 0, options) != 0)
            _exit(SKIPPED);
        freezes("/mnt", control, freeze, thaw);
        _exit(0);
    }
    char what[64];
    (void)snprintf(what, sizeof what, "a freezer of %s", kind);
    (void)passed(pid, what);
}

static void the_frozen_are_stopped(void **state) {
    (void)state;
    try_freezer("cgroup2", NULL, "cgroup.freeze", "1", "0");
    try_freezer("cgroup", "freezer", "freezer.state", "FROZEN", "THAWED");
}

/* Without /proc the living are left alone, and the dead are still seen. */
static void without_proc_nobody_is_taken_from(void **state) {
    (void)state;
    sg_owner named_before = sg_owner_self();
    person spinner = child_that(spins), dead = child_that(ends);
    reap(dead);
    pid_t pid = fork();
    if (pid == 0) {
        guard();
        if (!has_private_mounts() || mount("none", "/proc", "tmpfs", 0, NULL) != 0)
            _exit(SKIPPED);
        sg_owner self = sg_owner_self();
        CHILD_CHECK(self == (uint64_t)getpid());
        CHILD_CHECK(sg_owner_self() == self);
        CHILD_CHECK(sg_owner_look(self) == SG_OWNER_RUNS);
        CHILD_CHECK(sg_owner_look(named_before) == SG_OWNER_RUNS);
        CHILD_CHECK(sg_owner_look(spinner.owner) == SG_OWNER_RUNS);
        CHILD_CHECK(sg_owner_look(dead.owner) == SG_OWNER_DEAD);
        CHILD_CHECK(sg_pid_namespace() == 0);
        char id[40];
        sg_boot_id(id);
        CHILD_CHECK(id[0] == '\0' && id[39] == '\0');
        _exit(0);
    }
    (void)passed(pid, "a system without /proc");
    reap(spinner);
}

/* In a new namespace of processes under the old one's /proc, the ids there are of others. */
static void proc_of_another_namespace_is_not_believed(void **state) {
    (void)state;
    uint64_t outside = sg_pid_namespace();
    pid_t pid = fork();
    if (pid == 0) {
        guard();
        if (unshare(CLONE_NEWPID) != 0)
            _exit(SKIPPED);
        pid_t first = fork();
        if (first == 0) {
            guard();
            CHILD_CHECK(getpid() == 1);
            sg_owner self = sg_owner_self();
            CHILD_CHECK(self == 1 && sg_owner_process() == 1);
            CHILD_CHECK(sg_owner_look(self) == SG_OWNER_RUNS);
            CHILD_CHECK(sg_pid_namespace() != outside);
            pid_t second = fork();
            if (second == 0) {
                guard();
                CHILD_CHECK(sg_owner_self() == (uint64_t)getpid());
                CHILD_CHECK(sg_owner_look(1) == SG_OWNER_RUNS);
                _exit(0);
            }
            int status;
            CHILD_CHECK(waitpid(second, &status, 0) == second && status == 0);
            CHILD_CHECK(sg_owner_look((uint64_t)second) == SG_OWNER_DEAD);
            _exit(0);
        }
        int status;
        CHILD_CHECK(waitpid(first, &status, 0) == first && status == 0);
        _exit(0);
    }
    (void)passed(pid, "another namespace of processes");
}

/* Clocks and start times differ there. */
static void another_namespace_of_time_is_another(void **state) {
    (void)state;
    uint64_t outside = sg_pid_namespace();
    pid_t pid = fork();
    if (pid == 0) {
        guard();
        if (unshare(0x80 /* CLONE_NEWTIME, of Linux 5.6 and glibc 2.36 */) != 0)
            _exit(SKIPPED);
        pid_t first = fork();
        if (first == 0)
            _exit(sg_pid_namespace() != outside ? 0 : 1);
        int status;
        CHILD_CHECK(waitpid(first, &status, 0) == first && status == 0);
        _exit(0);
    }
    (void)passed(pid, "another namespace of time");
}

/* hidepid hides also a process of the same user, once it is not dumpable. */
static void the_hidden_are_alive(void **state) {
    (void)state;
    pid_t pid = fork();
    if (pid == 0) {
        guard();
        if (!has_private_mounts() || mount("proc", "/proc", "proc", 0, "hidepid=2") != 0)
            _exit(SKIPPED);
        CHILD_CHECK(setgid(65534) == 0 && setuid(65534) == 0);
        CHILD_CHECK(prctl(PR_SET_DUMPABLE, 0) == 0);
        person hidden = child_that(sleeps);
        CHILD_CHECK(prctl(PR_SET_DUMPABLE, 1) == 0);
        char path[32];
        (void)snprintf(path, sizeof path, "/proc/%d/stat", (int)hidden.pid);
        CHILD_CHECK(access(path, F_OK) != 0);
        CHILD_CHECK(sg_owner_self() >> 22 != 0);
        CHILD_CHECK(sg_owner_look(hidden.owner) == SG_OWNER_RUNS);
        CHILD_CHECK(kill(hidden.pid, SIGKILL) == 0);
        CHILD_CHECK(waitpid(hidden.pid, NULL, 0) == hidden.pid);
        CHILD_CHECK(sg_owner_look(hidden.owner) == SG_OWNER_DEAD);
        _exit(0);
    }
    (void)passed(pid, "a hidden process");
}

/* With no descriptor left nothing can be read, and nobody may be taken from. */
static void without_descriptors_nobody_is_taken_from(void **state) {
    (void)state;
    person spinner = child_that(spins), dead = child_that(ends);
    reap(dead);
    pid_t pid = fork();
    if (pid == 0) {
        guard();
        CHILD_CHECK(sg_owner_self() >> 22 != 0);
        while (dup(0) >= 0)
            ;
        CHILD_CHECK(errno == EMFILE);
        CHILD_CHECK(sg_owner_look(spinner.owner) == SG_OWNER_RUNS);
        CHILD_CHECK(sg_owner_look(dead.owner) == SG_OWNER_DEAD);
        _exit(0);
    }
    assert_true(passed(pid, "no descriptors"));
    reap(spinner);
}

#endif

static int begin(void **state) {
    (void)state;
    guard();
    random_seed();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_thread_has_one_name),
        cmocka_unit_test(a_process_is_its_first_thread),
        cmocka_unit_test(nobody_is_dead),
        cmocka_unit_test(a_forked_child_is_another),
        cmocka_unit_test(a_fork_from_a_thread_is_another),
        cmocka_unit_test(the_living_are_told_from_the_dead),
        cmocka_unit_test(another_start_is_another_owner),
        cmocka_unit_test(any_bits_may_be_asked_about),
        cmocka_unit_test(it_costs_little),
        cmocka_unit_test(namespace_and_boot_stay),
#if defined(__linux__)
        cmocka_unit_test(a_name_means_nothing),
        cmocka_unit_test(the_frozen_are_stopped),
        cmocka_unit_test(without_proc_nobody_is_taken_from),
        cmocka_unit_test(proc_of_another_namespace_is_not_believed),
        cmocka_unit_test(another_namespace_of_time_is_another),
        cmocka_unit_test(the_hidden_are_alive),
        cmocka_unit_test(without_descriptors_nobody_is_taken_from),
#endif
    };
    return cmocka_run_group_tests_name("owner", tests, begin, NULL);
}
