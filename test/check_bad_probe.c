/* check_bad_probe.c - the probe and the monitors with everything that they must refuse.
 *
 * In: a probe, rows, tokens, weights, all in one block, with one thing wrong. Out: the documented
 * status, a sentence that names function, argument and value, not a byte of the block changed, and a
 * probe whose figures are what they were. main() holds what was called against the header
 * (coverage.h). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "refusals.h"

static const gradreg_status invalid = GRADREG_ERROR_INVALID_ARGUMENT;

enum { LAYERS = 3, TRIALS = 4, ROWS = 2, WIDTH = 8, SPARE = 8, SEGMENTS = 2, TAIL = 64 };

/* All that is the caller's. */
typedef struct belongings {
    gradreg_probe *probe;
    gradreg_probe_params params;
    unsigned char params_tail[TAIL];
    gradreg_probe_layer layers[LAYERS + 1];
    gradreg_segment segments[SEGMENTS];
    float rows[ROWS * WIDTH + SPARE], others[ROWS * WIDTH + SPARE], out[SPARE];
    int32_t tokens[SPARE];
    double figures[SPARE];
} belongings;

static belongings own;
static gradreg_probe *probe;

static void set_up(void)
{
    const gradreg_probe_params params = GRADREG_PROBE_PARAMS_INIT;
    const gradreg_probe_layer layer = GRADREG_PROBE_LAYER_INIT;
    const gradreg_segment segment = GRADREG_SEGMENT_INIT;
    refusals_open(&own, sizeof(own));
    own.params = params;
    own.params.layer_count = LAYERS;
    own.params.trials = TRIALS;
    own.layers[0] = layer;
    for (size_t i = 0; i < ROWS * WIDTH + SPARE; i++)
        own.rows[i] = own.others[i] = 1.0f + (float)i;
    for (size_t i = 0; i < SEGMENTS; i++) {
        own.segments[i] = segment;
        own.segments[i].offset = i * WIDTH;
        own.segments[i].count = WIDTH;
    }
    assert_ok(gradreg_probe_create(&probe, context, &own.params));
}

static void tear_down(void)
{
    assert_ok(gradreg_probe_destroy(probe));
    refusals_close();
}

/* ---- init functions ---------------------------------------------------------------- */

REFUSALS_INIT(probe_params)
REFUSALS_INIT(probe_layer)

static const struct init_row inits[] = { REFUSALS_ROW(probe_params),
                                         REFUSALS_ROW(probe_layer) };
enum { INITS = sizeof(inits) / sizeof(inits[0]) };

START_TEST(init_refuses_null_and_sizes_that_no_version_had)
{
    refusals_of_init(&inits[_i]);
}
END_TEST

/* ---- create ------------------------------------------------------------------------ */

static void refuse_params(gradreg_status want, const char *word, const char *value)
{
    const size_t live = allocator.live;
    own.probe = NULL;
    assert_refused(gradreg_probe_create(&own.probe, context, &own.params), want, word, value);
    ck_assert_uint_eq(allocator.live, live);
}

static const struct bad_params {
    const char *field, *value;
    int32_t layer_count, trials;
    uint32_t reserved;
    double noise_scale;
} bad_params[] = {
    { "params.layer_count", "0", 0, 1, 0, 0.5 },
    { "params.layer_count", "-1", -1, 1, 0, 0.5 },
    { "params.layer_count", "65537", 65537, 1, 0, 0.5 },
    { "params.trials", "-1", 1, -1, 0, 0.5 },
    { "params.trials", "-2147483648", 1, INT32_MIN, 0, 0.5 },
    { "params.reserved0", "0", 1, 1, 1, 0.5 },
    { "params.noise_scale", "-0.5", 1, 1, 0, -0.5 },
    { "params.noise_scale", "nan", 1, 1, 0, (double)NAN },
    { "params.noise_scale", "inf", 1, 1, 0, (double)INFINITY },
};
enum { BAD_PARAMS = sizeof(bad_params) / sizeof(bad_params[0]) };

