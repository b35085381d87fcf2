/* bench_regularizer.c - how long the regularizer takes, next to what the memory can do.
 *
 * In: a case (--types, --shape, --mode, --parameters, --threads, --repetitions, --huge-pages), and
 * GRADREG_VECTOR_PATH. Out, on stdout, one line each: facts about the run, and milliseconds per
 * repetition of every pass over memory, of every call of the public API, of their sum, and of the
 * bandwidth loops that ran between the same two steps. benchmark.py makes tables of it.
 *
 * Ends with 1 when theta does not come back to the last bit, when the terms are not finite, or when
 * a step allocates. */
#define _POSIX_C_SOURCE 200809L
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bandwidth.h"
#include "case.h"
#include "measure.h"
#include "regularizer.h"

/* ---- samples --------------------------------------------------------------------- */

enum { SERIES_LIMIT = 40 };

typedef struct series {
    const char *step, *name;
    double *samples;
    int count;
} series;

static series all_series[SERIES_LIMIT];
static int series_count, repetitions;
static const char *step_name = "";
static double cycle;

/* Names are literals: equal texts of one step are one series. */
static void keep_sample(const char *step, const char *name, double ms)
{
    int i = 0;
    while (i < series_count &&
           (strcmp(all_series[i].name, name) != 0 || strcmp(all_series[i].step, step) != 0))
        i++;
    if (i == SERIES_LIMIT)
        abort();
    series *s = &all_series[i];
    if (i == series_count) {
        series_count++;
        s->step = step;
        s->name = name;
        s->samples = bench_allocate((size_t)repetitions * sizeof(double));
        s->count = 0;
    }
    if (s->count < repetitions)
        s->samples[s->count++] = ms;
}

static void print_samples(void)
{
    for (int i = 0; i < series_count; i++) {
        const series *s = &all_series[i];
        printf("ms\t%s%s", s->step, s->name);
        for (int k = 0; k < s->count; k++)
            printf("\t%.4f", s->samples[k]);
        printf("\n");
        free(s->samples);
    }
}

/* ---- passes, timed inside the public calls --------------------------------------- */

static const gr_backend_ops *backend;

static gradreg_status kept(const char *name, double begun, gradreg_status status)
{
    keep_sample(step_name, name, milliseconds() - begun);
    return status;
}

static gradreg_status timed_squares(gr_work *work, enum gr_source source, int row)
{
    static const char *const names[] = { "norm of g1", "norm of g2", "norm of v",
                                         "norm of theta", "norm of noisy theta" };
    const char *name = row == GR_SUM_PLUS ? "norm of g+" : names[source];
    const double begun = milliseconds();
    return kept(name, begun, backend->squares(work, source, row));
}

static gradreg_status timed_verify(gr_work *work, int row)
{
    const double begun = milliseconds();
    return kept("verify", begun, backend->verify_master(work, row));
}

static gradreg_status timed_inject(gr_work *work)
{
    const double begun = milliseconds();
    return kept("inject", begun, backend->inject(work));
}

static gradreg_status timed_perturb(gr_work *work)
{
    const double begun = milliseconds();
    return kept("perturb", begun, backend->perturb(work));
}

static gradreg_status timed_mirror(gr_work *work)
{
    const double begun = milliseconds();
    return kept("mirror", begun, backend->mirror(work));
}

static gradreg_status timed_combine(gr_work *work, int read, uint32_t restored)
{
    const double begun = milliseconds();
    return kept("combine", begun, backend->combine(work, read, restored));
}

static void time_passes(gradreg_regularizer *regularizer)
{
    static gr_backend_ops timed;
    backend = regularizer->ops;
    timed = *backend;
    timed.squares = timed_squares;
    timed.verify_master = timed_verify;
    timed.inject = timed_inject;
    timed.perturb = timed_perturb;
    timed.mirror = timed_mirror;
    timed.combine = timed_combine;
    regularizer->ops = &timed;
}

/* ---- one step -------------------------------------------------------------------- */

typedef gradreg_status entry(gradreg_regularizer *regularizer, gradreg_buffers *buffers);

static void call(bench_case *c, entry *function, const char *name)
{
    const double begun = milliseconds();
    const gradreg_status status = function(c->regularizer, &c->buffers);
    const double ms = milliseconds() - begun;
    bench_require(status, name);
    keep_sample(step_name, name, ms);
    cycle += ms;
}

