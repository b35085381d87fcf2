/* cuda_policy_logits.cu - a policy loss straight from logits, in one visit of each row.
 *
 * In: a checked task; targets are in device memory, so a row whose target is none is one without a
 * distribution. Out: dlogits, per-token log-probs and entropies, metrics, with the CPU's bits.
 *
 *      count ─► keep ─► visit: sums ─► logp, H ─► dlogp, dH ─► gradient ─► count ─► mend ─► write, metrics
 *
 * Denominators are counted before any row is read. A row that turns out to have no distribution leaves
 * them; what other rows were given is then made right by `mend`, which is queued in any case and ends at
 * once where no row was lost: the host does not know.
 *
 * A row is read from memory once where it fits into shared memory, of one thread block or of a cluster,
 * and twice elsewhere. */
#include "cuda_policy_logits.h"

#include "cuda_cluster.cuh"
#include "cuda_policy.h"
#include "cuda_rows.cuh"
#include "cuda_types.h"

#include "../policy_row.h"

enum { CHIP_THREADS = 512, CHIP_WARPS = CHIP_THREADS / 32, KEEP_THREADS = 128 };
enum { VISIT_MEASURE = 1, VISIT_SLOPE = 2, VISIT_MEND = 4 };

typedef struct gr_visit {
    gr_policy_logits_task task; /* its policy's row_offsets and group lie on the device */
    gr_policy_spare *spare;
    int32_t what;   /* VISIT_ bits */
    uint32_t ranks; /* thread blocks that share a row */
    uint64_t piece; /* elements that each of them holds; a multiple of GR_BLOCK */
} gr_visit;

GR_DEVICE bool gr_is_left_out(const gr_visit &v, size_t i)
{
    const uint8_t *mask = v.task.policy.batch.mask;
    return mask != NULL && mask[i] == 0;
}

GR_DEVICE bool gr_is_target(const gr_visit &v, int32_t target)
{
    return target >= 0 && static_cast<uint64_t>(target) < v.task.view.vocabulary;
}

/* What forward gives for a row that is not read. */
GR_DEVICE gr_logits_row gr_unread_row(int32_t target)
{
    const float x = target == GR_PADDING ? 0.0f : static_cast<float>(NAN);
    const gr_logits_row row = { x, x, x };
    return row;
}

/* ---- by one thread --------------------------------------------------------------- */

GR_DEVICE void gr_note_row(const gr_visit &v, size_t i, const gr_logits_row &row)
{
    v.task.logp[i] = row.logp;
    v.task.entropy[i] = row.entropy;
    v.task.log_sum_exp[i] = row.log_sum_exp;
    if (gr_is_non_finite(row.logp) || gr_is_non_finite(row.entropy))
        atomicAdd(&v.spare->lost, 1u);
}

/* After gr_note_row. `at`: the target's z. */
GR_DEVICE gr_logits_slope gr_slope_of_row(const gr_visit &v, size_t i, float at)
{
    const gr_policy_logits_task &t = v.task;
    const gr_token_slope s =
        gr_slopes_of_token(&t.policy, &v.spare->totals, gr_row_of_token(&t.policy.batch, i), i);
    return gr_logits_slope_of(at, t.log_sum_exp[i], static_cast<double>(t.entropy[i]),
                              static_cast<double>(s.dlogp), static_cast<double>(s.dentropy),
                              t.view.inverse);
}

/* What every token of row `row` was given when the rows were written. */
__global__ void __launch_bounds__(KEEP_THREADS)
    gradreg_cuda_k_policy_logits_keep(const gr_visit visit)
{
    const gr_policy_task *p = &visit.task.policy;
    const gr_policy_totals *totals = &visit.spare->totals;
    const size_t first = (size_t)blockIdx.x * KEEP_THREADS + threadIdx.x;
    for (size_t r = first; r < p->batch.sequences; r += (size_t)gridDim.x * KEEP_THREADS)
        visit.task.weights[r] = gr_row_weight(p, totals, &p->rows[r]);
    if (first == 0) {
        visit.spare->tokens_before = totals->tokens;
        visit.spare->lost = 0;
    }
}

