/* check_advantages.c - rewards to advantages.
 *
 * In: rewards in groups by size and by id, with NaN, infinities, equal rewards, groups of one. Out:
 * what the formulas give in double, rounded once; and the cases in which public code has NaN, -2154,
 * or 1 / epsilon (named at each test). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "support.h"

/* ---- the formulas, slowly --------------------------------------------------------- */

typedef struct setting {
    gradreg_advantage_params params;
    const float *rewards;
    size_t count, group_size;
} setting;

static bool same_group(const setting *s, size_t a, size_t b)
{
    return s->params.group != NULL ? s->params.group[a] == s->params.group[b]
                                   : a / s->group_size == b / s->group_size;
}

/* Of i's group, or of all; `without` (or SIZE_MAX) is left out. */
static double mean_of(const setting *s, size_t i, bool all, size_t without, double *members)
{
    double sum = 0.0, n = 0.0;
    for (size_t k = 0; k < s->count; k++)
        if ((all || same_group(s, i, k)) && isfinite(s->rewards[k]) && k != without) {
            sum += (double)s->rewards[k];
            n += 1.0;
        }
    *members = n;
    return n > 0.0 ? sum / n : 0.0;
}

static double deviation_of(const setting *s, size_t i, bool all)
{
    double n, squares = 0.0;
    const double mean = mean_of(s, i, all, SIZE_MAX, &n);
    for (size_t k = 0; k < s->count; k++)
        if ((all || same_group(s, i, k)) && isfinite(s->rewards[k]))
            squares += pow((double)s->rewards[k] - mean, 2.0);
    return n > 1.0 ? sqrt(squares / (n - 1.0)) : 0.0;
}

static double baseline_of(const setting *s, size_t i)
{
    double n;
    switch (s->params.baseline) {
    case GRADREG_BASELINE_NONE: return 0.0;
    case GRADREG_BASELINE_LEAVE_ONE_OUT: return mean_of(s, i, false, i, &n);
    default: return mean_of(s, i, false, SIZE_MAX, &n);
    }
}

static double divided(double x, double deviation, double epsilon)
{
    return deviation > 0.0 ? x / (deviation + epsilon) : 0.0;
}

static double expected(const setting *s, size_t i)
{
    const gradreg_advantage_params *p = &s->params;
    const double reward = (double)s->rewards[i];
    double members;
    if (!isfinite(reward))
        return 0.0;
    mean_of(s, i, false, SIZE_MAX, &members);
    const bool by_group =
        p->baseline != GRADREG_BASELINE_NONE || p->scale == GRADREG_SCALE_GROUP_STD;
    const bool alone = members == 1.0 && by_group;
    if (alone && p->singleton == GRADREG_SINGLETON_ZERO)
        return 0.0;
    const double centred = alone ? reward : reward - baseline_of(s, i);
    if (p->scale == GRADREG_SCALE_GROUP_STD)
        return divided(centred, alone ? 1.0 : deviation_of(s, i, false), p->epsilon);
    if (p->scale == GRADREG_SCALE_BATCH_STD)
        return divided(centred, deviation_of(s, i, true), p->epsilon);
    return centred;
}

/* ---- calls ------------------------------------------------------------------------ */

static void call(const setting *s, float *out)
{
    gradreg_context *context = NULL;
    assert_ok(test_context_create(&context, NULL));
    assert_ok(
        gradreg_advantages(context, out, s->rewards, s->count, s->group_size, &s->params));
    assert_ok(gradreg_context_destroy(context));
}

static void check(const setting *s, const float *got)
{
    for (size_t i = 0; i < s->count; i++) {
        const double want = expected(s, i);
        /* One rounding of the result; in double, sums of rewards near 1 cancel to 1e-13. */
        if (!(fabs((double)got[i] - want) <= 0x1p-24 * fabs(want) + 1e-13))
            ck_abort_msg(
                "baseline %d scale %d singleton %d: advantage %zu is %.9g, expected %.12g",
                s->params.baseline, s->params.scale, s->params.singleton, i, (double)got[i],
                want);
    }
}

static setting setting_of(const float *rewards, size_t count, size_t group_size)
{
    const gradreg_advantage_params params = GRADREG_ADVANTAGE_PARAMS_INIT;
    const setting s = { params, rewards, count, group_size };
    return s;
}

/* ---- every choice ----------------------------------------------------------------- */

enum { COUNT = 60 };

static float next_reward(uint64_t *state)
{
    switch (next_word(state) % 10) {
    case 0: return (float)NAN;
    case 1: return next_word(state) % 2 ? (float)INFINITY : (float)-INFINITY;
    case 2:
    case 3:
    case 4: return (float)(next_word(state) % 2);
    default: return (float)next_signed(state, 3.0);
    }
}

