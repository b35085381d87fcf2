/* cuda_linear.cu - log-probs from hidden states and a head weight, through cuBLAS, a chunk of rows at a
 * time.
 *
 * In: a checked task; which rows take part is known to the device alone. Out: log-probs, or gradients of
 * hidden states and weight. Rows that take no part are zeros in the copy of the hidden states, so that
 * they are never read and add nothing:
 *
 *      hidden rows ─► H [m x width] ─► logits = H Wt ─► rows as in cuda_logprobs.cu
 *                                      slopes G      ─► dhidden = G W,  dweight += Gt H
 *
 * Logits are products of the inputs' own type, exact in f32. G is f32. For f32 and f16 the other two products
 * are of f32: hidden states are widened, the weight a panel of rows at a time. For bf16 G is split instead, a
 * few columns at a time (cuda_pieces.h), and all products are of bf16, for tensor cores:
 *
 *      G = G3 + G2 + G1      dhidden += G3 W, += G2 W, += G1 W      dweight += [G3 G2 G1]t [H H H]
 *
 * What that loses: the pieces' sum is G, exactly (gr_bf16_pieces), products of bf16 are exact in f32, and the
 * magnitudes of a slope's pieces are 1 + 2^-6 times its own together at most. So only sums round. With u the
 * error of an f32 addition (2^-24; 2^-23 where it cuts off), V columns in P panels and m rows, to first order,
 *
 *      |error of dhidden| <= (V + 3 P) u' |G| |W|      |error of dweight| <= 3 m u' |G|t |H|
 *
 * with u' = (1 + 2^-6) u, where products of f32 have (V + P) u and m u. A slope's first piece, which is nearly
 * all of it, is added last, after what is 2^-8 of it and less: so most of dweight's sums round no more often than
 * m times either, as long as cuBLAS adds in the order of memory.
 *
 * dhidden is small and W large: three products, whose sum is read and written each time. dweight is large and H
 * small: one product, so that dweight is read and written once, and H is there three times. */
#include "cuda_linear.h"

#include "cuda_blas.h"
#include "cuda_logprobs.h"
#include "cuda_pieces.h"
#include "cuda_rows.cuh"
#include "cuda_types.h"

/* ---- rows of matrices ------------------------------------------------------------ */

/* Row k to row k, converted; zeros for rows that take no part. */
typedef struct gr_rows_copy {
    char *to;
    const char *from;
    uint64_t to_stride, from_stride, rows, width, vocabulary;
    const int32_t *targets;        /* NULL: all take part */
    const float *dlogp, *dentropy; /* NULL: nothing depends on it */
} gr_rows_copy;

GR_DEVICE bool gr_takes_part(const gr_rows_copy &c, uint64_t k)
{
    if (c.targets == NULL)
        return true;
    if (c.targets[k] < 0 || static_cast<uint64_t>(c.targets[k]) >= c.vocabulary)
        return false;
    return c.dlogp == NULL || c.dlogp[k] != 0.0f ||
           (c.dentropy != NULL && c.dentropy[k] != 0.0f);
}

template <int FROM, int TO>
GR_DEVICE void gr_convert_row(char *to, const char *from, uint64_t width, char *stage)
{
    uint32_t ignored = 0;
    for (uint64_t at = (uint64_t)gr_warp() * GR_BLOCK; at < width;
         at += (uint64_t)gr_warps() * GR_BLOCK) {
        const uint64_t left = width - at;
        const uint32_t n = static_cast<uint32_t>(left < GR_BLOCK ? left : GR_BLOCK);
        const char *x = from + at * gr_size_of<FROM>();
        char *y = to + at * gr_size_of<TO>();
        GR_NO_UNROLL
        for (uint32_t i = 0; i < n; i += GR_TILE) {
            const bool whole = i + GR_TILE <= n;
            gr_tile<FROM> read;
            gr_tile<TO> written = {};
            gr_load(&read, x, NULL, i, n, whole && gr_is_wide(x), stage);
            GR_UNROLL
            for (int k = 0; k < 8; k++)
                gr_put(&written, k, gr_get(read, k), &ignored);
            gr_store(y, written, i, n, whole && gr_is_wide(y), stage);
        }
    }
}

