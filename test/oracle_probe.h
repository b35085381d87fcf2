/* oracle_probe.h - the probe and the monitors in double, from what the header says of them.
 *
 * In: numbers. Out: what should come of them, computed the plain way: sums one after the other in long
 * double, statistics in two passes, n-grams compared one with all. Includes nothing of the library. */
#ifndef GRADREG_TEST_ORACLE_PROBE_H
#define GRADREG_TEST_ORACLE_PROBE_H

#include <stddef.h>
#include <stdint.h>

/* Standard normal numbers of elements 0 .. count - 1 of a trial: Philox4x32-10 with the key and the
 * counter that lib/random.h describes, then Box and Muller by libm. */
void oracle_noise(double *out, uint64_t seed, int32_t layer, int32_t trial, size_t count);

double oracle_rms(const double *x, size_t count);

/* NaN where the row has none. */
double oracle_probability(const double *logits, size_t count, size_t target);

typedef struct oracle_spread {
    double mean, std, min, max;
} oracle_spread;

/* Two passes. count >= 1. */
oracle_spread oracle_spread_of(const double *x, size_t count);

/* Every run against every earlier one. */
double oracle_distinct(const int32_t *tokens, size_t count, size_t order);

/* Of the window that ends at i. */
double oracle_average(const float *values, size_t i, size_t window);

/* By Kullback and Leibler's formula. */
double oracle_divergence(const float *p, const float *q, size_t count);

double oracle_distance(const double *before, const double *after, size_t count);

#endif
