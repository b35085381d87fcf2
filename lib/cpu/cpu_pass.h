/* cpu_pass.h - one walk over the pieces of a table, on all threads.
 *
 * In: a gr_work and what to do with a block. Out: block sums, folded into rows of sums per bin in
 * the order of reduce.h. The passes of the regularizer (cpu_squares.c, cpu_move.c, cpu_combine.c)
 * are made of this. */
#ifndef GRADREG_LIB_CPU_PASS_H
#define GRADREG_LIB_CPU_PASS_H

#include "../backend.h"
#include "../context.h"
#include "../types.h"
#include "cpu_kernels.h"

/* One block of one segment, as a pass sees it. */
typedef struct gr_cpu_block {
    const gr_work *work;
    const gr_cpu_kernels *kernels;
    const gr_segment *segment;
    const gr_span *span;
    const gr_coefficients *coefficients;
    uint32_t index; /* of the segment */
    uint64_t begin; /* in the segment */
    size_t at;      /* begin - segment->begin: elements behind the span's pointers */
    size_t n;       /* 1 .. GR_BLOCK */
    int argument;   /* of the pass */
    double *sums;   /* this block's, one per row */
} gr_cpu_block;

typedef void (*gr_cpu_body)(gr_cpu_block *block);

/* Runs `body` on every block, then folds `rows` block sums into sums[first_row ...] per bin, in
 * units that gr_unit undoes (NULL: 1). rows may be 0. */
typedef double (*gr_cpu_unit)(const gr_coefficients *k, int row);
void gradreg_cpu_pass(gr_work *work, gr_cpu_body body, int argument, int rows, int first_row,
                      gr_cpu_unit unit);

const gr_cpu_kernels *gradreg_cpu_kernels_of(const gradreg_context *context);

static inline char *gr_cpu_at(const char *base, size_t at, int32_t type)
{
    return base == NULL ? NULL : (char *)(uintptr_t)base + at * gr_type_bytes(type);
}

/* The sum of squares of one block by reduce.h, steps 1 to 4; *bad grows by its elements that are not
 * finite. */
double gradreg_cpu_block_squares(const gr_cpu_kernels *kernels, const void *x, size_t n,
                                 int32_t type, double *bad);

/* The direction of a block in f32, drawn or widened into scratch. */
const float *gradreg_cpu_direction(const gr_cpu_block *block, float *scratch);

/* Clean theta of a block: where it lies, or rounded from master into scratch (GR_BLOCK f32). */
const char *gradreg_cpu_clean(const gr_cpu_block *block, void *scratch);

/* Puts clean theta back into params. */
void gradreg_cpu_put_back(const gr_cpu_block *block);

/* Passes, in the order of the data flow. */
gradreg_status gradreg_cpu_squares(gr_work *work, enum gr_source source, int row);
gradreg_status gradreg_cpu_verify_master(gr_work *work, int row);
gradreg_status gradreg_cpu_inject(gr_work *work);
gradreg_status gradreg_cpu_perturb(gr_work *work);
gradreg_status gradreg_cpu_rehearse(gr_work *work);
gradreg_status gradreg_cpu_mirror(gr_work *work);
gradreg_status gradreg_cpu_combine(gr_work *work, int read, uint32_t restored);
gradreg_status gradreg_cpu_restore(gr_work *work, uint32_t restored);

#endif
