/* bench_logits.c - log-probs from logits and from hidden states, timed beside a copy and bare products.
 *
 *   bench_logits --rows N --vocabulary N [--type f32|bf16] [--threads N] [--repetitions N] [--width N]
 *
 * In: sizes. Out: lines of words between tabs, read by logits.py: facts, and milliseconds of every
 * repetition. Each repetition runs everything once, so that a slow moment slows all of it. Without
 * --width: forward, backward in place, and the fused call in place, next to a copy of the matrix. With
 * it: the calls over hidden states, next to the products alone. Ends with 1 when the fused call and the
 * separate ones disagree in a bit. */
#define _POSIX_C_SOURCE 200809L
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if GR_TEST_BLAS
#include <cblas.h>
#endif

#include "../numbers.h"
#include "bandwidth.h"
#include "context.h"
#include "gradreg.h"
#include "measure.h"
#include "threads.h"

enum { MOST = 64, OPS = 8 };

typedef struct options {
    size_t rows, vocabulary, width;
    gradreg_type type;
    int32_t threads;
    int repetitions;
} options;

typedef struct timings {
    const char *name[OPS];
    double ms[OPS][MOST];
    int count;
} timings;

static void *allocate_lines(size_t bytes)
{
    void *memory = aligned_alloc(64, (bytes + 4096) / 64 * 64);
    if (memory == NULL)
        exit(2);
    memset(memory, 0, bytes);
    return memory;
}

static void note(timings *t, const char *name, int repetition, double ms)
{
    int i = 0;
    while (i < t->count && strcmp(t->name[i], name) != 0)
        i++;
    t->count += i == t->count;
    t->name[i] = name;
    if (repetition >= 0) /* the first warms up */
        t->ms[i][repetition] = ms;
}

static void print(const timings *t, int repetitions)
{
    for (int i = 0; i < t->count; i++) {
        printf("ms\t%s", t->name[i]);
        for (int k = 0; k < repetitions; k++)
            printf("\t%.4f", t->ms[i][k]);
        printf("\n");
    }
}

/* ---- a matrix of logits ---------------------------------------------------------- */

typedef struct matrix {
    options o;
    size_t bytes;
    void *logits, *work, *other;
    int32_t *targets;
    float *logp, *entropy, *log_sum_exp, *dlogp, *dentropy, *advantages;
    gradreg_policy policy;
    gradreg_policy_batch batch;
    gradreg_logits_params params;
} matrix;

/* What a language model gives, roughly: a spread of logits, a few far above the rest. */
static float logit(uint64_t *state)
{
    const uint64_t word = next_word(state);
    const double u = (double)(word >> 11) * 0x1p-53;
    return (float)(8.0 * (u - 0.5) + ((word & 0xfff) == 0 ? 9.0 : 0.0));
}

static void set_typed(void *array, gradreg_type type, size_t i, float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof(bits));
    if (type == GRADREG_TYPE_F32)
        ((float *)array)[i] = x;
    else
        ((uint16_t *)array)[i] = (uint16_t)(bits >> 16);
}

