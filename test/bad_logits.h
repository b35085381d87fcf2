/* bad_logits.h - a caller of the calls over logits, whose arguments are good until a test spoils one.
 *
 * In: the field that a test changes. Out: every call with what is left, which must be refused with a
 * sentence and not a byte of the block changed, or accepted. */
#ifndef GRADREG_TEST_BAD_LOGITS_H
#define GRADREG_TEST_BAD_LOGITS_H

#include "refusals.h"

enum {
    ROWS = 3,
    WIDTH = 5,
    VOCABULARY = 7,
    SPARE = 16,
    TAIL = 64,
    MATRIX = ROWS * (VOCABULARY + 2)
};

enum array { LOGP, ENTROPY, LSE, DLOGP, DENTROPY, ARRAYS };

/* All that is the caller's. */
typedef struct belongings {
    gradreg_logits_params params;
    unsigned char params_tail[TAIL];
    float logits[MATRIX + SPARE], dlogits[MATRIX + SPARE];
    int32_t targets[ROWS + SPARE];
    float arrays[ARRAYS][ROWS + SPARE];
    gradreg_linear_params linear;
    unsigned char linear_tail[TAIL];
    float hidden[ROWS * WIDTH + SPARE], weight[VOCABULARY * WIDTH + SPARE];
    float dhidden[ROWS * WIDTH + SPARE], dweight[VOCABULARY * WIDTH + SPARE];
    gradreg_policy policy;
    gradreg_policy_batch batch;
    gradreg_policy_metrics metrics;
    size_t size;
} belongings;

extern belongings own;

/* Before each test, with refusals_close() after it. */
void set_up(void);

/* gradreg_logprobs_forward and _backward */
void refuse_both(gradreg_status want, const char *word, const char *value);
void accept_both(void);
/* gradreg_policy_logits */
void refuse_fused(gradreg_status want, const char *word, const char *value);
void accept_fused(void);
/* gradreg_linear_logprobs_forward and _backward; without a BLAS they are refused */
void refuse_linear(gradreg_status want, const char *word, const char *value);
void accept_linear(void);

float *shifted(float *at, size_t bytes);

/* The part for each call, set_up() before each test. */
TCase *bad_policy_logits_case(void);
TCase *bad_linear_case(void);

#endif
