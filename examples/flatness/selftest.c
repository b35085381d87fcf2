/* selftest.c - a network so small that its Hessian fits on a page, in double, checks the rest.
 *
 *      loss ──differences──► gradient            against the backward pass
 *      gradient ──differences──► dense Hessian   against the library's products, eigenvalue, trace
 *      g + lambda m H g from it                  against the library's regularized gradient */
#include "selftest.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "curvature.h"
#include "random.h"
#include "support.h"

struct tiny {
    struct network *network;
    struct examples *examples;
    struct batch batch;
    size_t count;
    float *params;
    double *gradient; /* [count] */
    double *hessian;  /* [count x count] */
};

static bool report(const char *what, double error, double bound)
{
    const bool good = error <= bound; /* false for NaN */
    printf("  %-58s %.1e  (at most %.0e)  %s\n", what, error, bound, good ? "ok" : "FAILED");
    return good;
}

/* ------------------------------------------------------------------ the tiny problem */

static void tiny_open(struct tiny *tiny)
{
    static const struct network_shape shape = {
        .blocks = 3, .tokens = 3, .pixels = 4, .width = 4, .hidden = 6, .classes = 3
    };
    struct random random = random_seeded(7, 5);

    tiny->network = must_have(network_new(&shape));
    tiny->examples = must_have(examples_new(12, shape.tokens * shape.pixels));
    for (size_t i = 0; i < tiny->examples->count * tiny->examples->size; i++)
        tiny->examples->inputs[i] = (float)random_normal(&random);
    for (size_t i = 0; i < tiny->examples->count; i++)
        tiny->examples->labels[i] = (uint8_t)random_below(&random, shape.classes);
    tiny->batch = (struct batch){ tiny->examples, NULL, tiny->examples->count };

    tiny->count = tiny->network->parameter_count;
    tiny->params = must_allocate(tiny->count, sizeof(float));
    tiny->gradient = must_allocate(tiny->count, sizeof(double));
    tiny->hessian = must_allocate(tiny->count * tiny->count, sizeof(double));
    network_initialize(tiny->network, tiny->params, 7);
    network_load(tiny->network, tiny->params);
}

static void tiny_close(struct tiny *tiny)
{
    network_free(tiny->network);
    examples_free(tiny->examples);
    free(tiny->params);
    free(tiny->gradient);
    free(tiny->hessian);
}

static double norm(const double *values, size_t count)
{
    double sum = 0.0;
    for (size_t i = 0; i < count; i++)
        sum += values[i] * values[i];
    return sqrt(sum);
}

/* ||a - b|| / ||b|| */
static double distance(const float *a, const double *b, size_t count)
{
    double sum = 0.0;
    for (size_t i = 0; i < count; i++)
        sum += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
    return sqrt(sum) / norm(b, count);
}

/* out = H v */
static void dense_product(double *out, const struct tiny *tiny, const double *v)
{
    for (size_t r = 0; r < tiny->count; r++) {
        out[r] = 0.0;
        for (size_t c = 0; c < tiny->count; c++)
            out[r] += tiny->hessian[r * tiny->count + c] * v[c];
    }
}

/* ------------------------------------------------------------------ the backward pass */

static bool check_gradient(struct tiny *tiny)
{
    const double h = 1e-5;
    double *weights = tiny->network->weights, worst = 0.0;

    network_run(tiny->network, &tiny->batch, true);
    memcpy(tiny->gradient, tiny->network->sums, tiny->count * sizeof(double));
    for (size_t i = 0; i < tiny->count; i++) {
        const double weight = weights[i];
        weights[i] = weight + h;
        const double above = network_run(tiny->network, &tiny->batch, false);
        weights[i] = weight - h;
        const double below = network_run(tiny->network, &tiny->batch, false);
        weights[i] = weight;
        worst = fmax(worst, fabs((above - below) / (2.0 * h) - tiny->gradient[i]));
    }
    worst /= norm(tiny->gradient, tiny->count);
    return report("backward pass against differences of the loss", worst, 1e-7);
}

