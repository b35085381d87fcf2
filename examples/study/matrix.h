/* matrix.h - the three products of a linear layer, on top of CBLAS. Row-major; a weight matrix is
 * [columns x inner], outputs by inputs, as in Hugging Face checkpoints.
 *
 *      forward    out   = (keep) out + in w^T        multiply
 *      backward   d_in  =              d_out w       multiply_back
 *                 d_w  +=              d_out^T in    multiply_weights */
#ifndef STUDY_MATRIX_H
#define STUDY_MATRIX_H

#include <cblas.h>
#include <stddef.h>

/* out[rows x columns] = keep out + in[rows x inner] w[columns x inner]^T; keep is 0 or 1. */
static inline void multiply(float *out, const float *in, const float *w, size_t rows,
                            size_t inner, size_t columns, float keep)
{
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)rows, (int)columns, (int)inner,
                1.0F, in, (int)inner, w, (int)inner, keep, out, (int)columns);
}

/* d_in[rows x inner] = d_out[rows x columns] w[columns x inner] */
static inline void multiply_back(float *d_in, const float *d_out, const float *w, size_t rows,
                                 size_t inner, size_t columns)
{
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)rows, (int)inner, (int)columns,
                1.0F, d_out, (int)columns, w, (int)inner, 0.0F, d_in, (int)inner);
}

/* d_w[columns x inner] += d_out[rows x columns]^T in[rows x inner] */
static inline void multiply_weights(float *d_w, const float *d_out, const float *in,
                                    size_t rows, size_t inner, size_t columns)
{
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)columns, (int)inner, (int)rows,
                1.0F, d_out, (int)columns, in, (int)inner, 1.0F, d_w, (int)inner);
}

#endif
