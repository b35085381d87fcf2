/* check_vectors.c - steps that a public implementation has computed in float64.
 *
 * In: vectors/gradreg.json (its folder is the first argument). Out: the oracle agrees
 * with it in double, and the library in f32 within what rounding the inputs and each operation once
 * implies. With u = 2^-24, E = u |exact value| for an input, and the norms in the file, which are
 * themselves f32 (so every clip factor below 1 carries another u, and one more of the library's):
 *
 *      theta'  |error| <= u |theta| + 4 u |delta|, then one rounding of the sum
 *      g_hat   |error| <= e |a| + |k| (e |a| + e |b| + u |D|) + 2 u |k D|, then one rounding of
 *              the sum; e = u for the input, 4 u more where its clip is active */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "oracle.h"
#include "support.h"
#include "trainer.h"
#include "vectors.h"

static const char *folder = "test/vectors"; /* of the source tree's root */
static cJSON *cases;

enum { CASES = 4 };

struct reference {
    const char *name;
    size_t segment_count, count;
    gradreg_segment *segments;
    gradreg_regularizer_params params;
    double *theta, *g1, *g2, *theta_perturbed, *combined, g1_norm, g2_norm;
    double *order[5]; /* the same in the table's order, for the oracle */
};

/* ---------------------------------------------------------------------------- reading */

static uint32_t role_of(const char *name)
{
    static const char *const names[] = { "attention", "mlp", "norm", "embedding", "head" };

    for (uint32_t k = 0; k < 5; k++)
        if (strcmp(name, names[k]) == 0)
            return 1u << k;
    ck_abort_msg("unknown role %s", name);
    return 0;
}

static void read_segments(struct reference *r, const cJSON *array)
{
    const cJSON *item;
    size_t s = 0;

    r->segment_count = (size_t)cJSON_GetArraySize(array);
    r->segments = calloc(r->segment_count, sizeof(*r->segments));
    cJSON_ArrayForEach(item, array)
    {
        const gradreg_segment empty = GRADREG_SEGMENT_INIT;
        gradreg_segment *segment = &r->segments[s++];
        *segment = empty;
        segment->offset = (uint64_t)vectors_number(item, "offset");
        segment->count = (uint64_t)vectors_number(item, "count");
        segment->layer = (int32_t)vectors_number(item, "layer");
        segment->role = role_of(vectors_member(item, "role")->valuestring);
        r->count += (size_t)segment->count;
    }
}

/* The public code knows no depth: the same strength everywhere, outside the blocks too. */
static void read_config(struct reference *r, const cJSON *config, double layers)
{
    const gradreg_regularizer_params defaults = GRADREG_REGULARIZER_PARAMS_INIT;
    const cJSON *role;

    r->params = defaults;
    r->params.layer_count = (int32_t)layers;
    r->params.schedule.first_layer = r->params.schedule.full_layer = 0;
    r->params.schedule.outside_multiplier = 1.0;
    r->params.strength = vectors_number(config, "strength");
    r->params.epsilon = vectors_number(config, "epsilon");
    r->params.clip_first = vectors_number(config, "clip_first");
    r->params.clip_second = vectors_number(config, "clip_second");
    r->params.regularized_roles = 0;
    cJSON_ArrayForEach(role, vectors_member(config, "roles")) r->params.regularized_roles |=
        role_of(role->valuestring);
    r->params.perturbed_roles = r->params.regularized_roles;
}

static double *in_table_order(const struct reference *r, const double *flat)
{
    double *out = calloc(r->count, sizeof(double));
    size_t i = 0;

    for (size_t s = 0; s < r->segment_count; s++)
        for (size_t e = 0; e < r->segments[s].count; e++)
            out[i++] = flat[r->segments[s].offset + e];
    return out;
}

static struct reference *read_reference(int index)
{
    const cJSON *item = cJSON_GetArrayItem(cases, index);
    struct reference *r = calloc(1, sizeof(*r));

