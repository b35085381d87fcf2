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

/* One block, as a warp sees it. */
typedef struct gr_cuda_block {
    const gr_walk *walk;
    const gr_step *step;
    const gr_coefficients *coefficients;
    uint32_t index; /* of the segment */
    uint32_t flags;
    int32_t param_type, grad_type, compute_type;
    uint32_t n;     /* 1 .. GR_BLOCK */
    uint64_t begin; /* in the segment */
    uint64_t at;    /* begin - the segment's begin here */
    char *stage;    /* the warp's GR_STAGE_BYTES of shared memory */
} gr_cuda_block;

/* ---- spans ----------------------------------------------------------------------- */

GR_DEVICE uint64_t gr_word_of(const gr_cuda_block &b, int word)
{
    return b.walk->words[(uint64_t)word * b.walk->segment_count + b.index];
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
    return base == NULL ? NULL : base + b.at * size;
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

/* A unit, in shared memory: what a thread would keep in registers while the body runs is read again
 * afterwards. */
typedef struct gr_unit {
    uint64_t begin, end;  /* the segment's */
    uint64_t first_block; /* the unit's, counted from element 0 of the segment */
    uint32_t segment, unit_count, blocks;
    uint32_t flags;
    int32_t bin, param_type, grad_type, compute_type;
} gr_unit;

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

/* One row of a block's sums, where the rows of one block lie apart. */
GR_DEVICE void gr_give(double *out, int row, double sum)
{
    if (gr_thread() == 0)
        out[row * GR_UNIT_BLOCKS] = sum;
}

/* Block k of the unit, by one warp. */
template <class BODY>
GR_DEVICE void gr_walk_block(const gr_walk &w, const gr_step &step,
                             const volatile gr_unit *unit, uint32_t k, double *sums,
                             char *stage, const BODY &body)
{
    const uint64_t number = unit->first_block + k;
    const uint64_t first = unit->begin, last = unit->end;
    const uint64_t begin = number * GR_BLOCK < first ? first : number * GR_BLOCK;
    const uint64_t end = (number + 1) * GR_BLOCK < last ? (number + 1) * GR_BLOCK : last;
    const gr_cuda_block block = { &w,
                                  &step,
                                  &step.coefficients[unit->bin],
                                  unit->segment,
                                  unit->flags,
                                  unit->param_type,
                                  unit->grad_type,
                                  unit->compute_type,
                                  static_cast<uint32_t>(end - begin),
                                  begin,
                                  begin - first,
                                  stage };
    GR_UNROLL
    for (int row = 0; row < BODY::ROWS; row++)
        gr_give(sums + k, row, 0.0);
    body.run(block, sums + k);
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
GR_DEVICE void gr_end_unit(const gr_walk &w, uint32_t unit, const volatile gr_unit *place,
                           double *sums, uint32_t *answer)
{
    __syncthreads();
    if (threadIdx.x < ROWS)
        w.unit_sums[threadIdx.x * w.unit_capacity + unit] =
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
    GR_SHARED(gr_unit, shared_unit, 1);
    const volatile gr_unit *place = shared_unit;
    GR_NO_UNROLL
    for (uint32_t unit = blockIdx.x; unit < w.unit_count; unit += gridDim.x) {
        if (threadIdx.x == 0)
            gr_find_unit(w, unit, shared_unit);
        __syncthreads();
        if (body.takes(place->param_type, place->grad_type)) {
            GR_NO_UNROLL
            for (uint32_t k = threadIdx.x / 32; k < place->blocks; k += GR_PASS_WARPS)
                gr_walk_block(
                    w, step, place, k, sums,
                    reinterpret_cast<char *>(stages) + threadIdx.x / 32 * GR_STAGE_BYTES, body);
            if constexpr (BODY::ROWS > 0)
                gr_end_unit<BODY::ROWS>(w, unit, place, sums, answer);
        }
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
