/* check_linear.c - log-probs from hidden states and a head weight, and the gradient of both.
 *
 * In: matrices of every type, with strides, padding, and chunks of any size. Out: results within what
 * rounded products imply, e = (width + 2) u sum |h_k w_k| for a logit; padding never read; no more memory
 * than promised. A build without BLAS has one test: what it says. */
#include <float.h>
#include <math.h>
#include <stdio.h>
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

/* ---- known slopes ----------------------------------------------------------------- */

/* G as gradreg_logprobs_backward() makes it of these logits. */
static float *slopes_of(const matrices *m, gradreg_context *context, const float *logits)
{
    gradreg_logits_params p = GRADREG_LOGITS_PARAMS_INIT;
    float *slopes = guarded_new(m->params.rows * m->params.vocabulary * 4, 0);
    p.rows = m->params.rows;
    p.vocabulary = m->params.vocabulary;
    assert_ok(gradreg_logprobs_backward(context, slopes, logits, m->targets, m->log_sum_exp,
                                        m->entropy, m->dlogp, m->dentropy, &p));
    return slopes;
}

static double unit_matrix(size_t r, size_t k)
{
    return r == k ? 1.0 : 0.0;
}

/* Every magnitude that a slope can have: the second row's target is improbable, so that its slope is
 * the largest f32. */
static void set_slopes_of_any_size(matrices *m, void *others, size_t improbable)
{
    static const float sizes[] = { 1.5f, FLT_MAX, -3e38f, 1e-25f, -0x1p-90f, 0.3f, 7e15f };
    for (size_t r = 0; r < m->params.rows; r++) {
        m->dlogp[r] = sizes[r % 7];
        m->dentropy[r] = 0.0f;
    }
    typed_set(others, m->params.type, improbable, -30.0);
}

static void assert_slope(float got, float want, const char *what, size_t r, size_t j)
{
    if (!(got == want))
        ck_abort_msg("%s: the slope of row %zu, logit %zu arrives as %a, %a was sent", what, r,
                     j, (double)got, (double)want);
}

/* A unit matrix gives back what it is multiplied with: no bit of a slope may be missing in either
 * gradient. */
