/* block.c - one transformer block: forward keeps what backward needs, backward adds to sums. */
#include "block.h"

#include <math.h>
#include <string.h>

#include "matrix.h"

static void zero(double *values, size_t count)
{
    memset(values, 0, count * sizeof(*values));
}

/* ------------------------------------------------------------------ memory */

static double *take(double **memory, size_t count)
{
    double *piece = *memory;
    *memory += count;
    return piece;
}

size_t block_state_doubles(const struct block_shape *shape)
{
    const size_t stream = shape->tokens * shape->width;
    return 8 * stream + 2 * shape->tokens * shape->hidden + shape->tokens * shape->tokens +
           2 * shape->tokens;
}

void block_state_place(struct block_state *state, double *memory,
                       const struct block_shape *shape)
{
    const size_t stream = shape->tokens * shape->width;
    double **streams[] = { &state->input,  &state->attention_input, &state->query,
                           &state->key,    &state->value,           &state->mixed,
                           &state->middle, &state->mlp_input };
    for (size_t i = 0; i < sizeof(streams) / sizeof(*streams); i++)
        *streams[i] = take(&memory, stream);
    state->before = take(&memory, shape->tokens * shape->hidden);
    state->after = take(&memory, shape->tokens * shape->hidden);
    state->attention = take(&memory, shape->tokens * shape->tokens);
    state->attention_scale = take(&memory, shape->tokens);
    state->mlp_scale = take(&memory, shape->tokens);
}

/* ------------------------------------------------------------------ RMS norm */

void norm_forward(double *out, double *scale, const double *in, const double *gain, size_t rows,
                  size_t width)
{
    for (size_t r = 0; r < rows; r++) {
        const double *x = in + r * width;
        scale[r] = 1.0 / sqrt(dot(x, x, width) / (double)width + 1e-6);
        for (size_t c = 0; c < width; c++)
            out[r * width + c] = x[c] * scale[r] * gain[c];
    }
}

void norm_backward(double *d_in, double *d_gain, const double *d_out, const double *in,
                   const double *scale, const double *gain, size_t rows, size_t width)
{
    for (size_t r = 0; r < rows; r++) {
        const double *x = in + r * width, *dy = d_out + r * width;
        const double s = scale[r];
        double along = 0.0; /* the part of the gradient along x, which the norm takes away */
        for (size_t c = 0; c < width; c++) {
            d_gain[c] += dy[c] * x[c] * s;
            along += dy[c] * gain[c] * x[c];
        }
        along *= s * s / (double)width;
        for (size_t c = 0; c < width; c++)
            d_in[r * width + c] += s * (dy[c] * gain[c] - along * x[c]);
    }
}

/* ------------------------------------------------------------------ attention */

static void softmax_rows(double *rows, size_t count, size_t columns)
{
    for (size_t r = 0; r < count; r++) {
        double *row = rows + r * columns, top = row[0], sum = 0.0;
        for (size_t c = 1; c < columns; c++)
            top = fmax(top, row[c]);
        for (size_t c = 0; c < columns; c++)
            sum += row[c] = exp(row[c] - top);
        for (size_t c = 0; c < columns; c++)
            row[c] /= sum;
    }
}

static void scale_all(double *values, size_t count, double factor)
{
    for (size_t i = 0; i < count; i++)
        values[i] *= factor;
}

static void attention_forward(double *stream, struct block_state *state,
                              const struct block_tensors *weights,
                              const struct block_shape *shape)
{
    const size_t t = shape->tokens, w = shape->width;

    zero(state->query, t * w);
    zero(state->key, t * w);
    zero(state->value, t * w);
    multiply_add(state->query, state->attention_input, weights->query, t, w, w);
    multiply_add(state->key, state->attention_input, weights->key, t, w, w);
    multiply_add(state->value, state->attention_input, weights->value, t, w, w);

    zero(state->attention, t * t);
    multiply_transposed_add(state->attention, state->query, state->key, t, t, w);
    scale_all(state->attention, t * t, 1.0 / sqrt((double)w));
    softmax_rows(state->attention, t, t);

    zero(state->mixed, t * w);
    multiply_add(state->mixed, state->attention, state->value, t, t, w);
    multiply_add(stream, state->mixed, weights->output, t, w, w);
}

/* d_scores arrives as dL/d attention and leaves as dL/d (query key^T). */
static void softmax_rows_backward(double *d_scores, const double *attention, size_t count,
                                  size_t columns, double scale)
{
    for (size_t r = 0; r < count; r++) {
        double *d = d_scores + r * columns;
        const double *p = attention + r * columns;
        const double mean = dot(d, p, columns);
        for (size_t c = 0; c < columns; c++)
            d[c] = scale * p[c] * (d[c] - mean);
    }
}

