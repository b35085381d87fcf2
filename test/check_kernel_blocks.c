/* check_kernel_blocks.c - what a block becomes on every vector path that this processor has: moved
 * weights, regularized gradients, and all that rides along, in every combination of pointers.
 *
 * Every result, copy and lane is compared bit for bit with a restatement; of a NaN that arithmetic
 * made only that it is one. All memory is guarded, and what is only read must stay as it was. */
#include "kernel_cases.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- move ------------------------------------------------------------------------ */

/* Which pointers a block has, as digits of one number. */
struct move_form {
    int in_place, clean, kept, zeroed, slope, streaming, compute, off;
};
enum { MOVE_FORMS = 2 * 2 * 2 * 3 * 2 * 2 * (LAST_TYPE + 1) * 2 };

static struct move_form move_form(int k)
{
    struct move_form f = { 0, 0, 0, 0, 0, 0, 0, 0 };
    f.in_place = k % 2, k /= 2;
    f.clean = k % 2, k /= 2;
    f.kept = k % 2, k /= 2;
    f.zeroed = k % 3, k /= 3;
    f.slope = k % 2, k /= 2;
    f.streaming = k % 2, k /= 2;
    f.compute = k % (LAST_TYPE + 1), k /= LAST_TYPE + 1;
    f.off = k % 2;
    return f;
}

struct move_buffers {
    void *base, *moved, *u, *slope, *clean, *kept, *zeroed; /* guarded */
    void *base_was, *u_was, *slope_was;
};

static void open_move(struct move_buffers *m, const struct move_form *f, gradreg_type P,
                      gradreg_type U, size_t n, enum kind kind, uint64_t *state)
{
    const enum kind grad = kind == NOT_A_NUMBER ? NORMAL : kind;
    m->base = new_filled(P, n, f->off, kind, state);
    m->u = new_filled(U, n, f->off, grad, state);
    m->slope = f->slope ? new_filled(U, n, f->off, grad, state) : NULL;
    m->moved = f->in_place ? m->base : new_array(P, n, f->off);
    m->clean = f->clean ? new_array(P, n, f->off) : NULL;
    m->kept = f->kept ? new_array(U, n, !f->off) : NULL;
    m->zeroed = f->zeroed == 1 ? new_array(U, n, f->off) : f->zeroed == 2 ? m->u : NULL;
    m->base_was = copy_of(m->base, P, n);
    m->u_was = copy_of(m->u, U, n);
    m->slope_was = f->slope ? copy_of(m->slope, U, n) : NULL;
}

static void reset_move(struct move_buffers *m, gradreg_type P, gradreg_type U, size_t n)
{
    memcpy(m->base, m->base_was, n * type_bytes(P));
    memcpy(m->u, m->u_was, n * type_bytes(U));
    if (m->moved != m->base)
        memset(m->moved, 0xa5, n * type_bytes(P));
    if (m->clean != NULL)
        memset(m->clean, 0xa5, n * type_bytes(P));
    if (m->kept != NULL)
        memset(m->kept, 0xa5, n * type_bytes(U));
    if (m->zeroed != NULL && m->zeroed != m->u)
        memset(m->zeroed, 0xa5, n * type_bytes(U));
}

static int all_zero(const void *memory, size_t bytes)
{
    const unsigned char *p = memory;
    while (bytes > 0 && p[bytes - 1] == 0)
        bytes--;
    return bytes == 0;
}

static void check_move(const struct move_buffers *m, gradreg_type P, gradreg_type U, size_t n,
                       const char *where)
{
    const size_t p = n * type_bytes(P), u = n * type_bytes(U);
    if (m->moved != m->base)
        assert_exact(m->base, m->base_was, p, "base", where);
    if (m->zeroed != m->u)
        assert_exact(m->u, m->u_was, u, "u", where);
    if (m->slope != NULL)
        assert_exact(m->slope, m->slope_was, u, "slope", where);
    if (m->clean != NULL)
        assert_exact(m->clean, m->base_was, p, "clean copy", where);
    if (m->kept != NULL)
        assert_exact(m->kept, m->u_was, u, "kept gradient", where);
    if (m->zeroed != NULL)
        ck_assert_msg(all_zero(m->zeroed, u), "%s: not all zero", where);
}

