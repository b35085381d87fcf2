/* regularizer_step.c - the step: validate, decide, dispatch.
 *
 * In: buffers. Out: ops in the order of the data flow. Every entry checks the state, turns the
 * buffers into spans, measures, reduces over ranks, lets the backend decide, and only then lets it
 * write: what fails has written nothing.
 *
 *      idle ──inject──► noisy ──perturb──► perturbed ──mirror──► mirrored
 *       ▲  ──────────perturb────────────►     │                     │
 *       └───────── combine, fallback, cancel ─┴─────────────────────┘ */
#include "regularizer.h"

#include "status.h"
#include "step.h"

static const gradreg_regularizer_params *options_of(const gradreg_regularizer *reg)
{
    return &reg->work.step.options;
}

static gr_decision_input input_of(const gradreg_buffers *b)
{
    gr_decision_input input = { 0 };
    input.grad_scale = b->grad_scale;
    input.found_inf = b->found_inf;
    return input;
}

int32_t gradreg_i_regularizer_extra_passes(const gradreg_regularizer *reg)
{
    const gradreg_regularizer_params *p = options_of(reg);
    if (reg->combine_calls % (uint64_t)p->interval != 0)
        return 0;
    return p->difference == GRADREG_DIFFERENCE_CENTRAL ? 2 : 1;
}

/* Segments whose weights are not where they were. */
static uint32_t displaced(const gradreg_regularizer *reg)
{
    const int stepped = reg->state == GR_STATE_PERTURBED || reg->state == GR_STATE_MIRRORED;
    return (reg->work.noisy ? GR_SEGMENT_NOISY : 0u) | (stepped ? GR_SEGMENT_PERTURBED : 0u);
}

static void come_to_rest(gradreg_regularizer *reg)
{
    reg->state = GR_STATE_IDLE;
    reg->work.noisy = 0;
}

/* Params must equal round(master) before they may be restored from it: on the first step, and
 * whenever the caller asks. Only clean weights can be compared. */
static gradreg_status verify_master(gradreg_regularizer *reg, const gradreg_buffers *b, int row,
                                    int *verified)
{
    *verified = options_of(reg)->restore == GRADREG_RESTORE_MASTER &&
                (!reg->verified_master || b->verify_master);
    return *verified ? reg->ops->verify_master(&reg->work, row) : GRADREG_OK;
}

/* A check that failed is made again on every step, where its outcome can be seen. */
static void note_verified(gradreg_regularizer *reg)
{
    reg->verified_master = !reg->ops->host_reads || !reg->work.step.control->master_bad;
}

/* ---- noise ----------------------------------------------------------------------- */

static gradreg_status inject(gradreg_regularizer *reg, void *task)
{
    gradreg_buffers b;
    gr_decision_input input = { 0 };
    if (options_of(reg)->noise.rule == GRADREG_NOISE_OFF)
        return GR_FAIL(GRADREG_ERROR_UNSUPPORTED,
                       "params.noise.rule is GRADREG_NOISE_OFF, there is no noise to inject");
    GR_TRY(gradreg_i_regularizer_expect(reg, GR_STATE_IDLE, GR_STATE_IDLE));
    GR_TRY(gradreg_i_regularizer_spans(reg, &b, task,
                                       GR_NEED_PARAMS | GR_NEED_MOVED | GR_NEED_MASTER));
    GR_TRY(gradreg_i_regularizer_clear(reg, 0, GR_SUM_INJECT_END));
    GR_TRY(verify_master(reg, &b, GR_SUM_NOISE_MASTER, &input.verified));
    if (options_of(reg)->noise.rule == GRADREG_NOISE_RELATIVE)
        GR_TRY(reg->ops->squares(&reg->work, GR_SOURCE_NOISE_WEIGHTS, GR_SUM_NOISE_WEIGHTS));
    GR_TRY(gradreg_i_regularizer_reduce(reg, 0, GR_SUM_INJECT_END, "(nothing has moved)"));
    GR_TRY(reg->ops->decide(&reg->work, GR_DECIDE_NOISE, &input));
    GR_TRY(reg->ops->inject(&reg->work));
    note_verified(reg);
    reg->state = GR_STATE_NOISY;
    reg->work.noisy = 1;
    return GRADREG_OK;
}

