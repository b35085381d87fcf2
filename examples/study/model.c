/* model.c - layout, table of segments, first weights. */
#include "model.h"

#include <assert.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "random.h"
#include "support.h"

/* ------------------------------------------------------------------ layout */

/* In the order in which they lie in the flat buffer. */
enum { EMBEDDING, FIRST_OF_BLOCKS };
enum {
    NORM_ATTENTION,
    QUERY,
    KEY,
    VALUE,
    QUERY_NORM,
    KEY_NORM,
    OUTPUT,
    NORM_MLP,
    GATE,
    UP,
    DOWN,
    TENSORS_PER_BLOCK
};
enum { TENSORS_OUTSIDE = 3 };

static void add_tensor(struct model *model, size_t count, double spread, const char *format,
                       ...)
{
    struct tensor *tensor = &model->tensors[model->tensor_count++];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(tensor->name, sizeof(tensor->name), format, arguments);
    va_end(arguments);
    tensor->offset = model->parameter_count;
    tensor->count = count;
    tensor->spread = spread;
    model->parameter_count += count;
}

/* Matrices keep the size of what flows through them; those that write to the residual stream start
 * smaller, as there are two in each block. */
static void add_block(struct model *model, size_t b)
{
    const struct shape *s = &model->shape;
    const size_t w = s->width, q = query_width(s), k = key_width(s), h = s->hidden;
    const double quiet = 1.0 / sqrt(2.0 * (double)s->layers), from = 1.0 / sqrt((double)w);
    const struct {
        const char *name;
        size_t count;
        double spread;
    } tensors[TENSORS_PER_BLOCK] = {
        { "input_layernorm", w, 0.0 },
        { "self_attn.q_proj", q * w, from },
        { "self_attn.k_proj", k * w, from },
        { "self_attn.v_proj", k * w, from },
        { "self_attn.q_norm", s->head_size, 0.0 },
        { "self_attn.k_norm", s->head_size, 0.0 },
        { "self_attn.o_proj", w * q, quiet / sqrt((double)q) },
        { "post_attention_layernorm", w, 0.0 },
        { "mlp.gate_proj", h * w, from },
        { "mlp.up_proj", h * w, from },
        { "mlp.down_proj", w * h, quiet / sqrt((double)h) },
    };
    for (size_t t = 0; t < TENSORS_PER_BLOCK; t++)
        add_tensor(model, tensors[t].count, tensors[t].spread, "model.layers.%zu.%s.weight", b,
                   tensors[t].name);
}

static void lay_out(struct model *model)
{
    const struct shape *s = &model->shape;
    model->tensors =
        allocate(TENSORS_OUTSIDE + s->layers * TENSORS_PER_BLOCK, sizeof(*model->tensors));
    add_tensor(model, s->vocabulary * s->width, 0.5, "model.embed_tokens.weight");
    for (size_t b = 0; b < s->layers; b++)
        add_block(model, b);
    add_tensor(model, s->width, 0.0, "model.norm.weight");
    add_tensor(model, s->vocabulary * s->width, 1.0 / sqrt((double)s->width), "lm_head.weight");
}

/* [segments] */
static void tell_segments(struct model *model)
{
    model->segments = allocate(model->tensor_count, sizeof(*model->segments));
    for (size_t t = 0; t < model->tensor_count; t++) {
        gradreg_segment *segment = &model->segments[t];
        *segment = (gradreg_segment)GRADREG_SEGMENT_INIT;
        segment->offset = model->tensors[t].offset;
        segment->count = model->tensors[t].count;
        must(gradreg_segment_classify(&segment->layer, &segment->role, model->tensors[t].name));
    }
}
/* [end] */

static void point_into(struct view *view, const struct model *model, float *flat)
{
    view->blocks = allocate(model->shape.layers, sizeof(*view->blocks));
    view->embedding = flat + model->tensors[EMBEDDING].offset;
    for (size_t b = 0; b < model->shape.layers; b++) {
        const struct tensor *first = &model->tensors[FIRST_OF_BLOCKS + b * TENSORS_PER_BLOCK];
        view->blocks[b] = (struct block_tensors){
            .norm_attention = flat + first[NORM_ATTENTION].offset,
            .query_key_value = flat + first[QUERY].offset,
            .query_norm = flat + first[QUERY_NORM].offset,
            .key_norm = flat + first[KEY_NORM].offset,
            .output = flat + first[OUTPUT].offset,
            .norm_mlp = flat + first[NORM_MLP].offset,
            .gate_up = flat + first[GATE].offset,
            .down = flat + first[DOWN].offset,
        };
    }
    view->norm = flat + model->tensors[model->tensor_count - 2].offset;
    view->head = flat + model->tensors[model->tensor_count - 1].offset;
}

