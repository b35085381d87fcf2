/* How firmly does each layer hold an answer? A causal trace of a toy network of two layers: noise on
 * the hidden state that leaves a layer, the rest of the forward pass, the target's probability. The
 * network is anybody's; the four calls of the probe in trace() are the same for a real one. */
#include <gradreg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { LAYERS = 2, WIDTH = 16, VOCABULARY = 6, TRIALS = 30 };

/* ---- a network -------------------------------------------------------------------- */

static float weights[LAYERS][WIDTH][WIDTH], head[VOCABULARY][WIDTH], prompt[WIDTH];

static float next_weight(void)
{
    static uint32_t state = 7;
    state = state * 1664525u + 1013904223u;
    return (float)(state >> 8) / 8388608.0f - 1.0f;
}

static void fill(float *weight, size_t count, float scale)
{
    for (size_t i = 0; i < count; i++)
        weight[i] = scale * next_weight();
}

/* h + f(W h): what a block with a residual stream does. */
static void layer_forward(float h[WIDTH], int layer)
{
    float out[WIDTH];
    for (int i = 0; i < WIDTH; i++) {
        float sum = 0;
        for (int k = 0; k < WIDTH; k++)
            sum += weights[layer][i][k] * h[k];
        out[i] = h[i] + sum / (1 + (sum < 0 ? -sum : sum));
    }
    memcpy(h, out, sizeof(out));
}

static void head_forward(float logits[VOCABULARY], const float h[WIDTH])
{
    for (int v = 0; v < VOCABULARY; v++) {
        logits[v] = 0;
        for (int k = 0; k < WIDTH; k++)
            logits[v] += head[v][k] * h[k];
    }
}

/* ---- the trace -------------------------------------------------------------------- */

/* Thirty copies of the hidden state that leaves `layer`, each with a trial's noise, through the rest.
 * A real model would do this as one batch from the saved keys and values of the prompt. */
static int trace_layer(gradreg_probe *probe, const float clean[WIDTH], int32_t layer,
                       int32_t target)
{
    float hidden[TRIALS][WIDTH], logits[TRIALS][VOCABULARY];
    for (int trial = 0; trial < TRIALS; trial++)
        memcpy(hidden[trial], clean, sizeof(hidden[trial]));
    if (gradreg_probe_inject(probe, hidden, GRADREG_TYPE_F32, TRIALS, WIDTH, WIDTH, layer, 0))
        return 1;
    for (int trial = 0; trial < TRIALS; trial++) {
        for (int above = layer + 1; above < LAYERS; above++)
            layer_forward(hidden[trial], above);
        head_forward(logits[trial], hidden[trial]);
    }
    return gradreg_probe_observe(probe, logits, GRADREG_TYPE_F32, TRIALS, VOCABULARY,
                                 VOCABULARY, target, layer, 0) != GRADREG_OK;
}

static int trace(gradreg_probe *probe, gradreg_probe_layer rows[LAYERS])
{
    float h[WIDTH], leaving[LAYERS][WIDTH], logits[VOCABULARY];
    int32_t target = 0;
    memcpy(h, prompt, sizeof(h));
    for (int layer = 0; layer < LAYERS; layer++) {
        layer_forward(h, layer);
        memcpy(leaving[layer], h, sizeof(h));
    }
    head_forward(logits, h);
    for (int32_t v = 1; v < VOCABULARY; v++) /* the answer that is traced: the network's own */
        target = logits[v] > logits[target] ? v : target;
    if (gradreg_probe_observe(probe, logits, GRADREG_TYPE_F32, 1, VOCABULARY, VOCABULARY,
                              target, GRADREG_LAYER_NONE, 0))
        return 1;
    for (int32_t layer = 0; layer < LAYERS; layer++)
        if (trace_layer(probe, leaving[layer], layer, target))
            return 1;
    rows[0].struct_size = sizeof(rows[0]);
    return gradreg_probe_summary(probe, rows, LAYERS) != GRADREG_OK;
}

/* ---- the picture ------------------------------------------------------------------ */

/* Probabilities 0 to 1 as 40 columns: min to max as dots, mean +- std as dashes, o the mean, | clean. */
static void print_band(const gradreg_probe_layer *row)
{
    char band[42];
    for (int i = 0; i <= 40; i++) {
        const double p = i / 40.0;
        const double off = p < row->mean ? row->mean - p : p - row->mean;
        band[i] = p >= row->min && p <= row->max ? '.' : ' ';
        band[i] = off <= row->std ? '-' : band[i];
    }
    band[(int)(40 * row->mean + 0.5)] = 'o';
    band[(int)(40 * row->baseline + 0.5)] = '|';
    band[41] = '\0';
    printf("%5d %7.3f %7.3f %7.3f %7.3f   %s\n", row->layer, row->mean, row->std, row->min,
           row->max, band);
}

int main(void)
{
    gradreg_context *context = NULL;
    gradreg_probe *probe = NULL;
    gradreg_probe_layer rows[LAYERS];
    gradreg_probe_params params = GRADREG_PROBE_PARAMS_INIT;
    params.layer_count = LAYERS;
    params.trials = TRIALS;
    params.seed = 1; /* models that are compared take the same */

    fill(&weights[0][0][0], sizeof(weights) / sizeof(float), 0.8f);
    fill(&head[0][0], sizeof(head) / sizeof(float), 0.5f);
    fill(prompt, WIDTH, 1.0f);
    if (gradreg_context_create(&context, NULL) ||
        gradreg_probe_create(&probe, context, &params) || trace(probe, rows))
        return fprintf(stderr, "%s\n", gradreg_last_error()), 1;
    printf("clean probability %.3f\nlayer    mean     std     min     max   0%38s1\n",
           rows[0].baseline, "");
    for (int layer = 0; layer < LAYERS; layer++)
        print_band(&rows[layer]);
    gradreg_probe_destroy(probe);
    gradreg_context_destroy(context);
    return 0;
}
