#include "owner.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#if defined(__linux__)
#include <sys/syscall.h>
#elif defined(__APPLE__)
#include <sys/proc.h>
#include <sys/sysctl.h>
#endif

#define ID_BITS 22 /* no system has more: PID_MAX_LIMIT of Linux is 2**22, macOS ends at 99999 */
#define ID_MASK ((UINT64_C(1) << ID_BITS) - 1)
#define START_MASK (UINT64_MAX >> ID_BITS)

static sg_owner owner_of(uint64_t id, uint64_t start) {
    return (id & ID_MASK) | (start & START_MASK) << ID_BITS;
}

static uint64_t id_of(sg_owner owner) { return owner & ID_MASK; }
static uint64_t start_of(sg_owner owner) { return owner >> ID_BITS; }

/* What the system says of one thread (macOS: process), where it says anything. */
typedef struct {
    uint64_t id;
    uint64_t start;
    sg_owner_state state;
} facts;

#if defined(__linux__)

#define STAT_BYTES 1024 /* field 22 ends before byte 600, whatever the fields say */

/* The beginning of a file of /proc, as a string. False where it cannot be read. */
static bool read_text(const char *path, char *text, size_t size) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t length;
    do
        length = read(fd, text, size - 1);
    while (length < 0 && errno == EINTR);
    (void)close(fd);
    if (length <= 0)
        return false;
    text[length] = '\0';
    return true;
}

static sg_owner_state state_of(char letter) {
    switch (letter) {
    case 'S':
    case 'D':
    case 'I':
        return SG_OWNER_SLEEPS;
    case 'T':
    case 't':
        return SG_OWNER_STOPPED;
    case 'Z':
    case 'X':
    case 'x':
        return SG_OWNER_DEAD;
    default:
        return SG_OWNER_RUNS;
    }
}

static bool read_facts(const char *path, facts *out) {
    char text[STAT_BYTES];
    if (!read_text(path, text, sizeof text))
        return false;
    /* Field 2 is a name in parentheses, which may itself hold any byte but NUL; no later
     * field has a parenthesis. */
    const char *at = strrchr(text, ')');
    if (at == NULL || at[1] != ' ' || at[2] == '\0')
        return false;
    out->id = strtoull(text, NULL, 10);
    at += 2;
    out->state = state_of(*at);
    for (int field = 3; field < 22; field++) {
        at = strchr(at, ' ');
        if (at == NULL)
            return false;
        at++;
    }
    out->start = strtoull(at, NULL, 10) & START_MASK;
    return true;
}

static uint64_t own_id(void) { return (uint64_t)syscall(SYS_gettid); }

/* Nothing is believed of a /proc that is not mounted, or is that of another namespace. */
static bool own_facts(facts *out) {
    return read_facts("/proc/thread-self/stat", out) && out->id == own_id();
}

static bool facts_of(uint64_t id, facts *out) {
    char path[48];
    (void)snprintf(path, sizeof path, "/proc/%llu/stat", (unsigned long long)id);
    return read_facts(path, out);
}

/* Signal 0 is sent to nobody. Where it cannot be asked, the thread is taken to exist. */
static bool exists(uint64_t id) { return syscall(SYS_tkill, (int)id, 0) == 0 || errno != ESRCH; }

/* A thread that its cgroup's freezer holds is shown as asleep (S by version 2, D by 1);
 * only the function of the kernel that it waits in tells. A thread that merely sleeps is
 * in none of these. */
static bool is_frozen(uint64_t id) {
    static const char *const places[] = {"get_signal", "do_freezer_trap", "__refrigerator"};
    char path[48], place[64];
    (void)snprintf(path, sizeof path, "/proc/%llu/wchan", (unsigned long long)id);
    if (!read_text(path, place, sizeof place))
        return false;
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        if (strcmp(place, places[i]) == 0)
            return true;
    }
    return false;
}

uint64_t sg_pid_namespace(void) {
    struct stat pid, time;
    if (stat("/proc/self/ns/pid", &pid) != 0)
        return 0;
    /* The kernel numbers namespaces in 32 bits; those of time came with Linux 5.6. */
    uint64_t high = stat("/proc/self/ns/time", &time) == 0 ? (uint64_t)time.st_ino : 0;
    return ((uint64_t)pid.st_ino & UINT32_MAX) | high << 32;
}

void sg_boot_id(char id[40]) {
    char text[40];
    memset(id, 0, 40);
    if (read_text("/proc/sys/kernel/random/boot_id", text, sizeof text))
        memcpy(id, text, strcspn(text, "\n"));
}

#elif defined(__APPLE__)

