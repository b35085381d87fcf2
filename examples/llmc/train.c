/* train.c - a trainer of the llm.c kind, regularized. The network (gpt.c) knows nothing of it: it has
 * one array of parameters and one of gradients, into which its backward pass adds.
 *
 *      llmc [STEPS]      train on sums made up here, print the loss and what the library reports
 *      llmc --selftest   is the backward pass the derivative of the loss?
 *
 * Lines that regularization added end in "gradreg". */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gpt.h"
#include "gradreg.h" /* gradreg */

enum { CONTEXT = 24, BATCH = 8, LAYERS = 4, HEADS = 4, CHANNELS = 24, VOCABULARY = 14 };
enum { SEGMENTS = 4 + 12 * LAYERS };

static void demand(int holds, const char *else_say)
{
    if (!holds) {
        fprintf(stderr, "llmc: %s\n", else_say);
        exit(EXIT_FAILURE);
    }
}

static void must(gradreg_status status) /* gradreg */
{
    if (status != GRADREG_OK)
        demand(0, gradreg_last_error());
}

/* ---- the text: "27+15=42\n" and so on, as numbers of characters -------------------------- */

static void make_text(int *tokens, int *targets, unsigned *random)
{
    static const char alphabet[VOCABULARY] = "0123456789+=\n ";
    char line[32];
    for (int row = 0; row < BATCH; row++) {
        int text[CONTEXT + 1], n = 0;
        while (n <= CONTEXT) {
            *random = *random * 1664525u + 1013904223u;
            const int a = (int)(*random >> 16) % 50, b = (int)(*random >> 24) % 50;
            snprintf(line, sizeof(line), "%d+%d=%d\n", a, b, a + b);
            for (const char *c = line; *c != 0 && n <= CONTEXT; c++)
                text[n++] = (int)((const char *)memchr(alphabet, *c, VOCABULARY) - alphabet);
        }
        memcpy(tokens + row * CONTEXT, text, sizeof(int) * CONTEXT);
        memcpy(targets + row * CONTEXT, text + 1, sizeof(int) * CONTEXT);
    }
}

/* ---- the optimizer: AdamW ---------------------------------------------------------------- */

static void adamw(gpt *m, float *first, float *second, int step)
{
    const float rate = 3e-3f, b1 = 0.9f, b2 = 0.95f;
    for (size_t i = 0; i < m->count; i++) {
        first[i] = b1 * first[i] + (1 - b1) * m->grads[i];
        second[i] = b2 * second[i] + (1 - b2) * m->grads[i] * m->grads[i];
        const float mean = first[i] / (1 - powf(b1, (float)step));
        const float square = second[i] / (1 - powf(b2, (float)step));
        m->params[i] -= rate * mean / (sqrtf(square) + 1e-8f);
    }
}

/* ---- the table: sixteen tensors, those of the blocks cut into layers ---------------------- */

/* [table] */
static size_t make_table(gradreg_segment *segments, const gpt *m)
{
    size_t n = 0;
    for (int t = 0; t < GPT_TENSORS; t++) {
        gradreg_segment whole = GRADREG_SEGMENT_INIT;
        must(gradreg_segment_classify(&whole.layer, &whole.role, gpt_tensor_names[t]));
        const size_t pieces = whole.layer == GRADREG_LAYER_STACKED ? m->config.layers : 1;
        for (size_t l = 0; l < pieces; l++, n++) {
            segments[n] = whole;
            segments[n].layer = pieces > 1 ? (int32_t)l : whole.layer;
            segments[n].count = m->size[t] / pieces;
            segments[n].offset = m->offset[t] + l * segments[n].count;
        }
    }
    return n;
}
/* [end] */

static void print_terms(gradreg_regularizer *regularizer, int step, float loss)
{
    gradreg_terms total = GRADREG_TERMS_INIT, layers[LAYERS];
    for (int l = 0; l < LAYERS; l++)
        gradreg_terms_init(&layers[l], sizeof(layers[l]));
    must(gradreg_regularizer_terms(regularizer, &total, layers, LAYERS));
    printf("%4d  %.4f  %6.3f  %9.2f  %9.4f  %9.5f   ", step, (double)loss, total.first_norm,
           total.curvature, total.correction_share, total.applied_cosine);
    for (int l = 0; l < LAYERS; l++)
        printf(" %.4f", layers[l].correction_share);
    printf("\n");
    demand(total.applied_cosine > 0.9, "the step did not reach the weights");
}

static float *zeros(size_t count)
{
    float *out = calloc(count, sizeof(float));
    demand(out != NULL, "out of memory");
    return out;
}

/* ---- training ----------------------------------------------------------------------------- */

