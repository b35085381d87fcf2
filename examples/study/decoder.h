/* decoder.h - writing token by token, with a key-value cache. All rows of a decoder stand at the
 * same position. */
#ifndef STUDY_DECODER_H
#define STUDY_DECODER_H

#include <stddef.h>
#include <stdint.h>

#include "model.h"
#include "problems.h"

struct decoder {
    const struct model *model;
    size_t most_rows, rows, position;
    float *keys, *values; /* [layers x most_rows x positions x key width] */
    float *stream;        /* [rows x width]; between blocks: what left the last one */
    float *normed, *inverse, *qkv, *turned, *head_inverse, *attended, *gate_up, *gated;
    float *logits; /* [rows x vocabulary] */
    float *memory;
};

struct decoder *decoder_new(const struct model *model, size_t rows);
void decoder_free(struct decoder *decoder);

void decoder_start(struct decoder *decoder, size_t rows);

/* One token a row, rows `stride` apart in `tokens`; logits say what may follow. */
void decoder_step(struct decoder *decoder, const int32_t *tokens, size_t stride);

/* The same in pieces, for a look between the blocks: embed; every block; then finish. */
void decoder_embed(struct decoder *decoder, const int32_t *tokens, size_t stride);
void decoder_block(struct decoder *decoder, size_t block);
void decoder_finish(struct decoder *decoder);

/* How answers are drawn: temperature 0 takes the most likely token. */
struct sampling {
    double temperature;
    uint64_t seed, step;
};

/* Completes sequences[rows x SEQUENCE], which begin with prompts of one kind: up to the end or the
 * last place, padded behind. Row r's random numbers depend on (seed, step, r) only. */
void decoder_answer(struct decoder *decoder, int32_t *sequences, size_t rows,
                    enum problem_kind kind, const struct sampling *sampling);

#endif