static void close_move(struct move_buffers *m)
{
    if (m->moved != m->base)
        guarded_free(m->moved);
    if (m->zeroed != m->u)
        guarded_free(m->zeroed);
    guarded_free(m->base);
    guarded_free(m->u);
    guarded_free(m->slope);
    guarded_free(m->clean);
    guarded_free(m->kept);
    free(m->base_was);
    free(m->u_was);
    free(m->slope_was);
}

static void run_move(const gr_move_block *block, struct move_buffers *m, gradreg_type P,
                     gradreg_type U, size_t n, const char *what)
{
    move_result want = { malloc(n * type_bytes(P)), { 0 }, { 3, 5 } };
    char where[128];
    restate_move(&want, block, P, U, n);
    for (int path = 0; path < path_count; path++) {
        move_result got = { m->moved, { 0 }, { 3, 5 } };
        snprintf(where, sizeof(where), "%s, %s", path_name(path), what);
        reset_move(m, P, U, n);
        tables[path].move[P][U](block, n, got.lanes, got.counts);
        assert_same(m->moved, want.moved, P, n, "moved", where);
        assert_same(got.lanes, want.lanes, GRADREG_TYPE_F32, GR_MOVE_SUMS * GR_LANES, "lane",
                    where);
        ck_assert_msg(got.counts[0] == want.counts[0], "%s: changed %llu, want %llu", where,
                      (unsigned long long)got.counts[0], (unsigned long long)want.counts[0]);
        ck_assert_msg(got.counts[1] == want.counts[1], "%s: saturated %llu, want %llu", where,
                      (unsigned long long)got.counts[1], (unsigned long long)want.counts[1]);
        check_move(m, P, U, n, where);
        guarded_check(m->moved);
    }
    free(want.moved);
}

static void try_move(int pair, int form, size_t n, enum kind kind, uint64_t *state)
{
    static const float coefficients[] = { 1.0f, -0x1.8p-5f, 0x1p-9f, 0x1.4p3f, 0.0f };
    const gradreg_type P = type_pairs[pair].param, U = type_pairs[pair].grad;
    const struct move_form f = move_form(form);
    struct move_buffers m;
    char what[96];
    open_move(&m, &f, P, U, n, kind, state);
    const gr_move_block block = { .base = m.base,
                                  .moved = m.moved,
                                  .u = m.u,
                                  .slope = m.slope,
                                  .clean = m.clean,
                                  .kept = m.kept,
                                  .zeroed = m.zeroed,
                                  .coefficient = coefficients[next_word(state) % 5],
                                  .scale_applied = form % 3 == 0 ? 0x1p40f : 1.0f,
                                  .scale_u = form % 5 == 0 ? 0x1p-31f : 1.0f,
                                  .scale_slope = form % 7 == 0 ? 0x1p33f : 1.0f,
                                  .compute = f.compute,
                                  .streaming = f.streaming };
    snprintf(what, sizeof(what), "%s/%s, %s, n = %zu, form %d", type_name(P), type_name(U),
             kind_names[kind], n, form);
    run_move(&block, &m, P, U, n, what);
    close_move(&m);
}

/* Forms are many: each size and kind takes some, and all together take all of them. */
START_TEST(moves_agree_with_their_restatement)
{
    const int rounds = getenv("GRADREG_TEST_SMALL") != NULL ? 1 : 6;
    uint64_t state = test_seed() ^ 200;
    int form = 0;
    for (int k = 0; k < SIZES * KINDS * rounds; k++) {
        try_move(_i, form, sizes[k % SIZES], (enum kind)(k / SIZES % KINDS), &state);
        form = (form + 109) % MOVE_FORMS; /* a prime: passes through all */
    }
}
END_TEST

/* The border between the largest f16 and what is clipped to it, float by float: 65520 and above. */
START_TEST(saturation_is_counted_from_the_midpoint_on)
{
    const uint32_t midpoint = 0x477ff000u;
    uint16_t base[40] = { 0 }, moved[40];
    float u[40];
    for (uint32_t first = midpoint - 20; first <= midpoint; first += 20)
        for (int path = 0; path < path_count; path++) {
            float lanes[GR_MOVE_SUMS * GR_LANES] = { 0 };
            uint64_t counts[2] = { 0, 0 };
            const gr_move_block block = { .base = base,
                                          .moved = moved,
                                          .u = u,
                                          .coefficient = 1.0f,
                                          .scale_applied = 1.0f,
                                          .scale_u = 1.0f };
            for (uint32_t i = 0; i < 40; i++) {
                const uint32_t bits = (first + i) | (i % 2 == 0 ? 0 : 0x80000000u);
                memcpy(&u[i], &bits, sizeof(bits));
            }
            tables[path].move[GRADREG_TYPE_F16][GRADREG_TYPE_F32](&block, 40, lanes, counts);
            ck_assert_msg(counts[1] == first + 40 - midpoint, "%s: %llu from %x on",
                          path_name(path), (unsigned long long)counts[1], first);
            for (int i = 0; i < 40; i++)
                ck_assert_uint_eq(moved[i], i % 2 == 0 ? 0x7bffu : 0xfbffu);
        }
}
END_TEST

