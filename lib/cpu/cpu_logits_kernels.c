/* cpu_logits_kernels.c - a row of logits on one vector path; compiled once per path.
 *
 * In: a typed row. Out: its parts joined, or its gradient (logits_math.h). A block is read twice while
 * it is in the nearest cache: for its top, then for its sums. A row's end that fills no register goes
 * through a copy that is padded with -inf, which adds nothing. */
#include "cpu_logits_kernels.h"

#include "cpu_vector.h"

enum { W = GR_VECTOR_WIDTH, ROWS = 8, TILE = ROWS * GR_LANES };

#define GR_PASTE_(a, b) a##b
#define GR_PASTE(a, b)  GR_PASTE_(a, b)

/* ---- lanes that take part -------------------------------------------------------- */

#if GR_VECTOR_WIDTH == 16
typedef __mmask16 gr_vm;
#else
typedef gr_vi gr_vm;
#endif

enum { LEAST_BITS = -0x3d520000 }; /* of GR_EXP_LEAST, 0xc2ae0000 */

#if GR_VECTOR_WIDTH == 1

GR_ALWAYS gr_vf gr_floats(gr_vu bits)
{
    return gr_bits_f32(bits);
}
GR_ALWAYS gr_vu gr_bits(gr_vf x)
{
    return gr_f32_bits(x);
}
GR_ALWAYS gr_vf gr_larger(gr_vf a, gr_vf b)
{
    return a > b ? a : b;
}
/* GR_EXP_LEAST <= d < 0: among signed patterns only those are so small. */
GR_ALWAYS gr_vm gr_below_top(gr_vf d)
{
    return (gr_vi)gr_bits(d) <= LEAST_BITS ? -1 : 0;
}
GR_ALWAYS gr_vm gr_in_reach(gr_vf l)
{
    return l >= GR_EXP_LEAST ? -1 : 0;
}
GR_ALWAYS void gr_count_tops(gr_vi *tops, gr_vf d)
{
    *tops += d == 0.0f;
}
GR_ALWAYS void gr_note_nan(gr_vm *found, gr_vf x)
{
    *found |= x != x ? -1 : 0;
}
GR_ALWAYS float gr_largest(gr_vf x)
{
    return x;
}
GR_ALWAYS int gr_any(gr_vm m)
{
    return m != 0;
}

#else

GR_ALWAYS gr_vf gr_floats(gr_vu bits)
{
    return (gr_vf)bits;
}
GR_ALWAYS gr_vu gr_bits(gr_vf x)
{
    return (gr_vu)x;
}
GR_ALWAYS float gr_largest(gr_vf x)
{
    float largest = x[0];
    for (int i = 1; i < W; i++)
        largest = x[i] > largest ? x[i] : largest;
    return largest;
}

#if GR_VECTOR_WIDTH == 16

GR_ALWAYS gr_vf gr_larger(gr_vf a, gr_vf b)
{
    return (gr_vf)_mm512_max_ps((__m512)a, (__m512)b);
}
GR_ALWAYS gr_vm gr_below_top(gr_vf d)
{
    return _mm512_cmple_epi32_mask((__m512i)d, _mm512_set1_epi32(LEAST_BITS));
}
GR_ALWAYS gr_vm gr_in_reach(gr_vf l)
{
    return _mm512_cmp_ps_mask((__m512)l, _mm512_set1_ps(GR_EXP_LEAST), _CMP_GE_OQ);
}
GR_ALWAYS void gr_count_tops(gr_vi *tops, gr_vf d)
{
    const gr_vm top = _mm512_testn_epi32_mask((__m512i)d, (__m512i)d); /* +0.0f */
    *tops =
        (gr_vi)_mm512_mask_add_epi32((__m512i)*tops, top, (__m512i)*tops, _mm512_set1_epi32(1));
}
GR_ALWAYS void gr_note_nan(gr_vm *found, gr_vf x)
{
    *found |= _mm512_cmp_ps_mask((__m512)x, (__m512)x, _CMP_UNORD_Q);
}
GR_ALWAYS int gr_any(gr_vm m)
{
    return m != 0;
}

#else

