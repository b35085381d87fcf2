/* check_bad_tables.c - the part of the matrix for segments.
 *
 * Each table goes to create and to workspace_bytes. */
#include "bad_input.h"

#include <stdlib.h>

static const gradreg_status invalid = GRADREG_ERROR_INVALID_ARGUMENT;
static const gradreg_status unsupported = GRADREG_ERROR_UNSUPPORTED;

/* ---- one field of one segment ------------------------------------------------------ */

#define S gradreg_segment
#define BITS_64(field, number, shown)                                                      \
    {                                                                                      \
#field, offsetof(S, field), INTEGER_64, number, 0, GRADREG_ERROR_INVALID_ARGUMENT, \
            shown                                                                          \
    }
#define BITS_32(field, number, shown)                                                      \
    {                                                                                      \
#field, offsetof(S, field), INTEGER_32, number, 0, GRADREG_ERROR_INVALID_ARGUMENT, \
            shown                                                                          \
    }
static const struct spoilt bad_segments[] = {
    BITS_64(offset, -1, "18446744073709551615"), /* and its count go round the corner */
    BITS_64(count, -1, "18446744073709551615"),
    BITS_64(count, INT64_MAX, "9223372036854775807"),
    BITS_64(count, (INT64_C(1) << 58) + 1, "288230376151711745"),
    BITS_64(shard_begin, 5, "shard_begin 5"),
    BITS_64(shard_begin, -1, "18446744073709551615"),
    BITS_64(shard_count, 5, "shard_count 5"),
    BITS_64(shard_count, -1, "18446744073709551615"),
    BAD_INTEGER(S, layer, -3),
    BAD_INTEGER(S, layer, 4),
    BAD_INTEGER(S, layer, 2147483647),
    BAD_INTEGER(S, layer, -2147483647),
    BITS_32(layer, GRADREG_LAYER_STACKED, "GRADREG_LAYER_STACKED"),
    BITS_32(role, 0, "0x0"),
    BITS_32(role, 3, "0x3"),
    BITS_32(role, 64, "0x40"),
    BITS_32(role, INT32_MIN, "0x80000000"),
    BITS_32(role, -1, "0xffffffff"),
    BAD_INTEGER(S, param_type, -1),
    BAD_INTEGER(S, param_type, 4),
    BAD_INTEGER(S, param_type, 2147483647),
    BAD_INTEGER(S, grad_type, -1),
    BAD_INTEGER(S, grad_type, 4),
    BAD_INTEGER(S, grad_type, 2147483647),
    BITS_32(flags, 4, "0x4"),
    BITS_32(flags, -1, "0xffffffff"),
    BAD_RESERVED(S, reserved[0], 32),
    BAD_RESERVED(S, reserved[1], 32),
    BAD_RESERVED(S, reserved[2], 32),
    { "grad type", offsetof(S, grad_type), INTEGER_32, GRADREG_TYPE_BF16, 0,
      GRADREG_ERROR_UNSUPPORTED, "f32" },
    { "grad type", offsetof(S, grad_type), INTEGER_32, GRADREG_TYPE_F16, 0,
      GRADREG_ERROR_UNSUPPORTED, "f16" },
};
#undef S
enum { BAD_SEGMENTS = sizeof(bad_segments) / sizeof(bad_segments[0]) };

START_TEST(bad_segments_are_named)
{
    const struct spoilt *bad = &bad_segments[_i / 2];
    const char *const names[] = { "segments[4]", "segments[3]" };
    struct caller *c = caller_open(&plain_mode);

    spoil(&c->own.segments[4 - _i % 2], bad);
    caller_refuse_description(c, bad->field, bad->want, names[_i % 2], bad->value);
    caller_lead_to(c, COMBINE);
    ck_assert_uint_eq(caller_go_on(c), caller_undisturbed(&plain_mode, COMBINE));
    caller_close(c);
}
END_TEST

START_TEST(a_shard_ends_with_its_segment)
{
    struct caller *c = caller_open(&plain_mode);

    c->own.segments[3].shard_begin = 3;
    c->own.segments[3].shard_count = 2;
    caller_refuse_description(c, "shard", invalid, "segments[3]",
                              "shard_begin 3 + shard_count 2");
    caller_close(c);
}
END_TEST

/* ---- two segments ------------------------------------------------------------------ */

static const struct overlap {
    const char *what;
    uint64_t offset, count; /* of the last segment */
    size_t other;
} overlaps[] = {
    { "the same", 8, 8, 1 },        { "inside", 10, 2, 1 },      { "around", 7, 10, 0 },
    { "by one element", 23, 1, 2 }, { "last of two", 31, 9, 4 }, { "from below", 0, 1, 0 },
};
enum { OVERLAPS = sizeof(overlaps) / sizeof(overlaps[0]) };

