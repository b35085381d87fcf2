/* rank_play.c - a plan carried out, on this process or on many; see rank_plan.h. */
#define _DEFAULT_SOURCE /* barriers */
#include "rank_plan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* This rank's part of a buffer, to where it is in the whole table. */
static void keep(const rig *r, struct result *out, int rank, int step, enum snapshot which,
                 enum rig_buffer buffer)
{
    const size_t size = type_bytes(rig_type(r, buffer, 0));
    char *to = out->snapshot[step][which];
    uint64_t *replicas = &out->replicas[rank][step][which];

    *replicas = DIGEST_START;
    for (size_t s = 0; s < SEGMENTS; s++) {
        uint64_t begin;
        const size_t n = rig_part(r, s, &begin);
        for (size_t i = 0; (s == 2 || s == 5) && i < n; i++)
            *replicas =
                digest(*replicas, typed_bits(r->piece[buffer][s], rig_type(r, buffer, s), i));
        if (n > 0)
            memcpy(to + begin * size, r->piece[buffer][s], n * size);
        to += r->segments[s].count * size;
    }
    ck_assert_int_le(to - out->snapshot[step][which], MOST_BYTES);
}

/* ---- one rank's steps ------------------------------------------------------------- */

struct player {
    const struct plan *plan;
    struct result *out;
    rig *r;
    int rank, step;
    char *clean;
    void **grads; /* as passed: NULL where absent */
};

/* Sums of squares of few even blocks would be exact in double, in any order. */
static void make_uneven(rig *r, enum rig_buffer buffer)
{
    for (size_t s = 0; s < SEGMENTS; s++) {
        uint64_t begin;
        const gradreg_type type = rig_type(r, buffer, s);
        const size_t n = rig_part(r, s, &begin);
        for (size_t i = 0; i < n && type != GRADREG_TYPE_F16; i++) {
            const double x = typed_get(r->piece[buffer][s], type, i);
            const int down = 13 * (int)((begin + i) / BLOCK % 3);
            typed_set(r->piece[buffer][s], type, i, ldexp(x, -down));
        }
    }
}

static void make_gradient(struct player *p, int pass)
{
    const struct plan *plan = p->plan;
    const uint64_t seed = (uint64_t)(10 * p->step + pass);
    const enum rig_buffer to = pass == 0 ? rig_first(p->r) : RIG_GRADS;
    uint64_t begin;

    if (plan->fixed_gradients)
        rig_numbers(p->r, to, 100 + seed, -1);
    else
        rig_gradient(p->r, seed, pass == 0);
    if (plan->uneven)
        make_uneven(p->r, to);
    if (plan->bad_step != p->step || plan->bad_pass != pass)
        return;
    const size_t s = plan->bad_segment, n = rig_part(p->r, s, &begin);
    if (plan->bad_element >= begin && plan->bad_element < begin + n)
        typed_set(p->r->piece[to][s], rig_type(p->r, to, s),
                  (size_t)(plan->bad_element - begin), -INFINITY);
}

enum call { INJECT, PERTURB, MIRROR, COMBINE, FALLBACK };

static gradreg_status make_call(struct player *p, enum call which)
{
    gradreg_regularizer *reg = p->r->reg;
    gradreg_buffers *b = &p->r->buffers;

    switch (which) {
    case INJECT: return gradreg_regularizer_inject_noise(reg, b);
    case PERTURB: return gradreg_regularizer_perturb(reg, b);
    case MIRROR: return gradreg_regularizer_mirror(reg, b);
    case COMBINE: return gradreg_regularizer_combine(reg, b);
    default: return gradreg_regularizer_fallback(reg, b);
    }
}

static void assert_nan_terms(struct player *p)
{
    double *rows = rig_rows(p->r);

    for (int l = 0; l <= LAYERS; l++)
        for (int k = 0; k < GRADREG_TERMS_COLUMNS - 5; k++)
            ck_assert(isnan(rows[l * GRADREG_TERMS_COLUMNS + k]));
    free(rows);
}

/* The callback has failed: nothing is written, or the step is complete. */
static void check_failed_call(struct player *p, enum call which, const char *theta,
                              const char *grads)
{
    const bool complete = strstr(gradreg_last_error(), "complete") != NULL;

    ck_assert_ptr_nonnull(strstr(gradreg_last_error(), "all_reduce"));
    ck_assert_ptr_nonnull(strstr(gradreg_last_error(), " 7 "));
    if (complete) {
        ck_assert(which == COMBINE || which == FALLBACK);
        rig_assert(p->r, RIG_PARAMS, p->clean, "theta after a complete step");
        assert_nan_terms(p);
        p->out->completed[p->rank][p->step] = 1;
        return;
    }
    rig_assert(p->r, rig_moved(p->r), theta, "theta' after a failed call");
    rig_assert(p->r, RIG_GRADS, grads, "grads after a failed call");
    p->out->repeats[p->rank]++;
}

/* 1: the call was made; 0: it failed, and the step was cancelled. */
static int call(struct player *p, enum call which)
{
    char *theta = rig_gather(p->r, rig_moved(p->r)), *grads = rig_gather(p->r, RIG_GRADS);
    const gradreg_status status = make_call(p, which);
    int made = 1;

    if (status == GRADREG_ERROR_COMMUNICATION) {
        check_failed_call(p, which, theta, grads);
        if (!p->out->completed[p->rank][p->step] && p->plan->after_failure == RETRY) {
            assert_ok(make_call(p, which));
        } else if (!p->out->completed[p->rank][p->step]) {
            assert_ok(gradreg_regularizer_cancel(p->r->reg, &p->r->buffers));
            rig_assert(p->r, RIG_PARAMS, p->clean, "theta after cancel");
            made = 0;
        }
    } else if (status != GRADREG_OK) {
        ck_abort_msg("%s", gradreg_last_error());
    }
    free(theta);
    free(grads);
    return made;
}

