/* cuda_probe.cu - the causal probe: a thread block a row.
 *
 * In: checked tasks. Out: moved rows, statistics of their probabilities, with the CPU's bits. */
#include "cuda_probe.h"

#include "cuda_row_sums.cuh"

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
    *saturated += static_cast<uint32_t>(gr_saturates(type, moved));
    reinterpret_cast<uint16_t *>(row)[i] = gr_f32_to_half(type, moved);
}

__global__ void __launch_bounds__(ROW_THREADS, 4)
    gradreg_cuda_k_probe_inject(const gr_inject_task task, uint64_t first)
{
    GR_SHARED(gr_row_tree, tree, 1);
    GR_SHARED(uint32_t, counts, 2); /* bad, saturated */
    const int32_t type = task.shape.type;
    const uint64_t r = first + blockIdx.x, width = task.shape.width;
    char *row = static_cast<char *>(task.hidden) + r * task.shape.stride * gr_type_bytes(type);
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
                      (first + blockIdx.x) * task.shape.stride * gr_type_bytes(type);
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

static gradreg_status clear(gradreg_context *context, gr_probe_statistics *statistics,
                            size_t count)
{
    return gr_cuda_run(context, run_clear, statistics, count * sizeof(*statistics));
}

static gradreg_status inject(gradreg_context *context, const gr_inject_task *task)
{
    return gr_cuda_run(context, run_inject, task);
}

static gradreg_status observe(gradreg_context *context, const gr_observe_task *task)
{
    return gr_cuda_run(context, run_observe, task);
}

static gradreg_status read_statistics(gradreg_context *context, gr_probe_statistics *host,
                                      const gr_probe_statistics *statistics, size_t count)
{
    return gr_cuda_run(context, gradreg_cuda_fetch, host, statistics, count * sizeof(*host));
}

const gr_probe_ops gradreg_cuda_probe = { clear, inject, observe, read_statistics };

gradreg_status gradreg_cuda_load_probe(void)
{
    return gr_cuda_load(gradreg_cuda_k_probe_inject, gradreg_cuda_k_probe_count,
                        gradreg_cuda_k_probe_observe, gradreg_cuda_k_probe_note);
}
