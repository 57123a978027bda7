#include "support.h"

#include <stdlib.h>

#include "siphash_vectors.h"

/* Bytes 0, 1, 2 .. in memory of exactly that length, so that a read past the end is seen. */
static unsigned char *message(size_t length, size_t shift) {
    unsigned char *bytes = malloc(length + shift);
    assert_non_null(bytes);
    for (size_t i = 0; i < length; i++)
        bytes[shift + i] = (unsigned char)i;
    return bytes;
}

static const sg_secret key = {UINT64_C(0x0706050403020100), UINT64_C(0x0f0e0d0c0b0a0908)};

static void equals_the_vectors(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(siphash_vectors); i++) {
        size_t length = siphash_vectors[i].length;
        for (size_t shift = 0; shift < 8; shift++) { /* at every alignment */
            unsigned char *bytes = message(length, shift);
            uint64_t out[2];
            sg_siphash13_128(&key, bytes + shift, length, out);
            EQUAL(out[0], siphash_vectors[i].out[0]);
            EQUAL(out[1], siphash_vectors[i].out[1]);
            sg_fingerprint fp = sg_fingerprint_of(&key, bytes + shift, length);
            EQUAL(fp.lo, out[0]);
            EQUAL(fp.hi, out[1] & ~UINT64_C(0xff));
            free(bytes);
        }
    }
}

static void takes_no_bytes_at_null(void **state) {
    (void)state;
    sg_fingerprint fp = sg_fingerprint_of(&key, NULL, 0);
    EQUAL(fp.lo, siphash_vectors[0].out[0]);
}

static void depends_on_all_of_the_secret(void **state) {
    (void)state;
    for (unsigned bit = 0; bit < 128; bit++) {
        sg_secret other = key;
        if (bit < 64)
            other.k0 ^= UINT64_C(1) << bit;
        else
            other.k1 ^= UINT64_C(1) << (bit - 64);
        sg_fingerprint a = sg_fingerprint_of(&key, "user:42", 7);
        sg_fingerprint b = sg_fingerprint_of(&other, "user:42", 7);
        assert_true(a.lo != b.lo && a.hi != b.hi);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_the_vectors),
        cmocka_unit_test(takes_no_bytes_at_null),
        cmocka_unit_test(depends_on_all_of_the_secret),
    };
    return cmocka_run_group_tests_name("fingerprint", tests, NULL, NULL);
}
