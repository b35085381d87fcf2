/* cuda_combine.cu - the passes that end a step: the regularized gradient, and theta restored.
 *
 * In: g1, g2 (or g+ and g-, or the kept correction), coefficients, clean copies. Out: g_hat in
 * grads, the next noise direction, theta to the last bit, and the sums behind the terms. */
#include "cuda_stages.h"

#include "cuda_direction.cuh"
#include "cuda_types.h"

enum { GR_COMBINE_ROWS = GR_COMBINE_SUMS + 1 }; /* sums, saturated */
enum { GR_ANY };                                /* no gradreg_type */

/* One block's pointers and factors, by the names of cpu_kernels.h's gr_combine_block. In shared
 * memory, one a warp: registers are for the sums. */
typedef struct gr_combining {
    const char *first; /* NULL: zeros */
    char *grads;       /* the second gradient, and where g_hat goes */
    const char *plus;
    char *kept; /* read, or written */
    int read;   /* gr_read of this block */
    int keeps;  /* kept gets keep * D */
    int directs;
    int32_t write;
    gr_coefficients k;
    int aligned;
    char *params; /* theta back here, NULL: not now */
    const char *clean;
    uint32_t size; /* of one of them */
} gr_combining;

/* ---- one element ----------------------------------------------------------------- */

/* KEPT as for gr_lanes. */
template <int KEPT> struct gr_combine_sums {
    gr_lanes<GR_COMBINE_SUMS, KEPT> lanes;
    uint32_t saturated;
};

/* What is known of one; what is not read is 0. */
typedef struct gr_combine_element {
    float g1, g2, plus, u;
    float kept; /* D of an earlier step, and then what is kept of this one's */
} gr_combine_element;

/* Sums of the difference without clips: scaled before subtracting, which is exact but for values
 * that would leave fp32's range. */
template <int KEPT>
GR_DEVICE void gr_combine_plain(const gr_combining &c, int read, int k,
                                const gr_combine_element &e,
                                gr_lanes<GR_COMBINE_SUMS, KEPT> *sums)
{
    const float x1 = e.g1 * c.k.scale, x2 = e.g2 * c.k.scale;
    const float left = read == GR_READ_CENTRAL ? e.plus * c.k.scale : x1;
    const float d0 = read == GR_READ_CENTRAL ? GR_DIFFERENCE_CENTRAL(left, x2)
                                             : GR_DIFFERENCE_FORWARD(x1, x2);
    gr_add(sums, GR_COMBINE_D0, k, d0, d0);
    gr_add(sums, GR_COMBINE_ALONG, k, c.directs ? e.u * c.k.scale_direction : x1, d0);
    gr_add(sums, GR_COMBINE_CROSS, k, left, x2);
}

/* D: what the correction is made of. */
GR_DEVICE float gr_combine_difference(const gr_combining &c, int read, float a,
                                      const gr_combine_element &e)
{
    if (read == GR_READ_KEPT)
        return e.kept;
    const float second = GR_SCALED(c.k.second, e.g2);
    if (read == GR_READ_CENTRAL)
        return GR_DIFFERENCE_CENTRAL(GR_SCALED(c.k.plus, e.plus), second);
    return GR_DIFFERENCE_FORWARD(a, second);
}

GR_DEVICE float gr_combine_product(const gr_combining &c, int read, const gr_combine_element &e)
{
    if (read == GR_READ_CENTRAL)
        return GR_SCALED(c.k.correction, GR_DIFFERENCE_CENTRAL(e.plus, e.g2));
    return GR_SCALED(c.k.correction, GR_DIFFERENCE_FORWARD(e.g1, e.g2));
}

