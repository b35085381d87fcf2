/* cuda_blas.h - matrix products of one context through cuBLAS, which is opened when first needed.
 *
 * In: matrices in device memory, row by row. Out: products queued on the context's stream, sums in f32. The
 * module does not link cuBLAS: without it the rest works. */
#ifndef GRADREG_LIB_CUDA_BLAS_H
#define GRADREG_LIB_CUDA_BLAS_H

#include "cuda_check.h"

/* Row r of the matrix begins at r * stride elements. */
typedef struct gr_matrix {
    const void *at;
    gradreg_type type;
    uint64_t stride;
} gr_matrix;

/* Before the products of a call: the handle, at the first call of a context (which allocates, and is
 * refused while the stream is captured), on the stream, with its workspace. */
gradreg_status gradreg_cuda_blas_begin(gr_cuda_context *c);
void gradreg_cuda_blas_close(gr_cuda_context *c);

/* out [rows x columns] f32 = a b + adds * out, with a [rows x inner] or, `a_turned`, [inner x rows], and b
 * [inner x columns] or [columns x inner]. a and b have one type. */
typedef struct gr_product {
    uint64_t rows, columns, inner;
    gr_matrix a, b;
    int a_turned, b_turned, adds;
    float *out;
    uint64_t out_stride;
} gr_product;

gradreg_status gradreg_cuda_multiply(const gr_cuda_context *c, const gr_product *p);

#endif
