/* cuda_combine.cu - the passes that end a step: the regularized gradient, and theta restored.
 *
 * In: g1, g2 (or g+ and g-, or the kept correction), coefficients, clean copies. Out: g_hat in
 * grads, the next noise direction, theta to the last bit, and the sums behind the terms. */
#include "cuda_stages.h"

#include "cuda_direction.cuh"

enum { GR_COMBINE_ROWS = GR_COMBINE_SUMS + 1 }; /* sums, saturated */

/* One block's pointers and factors, by the names of cpu_kernels.h's gr_combine_block. In shared
 * memory, one a warp: registers are for the sums. */
typedef struct gr_combining {
    const char *first; /* NULL: zeros */
    char *grads;       /* the second gradient, and where g_hat goes */
    const char *plus;
    char *kept; /* read, or written */
    int keeps;  /* kept gets keep * D */
    int directs;
    int32_t write;
    gr_coefficients k;
    int aligned;
    char *params; /* theta back here, NULL: not now */
    const char *clean;
    uint32_t size; /* of one of them */
} gr_combining;

template <int G>
GR_DEVICE void gr_load_or_zero(const gr_cuda_block &b, gr_tile<G> *tile, const char *from,
                               uint32_t i, bool wide)
{
    if (from != NULL) {
        gr_load(tile, from, NULL, i, b.n, wide, b.stage);
        return;
    }
    GR_UNROLL
    for (int w = 0; w < gr_tile<G>::WORDS; w++)
        tile->word[w] = 0;
}

/* ---- one element ----------------------------------------------------------------- */

typedef struct gr_combine_sums {
    float lane[GR_COMBINE_SUMS][4];
    uint32_t saturated;
} gr_combine_sums;

GR_DEVICE void gr_add(gr_combine_sums *sums, int which, int k, float x, float y)
{
    float *lane = &sums->lane[which][k % 4];
    *lane = GR_ACCUMULATE(*lane, x, y);
}

/* Sums of the difference without clips: scaled before subtracting, which is exact but for values
 * that would leave fp32's range. */
template <int READ>
GR_DEVICE void gr_combine_plain(const gr_combining &c, int k, float g1, float g2, float plus,
                                float u, gr_combine_sums *sums)
{
    const float x1 = g1 * c.k.scale, x2 = g2 * c.k.scale;
    const float left = READ == GR_READ_CENTRAL ? plus * c.k.scale : x1;
    const float d0 = READ == GR_READ_CENTRAL ? GR_DIFFERENCE_CENTRAL(left, x2)
                                             : GR_DIFFERENCE_FORWARD(x1, x2);
    gr_add(sums, GR_COMBINE_D0, k, d0, d0);
    gr_add(sums, GR_COMBINE_ALONG, k, c.directs ? u * c.k.scale_direction : x1, d0);
    gr_add(sums, GR_COMBINE_CROSS, k, left, x2);
}

/* D: what the correction is made of. */
template <int READ>
GR_DEVICE float gr_combine_difference(const gr_combining &c, float a, float g2, float plus,
                                      float kept)
{
    if (READ == GR_READ_KEPT)
        return kept;
    const float second = GR_SCALED(c.k.second, g2);
    if (READ == GR_READ_CENTRAL)
        return GR_DIFFERENCE_CENTRAL(GR_SCALED(c.k.plus, plus), second);
    return GR_DIFFERENCE_FORWARD(a, second);
}

template <int READ>
GR_DEVICE float gr_combine_product(const gr_combining &c, float g1, float g2, float plus)
{
    if (READ == GR_READ_CENTRAL)
        return GR_SCALED(c.k.correction, GR_DIFFERENCE_CENTRAL(plus, g2));
    return GR_SCALED(c.k.correction, GR_DIFFERENCE_FORWARD(g1, g2));
}