static matrix open_matrix(const options *o)
{
    const gradreg_policy policy = GRADREG_POLICY_INIT;
    const gradreg_policy_batch batch = GRADREG_POLICY_BATCH_INIT;
    const gradreg_logits_params params = GRADREG_LOGITS_PARAMS_INIT;
    const size_t n = o->rows * o->vocabulary, floats = o->rows * sizeof(float);
    matrix m = { *o,     n * (o->type == GRADREG_TYPE_F32 ? 4 : 2),
                 0,      0,
                 0,      0,
                 0,      0,
                 0,      0,
                 0,      0,
                 policy, batch,
                 params };
    uint64_t state = 1;
    m.logits = allocate_lines(m.bytes), m.work = allocate_lines(m.bytes),
    m.other = allocate_lines(m.bytes);
    m.targets = allocate_lines(floats), m.logp = allocate_lines(floats),
    m.entropy = allocate_lines(floats);
    m.log_sum_exp = allocate_lines(floats), m.dlogp = allocate_lines(floats),
    m.dentropy = allocate_lines(floats);
    m.advantages = allocate_lines(floats);
    for (size_t i = 0; i < n; i++)
        set_typed(m.logits, o->type, i, logit(&state));
    for (size_t r = 0; r < o->rows; r++) {
        m.targets[r] = (int32_t)(next_word(&state) % o->vocabulary);
        m.advantages[r] = (float)(4.0 * (next_unit(&state) - 0.5));
    }
    m.policy.aggregation = GRADREG_AGGREGATE_TOKEN_MEAN;
    m.policy.entropy_coefficient = 0.01;
    m.batch.sequences = o->rows;
    m.batch.length = 1;
    m.batch.advantages = m.advantages;
    m.params.type = o->type;
    m.params.rows = o->rows;
    m.params.vocabulary = o->vocabulary;
    return m;
}

static void separate(gradreg_context *context, matrix *m, timings *t, int repetition)
{
    gradreg_policy_batch batch = m->batch;
    gradreg_policy_gradient out = GRADREG_POLICY_GRADIENT_INIT;
    batch.logp = m->logp;
    batch.entropy = m->entropy;
    out.dlogp = m->dlogp;
    out.dentropy = m->dentropy;
    const double a = milliseconds();
    require(gradreg_logprobs_forward(context, m->logp, m->entropy, m->log_sum_exp, m->work,
                                     m->targets, &m->params));
    const double b = milliseconds();
    require(gradreg_policy_loss(context, NULL, &out, &batch, &m->policy));
    const double c = milliseconds();
    require(gradreg_logprobs_backward(context, m->work, m->work, m->targets, m->log_sum_exp,
                                      m->entropy, m->dlogp, m->dentropy, &m->params));
    const double d = milliseconds();
    note(t, "forward", repetition, b - a);
    note(t, "backward", repetition, d - c);
    note(t, "separate", repetition, d - a);
}

static void fused(gradreg_context *context, matrix *m, timings *t, int repetition)
{
    const double a = milliseconds();
    require(gradreg_policy_logits(context, NULL, m->other, m->logp, m->entropy, m->other,
                                  m->targets, &m->batch, &m->policy, &m->params));
    note(t, "fused", repetition, milliseconds() - a);
}

/* ---- the memory ------------------------------------------------------------------ */

enum { PIECE = 1 << 18 };

typedef struct span {
    const bandwidth_loops *loops;
    float *to;
    const float *from;
    size_t n;
} span;

static void copy_piece(void *argument, size_t index)
{
    const span *s = argument;
    const size_t at = index * PIECE, left = s->n - at;
    s->loops->copy(s->to + at, s->from + at, left < PIECE ? left : PIECE);
}

static const bandwidth_loops *widest(void)
{
#if defined(__x86_64__)
    const gr_vector_path path = gradreg_cpu_best_path();
    return path == GR_PATH_V4   ? &bandwidth_v4
           : path == GR_PATH_V3 ? &bandwidth_v3
                                : &bandwidth_v2;
#else
    return &bandwidth_scalar;
#endif
}

/* Reads and writes the matrix once, like a gradient in place that is read from memory once. */
static void copy(gradreg_context *context, matrix *m, timings *t, int repetition)
{
    span s = { widest(), m->work, m->logits, m->bytes / 4 / 64 * 64 };
    const double a = milliseconds();
    gradreg_i_parallel(context, (s.n + PIECE - 1) / PIECE, copy_piece, &s);
    note(t, "copy", repetition, milliseconds() - a);
}

