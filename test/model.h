/* model.h - a loss whose gradient and Hessian are known, and a small network's table for it; a large table.
 *
 *      L(theta) = 1/2 theta^T A theta + 1/4 sum_r (B theta)_r^4
 *      g = A theta + B^T (B theta)^3,   H = A + 3 B^T diag((B theta)^2) B
 *
 * In: theta as doubles, in the table's order (see oracle.h). Out: L, g, H v in double. */
#ifndef GRADREG_TEST_MODEL_H
#define GRADREG_TEST_MODEL_H

#include <stddef.h>
#include <stdint.h>

#include "choices.h"
#include "gradreg.h"

typedef struct model {
    size_t count, rows;
    double *a;     /* count x count, symmetric, indefinite */
    double *b;     /* rows x count */
    double *inner; /* rows: B theta */
} model;

model *model_new(size_t count, uint64_t seed);
void model_free(model *m);
double model_loss(const model *m, const double *theta);
void model_gradient(const model *m, double *out, const double *theta);
void model_hessian_times(const model *m, double *out, const double *theta, const double *v);

/* Four blocks with attention, feed-forward and norm weights, an embedding, a final norm, a head and
 * a tensor of no known role; not in the order of their offsets, with gaps between them and one
 * tensor without elements. */
enum { MODEL_LAYERS = 4, MODEL_SEGMENTS = 17, MODEL_ELEMENTS = 96, MODEL_BUFFER = 128 };
extern const gradreg_segment model_segments[MODEL_SEGMENTS];
/* A ramp from layer 1 to layer 3, and no clips. */
gradreg_regularizer_params model_params(void);

/* More than one block of 4096 elements, more than one range for threads, a remainder everywhere;
 * one tensor has as many elements as a 16-bit type has patterns. */
enum { LARGE_TENSORS = 5, LARGE_LAYERS = 3, LARGE_PATTERNS = 65536 };
extern const gradreg_segment large_table[LARGE_TENSORS];
/* All layers alike, and no clips. */
gradreg_regularizer_params large_params(const struct type_pair *pair);

/* Reproducible numbers, the same on every machine: uniform in [-1, 1). */
double model_random(uint64_t *state);
void model_fill(double *out, size_t count, double scale, uint64_t seed);

#endif