/* ---- combine --------------------------------------------------------------------- */

struct combine_form {
    int in_place, keep, direction, restores, streaming, correction, off;
    gradreg_type restored_type;
};
enum { COMBINE_FORMS = 2 * 2 * 2 * (LAST_TYPE + 1) * 2 * 3 * 2 };

static struct combine_form combine_form(int k)
{
    struct combine_form f = { 0, 0, 0, 0, 0, 0, 0, 0 };
    f.in_place = k % 2, k /= 2;
    f.keep = k % 2, k /= 2;
    f.direction = k % 2, k /= 2;
    f.restored_type = k % (LAST_TYPE + 1), k /= LAST_TYPE + 1;
    f.restores = f.restored_type != 0;
    f.streaming = k % 2, k /= 2;
    f.correction = k % 3, k /= 3;
    f.off = k % 2;
    return f;
}

struct combine_buffers {
    void *first, *second, *plus, *out, *clean, *restored; /* guarded */
    float *kept, *direction, *keep;
    void *first_was, *second_was, *plus_was, *clean_was;
};

static void open_combine(struct combine_buffers *c, const struct combine_form *f,
                         gradreg_type G, size_t n, enum kind kind, uint64_t *state)
{
    const gradreg_type P = f->restored_type;
    c->first = new_filled(G, n, f->off, kind, state);
    c->second = new_filled(G, n, f->off, kind, state);
    c->plus = new_filled(G, n, f->off, kind, state);
    c->out = f->in_place ? c->second : new_array(G, n, f->off);
    c->kept = new_filled(GRADREG_TYPE_F32, n, 0, kind, state);
    c->direction = f->direction ? new_filled(GRADREG_TYPE_F32, n, 0, NORMAL, state) : NULL;
    c->keep = f->keep ? new_array(GRADREG_TYPE_F32, n, 0) : NULL;
    c->clean = f->restores ? new_filled(P, n, 0, ANY_PATTERN, state) : NULL;
    c->restored = f->restores ? new_array(P, n, f->off) : NULL;
    c->first_was = copy_of(c->first, G, n);
    c->second_was = copy_of(c->second, G, n);
    c->plus_was = copy_of(c->plus, G, n);
    c->clean_was = f->restores ? copy_of(c->clean, P, n) : NULL;
}

static void check_combine(const struct combine_buffers *c, const struct combine_form *f,
                          gradreg_type G, size_t n, const char *where)
{
    const size_t bytes = n * type_bytes(G);
    assert_exact(c->first, c->first_was, bytes, "g1", where);
    assert_exact(c->plus, c->plus_was, bytes, "g+", where);
    if (c->out != c->second)
        assert_exact(c->second, c->second_was, bytes, "g2", where);
    if (f->restores)
        assert_exact(c->restored, c->clean_was, n * type_bytes(f->restored_type), "theta",
                     where);
    if (f->restores)
        assert_exact(c->clean, c->clean_was, n * type_bytes(f->restored_type), "clean copy",
                     where);
}

static void close_combine(struct combine_buffers *c)
{
    if (c->out != c->second)
        guarded_free(c->out);
    guarded_free(c->first);
    guarded_free(c->second);
    guarded_free(c->plus);
    guarded_free(c->kept);
    guarded_free(c->direction);
    guarded_free(c->keep);
    guarded_free(c->clean);
    guarded_free(c->restored);
    free(c->first_was);
    free(c->second_was);
    free(c->plus_was);
    free(c->clean_was);
}

