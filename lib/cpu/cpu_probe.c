/* cpu_probe.c - the probe on the CPU: noise into rows, probabilities out of rows, statistics.
 *
 * In: checked tasks. Out: moved rows; one result per row, noted in the order of rows. A row is one
 * thread's, so that its sums need no memory but the stack. */
#include <assert.h>
#include <string.h>

#include "cpu_backend.h"
#include "cpu_pass.h"
#include "cpu_rows.h"

static size_t block_length(size_t begin, size_t width)
{
    return width - begin < GR_BLOCK ? width - begin : GR_BLOCK;
}

static const char *row_at(const void *base, const gr_probe_rows *shape, size_t row)
{
    return (const char *)base + row * shape->stride * gr_type_bytes(shape->type);
}

/* ---- inject ---------------------------------------------------------------------- */

typedef struct injection {
    const gr_inject_task *task;
    const gr_cpu_kernels *kernels;
    size_t first; /* row of results[0] */
} injection;

static double row_squares(const injection *in, const char *row, double *bad)
{
    const gr_probe_rows *shape = &in->task->shape;
    gr_tree tree;
    gr_tree_start(&tree);
    for (size_t at = 0; at < shape->width; at += GR_BLOCK)
        gr_tree_push(
            &tree, gradreg_cpu_block_squares(in->kernels, row + at * gr_type_bytes(shape->type),
                                             block_length(at, shape->width), shape->type, bad));
    return gr_tree_sum(&tree);
}

/* x + sigma n in f32, for elements `at` to at + n of their row. */
static void add_noise(const gr_inject_task *t, int32_t trial, float sigma, float *x, size_t at,
                      size_t n)
{
    assert(at % 4 == 0);
    for (size_t i = 0; i < n; i += 4) {
        float four[4];
        gr_probe_gaussian4(t->seed, t->layer, trial, (at + i) / 4, four);
        for (size_t k = 0; k < 4 && i + k < n; k++)
            x[i + k] = GR_MOVE(x[i + k], sigma, four[k]);
    }
}

static uint64_t count_saturated(gradreg_type type, const float *x, size_t n)
{
    uint64_t count = 0;
#define GR_COUNT_AS(T)                                               \
    case GRADREG_TYPE_##T:                                           \
        for (size_t i = 0; i < n; i++)                               \
            count += (uint64_t)gr_saturates(GRADREG_TYPE_##T, x[i]); \
        break;
    switch (type) {
        GR_EACH_TYPE(GR_COUNT_AS)
    }
#undef GR_COUNT_AS
    return count;
}

static void inject_row(void *task, size_t index)
{
    const injection *in = task;
    const gr_inject_task *t = in->task;
    const gradreg_type type = t->shape.type;
    char *row = (char *)(uintptr_t)row_at(t->hidden, &t->shape, in->first + index);
    gr_probe_row *result = &t->results[index];
    double bad = 0.0;
    const double squares = row_squares(in, row, &bad);
    const float sigma = gr_probe_sigma(t->noise_scale, squares, (double)t->shape.width);
    result->bad = bad > 0.0;
    result->saturated = 0;
    if (bad > 0.0 || sigma == 0.0f)
        return;
    for (size_t at = 0; at < t->shape.width; at += GR_BLOCK) {
        const size_t n = block_length(at, t->shape.width);
        char *block = row + at * gr_type_bytes(type);
        float x[GR_BLOCK];
        in->kernels->widen[type](x, block, n);
        add_noise(t, t->first_trial + (int32_t)(in->first + index), sigma, x, at, n);
        result->saturated += count_saturated(type, x, n);
        in->kernels->narrow[type](block, x, n);
    }
}

static gradreg_status inject(gradreg_context *context, const gr_inject_task *task)
{
    injection in = { task, gradreg_cpu_kernels_of(context), 0 };
    for (; in.first < task->shape.rows; in.first += GR_PROBE_ROWS) {
        const size_t left = task->shape.rows - in.first;
        const size_t n = left < GR_PROBE_ROWS ? left : GR_PROBE_ROWS;
        gradreg_cpu_rows(context, n, task->shape.width, inject_row, &in);
        for (size_t i = 0; i < n; i++) {
            task->statistics->not_injected += task->results[i].bad;
            task->statistics->saturated += task->results[i].saturated;
        }
    }
    return GRADREG_OK;
}

/* ---- observe --------------------------------------------------------------------- */

typedef struct observation {
    const gr_observe_task *task;
    const gr_cpu_kernels *kernels;
    size_t first;
} observation;

static float largest_logit(const observation *o, const char *row)
{
    const gr_probe_rows *shape = &o->task->shape;
    float largest = -HUGE_VALF;
    for (size_t at = 0; at < shape->width; at += GR_BLOCK) {
        const size_t n = block_length(at, shape->width);
        float z[GR_BLOCK];
        o->kernels->widen[shape->type](z, row + at * gr_type_bytes(shape->type), n);
        for (size_t i = 0; i < n; i++)
            largest = gr_probe_larger(largest, z[i]);
    }
    return largest;
}

static double sum_of_terms(const observation *o, const char *row, float largest)
{
    const gr_probe_rows *shape = &o->task->shape;
    gr_tree tree;
    gr_tree_start(&tree);
    for (size_t at = 0; at < shape->width; at += GR_BLOCK) {
        const size_t n = block_length(at, shape->width);
        double acc[GR_ACCUMULATORS] = { 0 };
        float z[GR_BLOCK];
        o->kernels->widen[shape->type](z, row + at * gr_type_bytes(shape->type), n);
        for (size_t i = 0; i < n; i++)
            acc[GR_ACCUMULATOR_OF(i)] += gr_probe_term(z[i], largest);
        gr_tree_push(&tree, gr_tree_doubles(acc));
    }
    return gr_tree_sum(&tree);
}

static void observe_row(void *task, size_t index)
{
    const observation *o = task;
    const gr_observe_task *t = o->task;
    const gradreg_type type = t->shape.type;
    const char *row = row_at(t->logits, &t->shape, o->first + index);
    const float largest = largest_logit(o, row);
    float target;
    o->kernels->widen[type](&target, row + t->target * gr_type_bytes(type), 1);
    t->results[index].probability =
        gr_probe_term(target, largest) / sum_of_terms(o, row, largest);
}

static gradreg_status observe(gradreg_context *context, const gr_observe_task *task)
{
    observation o = { task, gradreg_cpu_kernels_of(context), 0 };
    for (; o.first < task->shape.rows; o.first += GR_PROBE_ROWS) {
        const size_t left = task->shape.rows - o.first;
        const size_t n = left < GR_PROBE_ROWS ? left : GR_PROBE_ROWS;
        gradreg_cpu_rows(context, n, task->shape.width, observe_row, &o);
        for (size_t i = 0; i < n; i++)
            gr_probe_note(task->statistics, task->results[i].probability);
    }
    return GRADREG_OK;
}

/* ---- memory ---------------------------------------------------------------------- */

static gradreg_status clear(gradreg_context *context, gr_probe_statistics *statistics,
                            size_t count)
{
    (void)context;
    memset(statistics, 0, count * sizeof(*statistics));
    return GRADREG_OK;
}

static gradreg_status read_statistics(gradreg_context *context, gr_probe_statistics *host,
                                      const gr_probe_statistics *statistics, size_t count)
{
    (void)context;
    memcpy(host, statistics, count * sizeof(*host));
    return GRADREG_OK;
}

const gr_probe_ops gradreg_cpu_probe = {
    .clear = clear,
    .inject = inject,
    .observe = observe,
    .read = read_statistics,
};
