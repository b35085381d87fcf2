/* run.c - the loop, its records, and going on. */
#include "run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint.h"
#include "grpo.h"
#include "measure.h"
#include "records.h"
#include "support.h"

/* Everything that a run is between two steps. */
struct state {
    struct trainer trainer;
    struct model *base;
    struct records records;
    uint64_t length;   /* of the records at the last checkpoint */
    uint64_t finished; /* 1: all has been measured too */
    void *library;     /* the regularizer's saved state */
    size_t library_bytes;
    char *records_path, *checkpoint_path;
};

/* ------------------------------------------------------------------ checkpoints */

/* Arm and settings, so that a run is not continued as another one. */
struct identity {
    char arm[32];
    struct settings settings;
};

static void fill_identity(struct identity *identity, const struct run *run)
{
    memset(identity, 0, sizeof(*identity));
    snprintf(identity->arm, sizeof(identity->arm), "%s", run->arm->name);
    memcpy(&identity->settings, &run->settings, sizeof(run->settings));
}

enum { PARTS = 9 };

static void list_parts(struct part parts[PARTS], struct state *state, struct identity *identity)
{
    struct trainer *trainer = &state->trainer;
    const size_t bytes = trainer->model->parameter_count * sizeof(float);
    const struct part list[PARTS] = {
        { "identity", identity, sizeof(*identity) },
        { "shape", &trainer->model->shape, sizeof(trainer->model->shape) },
        { "params", trainer->model->params, bytes },
        { "mean", trainer->adamw->mean, bytes },
        { "square", trainer->adamw->square, bytes },
        { "step", &trainer->step, sizeof(trainer->step) },
        { "records", &state->length, sizeof(state->length) },
        { "finished", &state->finished, sizeof(state->finished) },
        { "library", state->library, state->library_bytes },
    };
    memcpy(parts, list, sizeof(list));
}

static void save(struct state *state, const struct run *run)
{
    struct identity identity;
    struct part parts[PARTS];
    fill_identity(&identity, run);
    if (state->trainer.regularizer != NULL)
        must(gradreg_regularizer_state_save(state->trainer.regularizer, state->library,
                                            state->library_bytes));
    state->length =
        records_sync(&state->records); /* the checkpoint never speaks of lost lines */
    list_parts(parts, state, &identity);
    checkpoint_save(state->checkpoint_path, parts, PARTS);
}

static void load(struct state *state, const struct run *run)
{
    struct identity identity, mine;
    struct part parts[PARTS];
    struct trainer *trainer = &state->trainer;
    const struct shape shape = trainer->model->shape;
    list_parts(parts, state, &identity);
    fill_identity(&mine, run);
    if (!checkpoint_load(state->checkpoint_path, parts, 1))
        return;
    if (memcmp(&identity, &mine, sizeof(mine)) != 0)
        fail("%s is of a run with other options or another base model: give the same ones "
             "again, "
             "or another folder",
             state->checkpoint_path);
    checkpoint_load(state->checkpoint_path, parts, PARTS);
    if (memcmp(&shape, &trainer->model->shape, sizeof(shape)) != 0)
        fail("%s is of a model of another shape", state->checkpoint_path);
    if (trainer->regularizer != NULL)
        must(gradreg_regularizer_state_load(trainer->regularizer, state->library,
                                            state->library_bytes));
    trainer->adamw->step = trainer->step;
    model_refresh(trainer->model);
}

/* ------------------------------------------------------------------ records */

static void record_start(struct state *state, const struct run *run)
{
    struct gradreg_context_info info = GRADREG_CONTEXT_INFO_INIT;
    const struct settings *settings = &run->settings;
    struct records *r = &state->records;
    double *multipliers = allocate(state->base->shape.layers, sizeof(double));
    const gradreg_regularizer_params params =
        arm_regularizer(run->arm, settings, state->trainer.model);
    must(gradreg_context_info(state->trainer.context, &info));
    must(gradreg_schedule_multipliers(multipliers, &params.schedule, params.layer_count));
    record_begin(r, "start");
    record_text(r, "arm", run->arm->name);
    record_text(r, "title", run->arm->title);
    record_number(r, "seed", (double)settings->seed);
    record_number(r, "steps", (double)arm_steps(run->arm, settings));
    record_number(r, "prompts", (double)settings->prompts);
    record_number(r, "samples", (double)settings->samples);
    record_number(r, "rate", settings->rate);
    record_number(r, "clip", settings->clip);
    record_number(r, "strength", run->arm->depth == PLAIN ? 0.0 : params.strength);
    record_number(r, "epsilon", settings->epsilon);
    record_number(r, "noise", run->arm->noise);
    record_number(r, "parameters", (double)state->base->parameter_count);
    record_numbers(r, "multipliers", multipliers, state->base->shape.layers);
    record_text(r, "version", gradreg_version());
    record_text(r, "vector_path", info.vector_path);
    record_end(r);
    free(multipliers);
}

