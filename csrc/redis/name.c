#include "name.h"

#include <string.h>

static const char hex[] = "0123456789abcdef";

/* Bytes of the UTF-8 sequence at p (as RFC 3629 has it: shortest form, no surrogates); 0: none. */
static size_t utf8_length(const uint8_t *p, size_t left) {
    const uint8_t first = p[0];
    size_t length = first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3
                    : first < 0xf5 ? 4 : 0;
    if (length == 0 || length > left)
        return 0;
    for (size_t i = 1; i < length; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    }
    if ((first == 0xe0 && p[1] < 0xa0) || (first == 0xed && p[1] > 0x9f) ||
        (first == 0xf0 && p[1] < 0x90) || (first == 0xf4 && p[1] > 0x8f))
        return 0;
    return length;
}

static char *escape(const void *text, size_t length, bool colon, char *out) {
    const uint8_t *p = text;
    for (size_t i = 0; i < length;) {
        size_t whole = utf8_length(p + i, length - i);
        const uint8_t c = p[i];
        if (whole == 0 || c < 0x20 || c == 0x7f || c == '%' || c == '{' || c == '}' ||
            (colon && c == ':')) {
            *out++ = '%';
            *out++ = hex[c >> 4];
            *out++ = hex[c & 15];
            i++;
            continue;
        }
        memcpy(out, p + i, whole);
        out += whole;
        i += whole;
    }
    return out;
}

size_t sg_name_head(const char *prefix, size_t prefix_length, const char *limiter,
                    size_t limiter_length, char *out) {
    char *p = escape(prefix, prefix_length, true, out);
    *p++ = ':';
    *p++ = '{';
    p = escape(limiter, limiter_length, true, p);
    *p++ = ':';
    return (size_t)(p - out);
}

sg_secret sg_name_secret(const char *prefix, size_t prefix_length) {
    const sg_secret known = {UINT64_C(0x7365676174656375), UINT64_C(0x6c75696365736c75)};
    uint64_t digest[2];
    sg_siphash13_128(&known, prefix, prefix_length, digest);
    return (sg_secret){digest[0], digest[1]};
}

size_t sg_name_write(const char *head, size_t head_length, const sg_secret *secret,
                     const void *subject, size_t length, char *out) {
    memcpy(out, head, head_length);
    char *p = out + head_length;
    const uint8_t *bytes = subject;
    if (length > SG_SUBJECT_MAX) {
        uint64_t digest[2];
        sg_siphash13_128(secret, subject, length, digest);
        *p++ = '#';
        for (unsigned i = 0; i < 16; i++) {
            const unsigned byte = (unsigned)(digest[i / 8] >> (8 * (i % 8))) & 0xffu;
            *p++ = hex[byte >> 4];
            *p++ = hex[byte & 15];
        }
    } else {
        if (length > 0 && bytes[0] == '#') {
            memcpy(p, "%23", 3);
            p += 3;
            bytes++;
            length--;
        }
        p = escape(bytes, length, false, p);
    }
    *p++ = '}';
    return (size_t)(p - out);
}

size_t sg_name_ring(char *name, size_t length, unsigned number) {
    memcpy(name + length, ":log", 4);
    name[length + 4] = (char)('0' + number);
    return length + 5;
}

size_t sg_name_slots(char *name, size_t length) {
    memcpy(name + length, ":slots", 6);
    return length + 6;
}
