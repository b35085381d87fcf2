/* probe_rig.h - a probe of a few layers, as the suites of the probe open it.
 *
 * In: a vector path, threads, trials, the noise's size. Out: the handle and its context, a layer's
 * summary, and a batch of rows that is the same for every suite. */
#ifndef GRADREG_TEST_PROBE_RIG_H
#define GRADREG_TEST_PROBE_RIG_H

#include "support.h"

enum { LAYERS = 5, TRIALS = 12 };
#define SEED UINT64_C(0x123456789abcdef)

gradreg_probe *probe_with(gradreg_context *context, int32_t trials, double noise_scale);
void close_both(gradreg_probe *probe, gradreg_context *context);
gradreg_probe_layer summary_of(gradreg_probe *probe, int32_t layer);

/* A batch at any stride: one of BATCH_WIDTH is tight. */
enum {
    BATCH_ROWS = 11,
    BATCH_WIDTH = 4100,
    BATCH_STRIDE = 4133,
    BATCH_BYTES = BATCH_ROWS * BATCH_STRIDE * 4 + 64
};
/* The same rows always, from element `shift` on, in guarded bytes; guarded_free(). */
char *batch_new(gradreg_type type, size_t stride, size_t shift);

#endif