template <int FROM, int TO>
__global__ void __launch_bounds__(GR_ROW_THREADS)
    gradreg_cuda_k_linear_rows(const gr_rows_copy copy)
{
    GR_SHARED(uint4, stages, GR_ROW_WARPS * GR_STAGE_BYTES / 16);
    char *stage = reinterpret_cast<char *>(stages) + gr_warp() * GR_STAGE_BYTES;
    for (uint64_t k = blockIdx.x; k < copy.rows; k += gridDim.x) {
        char *to = copy.to + k * copy.to_stride * gr_size_of<TO>();
        if (gr_takes_part(copy, k))
            gr_convert_row<FROM, TO>(to, copy.from + k * copy.from_stride * gr_size_of<FROM>(),
                                     copy.width, stage);
        else
            gr_clear_row<TO>(to, copy.width);
    }
}

/* bf16 is never widened: its gradients are products of bf16. */
template <int FROM, int TO> static constexpr bool gr_is_copied()
{
    return FROM != GRADREG_TYPE_BF16 || TO != GRADREG_TYPE_F32;
}

template <int FROM, int TO>
static gradreg_status launch_rows(const gr_cuda_context *c, const gr_rows_copy *copy)
{
    if constexpr (!gr_is_copied<FROM, TO>()) {
        (void)c, (void)copy;
        return GR_CUDA_FAIL(GRADREG_ERROR_UNSUPPORTED, "no kernel copies rows of type %d to %d",
                            FROM, TO);
    } else {
        GR_LAUNCH((gradreg_cuda_k_linear_rows<FROM, TO>), gr_cuda_grid(c, copy->rows, 8),
                  GR_ROW_THREADS, 0, c->stream, *copy);
        GR_CUDA_TRY_LAUNCH("linear_rows");
        return GRADREG_OK;
    }
}

template <int FROM, int TO> static gradreg_status load_rows()
{
    if constexpr (gr_is_copied<FROM, TO>())
        return gr_cuda_load(gradreg_cuda_k_linear_rows<FROM, TO>);
    else
        return GRADREG_OK;
}

/* Both types are one, or one is f32. */
static gradreg_status copy_rows(const gr_cuda_context *c, const gr_rows_copy *copy,
                                gradreg_type from, gradreg_type to)
{
    if (from == to)
        return gr_cuda_with_type(from,
                                 [&](auto type) { return launch_rows<type, type>(c, copy); });
    if (from == GRADREG_TYPE_F32)
        return gr_cuda_with_type(
            to, [&](auto type) { return launch_rows<GRADREG_TYPE_F32, type>(c, copy); });
    return gr_cuda_with_type(
        from, [&](auto type) { return launch_rows<type, GRADREG_TYPE_F32>(c, copy); });
}

/* ---- a chunk --------------------------------------------------------------------- */

/* Rows [first, first + count) of the task. */
typedef struct gr_chunk {
    const gr_linear_task *task;
    uint64_t first, count;
    float *logits, *hidden, *dhidden, *panel; /* scratch, aligned for cuBLAS */
} gr_chunk;

static float *aligned(float *x)
{
    return reinterpret_cast<float *>((reinterpret_cast<uint64_t>(x) + 15) / 16 * 16);
}

static gr_chunk open_chunk(const gr_linear_task *t)
{
    gr_chunk chunk = { t, 0, 0, NULL, NULL, NULL, NULL };
    chunk.logits = aligned(reinterpret_cast<float *>(t->chunk_rows));
    chunk.hidden = aligned(chunk.logits + t->chunk * t->vocabulary);
    chunk.dhidden = aligned(chunk.hidden + t->chunk * t->width);
    chunk.panel = aligned(chunk.dhidden + t->chunk * t->width);
    return chunk;
}

static gr_logits_view view_of(const gr_chunk *chunk)
{
    const gr_linear_task *t = chunk->task;
    const gr_logits_view view = { GRADREG_TYPE_F32, chunk->count, t->vocabulary, t->vocabulary,
                                  t->inverse };
    return view;
}

/* The rows' part of an array, which may be missing. */
template <class T> static T *part_of(T *array, const gr_chunk *chunk)
{
    return array == NULL ? NULL : array + chunk->first;
}

static gr_rows_copy rows_of(const gr_chunk *chunk)
{
    const gr_linear_task *t = chunk->task;
    gr_rows_copy copy = { NULL,
                          NULL,
                          t->width,
                          t->width,
                          chunk->count,
                          t->width,
                          t->vocabulary,
                          part_of(t->targets, chunk),
                          part_of(t->dlogp, chunk),
                          part_of(t->dentropy, chunk) };
    return copy;
}

static gradreg_status take_hidden(const gr_cuda_context *c, const gr_chunk *chunk, void *to,
                                  gradreg_type type)
{
    const gr_linear_task *t = chunk->task;
    gr_rows_copy copy = rows_of(chunk);
    copy.to = static_cast<char *>(to);
    copy.from = static_cast<const char *>(t->hidden) +
                chunk->first * t->hidden_stride * gr_type_bytes(t->type);
    copy.from_stride = t->hidden_stride;
    return copy_rows(c, &copy, t->type, type);
}

