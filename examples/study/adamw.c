/* adamw.c - moments and step. */
#include "adamw.h"

#include <math.h>
#include <stdlib.h>

#include "support.h"

static const double MEAN_KEPT = 0.9, SQUARE_KEPT = 0.95, TINY = 1e-8;

struct adamw *adamw_new(const struct model *model, double rate, double decay, double clip)
{
    struct adamw *adamw = allocate(1, sizeof(*adamw));
    adamw->rate = rate;
    adamw->decay = decay;
    adamw->clip = clip;
    adamw->mean = allocate(model->parameter_count, sizeof(float));
    adamw->square = allocate(model->parameter_count, sizeof(float));
    return adamw;
}

void adamw_free(struct adamw *adamw)
{
    if (adamw == NULL)
        return;
    free(adamw->mean);
    free(adamw->square);
    free(adamw);
}

/* The factor that the library calls c1. */
static float clip_factor(const struct adamw *adamw, const struct model *model)
{
    double sum = 0.0;
    for (size_t i = 0; i < model->parameter_count; i++)
        sum += (double)model->grads[i] * (double)model->grads[i];
    return adamw->clip > 0.0 ? (float)fmin(1.0, adamw->clip / (sqrt(sum) + 1e-6)) : 1.0F;
}

void adamw_step(struct adamw *adamw, struct model *model)
{
    const float factor = clip_factor(adamw, model);
    const double step = (double)++adamw->step;
    const float a = (float)MEAN_KEPT, b = (float)SQUARE_KEPT;
    const float rate = (float)(adamw->rate / (1.0 - pow(MEAN_KEPT, step)));
    const float rise = (float)(1.0 / sqrt(1.0 - pow(SQUARE_KEPT, step)));
    for (size_t t = 0; t < model->tensor_count; t++) {
        const struct tensor *tensor = &model->tensors[t];
        const float kept =
            (float)(tensor->spread > 0.0 ? 1.0 - adamw->rate * adamw->decay : 1.0);
        float *w = model->params + tensor->offset, *m = adamw->mean + tensor->offset;
        float *v = adamw->square + tensor->offset;
        const float *g = model->grads + tensor->offset;
        for (size_t i = 0; i < tensor->count; i++) {
            const float clipped = factor * g[i];
            m[i] = a * m[i] + (1.0F - a) * clipped;
            v[i] = b * v[i] + (1.0F - b) * clipped * clipped;
            w[i] = kept * w[i] - rate * m[i] / (rise * sqrtf(v[i]) + (float)TINY);
        }
    }
    model_refresh(model);
}
