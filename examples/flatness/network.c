/* network.c - layout of the parameters, and one pass over a batch, example by example. */
#include "network.h"

#include <assert.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "matrix.h"
#include "random.h"

/* ------------------------------------------------------------------ layout */

/* Tensors in the order in which they lie in the flat buffer. */
enum { EMBEDDING, POSITION, FIRST_OF_BLOCKS };
enum { NORM_ATTENTION, QUERY, KEY, VALUE, OUTPUT, NORM_MLP, UP, DOWN, TENSORS_PER_BLOCK };
enum { TENSORS_AFTER_BLOCKS = 2 }; /* norm, head */

static size_t block_tensor(size_t block, size_t which)
{
    return FIRST_OF_BLOCKS + block * TENSORS_PER_BLOCK + which;
}

static void add_tensor(struct network *network, size_t count, double spread, const char *format,
                       ...)
{
    struct tensor *tensor = &network->tensors[network->tensor_count++];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(tensor->name, sizeof(tensor->name), format, arguments);
    va_end(arguments);
    tensor->offset = network->parameter_count;
    tensor->count = count;
    tensor->spread = spread;
    network->parameter_count += count;
}

/* Matrices keep the size of what flows through them; those that write to the residual stream start
 * smaller, as there are two in each block. */
static void add_block_tensors(struct network *network, size_t b)
{
    static const char *const attention[] = { "q_proj", "k_proj", "v_proj" };
    const size_t w = network->shape.width, h = network->shape.hidden;
    const double quiet = 1.0 / sqrt(2.0 * (double)network->shape.blocks);
    const double from_width = 1.0 / sqrt((double)w), from_hidden = 1.0 / sqrt((double)h);

    add_tensor(network, w, 0.0, "model.layers.%zu.input_layernorm.weight", b);
    for (size_t i = 0; i < 3; i++)
        add_tensor(network, w * w, from_width, "model.layers.%zu.self_attn.%s.weight", b,
                   attention[i]);
    add_tensor(network, w * w, quiet * from_width, "model.layers.%zu.self_attn.o_proj.weight",
               b);
    add_tensor(network, w, 0.0, "model.layers.%zu.post_attention_layernorm.weight", b);
    add_tensor(network, w * h, from_width, "model.layers.%zu.mlp.up_proj.weight", b);
    add_tensor(network, h * w, quiet * from_hidden, "model.layers.%zu.mlp.down_proj.weight", b);
}

static void add_tensors(struct network *network)
{
    const struct network_shape *s = &network->shape;
    add_tensor(network, s->pixels * s->width, 1.0 / sqrt((double)s->pixels),
               "model.embed_tokens.weight");
    add_tensor(network, s->tokens * s->width, 0.5, "model.embed_positions.weight");
    for (size_t b = 0; b < s->blocks; b++)
        add_block_tensors(network, b);
    add_tensor(network, s->width, 0.0, "model.norm.weight");
    add_tensor(network, s->width * s->classes, 1.0 / sqrt((double)s->width), "lm_head.weight");
}

static double *tensor_in(const struct network *network, double *flat, size_t tensor)
{
    return flat + network->tensors[tensor].offset;
}

static void point_into(const struct network *network, struct block_tensors *out, double *flat,
                       size_t b)
{
    out->norm_attention = tensor_in(network, flat, block_tensor(b, NORM_ATTENTION));
    out->query = tensor_in(network, flat, block_tensor(b, QUERY));
    out->key = tensor_in(network, flat, block_tensor(b, KEY));
    out->value = tensor_in(network, flat, block_tensor(b, VALUE));
    out->output = tensor_in(network, flat, block_tensor(b, OUTPUT));
    out->norm_mlp = tensor_in(network, flat, block_tensor(b, NORM_MLP));
    out->up = tensor_in(network, flat, block_tensor(b, UP));
    out->down = tensor_in(network, flat, block_tensor(b, DOWN));
}

/* ------------------------------------------------------------------ life */

