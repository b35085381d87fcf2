/* selftest.c - the backward pass against differences of the loss, the decoder against the pass, going on
 * against going through, and what must not go wrong when a disk is full or a file damaged. What ends
 * the program runs in a child. */
#define _XOPEN_SOURCE 700
#include "selftest.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "checkpoint.h"
#include "decoder.h"
#include "grpo.h"
#include "kernels.h"
#include "options.h"
#include "pass.h"
#include "problems.h"
#include "run.h"
#include "support.h"

static bool report(const char *what, double error, double limit)
{
    const bool good = error <= limit;
    printf("  %-66s %8.1e  limit %.0e  %s\n", what, error, limit, good ? "ok" : "FAILED");
    return good;
}

static bool verdict(const char *what, bool good)
{
    printf("  %-66s %s\n", what, good ? "ok" : "FAILED");
    return good;
}

/* ------------------------------------------------------------------ gradients */

enum { TEXTS = 6 };

static const struct shape tiny = { 4, 16, 4, 2, 4, 24, VOCABULARY, SEQUENCE - 1 };

/* A loss that is not symmetric in anything: a weighted sum of log-probs. */
struct rig {
    struct model *model;
    struct pass *pass;
    gradreg_context *context;
    int32_t tokens[TEXTS * SEQUENCE], targets[TEXTS * (SEQUENCE - 1)];
    float d_logp[TEXTS * (SEQUENCE - 1)], logp[TEXTS * (SEQUENCE - 1)];
    float log_sum_exp[TEXTS * (SEQUENCE - 1)];
    gradreg_logits_params params;
};

static void rig_open(struct rig *rig, gradreg_context *context)
{
    struct random random = random_for(1, FOR_CHECKS, 0, 0);
    *rig = (struct rig){ .context = context, .params = GRADREG_LOGITS_PARAMS_INIT };
    rig->model = model_new(&tiny, false);
    model_initialize(rig->model, 3);
    /* Gains and biases of the start hide mistakes. */
    for (size_t i = 0; i < rig->model->parameter_count; i++)
        rig->model->params[i] += (float)(0.1 * random_normal(&random));
    rig->pass = pass_new(rig->model, TEXTS);
    rig->params.rows = TEXTS * tiny.positions;
    rig->params.vocabulary = tiny.vocabulary;
    for (size_t i = 0; i < TEXTS; i++) {
        const struct problem problem = problem_lesson(&random);
        problem_text(rig->tokens + i * SEQUENCE, &problem);
        for (size_t t = 0; t < tiny.positions; t++) {
            rig->targets[i * tiny.positions + t] =
                random_below(&random, 5) == 0 ? -1 : rig->tokens[i * SEQUENCE + t + 1];
            rig->d_logp[i * tiny.positions + t] = (float)random_normal(&random);
        }
    }
}

static void rig_close(struct rig *rig)
{
    pass_free(rig->pass);
    model_free(rig->model);
}

static double rig_loss(struct rig *rig)
{
    double loss = 0.0;
    pass_forward(rig->pass, rig->model, rig->tokens, SEQUENCE, TEXTS);
    must(gradreg_logprobs_forward(rig->context, rig->logp, NULL, rig->log_sum_exp,
                                  rig->pass->logits, rig->targets, &rig->params));
    for (size_t r = 0; r < rig->params.rows; r++)
        loss += (double)rig->d_logp[r] * (double)rig->logp[r];
    return loss;
}

static void rig_gradient(struct rig *rig, size_t first_layer)
{
    memset(rig->model->grads, 0, rig->model->parameter_count * sizeof(float));
    rig_loss(rig);
    must(gradreg_logprobs_backward(rig->context, rig->pass->logits, rig->pass->logits,
                                   rig->targets, rig->log_sum_exp, NULL, rig->d_logp, NULL,
                                   &rig->params));
    pass_backward(rig->pass, rig->model, first_layer);
}

/* (L(x + h v) - L(x - h v)) / 2h, and the same with 2h, whose errors of second order cancel. */
static double slope(struct rig *rig, const struct tensor *tensor, const float *v, float h)
{
    float *params = rig->model->params + tensor->offset;
    float *kept = allocate(tensor->count, sizeof(float));
    double losses[4];
    const float steps[4] = { -2.0F, -1.0F, 1.0F, 2.0F };
    memcpy(kept, params, tensor->count * sizeof(float));
    for (size_t s = 0; s < 4; s++) {
        for (size_t i = 0; i < tensor->count; i++)
            params[i] = kept[i] + steps[s] * h * v[i];
        losses[s] = rig_loss(rig);
    }
    memcpy(params, kept, tensor->count * sizeof(float));
    free(kept);
    return (8.0 * (losses[2] - losses[1]) - (losses[3] - losses[0])) / (12.0 * (double)h);
}