/* ---- a row from memory ----------------------------------------------------------- */

/* A row of the gradient times a factor. */
template <int TYPE>
GR_DEVICE void gr_scale_row(char *row, uint64_t vocabulary, double factor, char *stage)
{
    uint32_t ignored = 0;
    for (uint64_t at = (uint64_t)gr_warp() * GR_BLOCK; at < vocabulary;
         at += (uint64_t)gr_warps() * GR_BLOCK) {
        const uint64_t left = vocabulary - at;
        const uint32_t n = static_cast<uint32_t>(left < GR_BLOCK ? left : GR_BLOCK);
        char *x = row + at * gr_size_of<TYPE>();
        GR_NO_UNROLL
        for (uint32_t i = 0; i < n; i += GR_TILE) {
            const bool wide = gr_is_wide(x) && i + GR_TILE <= n;
            gr_tile<TYPE> tile;
            gr_load(&tile, x, NULL, i, n, wide, stage);
            GR_UNROLL
            for (int k = 0; k < 8; k++)
                gr_put(&tile, k,
                       static_cast<float>(static_cast<double>(gr_get(tile, k)) * factor),
                       &ignored);
            gr_store(x, tile, i, n, wide, stage);
        }
    }
}

/* The factor by which the weight of token i has changed since its row was written; 1: not at all. */
GR_DEVICE double gr_factor_of(const gr_visit &v, size_t i)
{
    const gr_policy_task *p = &v.task.policy;
    const size_t r = gr_row_of_token(&p->batch, i);
    const double weight = gr_row_weight(p, &v.spare->totals, &p->rows[r]);
    return weight == v.task.weights[r] ? 1.0 : weight / v.task.weights[r];
}

/* Whether the row has to be computed again; in place it is scaled here. */
template <int TYPE> GR_DEVICE bool gr_must_mend(const gr_visit &v, size_t i, char *stage)
{
    const gr_policy_logits_task &t = v.task;
    const double factor = gr_factor_of(v, i);
    if (!gr_rollout_by_sequence(&t.policy.policy) && factor == 1.0 &&
        v.spare->totals.tokens == v.spare->tokens_before)
        return false;
    if (t.dlogits != t.logits)
        return true;
    gr_scale_row<TYPE>(static_cast<char *>(t.dlogits) + gr_row_offset(t.view, i),
                       t.view.vocabulary, factor, stage);
    return false;
}

typedef struct gr_visit_memory {
    gr_row_memory row;
    gr_logits_slope slope;
} gr_visit_memory;

template <int TYPE>
GR_DEVICE void gr_visit_measure(const gr_visit &v, gr_visit_memory *m, size_t i,
                                const char *row, char *stage)
{
    const float inverse = static_cast<float>(v.task.view.inverse);
    const int32_t target = v.task.targets[i];
    gr_logits_row values = gr_unread_row(target);
    if (gr_is_target(v, target))
        values = gr_measure_row<TYPE>(
            &m->row, row, v.task.view.vocabulary, inverse,
            gr_element(TYPE, row, static_cast<uint64_t>(target)) * inverse, stage);
    if (threadIdx.x == 0)
        gr_note_row(v, i, values);
}