/* The bit pattern of g_hat. `read` and `type` are constants where the caller has constants. */
template <int KEPT>
GR_DEVICE uint32_t gr_combine_one(const gr_combining &c, int read, int32_t type, int k,
                                  gr_combine_element *e, gr_combine_sums<KEPT> *sums)
{
    const bool two_passes = read == GR_READ_FORWARD || read == GR_READ_CENTRAL;
    const float a = GR_SCALED(c.k.first, e->g1);
    float result = a;
    uint32_t bits;
    if (two_passes)
        gr_combine_plain(c, read, k, *e, &sums->lanes);
    if (read != GR_READ_FIRST && c.write == GR_WRITE_CORRECTED) {
        const float d = gr_combine_difference(c, read, a, *e);
        const float scaled = d * c.k.scale;
        if (c.k.correction != 0.0f) /* else a itself: a + 0 would turn -0 into +0 */
            result = GR_CORRECTED(a, c.k.correction, d);
        if (c.keeps)
            e->kept = GR_SCALED(c.k.keep, d);
        bits = gr_encode_any(type, result, &sums->saturated);
        gr_add(&sums->lanes, GR_COMBINE_D, k, scaled, scaled);
        gr_add(&sums->lanes, GR_COMBINE_STORED, k, (gr_decode_any(type, bits) - a) * c.k.scale,
               scaled);
    } else {
        if (two_passes && c.write == GR_WRITE_PRODUCT)
            result = gr_combine_product(c, read, *e);
        bits = gr_encode_any(type, result, &sums->saturated);
    }
    const float x = result * c.k.scale;
    gr_add(&sums->lanes, GR_COMBINE_OUT, k, x, x);
    return bits;
}

template <int KEPT>
GR_DEVICE void gr_combine_finish(gr_combine_sums<KEPT> *sums, const gr_rows &out)
{
    gr_give_lanes(&sums->lanes, out);
    gr_give(out, GR_COMBINE_SUMS, static_cast<double>(gr_total(sums->saturated)));
}

/* ---- weights --------------------------------------------------------------------- */

GR_DEVICE bool gr_together(const gr_combining &c)
{
    return gr_is_wide(c.params) && gr_is_wide(c.clean);
}

/* Weights go back while memory is busy anyway: `elements` of 2 or 4 bytes, or what is left. */
GR_DEVICE void gr_restore_part(const gr_combining &c, uint32_t i, uint32_t elements, uint32_t n)
{
    const uint32_t end = (i + elements < n ? i + elements : n) * c.size;
    uint32_t at = i * c.size + 16 * gr_thread();
    for (; at + 16 <= end; at += 16 * 32)
        *reinterpret_cast<uint4 *>(c.params + at) =
            *reinterpret_cast<const uint4 *>(c.clean + at);
    for (; at < end; at += 2) /* one thread's, if any */
        *reinterpret_cast<uint16_t *>(c.params + at) =
            *reinterpret_cast<const uint16_t *>(c.clean + at);
}

/* ---- along the gradient, a tile at a time ---------------------------------------- */

template <int G>
GR_DEVICE void gr_load_or_zero(const gr_cuda_block &b, gr_tile<G> *tile, const char *from,
                               uint32_t i, bool wide)
{
    if (from != NULL) {
        gr_load(tile, from, NULL, i, b.warp->n, wide, gr_stage(b));
        return;
    }
    GR_UNROLL
    for (int w = 0; w < gr_tile<G>::WORDS; w++)
        tile->word[w] = 0;
}

/* One tile, forward or without a second pass; `wide` as for gr_load. */
template <int G, int KEPT>
GR_DEVICE void gr_combine_tile(const gr_cuda_block &b, const gr_combining &c, uint32_t i,
                               bool wide, gr_combine_sums<KEPT> *sums)
{
    gr_tile<G> first, second = {};
    gr_load_or_zero(b, &first, c.first, i, wide);
    if (c.read == GR_READ_FORWARD)
        gr_load_or_zero(b, &second, c.grads, i, wide);
    GR_UNROLL
    for (int k = 0; k < 8; k++) {
        gr_combine_element e = { gr_get(first, k), gr_get(second, k), 0.0f, 0.0f, 0.0f };
        const int read = c.read == GR_READ_FORWARD ? GR_READ_FORWARD : GR_READ_FIRST;
        gr_set_bits(&first, k, gr_combine_one(c, read, G, k, &e, sums));
    }
    gr_store(c.grads, first, i, b.warp->n, wide, gr_stage(b));
}

