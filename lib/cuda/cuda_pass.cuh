/* cuda_pass.cuh - one walk over a table's units, and the folding of their sums.
 *
 * In: a gr_walk and a body that a warp runs on one block (of reduce.h). Out: rows of sums per bin.
 * The thread block that ends a segment folds its units by the tree, the thread block that ends the
 * grid folds segments into bins: nothing depends on how many thread blocks there are, or on their
 * order. The counters by which they know are zero again afterwards. */
#ifndef GRADREG_LIB_CUDA_PASS_CUH
#define GRADREG_LIB_CUDA_PASS_CUH

#include "cuda_fold.cuh"
#include "cuda_table.h"
#include "cuda_tile.cuh"

#include "../step.h"

enum {
    GR_PASS_THREADS = 256,
    GR_PASS_WARPS = GR_PASS_THREADS / 32,
    GR_PASS_RESIDENT = 4, /* thread blocks that an SM holds at 64 registers a thread */
    GR_PASS_PER_PROCESSOR = 8
};

/* A unit, in shared memory: what a thread would keep in registers while the body runs is read again
 * afterwards. */
typedef struct gr_unit {
    uint64_t begin, end;  /* the segment's */
    uint64_t first_block; /* the unit's, counted from element 0 of the segment */
    uint32_t number, segment, unit_count, blocks;
    uint32_t flags;
    int32_t bin, param_type, grad_type, compute_type;
} gr_unit;

/* The block of a warp, in shared memory for the same reason. */
typedef struct gr_warp {
    uint64_t begin; /* in the segment */
    uint32_t n;     /* 1 .. GR_BLOCK */
    uint32_t k;     /* of the unit */
} gr_warp;

/* One block, as a warp sees it. */
typedef struct gr_cuda_block {
    const gr_walk *walk;
    const gr_step *step;
    const volatile gr_unit *unit;
    const volatile gr_warp *warp;
    char *stages; /* shared memory: GR_STAGE_BYTES a warp */
} gr_cuda_block;

/* Where the rows of a block's sums go: those of one block lie apart. */
typedef struct gr_rows {
    double *sums;
    const volatile gr_warp *warp;
} gr_rows;

GR_DEVICE const gr_coefficients *gr_coefficients_of(const gr_cuda_block &b)
{
    return &b.step->coefficients[b.unit->bin];
}

GR_DEVICE char *gr_stage(const gr_cuda_block &b)
{
    return b.stages + threadIdx.x / 32 * GR_STAGE_BYTES;
}

/* ---- spans ----------------------------------------------------------------------- */

GR_DEVICE uint64_t gr_word_of(const gr_cuda_block &b, int word)
{
    return b.walk->words[(uint64_t)word * b.walk->segment_count + b.unit->segment];
}

/* The span's pointer at the segment's begin; NULL where this call has none. */
GR_DEVICE char *gr_pointer_of(const gr_cuda_block &b, int word)
{
    if ((b.walk->given >> word & 1u) == 0)
        return NULL;
    return reinterpret_cast<char *>(gr_word_of(b, word));
}

GR_DEVICE uint32_t gr_absent(const gr_cuda_block &b)
{
    return static_cast<uint32_t>(gr_word_of(b, GR_WORD_ABSENT));
}

GR_DEVICE char *gr_first_of(const gr_cuda_block &b)
{
    if (b.walk->first == GR_FIRST_IS_GRADS)
        return gr_pointer_of(b, GR_WORD_GRADS);
    if (b.walk->first == GR_FIRST_OWN)
        return gr_pointer_of(b, GR_WORD_FIRST);
    return (gr_absent(b) & GR_ABSENT_FIRST) != 0 ? NULL : gr_pointer_of(b, GR_WORD_FIRST_COPY);
}

/* A pointer moved on to the block. */
GR_DEVICE char *gr_at(const gr_cuda_block &b, char *base, uint32_t size)
{
    return base == NULL ? NULL : base + (b.warp->begin - b.unit->begin) * size;
}

GR_DEVICE char *gr_at_word(const gr_cuda_block &b, int word, uint32_t size)
{
    return gr_at(b, gr_pointer_of(b, word), size);
}

/* ---- the walk -------------------------------------------------------------------- */

/* The last segment that begins at or before this unit and has one. */
GR_DEVICE uint32_t gr_find_segment(const gr_walk &w, uint32_t unit)
{
    uint32_t low = 0, high = w.segment_count;
    while (high - low > 1) {
        const uint32_t middle = low + (high - low) / 2;
        if (w.segments[middle].first_unit <= unit)
            low = middle;
        else
            high = middle;
    }
    return low;
}

GR_DEVICE void gr_fold_segment(const gr_walk &w, uint32_t segment)
{
    const gr_cuda_segment *s = &w.segments[segment];
    for (int row = static_cast<int>(threadIdx.x / 32); row < w.rows; row += GR_PASS_WARPS) {
        const double sum = gr_fold(
            w.unit_sums + (uint64_t)row * w.unit_capacity + s->first_unit, s->unit_count, 1);
        if (gr_thread() == 0)
            w.segment_sums[(uint64_t)row * w.segment_count + segment] = sum;
    }
}

