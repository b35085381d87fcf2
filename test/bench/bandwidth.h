/* bandwidth.h - what this machine's memory can do: the loops that the library is held against.
 *
 * In: arrays of floats. Out: the same memory traffic as a norm (read), a copy, and an update in
 * place, with next to no arithmetic. Compiled once per vector path, like the library's kernels;
 * the benchmark takes the widest, whatever path the library was told to take. */
#ifndef GRADREG_TEST_BANDWIDTH_H
#define GRADREG_TEST_BANDWIDTH_H

#include <stddef.h>

typedef struct bandwidth_loops {
    float (*read)(const float *a, size_t n);                     /* sum of squares: 4 bytes */
    void (*copy)(float *to, const float *from, size_t n);        /* 8 bytes */
    void (*copy_around)(float *to, const float *from, size_t n); /* non-temporal stores: 8 */
    void (*update)(float *a, const float *b, float factor, size_t n); /* a += factor b: 12 */
} bandwidth_loops;

extern const bandwidth_loops bandwidth_scalar;
#if defined(__x86_64__)
extern const bandwidth_loops bandwidth_v2, bandwidth_v3, bandwidth_v4;
#endif

#endif
