/* check_epsilon.c - which epsilon suits this model? Two errors bound it:
 *
 *      from below   rounding: a step smaller than the spacing of the stored weights is not taken.
 *                   gradreg_regularizer_suggest_epsilon() gives the smallest one that is.
 *      from above   truncation: (g(theta + epsilon g) - g(theta)) / epsilon is H g only in the
 *                   limit. Compare it with the same at 2 epsilon: they must agree.
 *
 * The model is a small network y = v tanh(W x) with weights stored once as f32 and once as bf16.
 * Its gradient is computed in double, so the true H g is known too and the last column can say how
 * far off the library's is. A trainer has no such column: the others must do. */
#include <gradreg.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { INPUTS = 16, HIDDEN = 32, EXAMPLES = 64, MATRIX = HIDDEN * INPUTS };
enum { COUNT = MATRIX + HIDDEN }; /* W row by row, then v */

static const double TARGET_COSINE = 0.99;    /* between the intended and the applied step */
static const double TOLERATED_CHANGE = 0.05; /* of H g between epsilon and 2 epsilon */
static const double GIVE_UP_CHANGE = 0.5;    /* further up it only gets worse */

/* The same weights as each storage type knows them; params points to one of the two. */
struct model {
    gradreg_type type;
    float f32[COUNT];
    uint16_t bf16[COUNT];
    float grads[COUNT];
};

static void must(gradreg_status status)
{
    if (status == GRADREG_OK)
        return;
    fprintf(stderr, "%s: %s\n", gradreg_status_name(status), gradreg_last_error());
    exit(EXIT_FAILURE);
}

/* ------------------------------------------------------------------ the model */

/* bf16 is the upper half of an f32. */
static float widened(uint16_t value)
{
    const uint32_t bits = (uint32_t)value << 16;
    float result;
    memcpy(&result, &bits, sizeof(result));
    return result;
}

static uint16_t shortened(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    return (uint16_t)(bits >> 16);
}

/* Repeatable numbers in (-1, 1), good enough for weights and data. */
static double scattered(size_t index)
{
    const double value = sin(12.9898 * (double)(index + 1)) * 43758.5453;
    return 2.0 * (value - floor(value)) - 1.0;
}

static double target(const double *input)
{
    return sin(2.0 * input[0]) + input[1] * input[2];
}

/* grads = gradient of the mean of (y - target)^2 / 2 */
static void gradient(double *grads, const double *weights)
{
    memset(grads, 0, COUNT * sizeof(*grads));
    for (size_t e = 0; e < EXAMPLES; e++) {
        double input[INPUTS], hidden[HIDDEN], error;
        for (size_t i = 0; i < INPUTS; i++)
            input[i] = scattered(COUNT + e * INPUTS + i);
        error = -target(input);
        for (size_t h = 0; h < HIDDEN; h++) {
            double sum = 0.0;
            for (size_t i = 0; i < INPUTS; i++)
                sum += weights[h * INPUTS + i] * input[i];
            hidden[h] = tanh(sum);
            error += weights[MATRIX + h] * hidden[h];
        }
        error /= EXAMPLES;
        for (size_t h = 0; h < HIDDEN; h++) {
            const double slope = error * weights[MATRIX + h] * (1.0 - hidden[h] * hidden[h]);
            grads[MATRIX + h] += error * hidden[h];
            for (size_t i = 0; i < INPUTS; i++)
                grads[h * INPUTS + i] += slope * input[i];
        }
    }
}

static void read_weights(double *weights, const struct model *model)
{
    for (size_t i = 0; i < COUNT; i++)
        weights[i] = model->type == GRADREG_TYPE_F32 ? (double)model->f32[i]
                                                     : (double)widened(model->bf16[i]);
}

static void backward(struct model *model)
{
    double weights[COUNT], grads[COUNT];
    read_weights(weights, model);
    gradient(grads, weights);
    for (size_t i = 0; i < COUNT; i++)
        model->grads[i] = (float)grads[i];
}

/* H g by central differences in double. */
static void true_product(double *product, const struct model *model)
{
    const double h = 1e-5;
    double weights[COUNT], moved[COUNT], grads[COUNT], side[COUNT];

    read_weights(weights, model);
    gradient(grads, weights);
    memset(product, 0, COUNT * sizeof(*product));
    for (int sign = 1; sign >= -1; sign -= 2) {
        for (size_t i = 0; i < COUNT; i++)
            moved[i] = weights[i] + sign * h * grads[i];
        gradient(side, moved);
        for (size_t i = 0; i < COUNT; i++)
            product[i] += sign * side[i] / (2.0 * h);
    }
}

static void initialize(struct model *model, gradreg_type type)
{
    model->type = type;
    for (size_t i = 0; i < COUNT; i++) {
        model->bf16[i] = shortened((float)(0.4 * scattered(i)));
        model->f32[i] = widened(model->bf16[i]);
    }
}

/* ------------------------------------------------------------------ the library's part */