static bool facts_of(uint64_t id, facts *out) {
    int name[] = {CTL_KERN, KERN_PROC, KERN_PROC_PID, (int)id};
    struct kinfo_proc process;
    size_t size = sizeof process;
    memset(&process, 0, sizeof process);
    if (sysctl(name, 4, &process, &size, NULL, 0) != 0 || size < sizeof process)
        return false;
    const struct timeval *started = &process.kp_proc.p_starttime;
    out->id = (uint64_t)process.kp_proc.p_pid;
    out->start = ((uint64_t)started->tv_sec * 1000000 + (uint64_t)started->tv_usec) & START_MASK;
    switch (process.kp_proc.p_stat) {
    case SSLEEP:
        out->state = SG_OWNER_SLEEPS;
        break;
    case SSTOP:
        out->state = SG_OWNER_STOPPED;
        break;
    case SZOMB:
        out->state = SG_OWNER_DEAD;
        break;
    default:
        out->state = SG_OWNER_RUNS;
    }
    return out->id == id;
}

static uint64_t own_id(void) { return (uint64_t)getpid(); }
static bool own_facts(facts *out) { return facts_of(own_id(), out); }
static bool exists(uint64_t id) { return kill((pid_t)id, 0) == 0 || errno != ESRCH; }

static bool is_frozen(uint64_t id) {
    (void)id;
    return false;
}

uint64_t sg_pid_namespace(void) { return 0; }

void sg_boot_id(char id[40]) {
    char text[40];
    size_t size = sizeof text;
    memset(id, 0, 40);
    memset(text, 0, sizeof text);
    if (sysctlbyname("kern.bootsessionuuid", text, &size, NULL, 0) == 0 && text[0] != '\0') {
        memcpy(id, text, strnlen(text, 39));
        return;
    }
    struct timeval booted; /* moves when the clock is set; of systems before the above alone */
    size = sizeof booted;
    if (sysctlbyname("kern.boottime", &booted, &size, NULL, 0) == 0)
        (void)snprintf(id, 40, "%lld", (long long)booted.tv_sec);
}

#else

static bool facts_of(uint64_t id, facts *out) {
    (void)id;
    (void)out;
    return false;
}

static uint64_t own_id(void) { return (uint64_t)getpid(); }
static bool own_facts(facts *out) { return facts_of(0, out); }
static bool exists(uint64_t id) { return kill((pid_t)id, 0) == 0 || errno != ESRCH; }

static bool is_frozen(uint64_t id) {
    (void)id;
    return false;
}

uint64_t sg_pid_namespace(void) { return 0; }
void sg_boot_id(char id[40]) { memset(id, 0, 40); }

#endif

/* State of the process, because it is a fact of the thread: asking takes microseconds, and
 * each lock taken in the mapping needs it. Nothing else is kept. */
static _Thread_local sg_owner self;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool forks_are_seen; /* written under `once` */

/* The thread that forks is the only one in the child, and the one that runs this. */
static void forget(void) { self = 0; }

static void watch_forks(void) { forks_are_seen = pthread_atfork(NULL, NULL, forget) == 0; }

sg_owner sg_owner_self(void) {
    if (self != 0)
        return self;
    facts own;
    uint64_t start = own_facts(&own) ? own.start : 0;
    sg_owner owner = owner_of(own_id(), start);
    if (pthread_once(&once, watch_forks) == 0 && forks_are_seen)
        self = owner;
    return owner;
}

/* What cannot be told is taken to run: what a living thread holds is never taken from it. So
 * where /proc tells nothing of us (none is mounted, or that of another namespace), of others
 * only whether the id is in use counts. The same where it tells of us and not of them: they
 * are gone, or hidden (hidepid and not dumpable), or no descriptor is left to ask by. */
sg_owner_state sg_owner_look(sg_owner owner) {
    const uint64_t id = id_of(owner);
    if (id == 0)
        return SG_OWNER_DEAD;
    facts of;
    if (start_of(sg_owner_self()) == 0 || !facts_of(id, &of))
        return exists(id) ? SG_OWNER_RUNS : SG_OWNER_DEAD;
    if (start_of(owner) != 0 && of.start != start_of(owner))
        return SG_OWNER_DEAD;
    return of.state == SG_OWNER_SLEEPS && is_frozen(id) ? SG_OWNER_STOPPED : of.state;
}

sg_owner sg_owner_process(void) {
    const uint64_t id = (uint64_t)getpid();
    facts of;
    /* As in sg_owner_look: only a /proc that tells of us tells of the process. */
    bool told = start_of(sg_owner_self()) != 0 && facts_of(id, &of);
    return owner_of(id, told ? of.start : 0);
}
