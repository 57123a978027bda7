/* The reference of one check at a time: a blocking loop over one command, as given.
 *
 * redis_loop SOCKET WORD...: the words of the command in hex. For each line of standard input, a
 * number n, it sends the command n times, each after the reply to the last, and prints the seconds
 * that took, then the median and the 99th percentile of one, in nanoseconds. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <hiredis.h>

static long long now_ns(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000ll + time.tv_nsec;
}

static int ascending(const void *a, const void *b) {
    const long long x = *(const long long *)a, y = *(const long long *)b;
    return (x > y) - (x < y);
}

static void fail(const char *what) {
    fprintf(stderr, "%s\n", what);
    exit(1);
}

static char *from_hex(const char *text, size_t *length) {
    *length = strlen(text) / 2;
    char *bytes = malloc(*length + 1);
    if (bytes == NULL)
        fail("no memory");
    for (size_t i = 0; i < *length; i++) {
        const char digits[3] = {text[2 * i], text[2 * i + 1], 0};
        bytes[i] = (char)strtol(digits, NULL, 16);
    }
    return bytes;
}

int main(int argc, char **argv) {
    if (argc < 3)
        fail("usage: redis_loop SOCKET WORD...");
    redisContext *context = redisConnectUnix(argv[1]);
    if (context == NULL || context->err)
        fail(context == NULL ? "no memory" : context->errstr);
    const int count = argc - 2;
    const char **words = malloc((size_t)count * sizeof *words);
    size_t *lengths = malloc((size_t)count * sizeof *lengths);
    if (words == NULL || lengths == NULL)
        fail("no memory");
    for (int i = 0; i < count; i++)
        words[i] = from_hex(argv[i + 2], &lengths[i]);

    long turns;
    while (scanf("%ld", &turns) == 1 && turns > 0) {
        long long *spent = malloc((size_t)turns * sizeof *spent);
        if (spent == NULL)
            fail("no memory");
        const long long begin = now_ns();
        long long last = begin;
        for (long i = 0; i < turns; i++) {
            redisReply *reply = redisCommandArgv(context, count, words, lengths);
            if (reply == NULL)
                fail(context->errstr);
            if (reply->type == REDIS_REPLY_ERROR)
                fail(reply->str);
            freeReplyObject(reply);
            const long long now = now_ns();
            spent[i] = now - last;
            last = now;
        }
        qsort(spent, (size_t)turns, sizeof *spent, ascending);
        printf("%.9f %lld %lld\n", (double)(last - begin) / 1e9, spent[turns / 2],
               spent[turns * 99 / 100]);
        fflush(stdout);
        free(spent);
    }
    redisFree(context);
    return 0;
}
