/* check_bad_advantages.c - what gradreg_advantages must refuse: a part of check_bad_policy.c. */
#include <math.h>

#include "bad_policy.h"

static const gradreg_status invalid = GRADREG_ERROR_INVALID_ARGUMENT;

static void refuse_advantages(const char *word, const char *value)
{
    assert_refused(gradreg_advantages(context, own.arrays[DLOGP], own.arrays[ADVANTAGES], 6, 3,
                                      &own.params),
                   invalid, word, value);
}

START_TEST(bad_advantage_params_are_named)
{
    int32_t *const choices[] = { &own.params.baseline, &own.params.scale,
                                 &own.params.singleton };
    static const char *const names[] = { "params.baseline", "params.scale",
                                         "params.singleton" };
    static const double epsilons[] = { -1e-9, (double)NAN, (double)INFINITY };
    static const char *const shown[] = { "-1e-09", "nan", "inf" };
    for (int k = 0; k < 3; k++) {
        *choices[k] = -1;
        refuse_advantages(names[k], "-1");
        *choices[k] = k == 2 ? 3 : 4;
        refuse_advantages(names[k], k == 2 ? "3" : "4");
        *choices[k] = 0; /* the default */
    }
    for (int k = 0; k < 3; k++) {
        own.params.epsilon = epsilons[k];
        refuse_advantages("params.epsilon", shown[k]);
    }
    own.params.epsilon = 0.0;
    own.params.struct_size = 8;
    refuse_advantages("params.struct_size", "8");
    own.params.struct_size = (uint32_t)sizeof(own.params);
    own.params.group = (int32_t *)(void *)((unsigned char *)own.group + 2);
    refuse_advantages("params.group", "aligned");
    own.params.group = own.group;
    assert_accepted(gradreg_advantages(context, own.arrays[DLOGP], own.arrays[ADVANTAGES], 6, 3,
                                       &own.params));
}
END_TEST

START_TEST(bad_rewards_are_named)
{
    float *const out = own.arrays[DLOGP], *const in = own.arrays[ADVANTAGES];
    const gradreg_advantage_params *p = &own.params;
    assert_refused(gradreg_advantages(NULL, out, in, 6, 3, p), invalid, "'context'");
    assert_refused(gradreg_advantages(context, out, in, 6, 3, NULL), invalid, "'params'");
    assert_refused(gradreg_advantages(context, NULL, in, 6, 3, p), invalid, "'out'");
    assert_refused(gradreg_advantages(context, out, NULL, 6, 3, p), invalid, "'rewards'");
    assert_refused(gradreg_advantages(context, out, in, 6, 0, p), invalid, "group_size", "0");
    assert_refused(gradreg_advantages(context, out, in, 7, 3, p), invalid, "count", "7");
    assert_refused(gradreg_advantages(context, out, in, SIZE_MAX, 1, p), invalid, "count",
                   "18446744073709551615");
    assert_refused(gradreg_advantages(context, in + 1, in, 6, 3, p), invalid, "out", "rewards");
    assert_refused(gradreg_advantages(context, (float *)(void *)((char *)out + 1), in, 6, 3, p),
                   invalid, "aligned");
    own.params.group = own.group;
    assert_refused(gradreg_advantages(context, (float *)(void *)own.group, in, 6, 3, p),
                   invalid, "out", "params.group");
}
END_TEST

TCase *bad_advantages_case(void)
{
    TCase *tc = tcase_create("advantages");
    tcase_add_checked_fixture(tc, set_up, refusals_close);
    tcase_add_test(tc, bad_advantage_params_are_named);
    tcase_add_test(tc, bad_rewards_are_named);
    return tc;
}