template <int TYPE>
GR_DEVICE void gr_visit_slope(const gr_visit &v, gr_visit_memory *m, size_t i, const char *row,
                              char *stage)
{
    const uint64_t vocabulary = v.task.view.vocabulary;
    const float inverse = static_cast<float>(v.task.view.inverse);
    const int32_t target = v.task.targets[i];
    char *out = static_cast<char *>(v.task.dlogits) + gr_row_offset(v.task.view, i);
    if (!gr_is_target(v, target)) {
        gr_clear_row<TYPE>(out, vocabulary);
        return;
    }
    if (threadIdx.x == 0) {
        const float at = gr_element(TYPE, row, static_cast<uint64_t>(target)) * inverse;
        const gr_logits_slope own = gr_slope_of_row(v, i, at);
        m->slope = own;
    }
    __syncthreads(); /* the target's logit has been read: out may be the logits */
    const gr_logits_slope slope = m->slope;
    if (slope.kind == GR_SLOPE_ZERO)
        gr_clear_row<TYPE>(out, vocabulary);
    else
        gr_slope_row<TYPE>(out, row, vocabulary, inverse, slope, static_cast<uint64_t>(target),
                           stage);
}

template <int TYPE>
__global__ void __launch_bounds__(GR_ROW_THREADS, 2)
    gradreg_cuda_k_policy_logits(const gr_visit visit)
{
    GR_SHARED(gr_visit_memory, memory, 1);
    GR_SHARED(uint4, stages, GR_ROW_WARPS * GR_STAGE_BYTES / 16);
    char *stage = reinterpret_cast<char *>(stages) + gr_warp() * GR_STAGE_BYTES;
    const gr_policy_logits_task &t = visit.task;
    if (visit.what == VISIT_MEND && visit.spare->lost == 0)
        return;
    for (size_t i = blockIdx.x; i < t.view.rows; i += gridDim.x) {
        const char *row = static_cast<const char *>(t.logits) + gr_row_offset(t.view, i);
        __syncthreads(); /* memory is used again */
        if (gr_is_left_out(visit, i)) {
            if (visit.what & VISIT_SLOPE)
                gr_clear_row<TYPE>(static_cast<char *>(t.dlogits) + gr_row_offset(t.view, i),
                                   t.view.vocabulary);
            continue;
        }
        if (visit.what & VISIT_MEASURE)
            gr_visit_measure<TYPE>(visit, memory, i, row, stage);
        if (visit.what & VISIT_SLOPE ||
            (visit.what & VISIT_MEND && gr_must_mend<TYPE>(visit, i, stage)))
            gr_visit_slope<TYPE>(visit, memory, i, row, stage);
    }
}

/* ---- a row on the chip ----------------------------------------------------------- */

typedef struct gr_chip_memory {
    gr_logits_part part[GR_PARTS];
    gr_logits_stack stack;
    gr_logits_slope slope;
} gr_chip_memory;

/* The same bytes into shared memory, by the whole thread block; both begin at the same place within 16
 * bytes. */
GR_DEVICE void gr_bring(char *to, const char *from, uint32_t bytes)
{
    const uint32_t past = static_cast<uint32_t>(reinterpret_cast<uint64_t>(from) % 16);
    uint32_t head = (16 - past) % 16;
    head = head < bytes ? head : bytes;
    const uint32_t end = head + (bytes - head) / 16 * 16;
    GR_UNROLL_4
    for (uint32_t i = head + 16 * threadIdx.x; i < end; i += 16 * blockDim.x)
        *reinterpret_cast<uint4 *>(to + i) = *reinterpret_cast<const uint4 *>(from + i);
    for (uint32_t i = 2 * threadIdx.x; i < head; i += 2 * blockDim.x)
        *reinterpret_cast<uint16_t *>(to + i) = *reinterpret_cast<const uint16_t *>(from + i);
    for (uint32_t i = end + 2 * threadIdx.x; i < bytes; i += 2 * blockDim.x)
        *reinterpret_cast<uint16_t *>(to + i) = *reinterpret_cast<const uint16_t *>(from + i);
}

GR_DEVICE uint64_t gr_piece_length(const gr_visit &v, uint32_t rank)
{
    const uint64_t begin = rank * v.piece, vocabulary = v.task.view.vocabulary;
    const uint64_t left = begin < vocabulary ? vocabulary - begin : 0;
    return left < v.piece ? left : v.piece;
}

