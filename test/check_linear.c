/* check_linear.c - log-probs from hidden states and a head weight, and the gradient of both.
 *
 * In: matrices of every type, with strides, padding, and chunks of any size. Out: results within what
 * rounded products imply, e = (width + 2) u sum |h_k w_k| for a logit; padding never read; no more memory
 * than promised. A build without BLAS has one test: what it says. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "logits_rig.h"

#define U 0x1p-24

#if !GR_TEST_BLAS

START_TEST(a_build_without_blas_says_how_to_get_it)
{
    gradreg_context *context = logits_context(1, NULL);
    gradreg_linear_params p = GRADREG_LINEAR_PARAMS_INIT;
    float h[2] = { 1, 2 }, w[6] = { 0 }, out[1], d[1] = { 1 }, dh[2];
    int32_t t[1] = { 0 };
    p.rows = 1, p.width = 2, p.vocabulary = 3;
    assert_fails(gradreg_linear_logprobs_forward(context, out, NULL, NULL, h, w, t, &p),
                 GRADREG_ERROR_UNSUPPORTED, "libopenblas-dev", "-Dblas=enabled");
    assert_fails(
        gradreg_linear_logprobs_backward(context, dh, NULL, h, w, t, d, NULL, d, NULL, &p),
        GRADREG_ERROR_UNSUPPORTED, "libopenblas-dev", "-Dblas=enabled");
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

#else

typedef struct matrices {
    gradreg_linear_params params;
    size_t hidden_stride, weight_stride, dhidden_bytes;
    void *hidden, *weight, *dhidden;
    float *dweight, *logp, *entropy, *log_sum_exp, *dlogp, *dentropy;
    int32_t *targets;
} matrices;

static void *filled(gradreg_type type, size_t rows, size_t columns, size_t stride, double scale,
                    uint64_t *state)
{
    const size_t bytes = rows == 0 ? 0 : ((rows - 1) * stride + columns) * type_bytes(type);
    void *m = guarded_new(bytes, type_bytes(type)); /* one element off alignment */
    memset(m, 0xff, bytes);
    for (size_t r = 0; r < rows; r++)
        for (size_t k = 0; k < columns; k++)
            typed_set(m, type, r * stride + k, next_signed(state, scale));
    return m;
}

static matrices new_matrices(size_t rows, size_t width, size_t vocabulary, gradreg_type type,
                             size_t gap, uint64_t *state)
{
    const gradreg_linear_params params = GRADREG_LINEAR_PARAMS_INIT;
    matrices m;
    m.params = params;
    m.params.type = type;
    m.params.rows = rows;
    m.params.width = width;
    m.params.vocabulary = vocabulary;
    m.params.hidden_stride = gap > 0 ? width + gap : 0;
    m.params.weight_stride = gap > 0 ? width + 2 * gap : 0;
    m.hidden_stride = width + gap;
    m.weight_stride = width + 2 * gap;
    m.hidden = filled(type, rows, width, m.hidden_stride, 2.0, state);
    m.weight = filled(type, vocabulary, width, m.weight_stride, 0.5, state);
    m.dhidden_bytes = ((rows - 1) * m.hidden_stride + width) * 4;
    m.dhidden = guarded_new(m.dhidden_bytes, 0);
    m.dweight = guarded_new(vocabulary * width * 4, 0);
    m.logp = guarded_new(rows * 4, 0);
    m.entropy = guarded_new(rows * 4, 0);
    m.log_sum_exp = guarded_new(rows * 4, 0);
    m.dlogp = guarded_new(rows * 4, 0);
    m.dentropy = guarded_new(rows * 4, 0);
    m.targets = guarded_new(rows * 4, 0);
    for (size_t r = 0; r < rows; r++) {
        m.targets[r] = (int32_t)(next_word(state) % vocabulary);
        m.dlogp[r] = (float)next_signed(state, 2.0);
        m.dentropy[r] = (float)next_signed(state, 0.5);
    }
    return m;
}

static void free_matrices(matrices *m)
{
    guarded_free(m->hidden), guarded_free(m->weight), guarded_free(m->dhidden);
    guarded_free(m->dweight), guarded_free(m->logp), guarded_free(m->entropy);
    guarded_free(m->log_sum_exp), guarded_free(m->dlogp), guarded_free(m->dentropy);
    guarded_free(m->targets);
}

