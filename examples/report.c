/* report.c - what the library tells about a step, layer by layer.
 *
 * Trains a small network with the regularizer and directional noise, then prints gradreg_terms of
 * the last step: in total, and per layer. docs/concepts.md reads the report line by line.
 *
 *      report            weights in f32
 *      report bf16       weights in bf16 and f32 masters, as mixed precision keeps them
 *      report relative   the same, with a step of a size that bf16 can hold
 *      report compare    the totals of the three side by side
 *
 * The network maps a sequence x of POSITIONS x WIDTH numbers to one number. A layer is
 *      u = x + f(M x)              M mixes positions, where a transformer has attention
 *      x = u + f((u * n) V)        n scales channels, V mixes them
 * with f(z) = z / sqrt(1 + z^2). Only +, -, *, / and sqrt are used, which every machine rounds
 * alike, and the library's results do not depend on the machine: nor does this report. */
#include <gradreg.h>
#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LAYERS = 12, POSITIONS = 6, WIDTH = 12, BATCH = 8, STEPS = 150, EXAMPLES = 128 };
enum { MIX = POSITIONS * POSITIONS, GAIN = WIDTH, CHANNELS = WIDTH * WIDTH };
enum { PER_LAYER = MIX + GAIN + CHANNELS, COUNT = LAYERS * PER_LAYER + WIDTH };
enum { SEGMENTS = 3 * LAYERS + 1, STATE = POSITIONS * WIDTH };

static const double RATE = 0.05;

static void must(gradreg_status status)
{
    if (status == GRADREG_OK)
        return;
    fprintf(stderr, "%s: %s\n", gradreg_status_name(status), gradreg_last_error());
    exit(EXIT_FAILURE);
}

/* ------------------------------------------------------------------ the network */

/* Repeatable numbers in (-1, 1). */
static double scattered(uint64_t index)
{
    uint64_t x = (index + 1) * UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return (double)((x ^ x >> 31) >> 11) / 4503599627370496.0 - 1;
}

static double squashed(double z)
{
    return z / sqrt(1 + z * z);
}

/* f'(z), from f(z) */
static double squashed_slope(double f)
{
    const double rest = 1 - f * f;
    return rest * sqrt(rest);
}

/* What one layer's backward pass needs of its forward pass. */
typedef struct layer_state {
    double in[STATE], mixed[STATE], middle[STATE], out[STATE];
} layer_state;

static void layer_forward(layer_state *s, const double *in, const double *w)
{
    const double *mix = w, *gain = w + MIX, *channels = w + MIX + GAIN;
    memcpy(s->in, in, sizeof(s->in));
    for (int p = 0; p < POSITIONS; p++)
        for (int d = 0; d < WIDTH; d++) {
            double sum = 0;
            for (int q = 0; q < POSITIONS; q++)
                sum += mix[p * POSITIONS + q] * in[q * WIDTH + d];
            s->mixed[p * WIDTH + d] = squashed(sum);
            s->middle[p * WIDTH + d] = in[p * WIDTH + d] + s->mixed[p * WIDTH + d];
        }
    for (int p = 0; p < POSITIONS; p++)
        for (int d = 0; d < WIDTH; d++) {
            double sum = 0;
            for (int c = 0; c < WIDTH; c++)
                sum += s->middle[p * WIDTH + c] * gain[c] * channels[c * WIDTH + d];
            s->out[p * WIDTH + d] = squashed(sum);
        }
}

/* slope: of the loss by the layer's output, and afterwards by its input. */
static void layer_backward(double *grads, double *slope, const layer_state *s, const double *w)
{
    const double *mix = w, *gain = w + MIX, *channels = w + MIX + GAIN;
    double middle[STATE];
    memcpy(middle, slope, sizeof(middle));
    for (int p = 0; p < POSITIONS; p++)
        for (int d = 0; d < WIDTH; d++) {
            const double out = s->out[p * WIDTH + d];
            const double before = slope[p * WIDTH + d] * squashed_slope(out);
            for (int c = 0; c < WIDTH; c++) {
                const double x = s->middle[p * WIDTH + c], v = channels[c * WIDTH + d];
                grads[MIX + GAIN + c * WIDTH + d] += x * gain[c] * before;
                grads[MIX + c] += x * v * before;
                middle[p * WIDTH + c] += gain[c] * v * before;
            }
        }
    memcpy(slope, middle, sizeof(middle));
    for (int p = 0; p < POSITIONS; p++)
        for (int d = 0; d < WIDTH; d++) {
            const double out = s->mixed[p * WIDTH + d];
            const double before = middle[p * WIDTH + d] * squashed_slope(out);
            for (int q = 0; q < POSITIONS; q++) {
                grads[p * POSITIONS + q] += before * s->in[q * WIDTH + d];
                slope[q * WIDTH + d] += mix[p * POSITIONS + q] * before;
            }
        }
}

