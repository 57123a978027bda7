/* Key bytes to a keyed 128-bit fingerprint: what the table stores in place of the key. */
#ifndef SG_FINGERPRINT_H
#define SG_FINGERPRINT_H

#include "sg.h"

/* The secret of one store. Who does not know it cannot aim keys at one place. */
typedef struct {
    uint64_t k0, k1;
} sg_secret;

/* `lo` picks the place and the tag. The low byte of `hi` is not part of a
 * fingerprint (always 0): a cell keeps its flags there. 120 bits remain, at which two
 * of a billion keys collide with probability 4e-19. */
typedef struct {
    uint64_t lo, hi;
} sg_fingerprint;

/* SipHash-1-3 with 128 bits of output, of `length` bytes at `key` (may be NULL when 0). */
sg_fingerprint sg_fingerprint_of(const sg_secret *secret, const void *key, size_t length);

/* The full 128 bits, for tests against another implementation. */
void sg_siphash13_128(const sg_secret *secret, const void *key, size_t length, uint64_t out[2]);

#endif
