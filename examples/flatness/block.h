/* block.h - one transformer block and its backward pass, for one example at a time.
 *
 *      x ──► norm ──► attention ──► + ──► norm ──► MLP ──► + ──► out
 *      └────────────────────────────┘└──────────────────────┘
 *
 * x and out are [tokens x width]. Forward fills a block_state that backward reads. Attention has
 * one head and looks both ways; the MLP is down(silu(up(x))); norms are RMS norms with a gain. */
#ifndef FLATNESS_BLOCK_H
#define FLATNESS_BLOCK_H

#include <stddef.h>

struct block_shape {
    size_t tokens, width, hidden;
};

/* Where the block's tensors lie, for weights and in the same manner for sums of gradients. */
struct block_tensors {
    double *norm_attention;               /* [width] */
    double *query, *key, *value, *output; /* [width x width] */
    double *norm_mlp;                     /* [width] */
    double *up;                           /* [width x hidden] */
    double *down;                         /* [hidden x width] */
};

/* What backward needs from forward. */
struct block_state {
    double *input, *attention_input;     /* [tokens x width] */
    double *query, *key, *value, *mixed; /* [tokens x width] */
    double *attention;                   /* [tokens x tokens], rows sum to 1 */
    double *middle, *mlp_input;          /* [tokens x width] */
    double *before, *after;              /* [tokens x hidden], around silu */
    double *attention_scale, *mlp_scale; /* [tokens], 1 / RMS */
};

/* Doubles behind one block_state, and the pointers into such a piece of memory. */
size_t block_state_doubles(const struct block_shape *shape);
void block_state_place(struct block_state *state, double *memory,
                       const struct block_shape *shape);

/* stream: x on entry, out on return. */
void block_forward(double *stream, struct block_state *state,
                   const struct block_tensors *weights, const struct block_shape *shape);

/* d_stream: dL/d out on entry, dL/d x on return. sums += dL/d weights. scratch: one block_state
 * whose contents are lost. */
void block_backward(double *d_stream, const struct block_tensors *sums,
                    struct block_state *scratch, const struct block_state *state,
                    const struct block_tensors *weights, const struct block_shape *shape);

/* out[rows x width] = in scale gain with scale = 1 / RMS of the row. */
void norm_forward(double *out, double *scale, const double *in, const double *gain, size_t rows,
                  size_t width);

/* d_in += dL/d in, d_gain += dL/d gain. */
void norm_backward(double *d_in, double *d_gain, const double *d_out, const double *in,
                   const double *scale, const double *gain, size_t rows, size_t width);

#endif
