/* cpu_kernels.c - the element loops of one vector path; compiled once per path.
 *
 * In: blocks (cpu_kernels.h). Out: results and lanes of sums, with the same bits on every path:
 * a path differs in how many lanes one register holds and in nothing else. f32 is taken row by row
 * of 128 lanes, so that every stream goes through memory in its own order, which the processor
 * foresees better than any prefetch: two rows at a time, lane by lane, cost half of the read
 * bandwidth on Zen 4. Of 16-bit elements, where arithmetic is the limit, a lane's sums stay in
 * registers for two rows. A block's end that fills no register goes through zero-padded copies:
 * zeros add nothing to a lane.
 *
 * Nearly every block is an ordinary one: nothing is kept or drawn beside the step itself, and sums
 * are in units of 1. What the ordinary block does not need, `ordinary` leaves out at compile time;
 * leaving out a factor of 1 changes no bit. */
#include "cpu_kernels.h"

#include "cpu_vector.h"

enum { W = GR_VECTOR_WIDTH };

#define GR_PASTE_(a, b) a##b
#define GR_PASTE(a, b)  GR_PASTE_(a, b)

/* Elements of whole rows that are taken lane by lane. */
GR_ALWAYS size_t gr_tile_of(const int type)
{
    return type == GRADREG_TYPE_F32 ? GR_LANES : 2 * GR_LANES;
}

/* x in units of 1 / scale. */
GR_ALWAYS gr_vf gr_in_units(const int ordinary, gr_vf x, float scale)
{
    return ordinary ? x : x * scale;
}

GR_ALWAYS void gr_lanes_load(gr_vf *sums, const float *lanes, const int count, size_t lane)
{
    for (int k = 0; k < count; k++)
        sums[k] = gr_load_f32(lanes + k * GR_LANES + lane);
}

GR_ALWAYS void gr_lanes_store(float *lanes, const gr_vf *sums, const int count, size_t lane)
{
    for (int k = 0; k < count; k++)
        gr_store_f32(lanes + k * GR_LANES + lane, sums[k]);
}

/* All lanes of one sum: as many registers as the processor has, where they are narrow. */
GR_ALWAYS void gr_rows_load(gr_vf *sums, const float *lanes)
{
    for (size_t k = 0; k < GR_LANES / W; k++)
        sums[k] = gr_load_f32(lanes + k * W);
}

GR_ALWAYS void gr_rows_store(float *lanes, const gr_vf *sums)
{
    for (size_t k = 0; k < GR_LANES / W; k++)
        gr_store_f32(lanes + k * W, sums[k]);
}

/* ---- squares --------------------------------------------------------------------- */

GR_ALWAYS void gr_squares(const int type, const void *x, size_t n, float *lanes)
{
    gr_vf sums[GR_LANES / W];
    size_t i = 0;
    gr_rows_load(sums, lanes);
    for (; i + GR_LANES <= n; i += GR_LANES)
        for (size_t k = 0; k < GR_LANES / W; k++) {
            const gr_vf v = gr_load(type, x, i + k * W);
            sums[k] = GR_ACCUMULATE(sums[k], v, v);
        }
    gr_rows_store(lanes, sums);
    for (; i < n; i += W) {
        char padded[W * 4] = { 0 };
        const char *at = (const char *)x + i * gr_type_bytes(type);
        if (n - i < W)
            at = memcpy(padded, at, (n - i) * gr_type_bytes(type));
        const gr_vf v = gr_load(type, at, 0);
        float *sum = lanes + i % GR_LANES;
        gr_store_f32(sum, GR_ACCUMULATE(gr_load_f32(sum), v, v));
    }
}

/* ---- move ------------------------------------------------------------------------ */

typedef struct gr_move_counts {
    gr_vi changed, saturated;
} gr_move_counts;

GR_ALWAYS int gr_move_is_ordinary(const gr_move_block *b)
{
    return b->slope == NULL && b->compute == 0 && b->scale_applied == 1.0f &&
           b->scale_u == 1.0f;
}