GR_DEVICE uint32_t gr_piece_blocks(const gr_visit &v, uint32_t rank)
{
    return static_cast<uint32_t>((gr_piece_length(v, rank) + GR_BLOCK - 1) / GR_BLOCK);
}

/* One thread of the first rank: the parts of all ranks, in their order; the token's numbers; its slope. */
GR_DEVICE void gr_finish_row(const gr_visit &v, gr_chip_memory *m, size_t i, float at)
{
    m->stack.held = 0;
    m->stack.count = 0;
    for (uint32_t rank = 0; rank < v.ranks; rank++) {
        const gr_logits_part *part = gr_cluster_at(m->part, rank, v.ranks);
        const uint32_t count = gr_piece_blocks(v, rank);
        for (uint32_t k = 0; k < count; k++)
            gr_logits_push(&m->stack, part[k]);
    }
    gr_note_row(v, i, gr_logits_finish(gr_logits_whole(&m->stack), at));
    const gr_logits_slope slope = gr_slope_of_row(v, i, at);
    m->slope = slope;
}

template <int TYPE>
GR_DEVICE void gr_visit_on_chip(const gr_visit &v, gr_chip_memory *m, size_t i, char *chip,
                                char *stage)
{
    const uint32_t rank = gr_cluster_rank(v.ranks);
    const uint64_t offset = gr_row_offset(v.task.view, i), begin = rank * v.piece;
    const uint64_t n = gr_piece_length(v, rank);
    const char *row = static_cast<const char *>(v.task.logits) + offset;
    const char *from = row + begin * gr_size_of<TYPE>();
    char *out = static_cast<char *>(v.task.dlogits) + offset + begin * gr_size_of<TYPE>();
    char *piece = chip + reinterpret_cast<uint64_t>(from) % 16;
    const float inverse = static_cast<float>(v.task.view.inverse);
    const int32_t target = v.task.targets[i];
    if (!gr_is_target(v, target)) {
        if (rank == 0 && threadIdx.x == 0)
            gr_note_row(v, i, gr_unread_row(target));
        gr_clear_row<TYPE>(out, n);
        return;
    }
    gr_bring(piece, from, static_cast<uint32_t>(n * gr_size_of<TYPE>()));
    __syncthreads();
    gr_measure_blocks<TYPE>(m->part, piece, n, 0, gr_piece_blocks(v, rank), inverse, stage);
    gr_cluster_wait(v.ranks);
    if (rank == 0 && threadIdx.x == 0)
        gr_finish_row(v, m, i, gr_element(TYPE, row, static_cast<uint64_t>(target)) * inverse);
    gr_cluster_wait(v.ranks); /* the target's logit has been read: out may be the logits */
    const gr_logits_slope slope = *gr_cluster_at(&m->slope, 0, v.ranks);
    if (slope.kind == GR_SLOPE_ZERO)
        gr_clear_row<TYPE>(out, n);
    else
        gr_slope_row<TYPE>(out, piece, n, inverse, slope, static_cast<uint64_t>(target) - begin,
                           stage);
}

template <int TYPE>
__global__ void __launch_bounds__(CHIP_THREADS, 1)
    gradreg_cuda_k_policy_logits_on_chip(const gr_visit visit)
{
    GR_SHARED(gr_chip_memory, memory, 1);
    GR_SHARED(uint4, stages, CHIP_WARPS * GR_STAGE_BYTES / 16);
    GR_DYNAMIC_SHARED(char, chip);
    char *stage = reinterpret_cast<char *>(stages) + gr_warp() * GR_STAGE_BYTES;
    const gr_policy_logits_task &t = visit.task;
    const uint32_t rank = gr_cluster_rank(visit.ranks);
    for (size_t i = blockIdx.x / visit.ranks; i < t.view.rows; i += gridDim.x / visit.ranks) {
        __syncthreads(); /* what was brought before has been read */
        if (!gr_is_left_out(visit, i))
            gr_visit_on_chip<TYPE>(visit, memory, i, chip, stage);
        else
            gr_clear_row<TYPE>(static_cast<char *>(t.dlogits) + gr_row_offset(t.view, i) +
                                   rank * visit.piece * gr_size_of<TYPE>(),
                               gr_piece_length(visit, rank));
    }
    gr_cluster_wait(visit.ranks); /* others read this one's shared memory */
}

