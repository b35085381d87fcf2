/* model.h - the parameters of a decoder-only transformer in the shape of Qwen3.
 *
 *      tokens ──► embedding ──► blocks ──► norm ──► head ──► logits
 *      block:  x += o_proj attention(q_norm q_proj, k_norm k_proj, v_proj of norm(x))   grouped heads
 *              x += down_proj (silu(gate_proj) up_proj of norm(x))                      SwiGLU
 *
 * Parameters and gradients are flat f32 buffers, as a trainer keeps them; `tensors` names what lies
 * where, and `segments` is the table that the library gets. Nothing here knows about
 * regularization. */
#ifndef STUDY_MODEL_H
#define STUDY_MODEL_H

#include <gradreg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct shape {
    uint64_t layers, width, heads, kv_heads, head_size, hidden, vocabulary;
    uint64_t positions; /* tokens that are read at once */
};

struct tensor {
    char name[64]; /* as Hugging Face names it */
    size_t offset, count;
    double spread; /* standard deviation at the start; 0: a gain, starts at one */
};

/* Where the tensors of one block begin in a flat buffer. Tensors that read the same input lie next
 * to each other, so that one product computes them all. */
struct block_tensors {
    float *norm_attention, *query_key_value, *query_norm, *key_norm, *output;
    float *norm_mlp, *gate_up, *down;
};

/* A flat buffer seen as tensors. */
struct view {
    float *embedding, *norm, *head;
    struct block_tensors *blocks;
};

struct model {
    struct shape shape;
    size_t parameter_count, tensor_count;
    struct tensor *tensors;
    gradreg_segment *segments; /* one a tensor, layer and role told from its name */
    float *params, *grads;
    float *rounded;         /* params as bf16 sees them, or NULL */
    struct view weights;    /* into params, or into rounded */
    struct view sums;       /* into grads */
    float *cosines, *sines; /* [positions x head_size / 2], of the rotary positions */
};

/* What is wrong with a shape, or NULL. */
const char *shape_complaint(const struct shape *shape);

/* bf16: the passes see parameters rounded to bf16, the buffers stay f32. */
struct model *model_new(const struct shape *shape, bool bf16);
void model_free(struct model *model);

void model_initialize(struct model *model, uint64_t seed);

/* To be called when params have changed, before the next pass. */
void model_refresh(struct model *model);

/* The flat buffers as the library takes them. */
gradreg_buffers model_buffers(const struct model *model);

static inline size_t query_width(const struct shape *shape)
{
    return shape->heads * shape->head_size;
}
static inline size_t key_width(const struct shape *shape)
{
    return shape->kv_heads * shape->head_size;
}
/* Of queries, keys and values of one token, next to each other. */
static inline size_t qkv_width(const struct shape *shape)
{
    return query_width(shape) + 2 * key_width(shape);
}

#endif