/* Both as a forward pass in this type sees them; 0: as they are. */
GR_ALWAYS void gr_compute_in(int32_t type, gr_vf *before, gr_vf *after)
{
#define GR_IN(T)                                         \
    case GRADREG_TYPE_##T:                               \
        *before = gr_rounded(GRADREG_TYPE_##T, *before); \
        *after = gr_rounded(GRADREG_TYPE_##T, *after);   \
        break;
    switch (type) {
        GR_EACH_TYPE(GR_IN)
    }
#undef GR_IN
}

GR_ALWAYS void gr_move_one(const int ordinary, const int P, const int U, const gr_move_block *b,
                           size_t i, gr_vf *sums, gr_move_counts *counts)
{
    gr_vf before = gr_load(P, b->base, i);
    const gr_vf u = gr_load(U, b->u, i), sum = GR_MOVE(before, b->coefficient, u);
    gr_vf after = P == U ? gr_store_own(P, b->moved, i, sum, &counts->saturated)
                         : gr_store(P, b->moved, i, sum, &counts->saturated);
    if (!ordinary)
        gr_compute_in(b->compute, &before, &after);
    gr_count_unequal(&counts->changed, before, after);
    const gr_vf applied = gr_in_units(ordinary, after - before, b->scale_applied);
    sums[GR_MOVE_APPLIED] = GR_ACCUMULATE(sums[GR_MOVE_APPLIED], applied, applied);
    sums[GR_MOVE_ALONG] =
        GR_ACCUMULATE(sums[GR_MOVE_ALONG], applied, gr_in_units(ordinary, u, b->scale_u));
    if (!ordinary && b->slope != NULL)
        sums[GR_MOVE_SLOPE] = GR_ACCUMULATE(sums[GR_MOVE_SLOPE], applied,
                                            gr_load(U, b->slope, i) * b->scale_slope);
}

/* Elements whose copies are made in one run: see GR_RESTORED below. */
GR_ALWAYS size_t gr_move_run_of(const int type)
{
    return type == GRADREG_TYPE_F32 ? 512 : gr_tile_of(type);
}

/* Copies are made while the lines are on their way in for the arithmetic anyway. */
GR_ALWAYS void gr_move_copies(const int P, const int U, const gr_move_block *b, size_t i,
                              size_t n)
{
    const size_t p = gr_type_bytes(P), u = gr_type_bytes(U);
    if (b->clean != NULL)
        gr_copy((char *)b->clean + i * p, (const char *)b->base + i * p, n * p, b->streaming);
    if (b->kept != NULL)
        gr_copy((char *)b->kept + i * u, (const char *)b->u + i * u, n * u, b->streaming);
}

/* The last n < W elements, in padded copies. */
GR_ALWAYS void gr_move_rest(const int ordinary, const int P, const int U,
                            const gr_move_block *b, size_t i, size_t n, gr_vf *sums,
                            gr_move_counts *counts)
{
    char base[W * 4] = { 0 }, u[W * 4] = { 0 }, slope[W * 4] = { 0 };
    const size_t p = gr_type_bytes(P), g = gr_type_bytes(U);
    gr_move_block rest = *b;
    rest.base = memcpy(base, (const char *)b->base + i * p, n * p);
    rest.u = memcpy(u, (const char *)b->u + i * g, n * g);
    if (b->slope != NULL)
        rest.slope = memcpy(slope, (const char *)b->slope + i * g, n * g);
    rest.moved = base;
    gr_move_one(ordinary, P, U, &rest, 0, sums, counts);
    memcpy((char *)b->moved + i * p, base, n * p);
}

GR_ALWAYS void gr_move_tiles(const int ordinary, const int P, const int U,
                             const gr_move_block *b, size_t n, float *lanes, uint64_t *totals)
{
    const size_t tile = gr_tile_of(U), run = gr_move_run_of(U);
    gr_move_counts counts = { 0 };
    gr_vf sums[GR_MOVE_SUMS];
    for (size_t i = 0; i < n;) {
        const size_t begin = i, stop = n - i < run ? n : i + run;
        gr_move_copies(P, U, b, i, stop - i);
        for (; i + tile <= stop; i += tile)
            for (size_t lane = 0; lane < GR_LANES; lane += W) {
                gr_lanes_load(sums, lanes, GR_MOVE_SUMS, lane);
                for (size_t row = 0; row < tile; row += GR_LANES)
                    gr_move_one(ordinary, P, U, b, i + row + lane, sums, &counts);
                gr_lanes_store(lanes, sums, GR_MOVE_SUMS, lane);
            }
        for (; i < stop; i += W) {
            gr_lanes_load(sums, lanes, GR_MOVE_SUMS, i % GR_LANES);
            if (n - i < W)
                gr_move_rest(ordinary, P, U, b, i, n - i, sums, &counts);
            else
                gr_move_one(ordinary, P, U, b, i, sums, &counts);
            gr_lanes_store(lanes, sums, GR_MOVE_SUMS, i % GR_LANES);
        }
        if (b->zeroed != NULL)
            memset((char *)b->zeroed + begin * gr_type_bytes(U), 0,
                   (stop - begin) * gr_type_bytes(U));
    }
    totals[0] += gr_total(counts.changed);
    totals[1] += gr_total(counts.saturated);
}

GR_ALWAYS void gr_move(const int P, const int U, const gr_move_block *block, size_t n,
                       float *lanes, uint64_t *totals)
{
    const gr_move_block b = *block; /* which no store to memory can change */
    if (gr_move_is_ordinary(&b))
        gr_move_tiles(1, P, U, &b, n, lanes, totals);
    else
        gr_move_tiles(0, P, U, &b, n, lanes, totals);
}

/* ---- combine --------------------------------------------------------------------- */

/* Sums of the difference without clips: scaled before subtracting, which is exact but for
 * values that would leave fp32's range. */
GR_ALWAYS void gr_combine_plain(const int ordinary, const int read, const gr_combine_block *b,
                                size_t i, gr_vf g1, gr_vf g2, gr_vf plus, gr_vf *sums)
{
    const gr_vf x1 = gr_in_units(ordinary, g1, b->scale);
    const gr_vf x2 = gr_in_units(ordinary, g2, b->scale);
    const gr_vf left = read == GR_READ_CENTRAL ? plus * b->scale : x1;
    const gr_vf d0 = read == GR_READ_CENTRAL ? GR_DIFFERENCE_CENTRAL(left, x2)
                                             : GR_DIFFERENCE_FORWARD(x1, x2);
    const gr_vf u =
        !ordinary && b->direction != NULL ? gr_load_f32(b->direction + i) * b->scale_u : x1;
    sums[GR_COMBINE_D0] = GR_ACCUMULATE(sums[GR_COMBINE_D0], d0, d0);
    sums[GR_COMBINE_ALONG] = GR_ACCUMULATE(sums[GR_COMBINE_ALONG], u, d0);
    sums[GR_COMBINE_CROSS] = GR_ACCUMULATE(sums[GR_COMBINE_CROSS], left, x2);
}

/* D: what the correction is made of. */
GR_ALWAYS gr_vf gr_combine_difference(const int read, const gr_combine_block *b, size_t i,
                                      gr_vf a, gr_vf g2, gr_vf plus)
{
    if (read == GR_READ_KEPT)
        return gr_load_f32(b->kept + i);
    const gr_vf second = GR_SCALED(b->second_factor, g2);
    if (read == GR_READ_CENTRAL)
        return GR_DIFFERENCE_CENTRAL(GR_SCALED(b->plus_factor, plus), second);
    return GR_DIFFERENCE_FORWARD(a, second);
}

GR_ALWAYS gr_vf gr_combine_product(const int read, const gr_combine_block *b, gr_vf g1,
                                   gr_vf g2, gr_vf plus)
{
    if (read == GR_READ_CENTRAL)
        return GR_SCALED(b->correction, GR_DIFFERENCE_CENTRAL(plus, g2));
    return GR_SCALED(b->correction, GR_DIFFERENCE_FORWARD(g1, g2));
}

GR_ALWAYS int gr_combine_is_ordinary(const int read, const gr_combine_block *b)
{
    return read == GR_READ_FORWARD && b->write == GR_WRITE_CORRECTED && b->correction != 0.0f &&
           b->direction == NULL && b->keep == NULL && b->scale == 1.0f;
}

GR_ALWAYS void gr_combine_one(const int ordinary, const int G, const int read,
                              const gr_combine_block *b, size_t i, gr_vf *sums,
                              gr_vi *saturated)
{
    const int two_passes = read == GR_READ_FORWARD || read == GR_READ_CENTRAL;
    const gr_vf g1 = gr_load(G, b->first, i);
    const gr_vf g2 = two_passes ? gr_load(G, b->second, i) : g1;
    const gr_vf plus = read == GR_READ_CENTRAL ? gr_load(G, b->plus, i) : g1;
    const gr_vf a = GR_SCALED(b->first_factor, g1);
    gr_vf out = a;

    if (two_passes)
        gr_combine_plain(ordinary, read, b, i, g1, g2, plus, sums);
    if (read != GR_READ_FIRST && (ordinary || b->write == GR_WRITE_CORRECTED)) {
        const gr_vf d = gr_combine_difference(read, b, i, a, g2, plus);
        const gr_vf scaled = gr_in_units(ordinary, d, b->scale);
        if (ordinary || b->correction != 0.0f) /* else a itself: a + 0 would turn -0 into +0 */
            out = GR_CORRECTED(a, b->correction, d);
        if (!ordinary && b->keep != NULL)
            gr_store_f32(b->keep + i, GR_SCALED(b->keep_factor, d));
        const gr_vf stored = ordinary ? gr_store_own(G, b->out, i, out, saturated)
                                      : gr_store(G, b->out, i, out, saturated);
        sums[GR_COMBINE_D] = GR_ACCUMULATE(sums[GR_COMBINE_D], scaled, scaled);
        sums[GR_COMBINE_STORED] = GR_ACCUMULATE(
            sums[GR_COMBINE_STORED], gr_in_units(ordinary, stored - a, b->scale), scaled);
    } else {
        if (two_passes && b->write == GR_WRITE_PRODUCT)
            out = gr_combine_product(read, b, g1, g2, plus);
        gr_store(G, b->out, i, out, saturated);
    }
    out = gr_in_units(ordinary, out, b->scale);
    sums[GR_COMBINE_OUT] = GR_ACCUMULATE(sums[GR_COMBINE_OUT], out, out);
}

/* The last n < W elements, in padded copies. */
GR_ALWAYS void gr_combine_rest(const int ordinary, const int G, const int read,
                               const gr_combine_block *b, size_t i, size_t n, gr_vf *sums,
                               gr_vi *saturated)
{
    char first[W * 4] = { 0 }, second[W * 4] = { 0 }, plus[W * 4] = { 0 };
    float kept[W] = { 0 }, direction[W] = { 0 }, keep[W] = { 0 };
    const size_t at = i * gr_type_bytes(G), bytes = n * gr_type_bytes(G);
    gr_combine_block rest = *b;
    rest.first = memcpy(first, (const char *)b->first + at, bytes);
    if (read == GR_READ_FORWARD || read == GR_READ_CENTRAL)
        memcpy(second, (const char *)b->second + at, bytes);
    if (read == GR_READ_CENTRAL)
        rest.plus = memcpy(plus, (const char *)b->plus + at, bytes);
    if (read == GR_READ_KEPT)
        rest.kept = memcpy(kept, b->kept + i, n * sizeof(float));
    if (b->direction != NULL)
        rest.direction = memcpy(direction, b->direction + i, n * sizeof(float));
    if (b->keep != NULL)
        rest.keep = keep;
    rest.second = rest.out = second;
    gr_combine_one(ordinary, G, read, &rest, 0, sums, saturated);
    memcpy((char *)b->out + at, second, bytes);
    if (b->keep != NULL)
        memcpy(b->keep + i, keep, n * sizeof(float));
}

/* Elements whose weights go back in one run. Short runs of streamed lines cost memory its pace; during
 * long ones the gradients' streams lose the processor's foresight. */
enum { GR_RESTORED = 512 };

/* Gives back the weights of elements `from` to `to`, or somewhat less, to end on a cache line: one that is
 * streamed in two parts is fetched in between. Gives where it ended. */
GR_ALWAYS size_t gr_combine_restore(const gr_combine_block *b, size_t from, size_t to, size_t n)
{
    const size_t p = gr_type_bytes(b->param_type);
    if (b->clean == NULL)
        return to;
    if (to < n)
        to -= (uintptr_t)((char *)b->restored + to * p) % 64 / p;
    gr_copy((char *)b->restored + from * p, (const char *)b->clean + from * p, (to - from) * p,
            b->streaming);
    return to;
}

GR_ALWAYS void gr_combine_tiles(const int ordinary, const int G, const int read,
                                const gr_combine_block *b, size_t n, float *lanes,
                                uint64_t *saturated)
{
    const size_t tile = gr_tile_of(G);
    gr_vi clipped = { 0 };
    gr_vf sums[GR_COMBINE_SUMS];
    size_t back = 0;
    for (size_t i = 0; i < n;) {
        const size_t stop = n - i < GR_RESTORED ? n : i + GR_RESTORED;
        back = gr_combine_restore(b, back, stop, n);
        for (; i + tile <= stop; i += tile)
            for (size_t lane = 0; lane < GR_LANES; lane += W) {
                gr_lanes_load(sums, lanes, GR_COMBINE_SUMS, lane);
                for (size_t row = 0; row < tile; row += GR_LANES)
                    gr_combine_one(ordinary, G, read, b, i + row + lane, sums, &clipped);
                gr_lanes_store(lanes, sums, GR_COMBINE_SUMS, lane);
            }
        for (; i < stop; i += W) {
            gr_lanes_load(sums, lanes, GR_COMBINE_SUMS, i % GR_LANES);
            if (n - i < W)
                gr_combine_rest(ordinary, G, read, b, i, n - i, sums, &clipped);
            else
                gr_combine_one(ordinary, G, read, b, i, sums, &clipped);
            gr_lanes_store(lanes, sums, GR_COMBINE_SUMS, i % GR_LANES);
        }
    }
    *saturated += gr_total(clipped);
}

GR_ALWAYS void gr_combine(const int G, const int read, const gr_combine_block *block, size_t n,
                          float *lanes, uint64_t *saturated)
{
    const gr_combine_block b = *block;
    if (gr_combine_is_ordinary(read, &b))
        gr_combine_tiles(1, G, read, &b, n, lanes, saturated);
    else
        gr_combine_tiles(0, G, read, &b, n, lanes, saturated);
}

/* ---- conversions and copies ------------------------------------------------------ */

GR_ALWAYS void gr_widen(const int type, float *to, const void *from, size_t n)
{
    size_t i = 0;
    for (; i + W <= n; i += W)
        gr_store_f32(to + i, gr_load(type, from, i));
    if (i < n) {
        char padded[W * 4] = { 0 };
        memcpy(padded, (const char *)from + i * gr_type_bytes(type),
               (n - i) * gr_type_bytes(type));
        const gr_vf x = gr_load(type, padded, 0);
        memcpy(to + i, &x, (n - i) * sizeof(float));
    }
}

GR_ALWAYS void gr_narrow(const int type, void *to, const float *from, size_t n)
{
    gr_vi ignored = { 0 };
    size_t i = 0;
    for (; i + W <= n; i += W)
        gr_store(type, to, i, gr_load_f32(from + i), &ignored);
    if (i < n) {
        float padded[W] = { 0 };
        char narrow[W * 4];
        memcpy(padded, from + i, (n - i) * sizeof(float));
        gr_store(type, narrow, 0, gr_load_f32(padded), &ignored);
        memcpy((char *)to + i * gr_type_bytes(type), narrow, (n - i) * gr_type_bytes(type));
    }
}

static void copy_bytes(void *to, const void *from, size_t bytes, int streaming)
{
    gr_copy(to, from, bytes, streaming);
}

static double fold(const float *lanes)
{
    return gr_tree_lanes(lanes);
}

static int in_range(const float *lanes)
{
    return gr_lanes_in_range(lanes);
}

static void fence(void)
{
    gr_copy_fence();
}

/* ---- one function per type or pair of types -------------------------------------- */

#define GR_DEFINE_TYPE(T)                                                                   \
    static void squares_##T(const void *x, size_t n, float *lanes)                          \
    {                                                                                       \
        gr_squares(GRADREG_TYPE_##T, x, n, lanes);                                          \
    }                                                                                       \
    static void first_##T(const gr_combine_block *b, size_t n, float *lanes, uint64_t *s)   \
    {                                                                                       \
        gr_combine(GRADREG_TYPE_##T, GR_READ_FIRST, b, n, lanes, s);                        \
    }                                                                                       \
    static void forward_##T(const gr_combine_block *b, size_t n, float *lanes, uint64_t *s) \
    {                                                                                       \
        gr_combine(GRADREG_TYPE_##T, GR_READ_FORWARD, b, n, lanes, s);                      \
    }                                                                                       \
    static void central_##T(const gr_combine_block *b, size_t n, float *lanes, uint64_t *s) \
    {                                                                                       \
        gr_combine(GRADREG_TYPE_##T, GR_READ_CENTRAL, b, n, lanes, s);                      \
    }                                                                                       \
    static void kept_##T(const gr_combine_block *b, size_t n, float *lanes, uint64_t *s)    \
    {                                                                                       \
        gr_combine(GRADREG_TYPE_##T, GR_READ_KEPT, b, n, lanes, s);                         \
    }                                                                                       \
    static void widen_##T(float *to, const void *from, size_t n)                            \
    {                                                                                       \
        gr_widen(GRADREG_TYPE_##T, to, from, n);                                            \
    }                                                                                       \
    static void narrow_##T(void *to, const float *from, size_t n)                           \
    {                                                                                       \
        gr_narrow(GRADREG_TYPE_##T, to, from, n);                                           \
    }
GR_EACH_TYPE(GR_DEFINE_TYPE)

#define GR_DEFINE_PAIR(P, U)                                                                \
    static void move_##P##_##U(const gr_move_block *b, size_t n, float *lanes, uint64_t *c) \
    {                                                                                       \
        gr_move(GRADREG_TYPE_##P, GRADREG_TYPE_##U, b, n, lanes, c);                        \
    }
GR_EACH_PAIR(GR_DEFINE_PAIR)

#define GR_MOVE_OF(P, U) [GRADREG_TYPE_##P][GRADREG_TYPE_##U] = move_##P##_##U,
#define GR_SQUARES_OF(T) [GRADREG_TYPE_##T] = squares_##T,
#define GR_WIDEN_OF(T)   [GRADREG_TYPE_##T] = widen_##T,
#define GR_NARROW_OF(T)  [GRADREG_TYPE_##T] = narrow_##T,
#define GR_COMBINE_OF(T)                 \
    [GRADREG_TYPE_##T] = {               \
        [GR_READ_FIRST] = first_##T,     \
        [GR_READ_FORWARD] = forward_##T, \
        [GR_READ_CENTRAL] = central_##T, \
        [GR_READ_KEPT] = kept_##T,       \
    },

/* Data, not a function that fills it: a function would be compiled for this path as well. */
const gr_cpu_kernels GR_PASTE(gradreg_cpu_kernels_, GR_PATH) = {
    .squares = { GR_EACH_TYPE(GR_SQUARES_OF) },
    .move = { GR_EACH_PAIR(GR_MOVE_OF) },
    .combine = { GR_EACH_TYPE(GR_COMBINE_OF) },
    .copy = copy_bytes,
    .widen = { GR_EACH_TYPE(GR_WIDEN_OF) },
    .narrow = { GR_EACH_TYPE(GR_NARROW_OF) },
    .fold = fold,
    .in_range = in_range,
    .fence = fence,
};