START_TEST(slopes_arrive_in_both_gradients_with_all_their_bits)
{
    enum { ROWS = 7, MANY = 70 };
    gradreg_context *context = logits_context(2, NULL);
    for (int i = 0; i < 2 * LAST_TYPE; i++) {
        const gradreg_type type = all_types[i / 2];
        const bool for_weight = i % 2 == 1;
        uint64_t state = test_seed() ^ (uint64_t)(81 + i);
        matrices m =
            new_matrices(ROWS, for_weight ? ROWS : MANY, MANY, type, i % 3 == 0, &state);
        float *logits = guarded_new(ROWS * MANY * 4, 0);
        m.params.gradient_type = GRADREG_TYPE_F32;
        void *const unit = for_weight ? m.hidden : m.weight;
        const size_t stride = for_weight ? m.hidden_stride : m.weight_stride;
        for (size_t r = 0; r < (for_weight ? ROWS : MANY); r++)
            for (size_t k = 0; k < m.params.width; k++)
                typed_set(unit, type, r * stride + k, unit_matrix(r, k));
        m.targets[1] = 3;
        set_slopes_of_any_size(&m, for_weight ? m.weight : m.hidden,
                               for_weight ? 3 * m.weight_stride + 1 : m.hidden_stride + 3);
        for (size_t r = 0; r < ROWS; r++)
            for (size_t j = 0; j < MANY; j++)
                logits[r * MANY + j] =
                    (float)(for_weight ? weight_at(&m, j, r) : hidden_at(&m, r, j));
        run(&m, context);
        float *const slopes = slopes_of(&m, context, logits);
        ck_assert(slopes[MANY + 3] == FLT_MAX);
        for (size_t r = 0; r < ROWS; r++)
            for (size_t j = 0; j < MANY; j++)
                assert_slope(for_weight ? m.dweight[j * ROWS + r]
                                        : ((float *)m.dhidden)[r * m.hidden_stride + j],
                             slopes[r * MANY + j], for_weight ? "dweight" : "dhidden", r, j);
        guarded_free(slopes), guarded_free(logits);
        free_matrices(&m);
    }
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

/* Multiples of a 16th: logits are the same in any order of sums, and so are slopes. */
static void make_logits_exact(matrices *m, float *logits)
{
    const gradreg_type type = m->params.type;
    for (size_t r = 0; r < m->params.rows; r++)
        for (size_t k = 0; k < m->params.width; k++)
            typed_set(m->hidden, type, r * m->hidden_stride + k,
                      round(16 * hidden_at(m, r, k)) / 16);
    for (size_t j = 0; j < m->params.vocabulary; j++)
        for (size_t k = 0; k < m->params.width; k++)
            typed_set(m->weight, type, j * m->weight_stride + k,
                      round(16 * weight_at(m, j, k)) / 16);
    for (size_t r = 0; r < m->params.rows; r++)
        for (size_t j = 0; j < m->params.vocabulary; j++) {
            double sum = 0.0;
            for (size_t k = 0; k < m->params.width; k++)
                sum += hidden_at(m, r, k) * weight_at(m, j, k);
            logits[r * m->params.vocabulary + j] = (float)sum;
        }
}

/* The error over U sum |factors|. */
static double in_units(double got, double want, double size)
{
    return size == 0.0 ? (got == want ? 0.0 : HUGE_VAL) : fabs(got - want) / (U * size);
}

/* The largest of dhidden, whose elements are sums over logits, or of dweight, sums over rows. */
static double worst_of(const matrices *m, const float *slopes, int for_weight)
{
    const size_t vocabulary = m->params.vocabulary, width = m->params.width;
    const size_t rows = for_weight ? vocabulary : m->params.rows;
    const size_t terms = for_weight ? m->params.rows : vocabulary;
    double worst = 0.0;
    for (size_t r = 0; r < rows; r++)
        for (size_t k = 0; k < width; k++) {
            double want = 0.0, size = 0.0;
            for (size_t i = 0; i < terms; i++) {
                const double one =
                    for_weight ? (double)slopes[i * vocabulary + r] * hidden_at(m, i, k)
                               : (double)slopes[r * vocabulary + i] * weight_at(m, i, k);
                want += one, size += fabs(one);
            }
            const float got = for_weight ? m->dweight[r * width + k]
                                         : ((float *)m->dhidden)[r * m->hidden_stride + k];
            worst = fmax(worst, in_units((double)got, want, size));
        }
    return worst;
}

/* What multiplying adds, without what slopes come with: docs/cuda.md has the bound of bf16 there, which
 * is that of f32 products and a little more. */
START_TEST(products_with_slopes_round_no_more_than_sums_of_f32_do)
{
    static const size_t sizes[][3] = {
        { 1, 16, 2 }, { 1, 24, 300 }, { 5, 16, 40 }, { 40, 33, 300 }, { 40, 1, 129 }
    };
    gradreg_context *context = logits_context(2, NULL);
    for (int t = 0; t < LAST_TYPE; t++) {
        double worst[2] = { 0.0, 0.0 };
        for (size_t s = 0; s < sizeof(sizes) / sizeof(*sizes); s++) {
            const size_t rows = sizes[s][0], width = sizes[s][1], vocabulary = sizes[s][2];
            uint64_t state = test_seed() ^ (uint64_t)(90 + s);
            matrices m = new_matrices(rows, width, vocabulary, all_types[t], s % 2, &state);
            float *logits = guarded_new(rows * vocabulary * 4, 0);
            m.params.gradient_type = GRADREG_TYPE_F32;
            m.params.chunk_rows = s == 3 ? 17 : 0;
            make_logits_exact(&m, logits);
            run(&m, context);
            float *const slopes = slopes_of(&m, context, logits);
            const double panels = (double)((vocabulary + 63) / 64);
            const double hidden = worst_of(&m, slopes, 0), weight = worst_of(&m, slopes, 1);
            ck_assert_msg(hidden <= (1 + 0x1p-6) * ((double)vocabulary + 3 * panels),
                          "%s, %zu rows: dhidden is %.3g units off", type_name(all_types[t]),
                          rows, hidden);
            ck_assert_msg(weight <= (1 + 0x1p-6) * 3 * (double)rows,
                          "%s, %zu rows: dweight is %.3g units off", type_name(all_types[t]),
                          rows, weight);
            worst[0] = fmax(worst[0], hidden), worst[1] = fmax(worst[1], weight);
            guarded_free(slopes), guarded_free(logits);
            free_matrices(&m);
        }
        printf("linear: %s, errors of products in units of 2^-24 sum |factors|: dhidden %.2f, "
               "dweight %.2f\n",
               type_name(all_types[t]), worst[0], worst[1]);
    }
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

/* Two logits that are far apart: the slopes are infinite, and of both signs. */
START_TEST(an_infinite_slope_makes_infinities_and_nothing_else_of_them)
{
    static const float weight[2][2] = { { -20, 1 }, { 20, 1 } };
    gradreg_context *context = logits_context(1, NULL);
    for (int t = 0; t < LAST_TYPE; t++) {
        uint64_t state = test_seed() ^ 96;
        matrices m = new_matrices(2, 2, 2, all_types[t], 0, &state);
        float *const dhidden = m.dhidden;
        m.params.gradient_type = GRADREG_TYPE_F32;
        for (size_t i = 0; i < 4; i++) {
            typed_set(m.weight, all_types[t], i, (double)weight[i / 2][i % 2]);
            typed_set(m.hidden, all_types[t], i, i % 2 == 0 ? 1.0 : -0.5);
        }
        m.targets[0] = m.targets[1] = 0;
        m.dlogp[0] = INFINITY;
        m.dlogp[1] = 0.25f;
        m.dentropy[0] = m.dentropy[1] = 0.0f;
        run(&m, context);
        /* G = inf, -inf: in the first row alone, and dweight has that row in all of its elements */
        ck_assert(dhidden[0] == -INFINITY && isnan(dhidden[1]));
        ck_assert(isfinite(dhidden[2]) && isfinite(dhidden[3]));
        ck_assert(m.dweight[0] == INFINITY && m.dweight[1] == -INFINITY);
        ck_assert(m.dweight[2] == -INFINITY && m.dweight[3] == INFINITY);
        m.dlogp[0] = NAN;
        run(&m, context);
        ck_assert(isnan(dhidden[0]) && isnan(dhidden[1]));
        ck_assert(isfinite(dhidden[2]) && isfinite(dhidden[3]));
        for (int i = 0; i < 4; i++)
            ck_assert(isnan(m.dweight[i]));
        free_matrices(&m);
    }
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
    tcase_add_test(tc, slopes_arrive_in_both_gradients_with_all_their_bits);
    tcase_add_test(tc, products_with_slopes_round_no_more_than_sums_of_f32_do);
    tcase_add_test(tc, an_infinite_slope_makes_infinities_and_nothing_else_of_them);
    tcase_add_test(tc, memory_is_one_chunk_and_nothing_after_it_is_reserved);
#else
    tcase_add_test(tc, a_build_without_blas_says_how_to_get_it);
#endif
    suite_add_tcase(suite, tc);
    return run_suite(suite);
}
