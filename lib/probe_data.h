/* probe_data.h - what the probe and the monitors ask of a backend.
 *
 * In: nothing. Out: checked tasks as plain pointers and numbers; buffers lie where the backend can
 * reach them. */
#ifndef GRADREG_LIB_PROBE_DATA_H
#define GRADREG_LIB_PROBE_DATA_H

#include <stddef.h>

#include "gradreg.h"
#include "probe_math.h"

/* What one row has given, until it is noted in the order of rows. */
typedef struct gr_probe_row {
    double probability; /* observe; NaN: none */
    uint64_t bad;       /* inject: left alone */
    uint64_t saturated;
} gr_probe_row;

enum { GR_PROBE_ROWS = 256 }; /* rows at a time */

/* Rows of `width` elements, `stride` apart. */
typedef struct gr_probe_rows {
    size_t rows, width, stride;
    gradreg_type type;
} gr_probe_rows;

typedef struct gr_inject_task {
    gr_probe_statistics *statistics; /* of the layer: counts are added */
    gr_probe_row *results;           /* [GR_PROBE_ROWS], scratch */
    void *hidden;
    gr_probe_rows shape;
    int32_t layer, first_trial;
    double noise_scale;
    uint64_t seed;
} gr_inject_task;

typedef struct gr_observe_task {
    gr_probe_statistics *statistics; /* of the layer, or the baseline's */
    gr_probe_row *results;           /* [GR_PROBE_ROWS], scratch */
    const void *logits;
    gr_probe_rows shape;
    size_t target;
} gr_observe_task;

typedef struct gr_divergence_task {
    float *out;
    const float *p, *q;
    size_t rows, columns;
} gr_divergence_task;

/* Runs of this many blocks are summed on their own, and so many of them at a time. */
enum { GR_DELTA_BLOCKS = 16, GR_DELTA_RUNS = 4096 };

typedef struct gr_delta_task {
    double *norms;
    const void *before, *after;
    gradreg_type type;
    const gradreg_segment *segments; /* host */
    size_t segment_count;
    double *runs; /* [GR_DELTA_RUNS], scratch */
} gr_delta_task;

#endif
