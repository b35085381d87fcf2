/* cuda_pieces.h - an f32 matrix as three bf16 matrices whose sum it is, for products on tensor cores.
 *
 * In: a matrix in device memory, row by row. Out: its pieces (gr_bf16_pieces), queued on the stream. */
#ifndef GRADREG_LIB_CUDA_PIECES_H
#define GRADREG_LIB_CUDA_PIECES_H

#include "cuda_check.h"

/* The smallest pieces come first, so that sums in the order of memory add them first. Piece k of row r begins
 * at to + 2 (k rows + r) to_stride; both strides are in elements. */
typedef struct gr_pieces {
    char *to;
    const float *from;
    uint64_t to_stride, from_stride, rows, columns;
} gr_pieces;

gradreg_status gradreg_cuda_split(const gr_cuda_context *c, const gr_pieces *pieces);

/* See gr_cuda_load(). */
gradreg_status gradreg_cuda_load_pieces(void);

#endif
