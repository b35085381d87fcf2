/* cuda_table.h - the table and the spans of a call, as the device sees them.
 *
 * In: gr_work, whose table and spans are the host's. Out: records in device memory and a gr_walk,
 * the kernels' common argument. Device memory of one regularizer (scratch_bytes):
 *
 *      segments | words | order | bin_begin | held | segment_done | grid_done |
 *      segment_sums | unit_sums
 *
 * Every segment is cut into units of 16 blocks (of reduce.h) from its first block here, and a
 * thread block takes one unit at a time: 16 is a power of two, so that a unit's sum is a node of
 * the fixed tree. */
#ifndef GRADREG_LIB_CUDA_TABLE_H
#define GRADREG_LIB_CUDA_TABLE_H

#include "cuda_check.h"

enum { GR_UNIT_BLOCKS = 16 };

/* What of a segment's span the device keeps: one word each, all segments' of a kind side by side.
 * Those of the caller come first, since they change. */
enum gr_word {
    GR_WORD_GRADS,
    GR_WORD_PARAMS,
    GR_WORD_MOVED,
    GR_WORD_FIRST,
    GR_WORD_DIRECTION,
    GR_WORD_MASTER,
    GR_WORD_ABSENT, /* GR_ABSENT_ bits, not a pointer */
    GR_WORD_CALLERS,
    GR_WORD_CLEAN = GR_WORD_CALLERS, /* the library's: constant while the table is placed */
    GR_WORD_FIRST_COPY,
    GR_WORD_PLUS,
    GR_WORD_KEPT,
    GR_WORD_NOISE,
    GR_WORDS
};

/* Where g1 is in this call: mostly where another word points to. */
enum gr_first { GR_FIRST_OWN, GR_FIRST_IS_GRADS, GR_FIRST_IS_COPY };

typedef struct gr_cuda_segment {
    uint64_t begin, end;
    uint32_t first_unit, unit_count;
    uint32_t flags;
    int32_t bin;
    int32_t param_type, grad_type, compute_type;
    uint32_t reserved;
} gr_cuda_segment;

/* Which factor undoes the units of a row of sums. */
enum gr_units { GR_UNITS_NONE, GR_UNITS_MOVE, GR_UNITS_NOISE, GR_UNITS_COMBINE };

typedef struct gr_walk {
    const gr_cuda_segment *segments;
    const uint64_t *words; /* [GR_WORDS][segment_count] */
    const uint32_t *order; /* segments by bin, in the table's order */
    const uint32_t *bin_begin;
    uint32_t *segment_done, *grid_done; /* zero between launches */
    double *segment_sums;               /* [rows][segment_count] */
    double *unit_sums;                  /* [rows][unit_capacity] */
    uint64_t unit_capacity;
    uint32_t segment_count, unit_count;
    uint32_t given; /* bit per gr_word: this call has it */
    int32_t first;  /* gr_first */
    int32_t rows, first_row, every_copy, units, counts_absent;
    int32_t noisy;
    int32_t folds; /* 1 in the last launch of a pass */
} gr_walk;

/* Bytes of the above, and of what the host keeps. */
size_t gradreg_cuda_scratch_bytes(const gr_table *table);
size_t gradreg_cuda_note_bytes(size_t segment_count);

/* A call begins: pointers may have changed, and graphs may have run. */
gradreg_status gradreg_cuda_begin(gr_work *work);

/* Brings device memory up to date with work->table and work->spans, and fills the walk. */
gradreg_status gradreg_cuda_walk(gr_work *work, gr_walk *walk);

/* Elements held here per bin, in device memory. */
gradreg_status gradreg_cuda_held(gr_work *work, const double **held);

/* Pairs of types among the segments (cuda_types.h); never empty: where no segment is, sums are zeros all the
 * same. */
uint64_t gradreg_cuda_pairs(const gr_work *work);
/* Types of their weights, or of their gradients. */
uint32_t gradreg_cuda_types(const gr_work *work, int of_weights);

/* A pass of squares that waits for its decision; see cuda_squares.cu. */
typedef struct gr_pending {
    int waits, source, row;
} gr_pending;
gr_pending *gradreg_cuda_pending(gr_work *work);

#endif
