/* decoder.c - one position at a time. */
#include "decoder.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels.h"
#include "matrix.h"
#include "support.h"

struct decoder *decoder_new(const struct model *model, size_t rows)
{
    const struct shape *s = &model->shape;
    const size_t heads = s->heads + s->kv_heads;
    const size_t cache = s->layers * rows * s->positions * key_width(s);
    struct decoder *decoder = allocate(1, sizeof(*decoder));
    decoder->model = model;
    decoder->most_rows = rows;
    struct {
        float **pointer;
        size_t count;
    } pieces[] = {
        { &decoder->keys, cache },
        { &decoder->values, cache },
        { &decoder->stream, rows * s->width },
        { &decoder->normed, rows * s->width },
        { &decoder->inverse, rows },
        { &decoder->qkv, rows * qkv_width(s) },
        { &decoder->turned, rows * heads * s->head_size },
        { &decoder->head_inverse, rows * heads },
        { &decoder->attended, rows * query_width(s) },
        { &decoder->gate_up, rows * 2 * s->hidden },
        { &decoder->gated, rows * s->hidden },
        { &decoder->logits, rows * s->vocabulary },
    };
    const size_t count = sizeof(pieces) / sizeof(*pieces);
    size_t total = 0;
    for (size_t i = 0; i < count; i++)
        total += pieces[i].count;
    float *memory = decoder->memory = allocate(total, sizeof(float));
    for (size_t i = 0; i < count; i++) {
        *pieces[i].pointer = memory;
        memory += pieces[i].count;
    }
    return decoder;
}

void decoder_free(struct decoder *decoder)
{
    if (decoder == NULL)
        return;
    free(decoder->memory);
    free(decoder);
}

void decoder_start(struct decoder *decoder, size_t rows)
{
    assert(rows <= decoder->most_rows);
    decoder->rows = rows;
    decoder->position = 0;
}

/* ------------------------------------------------------------------ one step */

void decoder_embed(struct decoder *decoder, const int32_t *tokens, size_t stride)
{
    const size_t width = decoder->model->shape.width;
    for (size_t r = 0; r < decoder->rows; r++)
        memcpy(decoder->stream + r * width,
               decoder->model->weights.embedding + (size_t)tokens[r * stride] * width,
               width * sizeof(float));
}

static float *cache_row(const struct decoder *decoder, float *cache, size_t block, size_t row)
{
    const struct shape *s = &decoder->model->shape;
    return cache + (block * decoder->most_rows + row) * s->positions * key_width(s);
}

/* One head: the query of one row against the keys seen so far. */
static void attend_to_cache(float *restrict out, const float *restrict query,
                            const float *restrict keys, const float *restrict values,
                            size_t stride, size_t seen, size_t size)
{
    float shares[64];
    const float scale = 1.0F / sqrtf((float)size);
    for (size_t t = 0; t < seen; t++) {
        float lanes[4] = { 0 };
        for (size_t i = 0; i + 4 <= size; i += 4)
            for (size_t j = 0; j < 4; j++)
                lanes[j] += query[i + j] * keys[t * stride + i + j];
        for (size_t i = size - size % 4; i < size; i++)
            lanes[0] += query[i] * keys[t * stride + i];
        shares[t] = (lanes[0] + lanes[1] + lanes[2] + lanes[3]) * scale;
    }
    softmax(shares, seen);
    memset(out, 0, size * sizeof(float));
    for (size_t t = 0; t < seen; t++)
        for (size_t i = 0; i < size; i++)
            out[i] += shares[t] * values[t * stride + i];
}

static void attend_row(struct decoder *decoder, size_t block, size_t r)
{
    const struct shape *s = &decoder->model->shape;
    const size_t q = query_width(s), k = key_width(s), size = s->head_size;
    float *keys = cache_row(decoder, decoder->keys, block, r);
    float *values = cache_row(decoder, decoder->values, block, r);
    const float *turned = decoder->turned + r * (q + k);
    memcpy(keys + decoder->position * k, turned + q, k * sizeof(float));
    memcpy(values + decoder->position * k, decoder->qkv + r * qkv_width(s) + q + k,
           k * sizeof(float));
    for (size_t h = 0; h < s->heads; h++) {
        const size_t kv = h / (s->heads / s->kv_heads) * size;
        attend_to_cache(decoder->attended + r * q + h * size, turned + h * size, keys + kv,
                        values + kv, k, decoder->position + 1, size);
    }
}

