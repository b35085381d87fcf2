/* measure.c - sets of problems, answers, and the library's monitors on them. */
#include "measure.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels.h"
#include "pass.h"
#include "problems.h"
#include "support.h"

enum { WINDOW = 5, SAMPLES = 8, TRACE_PROMPTS = 32, TRIALS = 30 };

static const double NOISE_SCALE = 0.5;

/* ------------------------------------------------------------------ sets and answers */

struct set {
    const char *name;
    enum problem_kind kind;
    struct problem *problems;
    size_t count;
};

enum { HELD_OUT, TAUGHT, COMPLETIONS, ADDITIONS, SETS };

static struct set set_make(const struct measure *measure, int which, size_t count)
{
    static const char *const names[SETS] = { "split", "split-taught", "complete", "add" };
    static const enum problem_kind kinds[SETS] = { SPLIT, SPLIT, COMPLETE, ADD };
    struct set set = { names[which], kinds[which], allocate(count, sizeof(struct problem)),
                       count };
    problem_set(set.problems, count, set.kind, which == TAUGHT, measure->seed);
    return set;
}

/* Answers to problems[first ..] that fit the decoder; returns how many. */
static size_t answer_some(const struct measure *measure, int32_t *tokens, const struct set *set,
                          size_t first, const struct sampling *sampling)
{
    const size_t rest = set->count - first, most = measure->decoder->most_rows;
    const size_t count = rest < most ? rest : most;
    for (size_t i = 0; i < count; i++)
        problem_text(tokens + i * SEQUENCE, &set->problems[first + i]);
    decoder_answer(measure->decoder, tokens, count, set->kind, sampling);
    return count;
}

/* One answer to every problem of the set. */
static int32_t *answer_set(const struct measure *measure, const struct set *set,
                           double temperature, uint64_t draw)
{
    int32_t *tokens = allocate(set->count * SEQUENCE, sizeof(int32_t));
    for (size_t first = 0; first < set->count;) {
        const struct sampling sampling = { temperature, measure->seed,
                                           ((draw + 1) << 32) + first };
        first += answer_some(measure, tokens + first * SEQUENCE, set, first, &sampling);
    }
    return tokens;
}

static double share_solved(const struct set *set, const int32_t *tokens)
{
    size_t solved = 0;
    for (size_t i = 0; i < set->count; i++)
        solved += problem_solved(&set->problems[i], tokens + i * SEQUENCE);
    return (double)solved / (double)set->count;
}

static double accuracy(const struct measure *measure, const struct set *set, double temperature,
                       size_t samples)
{
    double sum = 0.0;
    for (size_t draw = 0; draw < samples; draw++) {
        int32_t *tokens = answer_set(measure, set, temperature, draw);
        sum += share_solved(set, tokens);
        free(tokens);
    }
    return sum / (double)samples;
}

void measure_accuracy(struct measure *measure, size_t problems, size_t samples)
{
    for (int which = 0; which < SETS; which++) {
        struct set set = set_make(measure, which, problems);
        record_begin(measure->records, "accuracy");
        record_number(measure->records, "step", (double)measure->step);
        record_text(measure->records, "set", set.name);
        record_number(measure->records, "problems", (double)set.count);
        record_number(measure->records, "greedy", accuracy(measure, &set, 0.0, 1));
        record_number(measure->records, "sampled", accuracy(measure, &set, 1.0, samples));
        record_end(measure->records);
        free(set.problems);
    }
}

/* ------------------------------------------------------------------ entropy along the answer */

/* One answer a problem; sums over answers, a place at a time. */
struct along {
    double sums[ANSWER], smooth_sums[ANSWER];
    size_t counts[ANSWER];
};

static void add_answer(struct along *along, const float *entropy, size_t length)
{
    double smooth[ANSWER];
    must(gradreg_moving_average(smooth, entropy, length, WINDOW));
    for (size_t t = 0; t < length; t++) {
        along->sums[t] += (double)entropy[t];
        along->smooth_sums[t] += smooth[t];
        along->counts[t]++;
    }
}