/* Along the gradient of each tensor by itself: the slope there is its norm. */
static bool check_gradient(struct rig *rig)
{
    double worst = 0.0;
    float *gradient = allocate(rig->model->parameter_count, sizeof(float));
    float *v = allocate(rig->model->parameter_count, sizeof(float));
    struct random random = random_for(2, FOR_CHECKS, 0, 0);
    rig_gradient(rig, 0);
    memcpy(gradient, rig->model->grads, rig->model->parameter_count * sizeof(float));
    for (size_t t = 0; t < rig->model->tensor_count; t++) {
        const struct tensor *tensor = &rig->model->tensors[t];
        double sum = 0.0, along = 0.0;
        for (size_t i = 0; i < tensor->count; i++)
            sum += pow((double)gradient[tensor->offset + i], 2.0);
        for (size_t i = 0; i < tensor->count; i++) {
            const double g = (double)gradient[tensor->offset + i] / sqrt(sum);
            v[i] = (float)(g + 0.5 * random_normal(&random) / sqrt((double)tensor->count));
            along += (double)gradient[tensor->offset + i] * (double)v[i];
        }
        const double error = fabs(slope(rig, tensor, v, 0.01F) - along) / sqrt(sum);
        worst = error > worst ? error : worst;
    }
    free(gradient);
    free(v);
    return report("backward pass against differences of the loss, worst tensor", worst, 2e-3);
}

static bool check_truncated(struct rig *rig)
{
    const size_t bytes = rig->model->parameter_count * sizeof(float);
    const struct model *model = rig->model;
    float *whole = allocate(1, bytes);
    bool good = true;
    rig_gradient(rig, 0);
    memcpy(whole, model->grads, bytes);
    rig_gradient(rig, 2);
    for (size_t t = 0; t < model->tensor_count; t++) {
        const gradreg_segment *segment = &model->segments[t];
        if (segment->layer >= 2)
            good &= memcmp(whole + segment->offset, model->grads + segment->offset,
                           segment->count * sizeof(float)) == 0;
    }
    free(whole);
    return verdict("a pass that stops at layer 2 has the same gradient above it", good);
}

static bool check_decoder(struct rig *rig)
{
    struct decoder *decoder = decoder_new(rig->model, TEXTS);
    double worst = 0.0;
    pass_forward(rig->pass, rig->model, rig->tokens, SEQUENCE, TEXTS);
    decoder_start(decoder, TEXTS);
    for (size_t t = 0; t < tiny.positions; t++) {
        decoder_step(decoder, rig->tokens + t, SEQUENCE);
        for (size_t r = 0; r < TEXTS; r++)
            for (size_t v = 0; v < VOCABULARY; v++)
                worst = fmax(
                    worst,
                    fabs((double)decoder->logits[r * VOCABULARY + v] -
                         (double)rig->pass->logits[(r * tiny.positions + t) * VOCABULARY + v]));
    }
    decoder_free(decoder);
    return report("key-value cache against the whole pass, logits", worst, 1e-4);
}

/* ------------------------------------------------------------------ problems */

static bool check_problems(void)
{
    struct random random = random_for(3, FOR_CHECKS, 0, 0);
    bool good = true;
    for (int i = 0; i < 2000; i++) {
        const struct problem problem = problem_lesson(&random);
        int32_t tokens[SEQUENCE], again[SEQUENCE];
        char text[SEQUENCE + 1];
        problem_text(tokens, &problem);
        text_decode(text, tokens, SEQUENCE);
        good &= text_encode(again, SEQUENCE, text) == SEQUENCE &&
                memcmp(tokens, again, sizeof(tokens)) == 0 && problem_solved(&problem, tokens);
        good &= problem.kind == ADD
                    ? !held_out_pair(problem.first, problem.total - problem.first)
                    : !held_out_total(problem.total);
        const size_t wrong =
            problem_prompt_length(problem.kind) + (size_t)random_below(&random, 3);
        tokens[wrong] = (tokens[wrong] + 1 + random_below(&random, 9)) % 10;
        good &= !problem_solved(&problem, tokens);
    }
    return verdict("lessons read back, are right, not held out, and wrong when changed", good);
}

/* ------------------------------------------------------------------ going on */

static char folder[] = "/tmp/gradreg-study-XXXXXX";