START_TEST(bad_fields_are_named)
{
    const struct bad_params *bad = &bad_params[_i];
    own.params.layer_count = bad->layer_count;
    own.params.trials = bad->trials;
    own.params.reserved0 = bad->reserved;
    own.params.noise_scale = bad->noise_scale;
    refuse_params(invalid, bad->field, bad->value);
}
END_TEST

START_TEST(create_refuses_null_and_other_versions)
{
    own.probe = NULL;
    assert_refused(gradreg_probe_create(NULL, context, &own.params), invalid, "'out'");
    assert_refused(gradreg_probe_create(&own.probe, NULL, &own.params), invalid, "'context'");
    assert_refused(gradreg_probe_create(&own.probe, context, NULL), invalid, "'params'");
    own.probe = (gradreg_probe *)&own;
    assert_fails(gradreg_probe_create(&own.probe, context, NULL), invalid, "'params'");
    ck_assert_ptr_null(own.probe);
    own.params.struct_size = 0;
    refuse_params(invalid, "params.struct_size", "0");
    own.params.struct_size = 5000;
    refuse_params(invalid, "params.struct_size", "5000");
    own.params.struct_size = sizeof(own.params) + TAIL;
    own.params_tail[3] = 1;
    refuse_params(GRADREG_ERROR_UNSUPPORTED, "params", "35");
    own.params_tail[3] = 0;
    own.params.trials = 0; /* the default */
    assert_accepted(gradreg_probe_create(&own.probe, context, &own.params));
    assert_accepted(
        gradreg_probe_observe(own.probe, own.rows, GRADREG_TYPE_F32, 1, 1, 0, 0, 0, 29));
    assert_refused(
        gradreg_probe_observe(own.probe, own.rows, GRADREG_TYPE_F32, 1, 1, 0, 0, 0, 30),
        invalid, "first_trial", "30");
    assert_accepted(gradreg_probe_destroy(own.probe));
}
END_TEST

START_TEST(memory_may_end_at_every_point)
{
    for (size_t which = 1; which <= 2; which++)
        for (int onwards = 0; onwards < 2; onwards++) {
            const size_t live = allocator.live;
            allocator.fail_at = allocator.calls + which;
            allocator.fail_onwards = onwards != 0;
            own.probe = (gradreg_probe *)&own;
            coverage_note("gradreg_probe_create", GRADREG_ERROR_OUT_OF_MEMORY, true);
            assert_fails(gradreg_probe_create(&own.probe, context, &own.params),
                         GRADREG_ERROR_OUT_OF_MEMORY, "allocator.allocate");
            ck_assert_ptr_null(own.probe);
            ck_assert_uint_eq(allocator.live, live);
            allocator.fail_onwards = false;
            allocator.fail_at = 0;
        }
    assert_accepted(gradreg_probe_create(&own.probe, context, &own.params));
    assert_accepted(gradreg_probe_destroy(own.probe));
    allocator.fail_at = allocator.calls + 1;
    refusals_remember();
    coverage_note("gradreg_weight_delta", GRADREG_ERROR_OUT_OF_MEMORY, true);
    assert_fails(gradreg_weight_delta(context, own.figures, own.rows, own.others,
                                      GRADREG_TYPE_F32, own.segments, SEGMENTS),
                 GRADREG_ERROR_OUT_OF_MEMORY, "allocator.allocate");
    refusals_unchanged("gradreg_weight_delta");
    assert_accepted(gradreg_weight_delta(context, own.figures, own.rows, own.others,
                                         GRADREG_TYPE_F32, own.segments, SEGMENTS));
}
END_TEST

START_TEST(a_context_outlives_its_probes)
{
    assert_fails(gradreg_context_destroy(context), GRADREG_ERROR_STATE, "1 child");
}
END_TEST

