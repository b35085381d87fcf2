/* rank_plan.h - steps of one table on several processes: how it is cut, what is asked, what came out.
 *
 * In: a plan. Out: everything that the ranks moved and wrote, each its part, next to what each
 * reported; the same from one process; and comparisons. What holds between the two follows from the
 * summation tree (reduce.h) and the exchange (rows added in rank order):
 *   - coefficients that depend on no norm: the same bits, whatever the cut;
 *   - every bin on at most one rank, or a segment cut into runs of 2^k blocks on up to three ranks:
 *     the same sums, so the same bits, terms included;
 *   - any other cut: norms within a few roundings, so coefficients within an ulp;
 *   - always: ranks report the same bits, and so does a second run. */
#ifndef GRADREG_TEST_RANK_PLAN_H
#define GRADREG_TEST_RANK_PLAN_H

#include "rig.h"
#include "world.h"

enum { LAYERS = 8, SEGMENTS = 9, BLOCK = 4096, STEPS = 3, MOST_BYTES = 200000 };

/* ---- plans ------------------------------------------------------------------------ */

enum layout { DECLARED, UNDECLARED, SHARDS, LAYOUTS };

enum after_failure { RETRY, CANCEL_AND_REPEAT };

struct plan {
    gradreg_segment table[SEGMENTS];
    gradreg_regularizer_params params;
    bool fixed_gradients;   /* that do not depend on theta' */
    bool uneven;            /* blocks of very different size, so that every sum rounds */
    int fallback_step;      /* -1: none */
    const bool *absent;     /* segments without gradients */
    int bad_step, bad_pass; /* whose gradient is not finite in one element; -1: none */
    size_t bad_segment;
    uint64_t bad_element;
    bool replicas; /* segments 2 and 5 are whole on every rank */
    enum layout layout;
    int world;
    uint64_t border[WORLD_RANKS + 1];
    enum after_failure after_failure;
};

extern const int worlds[4];
enum { WORLDS = 4 };

/* one_per_layer: each segment has sums of its own; otherwise three layers of several. */
void common_plan(struct plan *p, bool one_per_layer);
void set_pair(struct plan *p, int pair);
void norms_plan(struct plan *p, int variant);
void random_borders(struct plan *p, uint64_t *state);
void exact_borders(struct plan *p);
uint64_t table_end(const gradreg_segment *table);

/* ---- results ---------------------------------------------------------------------- */

enum snapshot { INJECTED, PERTURBED, MIRRORED, UPDATED, RESTORED, SNAPSHOTS };
extern const char *const snapshot_names[SNAPSHOTS];
enum { ROW_DOUBLES = (LAYERS + 1) * GRADREG_TERMS_COLUMNS };

/* Filled by all ranks, each its part; one process fills it alone. */
struct result {
    char snapshot[STEPS][SNAPSHOTS][MOST_BYTES];
    double rows[WORLD_RANKS][STEPS][ROW_DOUBLES];
    float found_inf[WORLD_RANKS][STEPS];
    uint64_t replicas[WORLD_RANKS][STEPS][SNAPSHOTS];
    int repeats[WORLD_RANKS];          /* calls that failed and were made again, or cancelled */
    int completed[WORLD_RANKS][STEPS]; /* steps whose statistics failed */
};

struct result *new_result(void); /* free() */

/* Fills w->shared, a struct result. The callback fails at its call number fail_at, 0: never. */
void run_ranks(world *w, struct plan *plan, int fail_at);
void run_alone(const struct plan *plan, struct result *out);

/* Cut number k of WORLDS * LAYOUTS, of which the first LAYOUTS are one process: a number of ranks and a
 * layout. Borders are anywhere, drawn from *state, or with NULL where they change no bit. The ranks agree. */
const struct result *run_cut(world *w, struct plan *plan, int k, uint64_t *state);

/* ---- comparing -------------------------------------------------------------------- */

const char *describe(const struct plan *plan);
size_t elements(const struct plan *plan);
void assert_same_snapshots(const struct plan *plan, const struct result *got,
                           const struct result *want);
void assert_same_rows(const struct plan *plan, const double *got, const double *want,
                      const char *what);
void assert_ranks_agree(const struct plan *plan, const struct result *got);
void assert_close_rows(const struct plan *plan, const double *got, const double *want);
void assert_close(const struct plan *plan, const struct result *got, const struct result *want,
                  int step, int which, const double *size);

#endif
