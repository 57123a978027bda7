/* Memory of csrc/redis that fails on request. Its files are compiled so that malloc, calloc and
 * realloc are these here; hiredis has its own. */
#ifndef MEMORY_H
#define MEMORY_H

#include <stdint.h>

/* The allocation of that number, from now on, fails (0: none does). */
void memory_fail_at(uint64_t number);

/* How many failed since. */
uint64_t memory_failures(void);

#endif