/* ---- anything else, a row at a time ---------------------------------------------- */

GR_DEVICE void gr_load_elements(const gr_cuda_block &b, const gr_combining &c, uint32_t i,
                                gr_combine_element e[4])
{
    const int32_t type = b.unit->grad_type;
    const bool two_passes = c.read == GR_READ_FORWARD || c.read == GR_READ_CENTRAL;
    float g1[4], g2[4] = {}, plus[4] = {}, u[4] = {}, kept[4] = {};
    if (c.directs && (b.unit->flags & GR_SEGMENT_PERTURBED) != 0)
        gr_direction(b, i, u);
    gr_load_numbers_row(g1, type, b, c.first, i);
    if (two_passes)
        gr_load_numbers_row(g2, type, b, c.grads, i);
    if (c.read == GR_READ_CENTRAL)
        gr_load_numbers_row(plus, type, b, c.plus, i);
    if (c.read == GR_READ_KEPT)
        gr_load_numbers_row(kept, GRADREG_TYPE_F32, b, c.kept, i);
    GR_UNROLL
    for (int k = 0; k < 4; k++)
        e[k] = { g1[k], g2[k], plus[k], u[k], kept[k] };
}

GR_DEVICE void gr_combine_row(const gr_cuda_block &b, const gr_combining &c, uint32_t i,
                              gr_combine_sums<0> *sums)
{
    gr_combine_element e[4];
    uint32_t bits[4];
    gr_load_elements(b, c, i, e);
    GR_UNROLL
    for (int k = 0; k < 4; k++)
        bits[k] = gr_combine_one(c, c.read, b.unit->grad_type, k, &e[k], sums);
    gr_store_row(c.grads, b.unit->grad_type, b, bits, i);
    if (!c.keeps)
        return;
    GR_UNROLL
    for (int k = 0; k < 4; k++)
        bits[k] = gr_f32_bits(e[k].kept);
    gr_store_row(c.kept, GRADREG_TYPE_F32, b, bits, i);
}

/* g~ = c1 g1 in f32, before g1 is overwritten. */
GR_DEVICE void gr_keep_noise(const gr_cuda_block &b, const char *first)
{
    const gr_control *c = b.step->control;
    if ((b.unit->flags & GR_SEGMENT_NOISY) == 0 || !c->noise_update)
        return;
    const float factor = static_cast<float>(c->first_factor / c->grad_scale);
    char *noise = gr_at_word(b, GR_WORD_NOISE, 4);
    GR_NO_UNROLL
    for (uint32_t i = 0; i < b.warp->n; i += GR_LANES) {
        float g1[4];
        uint32_t bits[4];
        gr_load_numbers_row(g1, b.unit->grad_type, b, first, i);
        GR_UNROLL
        for (int k = 0; k < 4; k++)
            bits[k] = gr_f32_bits(GR_SCALED(factor, g1[k]));
        gr_store_row(noise, GRADREG_TYPE_F32, b, bits, i);
    }
    __syncwarp();
}

/* ---- one block ------------------------------------------------------------------- */

/* What the policies for gradients that are not finite write instead of arithmetic. */
GR_DEVICE bool gr_writes_plainly(const gr_cuda_block &b, const gr_combining &c, uint32_t size)
{
    const bool no_product = c.write == GR_WRITE_PRODUCT && gr_absent(b) != 0;
    const uint32_t bytes = b.warp->n * size;
    if (c.write == GR_WRITE_ZERO || no_product || (c.write == GR_WRITE_RAW && c.first == NULL))
        gr_clear_bytes(c.grads, bytes);
    else if (c.write == GR_WRITE_RAW && c.grads != c.first)
        gr_copy_bytes(c.grads, c.first, bytes);
    return c.write == GR_WRITE_ZERO || c.write == GR_WRITE_RAW || no_product;
}