static char *in_folder(const char *name)
{
    static char paths[4][200];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof(paths[0]), "%s/%s", folder, name);
    return path;
}

/* For builds in which everything takes long. */
static bool small(void)
{
    return getenv("GRADREG_TEST_SMALL") != NULL;
}

/* From a base model that can do something: without rewards nothing would move. */
static struct run small_run(const char *base, const char *arm, uint64_t seed,
                            const volatile sig_atomic_t *stop)
{
    struct run run = {
        .arm = arm_named(arm), .settings = settings_default(), .base = base, .folder = folder
    };
    run.settings.steps = small() ? 2 : 6;
    run.settings.prompts = 4;
    run.settings.samples = 4;
    run.settings.seed = seed;
    run.checkpoint_every = 2;
    run.measure_every = 4;
    run.problems = small() ? 1 : 4;
    run.stop = stop;
    return run;
}

/* Parameters at the end of a run. */
static float *outcome(const char *name, size_t bytes)
{
    float *params = allocate(1, bytes);
    checkpoint_load(in_folder(name), &(struct part){ "params", params, bytes }, 1);
    return params;
}

/* Lines without what comes behind "wall": times differ. */
static uint64_t records_hash(const char *name)
{
    char line[4096];
    uint64_t hash = HASH_START;
    FILE *file = fopen(in_folder(name), "r");
    if (file == NULL)
        return 0;
    while (fgets(line, sizeof(line), file) != NULL) {
        char *times = strstr(line, ",\"wall\"");
        if (times != NULL)
            *times = '\0';
        hash = hash_bytes(hash, line, strlen(line));
    }
    fclose(file);
    return hash;
}

static void put_away(const char *from, const char *to)
{
    if (rename(in_folder(from), in_folder(to)) != 0)
        fail("selftest: cannot rename %s", from);
}

/* The same run once in one go and once stopped after every step. */
static bool check_going_on(gradreg_context *context, const struct model *base, const char *path,
                           const char *arm)
{
    static volatile sig_atomic_t no = 0, yes = 1;
    const size_t bytes = base->parameter_count * sizeof(float);
    char records[64], checkpoint[64], text[100];
    struct run run = small_run(path, arm, 1, &no);
    snprintf(records, sizeof(records), "%s-1.jsonl", arm);
    snprintf(checkpoint, sizeof(checkpoint), "%s-1.ckpt", arm);
    bool good = run_go(&run, context) == RUN_FINISHED;
    const uint64_t whole_records = records_hash(records);
    put_away(checkpoint, "whole.ckpt");
    put_away(records, "whole.jsonl");

    int stops = 0;
    for (run = small_run(path, arm, 1, &yes); run_go(&run, context) == RUN_STOPPED;)
        stops++;
    float *whole = outcome("whole.ckpt", bytes), *pieces = outcome(checkpoint, bytes);
    good &= stops == (int)run.settings.steps && memcmp(whole, pieces, bytes) == 0;
    good &= memcmp(whole, base->params, bytes) != 0;
    good &= whole_records != 0 && records_hash(records) == whole_records;
    free(whole);
    free(pieces);
    snprintf(text, sizeof(text),
             "stopped after every step and gone on: same bits, same records (%s)", arm);
    return verdict(text, good);
}

/* ------------------------------------------------------------------ what ends the program */

static void run_until(void *user, gradreg_context *context)
{
    run_go(user, context);
}

static void read_options(void *user, gradreg_context *context)
{
    char **arguments = user;
    int count = 0;
    (void)context;
    while (arguments[count] != NULL)
        count++;
    options_read(count, arguments);
}

/* Does this end the program with exit status 1 and a message that has `word` in it? */
static bool ends(void (*function)(void *, gradreg_context *), void *user,
                 gradreg_context *context, const char *word)
{
    int status = 0;
    char message[4096] = "";
    fflush(stdout);
    const pid_t child = fork();
    if (child == 0) {
        if (freopen(in_folder("stderr"), "w", stderr) == NULL)
            _exit(9);
        function(user, context);
        _exit(0);
    }
    if (child < 0 || waitpid(child, &status, 0) != child)
        return false;
    FILE *file = fopen(in_folder("stderr"), "r");
    if (file == NULL)
        return false;
    message[fread(message, 1, sizeof(message) - 1, file)] = '\0';
    fclose(file);
    const bool good =
        WIFEXITED(status) && WEXITSTATUS(status) == 1 && strstr(message, word) != NULL;
    if (!good)
        printf("  status %d, \"%s\" not in: %s\n", status, word, message);
    return good;
}