gradreg_status gradreg_regularizer_inject_noise(gradreg_regularizer *reg, gradreg_buffers *b)
{
    GR_ENTER();
    return gradreg_i_regularizer_call(reg, inject, b);
}

/* Theta back, and out of the step. */
static gradreg_status abandon(gradreg_regularizer *reg, const gradreg_buffers *caller)
{
    gradreg_buffers b;
    const gr_decision_input input = { 0 };
    GR_TRY(gradreg_i_regularizer_spans(reg, &b, caller, GR_NEED_PARAMS | GR_NEED_MASTER));
    GR_TRY(reg->ops->restore(&reg->work, displaced(reg)));
    GR_TRY(reg->ops->decide(&reg->work, GR_DECIDE_ABANDON, &input));
    come_to_rest(reg);
    return GRADREG_OK;
}

static gradreg_status remove_noise(gradreg_regularizer *reg, void *task)
{
    GR_TRY(gradreg_i_regularizer_expect(reg, GR_STATE_NOISY, GR_STATE_NOISY));
    return abandon(reg, task);
}

gradreg_status gradreg_regularizer_remove_noise(gradreg_regularizer *reg, gradreg_buffers *b)
{
    GR_ENTER();
    return gradreg_i_regularizer_call(reg, remove_noise, b);
}

static gradreg_status cancel(gradreg_regularizer *reg, void *task)
{
    return reg->state == GR_STATE_IDLE ? GRADREG_OK : abandon(reg, task);
}

gradreg_status gradreg_regularizer_cancel(gradreg_regularizer *reg, gradreg_buffers *b)
{
    GR_ENTER();
    return gradreg_i_regularizer_call(reg, cancel, b);
}

/* ---- perturb --------------------------------------------------------------------- */

static int needs_first(const gradreg_regularizer *reg)
{
    return reg->no_first ? 0 : GR_NEED_FIRST;
}

int gradreg_i_regularizer_needs_at_perturb(const gradreg_regularizer *reg)
{
    const gradreg_regularizer_params *p = options_of(reg);
    const int copies = p->first_gradient == GRADREG_FIRST_GRADIENT_COPIED && !reg->no_first;
    const int zeroes = p->second_gradient == GRADREG_SECOND_GRADIENT_ADDS;
    return GR_NEED_PARAMS | GR_NEED_MOVED | GR_NEED_MASTER | GR_NEED_DIRECTION |
           needs_first(reg) | (copies || zeroes ? GR_NEED_GRADS : GR_SEES_GRADS);
}

/* Ranks that each hold everything, or leave something out, would make every norm wrong. Looked at
 * where it can be read without waiting. */
static gradreg_status check_held(const gradreg_regularizer *reg)
{
    const double *held = gr_sum_row(&reg->work.step, GR_SUM_HELD);
    const int readable = reg->ops->host_reads && options_of(reg)->world > 1;
    for (size_t b = 0; readable && b < reg->table.bin_count; b++)
        GR_REQUIRE(
            held[b] == reg->table.bins[b].elements,
            "buffers: ranks hold %.0f elements of layer %d together, its segments have %.0f: "
            "shards must cover each once, and all_reduce must add (copies are REPLICA; plain "
            "data parallel is world = 1 with averaged gradients)",
            held[b], reg->table.bins[b].layer, reg->table.bins[b].elements);
    return GRADREG_OK;
}

gradreg_status gradreg_i_regularizer_measure(gradreg_regularizer *reg, int with_weights)
{
    const gradreg_regularizer_params *p = options_of(reg);
    gr_work *work = &reg->work;
    const int steps = gradreg_i_regularizer_extra_passes(reg) > 0;
    GR_TRY(reg->ops->count_held(work));
    GR_TRY(reg->ops->squares(work, GR_SOURCE_FIRST, GR_SUM_FIRST));
    if (p->direction != GRADREG_DIRECTION_GRADIENT)
        GR_TRY(reg->ops->squares(work, GR_SOURCE_DIRECTION, GR_SUM_DIRECTION));
    if (with_weights || (steps && p->step == GRADREG_STEP_RELATIVE))
        GR_TRY(reg->ops->squares(work, GR_SOURCE_WEIGHTS, GR_SUM_WEIGHTS));
    GR_TRY(gradreg_i_regularizer_reduce(reg, GR_SUM_MASTER, GR_SUM_FIRST_END,
                                        "(nothing has moved)"));
    return check_held(reg);
}