static void try_all(setting *s, float *out)
{
    gradreg_advantage_params *p = &s->params;
    for (p->baseline = 1; p->baseline <= GRADREG_BASELINE_NONE; p->baseline++)
        for (p->scale = 1; p->scale <= GRADREG_SCALE_BATCH_STD; p->scale++)
            for (p->singleton = 1; p->singleton <= GRADREG_SINGLETON_REWARD; p->singleton++) {
                call(s, out);
                guarded_check(out);
                check(s, out);
            }
}

START_TEST(every_baseline_scale_and_singleton_rule)
{
    static const size_t sizes[] = { 1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30, 60 };
    uint64_t state = test_seed() ^ 21;
    float *rewards = guarded_new(COUNT * sizeof(float), 0);
    float *out = guarded_new(COUNT * sizeof(float), 4);
    int32_t ids[COUNT];
    for (size_t k = 0; k < 2 * sizeof(sizes) / sizeof(sizes[0]); k++) {
        setting s = setting_of(rewards, COUNT, sizes[k / 2]);
        for (size_t i = 0; i < COUNT; i++) {
            rewards[i] = next_reward(&state);
            ids[i] = (int32_t)(next_word(&state) % (1 + COUNT / sizes[k / 2])) * 35000000 - 5;
        }
        s.params.group = k % 2 ? ids : NULL;
        s.params.epsilon = k % 3 == 0 ? 0.0 : 1e-4;
        try_all(&s, out);
    }
    guarded_free(rewards);
    guarded_free(out);
}
END_TEST

START_TEST(rewards_may_be_overwritten)
{
    uint64_t state = test_seed() ^ 22;
    float rewards[COUNT], out[COUNT];
    int32_t ids[COUNT];
    for (size_t i = 0; i < COUNT; i++) {
        rewards[i] = next_reward(&state);
        ids[i] = (int32_t)(next_word(&state) % 9);
    }
    for (int32_t k = 0; k < 18; k++) {
        setting s = setting_of(rewards, COUNT, 5);
        float in_place[COUNT];
        memcpy(in_place, rewards, sizeof(rewards));
        s.params.baseline = k % 3 + 1;
        s.params.scale = k / 3 % 3 + 1;
        s.params.group = k / 9 ? ids : NULL;
        call(&s, out);
        s.rewards = in_place;
        call(&s, in_place);
        for (size_t i = 0; i < COUNT; i++)
            ck_assert_uint_eq(float_bits(in_place[i]), float_bits(out[i]));
    }
}
END_TEST

START_TEST(ids_in_any_order_are_groups_by_size)
{
    enum { GROUPS = 12, SIZE = 5 };
    uint64_t state = test_seed() ^ 23;
    float rewards[GROUPS * SIZE], mixed[GROUPS * SIZE], by_size[GROUPS * SIZE],
        by_id[GROUPS * SIZE];
    int32_t ids[GROUPS * SIZE];
    for (size_t i = 0; i < GROUPS * SIZE; i++)
        rewards[i] = next_reward(&state);
    for (size_t i = 0; i < GROUPS * SIZE; i++) { /* members of a group stay in order */
        mixed[i] = rewards[i % GROUPS * SIZE + i / GROUPS];
        ids[i] = INT32_MAX - (int32_t)(i % GROUPS) * 100000000;
    }
    setting s = setting_of(rewards, GROUPS * SIZE, SIZE);
    s.params.scale = GRADREG_SCALE_GROUP_STD;
    call(&s, by_size);
    s = setting_of(mixed, GROUPS * SIZE, 0);
    s.params.scale = GRADREG_SCALE_GROUP_STD;
    s.params.group = ids;
    call(&s, by_id);
    for (size_t i = 0; i < GROUPS * SIZE; i++)
        ck_assert_uint_eq(float_bits(by_id[i]),
                          float_bits(by_size[i % GROUPS * SIZE + i / GROUPS]));
}
END_TEST

/* ---- known numbers ---------------------------------------------------------------- */

/* T3. A one-pass variance in fp32 gives the seven a deviation of 1e-4, so that frameworks which scale by
 * the deviation of the others gave the eighth -2154, -3184, -2161 in place of -R. */
