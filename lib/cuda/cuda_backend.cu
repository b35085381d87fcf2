/* cuda_backend.cu - the regularizer's op table, and the object that the module exports.
 *
 * In: rows of sums, ranks' rows, bytes. Out: the same, moved and added on the stream. Only fetch
 * waits, and store for more than a few thousand bytes. */
#include "cuda_context.h"
#include "cuda_linear.h"
#include "cuda_logprobs.h"
#include "cuda_pieces.h"
#include "cuda_policy.h"
#include "cuda_policy_logits.h"
#include "cuda_probe.h"
#include "cuda_stages.h"
#include "cuda_write.h"

static double *row_at(gr_work *work, int row)
{
    return work->step.sums +
           static_cast<size_t>(row) * static_cast<size_t>(work->step.bin_count);
}

static cudaStream_t stream_of(const gr_work *work)
{
    return gr_cuda_of(work->context)->stream;
}

static gradreg_status zero(gr_work *work, void *backend, size_t bytes)
{
    if (bytes == 0)
        return GRADREG_OK;
    GR_TRY(gradreg_cuda_flush(work, NULL));
    GR_CUDA_TRY(cudaMemsetAsync(backend, 0, bytes, stream_of(work)));
    return GRADREG_OK;
}

static gradreg_status copy(gr_work *work, void *to, const void *from, size_t bytes)
{
    GR_TRY(gradreg_cuda_flush(work, NULL));
    GR_CUDA_TRY(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream_of(work)));
    return GRADREG_OK;
}

static gradreg_status count_held(gr_work *work)
{
    const double *held;
    if (work->step.options.world == 1)
        return GRADREG_OK; /* nobody compares */
    GR_TRY(gradreg_cuda_held(work, &held));
    return copy(work, row_at(work, GR_SUM_HELD), held,
                static_cast<size_t>(work->step.bin_count) * sizeof(double));
}

/* ---- ranks ----------------------------------------------------------------------- */

static size_t doubles_of(const gr_work *work, int first_row, int end_row)
{
    return static_cast<size_t>(end_row - first_row) * static_cast<size_t>(work->step.bin_count);
}

static gradreg_status pack(gr_work *work, int first_row, int end_row)
{
    const gradreg_regularizer_params *p = &work->step.options;
    const size_t k = doubles_of(work, first_row, end_row);
    GR_TRY(zero(work, work->exchange, static_cast<size_t>(p->world) * k * sizeof(double)));
    return copy(work, work->exchange + static_cast<size_t>(p->rank) * k,
                row_at(work, first_row), k * sizeof(double));
}

enum { UNPACK_THREADS = 256 };

__global__ void __launch_bounds__(UNPACK_THREADS)
    gradreg_cuda_k_unpack(double *out, const double *exchange, uint64_t count, int32_t world)
{
    for (uint64_t i = blockIdx.x * UNPACK_THREADS + threadIdx.x; i < count;
         i += (uint64_t)gridDim.x * UNPACK_THREADS) {
        double sum = exchange[i];
        for (int32_t rank = 1; rank < world; rank++)
            sum += exchange[(uint64_t)rank * count + i];
        out[i] = sum;
    }
}

static gradreg_status unpack(gr_work *work, int first_row, int end_row)
{
    const gr_cuda_context *c = gr_cuda_of(work->context);
    const size_t k = doubles_of(work, first_row, end_row);
    GR_LAUNCH(gradreg_cuda_k_unpack,
              gr_cuda_grid(c, (k + UNPACK_THREADS - 1) / UNPACK_THREADS, 1), UNPACK_THREADS, 0,
              c->stream, row_at(work, first_row), work->exchange, static_cast<uint64_t>(k),
              work->step.options.world);
    GR_CUDA_TRY_LAUNCH("unpack");
    return GRADREG_OK;
}

/* ---- the host -------------------------------------------------------------------- */

static gradreg_status fetch(gr_work *work, void *host, const void *backend, size_t bytes)
{
    if (bytes == 0)
        return GRADREG_OK;
    GR_TRY(gradreg_cuda_flush(work, NULL));
    return gradreg_cuda_fetch(gr_cuda_of(work->context), host, backend, bytes);
}

