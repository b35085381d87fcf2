/* train.c - the training loop. The library's part of a step is in regularized_gradient(). */
#include "train.h"

#include <stdlib.h>
#include <string.h>

#include "random.h"
#include "support.h"

enum {
    WATCH_INTERVAL = 20, /* steps between two calls of the watch */
    FAR_INTERVAL = 10,   /* steps between two looks at the whole training set, */
    NEAR_INTERVAL = 2,   /* ... and when the target is near */
    TERMS_WINDOW = 100   /* the terms that are reported are means over this many last steps */
};

static const float AVERAGE_SHARE = 0.02f; /* of the newest parameters in the running mean */

struct trainer {
    struct network *network;
    const struct training *settings;
    struct random random;
    struct batch batch;
    size_t *rows;
    size_t parameter_count;
    float *params, *grads, *velocity;
    float *
        average; /* running mean of params: what is measured, free of the last batches' noise */
    gradreg_regularizer *regularizer; /* NULL: plain training */
    gradreg_buffers buffers;
    gradreg_terms *terms; /* [TERMS_WINDOW x (blocks + 1)], a ring */
};

/* ------------------------------------------------------------------ set-up */

static gradreg_regularizer *new_regularizer(gradreg_context *context,
                                            const struct network *network,
                                            const struct training *settings)
{
    gradreg_regularizer_params params = GRADREG_REGULARIZER_PARAMS_INIT;
    params.layer_count = (int32_t)network->shape.blocks;
    params.strength = settings->strength;
    params.epsilon = settings->epsilon;
    /* Plain training here does not clip, so neither does the other arm. */
    params.clip_first = params.clip_second = 0.0;
    params.warmup = GRADREG_WARMUP_LINEAR;
    params.warmup_steps = settings->warmup_steps;
    if (settings->even)
        params.schedule.first_layer = params.schedule.full_layer = 0;

    gradreg_segment *segments = segments_from_names(network);
    gradreg_regularizer *regularizer = NULL;
    must(gradreg_regularizer_create(&regularizer, context, segments, network->tensor_count,
                                    &params));
    free(segments);
    return regularizer;
}

static void trainer_open(struct trainer *trainer, struct network *network, float *params,
                         gradreg_context *context, const struct examples *examples,
                         const struct training *settings, uint64_t seed)
{
    const size_t count = network->parameter_count;

    *trainer = (struct trainer){ .network = network, .settings = settings, .params = params };
    trainer->parameter_count = count;
    trainer->random = random_seeded(seed, 3);
    trainer->rows = must_allocate(settings->batch_size, sizeof(*trainer->rows));
    trainer->batch = (struct batch){ examples, trainer->rows, settings->batch_size };
    trainer->grads = must_allocate(count, sizeof(float));
    trainer->velocity = must_allocate(count, sizeof(float));
    trainer->average = must_allocate(count, sizeof(float));
    memcpy(trainer->average, params, count * sizeof(float));
    trainer->buffers = flat_buffers(params, trainer->grads, count);
    if (settings->strength > 0.0) {
        trainer->regularizer = new_regularizer(context, network, settings);
        trainer->terms =
            must_allocate(TERMS_WINDOW * (network->shape.blocks + 1), sizeof(gradreg_terms));
    }
}

static void trainer_close(struct trainer *trainer)
{
    must(gradreg_regularizer_destroy(trainer->regularizer));
    free(trainer->rows);
    free(trainer->grads);
    free(trainer->velocity);
    free(trainer->average);
    free(trainer->terms);
}

/* ------------------------------------------------------------------ one step */

static void draw_batch(struct trainer *trainer)
{
    for (size_t i = 0; i < trainer->settings->batch_size; i++)
        trainer->rows[i] = random_below(&trainer->random, trainer->batch.examples->count);
}

static double backward(struct trainer *trainer)
{
    return network_gradient(trainer->network, trainer->grads, trainer->params, &trainer->batch);
}

/* grads = g1, or g1 plus the correction. Both passes see the same batch: they must differentiate
 * the same function. */
static double regularized_gradient(struct trainer *trainer)
{
    const double loss = backward(trainer);
    if (trainer->regularizer == NULL)
        return loss;
    must(gradreg_regularizer_perturb(trainer->regularizer, &trainer->buffers));
    backward(trainer);
    must(gradreg_regularizer_combine(trainer->regularizer, &trainer->buffers));
    return loss;
}