/* ---- rows -------------------------------------------------------------------------- */

enum { F32 = GRADREG_TYPE_F32 };

START_TEST(bad_hidden_states_are_named)
{
    void *const h = own.rows;
    char *const odd = (char *)own.rows + 2, *const byte = (char *)own.rows + 1;
    assert_refused(gradreg_probe_inject(NULL, h, F32, 1, 8, 0, 0, 0), invalid, "'probe'");
    assert_refused(gradreg_probe_inject(probe, NULL, F32, 1, 8, 0, 0, 0), invalid, "'hidden'");
    assert_refused(gradreg_probe_inject(probe, odd, F32, 1, 8, 0, 0, 0), invalid, "hidden",
                   "aligned to 4");
    assert_refused(gradreg_probe_inject(probe, byte, GRADREG_TYPE_BF16, 1, 8, 0, 0, 0), invalid,
                   "hidden", "aligned to 2");
    assert_refused(gradreg_probe_inject(probe, h, 0, 1, 8, 0, 0, 0), invalid, "type", "0");
    assert_refused(gradreg_probe_inject(probe, h, 4, 1, 8, 0, 0, 0), invalid, "type", "4");
    assert_refused(gradreg_probe_inject(probe, h, -1, 1, 8, 0, 0, 0), invalid, "type", "-1");
    assert_refused(gradreg_probe_inject(probe, h, F32, 1, 0, 0, 0, 0), invalid, "width", "0");
    assert_refused(gradreg_probe_inject(probe, h, F32, 1, SIZE_MAX, 0, 0, 0), invalid, "width",
                   "18446744073709551615");
    assert_refused(gradreg_probe_inject(probe, h, F32, 2, 8, 7, 0, 0), invalid, "row_stride",
                   "7");
    assert_refused(gradreg_probe_inject(probe, h, F32, 2, 8, SIZE_MAX, 0, 0), invalid,
                   "row_stride", "18446744073709551615");
    assert_refused(gradreg_probe_inject(probe, h, F32, SIZE_MAX, 8, 0, 0, 0), invalid, "rows",
                   "18446744073709551615");
    assert_refused(gradreg_probe_inject(probe, h, F32, 1, 8, 0, LAYERS, 0), invalid, "layer",
                   "3");
    assert_refused(gradreg_probe_inject(probe, h, F32, 1, 8, 0, GRADREG_LAYER_NONE, 0), invalid,
                   "layer", "-1");
    assert_refused(gradreg_probe_inject(probe, h, F32, 1, 8, 0, GRADREG_LAYER_STACKED, 0),
                   invalid, "layer", "-2");
    assert_refused(gradreg_probe_inject(probe, h, F32, 1, 8, 0, 0, -1), invalid, "first_trial",
                   "-1");
    assert_refused(gradreg_probe_inject(probe, h, F32, 0, 8, 0, 0, TRIALS + 1), invalid,
                   "first_trial", "5");
    assert_refused(gradreg_probe_inject(probe, h, F32, 2, 8, 0, 0, TRIALS - 1), invalid,
                   "first_trial = 3", "rows = 2");
    assert_accepted(gradreg_probe_inject(probe, h, F32, 2, 8, 8, 0, TRIALS - 2));
    assert_accepted(gradreg_probe_inject(probe, odd, GRADREG_TYPE_F16, 2, 8, 9, 0, 0));
}
END_TEST