static void run(matrices *m, gradreg_context *context)
{
    assert_ok(gradreg_linear_logprobs_forward(context, m->logp, m->entropy, m->log_sum_exp,
                                              m->hidden, m->weight, m->targets, &m->params));
    assert_ok(gradreg_linear_logprobs_backward(context, m->dhidden, m->dweight, m->hidden,
                                               m->weight, m->targets, m->log_sum_exp,
                                               m->entropy, m->dlogp, m->dentropy, &m->params));
}

/* ---- the oracle ------------------------------------------------------------------ */

static double inverse_of(const matrices *m)
{
    return m->params.temperature == 0.0f ? 1.0 : 1.0 / (double)m->params.temperature;
}

static double hidden_at(const matrices *m, size_t r, size_t k)
{
    return typed_get(m->hidden, m->params.type, r * m->hidden_stride + k);
}

static double weight_at(const matrices *m, size_t j, size_t k)
{
    return typed_get(m->weight, m->params.type, j * m->weight_stride + k);
}

/* z of a row; the largest error of one. */
static double row_of(const matrices *m, size_t r, double *z)
{
    double worst = 0.0;
    for (size_t j = 0; j < m->params.vocabulary; j++) {
        double sum = 0.0, size = 0.0;
        for (size_t k = 0; k < m->params.width; k++) {
            const double product = hidden_at(m, r, k) * weight_at(m, j, k);
            sum += product;
            size += fabs(product);
        }
        z[j] = sum * inverse_of(m);
        worst = fmax(worst, (double)(m->params.width + 4) * U * size * inverse_of(m));
    }
    return worst;
}

static void near(double got, double want, double slack, const char *what, size_t a, size_t b)
{
    if (!(fabs(got - want) <= slack))
        ck_abort_msg("%s %zu, %zu: %.9g, expected %.17g, slack %.3g", what, a, b, got, want,
                     slack);
}

typedef struct sums {
    double *dhidden, *hidden_slack, *dweight, *weight_slack, *z;
} sums;

static void add_row(const matrices *m, size_t r, double e, sums *s)
{
    const size_t width = m->params.width;
    for (size_t j = 0; j < m->params.vocabulary; j++) {
        const double lse = (double)m->log_sum_exp[r], h = (double)m->entropy[r];
        const double dl = (double)m->dlogp[r], dh = (double)m->dentropy[r];
        const double g =
            inverse_of(m) * oracle_logits_slope(s->z, j, (size_t)m->targets[r], lse, h, dl, dh);
        const double size = fabs(dl) + fabs(dh) * (1 + fabs(h) + fabs(s->z[j] - lse));
        const double p = exp(s->z[j] - lse) + (j == (size_t)m->targets[r] ? 1.0 : 0.0);
        const double slack = inverse_of(m) * p * size * (2 * e + U * (fabs(lse) + 60));
        for (size_t k = 0; k < width; k++) {
            s->dhidden[r * width + k] += g * weight_at(m, j, k);
            s->hidden_slack[r * width + k] +=
                fabs(weight_at(m, j, k)) *
                (slack + fabs(g) * U * (double)(m->params.vocabulary + 4));
            s->dweight[j * width + k] += g * hidden_at(m, r, k);
            s->weight_slack[j * width + k] +=
                fabs(hidden_at(m, r, k)) * (slack + fabs(g) * U * (double)(m->params.rows + 4));
        }
    }
}

static void check_numbers(const matrices *m, size_t r, double e, const double *z)
{
    const oracle_logits o = oracle_logits_row(z, m->params.vocabulary, (size_t)m->targets[r]);
    const double sum = 2 * e + 45 * U + U * o.distance;
    near((double)m->logp[r], o.logp, sum + U * fabs(o.logp), "logp", r, 0);
    near((double)m->log_sum_exp[r], o.log_sum_exp, sum + U * fabs(o.log_sum_exp), "lse", r, 0);
    near((double)m->entropy[r], o.entropy,
         sum * (2 + o.distance) + U * (o.distance_sq + 40 * o.distance + o.entropy), "entropy",
         r, 0);
}

static double gradient_unit(gradreg_type type)
{
    return type_half_step(type, 1.0);
}