static void optimizer_step(struct trainer *trainer)
{
    const float rate = (float)trainer->settings->learning_rate;
    const float momentum = (float)trainer->settings->momentum;
    for (size_t i = 0; i < trainer->parameter_count; i++) {
        trainer->velocity[i] = momentum * trainer->velocity[i] + trainer->grads[i];
        trainer->params[i] -= rate * trainer->velocity[i];
        trainer->average[i] += AVERAGE_SHARE * (trainer->params[i] - trainer->average[i]);
    }
}

/* ------------------------------------------------------------------ terms */

static void keep_terms(struct trainer *trainer, size_t step)
{
    if (trainer->regularizer == NULL)
        return;
    const size_t layers = trainer->network->shape.blocks;
    gradreg_terms *row = trainer->terms + step % TERMS_WINDOW * (layers + 1);
    for (size_t l = 0; l <= layers; l++)
        row[l] = (gradreg_terms)GRADREG_TERMS_INIT;
    must(gradreg_regularizer_terms(trainer->regularizer, &row[layers], row, layers));
}

static void average_terms(struct trained *out, const struct trainer *trainer)
{
    if (trainer->regularizer == NULL)
        return;
    const size_t columns = trainer->network->shape.blocks + 1;
    const size_t rows = out->steps < TERMS_WINDOW ? out->steps : TERMS_WINDOW;
    const double share = 1.0 / (double)rows;

    out->layers = must_allocate(columns, sizeof(*out->layers));
    for (size_t i = 0; i < rows * columns; i++) {
        const gradreg_terms *terms = &trainer->terms[i];
        struct layer_terms *mean = &out->layers[i % columns];
        mean->strength += share * terms->strength;
        mean->first_norm += share * terms->first_norm;
        mean->hvp_norm += share * terms->hvp_norm;
        mean->curvature += share * terms->curvature;
        mean->correction_share += share * terms->correction_share;
        mean->applied_cosine += share * terms->applied_cosine;
    }
}

/* ------------------------------------------------------------------ the loop */

static double training_set_loss(const struct trainer *trainer)
{
    const struct examples *examples = trainer->batch.examples;
    const struct batch all = { examples, NULL, examples->count };
    return network_loss(trainer->network, trainer->average, &all);
}

/* Looking at the whole set costs as much as several steps: often only where the target is near. */
static bool target_reached(struct trained *out, const struct trainer *trainer, double recent)
{
    const double target = trainer->settings->target_loss;
    const bool near = out->loss > 0.0 && out->loss < 1.15 * target;
    const size_t interval = near ? NEAR_INTERVAL : FAR_INTERVAL;
    if (recent > 4.0 * target || out->steps % interval != 0)
        return false;
    out->loss = training_set_loss(trainer);
    return out->loss <= target;
}

void train(struct trained *out, struct network *network, float *params,
           gradreg_context *context, const struct examples *examples,
           const struct training *settings, uint64_t seed, const struct training_watch *watch)
{
    const size_t passes_before = network->example_passes;
    struct trainer trainer;
    double recent = 0.0;

    *out = (struct trained){ 0 };
    trainer_open(&trainer, network, params, context, examples, settings, seed);
    while (!out->reached && out->steps < settings->step_limit) {
        draw_batch(&trainer);
        const double loss = regularized_gradient(&trainer);
        keep_terms(&trainer, out->steps);
        optimizer_step(&trainer);
        out->steps++;

        recent = out->steps == 1 ? loss : 0.97 * recent + 0.03 * loss;
        if (out->steps % WATCH_INTERVAL == 0)
            watch->function(watch->user, out->steps, recent);
        out->reached = target_reached(out, &trainer, recent);
    }
    if (!out->reached)
        out->loss = training_set_loss(&trainer);
    out->backward_examples = network->example_passes - passes_before;
    average_terms(out, &trainer);
    memcpy(params, trainer.average, trainer.parameter_count * sizeof(float));
    trainer_close(&trainer);
}

void trained_free(struct trained *trained)
{
    free(trained->layers);
    trained->layers = NULL;
}
