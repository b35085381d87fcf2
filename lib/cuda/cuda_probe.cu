/* cuda_probe.cu - the probe and the monitors of buffers: a thread block a row or segment.
 *
 * In: checked tasks. Out: moved rows, statistics, one figure per row or segment, with the CPU's bits:
 * the same blocks, accumulators and tree. Blocks of a row are shared among the thread block's warps
 * and their results are folded level by level in shared memory, GR_TREE_BLOCKS at a time: a power of
 * two, so that each batch is a node of the tree, and a binary counter takes the batches. */
#include "cuda_probe.h"

#include "cuda_tile.cuh"

#include "../element.h"
#include "../reduce.h"

#include <math.h>
#include <string.h>

enum {
    ROW_THREADS = 256,
    ROW_WARPS = ROW_THREADS / 32,
    GR_TREE_BLOCKS = 64,
    GR_TREE_LEVELS = 48
};

/* The running tree of a row: kept in shared memory, used by thread 0. */
typedef struct gr_row_tree {
    double block[GR_TREE_BLOCKS];
    double subtree[GR_TREE_LEVELS];
    uint32_t held;
    uint64_t batches;
    double sum;
} gr_row_tree;

/* One block of a row, as a warp sees it. */
typedef struct gr_row_block {
    uint64_t begin; /* in the row */
    uint32_t n;
} gr_row_block;

/* The counter of gr_tree_blocks_strided, batch by batch. */
GR_DEVICE void gr_tree_take(gr_row_tree *tree, uint32_t count)
{
    double sum = gr_tree_blocks(tree->block, count);
    for (uint64_t carry = tree->batches++; carry % 2 != 0; carry /= 2)
        sum = tree->subtree[--tree->held] + sum;
    tree->subtree[tree->held++] = sum;
}

GR_DEVICE double gr_tree_end(gr_row_tree *tree)
{
    if (tree->held == 0)
        return 0.0;
    double sum = tree->subtree[--tree->held];
    while (tree->held > 0)
        sum = tree->subtree[--tree->held] + sum;
    return sum;
}

/* The tree over body.sum(block) of all blocks of `width` elements; every thread gets it. */
template <class BODY>
GR_DEVICE double gr_sum_row(gr_row_tree *tree, uint64_t width, const BODY &body)
{
    const uint64_t blocks = (width + GR_BLOCK - 1) / GR_BLOCK;
    __syncthreads();
    if (threadIdx.x == 0)
        tree->held = 0, tree->batches = 0;
    for (uint64_t first = 0; first < blocks; first += GR_TREE_BLOCKS) {
        const uint32_t here = blocks - first < GR_TREE_BLOCKS
                                  ? static_cast<uint32_t>(blocks - first)
                                  : static_cast<uint32_t>(GR_TREE_BLOCKS);
        __syncthreads();
        for (uint32_t k = threadIdx.x / 32; k < here; k += ROW_WARPS) {
            const uint64_t begin = (first + k) * GR_BLOCK;
            const gr_row_block block = { begin, width - begin < GR_BLOCK
                                                    ? static_cast<uint32_t>(width - begin)
                                                    : static_cast<uint32_t>(GR_BLOCK) };
            const double sum = body.sum(block);
            if (threadIdx.x % 32 == 0)
                tree->block[k] = sum;
        }
        __syncthreads();
        if (threadIdx.x == 0)
            gr_tree_take(tree, here);
    }
    if (threadIdx.x == 0)
        tree->sum = gr_tree_end(tree);
    __syncthreads();
    return tree->sum;
}

GR_DEVICE float gr_element(int32_t type, const char *row, uint64_t i)
{
    if (type == GRADREG_TYPE_F32)
        return reinterpret_cast<const float *>(row)[i];
    const uint16_t half = reinterpret_cast<const uint16_t *>(row)[i];
    return type == GRADREG_TYPE_BF16 ? gr_bf16_to_f32(half) : gr_f16_to_f32(half);
}

GR_DEVICE uint64_t gr_bytes_of(int32_t type, uint64_t elements)
{
    return elements * (type == GRADREG_TYPE_F32 ? 4 : 2);
}

/* ---- squares of a row ------------------------------------------------------------ */

/* reduce.h, steps 1 to 4, in the natural order of quads: thread t has lanes 4t to 4t + 3. */
template <class VALUE>
GR_DEVICE double gr_squares_of(const gr_row_block &block, const VALUE &value, uint32_t *bad)
{
    float lane[4] = { 0.0f, 0.0f, 0.0f, 0.0f };
    uint32_t seen = 0;
    for (uint32_t i = 4 * (threadIdx.x % 32); i < block.n; i += GR_LANES)
        for (uint32_t c = 0; c < 4 && i + c < block.n; c++) {
            const float x = value.narrow(block.begin + i + c);
            lane[c] = GR_ACCUMULATE(lane[c], x, x);
            seen |= value.seen(x);
        }
    __syncwarp();
    if (gr_lanes_in_range_warp(lane[0], lane[1], lane[2], lane[3]))
        return gr_tree_warp(lane[0], lane[1], lane[2], lane[3]);
    for (int offset = 16; offset >= 1; offset /= 2)
        seen |= __shfl_xor_sync(0xffffffffu, seen, offset);
    if (seen == 0)
        return 0.0;
    double sum = 0.0;
    for (uint32_t i = 4 * (threadIdx.x % 32); i < block.n; i += GR_LANES)
        for (uint32_t c = 0; c < 4 && i + c < block.n; c++) {
            const double x = value.wide(block.begin + i + c, bad);
            sum = GR_ACCUMULATE(sum, x, x);
        }
    __syncwarp();
    return gr_tree_warp_doubles(sum);
}