/* before: what dweight held, with add_weight_gradient. */
static void check(const matrices *m, const float *before)
{
    const size_t rows = m->params.rows, width = m->params.width,
                 vocabulary = m->params.vocabulary;
    const gradreg_type type =
        m->params.gradient_type != 0 ? m->params.gradient_type : m->params.type;
    sums s = { calloc(rows * width, 8), calloc(rows * width, 8), calloc(vocabulary * width, 8),
               calloc(vocabulary * width, 8), calloc(vocabulary, 8) };
    for (size_t r = 0; r < rows; r++) {
        if (m->targets[r] < 0) {
            ck_assert(m->logp[r] == 0.0f && m->entropy[r] == 0.0f && m->log_sum_exp[r] == 0.0f);
            continue;
        }
        const double e = row_of(m, r, s.z);
        check_numbers(m, r, e, s.z);
        add_row(m, r, e, &s);
    }
    for (size_t r = 0; r < rows; r++)
        for (size_t k = 0; k < width; k++)
            near(typed_get(m->dhidden, type, r * m->hidden_stride + k),
                 s.dhidden[r * width + k],
                 s.hidden_slack[r * width + k] +
                     gradient_unit(type) * fabs(s.dhidden[r * width + k]) +
                     fmax(type_half_step(type, 0.0), 0x1p-140),
                 "dhidden", r, k);
    for (size_t i = 0; i < vocabulary * width; i++) {
        const double was = before != NULL ? (double)before[i] : 0.0;
        near((double)m->dweight[i], was + s.dweight[i],
             s.weight_slack[i] + 4 * U * (fabs(was) + fabs(s.dweight[i])) + 0x1p-140, "dweight",
             i / width, i % width);
    }
    free(s.dhidden), free(s.hidden_slack), free(s.dweight), free(s.weight_slack), free(s.z);
}

/* ---- tests ----------------------------------------------------------------------- */

static const size_t shapes[][3] = { { 1, 1, 1 },    { 1, 5, 2 },    { 3, 1, 7 },
                                    { 7, 16, 33 },  { 9, 31, 257 }, { 17, 64, 300 },
                                    { 5, 33, 1021 } };
enum { SHAPES = sizeof(shapes) / sizeof(shapes[0]) };

