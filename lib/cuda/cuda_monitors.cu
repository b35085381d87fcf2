/* cuda_monitors.cu - the monitors of buffers: a thread block a row, or a run of a segment.
 *
 * In: checked tasks. Out: one figure per row or segment, with the CPU's bits. */
#include "cuda_probe.h"

#include "cuda_row_sums.cuh"

#include <math.h>

/* ---- divergence ------------------------------------------------------------------ */

struct gr_mass_of_row {
    const float *x;
    uint32_t *unusable; /* shared */

    GR_DEVICE_MEMBER double sum(const gr_row_block &block) const
    {
        double acc = 0.0;
        uint32_t bad = 0;
        for (uint32_t i = 4 * (threadIdx.x % 32); i < block.n; i += GR_LANES)
            for (uint32_t k = 0; k < 4 && i + k < block.n; k++) {
                const float v = x[block.begin + i + k];
                bad |= static_cast<uint32_t>(!gr_js_usable(v));
                acc += static_cast<double>(v);
            }
        if (bad != 0)
            atomicAdd(unusable, 1u);
        __syncwarp();
        return gr_tree_warp_doubles(acc);
    }
};

struct gr_divergence_of_row {
    const float *p, *q;
    double p_mass, q_mass;

    GR_DEVICE_MEMBER double sum(const gr_row_block &block) const
    {
        double acc = 0.0;
        for (uint32_t i = 4 * (threadIdx.x % 32); i < block.n; i += GR_LANES)
            for (uint32_t k = 0; k < 4 && i + k < block.n; k++) {
                const uint64_t at = block.begin + i + k;
                acc += gr_js_term(static_cast<double>(p[at]) / p_mass,
                                  static_cast<double>(q[at]) / q_mass);
            }
        __syncwarp();
        return gr_tree_warp_doubles(acc);
    }
};

__global__ void __launch_bounds__(ROW_THREADS, 4)
    gradreg_cuda_k_divergence(const gr_divergence_task task)
{
    GR_SHARED(gr_row_tree, tree, 1);
    GR_SHARED(uint32_t, unusable, 1);
    for (uint64_t row = blockIdx.x; row < task.rows; row += gridDim.x) {
        const float *p = task.p + row * task.columns, *q = task.q + row * task.columns;
        __syncthreads();
        if (threadIdx.x == 0)
            unusable[0] = 0;
        __syncthreads();
        const gr_mass_of_row of_p = { p, unusable }, of_q = { q, unusable };
        const double p_mass = gr_sum_row(tree, task.columns, of_p);
        const double q_mass = gr_sum_row(tree, task.columns, of_q);
        const bool fits = unusable[0] == 0 && p_mass > 0.0 && q_mass > 0.0;
        const gr_divergence_of_row body = { p, q, p_mass, q_mass };
        const double sum = fits ? gr_sum_row(tree, task.columns, body) : 0.0;
        if (threadIdx.x == 0)
            task.out[row] = fits && sum == sum ? gr_js_result(sum) : static_cast<float>(NAN);
    }
}

static gradreg_status run_divergence(const gr_cuda_context *c, const gr_divergence_task *task)
{
    if (task->rows == 0)
        return GRADREG_OK;
    GR_LAUNCH(gradreg_cuda_k_divergence, gr_cuda_grid(c, task->rows, 8), ROW_THREADS, 0,
              c->stream, *task);
    GR_CUDA_TRY_LAUNCH("divergence");
    return GRADREG_OK;
}

static gradreg_status divergence(gradreg_context *context, const gr_divergence_task *task)
{
    return gr_cuda_run(context, run_divergence, task);
}

/* ---- weights --------------------------------------------------------------------- */

struct gr_difference {
    int32_t type;
    const char *before, *after;

    GR_DEVICE_MEMBER float narrow(uint64_t i) const
    {
        return gr_element(type, after, i) - gr_element(type, before, i);
    }
    GR_DEVICE_MEMBER uint32_t seen(float x) const
    {
        return gr_f32_bits(x) & 0x7fffffffu;
    }
    GR_DEVICE_MEMBER double wide(uint64_t i, uint32_t *bad) const
    {
        const float a = gr_element(type, after, i), b = gr_element(type, before, i);
        *bad |= static_cast<uint32_t>(gr_is_non_finite(a) | gr_is_non_finite(b));
        return static_cast<double>(a) - static_cast<double>(b);
    }
};

struct gr_difference_squares {
    gr_difference value;

    GR_DEVICE_MEMBER double sum(const gr_row_block &block) const
    {
        uint32_t bad = 0;
        const double squares = gr_squares_of(block, value, &bad);
        for (int offset = 16; offset >= 1; offset /= 2)
            bad |= __shfl_xor_sync(0xffffffffu, bad, offset);
        return bad != 0 ? static_cast<double>(NAN) : squares;
    }
};

