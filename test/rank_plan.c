/* rank_plan.c - plans and comparisons, see rank_plan.h. */
#define _DEFAULT_SOURCE /* barriers */
#include "rank_plan.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- tables ----------------------------------------------------------------------- */

/* One segment a layer, so that each has sums of its own, or three layers of several. */
static void make_table(gradreg_segment *table, bool one_per_layer)
{
    static const uint64_t counts[SEGMENTS] = {
        3 * BLOCK + 100, BLOCK, 777, 2 * BLOCK, 4999, 33, 0, 1025, 3 * BLOCK
    };
    static const uint32_t roles[SEGMENTS] = { GRADREG_ROLE_ATTENTION, GRADREG_ROLE_ATTENTION,
                                              GRADREG_ROLE_NORM,      GRADREG_ROLE_MLP,
                                              GRADREG_ROLE_ATTENTION, GRADREG_ROLE_NORM,
                                              GRADREG_ROLE_MLP,       GRADREG_ROLE_EMBEDDING,
                                              GRADREG_ROLE_MLP };
    const gradreg_segment empty = GRADREG_SEGMENT_INIT;
    uint64_t at = 0;

    for (int s = 0; s < SEGMENTS; s++) {
        table[s] = empty;
        table[s].count = counts[s];
        table[s].offset = at;
        table[s].role = roles[s];
        table[s].layer = one_per_layer ? s - (s > 6) : s % 3;
        at += counts[s] + (s % 3 == 2 ? 5 : 0);
    }
    table[7].layer = GRADREG_LAYER_NONE;
}

uint64_t table_end(const gradreg_segment *table)
{
    return table[SEGMENTS - 1].offset + table[SEGMENTS - 1].count;
}

/* ---- plans ------------------------------------------------------------------------ */

static const char *const layout_names[] = { "declared slices", "slices", "shards" };

const int worlds[WORLDS] = { 1, 2, 3, 8 };

void common_plan(struct plan *p, bool one_per_layer)
{
    const gradreg_regularizer_params defaults = GRADREG_REGULARIZER_PARAMS_INIT;
    const struct plan empty = { .fallback_step = -1, .bad_step = -1, .world = 1 };

    *p = empty;
    make_table(p->table, one_per_layer);
    p->params = defaults;
    p->params.layer_count = LAYERS;
    p->params.schedule.first_layer = 1;
    p->params.schedule.full_layer = 3;
    p->params.strength = 0.1;
    p->params.epsilon = 0.1;
}

/* What depends on norms in every way there is. */
void set_pair(struct plan *p, int pair)
{
    p->params.param_type = type_pairs[pair].param;
    p->params.grad_type = type_pairs[pair].grad;
}

void norms_plan(struct plan *p, int variant)
{
    p->params.step = variant % 2 == 0 ? GRADREG_STEP_NORMALIZED : GRADREG_STEP_RELATIVE;
    p->params.penalty = variant % 2 == 0 ? GRADREG_PENALTY_NORM : GRADREG_PENALTY_SQUARED_NORM;
    p->params.depth = variant == 2 ? GRADREG_DEPTH_ON_PENALTY : GRADREG_DEPTH_ON_UPDATE;
    p->params.difference =
        variant >= 2 ? GRADREG_DIFFERENCE_CENTRAL : GRADREG_DIFFERENCE_FORWARD;
    p->params.clip_first = p->params.clip_second = 3.0;
    p->params.common_clip = variant == 3;
    p->params.interval = variant == 1 ? 2 : 1;
    p->params.noise.rule = GRADREG_NOISE_RELATIVE;
    p->params.noise.first_layer = 0;
    p->params.noise.last_layer = 4;
}

/* Cuts anywhere; with more ranks than tensors some get nothing. */
void random_borders(struct plan *p, uint64_t *state)
{
    const uint64_t end = table_end(p->table);

    p->border[0] = 0;
    p->border[p->world] = end;
    for (int k = 1; k < p->world; k++)
        p->border[k] = next_word(state) % 5 == 0 ? p->border[k - 1] : next_word(state) % end;
    for (int i = 1; i < p->world; i++)
        for (int k = i; k > 1 && p->border[k] < p->border[k - 1]; k--) {
            const uint64_t swap = p->border[k];
            p->border[k] = p->border[k - 1];
            p->border[k - 1] = swap;
        }
}

/* Cuts between segments, inside the first (at 2 of its 4 blocks) and the fourth (1 of 2), and the
 * last in three runs of one block: each rank's run is a subtree of the sum over blocks. */
void exact_borders(struct plan *p)
{
    const gradreg_segment *t = p->table;
    const uint64_t two[] = { t[0].offset + 2 * BLOCK };
    const uint64_t three[] = { t[8].offset + BLOCK, t[8].offset + 2 * BLOCK };
    const uint64_t eight[] = { t[0].offset + 2 * BLOCK,
                               t[1].offset,
                               t[3].offset + BLOCK,
                               t[4].offset,
                               t[7].offset,
                               t[8].offset + BLOCK,
                               t[8].offset + 2 * BLOCK };
    const uint64_t *inner = p->world == 2 ? two : p->world == 3 ? three : eight;

    p->border[0] = 0;
    p->border[p->world] = table_end(t);
    for (int k = 1; k < p->world; k++)
        p->border[k] = inner[k - 1];
}

