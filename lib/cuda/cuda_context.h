/* cuda_context.h - the device's functions (device.h), for the module's table.
 *
 * In: the number of a device, a stream, memory to take and give back. Out: what a context holds of its
 * device, or why it cannot. */
#ifndef GRADREG_LIB_CUDA_CONTEXT_H
#define GRADREG_LIB_CUDA_CONTEXT_H

#include "cuda_check.h"

gradreg_status gradreg_cuda_load(const gr_core *core);
/* All kernels of the module onto the current device (cuda_backend.cu). */
gradreg_status gradreg_cuda_load_kernels(void);
gradreg_status gradreg_cuda_open(void **state, int32_t index, char *name);
void gradreg_cuda_close(void *state);
gradreg_status gradreg_cuda_set_stream(void *state, void *stream);
gradreg_status gradreg_cuda_synchronize(void *state);
void *gradreg_cuda_allocate(void *state, size_t bytes);
void gradreg_cuda_release(void *state, void *pointer);
gradreg_status gradreg_cuda_look_up(gr_place *out, const void *pointer);
int gradreg_cuda_reaches_host(void *state);

#endif
