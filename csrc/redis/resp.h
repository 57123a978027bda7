/* The wire: commands to bytes, bytes to replies, by the system's hiredis. resp.c is the only file
 * that includes it, and knows its versions (0.14 and 1.x). RESP2.
 *
 * A reply is a flat row of nodes, an array before its elements; nothing is allocated by what a
 * peer announces, only by what it has sent, and of that no more than a bound. */
#ifndef SG_RESP_H
#define SG_RESP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What one reply may have at most, read or yet unread. The largest of ours, the slots of a great
 * cluster, has some hundred thousand bytes. */
#define SG_RESP_BYTES_MAX (UINT32_C(4) << 20)
#define SG_RESP_NODES_MAX (UINT32_C(1) << 18)
#define SG_RESP_DEPTH_MAX 8u /* arrays in arrays; hiredis before 1.0 has such a bound of its own */

typedef enum {
    SG_RESP_NIL = 0,
    SG_RESP_STRING,
    SG_RESP_STATUS,
    SG_RESP_ERROR,
    SG_RESP_INTEGER,
    SG_RESP_ARRAY,
} sg_resp_type;

typedef struct {
    sg_resp_type type;
    int64_t number;        /* of an integer; of an array, how many elements follow */
    uint32_t start, length; /* of a text, in the reply's bytes */
} sg_node;

typedef struct {
    const sg_node *nodes;
    size_t count; /* at least 1 */
    const char *bytes;
} sg_reply;

typedef struct sg_resp sg_resp;

typedef enum {
    SG_RESP_MORE = 0, /* no whole reply is there yet */
    SG_RESP_READY,
    SG_RESP_BROKEN, /* no RESP2, more than the bounds, or no memory: the stream is of no use */
} sg_resp_state;

sg_resp *sg_resp_new(void); /* NULL: no memory */
void sg_resp_free(sg_resp *resp);

/* Takes bytes of the stream; false as SG_RESP_BROKEN. */
bool sg_resp_feed(sg_resp *resp, const char *bytes, size_t length);

/* The next whole reply, good until the next call. */
sg_resp_state sg_resp_next(sg_resp *resp, sg_reply *reply);

/* A command of words as bytes, for sg_resp_release; NULL: no memory. */
char *sg_resp_command(int argc, const char **argv, const size_t *lengths, size_t *size);
void sg_resp_release(char *command);

/* hiredis's own version, as "0.14.1". */
const char *sg_resp_version(void);

#endif
