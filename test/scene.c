/* scene.c - steps with the model of the closed forms, see scene.h. */
#include "scene.h"

static void gradient(void *user, double *out, const double *theta)
{
    struct source *s = user;

    model_gradient(s->m, out, theta);
    if (s->pass++ == s->spoilt)
        out[s->element] = s->value;
}

gradreg_regularizer_params defaults(void)
{
    gradreg_regularizer_params p = model_params();

    p.epsilon = 1e-3;
    p.clip_first = 9.0;
    p.clip_second = 8.0;
    return p;
}

struct scene open_scene(const gradreg_regularizer_params *p, const trainer_setup *setup)
{
    struct scene scene = { .source = { .spoilt = -1 } };
    double values[MODEL_ELEMENTS];

    scene.source.m = model_new(MODEL_ELEMENTS, 3);
    scene.t = trainer_open(model_segments, MODEL_SEGMENTS, p, setup);
    model_fill(values, MODEL_ELEMENTS, 2.0, 5);
    for (size_t s = 0; s < MODEL_SEGMENTS; s++)
        for (size_t i = scene.t->oracle->start[s]; i < scene.t->oracle->start[s + 1]; i++)
            values[i] = type_round(values[i], oracle_param_type(scene.t->oracle, s));
    trainer_write(scene.t, TRAINER_PARAMS, values);
    return scene;
}

void close_scene(struct scene *scene)
{
    trainer_close(scene->t);
    model_free(scene->source.m);
}

/* As an optimizer does between steps: the next one begins elsewhere. */
static void wander(trainer *t)
{
    const oracle *o = t->oracle;
    uint64_t state = 31 + o->calls;

    trainer_read(t, TRAINER_PARAMS, t->theta);
    for (size_t s = 0; s < o->segment_count; s++)
        for (size_t i = o->start[s]; i < o->start[s + 1]; i++)
            t->theta[i] =
                type_round(t->theta[i] + next_signed(&state, 0.1), oracle_param_type(o, s));
    trainer_write(t, TRAINER_PARAMS, t->theta);
}

void step(struct scene *scene, enum trainer_ending ending)
{
    wander(scene->t);
    scene->source.pass = 0;
    trainer_run(scene->t, gradient, &scene->source, ending);
}

void some_steps(struct scene *scene, int count)
{
    for (int i = 0; i < count; i++)
        step(scene, TRAINER_COMBINE);
}

gradreg_difference difference(int choice)
{
    return choice != 0 ? GRADREG_DIFFERENCE_CENTRAL : GRADREG_DIFFERENCE_FORWARD;
}