/* A new step's sums. What inject has measured for it stays. */
static gradreg_status clear_step(gradreg_regularizer *reg)
{
    GR_TRY(gradreg_i_regularizer_clear(reg, GR_SUM_MASTER, GR_SUM_NOISE_APPLIED));
    return reg->work.noisy
               ? GRADREG_OK
               : gradreg_i_regularizer_clear(reg, GR_SUM_NOISE_APPLIED, GR_SUM_ABSENT);
}

/* Which segments have no g1. */
static void note_absent_first(gradreg_regularizer *reg)
{
    for (size_t i = 0; i < reg->table.segment_count; i++) {
        const gr_segment *s = &reg->table.segments[i];
        gr_span *span = &reg->work.spans[i];
        const int expected = s->begin < s->end && (s->flags & GR_SEGMENT_FROZEN) == 0;
        span->absent = expected && !reg->no_first && span->first == NULL ? GR_ABSENT_FIRST : 0;
    }
}

static gradreg_status perturb(gradreg_regularizer *reg, void *task)
{
    gradreg_buffers b;
    GR_TRY(gradreg_i_regularizer_expect(reg, GR_STATE_IDLE, GR_STATE_NOISY));
    if (gradreg_i_regularizer_extra_passes(reg) == 0)
        return GR_FAIL(
            GRADREG_ERROR_STATE,
            "step %llu of interval %d reuses the correction: call combine with g1",
            (unsigned long long)(reg->combine_calls % (uint64_t)options_of(reg)->interval),
            options_of(reg)->interval);
    GR_TRY(gradreg_i_regularizer_spans(reg, &b, task,
                                       gradreg_i_regularizer_needs_at_perturb(reg)));
    GR_REQUIRE(
        !reg->work.noisy || !b.verify_master,
        "buffers.verify_master is 1 with the noise in: only clean weights can be compared, "
        "set it for inject_noise");
    gr_decision_input input = input_of(&b);
    GR_TRY(clear_step(reg));
    if (!reg->work.noisy)
        GR_TRY(verify_master(reg, &b, GR_SUM_MASTER, &input.verified));
    GR_TRY(gradreg_i_regularizer_measure(reg, 0));
    GR_TRY(reg->ops->decide(&reg->work, GR_DECIDE_PERTURB, &input));
    note_absent_first(reg);
    GR_TRY(reg->ops->perturb(&reg->work));
    note_verified(reg);
    reg->losses_expected = 0;
    reg->state = GR_STATE_PERTURBED;
    return GRADREG_OK;
}

gradreg_status gradreg_regularizer_perturb(gradreg_regularizer *reg, gradreg_buffers *b)
{
    GR_ENTER();
    return gradreg_i_regularizer_call(reg, perturb, b);
}

/* ---- the passes after perturb ---------------------------------------------------- */

/* Points `first` at g1 as it is kept since perturb. */
static gradreg_status find_first(gradreg_regularizer *reg)
{
    for (size_t i = 0; i < reg->table.segment_count; i++) {
        const gr_segment *s = &reg->table.segments[i];
        gr_span *span = &reg->work.spans[i];
        if (options_of(reg)->first_gradient == GRADREG_FIRST_GRADIENT_COPIED) {
            span->first = (span->absent & GR_ABSENT_FIRST) != 0 ? NULL : span->first_copy;
            continue;
        }
        if (s->begin == s->end || (s->flags & GR_SEGMENT_FROZEN) != 0 || reg->no_first)
            continue;
        GR_REQUIRE((span->first == NULL) == ((span->absent & GR_ABSENT_FIRST) != 0),
                   "buffers.first_grad_pointers[%zu] is %s, it was %s at perturb", i,
                   span->first == NULL ? "NULL" : "given",
                   span->first == NULL ? "given" : "NULL");
    }
    return GRADREG_OK;
}