/* `kept` is D of an earlier step, and becomes what is kept of this one's. */
template <int G, int READ>
GR_DEVICE void gr_combine_one(const gr_combining &c, int k, float g1, float g2, float plus,
                              float u, float *kept, gr_tile<G> *out, gr_combine_sums *sums)
{
    const bool two_passes = READ == GR_READ_FORWARD || READ == GR_READ_CENTRAL;
    const float a = GR_SCALED(c.k.first, g1);
    float result = a;
    if (two_passes)
        gr_combine_plain<READ>(c, k, g1, g2, plus, u, sums);
    if (READ != GR_READ_FIRST && c.write == GR_WRITE_CORRECTED) {
        const float d = gr_combine_difference<READ>(c, a, g2, plus, *kept);
        const float scaled = d * c.k.scale;
        if (c.k.correction != 0.0f) /* else a itself: a + 0 would turn -0 into +0 */
            result = GR_CORRECTED(a, c.k.correction, d);
        if (c.keeps)
            *kept = GR_SCALED(c.k.keep, d);
        const float stored = gr_put(out, k, result, &sums->saturated);
        gr_add(sums, GR_COMBINE_D, k, scaled, scaled);
        gr_add(sums, GR_COMBINE_STORED, k, (stored - a) * c.k.scale, scaled);
    } else {
        if (two_passes && c.write == GR_WRITE_PRODUCT)
            result = gr_combine_product<READ>(c, g1, g2, plus);
        gr_put(out, k, result, &sums->saturated);
    }
    const float x = result * c.k.scale;
    gr_add(sums, GR_COMBINE_OUT, k, x, x);
}

/* ---- one block ------------------------------------------------------------------- */

GR_DEVICE bool gr_together(const gr_combining &c)
{
    return gr_is_wide(c.params) && gr_is_wide(c.clean);
}

/* Weights go back while memory is busy anyway: 256 elements of 2 or 4 bytes, or what is left. */
GR_DEVICE void gr_restore_tile(const gr_combining &c, uint32_t i, uint32_t n)
{
    const uint32_t end = (i + GR_TILE < n ? i + GR_TILE : n) * c.size;
    uint32_t at = i * c.size + 16 * gr_thread();
    for (; at + 16 <= end; at += 16 * 32)
        *reinterpret_cast<uint4 *>(c.params + at) =
            *reinterpret_cast<const uint4 *>(c.clean + at);
    for (; at < end; at += 2) /* one thread's, if any */
        *reinterpret_cast<uint16_t *>(c.params + at) =
            *reinterpret_cast<const uint16_t *>(c.clean + at);
}

/* One tile; `wide` as for gr_load. */
template <int G, int READ, int DIRECTS>
GR_DEVICE void gr_combine_tile(const gr_cuda_block &b, const gr_combining &c, uint32_t i,
                               bool wide, gr_combine_sums *sums)
{
    const bool two_passes = READ == GR_READ_FORWARD || READ == GR_READ_CENTRAL;
    gr_tile<G> first, second, plus;
    gr_tile<GRADREG_TYPE_F32> kept = {};
    float u[8] = { 0 };
    gr_load_or_zero(b, &first, c.first, i, wide);
    if (two_passes)
        gr_load_or_zero(b, &second, c.grads, i, wide);
    if (READ == GR_READ_CENTRAL)
        gr_load_or_zero(b, &plus, c.plus, i, wide);
    if (READ == GR_READ_KEPT)
        gr_load(&kept, c.kept, NULL, i, b.n, wide, b.stage);
    if (DIRECTS && c.directs && (b.flags & GR_SEGMENT_PERTURBED) != 0)
        gr_direction(b, i, u);
    GR_UNROLL
    for (int k = 0; k < 8; k++) {
        const float g1 = gr_get(first, k);
        const float g2 = two_passes ? gr_get(second, k) : g1;
        const float p = READ == GR_READ_CENTRAL ? gr_get(plus, k) : g1;
        float d = READ == GR_READ_KEPT ? gr_get(kept, k) : 0.0f;
        gr_combine_one<G, READ>(c, k, g1, g2, p, DIRECTS ? u[k] : 0.0f, &d, &first, sums);
        if (two_passes && DIRECTS)
            gr_set_bits(&kept, k, gr_f32_bits(d));
    }
    gr_store(c.grads, first, i, b.n, wide, b.stage);
    if (two_passes && DIRECTS && c.keeps)
        gr_store(c.kept, kept, i, b.n, wide, b.stage);
}

