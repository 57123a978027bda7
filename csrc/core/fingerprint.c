#include "fingerprint.h"

#include <string.h>

/* SipHash (Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012) with one
 * compression and three finalisation rounds, as CPython and Rust use it for their own
 * tables, and with 128 bits of output. */

#define ROTATE(x, bits) (((x) << (bits)) | ((x) >> (64 - (bits))))

typedef struct {
    uint64_t v0, v1, v2, v3;
} sip;

static inline void sip_round(sip *s) {
    s->v0 += s->v1;
    s->v2 += s->v3;
    s->v1 = ROTATE(s->v1, 13) ^ s->v0;
    s->v3 = ROTATE(s->v3, 16) ^ s->v2;
    s->v0 = ROTATE(s->v0, 32);
    s->v2 += s->v1;
    s->v0 += s->v3;
    s->v1 = ROTATE(s->v1, 17) ^ s->v2;
    s->v3 = ROTATE(s->v3, 21) ^ s->v0;
    s->v2 = ROTATE(s->v2, 32);
}

static inline uint64_t little_endian(uint64_t word) {
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    return __builtin_bswap64(word);
#else
    return word;
#endif
}

static inline uint64_t load(const unsigned char *p) {
    uint64_t word;
    memcpy(&word, p, sizeof word);
    return little_endian(word);
}

/* The last 0 to 7 bytes, without a loop: two overlapping loads cover 4 to 7. */
static inline uint64_t load_tail(const unsigned char *p, size_t n) {
    if (n >= 4) {
        uint32_t low, high;
        memcpy(&low, p, 4);
        memcpy(&high, p + n - 4, 4);
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
        low = __builtin_bswap32(low);
        high = __builtin_bswap32(high);
#endif
        return (uint64_t)low | (uint64_t)high << (8 * (n - 4));
    }
    if (n == 0)
        return 0;
    return (uint64_t)p[0] | (uint64_t)p[n / 2] << (8 * (n / 2)) | (uint64_t)p[n - 1] << (8 * (n - 1));
}

void sg_siphash13_128(const sg_secret *secret, const void *key, size_t length, uint64_t out[2]) {
    const unsigned char *p = key;
    sip s = {
        .v0 = secret->k0 ^ UINT64_C(0x736f6d6570736575),
        .v1 = secret->k1 ^ UINT64_C(0x646f72616e646f6d) ^ 0xee,
        .v2 = secret->k0 ^ UINT64_C(0x6c7967656e657261),
        .v3 = secret->k1 ^ UINT64_C(0x7465646279746573),
    };
    size_t left = length;
    for (; left >= 8; left -= 8, p += 8) {
        uint64_t word = load(p);
        s.v3 ^= word;
        sip_round(&s);
        s.v0 ^= word;
    }
    uint64_t last = (uint64_t)length << 56 | (left ? load_tail(p, left) : 0);
    s.v3 ^= last;
    sip_round(&s);
    s.v0 ^= last;

    s.v2 ^= 0xee;
    sip_round(&s);
    sip_round(&s);
    sip_round(&s);
    out[0] = s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
    s.v1 ^= 0xdd;
    sip_round(&s);
    sip_round(&s);
    sip_round(&s);
    out[1] = s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
}

sg_fingerprint sg_fingerprint_of(const sg_secret *secret, const void *key, size_t length) {
    uint64_t out[2];
    sg_siphash13_128(secret, key, length, out);
    return (sg_fingerprint){.lo = out[0], .hi = out[1] & ~UINT64_C(0xff)};
}
