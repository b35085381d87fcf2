/* kernel_cases.h - what the suites of the CPU's element loops share: the vector paths that this
 * processor has, arrays of every kind of value, and a restatement of what a block becomes.
 *
 * In: a type, a kind of value, a size. Out: guarded arrays; expected results and lanes, computed
 * one element after the other (cpu_kernels.h, reduce.h step 2). */
#ifndef GRADREG_TEST_KERNEL_CASES_H
#define GRADREG_TEST_KERNEL_CASES_H

#include "cpu/cpu_features.h"
#include "cpu/cpu_kernels.h"
#include "support.h"

/* ---- the paths ------------------------------------------------------------------- */

extern gr_cpu_kernels tables[GR_PATH_COUNT];
extern int path_count;
void fill_tables(void); /* and prints how many there are */
const char *path_name(int path);

/* ---- what goes in ---------------------------------------------------------------- */

enum { SIZES = 14 };
extern const size_t sizes[SIZES];

enum kind {
    NORMAL,
    DENORMAL,
    ZERO,
    MINUS_ZERO,
    HUGE_VALUES,
    TINY, /* the smallest that are not denormal */
    NOT_A_NUMBER,
    INFINITE,
    OVERFLOWING, /* f16: sums around 65504 */
    ANY_PATTERN,
    KINDS
};
extern const char *const kind_names[KINDS];

/* Guarded; off: one element behind a multiple of 64 bytes. */
void *new_array(gradreg_type type, size_t n, int off);
void *new_filled(gradreg_type type, size_t n, int off, enum kind kind, uint64_t *state);
void *copy_of(const void *array, gradreg_type type, size_t n); /* free() */
float value(const void *array, gradreg_type type, size_t i);

/* ---- comparing ------------------------------------------------------------------- */

int is_nan(gradreg_type type, uint32_t bits);
/* Same bits, or two NaN. */
void assert_same(const void *got, const void *want, gradreg_type type, size_t n,
                 const char *what, const char *where);
void assert_exact(const void *got, const void *want, size_t bytes, const char *what,
                  const char *where);

/* ---- the restatement ------------------------------------------------------------- */

void add_to_lane(float *lanes, int sum, size_t i, float x, float y);

typedef struct move_result {
    void *moved;
    float lanes[GR_MOVE_SUMS * GR_LANES];
    uint64_t counts[2];
} move_result;

void restate_move(move_result *r, const gr_move_block *b, gradreg_type P, gradreg_type U,
                  size_t n);

typedef struct combine_result {
    void *out;
    float *keep; /* or NULL */
    float lanes[GR_COMBINE_SUMS * GR_LANES];
    uint64_t saturated;
} combine_result;

void restate_combine(combine_result *r, const gr_combine_block *b, int read, gradreg_type G,
                     size_t n);

#endif
