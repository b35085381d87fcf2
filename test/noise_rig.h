/* noise_rig.h - a regularizer with directional noise on the attention of its first two layers.
 *
 * In: types, the noise's rule, what else a suite changes. Out: an open rig, a plain step on it, and what
 * the noise has moved, as doubles. */
#ifndef GRADREG_TEST_NOISE_RIG_H
#define GRADREG_TEST_NOISE_RIG_H

#include "rig.h"

enum { LAYERS = 4, PER_LAYER = 3, SEGMENTS = LAYERS * PER_LAYER + 2 };

extern gradreg_segment table[SEGMENTS];
/* Before the first of the following. */
void make_table(void);

/* Noise on the attention of layers 0 and 1. */
gradreg_regularizer_params noise_params(int pair, gradreg_noise_rule rule);
rig *open_rig(const gradreg_regularizer_params *p);
bool takes_noise(int segment);

double norm_of(const double *x, size_t n);
double cosine_of(const double *x, const double *y, size_t n);
/* A segment of a gathered buffer, as doubles; free(). */
double *segment_values(const rig *r, enum rig_buffer buffer, const char *gathered, int s);
/* theta_n - theta on a segment; free(). */
double *noise_on(const rig *r, const char *clean, int s);

/* Random numbers: of the first pass where it is kept, or of a later one. */
void gradients(rig *r, uint64_t seed, bool is_first);
/* A step without noise; its g1 is numbers(seed). */
void plain_step(rig *r, uint64_t seed);

#endif