/* Adds the gradient of (y - target)^2 / 2 of one example; returns that loss. */
static double example_pass(double *grads, const double *w, size_t example)
{
    static layer_state layers[LAYERS];
    const double *readout = w + LAYERS * PER_LAYER;
    double x[STATE], slope[STATE], error;
    for (uint64_t i = 0; i < STATE; i++)
        x[i] = scattered(1000000 + example * STATE + i);
    error = -2 * x[0] * (1 - x[1] * x[WIDTH]);
    for (int l = 0; l < LAYERS; l++) {
        layer_forward(&layers[l], x, w + l * PER_LAYER);
        for (int i = 0; i < STATE; i++)
            x[i] = layers[l].middle[i] + layers[l].out[i];
    }
    for (int i = 0; i < STATE; i++)
        error += x[i] * readout[i % WIDTH] / POSITIONS;
    for (int i = 0; i < STATE; i++) {
        slope[i] = error * readout[i % WIDTH] / POSITIONS;
        grads[LAYERS * PER_LAYER + i % WIDTH] += error * x[i] / POSITIONS;
    }
    for (int l = LAYERS - 1; l >= 0; l--)
        layer_backward(grads + l * PER_LAYER, slope, &layers[l], w + l * PER_LAYER);
    return error * error / 2;
}

/* ------------------------------------------------------------------ the trainer */

typedef struct trainer {
    gradreg_type type;
    float master[COUNT]; /* what the optimizer keeps; the weights when they are f32 */
    uint16_t bf16[COUNT];
    float grads[COUNT];
} trainer;

static double weight_of(const trainer *t, size_t i)
{
    float value;
    if (t->type == GRADREG_TYPE_F32)
        return (double)t->master[i];
    const uint32_t bits = (uint32_t)t->bf16[i] << 16; /* bf16 is the upper half of an f32 */
    memcpy(&value, &bits, sizeof(value));
    return (double)value;
}