static gradreg_status check_central(const gradreg_regularizer *reg)
{
    if (options_of(reg)->difference != GRADREG_DIFFERENCE_CENTRAL)
        return GR_FAIL(GRADREG_ERROR_STATE, "mirror belongs to difference CENTRAL, "
                                            "params.difference is FORWARD");
    return GRADREG_OK;
}

static void note_absent(gradreg_regularizer *reg, uint32_t pass)
{
    for (size_t i = 0; i < reg->table.segment_count; i++) {
        const gr_segment *s = &reg->table.segments[i];
        gr_span *span = &reg->work.spans[i];
        span->absent &= ~pass;
        if (s->begin < s->end && (s->flags & GR_SEGMENT_SEEN) != 0 && span->grads == NULL)
            span->absent |= pass;
    }
}

static gradreg_status mirror(gradreg_regularizer *reg, void *task)
{
    gradreg_buffers b;
    GR_TRY(check_central(reg));
    GR_TRY(gradreg_i_regularizer_expect(reg, GR_STATE_PERTURBED, GR_STATE_PERTURBED));
    GR_TRY(gradreg_i_regularizer_spans(reg, &b, task,
                                       GR_NEED_PARAMS | GR_NEED_MOVED | GR_NEED_MASTER |
                                           GR_NEED_DIRECTION | GR_NEED_GRADS |
                                           needs_first(reg)));
    GR_TRY(find_first(reg));
    GR_TRY(reg->ops->squares(&reg->work, GR_SOURCE_SECOND, GR_SUM_PLUS));
    note_absent(reg, GR_ABSENT_PLUS);
    GR_TRY(reg->ops->mirror(&reg->work));
    reg->state = GR_STATE_MIRRORED;
    return GRADREG_OK;
}

gradreg_status gradreg_regularizer_mirror(gradreg_regularizer *reg, gradreg_buffers *b)
{
    GR_ENTER();
    return gradreg_i_regularizer_call(reg, mirror, b);
}

/* g_hat must have a place wherever there was a gradient. */
static gradreg_status check_places(const gradreg_regularizer *reg)
{
    for (size_t i = 0; i < reg->table.segment_count; i++) {
        const gr_segment *s = &reg->table.segments[i];
        const gr_span *span = &reg->work.spans[i];
        const int had =
            (span->absent & (reg->no_first ? GR_ABSENT_PLUS : GR_ABSENT_FIRST)) == 0;
        GR_REQUIRE(
            s->begin == s->end || (s->flags & GR_SEGMENT_FROZEN) != 0 || span->grads != NULL ||
                !had,
            "buffers.grad_pointers[%zu] is NULL, the segment had a gradient at perturb and "
            "g_hat needs a place",
            i);
    }
    return GRADREG_OK;
}

static int in_place_needs(const gradreg_regularizer *reg)
{
    return options_of(reg)->placement == GRADREG_PLACEMENT_IN_PLACE
               ? GR_NEED_PARAMS | GR_NEED_MASTER
               : 0;
}

/* ---- combine --------------------------------------------------------------------- */

/* Writes, counts the step, reports. Theta is clean afterwards whatever ranks think of the
 * statistics. */
static gradreg_status finish(gradreg_regularizer *reg, int read)
{
    gr_decision_input input = { 0 };
    GR_TRY(reg->ops->combine(&reg->work, read, displaced(reg)));
    come_to_rest(reg);
    reg->combine_calls++;
    const gradreg_status status = gradreg_i_regularizer_reduce(
        reg, GR_SUM_SECOND_END, GR_SUM_COMBINE_END,
        "(the step is complete, theta is restored, only its terms are NaN)");
    GR_TRY(reg->ops->decide(&reg->work, GR_DECIDE_FINISH, &input));
    if (status != GRADREG_OK)
        (void)reg->ops->decide(&reg->work, GR_DECIDE_VOID_TERMS, &input);
    return status;
}

