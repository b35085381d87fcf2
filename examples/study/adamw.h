/* adamw.h - the optimizer: AdamW (arXiv:1711.05101) with a clip of the gradient's norm. */
#ifndef STUDY_ADAMW_H
#define STUDY_ADAMW_H

#include <stddef.h>
#include <stdint.h>

#include "model.h"

struct adamw {
    double rate, decay; /* decay pulls matrices only, not gains */
    double clip;        /* of the norm of the gradient; 0: off */
    float *mean, *square;
    uint64_t step;
};

struct adamw *adamw_new(const struct model *model, double rate, double decay, double clip);
void adamw_free(struct adamw *adamw);

/* One step of the parameters against model->grads. */
void adamw_step(struct adamw *adamw, struct model *model);

#endif
