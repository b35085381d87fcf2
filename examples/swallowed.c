/* swallowed.c - how much of a finite-difference step reaches the weights.
 *
 * Draws weights of spread 0.02 and a gradient as a model of 4e9 parameters would have it, steps
 * with the library, and prints what the terms say about the step as the forward pass sees it.
 *
 *      swallowed [elements]      default 4194304; docs/numerics.md shows the table */
#include <gradreg.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double model_parameters = 4e9, spread = 0.02;

typedef struct experiment {
    const char *what;
    gradreg_type param_type, compute_type;
    gradreg_rounding rounding;
    gradreg_step step;
    double gradient_norm, epsilon;
} experiment;

/* The regimes of docs/numerics.md. */
static const experiment experiments[] = {
    /* bf16 weights, rounded to nearest */
    { "bf16", GRADREG_TYPE_BF16, 0, GRADREG_ROUNDING_NEAREST, GRADREG_STEP_RAW, 1, 1e-3 },
    { "bf16", GRADREG_TYPE_BF16, 0, GRADREG_ROUNDING_NEAREST, GRADREG_STEP_RAW, 0.75, 1e-2 },
    { "bf16", GRADREG_TYPE_BF16, 0, GRADREG_ROUNDING_NEAREST, GRADREG_STEP_RAW, 1, 1 },
    { "bf16", GRADREG_TYPE_BF16, 0, GRADREG_ROUNDING_NEAREST, GRADREG_STEP_RAW, 1, 10 },
    /* f32 weights that the forward pass casts to bf16 */
    { "f32 cast to bf16", GRADREG_TYPE_F32, GRADREG_TYPE_BF16, GRADREG_ROUNDING_NEAREST,
      GRADREG_STEP_RAW, 1, 1e-3 },
    { "f32 cast to bf16", GRADREG_TYPE_F32, GRADREG_TYPE_BF16, GRADREG_ROUNDING_NEAREST,
      GRADREG_STEP_RAW, 1, 1 },
    { "f32 cast to bf16", GRADREG_TYPE_F32, GRADREG_TYPE_BF16, GRADREG_ROUNDING_NEAREST,
      GRADREG_STEP_RAW, 1, 10 },
    /* bf16 weights, rounded at random */
    { "bf16 stochastic", GRADREG_TYPE_BF16, 0, GRADREG_ROUNDING_STOCHASTIC, GRADREG_STEP_RAW, 1,
      1e-3 },
    { "bf16 stochastic", GRADREG_TYPE_BF16, 0, GRADREG_ROUNDING_STOCHASTIC, GRADREG_STEP_RAW, 1,
      10 },
    /* f16 weights */
    { "f16", GRADREG_TYPE_F16, 0, GRADREG_ROUNDING_NEAREST, GRADREG_STEP_RAW, 1, 1 },
    /* f32 weights: better, not immune */
    { "f32", GRADREG_TYPE_F32, 0, GRADREG_ROUNDING_NEAREST, GRADREG_STEP_RAW, 0.01, 1e-3 },
    { "f32", GRADREG_TYPE_F32, 0, GRADREG_ROUNDING_NEAREST, GRADREG_STEP_RAW, 1, 1e-3 },
    /* a step measured in the weights' own size */
    { "bf16 RELATIVE", GRADREG_TYPE_BF16, 0, GRADREG_ROUNDING_NEAREST, GRADREG_STEP_RELATIVE, 1,
      0x1p-8 },
    { "bf16 RELATIVE", GRADREG_TYPE_BF16, 0, GRADREG_ROUNDING_NEAREST, GRADREG_STEP_RELATIVE, 1,
      0x1p-7 },
};

static uint64_t state = UINT64_C(0x9e3779b97f4a7c15);

static double uniform(void)
{
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return ((double)(state >> 11) + 0.5) / 9007199254740992.0;
}

static double normal(void)
{
    return sqrt(-2 * log(uniform())) * cos(6.283185307179586 * uniform());
}