/* `hidden`: scratch for the copy. */
static gradreg_status make_logits(const gr_cuda_context *c, const gr_chunk *chunk,
                                  float *hidden)
{
    const gr_linear_task *t = chunk->task;
    GR_TRY(take_hidden(c, chunk, hidden, t->type));
    const gr_product product = { chunk->count,
                                 t->vocabulary,
                                 t->width,
                                 { hidden, t->type, t->width },
                                 { t->weight, t->type, t->weight_stride },
                                 0,
                                 1,
                                 0,
                                 chunk->logits,
                                 t->vocabulary };
    return gradreg_cuda_multiply(c, &product);
}

/* ---- forward --------------------------------------------------------------------- */

static gradreg_status forward_chunk(const gr_cuda_context *c, const gr_chunk *chunk)
{
    const gr_linear_task *t = chunk->task;
    const gr_logprobs_task rows = { view_of(chunk),
                                    chunk->logits,
                                    part_of(t->targets, chunk),
                                    part_of(t->logp, chunk),
                                    part_of(t->entropy, chunk),
                                    part_of(t->log_sum_exp, chunk) };
    GR_TRY(make_logits(c, chunk, chunk->hidden));
    return gradreg_cuda_logprobs_run_forward(c, &rows);
}

/* ---- backward -------------------------------------------------------------------- */

/* The weight's rows from `first` on as f32; gives how many. */
static gradreg_status next_panel(const gr_cuda_context *c, const gr_chunk *chunk,
                                 uint64_t first, gr_matrix *weight, uint64_t *rows)
{
    const gr_linear_task *t = chunk->task;
    const char *from = static_cast<const char *>(t->weight) +
                       first * t->weight_stride * gr_type_bytes(t->type);
    const uint64_t left = t->vocabulary - first;
    weight->type = GRADREG_TYPE_F32;
    weight->at = from;
    weight->stride = t->weight_stride;
    *rows = left;
    if (t->type == GRADREG_TYPE_F32)
        return GRADREG_OK;
    *rows = t->panel < left ? t->panel : left;
    weight->at = chunk->panel;
    weight->stride = t->width;
    const gr_rows_copy copy = { reinterpret_cast<char *>(chunk->panel),
                                from,
                                t->width,
                                t->weight_stride,
                                *rows,
                                t->width,
                                0,
                                NULL,
                                NULL,
                                NULL };
    return copy_rows(c, &copy, t->type, GRADREG_TYPE_F32);
}

/* dhidden's rows, in the caller's type; zeros for rows that take no part. */
static gradreg_status give_dhidden(const gr_cuda_context *c, const gr_chunk *chunk)
{
    const gr_linear_task *t = chunk->task;
    gr_rows_copy copy = rows_of(chunk);
    copy.to = static_cast<char *>(t->dhidden) +
              chunk->first * t->hidden_stride * gr_type_bytes(t->gradient_type);
    copy.to_stride = t->hidden_stride;
    copy.from = reinterpret_cast<const char *>(chunk->dhidden);
    return copy_rows(c, &copy, GRADREG_TYPE_F32, t->gradient_type);
}

static gradreg_status make_dhidden(const gr_cuda_context *c, const gr_chunk *chunk)
{
    const gr_linear_task *t = chunk->task;
    uint64_t rows;
    for (uint64_t first = 0; first < t->vocabulary; first += rows) {
        gr_matrix weight;
        GR_TRY(next_panel(c, chunk, first, &weight, &rows));
        const gr_product product = { chunk->count,
                                     t->width,
                                     rows,
                                     { chunk->logits + first, GRADREG_TYPE_F32, t->vocabulary },
                                     weight,
                                     0,
                                     0,
                                     first > 0,
                                     chunk->dhidden,
                                     t->width };
        GR_TRY(gradreg_cuda_multiply(c, &product));
    }
    return give_dhidden(c, chunk);
}

static gradreg_status add_dweight(const gr_cuda_context *c, const gr_chunk *chunk)
{
    const gr_linear_task *t = chunk->task;
    GR_TRY(take_hidden(c, chunk, chunk->hidden, GRADREG_TYPE_F32));
    const gr_product product = { t->vocabulary,
                                 t->width,
                                 chunk->count,
                                 { chunk->logits, GRADREG_TYPE_F32, t->vocabulary },
                                 { chunk->hidden, GRADREG_TYPE_F32, t->width },
                                 1,
                                 0,
                                 t->add_weight_gradient || chunk->first > 0,
                                 t->dweight,
                                 t->width };
    return gradreg_cuda_multiply(c, &product);
}

