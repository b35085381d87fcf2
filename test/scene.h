/* scene.h - a trainer with the model of the closed forms, whose gradients can be spoilt.
 *
 * In: params, and which pass's gradient gets which value where. Out: steps that trainer_run() holds
 * against the oracle. */
#ifndef GRADREG_TEST_SCENE_H
#define GRADREG_TEST_SCENE_H

#include "model.h"
#include "support.h"
#include "trainer.h"

/* What spoils a pass's gradient: `value` at `element` in pass `pass`, counted from 0. */
struct source {
    model *m;
    int pass, spoilt;
    size_t element;
    double value;
};

struct scene {
    trainer *t;
    struct source source;
};

gradreg_regularizer_params defaults(void);
struct scene open_scene(const gradreg_regularizer_params *p, const trainer_setup *setup);
void close_scene(struct scene *scene);

/* A step from somewhere else than the last one, as an optimizer leaves the weights. */
void step(struct scene *scene, enum trainer_ending ending);
void some_steps(struct scene *scene, int count);

gradreg_difference difference(int choice);

#endif
