/* check_pieces.c - what one thread does at a time, of tables too large to bring buffers for. */
#include <stdlib.h>

#include "options.h"
#include "reduce.h"
#include "support.h"
#include "table.h"

enum { SEGMENTS = 4 };

typedef struct cut {
    gr_table table;
    void *memory, *pieces;
    uint64_t most; /* elements of the longest piece */
} cut;

static void open_cut(cut *c, const uint64_t counts[SEGMENTS])
{
    const gradreg_segment segment = GRADREG_SEGMENT_INIT;
    gradreg_regularizer_params p = GRADREG_REGULARIZER_PARAMS_INIT;
    const double multipliers[1] = { 1.0 };
    gradreg_segment segments[SEGMENTS];
    uint64_t at = 0;
    p.layer_count = 1;
    p.param_type = p.grad_type = GRADREG_TYPE_F32;
    for (size_t i = 0; i < SEGMENTS; i++) {
        segments[i] = segment;
        segments[i].role = GRADREG_ROLE_MLP;
        segments[i].layer = 0;
        segments[i].offset = at;
        segments[i].count = counts[i];
        at += counts[i];
    }
    c->memory = calloc(1, gradreg_i_table_bytes(SEGMENTS));
    ck_assert_ptr_nonnull(c->memory);
    ck_assert_int_eq(
        gradreg_i_table_build(&c->table, c->memory, segments, SEGMENTS, &p, multipliers),
        GRADREG_OK);
    c->pieces = malloc(gradreg_i_table_piece_bytes(&c->table));
    ck_assert_ptr_nonnull(c->pieces);
    gradreg_i_table_attach_pieces(&c->table, c->pieces);
    ck_assert_int_eq(gradreg_i_table_place(&c->table, 0, 0, at), GRADREG_OK);
}

static void close_cut(cut *c)
{
    free(c->pieces);
    free(c->memory);
}

/* Every element once and in order, every block in one piece, its number by its place. */
static void check_cover(cut *c)
{
    const gr_table *t = &c->table;
    size_t piece = 0;
    uint64_t block = 0;
    c->most = 0;
    for (size_t i = 0; i < SEGMENTS; i++)
        for (uint64_t at = t->segments[i].begin; at < t->segments[i].end; piece++) {
            ck_assert_uint_lt(piece, t->piece_count);
            const gr_piece *p = &t->pieces[piece];
            ck_assert_uint_eq(p->segment, i);
            ck_assert_uint_eq(p->begin, at);
            ck_assert_uint_gt(p->end, p->begin);
            ck_assert_uint_eq(p->first_block, block);
            ck_assert(p->end == t->segments[i].end || p->end % GR_BLOCK == 0);
            block += (p->end - 1) / GR_BLOCK - p->begin / GR_BLOCK + 1;
            c->most = p->end - at > c->most ? p->end - at : c->most;
            at = p->end;
        }
    ck_assert_uint_eq(piece, t->piece_count);
    ck_assert_uint_le(piece, t->piece_capacity);
    ck_assert_uint_eq(block, t->block_count);
    ck_assert_uint_le(block, t->block_capacity);
}

START_TEST(pieces_cover_every_element_once_and_grow_with_the_table)
{
    static const struct {
        uint64_t counts[SEGMENTS], most;
    } rows[] = {
        { { 1, 4097, 0, 65537 }, 65536 },
        { { 5000, UINT64_C(33000000), 77, 1000 }, 65536 },
        { { 5000, UINT64_C(33600001), 77, 1000 }, 131072 },
        { { UINT64_C(100000000), 1, UINT64_C(4567891), 4096 }, 262144 },
        { { UINT64_C(4000000000), 3, UINT64_C(1) << 32, 492 }, 1048576 },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        cut c = { 0 };
        open_cut(&c, rows[i].counts);
        check_cover(&c);
        ck_assert_uint_eq(c.most, rows[i].most);
        close_cut(&c);
    }
}
END_TEST

START_TEST(a_slice_that_begins_within_a_block_is_cut_at_the_segments_own_borders)
{
    const uint64_t counts[SEGMENTS] = { 10000, UINT64_C(600000000), 5, 5 };
    cut c = { 0 };
    open_cut(&c, counts);
    ck_assert_int_eq(gradreg_i_table_place(&c.table, 0, 12345, UINT64_C(400000000)),
                     GRADREG_OK);
    ck_assert_uint_eq(c.table.pieces[0].begin, 2345);
    ck_assert_uint_eq(c.table.pieces[0].end, 1048576);
    check_cover(&c);
    close_cut(&c);
}
END_TEST

int main(void)
{
    TCase *pieces = tcase_create("pieces");
    tcase_add_test(pieces, pieces_cover_every_element_once_and_grow_with_the_table);
    tcase_add_test(pieces,
                   a_slice_that_begins_within_a_block_is_cut_at_the_segments_own_borders);
    Suite *suite = suite_create("pieces");
    suite_add_tcase(suite, pieces);
    return run_suite(suite);
}
