/* cuda_policy.cu - policy losses: a warp a row, in two walks, as cpu_policy.c does it.
 *
 * In: a gr_policy_task; row offsets and group ids are the host's and travel as kernel parameters.
 * Out: gradients, metrics. Token t of a row belongs to thread t % 32, which is accumulator t % 32 of
 * reduce.h: sums have the CPU's bits. Device scratch:
 *
 *      rows | group ids | totals, counters, row offsets */
#include "cuda_policy.h"

#include "cuda_fold.cuh"
#include "cuda_write.h"

#include "../policy_row.h"
#include "../reduce.h"

enum { ROW_THREADS = 128, ROW_WARPS = ROW_THREADS / 32, TOTAL_THREADS = 512 };
enum { METRIC_WARPS = GR_POLICY_SUMS + 1, METRIC_THREADS = 32 * METRIC_WARPS };

/* ---- first walk ------------------------------------------------------------------ */

GR_DEVICE void gr_measure_row(const gr_policy_task *task, size_t r)
{
    const size_t begin = gr_row_begin(&task->batch, r), n = gr_row_length(&task->batch, r);
    double sums[GR_POLICY_FIRST_SUMS] = { 0.0, 0.0, 0.0, 0.0, 0.0 };
    for (size_t t = threadIdx.x % 32; t < n; t += 32) {
        gr_token token;
        double add[GR_POLICY_FIRST_SUMS];
        const enum gr_token_kind kind = gr_read_token(&token, task, r, begin + t);
        if (kind == GR_IS_NON_FINITE)
            sums[GR_POLICY_NON_FINITE] += 1.0;
        if (kind != GR_IS_COUNTED)
            continue;
        gr_first_sums(add, &task->policy, &token);
        GR_UNROLL
        for (int k = 0; k < GR_POLICY_FIRST_SUMS; k++)
            sums[k] = sums[k] + add[k];
    }
    __syncwarp();
    GR_UNROLL
    for (int k = 0; k < GR_POLICY_FIRST_SUMS; k++) {
        const double sum = gr_tree_warp_doubles(sums[k]);
        if (threadIdx.x % 32 == 0)
            task->rows[r].sums[k] = sum;
    }
}

__global__ void __launch_bounds__(ROW_THREADS, 4)
    gradreg_cuda_k_policy_measure(const gr_policy_launch launch)
{
    for (size_t r = (size_t)blockIdx.x * ROW_WARPS + threadIdx.x / 32;
         r < launch.task.batch.sequences; r += (size_t)gridDim.x * ROW_WARPS)
        gr_measure_row(&launch.task, r);
}

/* ---- denominators ---------------------------------------------------------------- */

/* Tokens of every row's prompt, and how many prompts have one: each row looks at all others. Counts
 * are whole numbers, so any order gives their sum. */
__global__ void __launch_bounds__(ROW_THREADS, 4)
    gradreg_cuda_k_policy_prompts(const gr_policy_launch launch)
{
    GR_SHARED(int32_t, groups, ROW_THREADS);
    GR_SHARED(double, tokens, ROW_THREADS);
    const gr_policy_task *task = &launch.task;
    const size_t rows = task->batch.sequences;
    const size_t r = (size_t)blockIdx.x * ROW_THREADS + threadIdx.x;
    const int32_t mine = r < rows ? task->batch.group[r] : 0;
    double sum = 0.0;
    bool first = true;
    for (size_t begin = 0; begin < rows; begin += ROW_THREADS) {
        const size_t other = begin + threadIdx.x;
        __syncthreads();
        groups[threadIdx.x] = other < rows ? task->batch.group[other] : 0;
        tokens[threadIdx.x] = other < rows ? task->rows[other].sums[GR_POLICY_TOKENS] : 0.0;
        __syncthreads();
        for (size_t k = 0; k < ROW_THREADS && begin + k < rows; k++)
            if (groups[k] == mine) {
                sum += tokens[k];
                first = first && begin + k >= r;
            }
    }
    if (r >= rows)
        return;
    task->rows[r].prompt_tokens = sum;
    if (first && sum > 0.0)
        atomicAdd(&launch.spare->prompts, 1u);
}

/* Whole numbers again. */
__global__ void __launch_bounds__(TOTAL_THREADS, 2)
    gradreg_cuda_k_policy_totals(const gr_policy_launch launch)
{
    GR_SHARED(double, tokens, TOTAL_THREADS);
    GR_SHARED(double, counts, TOTAL_THREADS);
    const gr_policy_task *task = &launch.task;
    double sum = 0.0, rows = 0.0;
    for (size_t r = threadIdx.x; r < task->batch.sequences; r += TOTAL_THREADS) {
        sum += task->rows[r].sums[GR_POLICY_TOKENS];
        rows += task->rows[r].sums[GR_POLICY_TOKENS] > 0.0;
    }
    tokens[threadIdx.x] = sum;
    counts[threadIdx.x] = rows;
    __syncthreads();
    if (threadIdx.x != 0)
        return;
    for (int k = 1; k < TOTAL_THREADS; k++) {
        sum += tokens[k];
        rows += counts[k];
    }
    launch.spare->totals =
        gr_totals_of(task, sum, rows, static_cast<double>(launch.spare->prompts));
}