/* Column by column from the gradient; how far it is from symmetric says how exact it is. */
static bool check_symmetry(struct tiny *tiny)
{
    const double h = 1e-5;
    const size_t n = tiny->count;
    double *weights = tiny->network->weights, *sums = tiny->network->sums;
    double worst = 0.0;

    for (size_t c = 0; c < n; c++) {
        const double weight = weights[c];
        for (int side = 1; side >= -1; side -= 2) {
            weights[c] = weight + side * h;
            network_run(tiny->network, &tiny->batch, true);
            for (size_t r = 0; r < n; r++)
                tiny->hessian[r * n + c] += side * sums[r] / (2.0 * h);
        }
        weights[c] = weight;
    }
    for (size_t r = 0; r < n; r++)
        for (size_t c = 0; c < r; c++)
            worst = fmax(worst, fabs(tiny->hessian[r * n + c] - tiny->hessian[c * n + r]));
    worst /= norm(tiny->hessian, n * n);
    return report("dense Hessian (differences of the gradient) is symmetric", worst, 1e-7);
}

/* ------------------------------------------------------------------ the library's products */

static bool check_product(struct tiny *tiny, gradreg_context *context, double epsilon)
{
    float *direction = must_allocate(tiny->count, sizeof(float));
    double *v = must_allocate(tiny->count, sizeof(double));
    double *want = must_allocate(tiny->count, sizeof(double));
    struct random random = random_seeded(7, 6);
    struct hessian hessian;
    gradreg_terms terms;

    for (size_t i = 0; i < tiny->count; i++)
        v[i] = (double)(direction[i] = (float)random_normal(&random));
    dense_product(want, tiny, v);
    hessian_open(&hessian, context, tiny->network, tiny->params, &tiny->batch,
                 GRADREG_DIRECTION_CALLER, epsilon, 0);
    hessian_product(&terms, &hessian, direction);
    const double error = distance(hessian.grads, want, tiny->count);

    hessian_close(&hessian);
    free(direction);
    free(v);
    free(want);
    return report("H v by the library against the dense Hessian", error, 1e-3);
}

/* Power iteration on H + ||H|| 1, none of whose eigenvalues is negative. */
static double dense_top_eigenvalue(const struct tiny *tiny)
{
    const double shift = norm(tiny->hessian, tiny->count * tiny->count);
    double *v = must_allocate(tiny->count, sizeof(double));
    double *next = must_allocate(tiny->count, sizeof(double));
    double length = 0.0;

    for (size_t i = 0; i < tiny->count; i++)
        v[i] = 1.0 + (double)(i % 7);
    for (int iteration = 0; iteration < 2000; iteration++) {
        const double scale = 1.0 / norm(v, tiny->count);
        for (size_t i = 0; i < tiny->count; i++)
            v[i] *= scale;
        dense_product(next, tiny, v);
        for (size_t i = 0; i < tiny->count; i++)
            v[i] = next[i] + shift * v[i];
        length = norm(v, tiny->count);
    }
    free(v);
    free(next);
    return length - shift;
}

static double dense_trace(const struct tiny *tiny)
{
    double trace = 0.0;
    for (size_t i = 0; i < tiny->count; i++)
        trace += tiny->hessian[i * tiny->count + i];
    return trace;
}

/* Of one Hutchinson draw: 2 x the sum of squares off the diagonal is its variance. */
static double draw_deviation(const struct tiny *tiny)
{
    double sum = 0.0;
    for (size_t r = 0; r < tiny->count; r++)
        for (size_t c = 0; c < tiny->count; c++)
            if (r != c)
                sum += tiny->hessian[r * tiny->count + c] * tiny->hessian[r * tiny->count + c];
    return sqrt(2.0 * sum);
}