static void add_sequences(struct along *along, const struct measure *measure, struct pass *pass,
                          const struct model *model, const int32_t *tokens, size_t count)
{
    const size_t positions = model->shape.positions, begin = problem_prompt_length(SPLIT);
    gradreg_logits_params params = GRADREG_LOGITS_PARAMS_INIT;
    float *logp = allocate(count * positions, sizeof(float));
    float *entropy = allocate(count * positions, sizeof(float));
    int32_t *targets = allocate(count * positions, sizeof(int32_t));

    pass_forward(pass, model, tokens, SEQUENCE, count);
    for (size_t i = 0; i < count; i++)
        for (size_t t = 0; t < positions; t++)
            targets[i * positions + t] = tokens[i * SEQUENCE + t + 1];
    params.rows = count * positions;
    params.vocabulary = model->shape.vocabulary;
    must(gradreg_logprobs_forward(measure->context, logp, entropy, NULL, pass->logits, targets,
                                  &params));
    for (size_t i = 0; i < count; i++)
        add_answer(along, entropy + i * positions + begin - 1,
                   answer_length(SPLIT, tokens + i * SEQUENCE));
    free(logp);
    free(entropy);
    free(targets);
}

static void measure_entropy(const struct measure *measure, const struct model *model,
                            const struct set *set)
{
    enum { AT_ONCE = 32 };
    struct along along = { { 0.0 }, { 0.0 }, { 0 } };
    double mean[ANSWER], smooth[ANSWER];
    struct pass *pass = pass_new(model, AT_ONCE);
    int32_t *tokens = answer_set(measure, set, 1.0, 0);
    for (size_t first = 0; first < set->count; first += AT_ONCE) {
        const size_t rest = set->count - first;
        add_sequences(&along, measure, pass, model, tokens + first * SEQUENCE,
                      rest < AT_ONCE ? rest : AT_ONCE);
    }
    for (size_t t = 0; t < ANSWER; t++) {
        mean[t] = along.sums[t] / (double)along.counts[t];
        smooth[t] = along.smooth_sums[t] / (double)along.counts[t];
    }
    record_begin(measure->records, "entropy");
    record_numbers(measure->records, "mean", mean, ANSWER);
    record_numbers(measure->records, "smooth", smooth, ANSWER);
    record_end(measure->records);
    free(tokens);
    pass_free(pass);
}

/* ------------------------------------------------------------------ diversity */

/* The SAMPLES answers to each problem, one behind the other. */
static int32_t *sample_set(const struct measure *measure, const struct set *set)
{
    int32_t *all = allocate(set->count * SAMPLES * SEQUENCE, sizeof(int32_t));
    for (size_t s = 0; s < SAMPLES; s++) {
        int32_t *tokens = answer_set(measure, set, 1.0, s);
        for (size_t i = 0; i < set->count; i++)
            memcpy(all + (i * SAMPLES + s) * SEQUENCE, tokens + i * SEQUENCE,
                   SEQUENCE * sizeof(int32_t));
        free(tokens);
    }
    return all;
}

/* Distinct n-grams of all answers to a problem together: 8 times the same answer has few. */
static double distinct(const struct set *set, const int32_t *samples, int32_t order)
{
    const size_t begin = problem_prompt_length(SPLIT);
    double sum = 0.0;
    for (size_t i = 0; i < set->count; i++) {
        int32_t text[SAMPLES * ANSWER];
        double ratio;
        size_t length = 0;
        for (size_t s = 0; s < SAMPLES; s++) {
            const int32_t *tokens = samples + (i * SAMPLES + s) * SEQUENCE;
            const size_t count = answer_length(SPLIT, tokens);
            memcpy(text + length, tokens + begin, count * sizeof(int32_t));
            length += count;
        }
        must(gradreg_distinct_ngrams(&ratio, text, length, order));
        sum += ratio;
    }
    return sum / (double)set->count;
}

static double distinct_answers(const struct set *set, const int32_t *samples)
{
    size_t different = 0;
    for (size_t i = 0; i < set->count; i++)
        for (size_t s = 0; s < SAMPLES; s++) {
            const int32_t *mine = samples + (i * SAMPLES + s) * SEQUENCE;
            bool seen = false;
            for (size_t other = 0; other < s && !seen; other++)
                seen = memcmp(mine, samples + (i * SAMPLES + other) * SEQUENCE,
                              SEQUENCE * sizeof(int32_t)) == 0;
            different += !seen;
        }
    return (double)different / (double)(set->count * SAMPLES);
}

static void record_ease(const struct measure *measure, const struct set *set,
                        const int32_t *samples)
{
    double right = 0.0, with_zero = 0.0, carries = 0.0;
    for (size_t i = 0; i < set->count * SAMPLES; i++) {
        const int32_t *tokens = samples + i * SEQUENCE;
        if (!problem_solved(&set->problems[i / SAMPLES], tokens))
            continue;
        const struct ease ease = answer_ease(tokens);
        right += 1.0;
        with_zero += ease.zero_terms > 0;
        carries += ease.carries;
    }
    record_number(measure->records, "zero_terms", with_zero / right);
    record_number(measure->records, "carries", carries / right);
}

