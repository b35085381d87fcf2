/* cpu_monitors.c - the monitors of buffers on the CPU: divergence of rows, distance of weights.
 *
 * In: checked tasks. Out: one figure per row or segment. */
#include <math.h>

#include "../threads.h"
#include "cpu_backend.h"
#include "cpu_pass.h"
#include "cpu_rows.h"

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* ---- divergence ------------------------------------------------------------------ */

/* The sum of a row, or NaN when it is no distribution. */
static double mass_of(const float *x, size_t n)
{
    gr_tree tree;
    int usable = 1;
    gr_tree_start(&tree);
    for (size_t at = 0; at < n; at += GR_BLOCK) {
        double acc[GR_ACCUMULATORS] = { 0 };
        for (size_t i = 0; i < smaller(n - at, GR_BLOCK); i++) {
            usable &= gr_js_usable(x[at + i]);
            acc[GR_ACCUMULATOR_OF(i)] += (double)x[at + i];
        }
        gr_tree_push(&tree, gr_tree_doubles(acc));
    }
    const double sum = gr_tree_sum(&tree);
    return usable && sum > 0.0 ? sum : (double)NAN;
}

static double divergence_of(const float *p, const float *q, size_t n)
{
    const double p_mass = mass_of(p, n), q_mass = mass_of(q, n);
    gr_tree tree;
    gr_tree_start(&tree);
    if (p_mass != p_mass || q_mass != q_mass)
        return (double)NAN;
    for (size_t at = 0; at < n; at += GR_BLOCK) {
        double acc[GR_ACCUMULATORS] = { 0 };
        for (size_t i = 0; i < smaller(n - at, GR_BLOCK); i++)
            acc[GR_ACCUMULATOR_OF(i)] +=
                gr_js_term((double)p[at + i] / p_mass, (double)q[at + i] / q_mass);
        gr_tree_push(&tree, gr_tree_doubles(acc));
    }
    return gr_tree_sum(&tree);
}

static void diverge_row(void *task, size_t row)
{
    const gr_divergence_task *t = task;
    const double sum =
        divergence_of(t->p + row * t->columns, t->q + row * t->columns, t->columns);
    t->out[row] = sum == sum ? gr_js_result(sum) : (float)NAN;
}

static gradreg_status divergence(gradreg_context *context, const gr_divergence_task *task)
{
    gr_divergence_task t = *task;
    gradreg_cpu_rows(context, t.rows, t.columns, diverge_row, &t);
    return GRADREG_OK;
}

/* ---- weights --------------------------------------------------------------------- */

typedef struct delta_walk {
    const gr_delta_task *task;
    const gr_cpu_kernels *kernels;
    const gradreg_segment *segment;
    uint64_t first; /* block of the segment where runs[0] begins */
} delta_walk;

/* reduce.h, step 4, with differences in double. NaN when an element is not finite. */
static double delta_in_double(const float *before, const float *after, size_t n)
{
    double acc[GR_ACCUMULATORS] = { 0 };
    int bad = 0;
    for (size_t i = 0; i < n; i++) {
        const double d = (double)after[i] - (double)before[i];
        double *a = &acc[GR_ACCUMULATOR_OF(i)];
        *a = GR_ACCUMULATE(*a, d, d);
        bad |= gr_is_non_finite(before[i]) | gr_is_non_finite(after[i]);
    }
    return bad ? (double)NAN : gr_tree_doubles(acc);
}

/* Blocks that did not move are common, and leave lanes of 0. */
static int all_zero(const float *x, size_t n)
{
    uint32_t seen = 0;
    for (size_t i = 0; i < n; i++)
        seen |= gr_f32_bits(x[i]) & 0x7fffffffu;
    return seen == 0;
}

static double delta_of_block(const delta_walk *w, uint64_t block)
{
    const gr_delta_task *t = w->task;
    const uint64_t begin = block * GR_BLOCK;
    const size_t n = smaller((size_t)(w->segment->count - begin), GR_BLOCK);
    const size_t at = (size_t)(w->segment->offset + begin) * gr_type_bytes(t->type);
    _Alignas(64) float lanes[GR_LANES] = { 0 };
    float before[GR_BLOCK], after[GR_BLOCK], d[GR_BLOCK];
    w->kernels->widen[t->type](before, (const char *)t->before + at, n);
    w->kernels->widen[t->type](after, (const char *)t->after + at, n);
    for (size_t i = 0; i < n; i++)
        d[i] = after[i] - before[i];
    w->kernels->squares[GRADREG_TYPE_F32](d, n, lanes);
    if (w->kernels->in_range(lanes))
        return w->kernels->fold(lanes);
    return all_zero(d, n) ? 0.0 : delta_in_double(before, after, n);
}

static uint64_t blocks_of(const gradreg_segment *s)
{
    return s->count / GR_BLOCK + (s->count % GR_BLOCK != 0);
}

static void sum_run(void *task, size_t index)
{
    const delta_walk *w = task;
    const uint64_t begin = w->first + (uint64_t)index * GR_DELTA_BLOCKS;
    const uint64_t end = begin + GR_DELTA_BLOCKS, last = blocks_of(w->segment);
    gr_tree tree;
    gr_tree_start(&tree);
    for (uint64_t block = begin; block < (end < last ? end : last); block++)
        gr_tree_push(&tree, delta_of_block(w, block));
    w->task->runs[index] = gr_tree_sum(&tree);
}

/* Runs of 2^k blocks, so that cutting the tree there changes no bit. */
static double delta_of_segment(gradreg_context *context, delta_walk *w)
{
    const uint64_t blocks = blocks_of(w->segment);
    const uint64_t runs = blocks / GR_DELTA_BLOCKS + (blocks % GR_DELTA_BLOCKS != 0);
    gr_tree tree;
    gr_tree_start(&tree);
    for (uint64_t done = 0; done < runs; done += GR_DELTA_RUNS) {
        const size_t n = (size_t)(runs - done < GR_DELTA_RUNS ? runs - done : GR_DELTA_RUNS);
        w->first = done * GR_DELTA_BLOCKS;
        gradreg_i_parallel(context, n, sum_run, w);
        for (size_t i = 0; i < n; i++)
            gr_tree_push(&tree, w->task->runs[i]);
    }
    return sqrt(gr_tree_sum(&tree));
}

static gradreg_status delta(gradreg_context *context, const gr_delta_task *task)
{
    for (size_t i = 0; i < task->segment_count; i++) {
        delta_walk walk = { task, gradreg_cpu_kernels_of(context), &task->segments[i], 0 };
        const double norm = delta_of_segment(context, &walk);
        task->norms[i] = norm == norm ? norm : (double)NAN;
    }
    return GRADREG_OK;
}

const gr_monitor_ops gradreg_cpu_monitors = {
    .divergence = divergence,
    .delta = delta,
};