/* ---- where a row fits ------------------------------------------------------------ */

/* What the kernel takes besides, and gaps. */
enum { CHIP_STATIC = sizeof(gr_chip_memory) + CHIP_WARPS * GR_STAGE_BYTES + 128 };
enum { CLUSTER_MOST = 8 };

template <int TYPE> static gradreg_status prepare_kernels(const gr_cuda_context *c)
{
    GR_TRY(gr_cuda_load(gradreg_cuda_k_policy_logits<TYPE>,
                        gradreg_cuda_k_policy_logits_on_chip<TYPE>));
    GR_CUDA_TRY(cudaFuncSetAttribute(gradreg_cuda_k_policy_logits_on_chip<TYPE>,
                                     cudaFuncAttributeMaxDynamicSharedMemorySize,
                                     c->chip_bytes));
    return GRADREG_OK;
}

static gradreg_status find_cluster_most(gr_cuda_context *c)
{
    int has_clusters = 0, most = 1;
    c->cluster_most = 1;
    GR_CUDA_TRY(cudaDeviceGetAttribute(&has_clusters, cudaDevAttrClusterLaunch, c->device));
    if (has_clusters)
        GR_CUDA_TRY(
            gr_cuda_find_clusters(&most, gradreg_cuda_k_policy_logits_on_chip<GRADREG_TYPE_F32>,
                                  CHIP_THREADS, static_cast<size_t>(c->chip_bytes)));
    c->cluster_most = most < CLUSTER_MOST ? most : +CLUSTER_MOST;
    return GRADREG_OK;
}

gradreg_status gradreg_cuda_policy_logits_open(gr_cuda_context *c)
{
    c->chip_bytes = c->shared_bytes - CHIP_STATIC;
    GR_TRY(gr_cuda_load(gradreg_cuda_k_policy_logits_keep));
    GR_TRY(gr_cuda_for_types(GR_ALL_TYPES,
                             [&](auto type, int) { return prepare_kernels<type>(c); }));
    return find_cluster_most(c);
}

/* Bytes of shared memory for a piece, wherever it begins within 16 bytes. */
static size_t chip_bytes_of(const gr_visit *v)
{
    const gr_logits_view *view = &v->task.view;
    const uint64_t most = v->piece < view->vocabulary ? v->piece : view->vocabulary;
    return most * gr_type_bytes(view->type) + 16;
}

/* The fewest ranks whose shared memory holds a row together; 0: it fits nowhere. */
static uint32_t share_row(const gr_cuda_context *c, gr_visit *v)
{
    const uint64_t blocks = (v->task.view.vocabulary + GR_BLOCK - 1) / GR_BLOCK;
    for (uint32_t ranks = 1; ranks <= static_cast<uint32_t>(c->cluster_most); ranks *= 2) {
        v->piece = (blocks + ranks - 1) / ranks * GR_BLOCK;
        if (v->piece <= (uint64_t)GR_PARTS * GR_BLOCK &&
            chip_bytes_of(v) <= static_cast<size_t>(c->chip_bytes))
            return ranks;
    }
    return 0;
}

/* ---- the op ---------------------------------------------------------------------- */

template <int TYPE> static gradreg_status launch_rows(const gr_cuda_context *c, gr_visit *v)
{
    GR_LAUNCH((gradreg_cuda_k_policy_logits<TYPE>), gr_cuda_grid(c, v->task.view.rows, 8),
              GR_ROW_THREADS, 0, c->stream, *v);
    GR_CUDA_TRY_LAUNCH("policy_logits");
    return GRADREG_OK;
}