static bool allocate(struct network *network)
{
    const struct network_shape *s = &network->shape;
    const size_t tensors = block_tensor(s->blocks, 0) + TENSORS_AFTER_BLOCKS;
    const size_t state = block_state_doubles(&network->block_shape);
    const size_t stream = s->tokens * s->width;
    const size_t activations = 2 * stream + s->tokens + s->width + s->classes;

    network->tensors = calloc(tensors, sizeof(*network->tensors));
    if (network->tensors == NULL)
        return false;
    add_tensors(network);
    assert(network->tensor_count == tensors);

    network->weights = calloc(network->parameter_count, sizeof(double));
    network->sums = calloc(network->parameter_count, sizeof(double));
    network->block_weights = calloc(s->blocks, sizeof(*network->block_weights));
    network->block_sums = calloc(s->blocks, sizeof(*network->block_sums));
    network->states = calloc(s->blocks, sizeof(*network->states));
    network->memory = calloc((s->blocks + 1) * state + activations, sizeof(double));
    return network->weights && network->sums && network->block_weights && network->block_sums &&
           network->states && network->memory;
}

static void place(struct network *network)
{
    const struct network_shape *s = &network->shape;
    const size_t stream = s->tokens * s->width;
    double *memory = network->memory;

    for (size_t b = 0; b < s->blocks; b++) {
        point_into(network, &network->block_weights[b], network->weights, b);
        point_into(network, &network->block_sums[b], network->sums, b);
        block_state_place(&network->states[b], memory, &network->block_shape);
        memory += block_state_doubles(&network->block_shape);
    }
    block_state_place(&network->scratch, memory, &network->block_shape);
    network->stream = memory + block_state_doubles(&network->block_shape);
    network->last = network->stream + stream;
    network->last_scale = network->last + stream;
    network->pooled = network->last_scale + s->tokens;
    network->probabilities = network->pooled + s->width;
}

struct network *network_new(const struct network_shape *shape)
{
    struct network *network = calloc(1, sizeof(*network));
    if (network == NULL)
        return NULL;
    network->shape = *shape;
    network->block_shape = (struct block_shape){ shape->tokens, shape->width, shape->hidden };
    if (!allocate(network)) {
        network_free(network);
        return NULL;
    }
    place(network);
    return network;
}

void network_free(struct network *network)
{
    if (network == NULL)
        return;
    free(network->tensors);
    free(network->weights);
    free(network->sums);
    free(network->block_weights);
    free(network->block_sums);
    free(network->states);
    free(network->memory);
    free(network);
}

void network_initialize(const struct network *network, float *params, uint64_t seed)
{
    struct random random = random_seeded(seed, 2);
    for (size_t t = 0; t < network->tensor_count; t++) {
        const struct tensor *tensor = &network->tensors[t];
        for (size_t i = 0; i < tensor->count; i++)
            params[tensor->offset + i] =
                tensor->spread > 0.0 ? (float)(tensor->spread * random_normal(&random)) : 1.0f;
    }
}

/* ------------------------------------------------------------------ one example */

static void embed(struct network *network, const float *input)
{
    const struct network_shape *s = &network->shape;
    const double *embedding = tensor_in(network, network->weights, EMBEDDING);

    memcpy(network->stream, tensor_in(network, network->weights, POSITION),
           s->tokens * s->width * sizeof(double));
    for (size_t t = 0; t < s->tokens; t++)
        for (size_t p = 0; p < s->pixels; p++)
            for (size_t c = 0; c < s->width; c++)
                network->stream[t * s->width + c] +=
                    (double)input[t * s->pixels + p] * embedding[p * s->width + c];
}

static void embed_backward(struct network *network, const double *d_stream, const float *input)
{
    const struct network_shape *s = &network->shape;
    double *d_embedding = tensor_in(network, network->sums, EMBEDDING);
    double *d_position = tensor_in(network, network->sums, POSITION);

    for (size_t i = 0; i < s->tokens * s->width; i++)
        d_position[i] += d_stream[i];
    for (size_t t = 0; t < s->tokens; t++)
        for (size_t p = 0; p < s->pixels; p++)
            for (size_t c = 0; c < s->width; c++)
                d_embedding[p * s->width + c] +=
                    (double)input[t * s->pixels + p] * d_stream[t * s->width + c];
}