GR_DEVICE double gr_unit_factor(const gr_walk &w, const gr_coefficients *k, int row)
{
    if (w.units == GR_UNITS_MOVE && row < GR_MOVE_SUMS)
        return gr_move_unit(k, row, 0);
    if (w.units == GR_UNITS_NOISE && row < GR_MOVE_SLOPE)
        return gr_move_unit(k, row, 1);
    if (w.units == GR_UNITS_COMBINE && row < GR_COMBINE_SUMS)
        return gr_combine_unit(k, row);
    return 1.0;
}

/* Segments into one bin, in the table's order. */
GR_DEVICE double gr_fold_bin(const gr_walk &w, int row, uint32_t bin)
{
    volatile const double *sums = w.segment_sums + (uint64_t)row * w.segment_count;
    double sum = 0.0;
    for (uint32_t k = w.bin_begin[bin]; k < w.bin_begin[bin + 1]; k++) {
        const uint32_t i = w.order[k];
        if (w.segments[i].unit_count > 0 &&
            ((w.segments[i].flags & GR_SEGMENT_REPLICA) == 0 || w.every_copy))
            sum += sums[i];
    }
    return sum;
}

GR_DEVICE double gr_count_absent(const gr_walk &w, uint32_t bin)
{
    double absent = 0.0;
    for (uint32_t k = w.bin_begin[bin]; k < w.bin_begin[bin + 1]; k++) {
        const uint32_t i = w.order[k];
        uint64_t bits = w.words[(uint64_t)GR_WORD_ABSENT * w.segment_count + i];
        for (; (w.segments[i].flags & GR_SEGMENT_REPLICA) == 0 && bits != 0; bits &= bits - 1)
            absent += 1.0;
    }
    return absent;
}

GR_DEVICE void gr_fold_bins(const gr_walk &w, const gr_step &step)
{
    const uint32_t bins = static_cast<uint32_t>(step.bin_count);
    for (uint32_t i = threadIdx.x; i < static_cast<uint32_t>(w.rows) * bins;
         i += GR_PASS_THREADS) {
        const int row = static_cast<int>(i / bins);
        const uint32_t bin = i % bins;
        const double sum = gr_fold_bin(w, row, bin);
        const double factor =
            w.units == GR_UNITS_NONE ? 1.0 : gr_unit_factor(w, &step.coefficients[bin], row);
        step.sums[(uint64_t)(w.first_row + row) * bins + bin] = sum * factor;
    }
    for (uint32_t bin = threadIdx.x; w.counts_absent && bin < bins; bin += GR_PASS_THREADS)
        step.sums[(uint64_t)GR_SUM_ABSENT * bins + bin] = gr_count_absent(w, bin);
}

GR_DEVICE void gr_find_unit(const gr_walk &w, uint32_t unit, gr_unit *out)
{
    const uint32_t segment = gr_find_segment(w, unit);
    const gr_cuda_segment *s = &w.segments[segment];
    const uint64_t first =
        s->begin / GR_BLOCK + (uint64_t)(unit - s->first_unit) * GR_UNIT_BLOCKS;
    const uint64_t left = (s->end + GR_BLOCK - 1) / GR_BLOCK - first;
    out->begin = s->begin;
    out->end = s->end;
    out->first_block = first;
    out->number = unit;
    out->segment = segment;
    out->unit_count = s->unit_count;
    out->blocks = left < GR_UNIT_BLOCKS ? static_cast<uint32_t>(left)
                                        : static_cast<uint32_t>(GR_UNIT_BLOCKS);
    out->flags = s->flags;
    out->bin = s->bin;
    out->param_type = s->param_type;
    out->grad_type = s->grad_type;
    out->compute_type = s->compute_type;
}

GR_DEVICE void gr_give(const gr_rows &out, int row, double sum)
{
    if (gr_thread() == 0)
        out.sums[row * GR_UNIT_BLOCKS + out.warp->k] = sum;
}

/* A thread's lanes of SUMS sums: the first KEPT in registers, the others in shared memory, where a
 * thread reaches [sum][lane][thread] without others in its way. */
template <int SUMS, int KEPT> struct gr_lanes {
    static constexpr int SHARED = (SUMS - KEPT) * 4 * GR_PASS_THREADS;
    float kept[KEPT > 0 ? KEPT : 1][4];
    float *shared;
};

template <int SUMS, int KEPT>
GR_DEVICE float *gr_lane(gr_lanes<SUMS, KEPT> *lanes, int which, int k)
{
    if (which < KEPT)
        return &lanes->kept[which % (KEPT > 0 ? KEPT : 1)][k % 4];
    return lanes->shared + ((which - KEPT) * 4 + k % 4) * GR_PASS_THREADS;
}

template <int SUMS, int KEPT>
GR_DEVICE void gr_clear_lanes(gr_lanes<SUMS, KEPT> *lanes, float *shared)
{
    lanes->shared = shared + threadIdx.x;
    GR_UNROLL
    for (int i = 0; i < 4 * SUMS; i++)
        *gr_lane(lanes, i / 4, i) = 0.0f;
}