template <int TYPE> static gradreg_status launch_chip(const gr_cuda_context *c, gr_visit *v)
{
    const unsigned few = GR_ROW_THREADS, many = CHIP_THREADS;
    const unsigned threads = v->piece > GR_ROW_WARPS * GR_BLOCK ? many : few;
    const unsigned grid = gr_cuda_grid(c, v->task.view.rows, 8) * v->ranks;
    if (v->ranks == 1)
        GR_LAUNCH((gradreg_cuda_k_policy_logits_on_chip<TYPE>), grid, threads, chip_bytes_of(v),
                  c->stream, *v);
    else
        GR_LAUNCH_CLUSTERS((gradreg_cuda_k_policy_logits_on_chip<TYPE>), grid, v->ranks,
                           threads, chip_bytes_of(v), c->stream, *v);
    GR_CUDA_TRY_LAUNCH("policy_logits_on_chip");
    return GRADREG_OK;
}

static gradreg_status visit_rows(const gr_cuda_context *c, gr_visit *v, int32_t what)
{
    v->what = what;
    v->ranks = what == (VISIT_MEASURE | VISIT_SLOPE) ? share_row(c, v) : 0;
    return gr_cuda_with_type(v->task.view.type, [&](auto type) {
        return v->ranks > 0 ? launch_chip<type>(c, v) : launch_rows<type>(c, v);
    });
}

/* Numbers of rows that are not read, and finite ones of the others for the count. */
static gradreg_status clear_numbers(const gr_cuda_context *c, const gr_policy_logits_task *t)
{
    const size_t bytes = t->view.rows * sizeof(float);
    GR_CUDA_TRY(cudaMemsetAsync(t->logp, 0, bytes, c->stream));
    GR_CUDA_TRY(cudaMemsetAsync(t->entropy, 0, bytes, c->stream));
    GR_CUDA_TRY(cudaMemsetAsync(t->log_sum_exp, 0, bytes, c->stream));
    return GRADREG_OK;
}

static gradreg_status keep_weights(const gr_cuda_context *c, const gr_visit *v)
{
    const size_t sequences = v->task.policy.batch.sequences;
    GR_LAUNCH(gradreg_cuda_k_policy_logits_keep,
              gr_cuda_grid(c, (sequences + KEEP_THREADS - 1) / KEEP_THREADS, 8), KEEP_THREADS,
              0, c->stream, *v);
    GR_CUDA_TRY_LAUNCH("policy_logits_keep");
    return GRADREG_OK;
}

static gradreg_status run(const gr_cuda_context *c, gr_policy_launch *policy,
                          const gr_policy_logits_task *task)
{
    gr_visit v = { *task, policy->spare, 0, 0, 0 };
    GR_TRY(gradreg_cuda_policy_send(c, policy));
    v.task.policy = policy->task;
    if (task->view.rows > 0)
        GR_TRY(clear_numbers(c, task));
    if (task->view.rows > 0 && task->twice)
        GR_TRY(visit_rows(c, &v, VISIT_MEASURE));
    GR_TRY(gradreg_cuda_policy_count(c, policy));
    if (task->view.rows > 0 && task->twice)
        GR_TRY(visit_rows(c, &v, VISIT_SLOPE));
    if (task->view.rows > 0 && !task->twice) {
        GR_TRY(keep_weights(c, &v));
        GR_TRY(visit_rows(c, &v, VISIT_MEASURE | VISIT_SLOPE));
        GR_TRY(gradreg_cuda_policy_count(c, policy));
        GR_TRY(visit_rows(c, &v, VISIT_MEND));
    }
    return gradreg_cuda_policy_write(c, policy);
}

gradreg_status gradreg_cuda_policy_logits(gradreg_context *context,
                                          const gr_policy_logits_task *task)
{
    gr_policy_launch policy = gradreg_cuda_policy_open(&task->policy);
    return gr_cuda_run(context, run, &policy, task);
}
