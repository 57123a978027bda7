#include "slot.h"

#include <stdint.h>
#include <string.h>

unsigned sg_slot_of(const char *key, size_t length) {
    const char *open = length == 0 ? NULL : memchr(key, '{', length);
    if (open != NULL) {
        const size_t rest = length - (size_t)(open + 1 - key);
        const char *close = memchr(open + 1, '}', rest);
        if (close != NULL && close != open + 1) {
            key = open + 1;
            length = (size_t)(close - key);
        }
    }
    /* A name has some dozens of bytes, so a table would save nothing that shows. */
    unsigned crc = 0;
    for (size_t i = 0; i < length; i++) {
        crc ^= (unsigned)(uint8_t)key[i] << 8;
        for (int bit = 0; bit < 8; bit++)
            crc = ((crc << 1) ^ (crc & 0x8000u ? 0x1021u : 0u)) & 0xffffu;
    }
    return crc % SG_HASH_SLOTS;
}
