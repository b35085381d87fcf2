/* check_support.c - the suites' own tools: an oracle that rounds wrongly proves nothing. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "support.h"

START_TEST(every_pattern_of_16_bits_comes_back)
{
    const gradreg_type type = all_types[_i];
    for (uint32_t bits = 0; bits < 0x10000; bits++) {
        uint16_t element;
        typed_set_bits(&element, type, 0, bits);
        const double value = typed_get(&element, type, 0);
        if (isnan(value) || (type == GRADREG_TYPE_F16 && isinf(value)))
            continue;
        typed_set(&element, type, 0, value);
        if (element != bits)
            ck_abort_msg("%s: pattern %#x came back as %#x", type_name(type), bits, element);
    }
}
END_TEST

START_TEST(f32_is_the_compilers_float)
{
    uint64_t state = test_seed();
    for (int i = 0; i < 100000; i++) {
        float element, want;
        const uint32_t bits = next_pattern(&state, GRADREG_TYPE_F32);
        memcpy(&want, &bits, sizeof(want));
        if (!isnan(want) && typed_get(&want, GRADREG_TYPE_F32, 0) != (double)want)
            ck_abort_msg("reading %a", (double)want);

        const double value =
            ldexp(next_signed(&state, 1.0), (int)(next_word(&state) % 300) - 160);
        typed_set(&element, GRADREG_TYPE_F32, 0, value);
        assert_ulps(element, (float)value, 0);
    }
}
END_TEST

START_TEST(known_values_of_the_short_formats)
{
    static const struct {
        gradreg_type type;
        double value;
        uint32_t bits;
    } known[] = {
        { GRADREG_TYPE_BF16, 1.0, 0x3f80 },
        { GRADREG_TYPE_BF16, -2.0, 0xc000 },
        { GRADREG_TYPE_BF16, 0x1.01p0, 0x3f80 }, /* tie to even, down */
        { GRADREG_TYPE_BF16, 0x1.03p0, 0x3f82 }, /* tie to even, up */
        { GRADREG_TYPE_BF16, 1e39, 0x7f80 },     /* infinity */
        { GRADREG_TYPE_F16, 1.0, 0x3c00 },
        { GRADREG_TYPE_F16, 0x1p-24, 0x0001 }, /* smallest denormal */
        { GRADREG_TYPE_F16, 0x1.8p-25, 0x0001 },
        { GRADREG_TYPE_F16, 0x1p-25, 0x0000 }, /* tie to even */
        { GRADREG_TYPE_F16, 1e9, 0x7bff },     /* saturates */
        { GRADREG_TYPE_F16, (double)INFINITY, 0x7c00 },
        { GRADREG_TYPE_F16, -0.0, 0x8000 },
    };
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        uint16_t element;
        typed_set(&element, known[i].type, 0, known[i].value);
        ck_assert_msg(element == known[i].bits, "%s of %a: got %#x, want %#x",
                      type_name(known[i].type), known[i].value, element, known[i].bits);
    }
}
END_TEST

START_TEST(distance_counts_floats)
{
    ck_assert_uint_eq(ulp_distance(0.0f, -0.0f), 0);
    ck_assert_uint_eq(ulp_distance(0x1p-149f, -0x1p-149f), 2);
    ck_assert_uint_eq(ulp_distance(1.0f, nextafterf(1.0f, 2.0f)), 1);
    ck_assert_uint_eq(ulp_distance(nextafterf(2.0f, 0.0f), 2.0f), 1);
    ck_assert_uint_eq(ulp_distance(3e38f, (float)INFINITY),
                      ulp_distance((float)INFINITY, 3e38f));
    ck_assert_uint_eq(ulp_distance((float)NAN, -(float)NAN), 0);
    ck_assert_uint_eq(ulp_distance((float)NAN, 1.0f), UINT64_MAX);
}
END_TEST

START_TEST(guarded_buffers_have_the_asked_alignment)
{
    for (size_t misalignment = 0; misalignment < 64; misalignment++) {
        unsigned char *data = guarded_new(_i == 0 ? 0 : 100, misalignment);
        ck_assert_uint_eq((uintptr_t)data % 64, misalignment);
        for (int i = 0; i < (_i == 0 ? 0 : 100); i++)
            data[i] = 1;
        guarded_free(data);
    }
}
END_TEST

START_TEST(the_allocator_fails_where_it_is_told)
{
    for (int onwards = 0; onwards <= 1; onwards++) {
        counting_allocator allocator = { .fail_at = 2, .fail_onwards = onwards };
        const gradreg_allocator hook = counting_hook(&allocator);
        void *first = hook.allocate(hook.user, 10, 64, GRADREG_MEMORY_HOST);
        ck_assert_ptr_nonnull(first);
        ck_assert_ptr_null(hook.allocate(hook.user, 10, 64, GRADREG_MEMORY_HOST));
        void *third = hook.allocate(hook.user, 30, 64, GRADREG_MEMORY_BACKEND);
        ck_assert(onwards ? third == NULL : third != NULL);
        ck_assert_uint_eq(allocator.live_bytes, onwards ? 10 : 40);
        ck_assert_uint_eq(allocator.failed, onwards ? 2 : 1);

        hook.release(hook.user, first, 11, GRADREG_MEMORY_HOST);
        ck_assert_uint_eq(allocator.misuses, 1); /* not its size */
        if (third != NULL)
            hook.release(hook.user, third, 30, GRADREG_MEMORY_HOST);
        ck_assert_uint_eq(allocator.misuses, onwards ? 1 : 2); /* not its memory */
        ck_assert_uint_eq(allocator.live, 0);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("support");
    TCase *core = tcase_create("core");

    tcase_set_timeout(core, 60);
    tcase_add_loop_test(core, every_pattern_of_16_bits_comes_back, 1, LAST_TYPE);
    tcase_add_test(core, f32_is_the_compilers_float);
    tcase_add_test(core, known_values_of_the_short_formats);
    tcase_add_test(core, distance_counts_floats);
    tcase_add_loop_test(core, guarded_buffers_have_the_asked_alignment, 0, 2);
    tcase_add_test(core, the_allocator_fails_where_it_is_told);
    suite_add_tcase(suite, core);
    return run_suite(suite);
}
