/* Which of a cluster's hash slots a key is in. */
#ifndef SG_SLOT_H
#define SG_SLOT_H

#include <stddef.h>

#define SG_HASH_SLOTS 16384u

/* CRC16 (XMODEM) of the key, or of what stands in its first braces if that is not empty. */
unsigned sg_slot_of(const char *key, size_t length);

#endif