/* d: scratch that receives the gradients of the state's members of the same name. */
static void attention_backward(const double *d_stream, const struct block_tensors *sums,
                               struct block_state *d, const struct block_state *state,
                               const struct block_tensors *weights,
                               const struct block_shape *shape)
{
    const size_t t = shape->tokens, w = shape->width;

    zero(d->mixed, t * w);
    multiply_transposed_add(d->mixed, d_stream, weights->output, t, w, w);
    outer_products_add(sums->output, state->mixed, d_stream, t, w, w);

    zero(d->attention, t * t);
    multiply_transposed_add(d->attention, d->mixed, state->value, t, t, w);
    zero(d->value, t * w);
    outer_products_add(d->value, state->attention, d->mixed, t, t, w);
    softmax_rows_backward(d->attention, state->attention, t, t, 1.0 / sqrt((double)w));

    zero(d->query, t * w);
    multiply_add(d->query, d->attention, state->key, t, t, w);
    zero(d->key, t * w);
    outer_products_add(d->key, d->attention, state->query, t, t, w);

    outer_products_add(sums->query, state->attention_input, d->query, t, w, w);
    outer_products_add(sums->key, state->attention_input, d->key, t, w, w);
    outer_products_add(sums->value, state->attention_input, d->value, t, w, w);
    zero(d->attention_input, t * w);
    multiply_transposed_add(d->attention_input, d->query, weights->query, t, w, w);
    multiply_transposed_add(d->attention_input, d->key, weights->key, t, w, w);
    multiply_transposed_add(d->attention_input, d->value, weights->value, t, w, w);
}

/* ------------------------------------------------------------------ MLP */

static double sigmoid(double x)
{
    return 1.0 / (1.0 + exp(-x));
}

static void mlp_forward(double *stream, struct block_state *state,
                        const struct block_tensors *weights, const struct block_shape *shape)
{
    const size_t t = shape->tokens, w = shape->width, h = shape->hidden;

    zero(state->before, t * h);
    multiply_add(state->before, state->mlp_input, weights->up, t, w, h);
    for (size_t i = 0; i < t * h; i++)
        state->after[i] = state->before[i] * sigmoid(state->before[i]);
    multiply_add(stream, state->after, weights->down, t, h, w);
}

static void mlp_backward(const double *d_stream, const struct block_tensors *sums,
                         struct block_state *d, const struct block_state *state,
                         const struct block_tensors *weights, const struct block_shape *shape)
{
    const size_t t = shape->tokens, w = shape->width, h = shape->hidden;

    zero(d->after, t * h);
    multiply_transposed_add(d->after, d_stream, weights->down, t, h, w);
    outer_products_add(sums->down, state->after, d_stream, t, h, w);
    for (size_t i = 0; i < t * h; i++) {
        const double s = sigmoid(state->before[i]);
        d->before[i] = d->after[i] * s * (1.0 + state->before[i] * (1.0 - s));
    }
    outer_products_add(sums->up, state->mlp_input, d->before, t, w, h);
    zero(d->mlp_input, t * w);
    multiply_transposed_add(d->mlp_input, d->before, weights->up, t, w, h);
}

/* ------------------------------------------------------------------ block */

void block_forward(double *stream, struct block_state *state,
                   const struct block_tensors *weights, const struct block_shape *shape)
{
    const size_t t = shape->tokens, w = shape->width;

    memcpy(state->input, stream, t * w * sizeof(*stream));
    norm_forward(state->attention_input, state->attention_scale, stream,
                 weights->norm_attention, t, w);
    attention_forward(stream, state, weights, shape);

    memcpy(state->middle, stream, t * w * sizeof(*stream));
    norm_forward(state->mlp_input, state->mlp_scale, stream, weights->norm_mlp, t, w);
    mlp_forward(stream, state, weights, shape);
}

void block_backward(double *d_stream, const struct block_tensors *sums,
                    struct block_state *scratch, const struct block_state *state,
                    const struct block_tensors *weights, const struct block_shape *shape)
{
    const size_t t = shape->tokens, w = shape->width;

    /* The residual path hands d_stream on as it is; each branch adds what came through it. */
    mlp_backward(d_stream, sums, scratch, state, weights, shape);
    norm_backward(d_stream, sums->norm_mlp, scratch->mlp_input, state->middle, state->mlp_scale,
                  weights->norm_mlp, t, w);

    attention_backward(d_stream, sums, scratch, state, weights, shape);
    norm_backward(d_stream, sums->norm_attention, scratch->attention_input, state->input,
                  state->attention_scale, weights->norm_attention, t, w);
}