/* ---- second walk ----------------------------------------------------------------- */

GR_DEVICE double gr_shared_slope(const gr_row_view *v)
{
    double sum = 0.0;
    for (size_t t = threadIdx.x % 32; t < v->length; t += 32) {
        gr_token token;
        if (gr_read_token(&token, v->task, v->row, v->begin + t) != GR_IS_COUNTED)
            continue;
        const gr_outcome o = gr_work_out(v, &token);
        sum = sum + gr_slope_of_token(v, &o);
    }
    __syncwarp();
    return gr_tree_warp_doubles(sum);
}

/* The smallest ratio (sign 1) or the largest (-1) of a warp. */
GR_DEVICE double gr_extreme(double x, double sign)
{
    for (int offset = 16; offset >= 1; offset /= 2) {
        const double other = __shfl_xor_sync(0xffffffffu, x, offset);
        x = sign * other < sign * x ? other : x;
    }
    return x;
}

GR_DEVICE void gr_write_row(const gr_row_view *v, double entropy_gradient)
{
    enum { SUMS = GR_POLICY_SUMS - GR_POLICY_FIRST_SUMS };
    const gr_policy_task *task = v->task;
    const double slope = gr_shares_ratio(&task->policy) ? gr_shared_slope(v) : 0.0;
    double sums[SUMS], low = HUGE_VAL, high = -1.0;
    GR_UNROLL
    for (int k = 0; k < SUMS; k++)
        sums[k] = 0.0;
    for (size_t t = threadIdx.x % 32; t < v->length; t += 32) {
        const size_t i = v->begin + t;
        gr_token token;
        const int counts = gr_read_token(&token, task, v->row, i) == GR_IS_COUNTED;
        if (task->dentropy != NULL)
            task->dentropy[i] = counts ? static_cast<float>(entropy_gradient) : 0.0f;
        double gradient = 0.0;
        if (counts) {
            double add[GR_POLICY_SUMS];
            const gr_outcome o = gr_work_out(v, &token);
            gr_outcome_sums(add, v, &o, &token);
            GR_UNROLL
            for (int k = 0; k < SUMS; k++)
                sums[k] = sums[k] + add[GR_POLICY_FIRST_SUMS + k];
            low = o.ratio < low ? o.ratio : low;
            high = o.ratio > high ? o.ratio : high;
            gradient = gr_token_gradient(v, &o, slope);
        }
        task->dlogp[i] = static_cast<float>(gradient);
    }
    __syncwarp();
    low = gr_extreme(low, 1.0);
    high = gr_extreme(high, -1.0);
    GR_UNROLL
    for (int k = 0; k < SUMS; k++) {
        const double sum = gr_tree_warp_doubles(sums[k]);
        if (threadIdx.x % 32 == 0)
            task->rows[v->row].sums[GR_POLICY_FIRST_SUMS + k] = sum;
    }
    if (threadIdx.x % 32 == 0) {
        task->rows[v->row].ratio_min = low;
        task->rows[v->row].ratio_max = high;
    }
}

__global__ void __launch_bounds__(ROW_THREADS, 4)
    gradreg_cuda_k_policy_write(const gr_policy_launch launch)
{
    for (size_t r = (size_t)blockIdx.x * ROW_WARPS + threadIdx.x / 32;
         r < launch.task.batch.sequences; r += (size_t)gridDim.x * ROW_WARPS) {
        const gr_row_view v = gr_view_row(&launch.task, &launch.spare->totals, r);
        gr_write_row(&v, gr_entropy_gradient(&launch.task, &launch.spare->totals));
    }
}

/* ---- metrics --------------------------------------------------------------------- */

/* One thread block: a warp per sum, and one for the range; rows' sums are used up by the fold, so what
 * needs them comes first. */
__global__ void __launch_bounds__(METRIC_THREADS, 1)
    gradreg_cuda_k_policy_metrics(const gr_policy_launch launch)
{
    GR_SHARED(double, sums, GR_POLICY_SUMS);
    GR_SHARED(double, means, GR_POLICY_SUMS);
    GR_SHARED(double, range, 2);
    const gr_policy_task *task = &launch.task;
    const int warp = static_cast<int>(threadIdx.x / 32);
    if (warp < GR_POLICY_SUMS && threadIdx.x % 32 == 0)
        means[warp] = gr_metrics_by_row(&task->policy) ? gr_add_row_means(task, warp) : 0.0;
    if (warp == GR_POLICY_SUMS && threadIdx.x % 32 == 0)
        gr_find_ratio_range(task, &range[0], &range[1]);
    __syncthreads();
    if (warp < GR_POLICY_SUMS) {
        const double sum = task->batch.sequences == 0
                               ? 0.0
                               : gr_fold(&task->rows[0].sums[warp],
                                         static_cast<uint32_t>(task->batch.sequences),
                                         sizeof(gr_policy_row) / sizeof(double));
        if (threadIdx.x % 32 == 0)
            sums[warp] = sum;
    }
    __syncthreads();
    if (threadIdx.x == 0)
        gr_fill_metrics(task->metrics, task, &launch.spare->totals, sums, means, range[0],
                        range[1]);
}