void decoder_block(struct decoder *decoder, size_t block)
{
    const struct model *model = decoder->model;
    const struct shape *s = &model->shape;
    const struct block_tensors *w = &model->weights.blocks[block];
    const size_t rows = decoder->rows;
    rms_norm(decoder->normed, decoder->inverse, decoder->stream, w->norm_attention, rows,
             s->width);
    multiply(decoder->qkv, decoder->normed, w->query_key_value, rows, s->width, qkv_width(s),
             0.0F);
    for (size_t r = 0; r < rows; r++)
        turn_heads(decoder->turned + r * (query_width(s) + key_width(s)), decoder->head_inverse,
                   decoder->qkv + r * qkv_width(s), model, w, 1, decoder->position,
                   s->positions);
    for (size_t r = 0; r < rows; r++)
        attend_row(decoder, block, r);
    multiply(decoder->stream, decoder->attended, w->output, rows, query_width(s), s->width,
             1.0F);

    rms_norm(decoder->normed, decoder->inverse, decoder->stream, w->norm_mlp, rows, s->width);
    multiply(decoder->gate_up, decoder->normed, w->gate_up, rows, s->width, 2 * s->hidden,
             0.0F);
    swiglu(decoder->gated, decoder->gate_up, rows, s->hidden);
    multiply(decoder->stream, decoder->gated, w->down, rows, s->hidden, s->width, 1.0F);
}

void decoder_finish(struct decoder *decoder)
{
    const struct shape *s = &decoder->model->shape;
    rms_norm(decoder->normed, decoder->inverse, decoder->stream, decoder->model->weights.norm,
             decoder->rows, s->width);
    multiply(decoder->logits, decoder->normed, decoder->model->weights.head, decoder->rows,
             s->width, s->vocabulary, 0.0F);
}

void decoder_step(struct decoder *decoder, const int32_t *tokens, size_t stride)
{
    assert(decoder->position < decoder->model->shape.positions);
    decoder_embed(decoder, tokens, stride);
    for (size_t b = 0; b < decoder->model->shape.layers; b++)
        decoder_block(decoder, b);
    decoder_finish(decoder);
    decoder->position++;
}

/* ------------------------------------------------------------------ answers */

static int32_t most_likely(const float *logits, size_t count)
{
    size_t best = 0;
    for (size_t i = 1; i < count; i++)
        if (logits[i] > logits[best])
            best = i;
    return (int32_t)best;
}

static int32_t drawn(const float *logits, size_t count, const struct sampling *sampling,
                     struct random *random)
{
    double weights[VOCABULARY], total = 0.0, top = logits[most_likely(logits, count)];
    for (size_t i = 0; i < count; i++)
        total += weights[i] = exp(((double)logits[i] - top) / sampling->temperature);
    double left = random_uniform(random) * total;
    for (size_t i = 0; i + 1 < count; i++)
        if ((left -= weights[i]) < 0.0)
            return (int32_t)i;
    return (int32_t)(count - 1);
}

static int32_t choose(const float *logits, const struct sampling *sampling, uint64_t row,
                      size_t place)
{
    if (sampling->temperature == 0.0)
        return most_likely(logits, VOCABULARY);
    struct random random =
        random_for(sampling->seed, FOR_SAMPLES, sampling->step, row * SEQUENCE + place);
    return drawn(logits, VOCABULARY, sampling, &random);
}

void decoder_answer(struct decoder *decoder, int32_t *sequences, size_t rows,
                    enum problem_kind kind, const struct sampling *sampling)
{
    const size_t begin = problem_prompt_length(kind);
    assert(decoder->model->shape.vocabulary == VOCABULARY);
    decoder_start(decoder, rows);
    for (size_t place = 1; place < SEQUENCE; place++) {
        decoder_step(decoder, sequences + place - 1, SEQUENCE);
        if (place < begin)
            continue;
        for (size_t r = 0; r < rows; r++) {
            int32_t *sequence = sequences + r * SEQUENCE;
            const bool ended = place > begin && (sequence[place - 1] == TOKEN_END ||
                                                 sequence[place - 1] == TOKEN_PAD);
            sequence[place] =
                ended ? TOKEN_PAD
                      : choose(decoder->logits + r * VOCABULARY, sampling, r, place);
        }
    }
}
