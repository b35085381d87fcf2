/* check_vector_path.c - which path a context takes, and how the environment forces another. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* setenv */
#endif
#include "cpu/cpu_features.h"

#include <stdlib.h>
#include <string.h>

#include "support.h"

static const char *const names[GR_PATH_COUNT] = { "scalar", "x86-64-v2", "x86-64-v3",
                                                  "x86-64-v4" };

/* The compiler's own reading of cpuid. */
static gr_vector_path compilers_opinion(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("ssse3") || !__builtin_cpu_supports("sse4.2") ||
        !__builtin_cpu_supports("popcnt"))
        return GR_PATH_SCALAR;
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("bmi") ||
        !__builtin_cpu_supports("bmi2") || !__builtin_cpu_supports("fma"))
        return GR_PATH_V2;
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
        !__builtin_cpu_supports("avx512cd") || !__builtin_cpu_supports("avx512dq") ||
        !__builtin_cpu_supports("avx512vl"))
        return GR_PATH_V3;
    return GR_PATH_V4;
#else
    return GR_PATH_SCALAR;
#endif
}

START_TEST(best_path_agrees_with_the_compilers_detection)
{
    ck_assert_int_eq(gradreg_cpu_best_path(), compilers_opinion());
}
END_TEST

START_TEST(names_and_paths_belong_together)
{
    for (int path = 0; path < GR_PATH_COUNT; path++)
        ck_assert_str_eq(gradreg_cpu_path_name((gr_vector_path)path), names[path]);
    ck_assert_str_eq(gradreg_cpu_path_name((gr_vector_path)GR_PATH_COUNT), "");
}
END_TEST

START_TEST(every_processor_takes_what_it_has_and_refuses_the_rest)
{
    const gr_vector_path best = (gr_vector_path)(_i / GR_PATH_COUNT);
    const gr_vector_path wanted = (gr_vector_path)(_i % GR_PATH_COUNT);
    const gr_vector_path untouched = (gr_vector_path)99;
    gr_vector_path path = untouched;

    if (wanted <= best) {
        assert_ok(gradreg_cpu_path_from_word(&path, names[wanted], best));
        ck_assert_int_eq(path, wanted);
        return;
    }
    assert_fails(gradreg_cpu_path_from_word(&path, names[wanted], best),
                 GRADREG_ERROR_INVALID_ARGUMENT, "GRADREG_VECTOR_PATH", names[wanted],
                 "has only scalar", names[best]);
    ck_assert_int_eq(path, untouched);
}
END_TEST

START_TEST(nothing_said_means_the_best)
{
    for (int best = 0; best < GR_PATH_COUNT; best++) {
        gr_vector_path path = GR_PATH_SCALAR;
        assert_ok(gradreg_cpu_path_from_word(&path, NULL, (gr_vector_path)best));
        ck_assert_int_eq(path, best);
        assert_ok(gradreg_cpu_path_from_word(&path, "", (gr_vector_path)best));
        ck_assert_int_eq(path, best);
    }
}
END_TEST

static const char *const nonsense[] = { "x86-64-v5", "avx2",   " scalar", "scalar ",
                                        "SCALAR",    "x86-64", "3",       "%s%n%s" };
enum { NONSENSE = sizeof(nonsense) / sizeof(nonsense[0]) };

START_TEST(unknown_words_are_quoted_with_what_there_is)
{
    gr_vector_path path = GR_PATH_V2;
    assert_fails(gradreg_cpu_path_from_word(&path, nonsense[_i], GR_PATH_V3),
                 GRADREG_ERROR_INVALID_ARGUMENT, "GRADREG_VECTOR_PATH", nonsense[_i],
                 "expected one of scalar, x86-64-v2, x86-64-v3, x86-64-v4",
                 "this processor has scalar, x86-64-v2, x86-64-v3");
    ck_assert_int_eq(path, GR_PATH_V2);
}
END_TEST

