/* pass.c - the blocks in order, and in reverse. */
#include "pass.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "kernels.h"
#include "matrix.h"
#include "support.h"

/* ------------------------------------------------------------------ memory */

static float *cut_off(float **memory, size_t count)
{
    float *piece = *memory;
    if (piece != NULL)
        *memory += count;
    return piece;
}

/* From NULL: only counts. */
static size_t place_state(struct block_state *state, float *memory, const struct shape *s,
                          size_t rows)
{
    const size_t heads = s->heads + s->kv_heads, turned = heads * s->head_size;
    struct {
        float **pointer;
        size_t count;
    } pieces[] = {
        { &state->in, rows * s->width },
        { &state->normed, rows * s->width },
        { &state->inverse, rows },
        { &state->qkv, rows * qkv_width(s) },
        { &state->turned, rows * turned },
        { &state->head_inverse, rows * heads },
        { &state->shares, rows * s->heads * s->positions },
        { &state->attended, rows * query_width(s) },
        { &state->middle, rows * s->width },
        { &state->normed_mlp, rows * s->width },
        { &state->inverse_mlp, rows },
        { &state->gate_up, rows * 2 * s->hidden },
        { &state->gated, rows * s->hidden },
    };
    size_t total = 0;
    for (size_t i = 0; i < sizeof(pieces) / sizeof(*pieces); i++) {
        *pieces[i].pointer = cut_off(&memory, pieces[i].count);
        total += pieces[i].count;
    }
    return total;
}

struct pass *pass_new(const struct model *model, size_t sequences)
{
    const struct shape *s = &model->shape;
    const size_t rows = sequences * s->positions;
    struct pass *pass = allocate(1, sizeof(*pass));
    pass->sequences = sequences;
    pass->states = allocate(s->layers, sizeof(*pass->states));
    pass->inputs = allocate(rows, sizeof(*pass->inputs));
    const size_t state = place_state(&pass->scratch, NULL, s, rows);
    float *memory = pass->memory = allocate(
        (s->layers + 1) * state + rows * (3 * s->width + 1 + s->vocabulary), sizeof(float));
    for (size_t b = 0; b < s->layers; b++)
        place_state(&pass->states[b], cut_off(&memory, state), s, rows);
    place_state(&pass->scratch, cut_off(&memory, state), s, rows);
    pass->last = cut_off(&memory, rows * s->width);
    pass->last_normed = cut_off(&memory, rows * s->width);
    pass->d_stream = cut_off(&memory, rows * s->width);
    pass->last_inverse = cut_off(&memory, rows);
    pass->logits = cut_off(&memory, rows * s->vocabulary);
    return pass;
}

void pass_free(struct pass *pass)
{
    if (pass == NULL)
        return;
    free(pass->states);
    free(pass->inputs);
    free(pass->memory);
    free(pass);
}

/* ------------------------------------------------------------------ forward */

static void block_forward(const struct block_state *state, float *out,
                          const struct model *model, const struct block_tensors *w, size_t rows)
{
    const struct shape *s = &model->shape;
    const size_t stream = rows * s->width * sizeof(float);
    rms_norm(state->normed, state->inverse, state->in, w->norm_attention, rows, s->width);
    multiply(state->qkv, state->normed, w->query_key_value, rows, s->width, qkv_width(s), 0.0F);
    turn_heads(state->turned, state->head_inverse, state->qkv, model, w, rows, 0, s->positions);
    attend(state->attended, state->shares, state->turned, state->qkv, s, rows / s->positions);
    memcpy(state->middle, state->in, stream);
    multiply(state->middle, state->attended, w->output, rows, query_width(s), s->width, 1.0F);

    rms_norm(state->normed_mlp, state->inverse_mlp, state->middle, w->norm_mlp, rows, s->width);
    multiply(state->gate_up, state->normed_mlp, w->gate_up, rows, s->width, 2 * s->hidden,
             0.0F);
    swiglu(state->gated, state->gate_up, rows, s->hidden);
    memcpy(out, state->middle, stream);
    multiply(out, state->gated, w->down, rows, s->hidden, s->width, 1.0F);
}