/* Leaves softmax(logits) in probabilities and returns -log of the label's. */
static double head_forward(struct network *network, size_t label)
{
    const struct network_shape *s = &network->shape;
    const size_t norm = block_tensor(s->blocks, 0);
    double *p = network->probabilities, sum = 0.0, top;
    size_t best = 0;

    norm_forward(network->last, network->last_scale, network->stream,
                 tensor_in(network, network->weights, norm), s->tokens, s->width);
    memset(network->pooled, 0, s->width * sizeof(double));
    for (size_t t = 0; t < s->tokens; t++)
        for (size_t c = 0; c < s->width; c++)
            network->pooled[c] += network->last[t * s->width + c] / (double)s->tokens;

    memset(p, 0, s->classes * sizeof(double));
    multiply_add(p, network->pooled, tensor_in(network, network->weights, norm + 1), 1,
                 s->width, s->classes);
    for (size_t c = 1; c < s->classes; c++)
        best = p[c] > p[best] ? c : best;
    network->correct += best == label;

    top = p[best];
    const double logit = p[label];
    for (size_t c = 0; c < s->classes; c++)
        sum += p[c] = exp(p[c] - top);
    for (size_t c = 0; c < s->classes; c++)
        p[c] /= sum;
    return log(sum) + top - logit;
}

/* Leaves dL/d stream in network->last, which is no longer needed. */
static void head_backward(struct network *network, size_t label, double weight)
{
    const struct network_shape *s = &network->shape;
    const size_t norm = block_tensor(s->blocks, 0);
    double *d_logits = network->probabilities, *d_normed = network->scratch.input;
    double *d_stream = network->scratch.middle;

    d_logits[label] -= 1.0;
    for (size_t c = 0; c < s->classes; c++)
        d_logits[c] *= weight;
    outer_products_add(tensor_in(network, network->sums, norm + 1), network->pooled, d_logits,
                       1, s->width, s->classes);

    memset(d_normed, 0, s->tokens * s->width * sizeof(double));
    for (size_t t = 0; t < s->tokens; t++)
        multiply_transposed_add(d_normed + t * s->width, d_logits,
                                tensor_in(network, network->weights, norm + 1), 1, s->width,
                                s->classes);
    for (size_t i = 0; i < s->tokens * s->width; i++)
        d_normed[i] /= (double)s->tokens;

    memset(d_stream, 0, s->tokens * s->width * sizeof(double));
    norm_backward(d_stream, tensor_in(network, network->sums, norm), d_normed, network->stream,
                  network->last_scale, tensor_in(network, network->weights, norm), s->tokens,
                  s->width);
    memcpy(network->last, d_stream, s->tokens * s->width * sizeof(double));
}

static double run_example(struct network *network, const float *input, size_t label,
                          double weight, bool with_gradient)
{
    const size_t blocks = network->shape.blocks;

    embed(network, input);
    for (size_t b = 0; b < blocks; b++)
        block_forward(network->stream, &network->states[b], &network->block_weights[b],
                      &network->block_shape);
    const double loss = head_forward(network, label);
    if (!with_gradient)
        return loss;

    head_backward(network, label, weight);
    for (size_t b = blocks; b-- > 0;)
        block_backward(network->last, &network->block_sums[b], &network->scratch,
                       &network->states[b], &network->block_weights[b], &network->block_shape);
    embed_backward(network, network->last, input);
    return loss;
}

/* ------------------------------------------------------------------ a batch */

void network_load(struct network *network, const float *params)
{
    for (size_t i = 0; i < network->parameter_count; i++)
        network->weights[i] = (double)params[i];
}

double network_run(struct network *network, const struct batch *batch, bool with_gradient)
{
    const struct examples *examples = batch->examples;
    const double weight = 1.0 / (double)batch->count;
    double loss = 0.0;

    assert(examples->size == network->shape.tokens * network->shape.pixels);
    network->correct = 0;
    if (with_gradient) {
        memset(network->sums, 0, network->parameter_count * sizeof(double));
        network->example_passes += batch->count;
    }
    for (size_t i = 0; i < batch->count; i++) {
        const size_t row = batch->rows != NULL ? batch->rows[i] : i;
        loss += weight * run_example(network, examples->inputs + row * examples->size,
                                     examples->labels[row], weight, with_gradient);
    }
    return loss;
}

double network_gradient(struct network *network, float *grads, const float *params,
                        const struct batch *batch)
{
    network_load(network, params);
    const double loss = network_run(network, batch, true);
    for (size_t i = 0; i < network->parameter_count; i++)
        grads[i] = (float)network->sums[i];
    return loss;
}

double network_loss(struct network *network, const float *params, const struct batch *batch)
{
    network_load(network, params);
    return network_run(network, batch, false);
}