/* A segment without a gradient in some pass has no difference: it keeps a. */
GR_DEVICE int gr_block_read(const gr_cuda_block &b, int read)
{
    if (gr_absent(b) != 0 || ((b.unit->flags & GR_SEGMENT_SEEN) == 0 && read != GR_READ_KEPT) ||
        (read == GR_READ_KEPT && (b.unit->flags & GR_SEGMENT_KEEPS) == 0))
        return GR_READ_FIRST;
    return read;
}

GR_DEVICE void gr_fill(const gr_cuda_block &b, int read, bool restores, gr_combining *c)
{
    const gr_coefficients *k = gr_coefficients_of(b);
    const uint32_t size = gr_size_any(b.unit->grad_type);
    c->read = gr_block_read(b, read);
    const bool differs = c->read == GR_READ_FORWARD || c->read == GR_READ_CENTRAL;
    c->first = gr_at(b, gr_first_of(b), size);
    c->grads = gr_at_word(b, GR_WORD_GRADS, size);
    c->plus = (gr_absent(b) & GR_ABSENT_PLUS) != 0 ? NULL : gr_at_word(b, GR_WORD_PLUS, size);
    c->kept = gr_at_word(b, GR_WORD_KEPT, 4);
    c->k = *k;
    c->write = k->write;
    c->directs = !gr_along_gradient(b.step) && differs;
    c->keeps = differs && k->write == GR_WRITE_CORRECTED && k->keep != 0.0f;
    c->aligned = gr_is_wide(c->first) && gr_is_wide(c->grads);
    c->size = gr_size_any(b.unit->param_type);
    c->params = restores ? gr_at_word(b, GR_WORD_PARAMS, c->size) : NULL;
    c->clean = restores ? gr_at_word(b, GR_WORD_CLEAN, c->size) : NULL;
}

/* All of the block; G: the gradient's type, or GR_ANY. */
template <int G>
GR_DEVICE void gr_combine_elements(const gr_cuda_block &b, const gr_combining &c,
                                   const gr_rows &out)
{
    enum { KEPT = G == GR_ANY ? 0 : 2, EACH = G == GR_ANY ? GR_LANES : GR_TILE };
    GR_SHARED(float, lanes, (gr_lanes<GR_COMBINE_SUMS, KEPT>::SHARED));
    gr_combine_sums<KEPT> sums;
    gr_clear_lanes(&sums.lanes, lanes);
    sums.saturated = 0;
    GR_NO_UNROLL
    for (uint32_t i = 0; i < b.warp->n; i += EACH) {
        if (c.clean != NULL && gr_together(c))
            gr_restore_part(c, i, EACH, b.warp->n);
        if constexpr (G == GR_ANY)
            gr_combine_row(b, c, i, &sums);
        else
            gr_combine_tile<G>(b, c, i, c.aligned && i + EACH <= b.warp->n, &sums);
    }
    gr_combine_finish(&sums, out);
}

/* Whether theta is still to be put back. G as there. */
template <int G>
GR_DEVICE bool gr_combine_block(const gr_cuda_block &b, int read, bool restores,
                                const gr_rows &out)
{
    GR_SHARED(gr_combining, all, GR_PASS_WARPS);
    const gr_combining &c = all[threadIdx.x / 32];
    __syncwarp();
    if (gr_thread() == 0)
        gr_fill(b, read, restores, &all[threadIdx.x / 32]);
    __syncwarp();
    if (c.grads == NULL)
        return restores;
    if (G == GR_ANY)
        gr_keep_noise(b, c.first);
    if (gr_writes_plainly(b, c, gr_size_any(b.unit->grad_type)))
        return restores;
    if (c.clean != NULL && !gr_together(c))
        gr_copy_bytes(c.params, c.clean, b.warp->n * c.size);
    gr_combine_elements<G>(b, c, out);
    return restores && c.clean == NULL;
}