GR_ALWAYS gr_vf gr_larger(gr_vf a, gr_vf b)
{
#if GR_VECTOR_WIDTH == 8
    return (gr_vf)_mm256_max_ps((__m256)a, (__m256)b);
#else
    return (gr_vf)_mm_max_ps((__m128)a, (__m128)b);
#endif
}
GR_ALWAYS gr_vm gr_below_top(gr_vf d)
{
    return (gr_vi)d <= LEAST_BITS;
}
GR_ALWAYS gr_vm gr_in_reach(gr_vf l)
{
    return (gr_vm)(l >= GR_EXP_LEAST);
}
GR_ALWAYS void gr_count_tops(gr_vi *tops, gr_vf d)
{
    *tops -= (gr_vi)d == 0;
}
GR_ALWAYS void gr_note_nan(gr_vm *found, gr_vf x)
{
    *found |= (gr_vm)(x != x);
}
GR_ALWAYS int gr_any(gr_vm m)
{
    int any = 0;
    for (int i = 0; i < W; i++)
        any |= m[i];
    return any;
}

#endif
#endif

/* x where m, else +0 */
GR_ALWAYS gr_vf gr_only(gr_vm m, gr_vf x)
{
#if GR_VECTOR_WIDTH == 16
    return (gr_vf)_mm512_maskz_mov_ps(m, (__m512)x);
#else
    return gr_floats(gr_bits(x) & (gr_vu)m);
#endif
}

/* sum + x where m, else sum */
GR_ALWAYS gr_vf gr_plus(gr_vm m, gr_vf sum, gr_vf x)
{
#if GR_VECTOR_WIDTH == 16
    return (gr_vf)_mm512_mask_add_ps((__m512)sum, m, (__m512)sum, (__m512)x);
#else
    return sum + gr_only(m, x);
#endif
}

/* gr_exp_f32, for lanes within reach. */
GR_ALWAYS gr_vf gr_exp_lanes(gr_vf x)
{
    const gr_vf t = GR_EXP_TURNS(x), k = GR_EXP_WHOLE(t), r = GR_EXP_REST(x, k);
    return gr_floats(gr_bits(GR_EXP_NEAR_ZERO(r)) + (gr_bits(t) << 23));
}

GR_ALWAYS gr_vf gr_scaled(const int scaled, gr_vf x, float inverse)
{
    return scaled ? x * inverse : x;
}

/* Fewer than W logits, padded. */
GR_ALWAYS gr_vf gr_load_rest(const int type, const void *x, size_t n)
{
    union {
        float wide[W];
        uint16_t narrow[2 * W];
    } padded;
    for (int i = 0; i < W; i++)
        if (type == GRADREG_TYPE_F32)
            padded.wide[i] = -HUGE_VALF;
        else
            padded.narrow[i] = gr_f32_to_half(type, -HUGE_VALF);
    memcpy(&padded, x, n * gr_type_bytes(type));
    return gr_load(type, &padded, 0);
}

GR_ALWAYS const char *gr_at(const int type, const void *x, size_t i)
{
    return (const char *)x + i * gr_type_bytes(type);
}

/* An address to prefetch, which may lie outside of every object. */
GR_ALWAYS const void *gr_ahead(const int type, const void *x, size_t i)
{
    return (const void *)((uintptr_t)x + i * gr_type_bytes(type));
}

/* ---- sums ------------------------------------------------------------------------ */

/* The largest logit of a block, not yet scaled: scaling keeps the order. */
GR_ALWAYS float gr_top(const int type, const void *x, size_t n)
{
    enum { AT_ONCE = 4 };
    gr_vf top[AT_ONCE];
    gr_vm nan = (gr_vm){ 0 };
    size_t i = 0;
    for (int k = 0; k < AT_ONCE; k++)
        top[k] = (gr_vf){ 0 } - HUGE_VALF;
    for (; i + AT_ONCE * W <= n; i += AT_ONCE * W)
        for (size_t k = 0; k < AT_ONCE; k++) {
            const gr_vf v = gr_load(type, x, i + k * W);
            gr_note_nan(&nan, v);
            top[k] = gr_larger(top[k], v);
        }
    for (; i < n; i += W) {
        const gr_vf v =
            n - i < W ? gr_load_rest(type, gr_at(type, x, i), n - i) : gr_load(type, x, i);
        gr_note_nan(&nan, v);
        top[0] = gr_larger(top[0], v);
    }
    for (int k = 1; k < AT_ONCE; k++)
        top[0] = gr_larger(top[0], top[k]);
    return gr_any(nan) ? (float)NAN : gr_largest(top[0]);
}

