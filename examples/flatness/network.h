/* network.h - a small transformer that reads a picture row by row, and its backward pass.
 *
 *      picture [tokens x pixels] ──► embedding + position ──► blocks ──► norm
 *                                           mean over tokens ──► head ──► cross entropy
 *
 * Parameters and gradients are flat f32 buffers, as a trainer keeps them; `tensors` says what lies
 * where. The arithmetic between them is in double, so that finite differences have digits to
 * spare. Nothing here knows about regularization. */
#ifndef FLATNESS_NETWORK_H
#define FLATNESS_NETWORK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "block.h"
#include "digits.h"

struct network_shape {
    size_t blocks, tokens, pixels, width, hidden, classes;
};

/* One weight matrix or vector. The names are those of a Hugging Face Llama, so that
 * gradreg_segment_classify() can tell layer and role. */
struct tensor {
    char name[64];
    size_t offset, count;
    double spread; /* standard deviation at the start; 0: a gain, starts at one */
};

struct network {
    struct network_shape shape;
    struct block_shape block_shape;
    size_t parameter_count, tensor_count;
    struct tensor *tensors;
    double *weights; /* [parameter_count]: the f32 parameters, widened */
    double *sums;    /* [parameter_count]: the gradient of one pass */
    struct block_tensors *block_weights, *block_sums; /* [blocks], pointing into those two */
    struct block_state *states, scratch;              /* [blocks], one */
    double *stream, *last, *last_scale, *pooled;      /* activations of one example */
    double *probabilities;
    double *memory;        /* behind states and activations */
    size_t correct;        /* examples of the last pass whose best class was the label */
    size_t example_passes; /* examples that went through a backward pass so far */
};

/* Some examples: those at rows[0 .. count), or the first `count` ones if rows is NULL. */
struct batch {
    const struct examples *examples;
    const size_t *rows;
    size_t count;
};

/* NULL when memory is short. */
struct network *network_new(const struct network_shape *shape);
void network_free(struct network *network);

void network_initialize(const struct network *network, float *params, uint64_t seed);

/* Mean cross entropy over the batch at params; grads = its gradient. */
double network_gradient(struct network *network, float *grads, const float *params,
                        const struct batch *batch);
/* The same without gradient. network->correct counts right answers. */
double network_loss(struct network *network, const float *params, const struct batch *batch);

/* The two halves of network_gradient: for checks that move `weights` in double. */
void network_load(struct network *network, const float *params);
double network_run(struct network *network, const struct batch *batch, bool with_gradient);

#endif
