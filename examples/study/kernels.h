/* kernels.h - what a transformer computes between its matrix products, and the way back. Rows are
 * tokens. `d_` is the gradient with respect to what follows; gradients of gains add. */
#ifndef STUDY_KERNELS_H
#define STUDY_KERNELS_H

#include <stddef.h>

#include "model.h"

/* out = gain x / rms(x), row by row; inverse[rows] = 1 / rms(x). */
void rms_norm(float *out, float *inverse, const float *x, const float *gain, size_t rows,
              size_t width);
/* d_x += the way back of d_out; d_gain +=. */
void rms_norm_back(float *d_x, float *d_gain, const float *d_out, const float *x,
                   const float *inverse, const float *gain, size_t rows, size_t width);

/* Normalize the heads of queries and keys and turn them by their position: out[rows x (query + key
 * width)] from qkv[rows x qkv width]. Row r stands at position (first + r) % period. inverse: one
 * number a row and head. */
void turn_heads(float *out, float *inverse, const float *qkv, const struct model *model,
                const struct block_tensors *weights, size_t rows, size_t first, size_t period);
/* Fills the queries' and keys' part of d_qkv. */
void turn_heads_back(float *d_qkv, const struct block_tensors *sums, const float *d_turned,
                     const float *qkv, const float *inverse, const struct model *model,
                     const struct block_tensors *weights, size_t rows, size_t period);

/* Causal attention within each sequence. turned: queries and keys; values stand in qkv behind
 * them. shares[sequences x heads x positions x positions] is kept for the way back. */
void attend(float *out, float *shares, const float *turned, const float *qkv,
            const struct shape *shape, size_t sequences);
/* d_turned = and the values' part of d_qkv =. */
void attend_back(float *d_turned, float *d_qkv, const float *d_out, const float *shares,
                 const float *turned, const float *qkv, const struct shape *shape,
                 size_t sequences);

/* out[rows x hidden] = silu(gate) up, of gate_up[rows x 2 hidden]. */
void swiglu(float *out, const float *gate_up, size_t rows, size_t hidden);
void swiglu_back(float *d_gate_up, const float *d_out, const float *gate_up, size_t rows,
                 size_t hidden);

/* values[count] := softmax(values); returns the logarithm of the sum of exponentials. */
float softmax(float *values, size_t count);

#endif