/* Weights of any type: f32 keeps all, bf16 and f16 keep what rounding leaves. */
static void store(void *weights, gradreg_type type, size_t i, float x)
{
    uint32_t bits;
    if (type == GRADREG_TYPE_F32) {
        ((float *)weights)[i] = x;
        return;
    }
    if (type == GRADREG_TYPE_BF16) {
        memcpy(&bits, &x, sizeof(bits));
        ((uint16_t *)weights)[i] = (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
        return;
    }
    /* f16: sign, exponent and 10 bits of a normal number; smaller ones become 0. */
    int exponent;
    const float fraction = frexpf(fabsf(x), &exponent);
    const int rounded = (int)lrintf(ldexpf(fraction, 11)); /* 1024 .. 2048 */
    bits = (uint32_t)((exponent + 13) * 1024 + rounded);
    ((uint16_t *)weights)[i] =
        (uint16_t)((exponent > -14 ? bits : 0u) | (x < 0 ? 0x8000u : 0u));
}

static gradreg_status measure(gradreg_context *context, const experiment *e, size_t n,
                              void *weights, float *gradient, gradreg_terms *terms)
{
    const double scale = e->gradient_norm / sqrt(model_parameters);
    gradreg_segment segment = GRADREG_SEGMENT_INIT;
    gradreg_regularizer_params params = GRADREG_REGULARIZER_PARAMS_INIT;
    gradreg_buffers buffers = GRADREG_BUFFERS_INIT;
    gradreg_regularizer *regularizer = NULL;
    gradreg_status status;

    for (size_t i = 0; i < n; i++) {
        store(weights, e->param_type, i, (float)(spread * normal()));
        gradient[i] = (float)(scale * normal());
    }
    segment.count = n;
    segment.layer = 0;
    segment.role = GRADREG_ROLE_MLP;
    params.layer_count = 1;
    params.param_type = e->param_type;
    params.compute_type = e->compute_type;
    params.rounding = e->rounding;
    params.step = e->step;
    params.epsilon = e->epsilon;
    params.clip_first = params.clip_second = 0;
    buffers.params = weights;
    buffers.grads = gradient;
    buffers.count = n;
    status = gradreg_regularizer_create(&regularizer, context, &segment, 1, &params);
    if (status == GRADREG_OK)
        status = gradreg_regularizer_perturb(regularizer, &buffers);
    if (status == GRADREG_OK) /* only the step is of interest here */
        status = gradreg_regularizer_fallback(regularizer, &buffers);
    if (status == GRADREG_OK)
        status = gradreg_regularizer_terms(regularizer, terms, NULL, 0);
    gradreg_regularizer_destroy(regularizer);
    return status;
}

static void print_row(const experiment *e, const gradreg_terms *t, size_t n)
{
    const double ratio = t->applied_norm / t->perturbation_norm;
    printf("| %-16s | %5g | %8.3g | %8.2g | %8.3g %% | %7.3g | %7.3f | %8.3g %% |\n", e->what,
           e->gradient_norm, e->epsilon, t->perturbation_norm / sqrt((double)n),
           100 * t->changed_fraction, ratio, t->applied_cosine,
           100 * t->applied_cosine * ratio);
}

int main(int argc, char **argv)
{
    const size_t n = argc > 1 ? (size_t)strtoull(argv[1], NULL, 10) : 4194304;
    float *weights = malloc(n * sizeof(float)), *gradient = malloc(n * sizeof(float));
    gradreg_context *context = NULL;
    gradreg_status status = gradreg_context_create(&context, NULL);

    if (n == 0 || weights == NULL || gradient == NULL) {
        fprintf(stderr, "usage: swallowed [elements], elements > 0 that fit into memory\n");
        free(weights), free(gradient);
        gradreg_context_destroy(context);
        return 2;
    }
    printf("%zu weights of spread %g, gradient as of %g parameters\n\n", n, spread,
           model_parameters);
    printf(
        "| weights          | ‖g‖   | ε        | RMS step | changed    | norm    | cosine  | "
        "projection |\n|---|---|---|---|---|---|---|---|\n");
    for (size_t i = 0; status == GRADREG_OK && i < sizeof(experiments) / sizeof(*experiments);
         i++) {
        gradreg_terms terms = GRADREG_TERMS_INIT;
        status = measure(context, &experiments[i], n, weights, gradient, &terms);
        if (status == GRADREG_OK)
            print_row(&experiments[i], &terms, n);
    }
    if (status != GRADREG_OK)
        fprintf(stderr, "%s\n", gradreg_last_error());
    gradreg_context_destroy(context);
    free(weights), free(gradient);
    return status == GRADREG_OK ? 0 : 1;
}