static void measure_diversity(const struct measure *measure, const struct set *set)
{
    int32_t *samples = sample_set(measure, set);
    record_begin(measure->records, "diversity");
    record_number(measure->records, "bigrams", distinct(set, samples, 2));
    record_number(measure->records, "trigrams", distinct(set, samples, 3));
    record_number(measure->records, "answers", distinct_answers(set, samples));
    record_ease(measure, set, samples);
    record_end(measure->records);
    free(samples);
}

/* ------------------------------------------------------------------ causal trace */

/* The prompt in every row; returns with the last token before the first block. */
static void read_prompt(struct decoder *decoder, const int32_t *tokens, size_t length)
{
    int32_t column[TRIALS];
    decoder_start(decoder, TRIALS);
    for (size_t place = 0; place < length; place++) {
        for (size_t r = 0; r < TRIALS; r++)
            column[r] = tokens[place];
        if (place + 1 < length)
            decoder_step(decoder, column, 1);
        else
            decoder_embed(decoder, column, 1);
    }
}

/* [trace] */
/* Noise in what leaves one layer at the last token of the prompt, for each layer and TRIALS times; the
 * rows of the decoder are trials. How likely is the right next token then? */
static void trace_prompt(gradreg_probe *probe, struct decoder *decoder, const int32_t *tokens,
                         size_t length)
{
    const struct shape *shape = &decoder->model->shape;
    const int32_t layers = (int32_t)shape->layers, target = tokens[length];
    const size_t stream = TRIALS * shape->width * sizeof(float);
    float *clean = allocate(shape->layers, stream);

    read_prompt(decoder, tokens, length);
    for (int32_t l = 0; l < layers; l++) {
        decoder_block(decoder, (size_t)l);
        memcpy(clean + (size_t)l * TRIALS * shape->width, decoder->stream, stream);
    }
    decoder_finish(decoder);
    must(gradreg_probe_observe(probe, decoder->logits, GRADREG_TYPE_F32, 1, VOCABULARY, 0,
                               target, GRADREG_LAYER_NONE, 0));
    for (int32_t l = 0; l < layers; l++) {
        memcpy(decoder->stream, clean + (size_t)l * TRIALS * shape->width, stream);
        must(gradreg_probe_inject(probe, decoder->stream, GRADREG_TYPE_F32, TRIALS,
                                  shape->width, 0, l, 0));
        for (int32_t above = l + 1; above < layers; above++)
            decoder_block(decoder, (size_t)above);
        decoder_finish(decoder);
        must(gradreg_probe_observe(probe, decoder->logits, GRADREG_TYPE_F32, TRIALS, VOCABULARY,
                                   0, target, l, 0));
    }
    free(clean);
}
/* [end] */

struct trace {
    double *mean, *std, *min, *max, baseline; /* [layers], means over prompts */
};

static void add_trace(struct trace *trace, gradreg_probe *probe, size_t layers)
{
    struct gradreg_probe_layer *rows = allocate(layers, sizeof(*rows));
    for (size_t l = 0; l < layers; l++)
        rows[l] = (gradreg_probe_layer)GRADREG_PROBE_LAYER_INIT;
    must(gradreg_probe_summary(probe, rows, layers));
    for (size_t l = 0; l < layers; l++) {
        trace->mean[l] += rows[l].mean / TRACE_PROMPTS;
        trace->std[l] += rows[l].std / TRACE_PROMPTS;
        trace->min[l] += rows[l].min / TRACE_PROMPTS;
        trace->max[l] += rows[l].max / TRACE_PROMPTS;
    }
    trace->baseline += rows[0].baseline / TRACE_PROMPTS;
    free(rows);
}

