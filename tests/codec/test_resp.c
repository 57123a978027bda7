/* The wire: replies however they are cut, and streams of servers that mean no good. */
#include <stdlib.h>

#include "memory.h"
#include "resp.h"
#include "support.h"

#define TEXT(literal) literal, sizeof(literal) - 1

static sg_resp_state feed_and_look(sg_resp *resp, const char *bytes, size_t length,
                                   sg_reply *reply) {
    return sg_resp_feed(resp, bytes, length) ? sg_resp_next(resp, reply) : SG_RESP_BROKEN;
}

/* A stream ends as broken, however it is cut. */
static void breaks(const char *bytes, size_t length) {
    for (size_t piece = 1; piece <= length; piece += 1 + piece / 2) {
        sg_resp *resp = sg_resp_new();
        sg_reply reply;
        sg_resp_state state = SG_RESP_MORE;
        for (size_t at = 0; at < length && state == SG_RESP_MORE; at += piece)
            state = feed_and_look(resp, bytes + at, piece < length - at ? piece : length - at,
                                  &reply);
        EQUAL(state, SG_RESP_BROKEN);
        EQUAL(sg_resp_next(resp, &reply), SG_RESP_BROKEN); /* and stays so */
        sg_resp_free(resp);
    }
}

static void each_type_is_read(void **state) {
    (void)state;
    const char text[] = "*6\r\n$5\r\nab\r\nc\r\n$-1\r\n:-42\r\n+OK\r\n-ERR no\r\n"
                        "*2\r\n$0\r\n\r\n*-1\r\n";
    static const sg_resp_type types[] = {
        SG_RESP_ARRAY, SG_RESP_STRING, SG_RESP_NIL,    SG_RESP_INTEGER, SG_RESP_STATUS,
        SG_RESP_ERROR, SG_RESP_ARRAY,  SG_RESP_STRING, SG_RESP_NIL};
    sg_resp *resp = sg_resp_new();
    sg_reply reply;
    EQUAL(feed_and_look(resp, text, sizeof text - 1, &reply), SG_RESP_READY);
    EQUAL(reply.count, COUNT(types));
    for (size_t i = 0; i < COUNT(types); i++)
        EQUAL(reply.nodes[i].type, types[i]);
    EQUAL(reply.nodes[0].number, 6);
    EQUAL(reply.nodes[1].length, 5);
    assert_memory_equal(reply.bytes + reply.nodes[1].start, "ab\r\nc", 5);
    assert_true(reply.nodes[3].number == -42);
    EQUAL(reply.nodes[5].length, 6);
    EQUAL(reply.nodes[7].length, 0);
    EQUAL(sg_resp_next(resp, &reply), SG_RESP_MORE);
    sg_resp_free(resp);
}

/* An empty text is none that is missing, be it all there is. */
static void an_empty_text_is_a_text(void **state) {
    (void)state;
    sg_resp *resp = sg_resp_new();
    sg_reply reply;
    EQUAL(feed_and_look(resp, TEXT("$0\r\n\r\n"), &reply), SG_RESP_READY);
    EQUAL(reply.nodes[0].type, SG_RESP_STRING);
    assert_non_null(reply.bytes);
    sg_resp_free(resp);
}

static void a_cut_at_any_byte_changes_nothing(void **state) {
    (void)state;
    const char text[] = "*3\r\n$9\r\n123456789\r\n$-1\r\n:1800000000000000\r\n"
                        "-NOSCRIPT No matching script.\r\n+PONG\r\n*0\r\n$3\r\n\r\n\r\r\n";
    const size_t length = sizeof text - 1;
    static const size_t counts[] = {4, 1, 1, 1, 1};
    for (size_t first = 0; first <= length; first++) {
        for (size_t second = first; second <= length; second += 1 + (length - first) / 4) {
            sg_resp *resp = sg_resp_new();
            const size_t cuts[] = {first, second, length};
            size_t at = 0, whole = 0;
            sg_reply reply;
            for (size_t i = 0; i < COUNT(cuts); at = cuts[i++]) {
                assert_true(sg_resp_feed(resp, text + at, cuts[i] - at));
                sg_resp_state got;
                while ((got = sg_resp_next(resp, &reply)) == SG_RESP_READY)
                    EQUAL(reply.count, counts[whole++]);
                EQUAL(got, SG_RESP_MORE);
            }
            EQUAL(whole, COUNT(counts));
            assert_memory_equal(reply.bytes + reply.nodes[0].start, "\r\n\r", 3);
            sg_resp_free(resp);
        }
    }
}

static void what_is_no_resp2_breaks(void **state) {
    (void)state;
    breaks(TEXT("HTTP/1.1 400 Bad Request\r\n"));
    breaks(TEXT("\0\0\0\0\r\n"));
    breaks(TEXT("*1\r\n?\r\n"));
    breaks(TEXT("*2\r\n:1\r\nx"));
    breaks(TEXT(",1.5\r\n")); /* RESP3 */
    breaks(TEXT("#t\r\n"));
}

static void a_nested_bomb_breaks(void **state) {
    (void)state;
    char bomb[4 * 4096 + 1] = "";
    for (size_t i = 0; i < 4096; i++)
        memcpy(bomb + 4 * i, "*1\r\n", 5);
    breaks(bomb, sizeof bomb - 1);
}

/* What is announced takes no memory, and what is sent no more than the bound. */
static void announced(const char *head, const char *body, size_t piece) {
    sg_resp *resp = sg_resp_new();
    sg_reply reply;
    size_t sent = 0;
    sg_resp_state state = feed_and_look(resp, head, strlen(head), &reply);
    while (state == SG_RESP_MORE) {
        state = feed_and_look(resp, body, piece, &reply);
        sent += piece;
        AT_MOST(sent, 4 * (uint64_t)SG_RESP_BYTES_MAX);
    }
    EQUAL(state, SG_RESP_BROKEN);
    sg_resp_free(resp);
}