static gradreg_status store(gr_work *work, void *backend, const void *host, size_t bytes)
{
    if (bytes == 0)
        return GRADREG_OK;
    GR_TRY(gradreg_cuda_flush(work, NULL));
    if (bytes <= GR_WRITE_WORDS * sizeof(uint32_t) && bytes % 4 == 0)
        return gradreg_cuda_write(gr_cuda_of(work->context), backend, host, bytes);
    GR_TRY(gradreg_cuda_may_wait(gr_cuda_of(work->context)));
    GR_CUDA_TRY(cudaMemcpyAsync(backend, host, bytes, cudaMemcpyHostToDevice, stream_of(work)));
    GR_CUDA_TRY(cudaStreamSynchronize(stream_of(work)));
    return GRADREG_OK;
}

/* ---- kernels --------------------------------------------------------------------- */

gradreg_status gradreg_cuda_load_kernels(void)
{
    gradreg_status (*const loaders[])(void) = {
        gradreg_cuda_load_write,      gradreg_cuda_load_squares,  gradreg_cuda_load_perturb,
        gradreg_cuda_load_move,       gradreg_cuda_load_combine,  gradreg_cuda_load_decide,
        gradreg_cuda_load_policy,     gradreg_cuda_load_probe,    gradreg_cuda_load_monitors,
        gradreg_cuda_load_advantages, gradreg_cuda_load_logprobs, gradreg_cuda_load_linear,
        gradreg_cuda_load_pieces
    };
    for (gradreg_status (*load)(void) : loaders)
        GR_TRY(load());
    return gr_cuda_load(gradreg_cuda_k_unpack);
}

/* ---- the op table ---------------------------------------------------------------- */

static const gr_backend_ops ops = { "CUDA",
                                    gradreg_cuda_scratch_bytes,
                                    gradreg_cuda_note_bytes,
                                    gradreg_cuda_begin,
                                    zero,
                                    gradreg_cuda_squares,
                                    gradreg_cuda_verify_master,
                                    count_held,
                                    gradreg_cuda_inject,
                                    gradreg_cuda_perturb,
                                    gradreg_cuda_rehearse,
                                    gradreg_cuda_mirror,
                                    gradreg_cuda_combine,
                                    gradreg_cuda_restore,
                                    gradreg_cuda_decide,
                                    pack,
                                    unpack,
                                    fetch,
                                    store,
                                    copy,
                                    0 };

static const gr_logits_ops logits = { gradreg_cuda_logprobs_forward,
                                      gradreg_cuda_logprobs_backward,
                                      gradreg_cuda_policy_logits,
                                      gradreg_cuda_linear_forward,
                                      gradreg_cuda_linear_backward,
                                      NULL,
                                      0 };

/* ---- the module ------------------------------------------------------------------ */

#ifndef GR_CUDA_VERSION
#define GR_TEXT_(x)                     #x
#define GR_DOTTED_(major, minor, patch) GR_TEXT_(major) "." GR_TEXT_(minor) "." GR_TEXT_(patch)
#define GR_CUDA_VERSION \
    GR_DOTTED_(GRADREG_VERSION_MAJOR, GRADREG_VERSION_MINOR, GRADREG_VERSION_PATCH)
#endif

extern "C" {
extern __attribute__((visibility("default"))) const gr_module gradreg_cuda_module;
const gr_module gradreg_cuda_module = {
    { gradreg_cuda_open, gradreg_cuda_close, gradreg_cuda_enter, gradreg_cuda_leave,
      gradreg_cuda_set_stream, gradreg_cuda_synchronize, gradreg_cuda_allocate,
      gradreg_cuda_release, gradreg_cuda_look_up, gradreg_cuda_reaches_host },
    GR_MODULE_MAGIC,
    GR_MODULE_LAYOUT,
    GR_CUDA_VERSION,
    gradreg_cuda_load,
    { &ops, &gradreg_cuda_losses, &logits, &gradreg_cuda_probe, &gradreg_cuda_monitors }
};
}