static gradreg_status combine_two(gradreg_regularizer *reg, const gradreg_buffers *caller)
{
    gradreg_buffers b;
    const int central = options_of(reg)->difference == GRADREG_DIFFERENCE_CENTRAL;
    const enum gr_state expected = central ? GR_STATE_MIRRORED : GR_STATE_PERTURBED;
    GR_TRY(gradreg_i_regularizer_expect(reg, expected, expected));
    GR_TRY(gradreg_i_regularizer_spans(reg, &b, caller,
                                       in_place_needs(reg) | GR_NEED_DIRECTION | GR_NEED_GRADS |
                                           needs_first(reg)));
    GR_TRY(find_first(reg));
    GR_TRY(check_places(reg));
    GR_TRY(reg->ops->squares(&reg->work, GR_SOURCE_SECOND, GR_SUM_SECOND));
    GR_TRY(gradreg_i_regularizer_reduce(reg, GR_SUM_FIRST_END, GR_SUM_SECOND_END,
                                        "(nothing has been written, theta stays perturbed)"));
    note_absent(reg, GR_ABSENT_SECOND);
    const gr_decision_input input = input_of(&b);
    GR_TRY(reg->ops->decide(&reg->work, GR_DECIDE_COMBINE, &input));
    reg->losses_expected = 1;
    return finish(reg, central ? GR_READ_CENTRAL : GR_READ_FORWARD);
}

static gradreg_status combine_kept(gradreg_regularizer *reg, const gradreg_buffers *caller)
{
    gradreg_buffers b;
    GR_TRY(gradreg_i_regularizer_expect(reg, GR_STATE_IDLE, GR_STATE_NOISY));
    GR_TRY(gradreg_i_regularizer_spans(reg, &b, caller,
                                       in_place_needs(reg) | GR_NEED_DIRECTION | GR_NEED_GRADS |
                                           needs_first(reg)));
    GR_TRY(clear_step(reg));
    GR_TRY(gradreg_i_regularizer_measure(reg, 0));
    note_absent_first(reg);
    GR_TRY(check_places(reg));
    const gr_decision_input input = input_of(&b);
    GR_TRY(reg->ops->decide(&reg->work, GR_DECIDE_REUSE, &input));
    reg->losses_expected = 0;
    return finish(reg, GR_READ_KEPT);
}

static gradreg_status combine(gradreg_regularizer *reg, void *task)
{
    const int reuses = gradreg_i_regularizer_extra_passes(reg) == 0;
    const gradreg_status status = reuses ? combine_kept(reg, task) : combine_two(reg, task);
    if (status == GRADREG_OK)
        gradreg_i_regularizer_remark(reg);
    return status;
}

gradreg_status gradreg_regularizer_combine(gradreg_regularizer *reg, gradreg_buffers *b)
{
    GR_ENTER();
    return gradreg_i_regularizer_call(reg, combine, b);
}

static gradreg_status fallback(gradreg_regularizer *reg, void *task)
{
    gradreg_buffers b;
    GR_TRY(gradreg_i_regularizer_expect(reg, GR_STATE_PERTURBED, GR_STATE_MIRRORED));
    GR_TRY(gradreg_i_regularizer_spans(reg, &b, task,
                                       in_place_needs(reg) | GR_NEED_GRADS | needs_first(reg)));
    GR_TRY(find_first(reg));
    GR_TRY(check_places(reg));
    GR_TRY(gradreg_i_regularizer_reduce(reg, GR_SUM_FIRST_END, GR_SUM_SECOND_END,
                                        "(nothing has been written, theta stays perturbed)"));
    gr_decision_input input = input_of(&b);
    input.mirrored = reg->state == GR_STATE_MIRRORED;
    GR_TRY(reg->ops->decide(&reg->work, GR_DECIDE_FALLBACK, &input));
    reg->losses_expected = 0;
    return finish(reg, GR_READ_FIRST);
}

gradreg_status gradreg_regularizer_fallback(gradreg_regularizer *reg, gradreg_buffers *b)
{
    GR_ENTER();
    return gradreg_i_regularizer_call(reg, fallback, b);
}