static int run_logits(gradreg_context *context, const options *o, timings *t)
{
    matrix m = open_matrix(o);
    int same = 1;
    for (int k = -1; k < o->repetitions; k++) {
        copy(context, &m, t, k);
        memcpy(m.work, m.logits, m.bytes);
        memcpy(m.other, m.logits, m.bytes);
        separate(context, &m, t, k);
        fused(context, &m, t, k);
        same = memcmp(m.work, m.other, m.bytes) == 0 && same;
    }
    free(m.logits), free(m.work), free(m.other), free(m.targets), free(m.logp), free(m.entropy);
    free(m.log_sum_exp), free(m.dlogp), free(m.dentropy), free(m.advantages);
    return same;
}

/* ---- hidden states --------------------------------------------------------------- */

#if GR_TEST_BLAS
typedef struct head {
    gradreg_linear_params params;
    void *hidden, *weight, *dhidden;
    float *dweight, *wide_hidden, *wide_weight, *chunk;
    int32_t *targets;
    float *logp, *entropy, *log_sum_exp, *dlogp, *dentropy;
} head;

/* The products of one forward and one backward call, over as many rows at a time, from f32. */
static void products(const head *h, size_t rows, timings *t, int repetition)
{
    const int width = (int)h->params.width, vocabulary = (int)h->params.vocabulary;
    double forward = 0.0, backward = 0.0;
    for (size_t first = 0; first < h->params.rows; first += rows) {
        const int n = (int)(h->params.rows - first < rows ? h->params.rows - first : rows);
        const float *x = h->wide_hidden + first * h->params.width;
        for (int pass = 0; pass < 2; pass++) { /* the backward call computes the logits again */
            const double a = milliseconds();
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, n, vocabulary, width, 1.0f, x,
                        width, h->wide_weight, width, 0.0f, h->chunk, vocabulary);
            *(pass == 0 ? &forward : &backward) += milliseconds() - a;
        }
        const double b = milliseconds();
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, n, width, vocabulary, 1.0f,
                    h->chunk, vocabulary, h->wide_weight, width, 0.0f,
                    h->wide_hidden + first * h->params.width, width);
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, vocabulary, width, n, 1.0f,
                    h->chunk, vocabulary, x, width, 0.0f, h->dweight, width);
        backward += milliseconds() - b;
        for (size_t i = 0; i < (size_t)n * h->params.width; i++)
            h->wide_hidden[first * h->params.width + i] = 1.0f;
    }
    note(t, "products forward", repetition, forward);
    note(t, "products backward", repetition, backward);
}

static head open_head(const options *o)
{
    const gradreg_linear_params params = GRADREG_LINEAR_PARAMS_INIT;
    const size_t hidden = o->rows * o->width, weight = o->vocabulary * o->width;
    const size_t floats = o->rows * sizeof(float);
    uint64_t state = 2;
    head h;
    h.params = params;
    h.params.type = o->type;
    h.params.rows = o->rows;
    h.params.width = o->width;
    h.params.vocabulary = o->vocabulary;
    h.hidden = allocate_lines(hidden * 4), h.weight = allocate_lines(weight * 4);
    h.dhidden = allocate_lines(hidden * 4), h.dweight = allocate_lines(weight * 4);
    h.wide_hidden = allocate_lines(hidden * 4), h.wide_weight = allocate_lines(weight * 4);
    h.targets = allocate_lines(floats), h.logp = allocate_lines(floats),
    h.entropy = allocate_lines(floats);
    h.log_sum_exp = allocate_lines(floats), h.dlogp = allocate_lines(floats),
    h.dentropy = allocate_lines(floats);
    for (size_t i = 0; i < hidden; i++)
        set_typed(h.hidden, o->type, i, h.wide_hidden[i] = (float)(next_unit(&state) - 0.5));
    for (size_t i = 0; i < weight; i++)
        set_typed(h.weight, o->type, i,
                  h.wide_weight[i] = (float)(next_unit(&state) - 0.5) / 8);
    for (size_t r = 0; r < o->rows; r++) {
        h.targets[r] = (int32_t)(next_word(&state) % o->vocabulary);
        h.dlogp[r] = 0.01f;
        h.dentropy[r] = 0.001f;
    }
    return h;
}