START_TEST(bad_logits_are_named)
{
    const void *const z = own.rows;
    const char *const odd = (const char *)own.rows + 2;
    assert_refused(gradreg_probe_observe(NULL, z, F32, 1, 8, 0, 0, 0, 0), invalid, "'probe'");
    assert_refused(gradreg_probe_observe(probe, NULL, F32, 1, 8, 0, 0, 0, 0), invalid,
                   "'logits'");
    assert_refused(gradreg_probe_observe(probe, odd, F32, 1, 8, 0, 0, 0, 0), invalid, "logits",
                   "aligned to 4");
    assert_refused(gradreg_probe_observe(probe, z, 9, 1, 8, 0, 0, 0, 0), invalid, "type", "9");
    assert_refused(gradreg_probe_observe(probe, z, F32, 1, 0, 0, 0, 0, 0), invalid,
                   "vocabulary", "0");
    assert_refused(gradreg_probe_observe(probe, z, F32, 1, (size_t)1 << 31, 0, 0, 0, 0),
                   invalid, "vocabulary", "2147483648");
    assert_refused(gradreg_probe_observe(probe, z, F32, 2, 8, 5, 0, 0, 0), invalid,
                   "row_stride", "5");
    assert_refused(
        gradreg_probe_observe(probe, z, F32, SIZE_MAX / 8, 8, 8, 0, GRADREG_LAYER_NONE, 0),
        invalid, "rows", "address space");
    assert_refused(gradreg_probe_observe(probe, z, F32, 1, 8, 0, -1, 0, 0), invalid, "target",
                   "-1");
    assert_refused(gradreg_probe_observe(probe, z, F32, 1, 8, 0, 8, 0, 0), invalid, "target",
                   "8");
    assert_refused(gradreg_probe_observe(probe, z, F32, 1, 8, 0, 0, LAYERS, 0), invalid,
                   "layer", "3");
    assert_refused(gradreg_probe_observe(probe, z, F32, 1, 8, 0, 0, -2, 0), invalid, "layer",
                   "-2");
    assert_refused(gradreg_probe_observe(probe, z, F32, 1, 8, 0, 0, 0, -1), invalid,
                   "first_trial", "-1");
    assert_refused(gradreg_probe_observe(probe, z, F32, 2, 8, 0, 0, 0, 3), invalid,
                   "first_trial = 3", "rows = 2");
    gradreg_probe_layer rows[LAYERS] = { GRADREG_PROBE_LAYER_INIT };
    assert_ok(gradreg_probe_summary(probe, rows, LAYERS));
    for (size_t l = 0; l < LAYERS; l++) /* no refused call has been observed */
        ck_assert(rows[l].trials == 0 && isnan(rows[l].baseline));
    assert_accepted(
        gradreg_probe_observe(probe, z, F32, 2, 8, 8, 7, GRADREG_LAYER_NONE, INT32_MIN));
}
END_TEST

START_TEST(bad_summaries_are_named)
{
    assert_refused(gradreg_probe_summary(NULL, own.layers, LAYERS), invalid, "'probe'");
    assert_refused(gradreg_probe_summary(probe, NULL, LAYERS), invalid, "'out'");
    assert_refused(gradreg_probe_summary(probe, own.layers, LAYERS - 1), invalid, "layer_count",
                   "2");
    assert_refused(gradreg_probe_summary(probe, own.layers, 0), invalid, "layer_count", "0");
    assert_refused(gradreg_probe_summary(probe, own.layers, SIZE_MAX), invalid, "layer_count",
                   "18446744073709551615");
    static const uint32_t sizes[] = { 0, 4, 127, 129, 4097, UINT32_MAX };
    for (size_t k = 0; k < sizeof(sizes) / sizeof(sizes[0]); k++) {
        char value[16];
        (void)snprintf(value, sizeof(value), "%lu", (unsigned long)sizes[k]);
        own.layers[0].struct_size = sizes[k];
        assert_refused(gradreg_probe_summary(probe, own.layers, LAYERS), invalid,
                       "out[0].struct_size", value);
    }
    own.layers[0].struct_size = sizeof(own.layers[0]);
    assert_accepted(gradreg_probe_summary(probe, own.layers, LAYERS));
    assert_refused(gradreg_probe_reset(NULL), invalid, "'probe'");
    assert_accepted(gradreg_probe_reset(probe));
    assert_accepted(gradreg_probe_destroy(NULL));
}
END_TEST