static bool check_curvature(struct tiny *tiny, gradreg_context *context, double epsilon)
{
    const struct curvature_params settings = {
        .epsilon = epsilon, .iteration_limit = 500, .tolerance = 1e-6, .draws = 1000, .seed = 3
    };
    struct curvature got;
    curvature_measure(&got, context, tiny->network, tiny->params, &tiny->batch, &settings);

    const double top = dense_top_eigenvalue(tiny), trace = dense_trace(tiny);
    const double deviation = draw_deviation(tiny) / sqrt((double)settings.draws);
    printf("  top eigenvalue %.5f, dense %.5f; trace %.4f, dense %.4f\n", got.top_eigenvalue,
           top, got.trace, trace);
    bool good = report("top eigenvalue, share of the dense one",
                       fabs(got.top_eigenvalue / top - 1.0), 1e-3);
    good &= report("trace, in standard errors of the estimate",
                   fabs(got.trace - trace) / deviation, 4.0);
    return good;
}

/* ------------------------------------------------------------------ the regularized gradient */

/* What GRADREG_DEPTH_ON_UPDATE says: rows of H u scaled by lambda m, u = g inside the blocks. */
static void dense_correction(double *out, const struct tiny *tiny,
                             const gradreg_segment *segments, const double *multipliers,
                             double strength)
{
    double *u = must_allocate(tiny->count, sizeof(double));
    for (size_t s = 0; s < tiny->network->tensor_count; s++)
        if (segments[s].layer != GRADREG_LAYER_NONE)
            memcpy(u + segments[s].offset, tiny->gradient + segments[s].offset,
                   segments[s].count * sizeof(double));
    dense_product(out, tiny, u);
    for (size_t s = 0; s < tiny->network->tensor_count; s++) {
        const int32_t layer = segments[s].layer;
        const double factor = layer == GRADREG_LAYER_NONE ? 0.0 : strength * multipliers[layer];
        for (uint64_t i = 0; i < segments[s].count; i++)
            out[segments[s].offset + i] *= factor;
    }
    free(u);
}

static bool check_regularized(struct tiny *tiny, gradreg_context *context)
{
    gradreg_regularizer_params params = GRADREG_REGULARIZER_PARAMS_INIT;
    gradreg_segment *segments = segments_from_names(tiny->network);
    float *grads = must_allocate(tiny->count, sizeof(float));
    double *want = must_allocate(tiny->count, sizeof(double));
    gradreg_buffers buffers = flat_buffers(tiny->params, grads, tiny->count);
    gradreg_regularizer *regularizer = NULL;
    double multipliers[3];

    params.layer_count = (int32_t)tiny->network->shape.blocks;
    params.strength = 1.0; /* so large that a wrong correction cannot hide behind g */
    params.epsilon = 1e-4; /* forward differences: the error shrinks as epsilon does */
    must(gradreg_regularizer_create(&regularizer, context, segments,
                                    tiny->network->tensor_count, &params));
    network_gradient(tiny->network, grads, tiny->params, &tiny->batch);
    must(gradreg_regularizer_perturb(regularizer, &buffers));
    network_gradient(tiny->network, grads, tiny->params, &tiny->batch);
    must(gradreg_regularizer_combine(regularizer, &buffers));
    must(gradreg_regularizer_destroy(regularizer));

    must(gradreg_schedule_multipliers(multipliers, &params.schedule, params.layer_count));
    dense_correction(want, tiny, segments, multipliers, params.strength);
    for (size_t i = 0; i < tiny->count; i++)
        grads[i] -= (float)tiny->gradient[i];
    const double error = distance(grads, want, tiny->count);

    free(segments);
    free(grads);
    free(want);
    return report("correction by the library against lambda m H g", error, 1e-2);
}

bool selftest(gradreg_context *context)
{
    const double epsilon = 1e-3;
    struct tiny tiny;

    tiny_open(&tiny);
    printf("selftest: %zu blocks, %zu parameters, %zu examples\n", tiny.network->shape.blocks,
           tiny.count, tiny.batch.count);
    bool good = check_gradient(&tiny);
    good &= check_symmetry(&tiny);
    good &= check_product(&tiny, context, epsilon);
    good &= check_curvature(&tiny, context, epsilon);
    good &= check_regularized(&tiny, context);
    tiny_close(&tiny);
    puts(good ? "selftest passed" : "selftest FAILED");
    return good;
}