GR_DEVICE bool gr_restores(const gr_cuda_block &b, uint32_t restored)
{
    return (b.unit->flags & restored) != 0 && (b.unit->flags & GR_SEGMENT_FROZEN) == 0;
}

template <int G> struct gr_combine_body {
    static constexpr int ROWS = GR_COMBINE_ROWS;
    uint32_t restored;
    int read;

    GR_DEVICE_MEMBER bool takes(int32_t param_type, int32_t grad_type) const
    {
        (void)param_type;
        return G == GR_ANY || grad_type == G;
    }

    GR_DEVICE_MEMBER void run(const gr_cuda_block &b, const gr_rows &out) const
    {
        if ((b.unit->flags & GR_SEGMENT_FROZEN) != 0)
            return;
        if (gr_combine_block<G>(b, read, gr_restores(b, restored), out))
            gr_put_back(b);
    }
};

/* Along the gradient and forward, nothing kept, no noise: what nearly every step is. */
template <int G>
__global__ void __launch_bounds__(GR_PASS_THREADS, GR_PASS_RESIDENT)
    gradreg_cuda_k_combine(const gr_walk walk, const gr_step step, uint32_t restored)
{
    const gr_combine_body<G> body = { restored, GR_READ_FORWARD };
    (void)gr_pass(walk, step, body);
}

__global__ void __launch_bounds__(GR_PASS_THREADS, GR_PASS_RESIDENT)
    gradreg_cuda_k_combine_any(const gr_walk walk, const gr_step step, uint32_t restored,
                               int read)
{
    const gr_combine_body<GR_ANY> body = { restored, read };
    (void)gr_pass(walk, step, body);
}

/* ---- the ops --------------------------------------------------------------------- */

template <int G>
static gradreg_status launch_type(gr_work *work, const gr_walk *walk, uint32_t restored)
{
    const gr_cuda_context *c = gr_cuda_of(work->context);
    GR_LAUNCH((gradreg_cuda_k_combine<G>),
              gr_cuda_grid(c, walk->unit_count, GR_PASS_PER_PROCESSOR), GR_PASS_THREADS, 0,
              c->stream, *walk, work->step, restored);
    GR_CUDA_TRY_LAUNCH("combine");
    return GRADREG_OK;
}

static gradreg_status launch_any(gr_work *work, gr_walk *walk, int read, uint32_t restored)
{
    const gr_cuda_context *c = gr_cuda_of(work->context);
    walk->folds = 1;
    GR_LAUNCH(gradreg_cuda_k_combine_any,
              gr_cuda_grid(c, walk->unit_count, GR_PASS_PER_PROCESSOR), GR_PASS_THREADS, 0,
              c->stream, *walk, work->step, restored, read);
    GR_CUDA_TRY_LAUNCH("combine");
    return GRADREG_OK;
}

static int is_plain(const gradreg_regularizer_params *p, int read)
{
    return read == GR_READ_FORWARD && p->direction == GRADREG_DIRECTION_GRADIENT &&
           p->interval <= 1 && p->noise.rule == GRADREG_NOISE_OFF;
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
    if (!is_plain(&work->step.options, read))
        return launch_any(work, &walk, read, restored);
    return gr_cuda_for_types(gradreg_cuda_types(work, 0), [&](auto type, int last) {
        walk.folds = last;
        return launch_type<type>(work, &walk, restored);
    });
}

struct gr_restore_body {
    static constexpr int ROWS = 0;
    uint32_t restored;

    GR_DEVICE_MEMBER bool takes(int32_t param_type, int32_t grad_type) const
    {
        (void)param_type, (void)grad_type;
        return true;
    }

    GR_DEVICE_MEMBER void run(const gr_cuda_block &b, const gr_rows &out) const
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

gradreg_status gradreg_cuda_load_combine(void)
{
    GR_TRY(gr_cuda_load(gradreg_cuda_k_combine_any, gradreg_cuda_k_restore));
    return gr_cuda_for_types(GR_ALL_TYPES, [](auto type, int) {
        return gr_cuda_load(gradreg_cuda_k_combine<type>);
    });
}
