/* check_pieces.c - what one thread does at a time, of tables too large to bring buffers for; and the bins. */
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
    c->memory = calloc(1, gradreg_i_table_bytes(SEGMENTS, p.layer_count));
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

/* ---- bins -------------------------------------------------------------------------- */

/* Layers alternate between two kinds of segments; noise segments, in layer 0, stand alone. */
enum { BINNED = 24, BIN_LAYERS = 4 };

START_TEST(a_bin_is_found_by_its_layer_and_chained_in_the_tables_order)
{
    const gradreg_segment segment = GRADREG_SEGMENT_INIT;
    gradreg_regularizer_params p = GRADREG_REGULARIZER_PARAMS_INIT, resolved;
    const double multipliers[BIN_LAYERS] = { 1.0, 1.0, 1.0, 1.0 };
    gradreg_segment segments[BINNED];
    gr_table table;
    int32_t known[2][4], bins = 0;
    int met = 0;

    p.layer_count = BIN_LAYERS; /* the last one has no segment */
    p.param_type = p.grad_type = GRADREG_TYPE_F32;
    p.schedule.first_layer = 1;
    p.schedule.full_layer = 2;
    p.noise.rule = GRADREG_NOISE_RELATIVE;
    p.noise.roles = GRADREG_ROLE_ATTENTION | GRADREG_ROLE_OTHER;
    ck_assert_int_eq(gradreg_i_options_read(&resolved, &p), GRADREG_OK);
    for (size_t i = 0; i < BINNED; i++) {
        segments[i] = segment;
        segments[i].role = i / 4 % 2 == 0 ? GRADREG_ROLE_ATTENTION : GRADREG_ROLE_OTHER;
        segments[i].layer = (int32_t)(i % 4) - 1;
        segments[i].offset = i;
        segments[i].count = 1;
    }
    void *memory = malloc(gradreg_i_table_bytes(BINNED, BIN_LAYERS));
    ck_assert_ptr_nonnull(memory);
    ck_assert_int_eq(
        gradreg_i_table_build(&table, memory, segments, BINNED, &resolved, multipliers),
        GRADREG_OK);
    for (size_t i = 0; i < BINNED; i++) {
        int32_t *bin = &known[i / 4 % 2][i % 4];
        if (i < 8 || segments[i].layer == 0)
            *bin = bins++;
        ck_assert_int_eq(table.segments[i].bin, *bin);
    }
    for (int32_t l = GRADREG_LAYER_NONE; l < BIN_LAYERS; l++)
        for (int32_t b = table.layer_first[l + 1], last = -1; b >= 0;
             last = b, b = table.bins[b].next[0], met++) {
            ck_assert_int_gt(b, last);
            ck_assert_int_eq(table.bins[b].layer, l);
        }
    ck_assert_int_eq(met, bins);
    ck_assert_int_eq(table.layer_first[BIN_LAYERS], -1);
    free(memory);
}
END_TEST

int main(void)
{
    TCase *pieces = tcase_create("pieces");
    tcase_add_test(pieces, pieces_cover_every_element_once_and_grow_with_the_table);
    tcase_add_test(pieces,
                   a_slice_that_begins_within_a_block_is_cut_at_the_segments_own_borders);
    tcase_add_test(pieces, a_bin_is_found_by_its_layer_and_chained_in_the_tables_order);
    Suite *suite = suite_create("pieces");
    suite_add_tcase(suite, pieces);
    return run_suite(suite);
}
