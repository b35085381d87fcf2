/* pass.h - one pass of some sequences through the model, and the way back. */
#ifndef STUDY_PASS_H
#define STUDY_PASS_H

#include <stddef.h>
#include <stdint.h>

#include "model.h"

/* What one block keeps for the way back. Rows are the tokens of all sequences. */
struct block_state {
    float *in, *normed, *inverse;                /* [rows x width], twice; [rows] */
    float *qkv, *turned, *head_inverse, *shares; /* see kernels.h */
    float *attended, *middle, *normed_mlp, *inverse_mlp;
    float *gate_up, *gated;
};

struct pass {
    size_t sequences; /* that fit */
    size_t rows;      /* of the last forward pass */
    struct block_state *states, scratch;
    float *last, *last_normed, *last_inverse;
    float *logits; /* [rows x vocabulary]; the way back takes their gradient from here */
    float *d_stream;
    int32_t *inputs;
    float *memory;
};

struct pass *pass_new(const struct model *model, size_t sequences);
void pass_free(struct pass *pass);

/* tokens[sequences], each `stride` apart, of which the first `positions` are read. */
void pass_forward(struct pass *pass, const struct model *model, const int32_t *tokens,
                  size_t stride, size_t sequences);

/* Adds to model->grads the gradient of what pass->logits now holds the gradient of. Blocks below
 * first_layer, and then the embedding, are left out. */
void pass_backward(struct pass *pass, struct model *model, size_t first_layer);

#endif