/* ---- backward, bf16 -------------------------------------------------------------- */

/* How the slopes of a chunk are cut, so that the pieces of one part fit the panel's memory. */
typedef struct gr_cut {
    uint64_t rows, columns;
} gr_cut;

/* Rows of a part, about. A part of r rows and c columns reads and writes dhidden 3 times for each c columns of
 * a chunk, W 3 times and dweight once for each r rows: memory moves least where c is about 2 r, and with 2^22
 * elements of a panel there is room for that. */
enum { CUT_ROWS = 1024 };
/* Rows or columns of a part at most: cuBLAS counts in int. */
enum { CUT_MOST = 1 << 24 };

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* Columns in multiples of 64, or of 8 where that is all of them, so that a row of pieces begins at a multiple
 * of 16 bytes, as tensor cores like it. Behind the panel there are the bytes of chunk_rows, which nothing uses
 * here: room is never less than 2. */
static gr_cut cut_of(const gr_chunk *chunk)
{
    const gr_linear_task *t = chunk->task;
    const uint64_t bytes = t->panel * t->width * sizeof(float) + t->chunk * sizeof(size_t);
    const uint64_t room = bytes / (GR_BF16_PIECES * gr_type_bytes(t->type));
    const uint64_t parts = (chunk->count + CUT_ROWS - 1) / CUT_ROWS;
    const uint64_t even = (chunk->count + parts - 1) / parts;
    const uint64_t fitting = room / even / 64 * 64, tiny = least(room / 8 * 8, 64);
    gr_cut cut = { 0, fitting > 0 ? fitting : tiny > 0 ? tiny : 1 };
    cut.columns = least(least(cut.columns, (t->vocabulary + 7) / 8 * 8), CUT_MOST);
    cut.rows = least(least(chunk->count, room / cut.columns), CUT_MOST);
    return cut;
}

/* The slopes of columns [first, first + columns) as pieces, where the panel is for other types. Gives the
 * first of the three matrices. */
static gradreg_status split_slopes(const gr_cuda_context *c, const gr_chunk *part,
                                   const gr_cut *cut, uint64_t first, uint64_t columns,
                                   gr_matrix *pieces)
{
    const gr_linear_task *t = part->task;
    const gr_pieces split = { reinterpret_cast<char *>(part->panel),
                              part->logits + first,
                              cut->columns,
                              t->vocabulary,
                              part->count,
                              columns };
    const gr_matrix smallest = { part->panel, t->type, cut->columns };
    *pieces = smallest;
    return gradreg_cuda_split(c, &split);
}

/* So many rows further. */
static gr_matrix rows_after(const gr_matrix *m, uint64_t rows)
{
    gr_matrix after = *m;
    after.at = static_cast<const char *>(m->at) + rows * m->stride * gr_type_bytes(m->type);
    return after;
}

static gradreg_status make_dhidden_by_pieces(const gr_cuda_context *c, const gr_chunk *part,
                                             const gr_cut *cut)
{
    const gr_linear_task *t = part->task;
    const gr_matrix weight = { t->weight, t->type, t->weight_stride };
    for (uint64_t first = 0; first < t->vocabulary; first += cut->columns) {
        const uint64_t columns = least(cut->columns, t->vocabulary - first);
        gr_matrix pieces;
        GR_TRY(split_slopes(c, part, cut, first, columns, &pieces));
        for (uint64_t k = 0; k < GR_BF16_PIECES; k++) {
            const gr_product product = { part->count,
                                         t->width,
                                         columns,
                                         rows_after(&pieces, k * part->count),
                                         rows_after(&weight, first),
                                         0,
                                         0,
                                         first > 0 || k > 0,
                                         part->dhidden,
                                         t->width };
            GR_TRY(gradreg_cuda_multiply(c, &product));
        }
    }
    return give_dhidden(c, part);
}

/* Three copies of the hidden states, one for each piece: 6 bytes an element, in the 8 of `hidden` and
 * `dhidden`, whose numbers have been given away. */
static gradreg_status take_hidden_for_pieces(const gr_cuda_context *c, const gr_chunk *part,
                                             gr_matrix *hidden)
{
    const gr_linear_task *t = part->task;
    char *to = reinterpret_cast<char *>(part->hidden);
    hidden->at = to;
    hidden->type = t->type;
    hidden->stride = t->width;
    for (int k = 0; k < GR_BF16_PIECES; k++) {
        GR_TRY(take_hidden(c, part, to, t->type));
        to += part->count * t->width * gr_type_bytes(t->type);
    }
    return GRADREG_OK;
}