typedef struct gr_logits_sums {
    gr_vf rest, turn;
} gr_logits_sums;

GR_ALWAYS void gr_sum_one(const int turns, gr_vf d, gr_logits_sums *sums, gr_vi *tops)
{
    const gr_vf e = gr_exp_lanes(d);
    const gr_vm below = gr_below_top(d);
    gr_count_tops(tops, d);
    sums->rest = gr_plus(below, sums->rest, e);
    if (turns)
        sums->turn = gr_plus(below, sums->turn, d * e);
}

GR_ALWAYS void gr_sums_load(gr_logits_sums *sums, const float *lanes, size_t lane)
{
    sums->rest = gr_load_f32(lanes + lane);
    sums->turn = gr_load_f32(lanes + GR_LANES + lane);
}

GR_ALWAYS void gr_sums_store(float *lanes, const gr_logits_sums *sums, size_t lane)
{
    gr_store_f32(lanes + lane, sums->rest);
    gr_store_f32(lanes + GR_LANES + lane, sums->turn);
}

GR_ALWAYS gr_logits_part gr_block(const int type, const int scaled, const int turns,
                                  const void *x, size_t n, float inverse)
{
    _Alignas(64) float lanes[2 * GR_LANES] = { 0 };
    const float largest = scaled ? gr_top(type, x, n) * inverse : gr_top(type, x, n);
    /* A zero of either sign less -0 is +0, by whose pattern those that equal the top are told. */
    const float top = largest == 0.0f ? -0.0f : largest;
    gr_logits_part part = { 0.0, 0.0, 0.0, largest, 0.0f };
    gr_logits_sums sums;
    gr_vi tops = { 0 };
    size_t i = 0;
    if (gr_is_non_finite(top))
        return part;
    for (; i + TILE <= n; i += TILE)
        for (size_t lane = 0; lane < GR_LANES; lane += W) {
            gr_sums_load(&sums, lanes, lane);
            for (size_t row = 0; row < TILE; row += GR_LANES) {
                const size_t at = i + row + lane;
                __builtin_prefetch(gr_ahead(type, x, at + GR_BLOCK));
                gr_sum_one(turns, gr_scaled(scaled, gr_load(type, x, at), inverse) - top, &sums,
                           &tops);
            }
            gr_sums_store(lanes, &sums, lane);
        }
    for (; i < n; i += W) {
        const gr_vf v =
            n - i < W ? gr_load_rest(type, gr_at(type, x, i), n - i) : gr_load(type, x, i);
        gr_sums_load(&sums, lanes, i % GR_LANES);
        gr_sum_one(turns, gr_scaled(scaled, v, inverse) - top, &sums, &tops);
        gr_sums_store(lanes, &sums, i % GR_LANES);
    }
    part.tops = (double)gr_total(tops);
    part.rest = gr_tree_lanes(lanes);
    part.turn = turns ? gr_tree_lanes(lanes + GR_LANES) : 0.0;
    return part;
}

GR_ALWAYS gr_logits_part gr_measure(const int type, const int scaled, const int turns,
                                    const void *row, size_t n, float inverse)
{
    gr_logits_stack stack;
    stack.held = 0;
    stack.count = 0;
    for (size_t i = 0; i < n; i += GR_BLOCK) {
        const size_t length = n - i < GR_BLOCK ? n - i : GR_BLOCK;
        gr_logits_push(&stack,
                       gr_block(type, scaled, turns, gr_at(type, row, i), length, inverse));
    }
    return gr_logits_whole(&stack);
}