template <int SUMS, int KEPT>
GR_DEVICE void gr_add(gr_lanes<SUMS, KEPT> *lanes, int which, int k, float x, float y)
{
    float *lane = gr_lane(lanes, which, k);
    *lane = GR_ACCUMULATE(*lane, x, y);
}

/* The block's sums. */
template <int SUMS, int KEPT>
GR_DEVICE void gr_give_lanes(gr_lanes<SUMS, KEPT> *lanes, const gr_rows &out)
{
    GR_UNROLL
    for (int which = 0; which < SUMS; which++) {
        const float lane[4] = { *gr_lane(lanes, which, 0), *gr_lane(lanes, which, 1),
                                *gr_lane(lanes, which, 2), *gr_lane(lanes, which, 3) };
        gr_give(out, which, gr_tree_quads(lane));
        __syncwarp(); /* one after another: together they would need twice the registers */
    }
}

/* Notes that the warp takes block k of the unit. */
GR_DEVICE void gr_find_block(const volatile gr_unit *unit, uint32_t k, gr_warp *out)
{
    const uint64_t number = unit->first_block + k;
    const uint64_t first = unit->begin, last = unit->end;
    const uint64_t begin = number * GR_BLOCK < first ? first : number * GR_BLOCK;
    const uint64_t end = (number + 1) * GR_BLOCK < last ? (number + 1) * GR_BLOCK : last;
    __syncwarp();
    if (gr_thread() == 0) {
        out->begin = begin;
        out->n = static_cast<uint32_t>(end - begin);
        out->k = k;
    }
    __syncwarp();
}

/* The unit's blocks, shared out among the warps. */
template <class BODY>
GR_DEVICE void gr_walk_unit(const gr_cuda_block &block, gr_warp *warp, double *sums,
                            const BODY &body)
{
    const gr_rows out = { sums, warp };
    GR_NO_UNROLL
    for (uint32_t k = threadIdx.x / 32; k < block.unit->blocks;
         k = block.warp->k + GR_PASS_WARPS) {
        gr_find_block(block.unit, k, warp);
        GR_UNROLL
        for (int row = 0; row < BODY::ROWS; row++)
            gr_give(out, row, 0.0);
        body.run(block, out);
    }
}

/* Whether this thread block is the one that makes the counter full. */
GR_DEVICE bool gr_is_last(uint32_t *counter, uint32_t full, uint32_t *answer)
{
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0)
        *answer = atomicAdd(counter, 1u) + 1 == full;
    __syncthreads();
    __threadfence();
    return *answer != 0;
}

/* The unit's sums, and the segment's if it was its last. */
template <int ROWS>
GR_DEVICE void gr_end_unit(const gr_walk &w, const volatile gr_unit *place, double *sums,
                           uint32_t *answer)
{
    __syncthreads();
    if (threadIdx.x < ROWS)
        w.unit_sums[threadIdx.x * w.unit_capacity + place->number] =
            gr_tree_blocks(sums + threadIdx.x * GR_UNIT_BLOCKS, place->blocks);
    if (!gr_is_last(&w.segment_done[place->segment], place->unit_count, answer))
        return;
    gr_fold_segment(w, place->segment);
    if (threadIdx.x == 0)
        w.segment_done[place->segment] = 0;
}

/* Runs body.run(block, sums) on every block of the segments whose types body.takes. Gives 1 in the
 * thread block that has folded everything into step.sums. */
template <class BODY>
GR_DEVICE bool gr_pass(const gr_walk &w, const gr_step &step, const BODY &body)
{
    GR_SHARED(double, sums, (BODY::ROWS > 0 ? BODY::ROWS : 1) * GR_UNIT_BLOCKS);
    GR_SHARED(uint32_t, answer, 1);
    GR_SHARED(uint4, stages, GR_PASS_WARPS * GR_STAGE_BYTES / 16);
    GR_SHARED(gr_unit, unit, 1);
    GR_SHARED(gr_warp, warps, GR_PASS_WARPS);
    gr_warp *warp = &warps[threadIdx.x / 32];
    const gr_cuda_block block = { &w, &step, unit, warp, reinterpret_cast<char *>(stages) };
    uint32_t next = blockIdx.x;
    GR_NO_UNROLL
    while (next < w.unit_count) {
        if (threadIdx.x == 0)
            gr_find_unit(w, next, unit);
        __syncthreads();
        if (body.takes(block.unit->param_type, block.unit->grad_type)) {
            gr_walk_unit(block, warp, sums, body);
            if constexpr (BODY::ROWS > 0)
                gr_end_unit<BODY::ROWS>(w, block.unit, sums, answer);
        }
        next = block.unit->number + gridDim.x;
        __syncthreads(); /* what is shared is used again */
    }
    if constexpr (BODY::ROWS == 0)
        return false;
    const bool ends = gr_is_last(w.grid_done, gridDim.x, answer);
    if (ends && threadIdx.x == 0)
        *w.grid_done = 0;
    if (!ends || !w.folds)
        return false;
    gr_fold_bins(w, step);
    __threadfence_block();
    __syncthreads();
    return true;
}

#endif