START_TEST(a_long_word_still_leaves_room_for_what_there_is)
{
    char word[4000];
    gr_vector_path path;
    memset(word, 'w', sizeof(word));
    word[sizeof(word) - 1] = '\0';
    assert_fails(gradreg_cpu_path_from_word(&path, word, GR_PATH_V4),
                 GRADREG_ERROR_INVALID_ARGUMENT, "GRADREG_VECTOR_PATH", "wwww",
                 "this processor has scalar, x86-64-v2, x86-64-v3, x86-64-v4");
}
END_TEST

/* ---- through the environment ------------------------------------------------------ */

static void with_environment(const char *word, gradreg_status want, const char *path)
{
    gradreg_context *context = NULL;
    struct gradreg_context_info info = GRADREG_CONTEXT_INFO_INIT;

    ck_assert_int_eq(setenv("GRADREG_VECTOR_PATH", word, 1), 0);
    if (want != GRADREG_OK) {
        assert_fails(gradreg_context_create(&context, NULL), want, "GRADREG_VECTOR_PATH", word,
                     "this processor has");
        ck_assert_ptr_null(context);
    } else {
        assert_ok(gradreg_context_create(&context, NULL));
        assert_ok(gradreg_context_info(context, &info));
        ck_assert_str_eq(info.vector_path, path);
        assert_ok(gradreg_context_destroy(context));
    }
    ck_assert_int_eq(unsetenv("GRADREG_VECTOR_PATH"), 0);
}

START_TEST(the_environment_decides)
{
    const int best = (int)gradreg_cpu_best_path();

    for (int path = 0; path <= best; path++)
        with_environment(names[path], GRADREG_OK, names[path]);
    with_environment("", GRADREG_OK, names[best]);
    for (int i = 0; i < NONSENSE; i++)
        with_environment(nonsense[i], GRADREG_ERROR_INVALID_ARGUMENT, NULL);
}
END_TEST

START_TEST(each_context_keeps_the_path_it_was_born_with)
{
    gradreg_context *scalar = NULL, *best = NULL;
    struct gradreg_context_info info = GRADREG_CONTEXT_INFO_INIT;

    ck_assert_int_eq(setenv("GRADREG_VECTOR_PATH", "scalar", 1), 0);
    assert_ok(gradreg_context_create(&scalar, NULL));
    ck_assert_int_eq(unsetenv("GRADREG_VECTOR_PATH"), 0);
    assert_ok(gradreg_context_create(&best, NULL));
    assert_ok(gradreg_context_info(scalar, &info));
    ck_assert_str_eq(info.vector_path, "scalar");
    assert_ok(gradreg_context_info(best, &info));
    ck_assert_str_eq(info.vector_path, names[gradreg_cpu_best_path()]);
    assert_ok(gradreg_context_destroy(scalar));
    assert_ok(gradreg_context_destroy(best));
}
END_TEST

START_TEST(the_processors_name_fits_and_has_no_padding)
{
    char name[64], small[5];
    gradreg_cpu_name(name, sizeof(name));
    const size_t length = strlen(name);

    ck_assert_uint_gt(length, 0);
    ck_assert(name[0] != ' ' && name[length - 1] != ' ');
    gradreg_cpu_name(small, sizeof(small));
    ck_assert_uint_le(strlen(small), 4);
    ck_assert_int_eq(strncmp(small, name, strlen(small)), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("vector_path");
    TCase *core = tcase_create("core");

    /* The suite may itself run under a forced path. */
    (void)unsetenv("GRADREG_VECTOR_PATH");
    tcase_add_test(core, best_path_agrees_with_the_compilers_detection);
    tcase_add_test(core, names_and_paths_belong_together);
    tcase_add_loop_test(core, every_processor_takes_what_it_has_and_refuses_the_rest, 0,
                        GR_PATH_COUNT * GR_PATH_COUNT);
    tcase_add_test(core, nothing_said_means_the_best);
    tcase_add_loop_test(core, unknown_words_are_quoted_with_what_there_is, 0, NONSENSE);
    tcase_add_test(core, a_long_word_still_leaves_room_for_what_there_is);
    tcase_add_test(core, the_environment_decides);
    tcase_add_test(core, each_context_keeps_the_path_it_was_born_with);
    tcase_add_test(core, the_processors_name_fits_and_has_no_padding);
    suite_add_tcase(suite, core);
    return run_suite(suite);
}