/* ---- two users --------------------------------------------------------------------- */

static float large[4][20000];

static void use_a_probe(void)
{
    gradreg_probe *const kept = probe;
    assert_ok(gradreg_probe_create(&probe, context, &own.params));
    assert_ok(gradreg_probe_inject(probe, large, F32, 4, 20000, 0, 0, 0));
    assert_ok(gradreg_probe_destroy(probe));
    probe = kept;
}

static void call_the_probe(void)
{
    const gradreg_status state = GRADREG_ERROR_STATE;
    assert_refused(gradreg_probe_inject(probe, own.rows, F32, 1, 8, 0, 0, 0), state, "use");
    assert_refused(gradreg_probe_observe(probe, own.rows, F32, 1, 8, 0, 0, 0, 0), state, "use");
    assert_refused(gradreg_probe_summary(probe, own.layers, LAYERS), state, "use");
    assert_refused(gradreg_probe_reset(probe), state, "use");
    assert_refused(gradreg_probe_destroy(probe), state, "use");
}

static void use_a_monitor(void)
{
    static float out[4];
    assert_ok(gradreg_js_divergence(context, out, large[0], large[0], 4, 20000));
}

static void call_the_monitors(void)
{
    assert_refused(gradreg_js_divergence(context, own.out, own.rows, own.others, 1, 8),
                   GRADREG_ERROR_STATE, "use");
    assert_refused(gradreg_weight_delta(context, own.figures, own.rows, own.others, F32,
                                        own.segments, SEGMENTS),
                   GRADREG_ERROR_STATE, "use");
}

START_TEST(a_handle_in_use_refuses_other_calls)
{
    LEAVE_OUT_ON_CUDA("its calls run none of the caller's functions");
    refusals_in_use(use_a_probe, call_the_probe);
    refusals_in_use(use_a_monitor, call_the_monitors);
}
END_TEST

/* ---- monitors ---------------------------------------------------------------------- */

START_TEST(bad_tokens_are_named)
{
    const int32_t *odd = (const int32_t *)(const void *)((const char *)own.tokens + 2);
    assert_refused(gradreg_distinct_ngrams(NULL, own.tokens, 4, 2), invalid, "'out'");
    assert_refused(gradreg_distinct_ngrams(own.figures, NULL, 4, 2), invalid, "'tokens'");
    assert_refused(gradreg_distinct_ngrams(own.figures, odd, 4, 2), invalid, "tokens",
                   "aligned");
    assert_refused(gradreg_distinct_ngrams(own.figures, own.tokens, (size_t)1 << 31, 2),
                   invalid, "count", "2147483648");
    assert_refused(gradreg_distinct_ngrams(own.figures, own.tokens, 4, 0), invalid, "order",
                   "0");
    assert_refused(gradreg_distinct_ngrams(own.figures, own.tokens, 4, -3), invalid, "order",
                   "-3");
    assert_accepted(gradreg_distinct_ngrams(own.figures, own.tokens, SPARE, 2));
    /* check_faults.c lets malloc fail */
    coverage_note("gradreg_distinct_ngrams", GRADREG_ERROR_OUT_OF_MEMORY, false);
}
END_TEST

START_TEST(bad_values_are_named)
{
    const float *odd = (const float *)(const void *)((const char *)own.rows + 1);
    double *half = (double *)(void *)((char *)own.figures + 4);
    assert_refused(gradreg_moving_average(NULL, own.rows, 4, 2), invalid, "'out'");
    assert_refused(gradreg_moving_average(own.figures, NULL, 4, 2), invalid, "'values'");
    assert_refused(gradreg_moving_average(half, own.rows, 4, 2), invalid, "out", "aligned");
    assert_refused(gradreg_moving_average(own.figures, odd, 4, 2), invalid, "values",
                   "aligned");
    assert_refused(gradreg_moving_average(own.figures, own.rows, 4, 0), invalid, "window", "0");
    assert_refused(gradreg_moving_average(own.figures, own.rows, SIZE_MAX, 2), invalid, "count",
                   "18446744073709551615");
    assert_refused(gradreg_moving_average(own.figures, (float *)(void *)own.figures + 3, 2, 2),
                   invalid, "out", "overlaps values");
    assert_refused(gradreg_moving_average(own.figures + 1, (float *)(void *)own.figures, 3, 2),
                   invalid, "out", "overlaps values");
    assert_accepted(
        gradreg_moving_average(own.figures, (float *)(void *)own.figures + 4, 2, 2));
}
END_TEST

