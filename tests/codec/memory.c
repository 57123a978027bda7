#include "memory.h"

#include <stdlib.h>

static uint64_t allocations, fail_at, failures;

void memory_fail_at(uint64_t number) {
    allocations = failures = 0;
    fail_at = number;
}

uint64_t memory_failures(void) { return failures; }

static int fails(void) {
    if (fail_at == 0 || ++allocations != fail_at)
        return 0;
    failures++;
    return 1;
}

void *failing_malloc(size_t size);
void *failing_calloc(size_t count, size_t size);
void *failing_realloc(void *memory, size_t size);

void *failing_malloc(size_t size) { return fails() ? NULL : malloc(size); }

void *failing_calloc(size_t count, size_t size) { return fails() ? NULL : calloc(count, size); }

void *failing_realloc(void *memory, size_t size) { return fails() ? NULL : realloc(memory, size); }
