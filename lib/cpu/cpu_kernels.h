/* cpu_kernels.h - the element loops: what one block of at most GR_BLOCK elements goes through.
 *
 * In: pointers to a block's first elements and coefficients. Out: typed results, and sums left
 * in fp32 lanes (reduce.h, step 2), which the caller folds. Lanes should lie on cache lines: where a
 * register's load straddles two, blocks take up to half as long again. The kernels know nothing but
 * coefficients; what they stand for is decided in step.h. No code compiled for a path may run
 * where the processor lacks it, so a path is a table and nothing else. */
#ifndef GRADREG_LIB_CPU_KERNELS_H
#define GRADREG_LIB_CPU_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#include "../reduce.h"
#include "../step_data.h"
#include "../types.h"

/* moved = round(base + coefficient * u) */
typedef struct gr_move_block {
    const void *base;    /* P */
    void *moved;         /* P, may be base */
    const void *u;       /* U */
    const void *slope;   /* U, or NULL when u itself is the gradient */
    void *clean;         /* P, or NULL: becomes a copy of base */
    void *kept;          /* U, or NULL: becomes a copy of u */
    void *zeroed;        /* U, or NULL: becomes zeros after u was read; may be u */
    float coefficient;   /* of u, as decided */
    float scale_applied; /* powers of two that keep the sums in range */
    float scale_u;
    float scale_slope;
    int32_t compute; /* statistics see weights rounded to this type; 0: as stored */
    int32_t streaming;
} gr_move_block;

/* What becomes of the gradient: the first three GR_WRITE_ modes. CORRECTED needs a second gradient or
 * a kept difference, PRODUCT a second gradient; with GR_READ_FIRST all write a. */
typedef struct gr_combine_block {
    const void *first;      /* G */
    const void *second;     /* G, may be out */
    const void *plus;       /* G, CENTRAL */
    const float *kept;      /* KEPT: the difference of an earlier step over ||delta|| */
    const float *direction; /* NULL when the direction is first */
    float *keep;            /* NULL, or receives keep_factor * D */
    void *out;              /* G */
    const void *clean;      /* NULL, or bytes that go back to restored */
    void *restored;
    int32_t param_type; /* of clean and restored */
    int32_t write;
    float first_factor; /* c1 */
    float second_factor;
    float plus_factor;
    float correction; /* k */
    float keep_factor;
    float scale; /* power of two, of gradients in sums */
    float scale_u;
    int32_t streaming;
} gr_combine_block;

typedef struct gr_cpu_kernels {
    /* lanes[i % 128] += x x */
    void (*squares[GR_TYPES])(const void *x, size_t n, float *lanes);
    /* [P][U]; lanes[GR_MOVE_SUMS][GR_LANES], counts: changed, saturated */
    void (*move[GR_TYPES][GR_TYPES])(const gr_move_block *block, size_t n, float *lanes,
                                     uint64_t counts[2]);
    /* [G][GR_READ_]; lanes[GR_COMBINE_SUMS][GR_LANES], saturated counts */
    void (*combine[GR_TYPES][GR_READS])(const gr_combine_block *block, size_t n, float *lanes,
                                        uint64_t *saturated);
    /* bytes, past the caches if streaming */
    void (*copy)(void *to, const void *from, size_t bytes, int streaming);
    /* f32 of a typed block */
    void (*widen[GR_TYPES])(float *to, const void *from, size_t n);
    /* typed block of f32 */
    void (*narrow[GR_TYPES])(void *to, const float *from, size_t n);
    /* reduce.h, steps 3 and 4, of 128 lanes */
    double (*fold)(const float *lanes);
    int (*in_range)(const float *lanes);
    /* after the last block of a piece */
    void (*fence)(void);
} gr_cpu_kernels;

extern const gr_cpu_kernels gradreg_cpu_kernels_scalar;
extern const gr_cpu_kernels gradreg_cpu_kernels_v2;
extern const gr_cpu_kernels gradreg_cpu_kernels_v3;
extern const gr_cpu_kernels gradreg_cpu_kernels_v4;

#endif