START_TEST(bad_distributions_are_named)
{
    float *const p = own.rows, *const q = own.others, *const out = own.out;
    float *const odd = (float *)(void *)((char *)own.rows + 2);
    assert_refused(gradreg_js_divergence(NULL, out, p, q, 2, 8), invalid, "'context'");
    assert_refused(gradreg_js_divergence(context, NULL, p, q, 2, 8), invalid, "'out'");
    assert_refused(gradreg_js_divergence(context, out, NULL, q, 2, 8), invalid, "'p'");
    assert_refused(gradreg_js_divergence(context, out, p, NULL, 2, 8), invalid, "'q'");
    assert_refused(gradreg_js_divergence(context, odd, p, q, 2, 8), invalid, "out", "aligned");
    assert_refused(gradreg_js_divergence(context, out, odd, q, 2, 8), invalid,
                   "p =", "aligned");
    assert_refused(gradreg_js_divergence(context, out, p, odd, 2, 8), invalid,
                   "q =", "aligned");
    assert_refused(gradreg_js_divergence(context, out, p, q, 2, 0), invalid, "columns", "0");
    assert_refused(gradreg_js_divergence(context, out, p, q, 2, SIZE_MAX), invalid, "columns",
                   "18446744073709551615");
    assert_refused(gradreg_js_divergence(context, out, p, q, SIZE_MAX, 8), invalid, "rows",
                   "18446744073709551615");
    assert_refused(gradreg_js_divergence(context, p + 15, p, q, 2, 8), invalid, "out",
                   "overlaps p");
    assert_refused(gradreg_js_divergence(context, q, p, q, 2, 8), invalid, "out", "overlaps q");
    assert_accepted(gradreg_js_divergence(context, p + 16, p, p, 2, 8));
}
END_TEST

static void refuse_segments(const char *word, const char *value)
{
    assert_refused(gradreg_weight_delta(context, own.figures, own.rows, own.others, F32,
                                        own.segments, SEGMENTS),
                   invalid, word, value);
}

START_TEST(bad_segments_are_named)
{
    const gradreg_segment good = own.segments[1];
    gradreg_segment *s = &own.segments[1];
    s->offset = UINT64_MAX;
    refuse_segments("segments[1]", "18446744073709551615");
    *s = good;
    s->count = UINT64_MAX - 4;
    refuse_segments("segments[1]", "18446744073709551611");
    *s = good;
    s->param_type = GRADREG_TYPE_BF16;
    refuse_segments("segments[1]: param_type", "2");
    s->param_type = 77;
    refuse_segments("segments[1]: param_type", "77");
    *s = good;
    s->shard_count = 3;
    refuse_segments("segments[1]: shard_begin", "3");
    *s = good;
    s->shard_begin = 8;
    refuse_segments("segments[1]: shard_begin", "8");
    *s = good;
    for (size_t k = 0; k < 3; k++) {
        s->reserved[k] = 1;
        refuse_segments("segments[1]", "reserved");
        *s = good;
    }
    s->offset = 4; /* overlaps, of another layer, with an unknown role: fine here */
    s->layer = 12345;
    s->role = 0;
    assert_accepted(gradreg_weight_delta(context, own.figures, own.rows, own.others, F32,
                                         own.segments, SEGMENTS));
}
END_TEST