START_TEST(every_shape_type_stride_and_chunk_stays_within_its_bound)
{
    gradreg_context *context = logits_context(2, NULL);
    const size_t *shape = shapes[_i / LAST_TYPE];
    const gradreg_type type = all_types[_i % LAST_TYPE];
    static const size_t chunks[] = { 0, 1, 3, 1000 };
    for (int c = 0; c < 4; c++) {
        uint64_t state = test_seed() ^ (uint64_t)_i;
        matrices m =
            new_matrices(shape[0], shape[1], shape[2], type, (size_t)c % 2 * 3, &state);
        m.params.chunk_rows = chunks[c];
        m.params.temperature = c == 2 ? 0.7f : 0.0f;
        m.params.gradient_type = c == 3 ? GRADREG_TYPE_F32 : 0;
        if (shape[0] > 2)
            m.targets[1] = -1;
        run(&m, context);
        check(&m, NULL);
        free_matrices(&m);
    }
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

START_TEST(the_weight_gradient_is_added_or_overwritten_as_asked)
{
    gradreg_context *context = logits_context(1, NULL);
    uint64_t state = test_seed() ^ 77;
    matrices m = new_matrices(6, 12, 40, GRADREG_TYPE_F32, 0, &state);
    float before[12 * 40];
    for (size_t i = 0; i < 12 * 40; i++)
        before[i] = m.dweight[i] = (float)next_signed(&state, 3.0);
    m.params.add_weight_gradient = 1;
    m.params.chunk_rows = 4;
    run(&m, context);
    check(&m, before);
    m.params.add_weight_gradient = 0;
    for (size_t i = 0; i < 12 * 40; i++)
        m.dweight[i] = (float)NAN;
    run(&m, context);
    check(&m, NULL);
    free_matrices(&m);
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

START_TEST(padding_and_rows_that_nothing_asks_of_are_never_read)
{
    gradreg_context *context = logits_context(2, NULL);
    for (int t = 0; t < LAST_TYPE; t++) {
        uint64_t state = test_seed() ^ 78;
        matrices m = new_matrices(8, 10, 50, all_types[t], 1, &state);
        m.params.chunk_rows = 3;
        run(&m, context);
        m.targets[0] = m.targets[4] = -1;
        m.dlogp[6] = m.dentropy[6] = 0.0f;
        for (size_t k = 0; k < 10; k++) {
            typed_set_bits(m.hidden, all_types[t], k, 0xffffffffu);
            typed_set_bits(m.hidden, all_types[t], 4 * m.hidden_stride + k, 0xffffffffu);
        }
        run(&m, context);
        for (size_t k = 0; k < 10; k++)
            for (size_t r = 0; r < 8; r += r == 0 ? 4 : 2)
                if (typed_bits(m.dhidden, all_types[t], r * m.hidden_stride + k) != 0)
                    ck_abort_msg("row %zu has a gradient", r);
        for (size_t i = 0; i < 500; i++)
            ck_assert(isfinite(m.dweight[i]));
        /* and nothing but such rows */
        for (size_t r = 0; r < 8; r++)
            m.targets[r] = -1;
        run(&m, context);
        for (size_t i = 0; i < 500; i++)
            ck_assert(m.dweight[i] == 0.0f);
        free_matrices(&m);
    }
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

START_TEST(one_gradient_alone_has_the_bits_it_has_with_the_other)
{
    gradreg_context *context = logits_context(1, NULL);
    uint64_t state = test_seed() ^ 79;
    matrices m = new_matrices(5, 16, 60, GRADREG_TYPE_BF16, 0, &state);
    run(&m, context);
    uint16_t dhidden[5 * 16];
    float dweight[60 * 16];
    memset(dweight, 0, sizeof(dweight));
    assert_ok(gradreg_linear_logprobs_backward(context, dhidden, NULL, m.hidden, m.weight,
                                               m.targets, m.log_sum_exp, m.entropy, m.dlogp,
                                               m.dentropy, &m.params));
    assert_ok(gradreg_linear_logprobs_backward(context, NULL, dweight, m.hidden, m.weight,
                                               m.targets, m.log_sum_exp, m.entropy, m.dlogp,
                                               m.dentropy, &m.params));
    ck_assert(memcmp(dhidden, m.dhidden, sizeof(dhidden)) == 0);
    ck_assert(memcmp(dweight, m.dweight, sizeof(dweight)) == 0);
    free_matrices(&m);
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

/* One chunk, and what conversion needs. */
START_TEST(memory_is_one_chunk_and_nothing_after_it_is_reserved)
{
    gradreg_context_params how = GRADREG_CONTEXT_PARAMS_INIT;
    counting_allocator allocator;
    gradreg_context *context = NULL;
    uint64_t state = test_seed() ^ 80;
    memset(&allocator, 0, sizeof(allocator));
    how.allocator = counting_hook(&allocator);
    how.threads = 2;
    for (int t = 0; t < 2; t++) {
        matrices m = new_matrices(40, 24, 500, all_types[t], 0, &state);
        size_t bytes = 0;
        m.params.chunk_rows = 8;
        assert_ok(test_context_create(&context, &how));
        assert_ok(gradreg_linear_logprobs_scratch_bytes(&bytes, &m.params));
        const size_t conversion = t == 0 ? 0 : 500 * 24 * 4;
        ck_assert_uint_le(bytes, 8 * (500 + 2 * 24) * 4 + conversion + 8 * 8 + 64);
        assert_ok(gradreg_context_reserve(context, bytes));
        const size_t calls = allocator.calls, live = allocator.live_bytes;
        allocator.peak_bytes = 0;
        run(&m, context);
        ck_assert_uint_eq(allocator.calls, calls);
        ck_assert_uint_eq(allocator.live_bytes, live);
        free_matrices(&m);
        assert_ok(gradreg_context_destroy(context));
    }
    counting_check(&allocator);
}
END_TEST

#endif

int main(void)
{
    Suite *suite = suite_create("linear");
    TCase *tc = tcase_create("core");
    tcase_set_timeout(tc, 120);
#if GR_TEST_BLAS
    add_loop_test(tc, every_shape_type_stride_and_chunk_stays_within_its_bound, 0,
                  LAST_TYPE * SHAPES);
    tcase_add_test(tc, the_weight_gradient_is_added_or_overwritten_as_asked);
    tcase_add_test(tc, padding_and_rows_that_nothing_asks_of_are_never_read);
    tcase_add_test(tc, one_gradient_alone_has_the_bits_it_has_with_the_other);
    tcase_add_test(tc, memory_is_one_chunk_and_nothing_after_it_is_reserved);
#else
    tcase_add_test(tc, a_build_without_blas_says_how_to_get_it);
#endif
    suite_add_tcase(suite, tc);
    return run_suite(suite);
}