static void step(bench_case *c, const char *name)
{
    int32_t passes;
    step_name = name;
    cycle = 0.0;
    bench_require(gradreg_regularizer_extra_passes(c->regularizer, &passes), "extra_passes");
    if (c->params.noise.rule == GRADREG_NOISE_RELATIVE)
        call(c, gradreg_regularizer_inject_noise, "inject_noise()");
    bench_backward(c, BENCH_GRADS, passes == 0 || c->buffers.first_grads == NULL ? 1 : 2);
    if (passes > 0) {
        call(c, gradreg_regularizer_perturb, "perturb()");
        bench_backward(c, BENCH_GRADS, 2);
    }
    if (passes > 1) {
        call(c, gradreg_regularizer_mirror, "mirror()");
        bench_backward(c, BENCH_GRADS, 3);
    }
    call(c, gradreg_regularizer_combine, "combine()");
    keep_sample(step_name, "cycle", cycle);
}

/* ---- the machine, between two steps ---------------------------------------------- */

typedef struct memory {
    const bandwidth_loops *loops;
    float *a, *b;
    size_t elements;
    int which;
} memory;

enum { MEMORY_PIECE = 1 << 18 };

static void memory_piece(void *task, size_t index)
{
    const memory *m = task;
    volatile float sum = 0.0f; /* or the loop would be left out */
    const size_t begin = index * MEMORY_PIECE;
    const size_t n =
        m->elements - begin < MEMORY_PIECE ? m->elements - begin : (size_t)MEMORY_PIECE;
    switch (m->which) {
    case 0: sum = m->loops->read(m->a + begin, n); break;
    case 1: m->loops->copy(m->b + begin, m->a + begin, n); break;
    case 2: m->loops->copy_around(m->b + begin, m->a + begin, n); break;
    default: m->loops->update(m->b + begin, m->a + begin, 0.0f, n); break;
    }
    (void)sum;
}

static void measure_memory(bench_case *c, memory *m)
{
    static const char *const names[] = { "read", "copy", "copy_around", "update" };
    for (m->which = 0; m->which < 4; m->which++) {
        const double begun = milliseconds();
        gradreg_i_parallel(c->context, (m->elements + MEMORY_PIECE - 1) / MEMORY_PIECE,
                           memory_piece, m);
        keep_sample("memory ", names[m->which], milliseconds() - begun);
    }
}

static memory open_memory(size_t parameters, bool huge_pages)
{
    memory m = { &bandwidth_scalar, NULL, NULL, (parameters + 63) / 64 * 64, 0 };
#if defined(__x86_64__)
    static const bandwidth_loops *const loops[] = { &bandwidth_scalar, &bandwidth_v2,
                                                    &bandwidth_v3, &bandwidth_v4 };
    m.loops = loops[gradreg_cpu_best_path()];
#endif
    m.a = bench_allocate_pages(m.elements * sizeof(float), huge_pages);
    m.b = bench_allocate_pages(m.elements * sizeof(float), huge_pages);
    memset(m.a, 0, m.elements * sizeof(float));
    memset(m.b, 0, m.elements * sizeof(float));
    return m;
}

/* ---- the run --------------------------------------------------------------------- */

static struct gradreg_context_info info_of(const bench_case *c)
{
    struct gradreg_context_info info = GRADREG_CONTEXT_INFO_INIT;
    bench_require(gradreg_context_info(c->context, &info), "info");
    return info;
}

static void print_facts(const bench_case *c, size_t memory_elements)
{
    const struct gradreg_context_info info = info_of(c);
    printf("fact\tdevice\t%s\n", info.device_name);
    printf("fact\tpath\t%s\n", info.vector_path);
    printf("fact\tthreads\t%d\n", info.threads);
    printf("fact\ttensors\t%zu\n", c->segment_count);
    printf("fact\tparameters\t%llu\n", (unsigned long long)c->parameters);
    printf("fact\tmemory_elements\t%zu\n", memory_elements);
    printf("fact\tlibrary_bytes\t%zu\n", c->library_bytes);
    printf("fact\tcaller_bytes\t%zu\n", c->caller_bytes);
}