static gradreg_regularizer *open_product(gradreg_context *context, gradreg_type type)
{
    gradreg_segment segments[2] = { GRADREG_SEGMENT_INIT, GRADREG_SEGMENT_INIT };
    gradreg_regularizer_params params = GRADREG_REGULARIZER_PARAMS_INIT;
    gradreg_regularizer *regularizer = NULL;

    segments[0].count = MATRIX;
    segments[1].offset = MATRIX;
    segments[1].count = HIDDEN;
    for (int32_t layer = 0; layer < 2; layer++) {
        segments[layer].layer = layer;
        segments[layer].role = GRADREG_ROLE_MLP;
    }
    params.layer_count = 2;
    params.param_type = type;
    params.output = GRADREG_OUTPUT_PRODUCT;
    must(gradreg_regularizer_create(&regularizer, context, segments, 2, &params));
    return regularizer;
}

static gradreg_buffers buffers_of(struct model *model)
{
    gradreg_buffers buffers = GRADREG_BUFFERS_INIT;
    buffers.params = model->type == GRADREG_TYPE_F32 ? (void *)model->f32 : (void *)model->bf16;
    buffers.grads = model->grads;
    buffers.count = COUNT;
    return buffers;
}

/* product = H g as the library sees it with this epsilon. */
static gradreg_terms library_product(float *product, gradreg_regularizer *regularizer,
                                     struct model *model, double epsilon)
{
    gradreg_buffers buffers = buffers_of(model);
    gradreg_terms terms = GRADREG_TERMS_INIT;

    must(gradreg_regularizer_set_epsilon(regularizer, epsilon));
    backward(model);
    must(gradreg_regularizer_perturb(regularizer, &buffers));
    backward(model);
    must(gradreg_regularizer_combine(regularizer, &buffers));
    must(gradreg_regularizer_terms(regularizer, &terms, NULL, 0));
    memcpy(product, model->grads, sizeof(model->grads));
    return terms;
}

static double smallest_epsilon(gradreg_regularizer *regularizer, struct model *model)
{
    gradreg_buffers buffers = buffers_of(model);
    double epsilon;
    backward(model);
    must(gradreg_regularizer_suggest_epsilon(regularizer, &epsilon, &buffers, TARGET_COSINE));
    return epsilon;
}

/* ------------------------------------------------------------------ the comparison */

/* ||a - b|| / ||b|| */
static double relative_change(const float *a, const float *b)
{
    double change = 0.0, size = 0.0;
    for (size_t i = 0; i < COUNT; i++) {
        change += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        size += (double)b[i] * (double)b[i];
    }
    return sqrt(change / size);
}

static double true_error(const float *product, const struct model *model)
{
    double want[COUNT];
    float rounded[COUNT];
    true_product(want, model);
    for (size_t i = 0; i < COUNT; i++)
        rounded[i] = (float)want[i];
    return relative_change(product, rounded);
}

static double percent(double share)
{
    return 100.0 * share;
}

/* Returns the true error at the advised epsilon; infinity where there is none to advise. */
static double advise(gradreg_context *context, gradreg_type type, const char *name)
{
    static struct model model;
    float product[COUNT], doubled[COUNT];
    double best = 0.0, best_change = INFINITY, best_error = INFINITY, change = 0.0;

    initialize(&model, type);
    gradreg_regularizer *regularizer = open_product(context, type);
    const double lowest = smallest_epsilon(regularizer, &model);
    printf("weights in %s: the step is really taken from epsilon = %.2g on\n", name, lowest);
    printf("  %10s %15s %20s %18s\n", "epsilon", "applied cosine", "change at 2 epsilon",
           "(error of H g)");
    for (int row = -2; isfinite(lowest) && row < 16 && change < GIVE_UP_CHANGE; row++) {
        const double epsilon = ldexp(lowest, 2 * row);
        const gradreg_terms terms = library_product(product, regularizer, &model, epsilon);
        library_product(doubled, regularizer, &model, 2.0 * epsilon);
        change = relative_change(doubled, product);
        const double error = true_error(product, &model);
        printf("  %10.2g %15.4f %18.2f %% %16.2f %%%s\n", epsilon, terms.applied_cosine,
               percent(change), percent(error), epsilon < lowest ? "   rounded away" : "");
        if (epsilon < lowest)
            change = 0.0; /* rounding, which a larger epsilon cures */
        else if (change < best_change)
            best = epsilon, best_change = change, best_error = error;
    }
    must(gradreg_regularizer_destroy(regularizer));

    if (best_change > TOLERATED_CHANGE) {
        puts("  advice: what is large enough to be taken is too large to be exact; keep f32\n"
             "  weights, or take central differences and look again\n");
        return INFINITY;
    }
    printf("  advice: epsilon = %.2g, where truncation moves H g by %.2f %%\n\n", best,
           percent(best_change));
    return best_error;
}

int main(void)
{
    gradreg_context *context = NULL;
    must(gradreg_context_create(&context, NULL));
    const double f32_error = advise(context, GRADREG_TYPE_F32, "f32");
    const double bf16_error = advise(context, GRADREG_TYPE_BF16, "bf16");
    must(gradreg_context_destroy(context));

    /* Advice is good if H g then is: this model leaves room for it in both types. */
    if (f32_error <= TOLERATED_CHANGE && bf16_error <= TOLERATED_CHANGE)
        return EXIT_SUCCESS;
    printf("FAILED: with the advised epsilon H g is off by %.1f %% and %.1f %%\n",
           percent(f32_error), percent(bf16_error));
    return EXIT_FAILURE;
}