/* A thread block per run of GR_DELTA_BLOCKS blocks. */
__global__ void __launch_bounds__(ROW_THREADS, 4)
    gradreg_cuda_k_delta_runs(const gr_difference value, uint64_t count, uint64_t first_run,
                              double *runs)
{
    GR_SHARED(gr_row_tree, tree, 1);
    const uint64_t begin = (first_run + blockIdx.x) * GR_DELTA_BLOCKS * GR_BLOCK;
    const uint64_t most = (uint64_t)GR_DELTA_BLOCKS * GR_BLOCK;
    const uint64_t size = gr_type_bytes(value.type);
    const gr_difference_squares body = { { value.type, value.before + begin * size,
                                           value.after + begin * size } };
    const double sum = gr_sum_row(tree, count - begin < most ? count - begin : most, body);
    if (threadIdx.x == 0)
        runs[blockIdx.x] = sum;
}

/* The tree over runs, GR_DELTA_RUNS of them at a time; what is open between launches stays in
 * `open`: the subtrees, and how many there are. */
typedef struct gr_open_tree {
    double subtree[GR_TREE_LEVELS];
    uint64_t runs;
    uint32_t held, reserved;
} gr_open_tree;

__global__ void __launch_bounds__(32)
    gradreg_cuda_k_delta_fold(double *norm, const double *runs, uint32_t count, int starts,
                              int ends, gr_open_tree *open)
{
    if (threadIdx.x != 0)
        return;
    if (starts)
        open->held = 0, open->runs = 0;
    for (uint32_t i = 0; i < count; i++) {
        double sum = runs[i];
        for (uint64_t carry = open->runs++; carry % 2 != 0; carry /= 2)
            sum = open->subtree[--open->held] + sum;
        open->subtree[open->held++] = sum;
    }
    if (!ends)
        return;
    double sum = open->held > 0 ? open->subtree[--open->held] : 0.0;
    while (open->held > 0)
        sum = open->subtree[--open->held] + sum;
    *norm = sqrt(sum);
}

/* The last of the runs' room holds the open tree. */
enum { OPEN_RUNS = (sizeof(gr_open_tree) + sizeof(double) - 1) / sizeof(double) };
enum { RUNS_AT_ONCE = 2048 };
static_assert(RUNS_AT_ONCE + OPEN_RUNS <= GR_DELTA_RUNS,
              "runs and the open tree share the room");

static gradreg_status run_segment(const gr_cuda_context *c, const gr_delta_task *task, size_t i)
{
    const gradreg_segment *s = &task->segments[i];
    const uint64_t size = gr_type_bytes(task->type);
    const uint64_t each = (uint64_t)GR_DELTA_BLOCKS * GR_BLOCK;
    const uint64_t runs = s->count / each + (s->count % each != 0);
    gr_open_tree *open = reinterpret_cast<gr_open_tree *>(task->runs + RUNS_AT_ONCE);
    const gr_difference value = { task->type,
                                  static_cast<const char *>(task->before) + s->offset * size,
                                  static_cast<const char *>(task->after) + s->offset * size };
    uint64_t done = 0;
    do {
        const uint32_t n =
            static_cast<uint32_t>(runs - done < RUNS_AT_ONCE ? runs - done : RUNS_AT_ONCE);
        if (n > 0) {
            GR_LAUNCH(gradreg_cuda_k_delta_runs, n, ROW_THREADS, 0, c->stream, value,
                      static_cast<uint64_t>(s->count), done, task->runs);
            GR_CUDA_TRY_LAUNCH("delta_runs");
        }
        GR_LAUNCH(gradreg_cuda_k_delta_fold, 1, 32, 0, c->stream, task->norms + i, task->runs,
                  n, static_cast<int>(done == 0), static_cast<int>(done + n >= runs), open);
        GR_CUDA_TRY_LAUNCH("delta_fold");
        done += n;
    } while (done < runs);
    return GRADREG_OK;
}

static gradreg_status run_delta(const gr_cuda_context *c, const gr_delta_task *task)
{
    for (size_t i = 0; i < task->segment_count; i++)
        GR_TRY(run_segment(c, task, i));
    return GRADREG_OK;
}

static gradreg_status delta(gradreg_context *context, const gr_delta_task *task)
{
    return gr_cuda_run(context, run_delta, task);
}

const gr_monitor_ops gradreg_cuda_monitors = { divergence, delta };

gradreg_status gradreg_cuda_load_monitors(void)
{
    return gr_cuda_load(gradreg_cuda_k_divergence, gradreg_cuda_k_delta_runs,
                        gradreg_cuda_k_delta_fold);
}