static void an_endless_reply_breaks(void **state) {
    (void)state;
    enum { PIECE = 1 << 16 };
    char *body = malloc(PIECE);
    memset(body, 'x', PIECE);
    announced("$1000000000\r\n", body, PIECE);
    announced("+", body, PIECE);
    announced("*", body, PIECE);
    for (size_t i = 0; i < PIECE; i += 4)
        memcpy(body + i, ":1\r\n", 4);
    announced("*1000000000\r\n", body, PIECE);
    char text[] = "$8\r\nxxxxxxxx\r\n"; /* of many texts the sum is bounded too */
    for (size_t i = 0; i + sizeof text - 1 <= PIECE; i += sizeof text - 1)
        memcpy(body + i, text, sizeof text - 1);
    announced("*1000000000\r\n", body, PIECE / (sizeof text - 1) * (sizeof text - 1));
    free(body);
}

/* The bounds are those of one reply: a stream may go on for ever. */
static void a_long_stream_of_small_replies_is_read(void **state) {
    (void)state;
    sg_resp *resp = sg_resp_new();
    sg_reply reply;
    char some[7000];
    const char one[] = "*2\r\n$3\r\nabc\r\n:7\r\n";
    size_t used = 0, read = 0, whole = 0;
    for (; used + sizeof one <= sizeof some; used += sizeof one - 1)
        memcpy(some + used, one, sizeof one - 1);
    for (; whole * (sizeof one - 1) < 3 * (size_t)SG_RESP_BYTES_MAX; read++) {
        assert_true(sg_resp_feed(resp, some, used));
        while (sg_resp_next(resp, &reply) == SG_RESP_READY)
            whole++;
    }
    EQUAL(whole, read * (used / (sizeof one - 1)));
    sg_resp_free(resp);
}

static void memory_that_fails_breaks_the_stream(void **state) {
    (void)state;
    char text[4096] = "*100\r\n";
    for (size_t i = 0; i < 100; i++)
        strcat(text, "$20\r\nxxxxxxxxxxxxxxxxxxxx\r\n");
    for (uint64_t fail = 1;; fail++) {
        sg_reply reply;
        memory_fail_at(fail);
        sg_resp *resp = sg_resp_new();
        const sg_resp_state got =
            resp == NULL ? SG_RESP_BROKEN : feed_and_look(resp, text, strlen(text), &reply);
        const uint64_t failures = memory_failures();
        memory_fail_at(0);
        sg_resp_free(resp);
        EQUAL(got, failures > 0 ? SG_RESP_BROKEN : SG_RESP_READY);
        if (failures == 0)
            break;
        AT_MOST(fail, 20);
    }
}

/* Bytes by chance, and good replies of which some were changed: an answer or an end. */
static void any_stream_is_read(void **state) {
    (void)state;
    const char good[] = "*3\r\n$9\r\n123456789\r\n$-1\r\n:1800000000000000\r\n"
                        "-ERR x\r\n+OK\r\n*1\r\n*1\r\n:1\r\n";
    for (unsigned round = 0; round < 20000; round++) {
        char stream[sizeof good];
        sg_resp *resp = sg_resp_new();
        sg_reply reply;
        sg_resp_state got = SG_RESP_MORE;
        memcpy(stream, good, sizeof good);
        for (uint64_t n = random_below(6); n > 0; n--)
            stream[random_below(sizeof good - 1)] =
                random_below(2) ? "*$:+-\r\n0189"[random_below(11)] : (char)random_bits();
        for (size_t at = 0; at < sizeof good - 1 && got != SG_RESP_BROKEN;) {
            const size_t piece = 1 + random_below(sizeof good - 1 - at);
            char *exact = malloc(piece); /* so that a sanitizer sees each byte too far */
            memcpy(exact, stream + at, piece);
            got = sg_resp_feed(resp, exact, piece) ? SG_RESP_MORE : SG_RESP_BROKEN;
            free(exact);
            at += piece;
            while (got != SG_RESP_BROKEN && (got = sg_resp_next(resp, &reply)) == SG_RESP_READY) {
                assert_true(reply.count >= 1);
                for (size_t i = 0; i < reply.count; i++)
                    AT_MOST(reply.nodes[i].start + reply.nodes[i].length, sizeof good);
            }
        }
        sg_resp_free(resp);
    }
}

static void commands_are_written(void **state) {
    (void)state;
    const char *argv[] = {"SET", "a\r\n", ""};
    const size_t lengths[] = {3, 3, 0};
    size_t size;
    char *command = sg_resp_command(3, argv, lengths, &size);
    const char expected[] = "*3\r\n$3\r\nSET\r\n$3\r\na\r\n\r\n$0\r\n\r\n";
    EQUAL(size, sizeof expected - 1);
    assert_memory_equal(command, expected, size);
    sg_resp_release(command);
    printf("hiredis %s\n", sg_resp_version());
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_type_is_read),
        cmocka_unit_test(an_empty_text_is_a_text),
        cmocka_unit_test(a_cut_at_any_byte_changes_nothing),
        cmocka_unit_test(what_is_no_resp2_breaks),
        cmocka_unit_test(a_nested_bomb_breaks),
        cmocka_unit_test(an_endless_reply_breaks),
        cmocka_unit_test(a_long_stream_of_small_replies_is_read),
        cmocka_unit_test(memory_that_fails_breaks_the_stream),
        cmocka_unit_test(any_stream_is_read),
        cmocka_unit_test(commands_are_written),
    };
    random_seed();
    return cmocka_run_group_tests_name("resp", tests, NULL, NULL);
}