START_TEST(overlaps_name_both_offenders)
{
    const struct overlap *row = &overlaps[_i];
    const char *const names[] = { "segments[0]", "segments[1]", "segments[2]", "segments[3]",
                                  "segments[4]" };
    struct caller *c = caller_open(&plain_mode);

    c->own.segments[5].offset = row->offset;
    c->own.segments[5].count = row->count;
    caller_refuse_description(c, row->what, invalid, "segments[5]", names[row->other]);
    caller_close(c);
}
END_TEST

/* Nothing overlaps a segment without elements, wherever it stands. */
START_TEST(empty_segments_overlap_nothing)
{
    struct caller *c = caller_open(&plain_mode);
    struct belongings *own = &c->own;

    own->segments[5].offset = 10;
    own->segments[5].count = 0;
    assert_accepted(gradreg_regularizer_create(&own->regularizer_out, c->context, own->segments,
                                               CALLER_SEGMENTS, &own->params));
    assert_accepted(gradreg_regularizer_destroy(own->regularizer_out));
    caller_close(c);
}
END_TEST

/* ---- all of them ------------------------------------------------------------------- */

/* 2^58 elements each: none is too large, together they are more than memory has addresses. */
START_TEST(a_table_larger_than_memory_is_refused)
{
    struct caller *c = caller_open(&plain_mode);

    for (size_t i = 0; i < CALLER_SEGMENTS; i++) {
        c->own.segments[i].offset = (uint64_t)i << 58;
        c->own.segments[i].count = UINT64_C(1) << 58;
    }
    caller_refuse_description(c, "sum of counts", invalid, "segments[1]", "288230376151711744");
    caller_close(c);
}
END_TEST

static void *refuse_large(void *user, size_t bytes, size_t alignment, gradreg_memory memory)
{
    (void)user, (void)memory;
    return bytes > (size_t)1 << 24 ? NULL : aligned_alloc(alignment, (bytes + 63) / 64 * 64);
}

static void release(void *user, void *pointer, size_t bytes, gradreg_memory memory)
{
    (void)user, (void)bytes, (void)memory;
    free(pointer);
}

/* Legal, and more than this machine has: no memory is touched before all of it is there. */
START_TEST(a_table_larger_than_this_machine_is_out_of_memory)
{
    gradreg_context_params params = GRADREG_CONTEXT_PARAMS_INIT;
    struct caller *c = caller_open(&plain_mode);
    struct belongings *own = &c->own;

    params.allocator.allocate = refuse_large;
    params.allocator.release = release;
    assert_ok(test_context_create(&own->context_out, &params));
    own->segments[5].count = UINT64_C(1) << 50;
    own->params.interval = 4;
    assert_refused(c, "gradreg_regularizer_create", "too large",
                   gradreg_regularizer_create(&own->regularizer_out, own->context_out,
                                              own->segments, CALLER_SEGMENTS, &own->params),
                   GRADREG_ERROR_OUT_OF_MEMORY, "allocate", "NULL");
    assert_accepted(gradreg_regularizer_workspace_bytes(
        &own->size, own->context_out, own->segments, CALLER_SEGMENTS, &own->params));
    ck_assert_uint_gt(own->size, (size_t)12 << 50); /* clean copy, g1, kept correction */
    assert_ok(gradreg_context_destroy(own->context_out));
    caller_close(c);
}
END_TEST

START_TEST(noise_steps_need_f32_everywhere)
{
    struct caller *c = caller_open(&plain_mode);

    c->own.params.noise.rule = GRADREG_NOISE_STEP;
    c->own.segments[0].param_type = GRADREG_TYPE_BF16;
    caller_refuse_description(c, "bf16 segment", unsupported, "params.noise.rule",
                              "segments[0]");
    caller_close(c);
}
END_TEST

TCase *bad_tables_case(void)
{
    TCase *tests = tcase_create("segments");

    add_loop_test(tests, bad_segments_are_named, 0, 2 * BAD_SEGMENTS);
    tcase_add_test(tests, a_shard_ends_with_its_segment);
    add_loop_test(tests, overlaps_name_both_offenders, 0, OVERLAPS);
    tcase_add_test(tests, empty_segments_overlap_nothing);
    tcase_add_test(tests, a_table_larger_than_memory_is_refused);
    tcase_add_test(tests, a_table_larger_than_this_machine_is_out_of_memory);
    tcase_add_test(tests, noise_steps_need_f32_everywhere);
    return tests;
}