/* ---- inject ---------------------------------------------------------------------- */

struct gr_stored_value {
    int32_t type;
    const char *row;

    GR_DEVICE_MEMBER float narrow(uint64_t i) const
    {
        return gr_element(type, row, i);
    }
    GR_DEVICE_MEMBER uint32_t seen(float x) const
    {
        return gr_f32_bits(x);
    }
    GR_DEVICE_MEMBER double wide(uint64_t i, uint32_t *bad) const
    {
        const float x = gr_element(type, row, i);
        *bad += static_cast<uint32_t>(gr_is_non_finite(x));
        return static_cast<double>(x);
    }
};

struct gr_stored_squares {
    gr_stored_value value;
    uint32_t *bad; /* shared */

    GR_DEVICE_MEMBER double sum(const gr_row_block &block) const
    {
        uint32_t mine = 0;
        const double squares = gr_squares_of(block, value, &mine);
        if (mine != 0)
            atomicAdd(bad, mine);
        return squares;
    }
};

GR_DEVICE void gr_add_to(int32_t type, char *row, uint64_t i, float moved, uint32_t *saturated)
{
    if (type == GRADREG_TYPE_F32) {
        reinterpret_cast<float *>(row)[i] = moved;
        return;
    }
    if (type == GRADREG_TYPE_F16)
        *saturated += static_cast<uint32_t>(gr_f16_saturates(moved));
    reinterpret_cast<uint16_t *>(row)[i] =
        type == GRADREG_TYPE_BF16 ? gr_f32_to_bf16(moved) : gr_f32_to_f16_saturating(moved);
}

__global__ void __launch_bounds__(ROW_THREADS, 4)
    gradreg_cuda_k_probe_inject(const gr_inject_task task, uint64_t first)
{
    GR_SHARED(gr_row_tree, tree, 1);
    GR_SHARED(uint32_t, counts, 2); /* bad, saturated */
    const int32_t type = task.shape.type;
    const uint64_t r = first + blockIdx.x, width = task.shape.width;
    char *row = static_cast<char *>(task.hidden) + gr_bytes_of(type, r * task.shape.stride);
    const int32_t trial = task.first_trial + static_cast<int32_t>(r);
    if (threadIdx.x < 2)
        counts[threadIdx.x] = 0;
    __syncthreads();
    const gr_stored_squares body = { { type, row }, &counts[0] };
    const double squares = gr_sum_row(tree, width, body);
    const float sigma = gr_probe_sigma(task.noise_scale, squares, static_cast<double>(width));
    const bool moves = counts[0] == 0 && sigma != 0.0f;
    uint32_t saturated = 0;
    for (uint64_t i = 4 * threadIdx.x; moves && i < width; i += 4 * ROW_THREADS) {
        float four[4];
        gr_probe_gaussian4(task.seed, task.layer, trial, i / 4, four);
        GR_UNROLL
        for (uint64_t k = 0; k < 4; k++)
            if (i + k < width)
                gr_add_to(type, row, i + k,
                          GR_MOVE(gr_element(type, row, i + k), sigma, four[k]), &saturated);
    }
    if (saturated != 0)
        atomicAdd(&counts[1], saturated);
    __syncthreads();
    if (threadIdx.x == 0) {
        task.results[blockIdx.x].bad = counts[0] > 0;
        task.results[blockIdx.x].saturated = counts[1];
    }
}

__global__ void __launch_bounds__(32)
    gradreg_cuda_k_probe_count(const gr_inject_task task, uint32_t rows)
{
    for (uint32_t i = 0; threadIdx.x == 0 && i < rows; i++) {
        task.statistics->not_injected += task.results[i].bad;
        task.statistics->saturated += task.results[i].saturated;
    }
}

/* ---- observe --------------------------------------------------------------------- */

struct gr_terms_of_row {
    int32_t type;
    const char *row;
    float largest;

    GR_DEVICE_MEMBER double sum(const gr_row_block &block) const
    {
        double acc = 0.0;
        for (uint32_t i = 4 * (threadIdx.x % 32); i < block.n; i += GR_LANES)
            for (uint32_t c = 0; c < 4 && i + c < block.n; c++)
                acc += gr_probe_term(gr_element(type, row, block.begin + i + c), largest);
        __syncwarp();
        return gr_tree_warp_doubles(acc);
    }
};