/* ---- results ---------------------------------------------------------------------- */

const char *const snapshot_names[SNAPSHOTS] = { "theta after inject", "theta'", "theta''",
                                                "g_hat", "theta afterwards" };

struct result *new_result(void)
{
    struct result *result = calloc(1, sizeof(*result));
    ck_assert_ptr_nonnull(result);
    return result;
}

/* ---- comparing -------------------------------------------------------------------- */

const char *describe(const struct plan *plan)
{
    static char text[256];
    int length = snprintf(text, sizeof(text), "%s/%s, %s, %d ranks cut at",
                          type_name(plan->params.param_type), type_name(plan->params.grad_type),
                          layout_names[plan->layout], plan->world);

    for (int k = 1; k < plan->world && length < 230; k++)
        length += snprintf(text + length, sizeof(text) - (size_t)length, " %llu",
                           (unsigned long long)plan->border[k]);
    return text;
}

static gradreg_type type_of(const struct plan *plan, int which)
{
    return which == UPDATED ? plan->params.grad_type : plan->params.param_type;
}

size_t elements(const struct plan *plan)
{
    size_t n = 0;

    for (int s = 0; s < SEGMENTS; s++)
        n += (size_t)plan->table[s].count;
    return n;
}

void assert_same_snapshots(const struct plan *plan, const struct result *got,
                           const struct result *want)
{
    for (int step = 0; step < STEPS; step++)
        for (int which = 0; which < SNAPSHOTS; which++) {
            const gradreg_type type = type_of(plan, which);
            for (size_t i = 0; i < elements(plan); i++) {
                const uint32_t a = typed_bits(got->snapshot[step][which], type, i);
                const uint32_t b = typed_bits(want->snapshot[step][which], type, i);
                if (a != b)
                    ck_abort_msg("%s: step %d, %s, element %zu: %x, alone %x", describe(plan),
                                 step, snapshot_names[which], i, a, b);
            }
        }
}

void assert_same_rows(const struct plan *plan, const double *got, const double *want,
                      const char *what)
{
    for (int i = 0; i < ROW_DOUBLES; i++)
        if (double_bits(got[i]) != double_bits(want[i]) && !(isnan(got[i]) && isnan(want[i])))
            ck_abort_msg("%s: %s: row %d, column %d: %a and %a", describe(plan), what,
                         i / GRADREG_TERMS_COLUMNS, i % GRADREG_TERMS_COLUMNS, got[i], want[i]);
}

void assert_ranks_agree(const struct plan *plan, const struct result *got)
{
    for (int rank = 1; rank < plan->world; rank++)
        for (int step = 0; step < STEPS; step++) {
            assert_same_rows(plan, got->rows[rank][step], got->rows[0][step],
                             "ranks differ in their terms");
            ck_assert(got->found_inf[rank][step] == got->found_inf[0][step]);
            ck_assert_int_eq(got->completed[rank][step], got->completed[0][step]);
        }
}

/* Sums were added in another order; counts must agree. */
void assert_close_rows(const struct plan *plan, const double *got, const double *want)
{
    for (int i = 0; i < ROW_DOUBLES; i++) {
        const int column = i % GRADREG_TERMS_COLUMNS;
        const bool counts = column >= GRADREG_TERMS_COLUMNS - 5;
        const double bound = counts ? 0.0 : 2e-6 * fmax(fabs(want[i]), 1e-3);
        if (!(fabs(got[i] - want[i]) <= bound) && !(isnan(got[i]) && isnan(want[i])))
            ck_abort_msg("%s: row %d, column %d: %.17g, alone %.17g", describe(plan),
                         i / GRADREG_TERMS_COLUMNS, column, got[i], want[i]);
    }
}

/* One storage step, and the share of `size` that coefficients an ulp apart can make. */
void assert_close(const struct plan *plan, const struct result *got, const struct result *want,
                  int step, int which, const double *size)
{
    const gradreg_type type = type_of(plan, which);
    const double half_ulp = type_half_step(type, 1.0);

    for (size_t i = 0; i < elements(plan); i++) {
        const double a = typed_get(got->snapshot[step][which], type, i);
        const double b = typed_get(want->snapshot[step][which], type, i);
        const double bound =
            2.0 * half_ulp * fmax(fabs(a), fabs(b)) + size[i] * 0x1p-22 + 0x1p-24;
        if (!(fabs(a - b) <= (type == GRADREG_TYPE_F16 ? bound : bound - 0x1p-24)))
            ck_abort_msg("%s: step %d, %s, element %zu: %a, alone %a", describe(plan), step,
                         snapshot_names[which], i, a, b);
    }
}
