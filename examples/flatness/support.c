/* support.c - failures end the program; tensor names become the library's table of segments. */
#include "support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

void must(gradreg_status status)
{
    if (status == GRADREG_OK)
        return;
    fprintf(stderr, "%s: %s\n", gradreg_status_name(status), gradreg_last_error());
    exit(EXIT_FAILURE);
}

void *must_have(void *memory)
{
    if (memory == NULL) {
        fputs("out of memory\n", stderr);
        exit(EXIT_FAILURE);
    }
    return memory;
}

void *must_allocate(size_t count, size_t size)
{
    return must_have(calloc(count, size));
}

gradreg_segment *segments_from_names(const struct network *network)
{
    gradreg_segment *segments = must_allocate(network->tensor_count, sizeof(*segments));
    for (size_t t = 0; t < network->tensor_count; t++) {
        const struct tensor *tensor = &network->tensors[t];
        segments[t] = (gradreg_segment)GRADREG_SEGMENT_INIT;
        segments[t].offset = tensor->offset;
        segments[t].count = tensor->count;
        must(gradreg_segment_classify(&segments[t].layer, &segments[t].role, tensor->name));
    }
    return segments;
}

gradreg_buffers flat_buffers(float *params, float *grads, size_t count)
{
    gradreg_buffers buffers = GRADREG_BUFFERS_INIT;
    buffers.params = params;
    buffers.grads = grads;
    buffers.count = count;
    return buffers;
}

double norm_of(const float *values, size_t count)
{
    double sum = 0.0;
    for (size_t i = 0; i < count; i++)
        sum += (double)values[i] * (double)values[i];
    return sqrt(sum);
}