    ck_assert_ptr_nonnull(item);
    r->name = vectors_member(item, "name")->valuestring;
    read_segments(r, vectors_member(item, "segments"));
    read_config(r, vectors_member(item, "config"), vectors_number(item, "n_layers"));
    const cJSON *inputs = vectors_member(item, "inputs"),
                *expect = vectors_member(item, "expect");
    r->theta = vectors_numbers(inputs, "theta", r->count);
    r->g1 = vectors_numbers(inputs, "g1", r->count);
    r->g2 = vectors_numbers(inputs, "g2", r->count);
    r->theta_perturbed = vectors_numbers(expect, "theta_perturbed", r->count);
    r->combined = vectors_numbers(expect, "combined", r->count);
    r->g1_norm = vectors_number(expect, "g1_norm");
    r->g2_norm = vectors_number(expect, "g2_norm");
    double *const flat[] = { r->theta, r->g1, r->g2, r->theta_perturbed, r->combined };
    for (size_t k = 0; k < 5; k++)
        r->order[k] = in_table_order(r, flat[k]);
    return r;
}

static void free_reference(struct reference *r)
{
    double *const flat[] = { r->theta, r->g1, r->g2, r->theta_perturbed, r->combined };

    for (size_t k = 0; k < 5; k++) {
        free(flat[k]);
        free(r->order[k]);
    }
    free(r->segments);
    free(r);
}

/* ---------------------------------------------------------------------------- comparing */

START_TEST(the_oracle_agrees_in_double)
{
    struct reference *r = read_reference(_i);
    oracle *o = oracle_new(r->segments, r->segment_count, &r->params);
    oracle_step *step = oracle_step_new(o);

    step->theta = r->order[0];
    step->first = r->order[1];
    step->second = r->order[2];
    oracle_inject(o, step);
    oracle_perturb(o, step);
    oracle_combine(o, step);
    ck_assert_double_eq_tol(step->first_norm, r->g1_norm, 4 * ORACLE_ROUNDING * r->g1_norm);
    ck_assert_double_eq_tol(step->second_norm, r->g2_norm, 4 * ORACLE_ROUNDING * r->g2_norm);
    for (size_t i = 0; i < r->count; i++) {
        const double k = r->params.strength / r->params.epsilon;
        /* Only a factor made from those f32 norms can be further off than double is. */
        const double unit = step->clipped ? 4 * ORACLE_ROUNDING : 1e-14;
        const double b = step->clip_second * step->g2[i], a = step->a[i];
        const double moved = step->theta[i] + step->delta[i];
        assert_that(fabs(moved - r->order[3][i]) <= unit * fabs(step->delta[i]) + 1e-15,
                    "%s: theta' of %zu: %.17g, published %.17g", r->name, i, moved,
                    r->order[3][i]);
        assert_that(fabs(step->update[i] - r->order[4][i]) <=
                        unit * (fabs(a) + k * (fabs(a) + fabs(b))) + 1e-15,
                    "%s: g_hat of %zu: %.17g, published %.17g", r->name, i, step->update[i],
                    r->order[4][i]);
    }
    oracle_step_free(step);
    oracle_free(o);
    free_reference(r);
}
END_TEST

static float *as_floats(const double *values, size_t count)
{
    float *out = guarded_new(count * sizeof(float), 0);

    for (size_t i = 0; i < count; i++)
        out[i] = (float)values[i];
    return out;
}

/* got lies where rounding to f32 may put what is within slack of want. */
static bool within(float got, double want, double slack)
{
    return got >= (float)(want - slack) && got <= (float)(want + slack);
}

static const gradreg_segment *segment_at(const struct reference *r, size_t i)
{
    for (size_t s = 0; s < r->segment_count; s++)
        if (i >= r->segments[s].offset && i - r->segments[s].offset < r->segments[s].count)
            return &r->segments[s];
    ck_abort_msg("element %zu is in no segment", i);
    return NULL;
}

static double clip(double limit, double norm)
{
    return fmin(1.0, limit / (norm + 1e-6));
}