__global__ void __launch_bounds__(ROW_THREADS, 4)
    gradreg_cuda_k_probe_observe(const gr_observe_task task, uint64_t first)
{
    GR_SHARED(gr_row_tree, tree, 1);
    GR_SHARED(float, largest, ROW_THREADS);
    const int32_t type = task.shape.type;
    const uint64_t width = task.shape.width;
    const char *row = static_cast<const char *>(task.logits) +
                      gr_bytes_of(type, (first + blockIdx.x) * task.shape.stride);
    float most = -HUGE_VALF;
    for (uint64_t i = threadIdx.x; i < width; i += ROW_THREADS)
        most = gr_probe_larger(most, gr_element(type, row, i));
    largest[threadIdx.x] = most;
    __syncthreads();
    for (uint32_t half = ROW_THREADS / 2; half > 0; half /= 2) {
        if (threadIdx.x < half)
            largest[threadIdx.x] =
                gr_probe_larger(largest[threadIdx.x], largest[threadIdx.x + half]);
        __syncthreads();
    }
    const gr_terms_of_row body = { type, row, largest[0] };
    const double sum = gr_sum_row(tree, width, body);
    if (threadIdx.x == 0)
        task.results[blockIdx.x].probability =
            gr_probe_term(gr_element(type, row, task.target), largest[0]) / sum;
}

__global__ void __launch_bounds__(32)
    gradreg_cuda_k_probe_note(const gr_observe_task task, uint32_t rows)
{
    for (uint32_t i = 0; threadIdx.x == 0 && i < rows; i++)
        gr_probe_note(task.statistics, task.results[i].probability);
}

/* ---- the probe's ops ------------------------------------------------------------- */

static gradreg_status run_inject(const gr_cuda_context *c, const gr_inject_task *task)
{
    for (size_t first = 0; first < task->shape.rows; first += GR_PROBE_ROWS) {
        const size_t left = task->shape.rows - first;
        const uint32_t n = static_cast<uint32_t>(left < GR_PROBE_ROWS ? left : GR_PROBE_ROWS);
        GR_LAUNCH(gradreg_cuda_k_probe_inject, n, ROW_THREADS, 0, c->stream, *task,
                  static_cast<uint64_t>(first));
        GR_CUDA_TRY_LAUNCH("probe_inject");
        GR_LAUNCH(gradreg_cuda_k_probe_count, 1, 32, 0, c->stream, *task, n);
        GR_CUDA_TRY_LAUNCH("probe_count");
    }
    return GRADREG_OK;
}

static gradreg_status run_observe(const gr_cuda_context *c, const gr_observe_task *task)
{
    for (size_t first = 0; first < task->shape.rows; first += GR_PROBE_ROWS) {
        const size_t left = task->shape.rows - first;
        const uint32_t n = static_cast<uint32_t>(left < GR_PROBE_ROWS ? left : GR_PROBE_ROWS);
        GR_LAUNCH(gradreg_cuda_k_probe_observe, n, ROW_THREADS, 0, c->stream, *task,
                  static_cast<uint64_t>(first));
        GR_CUDA_TRY_LAUNCH("probe_observe");
        GR_LAUNCH(gradreg_cuda_k_probe_note, 1, 32, 0, c->stream, *task, n);
        GR_CUDA_TRY_LAUNCH("probe_note");
    }
    return GRADREG_OK;
}

static gradreg_status run_clear(const gr_cuda_context *c, void *to, size_t bytes)
{
    GR_CUDA_TRY(cudaMemsetAsync(to, 0, bytes, c->stream));
    return GRADREG_OK;
}

/* The device around an op. */
#define GR_WITH_DEVICE(context, call)         \
    gr_cuda_context *c = gr_cuda_of(context); \
    gr_device_guard guard;                    \
    GR_TRY(gradreg_cuda_enter(c, &guard));    \
    const gradreg_status status = call;       \
    gradreg_cuda_leave(c, &guard);            \
    return status

static gradreg_status clear(gradreg_context *context, gr_probe_statistics *statistics,
                            size_t count)
{
    GR_WITH_DEVICE(context, run_clear(c, statistics, count * sizeof(*statistics)));
}

static gradreg_status inject(gradreg_context *context, const gr_inject_task *task)
{
    GR_WITH_DEVICE(context, run_inject(c, task));
}

static gradreg_status observe(gradreg_context *context, const gr_observe_task *task)
{
    GR_WITH_DEVICE(context, run_observe(c, task));
}

static gradreg_status read_statistics(gradreg_context *context, gr_probe_statistics *host,
                                      const gr_probe_statistics *statistics, size_t count)
{
    GR_WITH_DEVICE(context, gradreg_cuda_fetch(c, host, statistics, count * sizeof(*host)));
}

const gr_probe_ops gradreg_cuda_probe = { clear, inject, observe, read_statistics };

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
    GR_WITH_DEVICE(context, run_divergence(c, task));
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
    const uint64_t size = value.type == GRADREG_TYPE_F32 ? 4 : 2;
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
    const uint64_t size = task->type == GRADREG_TYPE_F32 ? 4 : 2;
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
    GR_WITH_DEVICE(context, run_delta(c, task));
}

const gr_monitor_ops gradreg_cuda_monitors = { divergence, delta };