/* ------------------------------------------------------------------ life */

const char *shape_complaint(const struct shape *s)
{
    if (s->layers < 1 || s->layers > 256)
        return "layers must be 1 to 256";
    if (s->width < 1 || s->width > 4096 || s->hidden < 1 || s->hidden > 16384)
        return "width must be 1 to 4096, hidden 1 to 16384";
    if (s->heads < 1 || s->heads > 256 || s->kv_heads < 1 || s->heads % s->kv_heads != 0)
        return "heads must be 1 to 256 and a multiple of kv-heads";
    if (s->head_size < 2 || s->head_size > 256 || s->head_size % 2 != 0)
        return "head-size must be even, 2 to 256";
    if (s->vocabulary < 2 || s->vocabulary > 65536 || s->positions < 1 || s->positions > 64)
        return "vocabulary must be 2 to 65536, positions 1 to 64";
    return NULL;
}

static void tabulate_positions(struct model *model)
{
    const size_t half = model->shape.head_size / 2;
    model->cosines = allocate(model->shape.positions * half, sizeof(float));
    model->sines = allocate(model->shape.positions * half, sizeof(float));
    for (size_t t = 0; t < model->shape.positions; t++)
        for (size_t i = 0; i < half; i++) {
            const double angle = (double)t * pow(10000.0, -(double)i / (double)half);
            model->cosines[t * half + i] = (float)cos(angle);
            model->sines[t * half + i] = (float)sin(angle);
        }
}

struct model *model_new(const struct shape *shape, bool bf16)
{
    assert(shape_complaint(shape) == NULL);
    struct model *model = allocate(1, sizeof(*model));
    model->shape = *shape;
    lay_out(model);
    tell_segments(model);
    model->params = allocate(model->parameter_count, sizeof(float));
    model->grads = allocate(model->parameter_count, sizeof(float));
    if (bf16)
        model->rounded = allocate(model->parameter_count, sizeof(float));
    point_into(&model->weights, model, bf16 ? model->rounded : model->params);
    point_into(&model->sums, model, model->grads);
    tabulate_positions(model);
    return model;
}

void model_free(struct model *model)
{
    if (model == NULL)
        return;
    free(model->tensors);
    free(model->segments);
    free(model->params);
    free(model->grads);
    free(model->rounded);
    free(model->weights.blocks);
    free(model->sums.blocks);
    free(model->cosines);
    free(model->sines);
    free(model);
}

void model_initialize(struct model *model, uint64_t seed)
{
    for (size_t t = 0; t < model->tensor_count; t++) {
        const struct tensor *tensor = &model->tensors[t];
        struct random random = random_for(seed, FOR_WEIGHTS, t, 0);
        for (size_t i = 0; i < tensor->count; i++)
            model->params[tensor->offset + i] =
                tensor->spread > 0.0 ? (float)(tensor->spread * random_normal(&random)) : 1.0F;
    }
    model_refresh(model);
}

/* To the nearest bf16, ties to even. Parameters are finite. */
static float rounded_to_bf16(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    bits = (bits + 0x7fffU + ((bits >> 16) & 1U)) & 0xffff0000U;
    memcpy(&value, &bits, sizeof(bits));
    return value;
}

void model_refresh(struct model *model)
{
    if (model->rounded == NULL)
        return;
    for (size_t i = 0; i < model->parameter_count; i++)
        model->rounded[i] = rounded_to_bf16(model->params[i]);
}

gradreg_buffers model_buffers(const struct model *model)
{
    gradreg_buffers buffers = GRADREG_BUFFERS_INIT;
    buffers.params = model->params;
    buffers.grads = model->grads;
    buffers.count = model->parameter_count;
    return buffers;
}