static void record_step(struct records *r, const struct trainer *trainer,
                        const struct step_report *report)
{
    const gradreg_terms *total = &trainer->total;
    const bool regularized = trainer->regularizer != NULL;
    double seconds[TIME_PARTS];
    for (int part = 0; part < TIME_PARTS; part++)
        seconds[part] = report->time[part].processor;
    record_begin(r, "step");
    record_number(r, "step", (double)trainer->step);
    record_number(r, "reward", report->reward);
    record_number(r, "used", report->used);
    record_number(r, "loss", report->loss);
    record_number(r, "norm", regularized ? total->first_norm : NAN);
    record_number(r, "alignment", regularized ? total->alignment : NAN);
    record_number(r, "share", regularized ? total->correction_share : NAN);
    record_number(r, "cosine", regularized ? total->applied_cosine : NAN);
    record_number(r, "first_order", regularized ? total->first_order_ratio : NAN);
    record_number(r, "noise_norm", regularized ? total->noise_norm : NAN);
    record_number(r, "wall", report->whole.wall);
    record_number(r, "processor", report->whole.processor);
    record_numbers(r, "parts", seconds, TIME_PARTS);
    record_end(r);
}

static void record_layers(struct records *r, const struct trainer *trainer)
{
    static const struct {
        const char *name;
        size_t offset;
    } columns[] = {
        { "first_norm", offsetof(gradreg_terms, first_norm) },
        { "curvature", offsetof(gradreg_terms, curvature) },
        { "share", offsetof(gradreg_terms, correction_share) },
        { "cosine", offsetof(gradreg_terms, applied_cosine) },
        { "applied", offsetof(gradreg_terms, applied_norm) },
        { "intended", offsetof(gradreg_terms, perturbation_norm) },
    };
    const size_t layers = trainer->model->shape.layers;
    double *row = allocate(layers, sizeof(double));
    record_begin(r, "layers");
    record_number(r, "step", (double)trainer->step);
    for (size_t c = 0; c < sizeof(columns) / sizeof(*columns); c++) {
        for (size_t l = 0; l < layers; l++)
            memcpy(&row[l], (const char *)&trainer->layers[l] + columns[c].offset,
                   sizeof(double));
        record_numbers(r, columns[c].name, row, layers);
    }
    record_end(r);
    free(row);
}

/* ------------------------------------------------------------------ the run */

static char *path_of(const struct run *run, const char *ending)
{
    const size_t bytes = strlen(run->folder) + strlen(run->arm->name) + 40;
    char *path = allocate(bytes, 1);
    snprintf(path, bytes, "%s/%s-%llu.%s", run->folder, run->arm->name,
             (unsigned long long)run->settings.seed, ending);
    return path;
}

static void open_state(struct state *state, struct run *run, gradreg_context *context)
{
    *state = (struct state){ .base = checkpoint_model(run->base, false) };
    run->settings.base = hash_bytes(HASH_START, state->base->params,
                                    state->base->parameter_count * sizeof(float));
    state->records_path = path_of(run, "jsonl");
    state->checkpoint_path = path_of(run, "ckpt");
    trainer_open(&state->trainer, context, run->arm, &run->settings,
                 checkpoint_model(run->base, run->arm->bf16));
    if (state->trainer.regularizer != NULL)
        must(
            gradreg_regularizer_state_bytes(state->trainer.regularizer, &state->library_bytes));
    state->library = allocate(state->library_bytes, 1);
    load(state, run);
}

static void close_state(struct state *state)
{
    if (state->records.file != NULL)
        records_close(&state->records);
    trainer_close(&state->trainer);
    model_free(state->base);
    free(state->library);
    free(state->records_path);
    free(state->checkpoint_path);
}

static struct measure measuring(struct state *state)
{
    /* Seed 0: all runs are asked the same. */
    return (struct measure){ state->trainer.context, state->trainer.decoder, &state->records, 0,
                             state->trainer.step };
}

/* False: asked to stop. */
static bool train(struct state *state, const struct run *run)
{
    struct trainer *trainer = &state->trainer;
    const uint64_t steps = arm_steps(run->arm, &run->settings);
    while (trainer->step < steps) {
        struct step_report report;
        trainer_step(trainer, &report);
        record_step(&state->records, trainer, &report);
        if (trainer->regularizer != NULL && (trainer->step % 4 == 1 || trainer->step == steps))
            record_layers(&state->records, trainer);
        if (trainer->step % run->measure_every == 0 && trainer->step < steps) {
            struct measure measure = measuring(state);
            measure_accuracy(&measure, (run->problems + 1) / 2, 1);
        }
        if (trainer->step % run->checkpoint_every == 0 || *run->stop)
            save(state, run);
        if (*run->stop)
            return false;
    }
    return true;
}

enum run_end run_go(struct run *run, gradreg_context *context)
{
    struct state state;
    open_state(&state, run, context);
    if (state.finished) {
        close_state(&state);
        return RUN_FINISHED;
    }
    records_open(&state.records, state.records_path, state.length);
    if (state.length == 0)
        record_start(&state, run);
    const bool whole = train(&state, run);
    if (whole) {
        struct measure measure = measuring(&state);
        measure_all(&measure, state.trainer.model, state.base, run->problems);
        record_begin(&state.records, "done");
        record_number(&state.records, "step", (double)state.trainer.step);
        record_end(&state.records);
        state.finished = 1;
        save(&state, run);
    }
    close_state(&state);
    return whole ? RUN_FINISHED : RUN_STOPPED;
}
