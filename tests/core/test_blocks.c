#include "blocks.h"

#include <stdlib.h>

#include "support.h"

/* Pieces of every size, filled, checked when they are given back. */
typedef struct {
    unsigned char *memory;
    size_t size;
    unsigned char fill;
} piece;

static void check(const piece *p) {
    for (size_t i = 0; i < p->size; i++)
        EQUAL(p->memory[i], p->fill);
}

static piece take(const sg_allocator *a, size_t size) {
    piece p = {a->alloc(a->context, size), size, (unsigned char)random_bits()};
    assert_non_null(p.memory);
    EQUAL((uintptr_t)p.memory % 16, 0);
    for (size_t i = 0; i < size; i++)
        EQUAL(p.memory[i], 0); /* also where another piece has been */
    memset(p.memory, p.fill, size);
    return p;
}

static void every_size_can_be_had_first(void **state) {
    (void)state;
    for (size_t size = 1; size < 10000; size += 13) {
        sg_blocks blocks;
        sg_blocks_init(&blocks);
        const sg_allocator a = sg_blocks_allocator(&blocks);
        piece p = take(&a, size), q = take(&a, size);
        check(&p);
        a.free(a.context, p.memory, size);
        check(&q);
        a.free(a.context, q.memory, size);
        EQUAL(blocks.in_use, 0);
        assert_null(blocks.blocks); /* all of it went back to the system */
    }
}

static void pieces_lie_apart(void **state) {
    (void)state;
    enum { PIECES = 2000 };
    static piece pieces[PIECES];
    sg_blocks blocks;
    uint64_t bytes = 0;
    memset(pieces, 0, sizeof pieces);
    sg_blocks_init(&blocks);
    const sg_allocator a = sg_blocks_allocator(&blocks);
    for (int n = 0; n < 60000; n++) {
        piece *p = &pieces[random_below(PIECES)];
        if (p->memory != NULL) {
            check(p);
            bytes -= p->size;
            a.free(a.context, p->memory, p->size);
            p->memory = NULL;
        } else {
            *p = take(&a, 1 + random_skewed(9000));
            bytes += p->size;
        }
        EQUAL(blocks.in_use, bytes);
    }
    for (int i = 0; i < PIECES; i++) {
        if (pieces[i].memory != NULL) {
            check(&pieces[i]);
            a.free(a.context, pieces[i].memory, pieces[i].size);
        }
    }
    assert_null(blocks.blocks);
    sg_blocks_release(&blocks);
}

static void what_is_freed_is_used_again(void **state) {
    (void)state;
    sg_blocks blocks;
    sg_blocks_init(&blocks);
    const sg_allocator a = sg_blocks_allocator(&blocks);
    piece keeps = take(&a, 32), p = take(&a, 400);
    a.free(a.context, p.memory, 400);
    piece q = take(&a, 390); /* of the same size class */
    assert_ptr_equal(p.memory, q.memory);
    check(&keeps);
    /* Large pieces come from the system one by one; a release leaves those to their owner. */
    a.free(a.context, q.memory, 390);
    a.free(a.context, keeps.memory, 32);
    EQUAL(blocks.in_use, 0);
}

static int seed(void **state) {
    (void)state;
    random_seed();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_size_can_be_had_first),
        cmocka_unit_test(pieces_lie_apart),
        cmocka_unit_test(what_is_freed_is_used_again),
    };
    return cmocka_run_group_tests_name("blocks", tests, seed, NULL);
}
