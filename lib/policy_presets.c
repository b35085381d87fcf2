/* policy_presets.c - the losses of the literature as compositions.
 *
 * In: a name. Out: a gradreg_policy with every field set, or a sentence that lists the names. A new
 * loss is one row; docs/losses.md derives each. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "gradreg.h"
#include "status.h"

/* What differs from GRADREG_POLICY_INIT. A 0 keeps the default; OFF and ZERO are spelt out. */
typedef struct preset {
    const char *name;
    gradreg_ratio_level ratio_level;
    gradreg_surrogate surrogate;
    gradreg_aggregation aggregation;
    double clip_low, clip_high;
    double dual_clip, log_ratio_limit;
    int32_t count_empty_rows;
} preset;

#define TOKEN    GRADREG_RATIO_TOKEN
#define SEQUENCE GRADREG_RATIO_SEQUENCE
#define OWN      GRADREG_RATIO_SEQUENCE_TOKEN
#define CLIPPED  GRADREG_SURROGATE_CLIPPED
#define WEIGHT   GRADREG_SURROGATE_CLIPPED_WEIGHT
#define GATE     GRADREG_SURROGATE_SOFT_GATE
#define GEO      GRADREG_SURROGATE_GEOMETRIC_MEAN
#define PLAIN    GRADREG_SURROGATE_PLAIN
#define SEQ_MEAN GRADREG_AGGREGATE_SEQUENCE_MEAN
#define TOK_MEAN GRADREG_AGGREGATE_TOKEN_MEAN
#define CONSTANT GRADREG_AGGREGATE_CONSTANT
#define SEQ_SUM  GRADREG_AGGREGATE_SEQUENCE_SUM
#define LENGTH   GRADREG_AGGREGATE_LENGTH_WEIGHTED

static const preset presets[] = {
    /* as their papers have them */
    { "grpo", TOKEN, CLIPPED, SEQ_MEAN, 0.2, 0.2, 0, 0, 0 },
    { "dr_grpo", TOKEN, CLIPPED, CONSTANT, 0.2, 0.2, 0, 0, 1 },
    { "bnpo", TOKEN, CLIPPED, TOK_MEAN, 0.2, 0.2, 0, 0, 0 },
    { "dapo", TOKEN, CLIPPED, TOK_MEAN, 0.2, 0.28, 0, 0, 0 },
    { "gspo", SEQUENCE, CLIPPED, SEQ_MEAN, 3e-4, 4e-4, 0, 0, 0 },
    { "cispo", TOKEN, WEIGHT, TOK_MEAN, HUGE_VAL, 4, 0, 0, 0 },
    { "sapo", TOKEN, GATE, SEQ_MEAN, 0.2, 0.2, 0, 0, 0 },
    { "gmpo", TOKEN, GEO, SEQ_MEAN, 0.4, 0.4, 0, 0, 0 },
    { "luspo", SEQUENCE, CLIPPED, LENGTH, 0.2, 0.2, 0, 0, 1 },
    { "gpg", TOKEN, PLAIN, TOK_MEAN, 0.2, 0.2, 0, 0, 0 },
    { "ppo", TOKEN, CLIPPED, TOK_MEAN, 0.2, 0.2, 0, 0, 0 },
    { "reinforce", TOKEN, PLAIN, SEQ_SUM, 0.2, 0.2, 0, 0, 1 },
    /* TRL: rows without a token count in B; one epsilon for both sides unless told otherwise */
    { "grpo@trl", TOKEN, CLIPPED, SEQ_MEAN, 0.2, 0.2, 0, 0, 1 },
    { "dr_grpo@trl", TOKEN, CLIPPED, CONSTANT, 0.2, 0.2, 0, 0, 1 },
    { "bnpo@trl", TOKEN, CLIPPED, TOK_MEAN, 0.2, 0.2, 0, 0, 1 },
    { "dapo@trl", TOKEN, CLIPPED, TOK_MEAN, 0.2, 0.2, 0, 0, 1 },
    { "gspo@trl", SEQUENCE, CLIPPED, SEQ_MEAN, 0.2, 0.2, 0, 0, 1 },
    { "cispo@trl", TOKEN, WEIGHT, TOK_MEAN, HUGE_VAL, 4, 0, 0, 1 },
    { "sapo@trl", TOKEN, GATE, SEQ_MEAN, 0.2, 0.2, 0, 0, 1 },
    { "luspo@trl", SEQUENCE, CLIPPED, LENGTH, 0.2, 0.2, 0, 0, 1 },
    /* verl: token mean unless the loss names its own, dual clip 3, log ratio within 20, and rows
     * without a token left out of B */
    { "ppo@verl", TOKEN, CLIPPED, TOK_MEAN, 0.2, 0.2, 3, 20, 0 },
    { "grpo@verl", TOKEN, CLIPPED, TOK_MEAN, 0.2, 0.2, 3, 20, 0 },
    { "dr_grpo@verl", TOKEN, CLIPPED, CONSTANT, 0.2, 0.2, 3, 20, 1 },
    { "gspo@verl", OWN, CLIPPED, SEQ_MEAN, 0.2, 0.2, 0, 10, 0 },
    { "cispo@verl", TOKEN, WEIGHT, TOK_MEAN, 0.2, 0.2, 0, 20, 0 },
    { "sapo@verl", TOKEN, GATE, SEQ_MEAN, 0.2, 0.2, 0, 20, 0 },
    { "gmpo@verl", TOKEN, GEO, SEQ_MEAN, 0.2, 0.2, 0, 0, 1 },
    { "gpg@verl", TOKEN, PLAIN, TOK_MEAN, 0.2, 0.2, 0, 0, 0 },
};

enum { PRESETS = sizeof(presets) / sizeof(*presets) };

const char *gradreg_policy_preset_name(size_t index)
{
    return index < PRESETS ? presets[index].name : NULL;
}

static gradreg_status unknown(const char *name)
{
    char known[512];
    size_t used = 0;
    known[0] = '\0';
    for (int i = 0; i < PRESETS; i++) {
        const int wrote = snprintf(known + used, sizeof(known) - used, "%s%s",
                                   i > 0 ? ", " : "", presets[i].name);
        used = used + (size_t)wrote < sizeof(known) ? used + (size_t)wrote : sizeof(known) - 1;
    }
    return GR_FAIL(GRADREG_ERROR_INVALID_ARGUMENT, "name \"%.32s\" is none of %s", name, known);
}

gradreg_status gradreg_policy_preset(gradreg_policy *out, const char *name)
{
    gradreg_policy policy = GRADREG_POLICY_INIT;
    const preset *found = NULL;
    GR_ENTER();
    GR_REQUIRE_POINTER(out);
    GR_REQUIRE_POINTER(name);
    for (int i = 0; i < PRESETS && found == NULL; i++)
        if (strcmp(presets[i].name, name) == 0)
            found = &presets[i];
    if (found == NULL)
        return unknown(name);
    policy.ratio_level = found->ratio_level;
    policy.surrogate = found->surrogate;
    policy.aggregation = found->aggregation;
    policy.clip_low = found->clip_low;
    policy.clip_high = found->clip_high;
    policy.dual_clip = found->dual_clip;
    policy.log_ratio_limit = found->log_ratio_limit;
    policy.count_empty_rows = found->count_empty_rows;
    *out = policy;
    return GRADREG_OK;
}
