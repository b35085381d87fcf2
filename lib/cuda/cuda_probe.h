/* cuda_probe.h - the op tables of the probe and the monitors.
 *
 * In: checked rows and tasks (probe_data.h). Out: noisy activations, statistics, divergence, distances. */
#ifndef GRADREG_LIB_CUDA_PROBE_H
#define GRADREG_LIB_CUDA_PROBE_H

#include "cuda_check.h"

extern const gr_probe_ops gradreg_cuda_probe;
extern const gr_monitor_ops gradreg_cuda_monitors;

/* See gr_cuda_load(). */
gradreg_status gradreg_cuda_load_probe(void);
gradreg_status gradreg_cuda_load_monitors(void);

#endif