static bool check_full_disk(gradreg_context *context, const char *base)
{
    static volatile sig_atomic_t no = 0;
    struct run run = small_run(base, "grpo", 2, &no);
    if (access("/dev/full", W_OK) != 0)
        return verdict("no /dev/full here: full disks are not tried", true);
    bool good = symlink("/dev/full", in_folder("grpo-2.jsonl")) == 0;
    good &= ends(run_until, &run, context, "No space left");
    unlink(in_folder("grpo-2.jsonl"));
    good &= symlink("/dev/full", in_folder("grpo-2.ckpt.new")) == 0;
    good &= ends(run_until, &run, context, "What was saved before");
    good &= access(in_folder("grpo-2.ckpt"), F_OK) != 0;
    unlink(in_folder("grpo-2.ckpt.new"));
    return verdict("a full disk is said so, for records and for checkpoints", good);
}

static void change_byte(const char *name, long place, long keep)
{
    FILE *file = fopen(in_folder(name), "r+b");
    if (file == NULL || fseek(file, place, SEEK_SET) != 0)
        fail("selftest: cannot change %s", name);
    const int byte = getc(file);
    fseek(file, place, SEEK_SET);
    putc(byte ^ 1, file);
    fclose(file);
    if (keep > 0 && truncate(in_folder(name), keep) != 0)
        fail("selftest: cannot cut %s", name);
}

static bool check_damage(gradreg_context *context, const char *base)
{
    static volatile sig_atomic_t no = 0;
    struct run run = small_run(base, "grpo", 3, &no);
    bool good = run_go(&run, context) == RUN_FINISHED;
    struct run other = run;
    other.settings.rate *= 2.0;
    good &= ends(run_until, &other, context, "other options");
    change_byte("grpo-3.ckpt", 5000, 0);
    good &= ends(run_until, &run, context, "checksum");
    change_byte("grpo-3.ckpt", 5000, 4000);
    good &= ends(run_until, &run, context, "damaged");
    change_byte("grpo-3.ckpt", 0, 0);
    good &= ends(run_until, &run, context, "not a checkpoint");
    run.base = in_folder("nowhere.ckpt");
    good &= ends(run_until, &run, context, "no such file");
    return verdict("damaged, foreign and missing checkpoints are refused", good);
}

static bool check_options(gradreg_context *context)
{
    static char *bad[][6] = {
        { "study", "fly", NULL },
        { "study", "run", "--arm", "grp", NULL },
        { "study", "run", "--steps", "many", NULL },
        { "study", "run", "--steps", "0", NULL },
        { "study", "run", "--lambda", "-1", NULL },
        { "study", "run", "--epsilon", "nan", NULL },
        { "study", "learn", "--heads", "3", NULL },
        { "study", "run", "--arm", "grpo", NULL },
        { "study", "learn", "--base", NULL },
        { "study", "learn", "--speed", "1", NULL },
    };
    static const char *const words[] = { "no such command", "no arm",  "a number",
                                         "at least 1",      "above 0", "number",
                                         "kv-heads",        "--base",  "a value",
                                         "no such option" };
    bool good = true;
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
        good &= ends(read_options, bad[i], context, words[i]);
    return verdict("options that make no sense are refused with a sentence", good);
}

/* ------------------------------------------------------------------ all */

static void remove_folder(void)
{
    char command[300];
    snprintf(command, sizeof(command), "rm -rf '%s'", folder);
    if (system(command) != 0)
        printf("  could not remove %s\n", folder);
}

static bool check_network(gradreg_context *context)
{
    struct rig rig;
    rig_open(&rig, context);
    printf("selftest: %d layers, %zu parameters\n", (int)tiny.layers,
           rig.model->parameter_count);
    bool good = check_gradient(&rig);
    good &= check_truncated(&rig);
    good &= check_decoder(&rig);
    rig_close(&rig);
    return good;
}

static bool check_runs(gradreg_context *context, const char *path)
{
    struct model *base = checkpoint_model(path, false);
    bool good = check_going_on(context, base, path, "depth-noise");
    if (!small())
        good &= check_going_on(context, base, path, "depth-interval");
    good &= check_full_disk(context, path);
    good &= check_damage(context, path);
    model_free(base);
    return good;
}

bool selftest(gradreg_context *context, const char *base)
{
    if (mkdtemp(folder) == NULL)
        fail("selftest: cannot make a folder in /tmp");
    bool good = check_network(context);
    good &= check_problems();
    good &= check_options(context);
    good &= check_runs(context, base);
    remove_folder();
    puts(good ? "selftest passed" : "selftest FAILED");
    return good;
}