static void embed(struct pass *pass, const struct model *model, const int32_t *tokens,
                  size_t stride)
{
    const size_t width = model->shape.width, positions = model->shape.positions;
    for (size_t r = 0; r < pass->rows; r++) {
        pass->inputs[r] = tokens[r / positions * stride + r % positions];
        memcpy(pass->states[0].in + r * width,
               model->weights.embedding + (size_t)pass->inputs[r] * width,
               width * sizeof(float));
    }
}

void pass_forward(struct pass *pass, const struct model *model, const int32_t *tokens,
                  size_t stride, size_t sequences)
{
    const struct shape *s = &model->shape;
    assert(sequences <= pass->sequences);
    pass->rows = sequences * s->positions;
    embed(pass, model, tokens, stride);
    for (size_t b = 0; b < s->layers; b++)
        block_forward(&pass->states[b], b + 1 < s->layers ? pass->states[b + 1].in : pass->last,
                      model, &model->weights.blocks[b], pass->rows);
    rms_norm(pass->last_normed, pass->last_inverse, pass->last, model->weights.norm, pass->rows,
             s->width);
    multiply(pass->logits, pass->last_normed, model->weights.head, pass->rows, s->width,
             s->vocabulary, 0.0F);
}

/* ------------------------------------------------------------------ backward */

/* d: gradient of the stream behind the block on entry, of the stream before it on return. `t` is
 * room for gradients of what `state` holds. */
static void block_backward(float *d, const struct block_state *t,
                           const struct block_state *state, const struct model *model,
                           const struct block_tensors *w, const struct block_tensors *sums,
                           size_t rows)
{
    const struct shape *s = &model->shape;
    multiply_weights(sums->down, d, state->gated, rows, s->hidden, s->width);
    multiply_back(t->gated, d, w->down, rows, s->hidden, s->width);
    swiglu_back(t->gate_up, t->gated, state->gate_up, rows, s->hidden);
    multiply_weights(sums->gate_up, t->gate_up, state->normed_mlp, rows, s->width,
                     2 * s->hidden);
    multiply_back(t->normed_mlp, t->gate_up, w->gate_up, rows, s->width, 2 * s->hidden);
    rms_norm_back(d, sums->norm_mlp, t->normed_mlp, state->middle, state->inverse_mlp,
                  w->norm_mlp, rows, s->width);

    multiply_weights(sums->output, d, state->attended, rows, query_width(s), s->width);
    multiply_back(t->attended, d, w->output, rows, query_width(s), s->width);
    attend_back(t->turned, t->qkv, t->attended, state->shares, state->turned, state->qkv, s,
                rows / s->positions);
    turn_heads_back(t->qkv, sums, t->turned, state->qkv, state->head_inverse, model, w, rows,
                    s->positions);
    multiply_weights(sums->query_key_value, t->qkv, state->normed, rows, s->width,
                     qkv_width(s));
    multiply_back(t->normed, t->qkv, w->query_key_value, rows, s->width, qkv_width(s));
    rms_norm_back(d, sums->norm_attention, t->normed, state->in, state->inverse,
                  w->norm_attention, rows, s->width);
}

void pass_backward(struct pass *pass, struct model *model, size_t first_layer)
{
    const struct shape *s = &model->shape;
    const size_t rows = pass->rows;
    float *d = pass->d_stream, *d_normed = pass->scratch.normed;
    multiply_weights(model->sums.head, pass->logits, pass->last_normed, rows, s->width,
                     s->vocabulary);
    multiply_back(d_normed, pass->logits, model->weights.head, rows, s->width, s->vocabulary);
    memset(d, 0, rows * s->width * sizeof(float));
    rms_norm_back(d, model->sums.norm, d_normed, pass->last, pass->last_inverse,
                  model->weights.norm, rows, s->width);
    for (size_t b = s->layers; b-- > first_layer;)
        block_backward(d, &pass->scratch, &pass->states[b], model, &model->weights.blocks[b],
                       &model->sums.blocks[b], rows);
    if (first_layer > 0)
        return;
    for (size_t r = 0; r < rows; r++)
        for (size_t i = 0; i < s->width; i++)
            model->sums.embedding[(size_t)pass->inputs[r] * s->width + i] +=
                d[r * s->width + i];
}