template <int G, int READ, int DIRECTS>
GR_DEVICE void gr_combine_tiles(const gr_cuda_block &b, const gr_combining &c, double *out)
{
    gr_combine_sums sums = {};
    if (c.clean != NULL && !gr_together(c))
        gr_copy_bytes(c.params, c.clean, b.n * c.size);
    GR_NO_UNROLL
    for (uint32_t i = 0; i < b.n; i += GR_TILE) {
        if (c.clean != NULL && gr_together(c))
            gr_restore_tile(c, i, b.n);
        gr_combine_tile<G, READ, DIRECTS>(b, c, i, c.aligned && i + GR_TILE <= b.n, &sums);
    }
    GR_UNROLL
    for (int k = 0; k < GR_COMBINE_SUMS; k++)
        gr_give(out, k, gr_tree_quads(sums.lane[k]));
    gr_give(out, GR_COMBINE_SUMS, static_cast<double>(gr_total(sums.saturated)));
}

/* g~ = c1 g1 in f32, before g1 is overwritten. */
template <int G> GR_DEVICE void gr_keep_noise(const gr_cuda_block &b, const char *first)
{
    const gr_control *c = b.step->control;
    if ((b.flags & GR_SEGMENT_NOISY) == 0 || !c->noise_update)
        return;
    char *noise = gr_at_word(b, GR_WORD_NOISE, 4);
    const float factor = static_cast<float>(c->first_factor / c->grad_scale);
    for (uint32_t i = 0; i < b.n; i += GR_TILE) {
        const bool wide = i + GR_TILE <= b.n && gr_is_wide(noise) && gr_is_wide(first);
        gr_tile<G> g1;
        gr_tile<GRADREG_TYPE_F32> scaled;
        gr_load_or_zero(b, &g1, first, i, wide);
        GR_UNROLL
        for (int k = 0; k < 8; k++)
            gr_set_bits(&scaled, k, gr_f32_bits(GR_SCALED(factor, gr_get(g1, k))));
        gr_store(noise, scaled, i, b.n, wide, b.stage);
    }
    __syncwarp();
}

/* What the policies for gradients that are not finite write instead of arithmetic. */
GR_DEVICE bool gr_writes_plainly(const gr_cuda_block &b, const gr_combining &c, uint32_t size)
{
    const bool no_product = c.write == GR_WRITE_PRODUCT && gr_absent(b) != 0;
    const uint32_t bytes = b.n * size;
    if (c.write == GR_WRITE_ZERO || no_product || (c.write == GR_WRITE_RAW && c.first == NULL))
        gr_clear_bytes(c.grads, bytes);
    else if (c.write == GR_WRITE_RAW && c.grads != c.first)
        gr_copy_bytes(c.grads, c.first, bytes);
    return c.write == GR_WRITE_ZERO || c.write == GR_WRITE_RAW || no_product;
}

/* A segment without a gradient in some pass has no difference: it keeps a. */
GR_DEVICE int gr_block_read(const gr_cuda_block &b, int read)
{
    if (gr_absent(b) != 0 || ((b.flags & GR_SEGMENT_SEEN) == 0 && read != GR_READ_KEPT) ||
        (read == GR_READ_KEPT && (b.flags & GR_SEGMENT_KEEPS) == 0))
        return GR_READ_FIRST;
    return read;
}