START_TEST(bad_weights_are_named)
{
    void *const a = own.rows, *const b = own.others;
    char *const odd = (char *)own.rows + 2, *const byte = (char *)own.rows + 1;
    double *const n = own.figures, *const half = (double *)(void *)((char *)n + 4);
    const gradreg_segment *const s = own.segments;
    assert_refused(gradreg_weight_delta(NULL, n, a, b, F32, s, 2), invalid, "'context'");
    assert_refused(gradreg_weight_delta(context, NULL, a, b, F32, s, 2), invalid, "'norms'");
    assert_refused(gradreg_weight_delta(context, n, NULL, b, F32, s, 2), invalid, "'before'");
    assert_refused(gradreg_weight_delta(context, n, a, NULL, F32, s, 2), invalid, "'after'");
    assert_refused(gradreg_weight_delta(context, n, a, b, F32, NULL, 2), invalid, "'segments'");
    assert_refused(gradreg_weight_delta(context, n, a, b, 0, s, 2), invalid, "type", "0");
    assert_refused(gradreg_weight_delta(context, n, a, b, 4, s, 2), invalid, "type", "4");
    assert_refused(gradreg_weight_delta(context, n, a, b, F32, s, SIZE_MAX), invalid,
                   "segment_count", "18446744073709551615");
    assert_refused(gradreg_weight_delta(context, half, a, b, F32, s, 1), invalid, "norms",
                   "aligned to 8");
    assert_refused(gradreg_weight_delta(context, n, odd, b, F32, s, 1), invalid, "before",
                   "aligned to 4");
    assert_refused(gradreg_weight_delta(context, n, a, byte, GRADREG_TYPE_F16, s, 1), invalid,
                   "after", "aligned to 2");
    assert_refused(gradreg_weight_delta(context, n, n + 1, b, F32, s, 2), invalid, "norms",
                   "overlaps before");
    assert_refused(gradreg_weight_delta(context, n, a, (float *)(void *)n - 15, F32, s, 2),
                   invalid, "norms", "overlaps after");
    assert_accepted(gradreg_weight_delta(context, n, n + 2, a, F32, s, 1));
}
END_TEST

/* ---- main -------------------------------------------------------------------------- */

static bool is_mine(const char *name)
{
    static const char *const prefixes[] = { "gradreg_probe_", "gradreg_distinct_ngrams",
                                            "gradreg_moving_average", "gradreg_js_divergence",
                                            "gradreg_weight_delta" };
    for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++)
        if (strncmp(name, prefixes[i], strlen(prefixes[i])) == 0)
            return true;
    return false;
}

int main(void)
{
    Suite *suite = suite_create("bad probe");
    TCase *tests = tcase_create("refusals");
    coverage_open();
    tcase_add_checked_fixture(tests, set_up, tear_down);
    add_loop_test(tests, init_refuses_null_and_sizes_that_no_version_had, 0, INITS);
    add_loop_test(tests, bad_fields_are_named, 0, BAD_PARAMS);
    tcase_add_test(tests, create_refuses_null_and_other_versions);
    tcase_add_test(tests, memory_may_end_at_every_point);
    tcase_add_test(tests, a_context_outlives_its_probes);
    tcase_add_test(tests, bad_hidden_states_are_named);
    tcase_add_test(tests, bad_logits_are_named);
    tcase_add_test(tests, bad_summaries_are_named);
    tcase_add_test(tests, a_handle_in_use_refuses_other_calls);
    tcase_add_test(tests, bad_tokens_are_named);
    tcase_add_test(tests, bad_values_are_named);
    tcase_add_test(tests, bad_distributions_are_named);
    tcase_add_test(tests, bad_segments_are_named);
    tcase_add_test(tests, bad_weights_are_named);
    suite_add_tcase(suite, tests);
    return refusals_run(suite, is_mine);
}
