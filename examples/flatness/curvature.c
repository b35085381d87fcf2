/* curvature.c - Hessian-vector products from two gradients, and what is built on them. */
#include "curvature.h"

#include <math.h>
#include <stdlib.h>

#include "random.h"
#include "support.h"

/* ------------------------------------------------------------------ H v */

void hessian_open(struct hessian *hessian, gradreg_context *context, struct network *network,
                  float *params, const struct batch *batch, gradreg_direction direction_kind,
                  double epsilon, uint64_t seed)
{
    gradreg_regularizer_params settings = GRADREG_REGULARIZER_PARAMS_INIT;
    settings.layer_count = (int32_t)network->shape.blocks;
    settings.output = GRADREG_OUTPUT_PRODUCT;
    settings.direction = direction_kind;
    settings.difference = GRADREG_DIFFERENCE_CENTRAL;
    settings.step = GRADREG_STEP_NORMALIZED;
    settings.epsilon = epsilon;
    settings.seed = seed;
    /* The whole Hessian: every role moves, and what lies outside the blocks too. */
    settings.perturbed_roles = GRADREG_ROLE_ATTENTION | GRADREG_ROLE_MLP | GRADREG_ROLE_NORM |
                               GRADREG_ROLE_EMBEDDING | GRADREG_ROLE_HEAD | GRADREG_ROLE_OTHER;
    settings.schedule.outside_multiplier = 1.0;

    *hessian = (struct hessian){ .network = network, .batch = batch, .params = params };
    hessian->grads = must_allocate(network->parameter_count, sizeof(float));
    gradreg_segment *segments = segments_from_names(network);
    must(gradreg_regularizer_create(&hessian->regularizer, context, segments,
                                    network->tensor_count, &settings));
    free(segments);
}

void hessian_close(struct hessian *hessian)
{
    must(gradreg_regularizer_destroy(hessian->regularizer));
    free(hessian->grads);
}

static void backward(struct hessian *hessian)
{
    network_gradient(hessian->network, hessian->grads, hessian->params, hessian->batch);
}

void hessian_product(gradreg_terms *terms, struct hessian *hessian, const float *direction)
{
    gradreg_buffers buffers =
        flat_buffers(hessian->params, hessian->grads, hessian->network->parameter_count);
    buffers.direction = direction;

    /* Central differences need no gradient at theta itself. */
    must(gradreg_regularizer_perturb(hessian->regularizer, &buffers));
    backward(hessian);
    must(gradreg_regularizer_mirror(hessian->regularizer, &buffers));
    backward(hessian);
    must(gradreg_regularizer_combine(hessian->regularizer, &buffers));

    *terms = (gradreg_terms)GRADREG_TERMS_INIT;
    must(gradreg_regularizer_terms(hessian->regularizer, terms, NULL, 0));
}

/* ------------------------------------------------------------------ top eigenvalue */

/* Length one keeps H v in the range of f32. */
static void normalize(float *direction, size_t count)
{
    const double length = norm_of(direction, count);
    for (size_t i = 0; i < count; i++)
        direction[i] = (float)((double)direction[i] / length);
}

static void random_direction(float *direction, size_t count, uint64_t seed)
{
    struct random random = random_seeded(seed, 4);
    for (size_t i = 0; i < count; i++)
        direction[i] = (float)random_normal(&random);
    normalize(direction, count);
}

/* direction <- H direction + shift direction, normalized. */
static void next_direction(float *direction, const float *product, double shift, size_t count)
{
    for (size_t i = 0; i < count; i++)
        direction[i] = (float)((double)product[i] + shift * (double)direction[i]);
    normalize(direction, count);
}

/* How much the Rayleigh quotient along direction changes with half the step: truncation. */
static double change_at_half_epsilon(struct hessian *hessian, const float *direction,
                                     double curvature, double epsilon)
{
    gradreg_terms terms;
    must(gradreg_regularizer_set_epsilon(hessian->regularizer, 0.5 * epsilon));
    hessian_product(&terms, hessian, direction);
    must(gradreg_regularizer_set_epsilon(hessian->regularizer, epsilon));
    return fabs(terms.curvature / curvature - 1.0);
}

/* Iterates with H + shift: power iteration finds the eigenvalue of largest magnitude, and with
 * shift = ||H|| none is negative, so that is the largest. ||H v|| approaches ||H|| from below. */
static void measure_top_eigenvalue(struct curvature *out, struct hessian *hessian,
                                   const struct curvature_params *settings)
{
    const size_t count = hessian->network->parameter_count;
    float *direction = must_allocate(count, sizeof(float));
    double shift = 0.0;

    random_direction(direction, count, settings->seed);
    for (;;) {
        gradreg_terms terms;
        hessian_product(&terms, hessian, direction);
        const double change = fabs(terms.curvature - out->top_eigenvalue);
        out->top_eigenvalue = terms.curvature;
        if (++out->iterations == settings->iteration_limit ||
            change <= settings->tolerance * fabs(out->top_eigenvalue))
            break;
        shift = fmax(shift, norm_of(hessian->grads, count));
        next_direction(direction, hessian->grads, shift, count);
    }
    out->epsilon_change =
        change_at_half_epsilon(hessian, direction, out->top_eigenvalue, settings->epsilon);
    free(direction);
}

/* ------------------------------------------------------------------ trace */

static void measure_trace(struct curvature *out, struct hessian *hessian,
                          const struct curvature_params *settings)
{
    const double draws = (double)settings->draws;
    double sum = 0.0, sum_of_squares = 0.0;

    for (size_t i = 0; i < settings->draws; i++) {
        gradreg_terms terms;
        hessian_product(&terms, hessian, NULL);
        const double sample = terms.curvature * terms.direction_norm * terms.direction_norm;
        sum += sample;
        sum_of_squares += sample * sample;
    }
    out->trace = sum / draws;
    const double variance = fmax(0.0, sum_of_squares / draws - out->trace * out->trace);
    out->trace_error = sqrt(variance / fmax(1.0, draws - 1.0));
}

void curvature_measure(struct curvature *out, gradreg_context *context, struct network *network,
                       float *params, const struct batch *batch,
                       const struct curvature_params *settings)
{
    struct hessian hessian;

    *out = (struct curvature){ 0 };
    hessian_open(&hessian, context, network, params, batch, GRADREG_DIRECTION_CALLER,
                 settings->epsilon, settings->seed);
    measure_top_eigenvalue(out, &hessian, settings);
    hessian_close(&hessian);

    hessian_open(&hessian, context, network, params, batch, GRADREG_DIRECTION_RADEMACHER,
                 settings->epsilon, settings->seed);
    measure_trace(out, &hessian, settings);
    hessian_close(&hessian);
}