/* COMPLETE: its next digit is determined by the prompt. */
static void measure_trace(const struct measure *measure)
{
    const size_t layers = measure->decoder->model->shape.layers;
    struct set set = set_make(measure, COMPLETIONS, TRACE_PROMPTS);
    double *numbers = allocate(4 * layers, sizeof(double));
    struct trace trace = { numbers, numbers + layers, numbers + 2 * layers,
                           numbers + 3 * layers, 0.0 };
    gradreg_probe_params params = GRADREG_PROBE_PARAMS_INIT;
    gradreg_probe *probe = NULL;

    params.layer_count = (int32_t)layers;
    params.trials = TRIALS;
    params.noise_scale = NOISE_SCALE;
    params.seed = measure->seed;
    must(gradreg_probe_create(&probe, measure->context, &params));
    for (size_t p = 0; p < TRACE_PROMPTS; p++) {
        int32_t tokens[SEQUENCE];
        problem_text(tokens, &set.problems[p]);
        must(gradreg_probe_reset(probe));
        trace_prompt(probe, measure->decoder, tokens, problem_prompt_length(COMPLETE));
        add_trace(&trace, probe, layers);
    }
    must(gradreg_probe_destroy(probe));
    record_begin(measure->records, "trace");
    record_number(measure->records, "prompts", TRACE_PROMPTS);
    record_number(measure->records, "trials", TRIALS);
    record_number(measure->records, "baseline", trace.baseline);
    record_numbers(measure->records, "mean", trace.mean, layers);
    record_numbers(measure->records, "std", trace.std, layers);
    record_numbers(measure->records, "min", trace.min, layers);
    record_numbers(measure->records, "max", trace.max, layers);
    record_end(measure->records);
    free(numbers);
    free(set.problems);
}

/* ------------------------------------------------------------------ distance from the base */

/* ||after - before|| / ||before|| of the tensor `suffix` of every layer. */
static void measure_deltas(const struct measure *measure, const struct model *model,
                           const struct model *base)
{
    static const char *const suffixes[] = { "q_proj",    "k_proj",  "v_proj",   "o_proj",
                                            "gate_proj", "up_proj", "down_proj" };
    const size_t layers = model->shape.layers;
    double *norms = allocate(model->tensor_count, sizeof(double));
    double *row = allocate(layers, sizeof(double));
    must(gradreg_weight_delta(measure->context, norms, base->params, model->params,
                              GRADREG_TYPE_F32, model->segments, model->tensor_count));
    for (size_t s = 0; s < sizeof(suffixes) / sizeof(*suffixes); s++) {
        for (size_t t = 0; t < model->tensor_count; t++)
            if (strstr(model->tensors[t].name, suffixes[s]) != NULL)
                row[model->segments[t].layer] = norms[t];
        record_begin(measure->records, "delta");
        record_text(measure->records, "projection", suffixes[s]);
        record_numbers(measure->records, "norms", row, layers);
        record_end(measure->records);
    }
    free(norms);
    free(row);
}

/* Jensen-Shannon divergence between the attention of the two models, mean over heads and tokens. */
static void measure_attention(const struct measure *measure, const struct model *model,
                              const struct model *base)
{
    enum { TEXTS = 32 };
    const struct shape *shape = &model->shape;
    const size_t rows = TEXTS * shape->heads * shape->positions;
    struct pass *mine = pass_new(model, TEXTS), *theirs = pass_new(base, TEXTS);
    struct set set = set_make(measure, COMPLETIONS, TEXTS);
    int32_t *tokens = allocate(TEXTS * SEQUENCE, sizeof(int32_t));
    float *divergence = allocate(rows, sizeof(float));
    double *means = allocate(shape->layers, sizeof(double));

    for (size_t i = 0; i < TEXTS; i++)
        problem_text(tokens + i * SEQUENCE, &set.problems[i]);
    pass_forward(mine, model, tokens, SEQUENCE, TEXTS);
    pass_forward(theirs, base, tokens, SEQUENCE, TEXTS);
    for (size_t l = 0; l < shape->layers; l++) {
        must(gradreg_js_divergence(measure->context, divergence, mine->states[l].shares,
                                   theirs->states[l].shares, rows, shape->positions));
        for (size_t r = 0; r < rows; r++)
            means[l] += (double)divergence[r] / (double)rows;
    }
    record_begin(measure->records, "attention");
    record_numbers(measure->records, "divergence", means, shape->layers);
    record_end(measure->records);
    free(means);
    free(divergence);
    free(tokens);
    free(set.problems);
    pass_free(mine);
    pass_free(theirs);
}

void measure_all(struct measure *measure, const struct model *model, const struct model *base,
                 size_t problems)
{
    struct set set = set_make(measure, HELD_OUT, problems);
    measure_accuracy(measure, problems, SAMPLES);
    measure_entropy(measure, model, &set);
    measure_diversity(measure, &set);
    measure_trace(measure);
    measure_deltas(measure, model, base);
    measure_attention(measure, model, base);
    free(set.problems);
}