START_TEST(equal_rewards_leave_no_residue)
{
    static const float values[] = { 0.35f, 0.30f, 0.70f, 1e-3f, 12345.678f };
    for (size_t k = 0; k < sizeof(values) / sizeof(values[0]); k++) {
        float rewards[8], out[8];
        for (size_t i = 0; i < 8; i++)
            rewards[i] = values[k];
        setting s = setting_of(rewards, 8, 8);
        s.params.epsilon = 0.0;
        for (int32_t b = 1; b <= 2; b++)
            for (int32_t scale = 1; scale <= 3; scale++) {
                s.params.baseline = b;
                s.params.scale = scale;
                call(&s, out);
                for (size_t i = 0; i < 8; i++)
                    ck_assert(out[i] == 0.0f);
            }
        rewards[7] = 0.0f;
        s.params.baseline = GRADREG_BASELINE_LEAVE_ONE_OUT;
        s.params.scale = GRADREG_SCALE_NONE;
        call(&s, out);
        ck_assert_uint_eq(float_bits(out[7]), float_bits(-values[k]));
        assert_ulps(out[0], (float)((double)values[k] / 7.0), 0);
    }
}
END_TEST

START_TEST(a_binary_group_by_hand)
{
    static const float rewards[] = { 0.0f, 1.0f, 0.0f, 0.0f };
    float out[4];
    setting s = setting_of(rewards, 4, 4);
    s.params.scale = GRADREG_SCALE_GROUP_STD; /* sqrt((3/16 + 9/16) / 3) = 1/2 */
    s.params.epsilon = 0.0;
    call(&s, out);
    ck_assert(out[0] == -0.5f && out[1] == 1.5f);
    s.params.epsilon = 0.5;
    call(&s, out);
    ck_assert(out[0] == -0.25f && out[1] == 0.75f);
    s.params.scale = GRADREG_SCALE_NONE;
    call(&s, out);
    ck_assert(out[0] == -0.25f && out[1] == 0.75f);
    s.params.baseline =
        GRADREG_BASELINE_LEAVE_ONE_OUT; /* mean of the others, or x G / (G - 1) */
    call(&s, out);
    ck_assert(out[1] == 1.0f && out[0] == (float)(-1.0 / 3.0));
    s.params.baseline = GRADREG_BASELINE_NONE;
    call(&s, out);
    ck_assert(out[0] == 0.0f && out[1] == 1.0f);
}
END_TEST

/* T2. Usable rewards in a group: one, none, all but one. */
START_TEST(groups_of_one_and_none)
{
    static const float rewards[] = { (float)NAN, 2.0f, (float)NAN, (float)NAN, (float)NAN,
                                     (float)NAN, 1.0f, (float)NAN, 3.0f };
    float out[9];
    setting s = setting_of(rewards, 9, 3);
    for (int32_t scale = 1; scale <= GRADREG_SCALE_GROUP_STD; scale++) {
        s.params.scale = scale;
        s.params.singleton = GRADREG_SINGLETON_ZERO;
        call(&s, out);
        for (size_t i = 0; i < 6; i++)
            ck_assert(out[i] == 0.0f);
        ck_assert(out[6] < 0.0f && out[7] == 0.0f && out[8] == -out[6]);
        s.params.singleton = GRADREG_SINGLETON_REWARD;
        call(&s, out);
        ck_assert(out[0] == 0.0f && out[2] == 0.0f && out[4] == 0.0f);
        ck_assert_uint_eq(
            float_bits(out[1]),
            float_bits(scale == GRADREG_SCALE_NONE ? 2.0f : (float)(2.0 / (1.0 + 1e-4))));
    }
}
END_TEST

/* Without a baseline a deviation of 0 must not make 1 / epsilon of a reward. */
START_TEST(nobody_is_better_without_variance)
{
    static const float rewards[] = { 1.0f, 1.0f, 1.0f, 1.0f };
    float out[4];
    for (int32_t baseline = 1; baseline <= GRADREG_BASELINE_NONE; baseline++)
        for (int32_t scale = GRADREG_SCALE_GROUP_STD; scale <= GRADREG_SCALE_BATCH_STD; scale++)
            for (size_t size = 1; size <= 4; size *= 2) {
                setting s = setting_of(rewards, 4, size);
                s.params.baseline = baseline;
                s.params.scale = scale;
                call(&s, out);
                for (size_t i = 0; i < 4; i++)
                    ck_assert(out[i] == 0.0f);
            }
}
END_TEST

START_TEST(no_rewards_are_fine)
{
    setting s = setting_of(NULL, 0, 4);
    int32_t id = 0;
    call(&s, NULL);
    s.params.group = &id;
    call(&s, NULL);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("advantages");
    TCase *tc = tcase_create("core");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, every_baseline_scale_and_singleton_rule);
    tcase_add_test(tc, rewards_may_be_overwritten);
    tcase_add_test(tc, ids_in_any_order_are_groups_by_size);
    tcase_add_test(tc, equal_rewards_leave_no_residue);
    tcase_add_test(tc, a_binary_group_by_hand);
    tcase_add_test(tc, groups_of_one_and_none);
    tcase_add_test(tc, nobody_is_better_without_variance);
    tcase_add_test(tc, no_rewards_are_fine);
    suite_add_tcase(suite, tc);
    return run_suite(suite);
}
