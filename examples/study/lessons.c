/* lessons.c - cross entropy of right answers: the log-probs and their way back are the library's. */
#include "lessons.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "adamw.h"
#include "pass.h"
#include "problems.h"
#include "support.h"

static const size_t WARMUP = 50;

struct lesson_batch {
    int32_t *tokens,
        *targets; /* [problems x SEQUENCE], [problems x positions]; -1: not taught */
    float *logp, *log_sum_exp, *d_logp;
    size_t taught;
};

static void draw(struct lesson_batch *batch, const struct lessons *lessons, size_t positions,
                 size_t step)
{
    struct random random = random_for(lessons->seed, FOR_LESSONS, step, 0);
    batch->taught = 0;
    for (size_t p = 0; p < lessons->problems; p++) {
        const struct problem problem = problem_lesson(&random);
        int32_t *tokens = batch->tokens + p * SEQUENCE,
                *targets = batch->targets + p * positions;
        problem_text(tokens, &problem);
        const size_t begin = problem_prompt_length(problem.kind);
        const size_t end = begin + answer_length(problem.kind, tokens);
        for (size_t t = 0; t < positions; t++) {
            const bool taught = t + 1 >= begin && t + 1 < end;
            targets[t] = taught ? tokens[t + 1] : -1;
            batch->taught += taught;
        }
    }
}

/* Adds the gradient of the mean over all taught tokens; returns these sequences' share of it. */
static double lesson_gradient(struct pass *pass, struct model *model, gradreg_context *context,
                              struct lesson_batch *batch, size_t first, size_t count)
{
    const size_t positions = model->shape.positions, rows = count * positions;
    const int32_t *targets = batch->targets + first * positions;
    gradreg_logits_params params = GRADREG_LOGITS_PARAMS_INIT;
    double loss = 0.0;

    pass_forward(pass, model, batch->tokens + first * SEQUENCE, SEQUENCE, count);
    params.rows = rows;
    params.vocabulary = model->shape.vocabulary;
    must(gradreg_logprobs_forward(context, batch->logp, NULL, batch->log_sum_exp, pass->logits,
                                  targets, &params));
    for (size_t r = 0; r < rows; r++) {
        batch->d_logp[r] = targets[r] < 0 ? 0.0F : -1.0F / (float)batch->taught;
        loss -= (double)batch->logp[r] / (double)batch->taught;
    }
    must(gradreg_logprobs_backward(context, pass->logits, pass->logits, targets,
                                   batch->log_sum_exp, NULL, batch->d_logp, NULL, &params));
    pass_backward(pass, model, 0);
    return loss;
}

static double rate_at(const struct lessons *lessons, size_t step)
{
    const double up = fmin(1.0, ((double)step + 1.0) / (double)WARMUP);
    const double through = (double)step / (double)lessons->steps;
    return lessons->rate * up * (0.05 + 0.95 * 0.5 * (1.0 + cos(3.14159265358979 * through)));
}

static void say(size_t step, const struct lessons *lessons, double loss, double seconds)
{
    const double left = seconds / ((double)step + 1.0) * (double)(lessons->end - step - 1);
    fprintf(stderr, "step %zu of %zu, loss %.3f, about %.0f s left\n", step + 1, lessons->end,
            loss, left);
}

double lessons_learn(struct model *model, gradreg_context *context,
                     const struct lessons *lessons)
{
    enum { AT_ONCE = 32 };
    const size_t positions = model->shape.positions;
    struct pass *pass = pass_new(model, AT_ONCE);
    struct adamw *adamw = adamw_new(model, 0.0, 0.01, 1.0);
    struct lesson_batch batch = {
        .tokens = allocate(lessons->problems * SEQUENCE, sizeof(int32_t)),
        .targets = allocate(lessons->problems * positions, sizeof(int32_t)),
        .logp = allocate(AT_ONCE * positions, sizeof(float)),
        .log_sum_exp = allocate(AT_ONCE * positions, sizeof(float)),
        .d_logp = allocate(AT_ONCE * positions, sizeof(float)),
    };
    const struct clock began = clock_now();
    double loss = 0.0;

    for (size_t step = 0; step < lessons->end && !*lessons->stop; step++) {
        draw(&batch, lessons, positions, step);
        memset(model->grads, 0, model->parameter_count * sizeof(float));
        loss = 0.0;
        for (size_t first = 0; first < lessons->problems; first += AT_ONCE) {
            const size_t rest = lessons->problems - first;
            loss += lesson_gradient(pass, model, context, &batch, first,
                                    rest < AT_ONCE ? rest : AT_ONCE);
        }
        adamw->rate = rate_at(lessons, step);
        adamw_step(adamw, model);
        if ((step + 1) % 50 == 0)
            say(step, lessons, loss, clock_now().wall - began.wall);
    }
    free(batch.tokens);
    free(batch.targets);
    free(batch.logp);
    free(batch.log_sum_exp);
    free(batch.d_logp);
    adamw_free(adamw);
    pass_free(pass);
    return loss;
}
