/* matrix.h - the three products of a linear layer and its backward pass, row-major.
 *
 *      forward    out    += in w                     multiply_add
 *      backward   d_in   += d_out w^T                multiply_transposed_add
 *                 d_w    += in^T d_out               outer_products_add
 *
 * All add, because residual streams and gradients are sums. */
#ifndef FLATNESS_MATRIX_H
#define FLATNESS_MATRIX_H

#include <stddef.h>

/* out[rows x columns] += left[rows x inner] right[inner x columns] */
static inline void multiply_add(double *restrict out, const double *restrict left,
                                const double *restrict right, size_t rows, size_t inner,
                                size_t columns)
{
    for (size_t r = 0; r < rows; r++)
        for (size_t k = 0; k < inner; k++) {
            const double factor = left[r * inner + k];
            for (size_t c = 0; c < columns; c++)
                out[r * columns + c] += factor * right[k * columns + c];
        }
}

/* Four sums side by side, so that the compiler may use vector instructions: one running sum would
 * fix the order of additions. */
static inline double dot(const double *restrict a, const double *restrict b, size_t count)
{
    double sums[4] = { 0.0, 0.0, 0.0, 0.0 };
    size_t i = 0;
    for (; i + 4 <= count; i += 4)
        for (size_t j = 0; j < 4; j++)
            sums[j] += a[i + j] * b[i + j];
    for (; i < count; i++)
        sums[0] += a[i] * b[i];
    return sums[0] + sums[1] + sums[2] + sums[3];
}

/* out[rows x inner] += left[rows x columns] right[inner x columns]^T */
static inline void multiply_transposed_add(double *restrict out, const double *restrict left,
                                           const double *restrict right, size_t rows,
                                           size_t inner, size_t columns)
{
    for (size_t r = 0; r < rows; r++)
        for (size_t k = 0; k < inner; k++)
            out[r * inner + k] += dot(left + r * columns, right + k * columns, columns);
}

/* out[inner x columns] += left[rows x inner]^T right[rows x columns] */
static inline void outer_products_add(double *restrict out, const double *restrict left,
                                      const double *restrict right, size_t rows, size_t inner,
                                      size_t columns)
{
    for (size_t r = 0; r < rows; r++)
        for (size_t k = 0; k < inner; k++) {
            const double factor = left[r * inner + k];
            for (size_t c = 0; c < columns; c++)
                out[k * columns + c] += factor * right[r * columns + c];
        }
}

#endif