static int is_sound(const bench_case *c, const gradreg_terms *t, uint64_t allocations)
{
    const uint64_t now = info_of(c).allocations;
    printf("fact\tallocations_per_step\t%.3f\n",
           (double)(now - allocations) / (double)repetitions);
    if (!bench_theta_is_clean(c))
        fprintf(stderr, "theta did not come back to the last bit\n");
    else if (!isfinite(t->update_norm) || !(t->clip_first < 1.0 || c->parameters < 50000000u))
        fprintf(stderr, "terms: update_norm %g, clip_first %g\n", t->update_norm,
                t->clip_first);
    else if (now != allocations)
        fprintf(stderr, "%llu allocations in %d steps\n",
                (unsigned long long)(now - allocations), repetitions);
    else
        return 1;
    return 0;
}

static int measure(const bench_options *options)
{
    bench_case c;
    gradreg_terms terms = GRADREG_TERMS_INIT;
    bench_open(&c, options);
    memory m = open_memory((size_t)c.parameters, options->huge_pages);
    print_facts(&c, m.elements);

    repetitions = 1; /* warm-up: the pool starts, pages are touched, the master is verified */
    step(&c, "");
    if (c.params.interval > 1)
        step(&c, "reuse ");
    time_passes(c.regularizer);
    for (int i = 0; i < series_count; i++)
        free(all_series[i].samples);
    series_count = 0;
    repetitions = options->repetitions;
    const uint64_t allocations = info_of(&c).allocations;
    for (int i = 0; i < repetitions; i++) {
        measure_memory(&c, &m);
        step(&c, "");
        if (c.params.interval > 1)
            step(&c, "reuse ");
    }
    bench_require(gradreg_regularizer_terms(c.regularizer, &terms, NULL, 0), "terms");
    print_samples();
    const int sound = is_sound(&c, &terms, allocations);
    free(m.a);
    free(m.b);
    bench_close(&c);
    return sound ? 0 : 1;
}

/* ---- the command line ------------------------------------------------------------ */

static int list(const bench_options *options)
{
    bench_case c;
    bench_open(&c, options);
    for (size_t i = 0; i < c.segment_count; i++)
        printf("%llu\n", (unsigned long long)c.segments[i].count);
    bench_close(&c);
    return 0;
}

static int usage(void)
{
    fprintf(stderr, "usage: bench_regularizer [--types f32/f32] [--shape layers|large]\n"
                    "       [--parameters N] [--threads N] [--repetitions N] [--mode NAME]\n"
                    "       [--huge-pages]\n"
                    "       [--list]           sizes of the tensors, nothing else\n"
                    "modes:");
    for (size_t i = 0; i < bench_mode_count; i++)
        fprintf(stderr, " %s", bench_modes[i].name);
    fprintf(stderr, "\n");
    return 2;
}

/* Gives how many words the option took, 0 for one that is not known. */
static int read_option(bench_options *o, int *only_list, const char *word, const char *value)
{
    if (strcmp(word, "--list") == 0) {
        *only_list = 1;
        return 1;
    }
    if (strcmp(word, "--huge-pages") == 0) {
        o->huge_pages = true;
        return 1;
    }
    if (value == NULL)
        return 0;
    if (strcmp(word, "--types") == 0)
        o->types = value;
    else if (strcmp(word, "--shape") == 0)
        o->shape = value;
    else if (strcmp(word, "--mode") == 0)
        o->mode = value;
    else if (strcmp(word, "--parameters") == 0)
        o->parameters = strtoull(value, NULL, 10);
    else if (strcmp(word, "--threads") == 0)
        o->threads = (int32_t)strtol(value, NULL, 10);
    else if (strcmp(word, "--repetitions") == 0)
        o->repetitions = (int32_t)strtol(value, NULL, 10);
    else
        return 0;
    return 2;
}

int main(int argc, char **argv)
{
    bench_options o = { "f32/f32", "layers", "plain", 100000000, 11, 0, false };
    int only_list = 0;
    for (int i = 1, taken; i < argc; i += taken) {
        taken = read_option(&o, &only_list, argv[i], i + 1 < argc ? argv[i + 1] : NULL);
        if (taken == 0)
            return usage();
    }
    if (o.parameters < 36 * 46 * 16 || o.repetitions < 1 || o.threads < 0)
        return usage();
    return only_list ? list(&o) : measure(&o);
}
