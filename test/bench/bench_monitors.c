/* bench_monitors.c - what the probe and the monitors cost, in nanoseconds per element.
 *
 * In: bench_monitors [ROWS WIDTH VOCABULARY [REPETITIONS]], 30 x 2560 and 30 x 151936 without. Out, on
 * stdout: a table for one and for all threads, best of the repetitions. Ends with 1 when two thread
 * counts disagree in a bit. */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../numbers.h"
#include "gradreg.h"
#include "measure.h"

typedef struct inputs {
    size_t rows, width, vocabulary, tokens;
    float *hidden, *moved, *logits, *others, *out;
    int32_t *sequence;
    gradreg_context *context;
    gradreg_probe *probe;
    uint64_t result; /* a digest of what was computed */
} inputs;

static float *numbers(size_t count, uint64_t *state, double low, double high)
{
    float *x = allocate(count * sizeof(float));
    for (size_t i = 0; i < count; i++)
        x[i] = (float)(low + (high - low) * next_unit(state));
    return x;
}

static inputs open_inputs(size_t rows, size_t width, size_t vocabulary)
{
    inputs in = { .rows = rows, .width = width, .vocabulary = vocabulary };
    uint64_t state = 1;
    in.tokens = rows * vocabulary / 8 + 2;
    in.hidden = numbers(rows * width, &state, -2.0, 2.0);
    in.moved = allocate(rows * width * sizeof(float));
    in.logits = numbers(rows * vocabulary, &state, 0.0, 20.0);
    in.others = numbers(rows * vocabulary, &state, 0.0, 20.0);
    in.out = allocate(rows * sizeof(float));
    in.sequence = allocate(in.tokens * sizeof(int32_t));
    for (size_t i = 0; i < in.tokens; i++)
        in.sequence[i] = (int32_t)(next_word(&state) % 5000);
    return in;
}

/* ---- what is measured -------------------------------------------------------------- */

static void note(inputs *in, const void *figures, size_t bytes)
{
    const unsigned char *at = figures;
    for (size_t i = 0; i < bytes; i++)
        in->result = digest(in->result, at[i]);
}

static void inject(inputs *in)
{
    memcpy(in->moved, in->hidden, in->rows * in->width * sizeof(float));
    require(gradreg_probe_inject(in->probe, in->moved, GRADREG_TYPE_F32, in->rows, in->width, 0,
                                 0, 0));
    note(in, in->moved, 64);
}

static void observe(inputs *in)
{
    gradreg_probe_layer row = GRADREG_PROBE_LAYER_INIT;
    require(gradreg_probe_reset(in->probe));
    require(gradreg_probe_observe(in->probe, in->logits, GRADREG_TYPE_F32, in->rows,
                                  in->vocabulary, 0, 0, 0, 0));
    require(gradreg_probe_summary(in->probe, &row, 1));
    note(in, &row.mean, sizeof(row.mean));
}

static void diverge(inputs *in)
{
    require(gradreg_js_divergence(in->context, in->out, in->logits, in->others, in->rows,
                                  in->vocabulary));
    note(in, in->out, in->rows * sizeof(float));
}

static void distance(inputs *in)
{
    gradreg_segment segment = GRADREG_SEGMENT_INIT;
    double norm;
    segment.count = in->rows * in->vocabulary;
    require(gradreg_weight_delta(in->context, &norm, in->logits, in->others, GRADREG_TYPE_F32,
                                 &segment, 1));
    note(in, &norm, sizeof(norm));
}

static void trigrams(inputs *in)
{
    double share;
    require(gradreg_distinct_ngrams(&share, in->sequence, in->tokens, 3));
    note(in, &share, sizeof(share));
}

typedef struct row {
    const char *name;
    void (*run)(inputs *in);
    int elements; /* 0 hidden, 1 logits, 2 tokens */
} row;

static const row rows[] = { { "inject", inject, 0 },
                            { "observe", observe, 1 },
                            { "divergence", diverge, 1 },
                            { "weight delta", distance, 1 },
                            { "distinct trigrams", trigrams, 2 } };

static double best(inputs *in, const row *r, int repetitions)
{
    const size_t counts[] = { in->rows * in->width, in->rows * in->vocabulary, in->tokens };
    double least = 1e300;
    for (int i = 0; i < repetitions; i++) {
        const double start = nanoseconds();
        in->result = DIGEST_START;
        r->run(in);
        const double took = nanoseconds() - start;
        least = took < least ? took : least;
    }
    return least / (double)counts[r->elements];
}

static double measure(inputs *in, const row *r, int32_t threads, int repetitions)
{
    gradreg_context_params how = GRADREG_CONTEXT_PARAMS_INIT;
    gradreg_probe_params params = GRADREG_PROBE_PARAMS_INIT;
    how.threads = threads;
    params.layer_count = 1;
    params.trials = (int32_t)in->rows;
    require(gradreg_context_create(&in->context, &how));
    require(gradreg_probe_create(&in->probe, in->context, &params));
    const double took = best(in, r, repetitions);
    require(gradreg_probe_destroy(in->probe));
    require(gradreg_context_destroy(in->context));
    return took;
}

int main(int argc, char **argv)
{
    const size_t row_count = argc > 3 ? strtoul(argv[1], NULL, 10) : 30;
    const size_t width = argc > 3 ? strtoul(argv[2], NULL, 10) : 2560;
    const size_t vocabulary = argc > 3 ? strtoul(argv[3], NULL, 10) : 151936;
    const int repetitions = argc > 4 ? atoi(argv[4]) : 5;
    inputs in = open_inputs(row_count, width, vocabulary);
    int failed = 0;
    printf("%-20s %12s %12s   ns per element\n", "", "one thread", "all threads");
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const double one = measure(&in, &rows[i], 1, repetitions);
        const uint64_t result = in.result;
        const double all = measure(&in, &rows[i], 0, repetitions);
        printf("%-20s %12.2f %12.2f\n", rows[i].name, one, all);
        failed |= in.result != result;
    }
    if (failed)
        fprintf(stderr, "two thread counts disagree\n");
    free(in.hidden);
    free(in.moved);
    free(in.logits);
    free(in.others);
    free(in.out);
    free(in.sequence);
    return failed;
}