static void linear_calls(gradreg_context *context, const head *h, timings *t, int repetition)
{
    const double a = milliseconds();
    require(gradreg_linear_logprobs_forward(context, h->logp, h->entropy, h->log_sum_exp,
                                            h->hidden, h->weight, h->targets, &h->params));
    const double b = milliseconds();
    require(gradreg_linear_logprobs_backward(context, h->dhidden, h->dweight, h->hidden,
                                             h->weight, h->targets, h->log_sum_exp, h->entropy,
                                             h->dlogp, h->dentropy, &h->params));
    note(t, "linear forward", repetition, b - a);
    note(t, "linear backward", repetition, milliseconds() - b);
}

static void run_linear(gradreg_context *context, const options *o, timings *t)
{
    const size_t chunk = ((size_t)1 << 26) / o->vocabulary + 1;
    const size_t rows = chunk < o->rows ? chunk : o->rows;
    head h = open_head(o);
    h.params.chunk_rows = rows;
    h.chunk = allocate_lines(rows * o->vocabulary * 4);
    openblas_set_num_threads(o->threads > 0 ? o->threads : openblas_get_num_threads());
    printf("fact\tblas core\t%s\nfact\tblas threads\t%d\nfact\tchunk rows\t%zu\n",
           openblas_get_corename(), openblas_get_num_threads(), rows);
    for (int k = -1; k < o->repetitions; k++) {
        linear_calls(context, &h, t, k);
        products(&h, rows, t, k);
    }
    free(h.hidden), free(h.weight), free(h.dhidden), free(h.dweight), free(h.wide_hidden);
    free(h.wide_weight), free(h.chunk), free(h.targets), free(h.logp), free(h.entropy);
    free(h.log_sum_exp), free(h.dlogp), free(h.dentropy);
}
#else
static void run_linear(gradreg_context *context, const options *o, timings *t)
{
    (void)context, (void)o, (void)t;
    printf("fact\tblas core\tnone in this build\n");
}
#endif

/* ---- the run --------------------------------------------------------------------- */

static options read_options(int argc, char **argv)
{
    options o = { 512, 151936, 0, GRADREG_TYPE_F32, 0, 5 };
    for (int i = 1; i + 1 < argc; i += 2) {
        const size_t number = strtoul(argv[i + 1], NULL, 10);
        if (strcmp(argv[i], "--rows") == 0)
            o.rows = number;
        else if (strcmp(argv[i], "--vocabulary") == 0)
            o.vocabulary = number;
        else if (strcmp(argv[i], "--width") == 0)
            o.width = number;
        else if (strcmp(argv[i], "--threads") == 0)
            o.threads = (int32_t)number;
        else if (strcmp(argv[i], "--repetitions") == 0)
            o.repetitions = (int)(number < MOST ? number : MOST);
        else if (strcmp(argv[i], "--type") == 0)
            o.type = strcmp(argv[i + 1], "f32") == 0 ? GRADREG_TYPE_F32 : GRADREG_TYPE_BF16;
        else
            exit(2);
    }
    return o;
}

int main(int argc, char **argv)
{
    const options o = read_options(argc, argv);
    gradreg_context_params how = GRADREG_CONTEXT_PARAMS_INIT;
    struct gradreg_context_info info = GRADREG_CONTEXT_INFO_INIT;
    gradreg_context *context = NULL;
    timings *t = allocate_lines(sizeof(*t));
    int same = 1;
    how.threads = o.threads;
    require(gradreg_context_create(&context, &how));
    require(gradreg_context_info(context, &info));
    printf("fact\tpath\t%s\nfact\tthreads\t%d\n", info.vector_path, (int)info.threads);
    if (o.width > 0)
        run_linear(context, &o, t);
    else
        same = run_logits(context, &o, t);
    print(t, o.repetitions);
    free(t);
    require(gradreg_context_destroy(context));
    if (!same)
        fprintf(stderr, "the fused call and the separate ones disagree\n");
    return !same;
}
