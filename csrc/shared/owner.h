/* Who holds something in the mapping: a name that outlives its bearer, and by which
 * others see whether it is still alive. */
#ifndef SG_OWNER_H
#define SG_OWNER_H

#include <stdint.h>

/* 0: nobody. Else a thread: its id in the low 22 bits, above them when it started (Linux:
 * clock ticks since boot; 0 where the system does not tell). On macOS a process: no
 * thread sees another process's threads.
 *
 * Good within one boot and one namespace. A process that execs keeps its name. */
typedef uint64_t sg_owner;

/* Of the calling thread; in a forked child right from the start. Some ns after a
 * thread's first call. */
sg_owner sg_owner_self(void);

/* Of the process: that of its first thread. Takes some microseconds. */
sg_owner sg_owner_process(void);

typedef enum {
    SG_OWNER_RUNS,    /* or may run: also where the system does not tell */
    SG_OWNER_SLEEPS,  /* waits for something */
    SG_OWNER_STOPPED, /* by a signal, a debugger or the freezer of a cgroup */
    SG_OWNER_DEAD,    /* will never run again */
} sg_owner_state;

/* Takes some microseconds. Any 64 bits may be asked about; nobody is dead. */
sg_owner_state sg_owner_look(sg_owner owner);

/* Within which namespace an owner has a meaning: that of processes, and that of time, in
 * another of which clocks and start times differ. 0 where there is none. */
uint64_t sg_pid_namespace(void);

/* A text that changes with each boot, padded with NULs; empty where the system does not
 * tell. */
void sg_boot_id(char id[40]);

#endif