static int train(int steps)
{
    int tokens[BATCH * CONTEXT], targets[BATCH * CONTEXT];
    unsigned random = 1;
    gpt m;
    demand(gpt_create(&m, (gpt_config){ CONTEXT, VOCABULARY, LAYERS, HEADS, CHANNELS }, BATCH,
                      CONTEXT, 1) == 0,
           "out of memory");
    float *first_moment = zeros(m.count), *second_moment = zeros(m.count);

    /* [setup] */
    gradreg_segment segments[SEGMENTS];                                          /* gradreg */
    gradreg_regularizer_params params = GRADREG_REGULARIZER_PARAMS_INIT;         /* gradreg */
    params.layer_count = LAYERS;                                                 /* gradreg */
    params.second_gradient = GRADREG_SECOND_GRADIENT_ADDS;                       /* gradreg */
    gradreg_buffers buffers = GRADREG_BUFFERS_INIT;                              /* gradreg */
    buffers.params = m.params, buffers.grads = m.grads, buffers.count = m.count; /* gradreg */
    gradreg_context *context = NULL;                                             /* gradreg */
    gradreg_regularizer *regularizer = NULL;                                     /* gradreg */
    must(gradreg_context_create(&context, NULL));                                /* gradreg */
    must(gradreg_regularizer_create(&regularizer, context, segments,             /* gradreg */
                                    make_table(segments, &m), &params));         /* gradreg */
    /* [end] */

    float loss = 0, before = 0;
    printf("step  loss      |g|  curvature  corr/|g|  step kept    corr/|g| per layer\n");
    for (int step = 1; step <= steps; step++) {
        make_text(tokens, targets, &random);
        /* [step] */
        memset(m.grads, 0, m.count * sizeof(float));
        loss = gpt_forward(&m, tokens, targets);
        gpt_backward(&m);
        must(gradreg_regularizer_perturb(regularizer, &buffers)); /* gradreg */
        gpt_forward(&m, tokens, targets);                         /* gradreg */
        gpt_backward(&m);                                         /* gradreg */
        must(gradreg_regularizer_combine(regularizer, &buffers)); /* gradreg */
        adamw(&m, first_moment, second_moment, step);
        /* [end] */
        if (step == 1)
            before = loss;
        if (step == 1 || step % 10 == 0)
            print_terms(regularizer, step, loss);
    }
    gradreg_regularizer_destroy(regularizer); /* gradreg */
    gradreg_context_destroy(context);         /* gradreg */
    free(first_moment);
    free(second_moment);
    gpt_destroy(&m);
    demand(steps < 30 || loss < 0.8f * before, "the loss did not fall by a fifth");
    return 0;
}

/* ---- is the backward pass right? ---------------------------------------------------------- */

/* Along a direction v per tensor: <grad, v> against (L(w + h v) - L(w - h v)) / 2 h. */
static int selftest(void)
{
    int tokens[BATCH * CONTEXT], targets[BATCH * CONTEXT];
    unsigned random = 5;
    float worst = 0;
    gpt m;
    demand(gpt_create(&m, (gpt_config){ CONTEXT, VOCABULARY, 2, HEADS, CHANNELS }, BATCH,
                      CONTEXT, 9) == 0,
           "out of memory");
    float *clean = zeros(m.count);
    make_text(tokens, targets, &random);
    memcpy(clean, m.params, m.count * sizeof(float));
    gpt_forward(&m, tokens, targets);
    gpt_backward(&m);
    for (int t = 0; t < GPT_TENSORS; t++) {
        /* Along the gradient itself, so that the difference is well above the loss's rounding. */
        const float *g = m.grads + m.offset[t];
        float *w = m.params + m.offset[t], length = 0, loss[2];
        for (size_t i = 0; i < m.size[t]; i++)
            length += g[i] * g[i];
        length = sqrtf(length);
        for (int side = 0; side < 2; side++) {
            const float h = side == 0 ? 0.02f : -0.02f;
            for (size_t i = 0; i < m.size[t]; i++)
                w[i] = clean[m.offset[t] + i] + h * g[i] / length;
            loss[side] = gpt_forward(&m, tokens, targets);
        }
        memcpy(w, clean + m.offset[t], m.size[t] * sizeof(float));
        const float error = fabsf((loss[0] - loss[1]) / 0.04f - length) / (length + 1e-3f);
        printf("%-9s |g| %.5f, by differences of the loss %.5f\n", gpt_tensor_names[t],
               (double)length, (double)((loss[0] - loss[1]) / 0.04f));
        worst = fmaxf(worst, error);
    }
    free(clean);
    gpt_destroy(&m);
    printf("largest relative difference %.4f\n", (double)worst);
    return !(worst < 0.02f);
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "--selftest") == 0)
        return selftest();
    const int steps = argc > 1 ? atoi(argv[1]) : 60;
    demand(argc <= 2 && steps >= 1, "usage: llmc [STEPS | --selftest]");
    return train(steps);
}