static gradreg_status add_dweight_by_pieces(const gr_cuda_context *c, const gr_chunk *part,
                                            const gr_cut *cut)
{
    const gr_linear_task *t = part->task;
    gr_matrix hidden, pieces;
    GR_TRY(take_hidden_for_pieces(c, part, &hidden));
    for (uint64_t first = 0; first < t->vocabulary; first += cut->columns) {
        const uint64_t columns = least(cut->columns, t->vocabulary - first);
        GR_TRY(split_slopes(c, part, cut, first, columns, &pieces));
        const gr_product product = { columns,
                                     t->width,
                                     GR_BF16_PIECES * part->count,
                                     pieces,
                                     hidden,
                                     1,
                                     0,
                                     t->add_weight_gradient || part->first > 0,
                                     t->dweight + first * t->width,
                                     t->width };
        GR_TRY(gradreg_cuda_multiply(c, &product));
    }
    return GRADREG_OK;
}

/* Both gradients of a chunk whose slopes are made, a part of its rows at a time. */
static gradreg_status finish_by_pieces(const gr_cuda_context *c, const gr_chunk *chunk)
{
    const gr_linear_task *t = chunk->task;
    const gr_cut cut = cut_of(chunk);
    for (uint64_t begin = 0; begin < chunk->count; begin += cut.rows) {
        gr_chunk part = *chunk;
        part.first += begin;
        part.count = least(cut.rows, chunk->count - begin);
        part.logits += begin * t->vocabulary;
        if (t->dhidden != NULL)
            GR_TRY(make_dhidden_by_pieces(c, &part, &cut));
        if (t->dweight != NULL)
            GR_TRY(add_dweight_by_pieces(c, &part, &cut));
    }
    return GRADREG_OK;
}

/* ---- backward, a chunk ----------------------------------------------------------- */

static gradreg_status backward_chunk(const gr_cuda_context *c, const gr_chunk *chunk)
{
    const gr_linear_task *t = chunk->task;
    const gr_logprobs_slope_task rows = { view_of(chunk),
                                          chunk->logits,
                                          chunk->logits,
                                          part_of(t->targets, chunk),
                                          part_of(t->given_log_sum_exp, chunk),
                                          part_of(t->given_entropy, chunk),
                                          part_of(t->dlogp, chunk),
                                          part_of(t->dentropy, chunk) };
    GR_TRY(make_logits(c, chunk, chunk->hidden));
    GR_TRY(gradreg_cuda_logprobs_run_backward(c, &rows));
    if (t->type == GRADREG_TYPE_BF16)
        return finish_by_pieces(c, chunk);
    if (t->dhidden != NULL)
        GR_TRY(make_dhidden(c, chunk));
    return t->dweight != NULL ? add_dweight(c, chunk) : GRADREG_OK;
}

/* ---- the ops --------------------------------------------------------------------- */

typedef gradreg_status chunk_op(const gr_cuda_context *c, const gr_chunk *chunk);

static gradreg_status run(gr_cuda_context *c, const gr_linear_task *t, chunk_op *op)
{
    gr_chunk chunk = open_chunk(t);
    GR_TRY(gradreg_cuda_blas_begin(c));
    if (t->rows == 0 && t->dweight != NULL && !t->add_weight_gradient)
        GR_CUDA_TRY(cudaMemsetAsync(t->dweight, 0, t->vocabulary * t->width * sizeof(float),
                                    c->stream));
    for (; chunk.first < t->rows; chunk.first += chunk.count) {
        const uint64_t left = t->rows - chunk.first;
        chunk.count = t->chunk < left ? t->chunk : left;
        GR_TRY(op(c, &chunk));
    }
    return GRADREG_OK;
}

gradreg_status gradreg_cuda_linear_forward(gradreg_context *context, const gr_linear_task *task)
{
    return gr_cuda_run(context, run, task, forward_chunk);
}

gradreg_status gradreg_cuda_linear_backward(gradreg_context *context,
                                            const gr_linear_task *task)
{
    return gr_cuda_run(context, run, task, backward_chunk);
}

gradreg_status gradreg_cuda_load_linear(void)
{
    return gr_cuda_for_types(GR_ALL_TYPES, [](auto type, int) {
        GR_TRY((load_rows<type, type>()));
        GR_TRY((load_rows<type, GRADREG_TYPE_F32>()));
        return load_rows<GRADREG_TYPE_F32, type>();
    });
}
