/* What keys are called on a server:
 *
 *     sg:{chat:user:42}         the state of subject user:42 of the limiter chat, prefix sg
 *     sg:{chat:user:42}:log0    the ring of its first log
 *     sg:{chat:user:42}:slots   who holds its slots, where chat is a ConcurrencyLimiter
 *
 * What stands in the braces decides the hash slot, so what belongs to one subject is together.
 * Percent-escapes keep any two of (prefix, limiter, subject) apart: of %, {, }, control bytes and
 * what is not UTF-8; in prefix and limiter also of the colon; of a # that begins a subject.
 * A subject of more than 128 bytes stands as # and the 32 hex digits of its SipHash-1-3-128, whose
 * key is made from the prefix: it is the same in all processes, and another for each prefix. */
#ifndef SG_NAME_H
#define SG_NAME_H

#include "fingerprint.h"
#include "sg.h"

#define SG_SUBJECT_MAX 128u
/* What sg_name_write needs behind the head: an escaped subject, and the brace. */
#define SG_NAME_ROOM (3u * SG_SUBJECT_MAX + 1u)
/* And for one of the endings below. */
#define SG_NAME_ENDING_ROOM 8u

/* Bytes that the head "prefix:{limiter:" takes at most. */
static inline size_t sg_name_head_room(size_t prefix_length, size_t limiter_length) {
    return 3 * (prefix_length + limiter_length) + 3;
}

/* Writes the head; returns its length. */
size_t sg_name_head(const char *prefix, size_t prefix_length, const char *limiter,
                    size_t limiter_length, char *out);

/* The key of the digests under a prefix. */
sg_secret sg_name_secret(const char *prefix, size_t prefix_length);

/* Writes head, subject and brace into SG_NAME_ROOM more bytes than the head has; returns the
 * length. */
size_t sg_name_write(const char *head, size_t head_length, const sg_secret *secret,
                     const void *subject, size_t length, char *out);

/* Appends ":log<number>" (up to SG_QUOTAS_MAX) or ":slots" in place; returns the new length. */
size_t sg_name_ring(char *name, size_t length, unsigned number);
size_t sg_name_slots(char *name, size_t length);

#endif
