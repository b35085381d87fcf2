/* check_kernels.c - sums of squares, copies and conversions of every vector path that this
 * processor has: exact for every pattern, at every size and alignment, and nothing beside the
 * buffers touched. */
#include "kernel_cases.h"

#include <stdlib.h>
#include <string.h>

/* ---- squares --------------------------------------------------------------------- */

START_TEST(squares_are_the_lanes_of_reduce_h)
{
    const gradreg_type type = all_types[_i];
    uint64_t state = test_seed() ^ 100;
    for (int k = 0; k < SIZES * KINDS * 2; k++) {
        const size_t n = sizes[k % SIZES];
        const enum kind kind = (enum kind)(k / SIZES % KINDS);
        void *x = new_filled(type, n, k / SIZES / KINDS, kind, &state);
        void *before = copy_of(x, type, n);
        float want[GR_LANES], got[GR_LANES];
        for (int lane = 0; lane < GR_LANES; lane++)
            want[lane] = (float)lane; /* a lane goes on from what it holds */
        for (size_t i = 0; i < n; i++)
            add_to_lane(want, 0, i, value(x, type, i), value(x, type, i));
        for (int path = 0; path < path_count; path++) {
            for (int lane = 0; lane < GR_LANES; lane++)
                got[lane] = (float)lane;
            tables[path].squares[type](x, n, got);
            assert_same(got, want, GRADREG_TYPE_F32, GR_LANES, kind_names[kind],
                        path_name(path));
            assert_exact(x, before, n * type_bytes(type), "input", path_name(path));
        }
        free(before);
        guarded_free(x);
    }
}
END_TEST

/* ---- copies and conversions ------------------------------------------------------ */

START_TEST(copies_are_exact_at_any_address)
{
    uint64_t state = test_seed() ^ 400;
    for (size_t bytes = 0; bytes <= 700; bytes += bytes < 200 ? 1 : 37)
        for (size_t off = 0; off < 64; off += 1 + next_word(&state) % 9) {
            unsigned char *from = guarded_new(bytes, next_word(&state) % 64);
            for (size_t i = 0; i < bytes; i++)
                from[i] = (unsigned char)next_word(&state);
            for (int k = 0; k < 2 * path_count; k++) {
                unsigned char *to = guarded_new(bytes, off);
                tables[k / 2].copy(to, from, bytes, k % 2);
                tables[k / 2].fence();
                assert_exact(to, from, bytes, "copy", path_name(k / 2));
                guarded_free(to);
            }
            guarded_free(from);
        }
}
END_TEST

/* What the type's bits say, payloads included: of 16 bits, NaN become quiet; bf16's alone stay. */
static uint32_t widened(gradreg_type type, uint32_t bits)
{
    const type_format *f = type_format_of(type);
    const uint32_t quiet = type == GRADREG_TYPE_BF16 ? 0x7f800000u : 0x7fc00000u;
    if (type == GRADREG_TYPE_F32)
        return bits;
    if (is_nan(type, bits))
        return (bits & 0x8000u) << 16 | quiet |
               (bits & 0x7fffu & ~f->infinity) << (23 - f->fraction);
    return float_bits((float)typed_get(&(uint16_t){ (uint16_t)bits }, type, 0));
}

/* Nearest even; a NaN becomes quiet and keeps its sign and the top of its payload. */
static uint32_t narrowed(gradreg_type type, uint32_t bits)
{
    const type_format *f = type_format_of(type);
    float x;
    uint16_t half;
    memcpy(&x, &bits, sizeof(x));
    if (type == GRADREG_TYPE_F32)
        return bits;
    if (is_nan(GRADREG_TYPE_F32, bits))
        return (bits >> 16 & 0x8000u) | f->infinity | 1u << (f->fraction - 1) |
               (bits & 0x7fffffu) >> (23 - f->fraction);
    typed_set(&half, type, 0, (double)x);
    return half;
}

static void check_widen(gradreg_type type, const void *from, size_t n, int off)
{
    for (int path = 0; path < path_count; path++) {
        float *to = guarded_new(n * sizeof(float), off ? sizeof(float) : 0);
        tables[path].widen[type](to, from, n);
        for (size_t i = 0; i < n; i++)
            if (float_bits(to[i]) != widened(type, typed_bits(from, type, i)))
                ck_abort_msg("%s: %s %x widens to %x", path_name(path), type_name(type),
                             typed_bits(from, type, i), float_bits(to[i]));
        guarded_free(to);
    }
}

static void check_narrow(gradreg_type type, const float *from, size_t n, int off)
{
    for (int path = 0; path < path_count; path++) {
        void *to = new_array(type, n, off);
        tables[path].narrow[type](to, from, n);
        for (size_t i = 0; i < n; i++)
            if (typed_bits(to, type, i) != narrowed(type, float_bits(from[i])))
                ck_abort_msg("%s: %x narrows to %s %x", path_name(path), float_bits(from[i]),
                             type_name(type), typed_bits(to, type, i));
        guarded_free(to);
    }
}

START_TEST(conversions_are_exact_at_every_size)
{
    const gradreg_type type = all_types[_i];
    uint64_t state = test_seed() ^ 500;
    for (int k = 0; k < SIZES * KINDS * 2; k++) {
        const size_t n = sizes[k % SIZES];
        const enum kind kind = (enum kind)(k / SIZES % KINDS);
        const int off = k / SIZES / KINDS;
        void *narrow = new_filled(type, n, off, kind, &state);
        float *wide = new_filled(GRADREG_TYPE_F32, n, off, kind, &state);
        check_widen(type, narrow, n, off);
        check_narrow(type, wide, n, off);
        guarded_free(narrow);
        guarded_free(wide);
    }
}
END_TEST

/* All patterns of 16 bits; and of f32 every upper half with the lower halves at which rounding
 * decides. */
START_TEST(conversions_are_exact_for_every_pattern)
{
    static const uint16_t lower[] = { 0,      1,      0x0fff, 0x1000, 0x1001, 0x2fff, 0x3000,
                                      0x7fff, 0x8000, 0x8001, 0xefff, 0xf000, 0xf001, 0xffff };
    const gradreg_type type = all_types[_i + 1]; /* of 16 bits */
    const size_t count = 65536;
    uint16_t *halves = guarded_new(count * sizeof(*halves), 0);
    float *wide = guarded_new(count * sizeof(*wide), 0);
    for (size_t i = 0; i < count; i++)
        halves[i] = (uint16_t)i;
    check_widen(type, halves, count, 0);
    for (size_t k = 0; k < sizeof(lower) / sizeof(*lower); k++) {
        for (size_t i = 0; i < count; i++) {
            const uint32_t bits = (uint32_t)i << 16 | lower[k];
            memcpy(&wide[i], &bits, sizeof(bits));
        }
        check_narrow(type, wide, count, 0);
    }
    guarded_free(halves);
    guarded_free(wide);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("kernels");
    TCase *tcase = tcase_create("kernels");

    fill_tables();
    tcase_set_timeout(tcase, 60.0);
    tcase_add_loop_test(tcase, squares_are_the_lanes_of_reduce_h, 0, LAST_TYPE);
    tcase_add_test(tcase, copies_are_exact_at_any_address);
    tcase_add_loop_test(tcase, conversions_are_exact_at_every_size, 0, LAST_TYPE);
    tcase_add_loop_test(tcase, conversions_are_exact_for_every_pattern, 0, LAST_TYPE - 1);
    suite_add_tcase(suite, tcase);
    return run_suite(suite);
}
