/* bad_policy.h - a caller of losses and advantages, whose arguments are good until a test spoils one.
 *
 * In: the field that a test changes. Out: the loss with what is left, which must be refused with a
 * sentence and not a byte of the block changed, or accepted. */
#ifndef GRADREG_TEST_BAD_POLICY_H
#define GRADREG_TEST_BAD_POLICY_H

#include "refusals.h"

enum { ROWS = 3, LENGTH = 4, TOKENS = ROWS * LENGTH, SPARE = 16, TAIL = 64 };

enum array { LOGP, OLD, REF, ROLLOUT, WEIGHT, ENTROPY, ADVANTAGES, DLOGP, DENTROPY, ARRAYS };

/* All that is the caller's. */
typedef struct belongings {
    gradreg_policy policy;
    unsigned char policy_tail[TAIL];
    gradreg_policy_batch batch;
    unsigned char batch_tail[TAIL];
    gradreg_policy_gradient out;
    unsigned char out_tail[TAIL];
    gradreg_advantage_params params;
    unsigned char params_tail[TAIL];
    gradreg_policy_metrics metrics, read;
    int64_t offsets[ROWS + 2];
    int32_t group[TOKENS + SPARE];
    float arrays[ARRAYS][TOKENS + SPARE];
    uint8_t mask[TOKENS + SPARE];
    size_t size;
} belongings;

extern belongings own;

/* Before each test, with refusals_close() after it. */
void set_up(void);

/* gradreg_policy_loss */
void refuse_loss(gradreg_status want, const char *word, const char *value);
void accept_loss(void);

/* The part for gradreg_advantages, set_up() before each test. */
TCase *bad_advantages_case(void);

#endif