template <int G>
GR_DEVICE void gr_fill(const gr_cuda_block &b, int read, bool restores, gr_combining *c)
{
    const bool differs = read == GR_READ_FORWARD || read == GR_READ_CENTRAL;
    const gr_coefficients *k = b.coefficients;
    c->first = gr_at(b, gr_first_of(b), gr_size_of<G>());
    c->grads = gr_at_word(b, GR_WORD_GRADS, gr_size_of<G>());
    c->plus = (gr_absent(b) & GR_ABSENT_PLUS) != 0
                  ? NULL
                  : gr_at_word(b, GR_WORD_PLUS, gr_size_of<G>());
    c->kept = gr_at_word(b, GR_WORD_KEPT, 4);
    c->k = *k;
    c->write = k->write;
    c->directs = !gr_along_gradient(b.step) && differs;
    c->keeps = differs && k->write == GR_WRITE_CORRECTED && k->keep != 0.0f;
    c->aligned = gr_is_wide(c->first) && gr_is_wide(c->grads) && gr_is_wide(c->plus) &&
                 gr_is_wide(c->kept);
    c->size = b.param_type == GRADREG_TYPE_F32 ? 4 : 2;
    c->params = restores ? gr_at_word(b, GR_WORD_PARAMS, c->size) : NULL;
    c->clean = restores ? gr_at_word(b, GR_WORD_CLEAN, c->size) : NULL;
}

/* Whether theta is still to be put back. */
template <int G, int READ, int DIRECTS>
GR_DEVICE bool gr_combine_block_of(const gr_cuda_block &b, bool restores, double *out)
{
    GR_SHARED(gr_combining, all, GR_PASS_WARPS);
    const int read = gr_block_read(b, READ);
    const gr_combining &c = all[threadIdx.x / 32];
    __syncwarp();
    if (gr_thread() == 0)
        gr_fill<G>(b, read, restores, &all[threadIdx.x / 32]);
    __syncwarp();
    if (c.grads == NULL)
        return restores;
    gr_keep_noise<G>(b, c.first);
    if (gr_writes_plainly(b, c, gr_size_of<G>()))
        return restores;
    if (read == READ)
        gr_combine_tiles<G, READ, DIRECTS>(b, c, out);
    else
        gr_combine_tiles<G, GR_READ_FIRST, 0>(b, c, out);
    return restores && c.clean == NULL;
}

GR_DEVICE bool gr_restores(const gr_cuda_block &b, uint32_t restored)
{
    return (b.flags & restored) != 0 && (b.flags & GR_SEGMENT_FROZEN) == 0;
}

template <int G, int READ, int DIRECTS> struct gr_combine_body {
    static constexpr int ROWS = GR_COMBINE_ROWS;
    uint32_t restored;

    GR_DEVICE_MEMBER bool takes(int32_t param_type, int32_t grad_type) const
    {
        (void)param_type;
        return grad_type == G;
    }

    GR_DEVICE_MEMBER void run(const gr_cuda_block &b, double *out) const
    {
        if ((b.flags & GR_SEGMENT_FROZEN) != 0)
            return;
        if (gr_combine_block_of<G, READ, DIRECTS>(b, gr_restores(b, restored), out))
            gr_put_back(b);
    }
};

/* DIRECTS: with a direction that is not the gradient, or a correction that is kept. */
template <int G, int READ, int DIRECTS>
__global__ void __launch_bounds__(GR_PASS_THREADS, GR_PASS_RESIDENT - 1)
    gradreg_cuda_k_combine(const gr_walk walk, const gr_step step, uint32_t restored)
{
    const gr_combine_body<G, READ, DIRECTS> body = { restored };
    (void)gr_pass(walk, step, body);
}

/* ---- the ops --------------------------------------------------------------------- */

template <int G, int READ, int DIRECTS>
static gradreg_status launch_combine(gr_work *work, const gr_walk *walk, uint32_t restored)
{
    const gr_cuda_context *c = gr_cuda_of(work->context);
    GR_LAUNCH((gradreg_cuda_k_combine<G, READ, DIRECTS>),
              gr_cuda_grid(c, walk->unit_count, GR_PASS_PER_PROCESSOR), GR_PASS_THREADS, 0,
              c->stream, *walk, work->step, restored);
    GR_CUDA_TRY_LAUNCH("combine");
    return GRADREG_OK;
}