static void check_moved(const struct reference *r, const float *got)
{
    for (size_t i = 0; i < r->count; i++) {
        const double delta = r->theta_perturbed[i] - r->theta[i];
        const bool moves = segment_at(r, i)->role & r->params.perturbed_roles;
        const double clipped = clip(r->params.clip_first, r->g1_norm) < 1.0 ? 4.0 : 0.0;
        const double slack = ORACLE_ROUNDING * (fabs(r->theta[i]) +
                                                (moves ? (4.0 + clipped) * fabs(delta) : 0.0));
        assert_that(within(got[i], r->theta_perturbed[i], slack),
                    "%s: theta' of %zu: %a, published %a, slack %a", r->name, i, (double)got[i],
                    r->theta_perturbed[i], slack);
    }
}

static void check_combined(const struct reference *r, const float *got)
{
    const double u = ORACLE_ROUNDING;
    const double c1 = clip(r->params.clip_first, r->g1_norm);
    const double c2 = clip(r->params.clip_second, r->g2_norm);
    const double e1 = u + (c1 < 1.0 ? 4 * u : 0.0), e2 = u + (c2 < 1.0 ? 4 * u : 0.0);

    for (size_t i = 0; i < r->count; i++) {
        const bool corrected = segment_at(r, i)->role & r->params.regularized_roles;
        const double k = corrected ? r->params.strength / r->params.epsilon : 0.0;
        const double a = c1 * r->g1[i], b = c2 * r->g2[i], d = b - a;
        const double slack = e1 * fabs(a) + k * (e1 * fabs(a) + e2 * fabs(b) + u * fabs(d)) +
                             2 * u * fabs(k * d);
        assert_that(within(got[i], r->combined[i], slack),
                    "%s: g_hat of %zu: %a, published %a, slack %a", r->name, i, (double)got[i],
                    r->combined[i], slack);
    }
}

START_TEST(the_library_agrees_in_f32)
{
    struct reference *r = read_reference(_i);
    float *params = as_floats(r->theta, r->count), *grads = as_floats(r->g1, r->count);
    gradreg_context *context = NULL;
    gradreg_regularizer *regularizer = NULL;
    gradreg_buffers buffers = GRADREG_BUFFERS_INIT;
    gradreg_terms total = GRADREG_TERMS_INIT;

    buffers.params = params;
    buffers.grads = grads;
    buffers.count = r->count;
    assert_ok(test_context_create(&context, NULL));
    assert_ok(gradreg_regularizer_create(&regularizer, context, r->segments, r->segment_count,
                                         &r->params));
    assert_ok(gradreg_regularizer_perturb(regularizer, &buffers));
    check_moved(r, params);
    for (size_t i = 0; i < r->count; i++)
        grads[i] = (float)r->g2[i];
    assert_ok(gradreg_regularizer_combine(regularizer, &buffers));
    check_combined(r, grads);
    for (size_t i = 0; i < r->count; i++)
        ck_assert_uint_eq(float_bits(params[i]), float_bits((float)r->theta[i]));
    assert_ok(gradreg_regularizer_terms(regularizer, &total, NULL, 0));
    ck_assert_double_eq_tol(total.first_norm, r->g1_norm, 4 * ORACLE_ROUNDING * r->g1_norm);
    ck_assert_double_eq_tol(total.second_norm, r->g2_norm, 4 * ORACLE_ROUNDING * r->g2_norm);
    assert_ok(gradreg_regularizer_destroy(regularizer));
    assert_ok(gradreg_context_destroy(context));
    guarded_free(params);
    guarded_free(grads);
    free_reference(r);
}
END_TEST

START_TEST(every_case_is_read)
{
    ck_assert_int_eq(cJSON_GetArraySize(cases), CASES);
}
END_TEST

int main(int argc, char **argv)
{
    Suite *suite = suite_create("vectors");
    TCase *tc = tcase_create("core");

    if (argc > 1)
        folder = argv[1];
    cases = vectors_read(folder, "gradreg");
    tcase_add_test(tc, every_case_is_read);
    add_loop_test(tc, the_oracle_agrees_in_double, 0, CASES);
    add_loop_test(tc, the_library_agrees_in_f32, 0, CASES);
    suite_add_tcase(suite, tc);
    const int result = run_suite(suite);
    cJSON_Delete(cases);
    return result;
}