/* Up to where the last pass's gradient is. */
static int play_passes(struct player *p)
{
    if (p->plan->params.noise.rule > GRADREG_NOISE_OFF) {
        if (!call(p, INJECT))
            return 0;
        keep(p->r, p->out, p->rank, p->step, INJECTED, rig_moved(p->r));
    }
    make_gradient(p, 0);
    const int32_t passes = rig_passes(p->r);
    for (int32_t pass = 0; pass < passes; pass++) {
        if (!call(p, pass == 0 ? PERTURB : MIRROR))
            return 0;
        keep(p->r, p->out, p->rank, p->step, pass == 0 ? PERTURBED : MIRRORED, rig_moved(p->r));
        make_gradient(p, 1 + pass);
    }
    return call(p, p->step == p->plan->fallback_step ? FALLBACK : COMBINE);
}

static void play_step(struct player *p)
{
    p->r->buffers.found_inf = &p->out->found_inf[p->rank][p->step];
    while (!play_passes(p)) {
    }
    keep(p->r, p->out, p->rank, p->step, UPDATED, RIG_GRADS);
    keep(p->r, p->out, p->rank, p->step, RESTORED, RIG_PARAMS);
    rig_assert(p->r, RIG_PARAMS, p->clean, "theta after the step");
    double *rows = rig_rows(p->r);
    memcpy(p->out->rows[p->rank][p->step], rows, rig_rows_bytes(p->r));
    free(rows);
}

static void play(const struct plan *plan, struct result *out, rig *r, int rank)
{
    struct player p = { plan, out, r, rank, 0, NULL, calloc(SEGMENTS, sizeof(void *)) };

    ck_assert_ptr_nonnull(p.grads);
    for (size_t s = 0; s < SEGMENTS; s++)
        p.grads[s] = plan->absent != NULL && plan->absent[s] ? NULL : r->piece[RIG_GRADS][s];
    if (r->setup.scattered)
        r->buffers.grad_pointers = p.grads;
    rig_numbers(r, RIG_PARAMS, 5, -4);
    p.clean = rig_gather(r, RIG_PARAMS);
    for (p.step = 0; p.step < STEPS; p.step++)
        play_step(&p);
    free(p.clean);
    free(p.grads);
    rig_close(r);
}

/* ---- many ranks, and one ---------------------------------------------------------- */

static bool is_replica(const struct plan *plan, int s)
{
    return plan->replicas && (s == 2 || s == 5);
}

static void cut_shards(const struct plan *plan, gradreg_segment *table, int rank)
{
    for (int s = 0; s < SEGMENTS; s++) {
        const uint64_t offset = table[s].offset, end = offset + table[s].count;
        const uint64_t from = plan->border[rank] > offset ? plan->border[rank] : offset;
        const uint64_t to = plan->border[rank + 1] < end ? plan->border[rank + 1] : end;
        if (is_replica(plan, s)) {
            table[s].flags = rank > 0 ? GRADREG_SEGMENT_REPLICA : 0;
            continue;
        }
        table[s].shard_begin = from < to ? from - offset : table[s].count;
        table[s].shard_count = from < to ? to - from : 0;
    }
}

static void play_rank(world *w, int rank, void *user)
{
    const struct plan *plan = user;
    gradreg_regularizer_params p = plan->params;
    gradreg_segment table[SEGMENTS];
    rig_setup setup = { .scattered = plan->layout == SHARDS,
                        .misalignment = (size_t)rank,
                        .sliced = true };

    memcpy(table, plan->table, sizeof(table));
    p.rank = rank;
    p.world = plan->world;
    p.all_reduce = world_reduce(w, rank);
    setup.begin = plan->border[rank];
    setup.count = (size_t)(plan->border[rank + 1] - plan->border[rank]);
    if (plan->layout == DECLARED) {
        p.slice_begin = setup.begin;
        p.slice_count = setup.count;
        p.parameter_count = table_end(table);
    }
    if (plan->layout == SHARDS)
        cut_shards(plan, table, rank);
    play(plan, (struct result *)(void *)w->shared, rig_open(table, SEGMENTS, &p, &setup), rank);
}

void run_ranks(world *w, struct plan *plan, int fail_at)
{
    memset(w->shared, 0, w->shared_bytes);
    world_run(w, plan->world, fail_at, play_rank, plan);
    for (int rank = 1; rank < plan->world; rank++)
        ck_assert_int_eq(w->calls[rank], w->calls[0]);
}

void run_alone(const struct plan *plan, struct result *out)
{
    const rig_setup setup = { .scattered = plan->layout == SHARDS };
    play(plan, out, rig_open(plan->table, SEGMENTS, &plan->params, &setup), 0);
}

const struct result *run_cut(world *w, struct plan *plan, int k, uint64_t *state)
{
    const struct result *got = (const void *)w->shared;

    plan->world = worlds[k / LAYOUTS];
    plan->layout = (enum layout)(k % LAYOUTS);
    if (state != NULL)
        random_borders(plan, state);
    else
        exact_borders(plan);
    run_ranks(w, plan, 0);
    assert_ranks_agree(plan, got);
    return got;
}