template <int G>
static gradreg_status launch_type(gr_work *work, const gr_walk *walk, int read,
                                  uint32_t restored)
{
    const gradreg_regularizer_params *p = &work->step.options;
    const int directs = p->direction != GRADREG_DIRECTION_GRADIENT || p->interval > 1;
    switch (read) {
    case GR_READ_FORWARD:
        return directs ? launch_combine<G, GR_READ_FORWARD, 1>(work, walk, restored)
                       : launch_combine<G, GR_READ_FORWARD, 0>(work, walk, restored);
    case GR_READ_CENTRAL:
        return directs ? launch_combine<G, GR_READ_CENTRAL, 1>(work, walk, restored)
                       : launch_combine<G, GR_READ_CENTRAL, 0>(work, walk, restored);
    case GR_READ_KEPT: return launch_combine<G, GR_READ_KEPT, 0>(work, walk, restored);
    default: return launch_combine<G, GR_READ_FIRST, 0>(work, walk, restored);
    }
}

static uint32_t grad_types(const gr_work *work)
{
    const uint32_t pairs = gradreg_cuda_pairs(work);
    uint32_t types = 0;
    for (int pair = 0; pair < 16; pair++)
        types |= (pairs >> pair & 1u) << (pair % 4);
    return types != 0 ? types : 1u << GRADREG_TYPE_F32;
}

gradreg_status gradreg_cuda_combine(gr_work *work, int read, uint32_t restored)
{
    gr_walk walk;
    GR_TRY(gradreg_cuda_flush(work, NULL));
    GR_TRY(gradreg_cuda_walk(work, &walk));
    walk.rows = GR_COMBINE_ROWS;
    walk.first_row = GR_SUM_COMBINE;
    walk.units = GR_UNITS_COMBINE;
    walk.counts_absent = 1;
    const uint32_t types = grad_types(work);
    for (int type = GRADREG_TYPE_F32; types >> type != 0; type++) {
        walk.folds = types >> (type + 1) == 0;
        if ((types >> type & 1u) == 0)
            continue;
        GR_TRY(type == GRADREG_TYPE_F32
                   ? launch_type<GRADREG_TYPE_F32>(work, &walk, read, restored)
               : type == GRADREG_TYPE_BF16
                   ? launch_type<GRADREG_TYPE_BF16>(work, &walk, read, restored)
                   : launch_type<GRADREG_TYPE_F16>(work, &walk, read, restored));
    }
    return GRADREG_OK;
}

struct gr_restore_body {
    static constexpr int ROWS = 0;
    uint32_t restored;

    GR_DEVICE_MEMBER bool takes(int32_t param_type, int32_t grad_type) const
    {
        (void)param_type, (void)grad_type;
        return true;
    }

    GR_DEVICE_MEMBER void run(const gr_cuda_block &b, double *out) const
    {
        (void)out;
        if (gr_restores(b, restored))
            gr_put_back(b);
    }
};

__global__ void __launch_bounds__(GR_PASS_THREADS, GR_PASS_RESIDENT)
    gradreg_cuda_k_restore(const gr_walk walk, const gr_step step, uint32_t restored)
{
    const gr_restore_body body = { restored };
    (void)gr_pass(walk, step, body);
}

gradreg_status gradreg_cuda_restore(gr_work *work, uint32_t restored)
{
    const gr_cuda_context *c = gr_cuda_of(work->context);
    gr_walk walk;
    GR_TRY(gradreg_cuda_flush(work, NULL));
    GR_TRY(gradreg_cuda_walk(work, &walk));
    GR_LAUNCH(gradreg_cuda_k_restore, gr_cuda_grid(c, walk.unit_count, GR_PASS_PER_PROCESSOR),
              GR_PASS_THREADS, 0, c->stream, walk, work->step, restored);
    GR_CUDA_TRY_LAUNCH("restore");
    return GRADREG_OK;
}
