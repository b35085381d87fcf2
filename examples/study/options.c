/* options.c - a table of options, each with the place where its value goes and what it may be. */
#include "options.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "problems.h"
#include "support.h"

static const char usage[] =
    "usage: study COMMAND [option value]...\n"
    "\n"
    "  learn     a base model by supervised training    --base FILE (is written) --seed\n"
    "            --lesson-steps --lesson-end --lesson-problems --lesson-rate\n"
    "            --layers --width --heads --kv-heads --head-size --hidden\n"
    "  run       one run of reinforcement learning; goes on where it was stopped\n"
    "            --base FILE --folder DIR --arm NAME --seed --steps --prompts --samples\n"
    "            --rate --clip --temperature --lambda --epsilon --noise\n"
    "            --checkpoint-every --measure-every --problems\n"
    "  timing    where a step's time goes, arm by arm    --base FILE --prompts --samples "
    "--steps\n"
    "  selftest  gradients, going on, full disks, damaged files    --base FILE\n"
    "  arms      the names that --arm takes\n";

static void complain(const char *option, const char *expected)
{
    fail("%s: %s\n%s", option, expected, usage);
}

/* ------------------------------------------------------------------ values */

static double number(const char *option, const char *text)
{
    char *end = NULL;
    const double value = strtod(text, &end);
    if (end == text || *end != '\0' || !isfinite(value))
        complain(option, "a number must follow");
    return value;
}

static double positive(const char *option, const char *text)
{
    const double value = number(option, text);
    if (!(value > 0.0 && value <= 1e6))
        complain(option, "must be above 0 and at most a million");
    return value;
}

static uint64_t whole(const char *option, const char *text)
{
    const double value = number(option, text);
    if (value < 0.0 || value > 1e6 || value != floor(value))
        complain(option, "must be a whole number up to a million");
    return (uint64_t)value;
}

static uint64_t count_of(const char *option, const char *text)
{
    const uint64_t value = whole(option, text);
    if (value == 0)
        complain(option, "must be at least 1");
    return value;
}

/* ------------------------------------------------------------------ options */

static bool read_number(struct options *o, const char *option, const char *value)
{
    const struct {
        const char *name;
        double *place;
    } table[] = {
        { "--rate", &o->settings.rate },
        { "--clip", &o->settings.clip },
        { "--temperature", &o->settings.temperature },
        { "--lambda", &o->settings.strength },
        { "--epsilon", &o->settings.epsilon },
        { "--noise", &o->settings.noise_scale },
        { "--lesson-rate", &o->lesson_rate },
    };
    for (size_t i = 0; i < sizeof(table) / sizeof(*table); i++)
        if (strcmp(option, table[i].name) == 0) {
            *table[i].place = positive(option, value);
            return true;
        }
    return false;
}

static bool read_count(struct options *o, const char *option, const char *value)
{
    uint64_t lesson_steps = o->lesson_steps, lesson_problems = o->lesson_problems;
    uint64_t lesson_end = o->lesson_end;
    uint64_t checkpoint = o->checkpoint_every, measure = o->measure_every,
             problems = o->problems;
    const struct {
        const char *name;
        uint64_t *place;
    } table[] = {
        { "--steps", &o->settings.steps },
        { "--prompts", &o->settings.prompts },
        { "--samples", &o->settings.samples },
        { "--layers", &o->shape.layers },
        { "--width", &o->shape.width },
        { "--heads", &o->shape.heads },
        { "--kv-heads", &o->shape.kv_heads },
        { "--head-size", &o->shape.head_size },
        { "--hidden", &o->shape.hidden },
        { "--lesson-steps", &lesson_steps },
        { "--lesson-problems", &lesson_problems },
        { "--lesson-end", &lesson_end },
        { "--checkpoint-every", &checkpoint },
        { "--measure-every", &measure },
        { "--problems", &problems },
    };
    for (size_t i = 0; i < sizeof(table) / sizeof(*table); i++)
        if (strcmp(option, table[i].name) == 0) {
            *table[i].place = count_of(option, value);
            o->lesson_steps = lesson_steps;
            o->lesson_problems = lesson_problems;
            o->lesson_end = lesson_end;
            o->checkpoint_every = checkpoint;
            o->measure_every = measure;
            o->problems = problems;
            return true;
        }
    return false;
}

static bool read_text(struct options *o, const char *option, const char *value)
{
    if (strcmp(option, "--seed") == 0)
        o->settings.seed = whole(option, value);
    else if (strcmp(option, "--base") == 0)
        o->base = value;
    else if (strcmp(option, "--folder") == 0)
        o->folder = value;
    else if (strcmp(option, "--arm") == 0) {
        o->arm = arm_named(value);
        if (o->arm == NULL)
            fail("--arm: there is no arm \"%s\"; `study arms` lists them", value);
    } else
        return false;
    return true;
}

static enum command read_command(const char *word)
{
    static const char *const words[] = { "learn", "run", "timing", "selftest", "arms" };
    for (int i = 0; i < 5; i++)
        if (strcmp(word, words[i]) == 0)
            return (enum command)i;
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
        fputs(usage, stdout);
        exit(EXIT_SUCCESS);
    }
    complain(word, "no such command");
    return LIST_ARMS;
}

static void check(const struct options *o)
{
    const struct settings *s = &o->settings;
    if (shape_complaint(&o->shape) != NULL)
        fail("%s", shape_complaint(&o->shape));
    if (s->prompts * s->samples > 65536)
        fail("--prompts times --samples must be at most 65536");
    if (o->command != LIST_ARMS && o->base == NULL)
        complain("--base", "is needed: a file");
    if (o->command == RUN && (o->folder == NULL || o->arm == NULL))
        complain("run", "needs --folder and --arm");
}

struct options options_read(int count, char **arguments)
{
    struct options options = {
        .settings = settings_default(),
        .shape = { 12, 64, 4, 2, 16, 128, VOCABULARY, SEQUENCE - 1 },
        .lesson_steps = 1600,
        .lesson_end = 900,
        .lesson_problems = 96,
        .lesson_rate = 2e-3,
        .checkpoint_every = 10,
        .measure_every = 10,
        .problems = 256,
        .program = arguments[0],
    };
    if (count < 2)
        fail("a command is needed\n%s", usage);
    options.command = read_command(arguments[1]);
    for (int i = 2; i < count; i += 2) {
        const char *option = arguments[i], *value = arguments[i + 1];
        if (value == NULL)
            complain(option, "a value must follow");
        if (!read_number(&options, option, value) && !read_count(&options, option, value) &&
            !read_text(&options, option, value))
            complain(option, "no such option");
    }
    if (options.lesson_end > options.lesson_steps)
        options.lesson_end = options.lesson_steps;
    check(&options);
    return options;
}
