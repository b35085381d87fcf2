/* support.h - what every part that calls the library needs: an end to failures, and the table. */
#ifndef FLATNESS_SUPPORT_H
#define FLATNESS_SUPPORT_H

#include <gradreg.h>
#include <stddef.h>

#include "network.h"

/* Ends the program with the library's own sentence unless status is OK. */
void must(gradreg_status status);

/* Ends the program when memory is short: `memory` is what an allocation returned. */
void *must_have(void *memory);
void *must_allocate(size_t count, size_t size);

/* One segment per tensor, layer and role told from its name. Free with free(). */
gradreg_segment *segments_from_names(const struct network *network);

/* The flat buffers of a small trainer: f32 parameters and f32 gradients. */
gradreg_buffers flat_buffers(float *params, float *grads, size_t count);

double norm_of(const float *values, size_t count);

#endif