static void run_combine(const gr_combine_block *block, struct combine_buffers *c,
                        const struct combine_form *f, int read, gradreg_type G, size_t n,
                        const char *what)
{
    combine_result want = { malloc(n * type_bytes(G)), NULL, { 0 }, 7 };
    const int keeps =
        block->keep != NULL && block->write == GR_WRITE_CORRECTED && read != GR_READ_FIRST;
    char where[128];
    want.keep = keeps ? malloc(n * sizeof(float)) : NULL;
    restate_combine(&want, block, read, G, n);
    for (int path = 0; path < path_count; path++) {
        combine_result got = { block->out, block->keep, { 0 }, 7 };
        snprintf(where, sizeof(where), "%s, %s", path_name(path), what);
        memcpy(c->second, c->second_was, n * type_bytes(G));
        if (c->keep != NULL)
            memset(c->keep, 0xa5, n * sizeof(float));
        tables[path].combine[G][read](block, n, got.lanes, &got.saturated);
        assert_same(got.out, want.out, G, n, "g_hat", where);
        if (keeps)
            assert_same(got.keep, want.keep, GRADREG_TYPE_F32, n, "kept", where);
        assert_same(got.lanes, want.lanes, GRADREG_TYPE_F32, GR_COMBINE_SUMS * GR_LANES, "lane",
                    where);
        ck_assert_msg(got.saturated == want.saturated, "%s: saturated %llu, want %llu", where,
                      (unsigned long long)got.saturated, (unsigned long long)want.saturated);
        check_combine(c, f, G, n, where);
    }
    free(want.keep);
    free(want.out);
}

static void try_combine(gradreg_type G, int read, int write, int form, size_t n, enum kind kind,
                        uint64_t *state)
{
    static const float corrections[] = { 0.0f, 10.0f, -0x1.23p-2f };
    const struct combine_form f = combine_form(form);
    struct combine_buffers c;
    char what[96];
    open_combine(&c, &f, G, n, kind, state);
    const gr_combine_block block = { .first = c.first,
                                     .second = c.second,
                                     .plus = c.plus,
                                     .kept = c.kept,
                                     .direction = c.direction,
                                     .keep = read != GR_READ_KEPT ? c.keep : NULL,
                                     .out = c.out,
                                     .clean = c.clean,
                                     .restored = c.restored,
                                     .param_type = f.restored_type,
                                     .write = write,
                                     .first_factor = form % 2 == 0 ? 1.0f : 0x1.abcdep-1f,
                                     .second_factor = form % 3 == 0 ? 1.0f : 0x1.54321p-2f,
                                     .plus_factor = form % 5 == 0 ? 1.0f : 0x1.7777p-1f,
                                     .correction = corrections[f.correction],
                                     .keep_factor = 0x1.9p4f,
                                     .scale = form % 4 == 0 ? 0x1p-50f : 1.0f,
                                     .scale_u = 0x1p3f,
                                     .streaming = f.streaming };
    snprintf(what, sizeof(what), "%s, %s, n = %zu, read %d, write %d, form %d", type_name(G),
             kind_names[kind], n, read, write, form);
    run_combine(&block, &c, &f, read, G, n, what);
    close_combine(&c);
}

START_TEST(combinations_agree_with_their_restatement)
{
    const gradreg_type G = _i / GR_READS + 1;
    const int read = _i % GR_READS, small = getenv("GRADREG_TEST_SMALL") != NULL;
    uint64_t state = test_seed() ^ 300;
    int form = 0;
    for (int write = GR_WRITE_FIRST; write <= GR_WRITE_PRODUCT; write++) {
        if (read == GR_READ_KEPT && write == GR_WRITE_PRODUCT)
            continue;
        for (int k = 0; k < SIZES * KINDS * (small ? 1 : 3); k++) {
            try_combine(G, read, write, form, sizes[k % SIZES], (enum kind)(k / SIZES % KINDS),
                        &state);
            form = (form + 59) % COMBINE_FORMS; /* a prime: passes through all */
        }
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("kernel blocks");
    TCase *tcase = tcase_create("kernel blocks");

    fill_tables();
    tcase_set_timeout(tcase, 60.0);
    tcase_add_loop_test(tcase, moves_agree_with_their_restatement, 0, TYPE_PAIRS);
    tcase_add_test(tcase, saturation_is_counted_from_the_midpoint_on);
    tcase_add_loop_test(tcase, combinations_agree_with_their_restatement, 0, 3 * GR_READS);
    suite_add_tcase(suite, tcase);
    return run_suite(suite);
}