static void round_masters(trainer *t)
{
    for (size_t i = 0; i < COUNT; i++) {
        uint32_t bits;
        memcpy(&bits, &t->master[i], sizeof(bits));
        t->bf16[i] = (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
    }
}

/* grads = gradient of the mean loss over the batch of this step, at the weights as they are. */
static float backward(trainer *t, int step)
{
    double w[COUNT], grads[COUNT] = { 0 }, loss = 0;
    for (size_t i = 0; i < COUNT; i++)
        w[i] = weight_of(t, i);
    for (int e = 0; e < BATCH; e++)
        loss += example_pass(grads, w, (size_t)(step * BATCH + e) % EXAMPLES);
    for (size_t i = 0; i < COUNT; i++)
        t->grads[i] = (float)(grads[i] / BATCH);
    return (float)(loss / BATCH);
}

static void initialize(trainer *t)
{
    for (size_t i = 0; i < COUNT; i++) {
        const size_t in_layer = i % PER_LAYER;
        const bool gain = i < LAYERS * PER_LAYER && in_layer >= MIX && in_layer < MIX + GAIN;
        t->master[i] = gain ? 1.0f : (float)(0.4 * scattered(i));
    }
    round_masters(t);
}

static void optimizer_step(trainer *t)
{
    for (size_t i = 0; i < COUNT; i++)
        t->master[i] -= (float)RATE * t->grads[i];
    round_masters(t);
}

/* ------------------------------------------------------------------ the library's part */

/* [table] */
/* Returns where the next tensor begins. */
static uint64_t add_tensor(gradreg_segment *segment, const char *name, uint64_t offset,
                           uint64_t count)
{
    must(gradreg_segment_init(segment, sizeof(*segment)));
    must(gradreg_segment_classify(&segment->layer, &segment->role, name));
    segment->offset = offset;
    segment->count = count;
    return offset + count;
}
/* [end] */

static void describe(gradreg_segment *segments)
{
    static const char *const names[3] = { "attn", "norm", "mlp" };
    static const uint64_t counts[3] = { MIX, GAIN, CHANNELS };
    uint64_t offset = 0;
    for (int i = 0; i < 3 * LAYERS; i++) {
        char name[64];
        snprintf(name, sizeof(name), "layers.%d.%s.weight", i / 3, names[i % 3]);
        offset = add_tensor(&segments[i], name, offset, counts[i % 3]);
    }
    add_tensor(&segments[3 * LAYERS], "lm_head.weight", offset, WIDTH);
}

/* A two-hundredth of the weights, and a difference that is exact to second order at that length. */
static void step_further(gradreg_regularizer_params *params)
{
    /* [relative] */
    params->step = GRADREG_STEP_RELATIVE;
    params->epsilon = 0x1p-7;
    params->difference = GRADREG_DIFFERENCE_CENTRAL;
    /* [end] */
}

static gradreg_regularizer *open_regularizer(gradreg_context *context, gradreg_type type,
                                             bool relative)
{
    gradreg_segment segments[SEGMENTS];
    gradreg_regularizer *regularizer = NULL;
    describe(segments);
    /* [params] */
    gradreg_regularizer_params params = GRADREG_REGULARIZER_PARAMS_INIT;
    params.layer_count = LAYERS; /* and with it the schedule */
    params.param_type = type;
    params.strength = 0.02;
    params.noise.rule = GRADREG_NOISE_RELATIVE;
    /* [end] */
    if (relative)
        step_further(&params);
    must(gradreg_regularizer_create(&regularizer, context, segments, SEGMENTS, &params));
    return regularizer;
}

/* What every trainer does; returns the loss before the step. */
static float train_step(gradreg_regularizer *regularizer, trainer *t, int step)
{
    gradreg_buffers buffers = GRADREG_BUFFERS_INIT;
    int32_t passes;
    buffers.params = t->type == GRADREG_TYPE_F32 ? (void *)t->master : (void *)t->bf16;
    buffers.grads = t->grads;
    buffers.count = COUNT;
    /* [step] */
    must(gradreg_regularizer_inject_noise(regularizer, &buffers));
    const float first = backward(t, step); /* g1 */
    float second = 0;
    must(gradreg_regularizer_extra_passes(regularizer, &passes));
    if (passes > 0) {
        must(gradreg_regularizer_perturb(regularizer, &buffers));
        second = backward(t, step); /* g2: the same batch */
    }
    if (passes > 1) { /* CENTRAL: now from the other side */
        must(gradreg_regularizer_mirror(regularizer, &buffers));
        backward(t, step);
    }
    must(gradreg_regularizer_combine(regularizer, &buffers)); /* the weights are clean again */
    if (passes > 0)
        must(gradreg_regularizer_observe_losses(regularizer, &first, &second));
    optimizer_step(t);
    /* [end] */
    return first;
}

/* ------------------------------------------------------------------ the report */

typedef enum variant { F32, BF16, RELATIVE, VARIANTS } variant;

static const char *const variant_names[VARIANTS] = { "f32", "bf16", "relative" };

typedef struct report {
    double loss_before, loss_after;
    gradreg_terms total, layers[LAYERS];
} report;

/* The doubles of gradreg_terms, in the order that is frozen with it. */
static const char *const term_names[] = {
    "strength",          "effective_strength",
    "effective_epsilon", "penalty",
    "first_norm",        "second_norm",
    "clip_first",        "clip_second",
    "direction_norm",    "hvp_norm",
    "curvature",         "alignment",
    "correction_share",  "update_norm",
    "perturbation_norm", "applied_norm",
    "applied_cosine",    "changed_fraction",
    "difference_noise",  "stored_share",
    "noise_norm",        "noise_applied_cosine",
    "first_order_ratio",
};

/* A column per report. */
static void print_totals(const report *reports, int count)
{
    enum { TERMS = sizeof(term_names) / sizeof(*term_names) };
    double values[VARIANTS][TERMS];
    for (int r = 0; r < count; r++)
        memcpy(values[r], (const char *)&reports[r].total + offsetof(gradreg_terms, strength),
               sizeof(values[r]));
    for (int i = 0; i < TERMS; i++) {
        printf("%-20s", term_names[i]);
        for (int r = 0; r < count; r++)
            printf("  %10.4g", values[r][i]);
        printf("\n");
    }
    printf("%-20s", "step, flags");
    for (int r = 0; r < count; r++)
        printf("      %3u, %u", (unsigned)reports[r].total.step, reports[r].total.flags);
    printf("\n");
}

static void print_layers(const gradreg_terms *layers)
{
    printf("\nlayer  strength  first_norm  curvature  correction_share  applied_cosine  "
           "changed_fraction  noise_norm\n");
    for (int l = 0; l < LAYERS; l++)
        printf("%5d  %8.3g  %10.3g  %9.3g  %16.3g  %14.3g  %16.3g  %10.3g\n", l,
               layers[l].strength, layers[l].first_norm, layers[l].curvature,
               layers[l].correction_share, layers[l].applied_cosine, layers[l].changed_fraction,
               layers[l].noise_norm);
}

/* ------------------------------------------------------------------ the runs */

static report run(gradreg_context *context, variant v)
{
    static trainer t;
    report r = { 0 };
    t.type = v == F32 ? GRADREG_TYPE_F32 : GRADREG_TYPE_BF16;
    initialize(&t);
    gradreg_regularizer *regularizer = open_regularizer(context, t.type, v == RELATIVE);
    for (int step = 0; step < STEPS; step++) {
        const double loss = (double)train_step(regularizer, &t, step);
        if (step < EXAMPLES / BATCH)
            r.loss_before += loss * BATCH / EXAMPLES;
        if (step >= STEPS - EXAMPLES / BATCH)
            r.loss_after += loss * BATCH / EXAMPLES;
    }
    /* [terms] */
    gradreg_terms total = GRADREG_TERMS_INIT, layers[LAYERS] = { GRADREG_TERMS_INIT };
    must(gradreg_regularizer_terms(regularizer, &total, layers, LAYERS));
    /* [end] */
    r.total = total;
    memcpy(r.layers, layers, sizeof(layers));
    must(gradreg_regularizer_destroy(regularizer));
    return r;
}

/* The step reaches f32 weights, is lost in bf16, and one of a fitting size is not. */
static bool as_promised(const report *r, variant v)
{
    const bool arrived = r->total.applied_cosine > 0.95;
    return r->loss_after < 0.1 && r->total.step == STEPS && r->total.flags == 0 &&
           r->total.correction_share > 0 && arrived == (v != BF16);
}

static bool compare(gradreg_context *context)
{
    report reports[VARIANTS];
    bool good = true;
    printf("%-20s", "");
    for (int v = 0; v < VARIANTS; v++) {
        reports[v] = run(context, (variant)v);
        good = good && as_promised(&reports[v], (variant)v);
        printf("  %10s", variant_names[v]);
    }
    printf("\n%-20s", "loss at the end");
    for (int v = 0; v < VARIANTS; v++)
        printf("  %10.2g", reports[v].loss_after);
    printf("\n");
    print_totals(reports, VARIANTS);
    return good;
}

static bool show(gradreg_context *context, variant v)
{
    const report r = run(context, v);
    printf("%d weights in %s, %d steps: loss %.3f -> %.3f\n\n", (int)COUNT,
           v == F32 ? "f32" : "bf16", (int)STEPS, r.loss_before, r.loss_after);
    print_totals(&r, 1);
    print_layers(r.layers);
    return as_promised(&r, v);
}

int main(int count, char **arguments)
{
    const char *wanted = count > 1 ? arguments[1] : variant_names[F32];
    gradreg_context *context = NULL;
    int v = 0;
    while (v < VARIANTS && strcmp(wanted, variant_names[v]) != 0)
        v++;
    const bool all = strcmp(wanted, "compare") == 0;
    if (count > 2 || (v == VARIANTS && !all)) {
        fprintf(stderr, "usage: report [f32 | bf16 | relative | compare]\n");
        return EXIT_FAILURE;
    }
    must(gradreg_context_create(&context, NULL));
    const bool good = all ? compare(context) : show(context, (variant)v);
    must(gradreg_context_destroy(context));
    return good ? EXIT_SUCCESS : EXIT_FAILURE;
}
