/* gpt.h - a GPT-2-shaped network in plain C, kept the way llm.c keeps one: sixteen tensors, the block's
 * tensors stacked over the layers, one allocation for all parameters and one for all gradients.
 * Nothing of libgradreg in it. */
#ifndef GPT_H
#define GPT_H

#include <stddef.h>

enum { GPT_TENSORS = 16 };

typedef struct gpt_config {
    size_t context, vocabulary, layers, heads, channels;
} gpt_config;

typedef struct gpt {
    gpt_config config;
    size_t batch, length;       /* rows of a forward pass: batch x length */
    size_t offset[GPT_TENSORS]; /* where each tensor begins in params and grads */
    size_t size[GPT_TENSORS];   /* with all its layers */
    size_t count;               /* of parameters */
    float *params, *grads;      /* count each */
    float *activations, *activation_grads;
    size_t activation_count;
    const int *tokens, *targets; /* of the last forward pass */
} gpt;

/* wte, wpe, ln1w, ... in the order in which they lie. */
extern const char *const gpt_tensor_names[GPT_TENSORS];

int gpt_create(gpt *m, gpt_config config, size_t batch, size_t length, unsigned seed);
void gpt_destroy(gpt *m);

/* Mean cross entropy of the next token. */
float gpt_forward(gpt *m, const int *tokens, const int *targets);

/* Adds the gradient of the last forward pass's loss into grads. */
void gpt_backward(gpt *m);

#endif