/* ---- the op ---------------------------------------------------------------------- */

gradreg_status gradreg_cuda_policy_send(const gr_cuda_context *c, gr_policy_launch *launch)
{
    gradreg_policy_batch *b = &launch->task.batch;
    const size_t rows = b->sequences;
    GR_CUDA_REQUIRE(rows <= UINT32_MAX, GRADREG_ERROR_UNSUPPORTED,
                    "batch.sequences is %llu, a CUDA context takes at most 2^32 - 1",
                    static_cast<unsigned long long>(rows));
    if (b->row_offsets != NULL) {
        GR_TRY(gradreg_cuda_write(c, launch->spare->offsets, b->row_offsets,
                                  (rows + 1) * sizeof(int64_t)));
        b->row_offsets = launch->spare->offsets;
    }
    if (b->group != NULL && launch->task.policy.aggregation == GRADREG_AGGREGATE_PROMPT_MEAN) {
        GR_TRY(gradreg_cuda_write(c, launch->task.order, b->group, rows * sizeof(int32_t)));
        b->group = reinterpret_cast<const int32_t *>(launch->task.order);
    }
    return GRADREG_OK;
}

static unsigned grid_of(const gr_cuda_context *c, size_t rows)
{
    return gr_cuda_grid(c, (rows + ROW_WARPS - 1) / ROW_WARPS, 16);
}

gradreg_status gradreg_cuda_policy_count(const gr_cuda_context *c,
                                         const gr_policy_launch *launch)
{
    const size_t rows = launch->task.batch.sequences;
    GR_LAUNCH(gradreg_cuda_k_policy_measure, grid_of(c, rows), ROW_THREADS, 0, c->stream,
              *launch);
    GR_CUDA_TRY_LAUNCH("policy_measure");
    GR_CUDA_TRY(cudaMemsetAsync(&launch->spare->prompts, 0, sizeof(uint32_t), c->stream));
    if (launch->task.policy.aggregation == GRADREG_AGGREGATE_PROMPT_MEAN && rows > 0) {
        GR_LAUNCH(gradreg_cuda_k_policy_prompts,
                  static_cast<unsigned>((rows + ROW_THREADS - 1) / ROW_THREADS), ROW_THREADS, 0,
                  c->stream, *launch);
        GR_CUDA_TRY_LAUNCH("policy_prompts");
    }
    GR_LAUNCH(gradreg_cuda_k_policy_totals, 1, TOTAL_THREADS, 0, c->stream, *launch);
    GR_CUDA_TRY_LAUNCH("policy_totals");
    return GRADREG_OK;
}

gradreg_status gradreg_cuda_policy_write(const gr_cuda_context *c,
                                         const gr_policy_launch *launch)
{
    GR_LAUNCH(gradreg_cuda_k_policy_write, grid_of(c, launch->task.batch.sequences),
              ROW_THREADS, 0, c->stream, *launch);
    GR_CUDA_TRY_LAUNCH("policy_write");
    if (launch->task.metrics == NULL)
        return GRADREG_OK;
    GR_LAUNCH(gradreg_cuda_k_policy_metrics, 1, METRIC_THREADS, 0, c->stream, *launch);
    GR_CUDA_TRY_LAUNCH("policy_metrics");
    return GRADREG_OK;
}

gr_policy_launch gradreg_cuda_policy_open(const gr_policy_task *task)
{
    const gr_policy_launch launch = { *task, static_cast<gr_policy_spare *>(task->spare) };
    return launch;
}

static gradreg_status run(const gr_cuda_context *c, gr_policy_launch *launch)
{
    GR_TRY(gradreg_cuda_policy_send(c, launch));
    GR_TRY(gradreg_cuda_policy_count(c, launch));
    return gradreg_cuda_policy_write(c, launch);
}

static gradreg_status policy_loss(gradreg_context *context, const gr_policy_task *task)
{
    gr_policy_launch launch = gradreg_cuda_policy_open(task);
    return gr_cuda_run(context, run, &launch);
}

/* ---- back to the host ------------------------------------------------------------ */

static gradreg_status read_metrics(gradreg_context *context, gradreg_policy_metrics *out,
                                   const gradreg_policy_metrics *metrics)
{
    gradreg_policy_metrics read;
    GR_TRY(gr_cuda_run(context, gradreg_cuda_fetch, &read, metrics, sizeof(read)));
    gradreg_cuda_core->struct_write(out, &read, sizeof(read));
    return GRADREG_OK;
}

const gr_loss_ops gradreg_cuda_losses = { policy_loss, gradreg_cuda_advantages, read_metrics };

gradreg_status gradreg_cuda_load_policy(void)
{
    return gr_cuda_load(gradreg_cuda_k_policy_measure, gradreg_cuda_k_policy_prompts,
                        gradreg_cuda_k_policy_totals, gradreg_cuda_k_policy_write,
                        gradreg_cuda_k_policy_metrics);
}
