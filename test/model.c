/* model.c - see model.h. */
#include "model.h"

#include <math.h>
#include <stdlib.h>

#define ATTENTION GRADREG_ROLE_ATTENTION
#define MLP       GRADREG_ROLE_MLP
#define NORM      GRADREG_ROLE_NORM
#define EMBEDDING GRADREG_ROLE_EMBEDDING
#define HEAD      GRADREG_ROLE_HEAD
#define OTHER     GRADREG_ROLE_OTHER
#define NONE      GRADREG_LAYER_NONE

const gradreg_segment model_segments[MODEL_SEGMENTS] = {
    { 119, 9, 0, 0, NONE, HEAD, 0, 0, 0, { 0 } },
    { 0, 11, 0, 0, NONE, EMBEDDING, 0, 0, 0, { 0 } },
    { 13, 7, 0, 0, 0, ATTENTION, 0, 0, 0, { 0 } },
    { 20, 8, 0, 0, 0, MLP, 0, 0, 0, { 0 } },
    { 30, 2, 0, 0, 0, NORM, 0, 0, 0, { 0 } },
    { 32, 6, 0, 0, 1, ATTENTION, 0, 0, 0, { 0 } },
    { 38, 0, 0, 0, 1, ATTENTION, 0, 0, 0, { 0 } },
    { 41, 9, 0, 0, 1, MLP, 0, 0, 0, { 0 } },
    { 50, 2, 0, 0, 1, NORM, 0, 0, 0, { 0 } },
    { 73, 7, 0, 0, 3, ATTENTION, 0, 0, 0, { 0 } },
    { 80, 8, 0, 0, 3, MLP, 0, 0, 0, { 0 } },
    { 90, 1, 0, 0, 3, NORM, 0, 0, 0, { 0 } },
    { 53, 5, 0, 0, 2, ATTENTION, 0, 0, 0, { 0 } },
    { 59, 9, 0, 0, 2, MLP, 0, 0, 0, { 0 } },
    { 70, 2, 0, 0, 2, NORM, 0, 0, 0, { 0 } },
    { 100, 3, 0, 0, NONE, NORM, 0, 0, 0, { 0 } },
    { 105, 7, 0, 0, 2, OTHER, 0, 0, 0, { 0 } },
};

const gradreg_segment large_table[LARGE_TENSORS] = {
    { 70001, 33, 0, 0, 0, NORM, 0, 0, 0, { 0 } },
    { 0, 70001, 0, 0, 1, ATTENTION, 0, 0, 0, { 0 } },
    { 70034, 0, 0, 0, 1, MLP, 0, 0, 0, { 0 } },
    { 70037, LARGE_PATTERNS, 0, 0, 2, MLP, 0, 0, 0, { 0 } },
    { 135600, 1021, 0, 0, NONE, EMBEDDING, 0, 0, 0, { 0 } },
};

gradreg_regularizer_params model_params(void)
{
    gradreg_regularizer_params p = GRADREG_REGULARIZER_PARAMS_INIT;

    p.layer_count = MODEL_LAYERS;
    p.schedule.first_layer = 1;
    p.schedule.full_layer = 3;
    p.clip_first = p.clip_second = 0.0;
    p.strength = 0.1;
    return p;
}

gradreg_regularizer_params large_params(const struct type_pair *pair)
{
    gradreg_regularizer_params p = GRADREG_REGULARIZER_PARAMS_INIT;

    p.param_type = pair->param;
    p.grad_type = pair->grad;
    p.layer_count = LARGE_LAYERS;
    p.schedule.first_layer = p.schedule.full_layer = 0;
    p.clip_first = p.clip_second = 0.0;
    return p;
}

double model_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return (double)(*state >> 11) * 0x1p-52 - 1.0;
}

void model_fill(double *out, size_t count, double scale, uint64_t seed)
{
    uint64_t state = seed * UINT64_C(0x9E3779B97F4A7C15) | 1;

    for (size_t i = 0; i < 8; i++)
        model_random(&state);
    for (size_t i = 0; i < count; i++)
        out[i] = scale * model_random(&state);
}

model *model_new(size_t count, uint64_t seed)
{
    model *m = calloc(1, sizeof(*m));
    const double scale = sqrt(3.0 / (double)count);

    m->count = count;
    m->rows = count / 2 + 1;
    m->a = calloc(count * count, sizeof(double));
    m->b = calloc(m->rows * count, sizeof(double));
    m->inner = calloc(m->rows, sizeof(double));
    model_fill(m->a, count * count, scale, seed);
    model_fill(m->b, m->rows * count, scale, seed + 1);
    for (size_t i = 0; i < count; i++) {
        for (size_t j = 0; j < i; j++)
            m->a[i * count + j] = m->a[j * count + i];
        m->a[i * count + i] += 0.5;
    }
    return m;
}

void model_free(model *m)
{
    if (m == NULL)
        return;
    free(m->a);
    free(m->b);
    free(m->inner);
    free(m);
}

static void fill_inner(const model *m, const double *theta)
{
    for (size_t r = 0; r < m->rows; r++) {
        m->inner[r] = 0.0;
        for (size_t j = 0; j < m->count; j++)
            m->inner[r] += m->b[r * m->count + j] * theta[j];
    }
}

double model_loss(const model *m, const double *theta)
{
    double loss = 0.0;

    fill_inner(m, theta);
    for (size_t i = 0; i < m->count; i++)
        for (size_t j = 0; j < m->count; j++)
            loss += 0.5 * theta[i] * m->a[i * m->count + j] * theta[j];
    for (size_t r = 0; r < m->rows; r++)
        loss += 0.25 * pow(m->inner[r], 4.0);
    return loss;
}

void model_gradient(const model *m, double *out, const double *theta)
{
    fill_inner(m, theta);
    for (size_t i = 0; i < m->count; i++) {
        out[i] = 0.0;
        for (size_t j = 0; j < m->count; j++)
            out[i] += m->a[i * m->count + j] * theta[j];
        for (size_t r = 0; r < m->rows; r++)
            out[i] += m->b[r * m->count + i] * m->inner[r] * m->inner[r] * m->inner[r];
    }
}

void model_hessian_times(const model *m, double *out, const double *theta, const double *v)
{
    fill_inner(m, theta);
    for (size_t i = 0; i < m->count; i++) {
        out[i] = 0.0;
        for (size_t j = 0; j < m->count; j++)
            out[i] += m->a[i * m->count + j] * v[j];
    }
    for (size_t r = 0; r < m->rows; r++) {
        double along = 0.0;
        for (size_t j = 0; j < m->count; j++)
            along += m->b[r * m->count + j] * v[j];
        for (size_t i = 0; i < m->count; i++)
            out[i] += 3.0 * m->b[r * m->count + i] * m->inner[r] * m->inner[r] * along;
    }
}