GR_ALWAYS gr_logits_part gr_measure_of(const int type, const void *row, size_t n, float inverse,
                                       int turns)
{
    if (inverse == 1.0f) /* leaving out a factor of 1 changes no bit */
        return turns ? gr_measure(type, 0, 1, row, n, inverse)
                     : gr_measure(type, 0, 0, row, n, inverse);
    return turns ? gr_measure(type, 1, 1, row, n, inverse)
                 : gr_measure(type, 1, 0, row, n, inverse);
}

/* ---- gradient -------------------------------------------------------------------- */

GR_ALWAYS gr_vf gr_slope_one(const int tilted, gr_vf z, const gr_logits_slope *s)
{
    const gr_vf l = z - s->log_sum_exp, p = gr_exp_lanes(l);
    return gr_only(gr_in_reach(l), tilted ? GR_LOGITS_TILTED(p, s->level, s->tilt, l)
                                          : GR_LOGITS_SLOPE(p, s->level));
}

GR_ALWAYS void gr_slope_row(const int type, const int scaled, const int tilted, void *out,
                            const void *row, size_t n, float inverse,
                            const gr_logits_slope *slope, const char *next)
{
    enum { AT_ONCE = 2 };
    const gr_logits_slope s = *slope;
    gr_vi ignored = { 0 };
    size_t i = 0;
    for (; i + AT_ONCE * W <= n; i += AT_ONCE * W) {
        gr_vf g[AT_ONCE];
        for (size_t k = 0; k < AT_ONCE; k++) {
            const gr_vf x = gr_load(type, row, i + k * W);
            if (W == 16 || k % 2 == 0) /* a line at a time */
                __builtin_prefetch(gr_ahead(type, next, i + k * W), 0, 2);
            g[k] = gr_slope_one(tilted, gr_scaled(scaled, x, inverse), &s);
        }
        for (size_t k = 0; k < AT_ONCE; k++)
            gr_store(type, out, i + k * W, g[k], &ignored);
    }
    for (; i < n; i += W) {
        char narrow[W * 4];
        const size_t rest = n - i < W ? n - i : W;
        const gr_vf x = gr_load_rest(type, gr_at(type, row, i), rest);
        gr_store(type, narrow, 0, gr_slope_one(tilted, gr_scaled(scaled, x, inverse), &s),
                 &ignored);
        memcpy((char *)out + i * gr_type_bytes(type), narrow, rest * gr_type_bytes(type));
    }
}

GR_ALWAYS void gr_slope_of(const int type, void *out, const void *row, size_t n, float inverse,
                           const gr_logits_slope *slope, const void *next)
{
    const int tilted = slope->kind == GR_SLOPE_TILTED;
    if (inverse == 1.0f && tilted)
        gr_slope_row(type, 0, 1, out, row, n, inverse, slope, next);
    else if (inverse == 1.0f)
        gr_slope_row(type, 0, 0, out, row, n, inverse, slope, next);
    else if (tilted)
        gr_slope_row(type, 1, 1, out, row, n, inverse, slope, next);
    else
        gr_slope_row(type, 1, 0, out, row, n, inverse, slope, next);
}

/* ---- one function per type ------------------------------------------------------- */

#define GR_DEFINE_TYPE(T)                                                                  \
    static gr_logits_part measure_##T(const void *row, size_t n, float inverse, int turns) \
    {                                                                                      \
        return gr_measure_of(GRADREG_TYPE_##T, row, n, inverse, turns);                    \
    }                                                                                      \
    static void slope_##T(void *out, const void *row, size_t n, float inverse,             \
                          const gr_logits_slope *slope, const void *next)                  \
    {                                                                                      \
        gr_slope_of(GRADREG_TYPE_##T, out, row, n, inverse, slope, next);                  \
    }
GR_EACH_TYPE(GR_DEFINE_TYPE)

#define GR_MEASURE_OF(T) [GRADREG_TYPE_##T] = measure_##T,
#define GR_SLOPE_OF(T)   [GRADREG_TYPE_##T] = slope_##T,

/* Data, not a function that fills it: a function would be compiled for this path as well. */
const gr_cpu_logits_kernels GR_PASTE(gradreg_cpu_logits_kernels_, GR_PATH) = {
    .measure = { GR_EACH_TYPE(GR_MEASURE_OF) },
    .slope = { GR_EACH_TYPE(GR_SLOPE_OF) },
};
