#define _DEFAULT_SOURCE /* mkdtemp, setenv */
/* check_status.c - version, status names, and the sentence that belongs to a thread. */
#include "status.h"

#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support.h"

/* ---- constants against functions -------------------------------------------------- */

#define CONSTANT(name) \
    {                  \
        name, #name    \
    }
static const struct {
    gradreg_status status;
    const char *name;
} constants[] = {
    CONSTANT(GRADREG_OK),
    CONSTANT(GRADREG_ERROR_INVALID_ARGUMENT),
    CONSTANT(GRADREG_ERROR_UNSUPPORTED),
    CONSTANT(GRADREG_ERROR_STATE),
    CONSTANT(GRADREG_ERROR_OUT_OF_MEMORY),
    CONSTANT(GRADREG_ERROR_DEVICE),
    CONSTANT(GRADREG_ERROR_BLAS),
    CONSTANT(GRADREG_ERROR_COMMUNICATION),
    CONSTANT(GRADREG_ERROR_NON_FINITE),
};
enum { CONSTANTS = sizeof(constants) / sizeof(constants[0]) };

static int known_name(const char *name)
{
    return strcmp(name, "GRADREG_ERROR_UNKNOWN") != 0;
}

START_TEST(every_constant_has_its_own_name)
{
    ck_assert_str_eq(gradreg_status_name(constants[_i].status), constants[_i].name);
}
END_TEST

START_TEST(no_other_value_has_a_name)
{
    int named = 0;
    for (gradreg_status status = -1000; status <= 1000; status++)
        named += known_name(gradreg_status_name(status));
    ck_assert_int_eq(named, CONSTANTS);
    ck_assert(!known_name(gradreg_status_name(INT32_MIN)));
    ck_assert(!known_name(gradreg_status_name(INT32_MAX)));
}
END_TEST

/* A constant that is added to the header and nowhere else: its line is found here. */
START_TEST(the_header_has_no_other_constant)
{
    FILE *header = fopen(GR_TEST_DATA "/../../include/gradreg.h", "r");
    char line[512], name[128];
    int found = 0;

    ck_assert_ptr_nonnull(header);
    while (fgets(line, sizeof(line), header) != NULL) {
        int value;
        if (sscanf(line, " GRADREG_ERROR_%100[A-Z_] = %d", name, &value) != 2)
            continue;
        found++;
        ck_assert_msg(known_name(gradreg_status_name(value)), "GRADREG_ERROR_%s has no name",
                      name);
    }
    (void)fclose(header);
    ck_assert_int_eq(found, CONSTANTS - 1);
}
END_TEST

START_TEST(ranges_say_what_to_do)
{
    for (int i = 1; i < CONSTANTS; i++)
        ck_assert(constants[i].status <= -1 && constants[i].status >= -59);
    ck_assert_int_eq(GRADREG_OK, 0);
    ck_assert(GRADREG_ERROR_STATE >= -19 && GRADREG_ERROR_OUT_OF_MEMORY <= -20 &&
              GRADREG_ERROR_COMMUNICATION >= -39 && GRADREG_ERROR_NON_FINITE <= -40);
}
END_TEST

START_TEST(version_is_the_headers)
{
    char version[32];
    (void)snprintf(version, sizeof(version), "%d.%d.%d", GRADREG_VERSION_MAJOR,
                   GRADREG_VERSION_MINOR, GRADREG_VERSION_PATCH);
    ck_assert_str_eq(gradreg_version(), version);
}
END_TEST

/* ---- the sentence ----------------------------------------------------------------- */

static void *first_sentence(void *out)
{
    (void)snprintf(out, 64, "%s", gradreg_last_error());
    return NULL;
}

START_TEST(a_new_thread_has_no_sentence)
{
    char sentence[64] = "untouched";
    pthread_t thread;

    make_sentence_stale();
    ck_assert_int_eq(pthread_create(&thread, NULL, first_sentence, sentence), 0);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    ck_assert_str_eq(sentence, "");
}
END_TEST

struct failing_thread {
    size_t struct_size;
    int mixed_up;
};

static void *fail_often(void *argument)
{
    struct failing_thread *self = argument;
    char number[32];

    (void)snprintf(number, sizeof(number), "struct_size is %zu,", self->struct_size);
    for (int i = 0; i < 2000; i++) {
        gradreg_log log;
        self->mixed_up += gradreg_log_init(&log, self->struct_size) == GRADREG_OK;
        self->mixed_up += strstr(gradreg_last_error(), number) == NULL;
    }
    return NULL;
}

START_TEST(threads_do_not_share_sentences)
{
    struct failing_thread threads[2] = { { .struct_size = 111111 }, { .struct_size = 222222 } };
    pthread_t thread;

    ck_assert_int_eq(pthread_create(&thread, NULL, fail_often, &threads[0]), 0);
    (void)fail_often(&threads[1]);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    ck_assert_int_eq(threads[0].mixed_up, 0);
    ck_assert_int_eq(threads[1].mixed_up, 0);
}
END_TEST

START_TEST(success_leaves_the_sentence)
{
    gradreg_segment segment;
    char before[512];

    make_sentence_stale();
    (void)snprintf(before, sizeof(before), "%s", gradreg_last_error());
    assert_ok(gradreg_segment_init(&segment, sizeof(segment)));
    ck_assert_str_eq(gradreg_last_error(), before);
}
END_TEST

START_TEST(a_long_sentence_is_cut)
{
    char text[2000];
    memset(text, 'x', sizeof(text));
    text[sizeof(text) - 1] = '\0';

    gradreg_i_enter("gradreg_test");
    gradreg_i_set_error("%s", text);
    ck_assert_uint_eq(strlen(gradreg_last_error()), 511);
    ck_assert_int_eq(strncmp(gradreg_last_error(), "gradreg_test: xxx", 17), 0);

    gradreg_i_enter(text);
    gradreg_i_set_error("hidden");
    ck_assert_uint_eq(strlen(gradreg_last_error()), 511);
}
END_TEST

START_TEST(a_sentence_may_quote_the_previous_one)
{
    gradreg_i_enter("gradreg_test");
    gradreg_i_set_error("first");
    gradreg_i_set_error("after <%s>", gradreg_last_error());
    ck_assert_str_eq(gradreg_last_error(), "gradreg_test: after <gradreg_test: first>");
}
END_TEST

static FILE *open_in(const char *folder, const char *name)
{
    char path[256];
    (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    ck_assert_ptr_nonnull(file);
    return file;
}

/* A locale with a decimal comma, made here with a character map of its own: few machines have another than "C"
 * installed, or what localedef makes them from. */
static void write_numbers_with_commas(void)
{
    char folder[] = "/tmp/gradreg-locale-XXXXXX", command[256], number[16];

    ck_assert_ptr_nonnull(mkdtemp(folder));
    FILE *file = open_in(folder, "source");
    (void)fputs("LC_NUMERIC\ndecimal_point \",\"\nthousands_sep \".\"\ngrouping 3;3\n"
                "END LC_NUMERIC\n",
                file);
    (void)fclose(file);
    file = open_in(folder, "ascii");
    (void)fputs("<code_set_name> ASCII\n<mb_cur_min> 1\n<mb_cur_max> 1\nCHARMAP\n", file);
    for (unsigned c = 0; c < 128; c++)
        (void)fprintf(file, "<U%04X> /x%02x\n", c, c);
    (void)fputs("END CHARMAP\n", file);
    (void)fclose(file);
    (void)snprintf(command, sizeof(command),
                   "cd %s && localedef -c -f ./ascii -i ./source ./comma >log 2>&1; test -f "
                   "comma/LC_NUMERIC",
                   folder);
    ck_assert_msg(system(command) == 0, "no locale from localedef");
    ck_assert_int_eq(setenv("LOCPATH", folder, 1), 0);
    ck_assert_ptr_nonnull(setlocale(LC_NUMERIC, "comma"));
    (void)snprintf(command, sizeof(command), "rm -r %s", folder);
    ck_assert_int_eq(system(command), 0);
    (void)snprintf(number, sizeof(number), "%g", 1.5);
    ck_assert_str_eq(number, "1,5");
}

START_TEST(numbers_have_a_point_in_every_locale)
{
    gradreg_context_params params = GRADREG_CONTEXT_PARAMS_INIT;
    gradreg_regularizer_params p = GRADREG_REGULARIZER_PARAMS_INIT;
    gradreg_segment segment = GRADREG_SEGMENT_INIT;
    log_collector log = { 0 };
    gradreg_context *context;
    gradreg_regularizer *regularizer;
    char number[16];

    p.layer_count = 1;
    p.clip_first = 1.5;
    p.clip_second = 0;
    segment.count = 10;
    segment.layer = 0;
    segment.role = GRADREG_ROLE_MLP;
    params.log = log_hook(&log, GRADREG_LOG_WARNING);
    write_numbers_with_commas();
    assert_ok(gradreg_context_create(&context, &params));
    assert_ok(gradreg_regularizer_create(&regularizer, context, &segment, 1, &p));
    ck_assert_msg(log_has(&log, "clip_first = 1.5 "), "%s", log.message[0]);
    assert_fails(gradreg_regularizer_set_strength(regularizer, -2.25e-7),
                 GRADREG_ERROR_INVALID_ARGUMENT, "strength is -2.25e-07,");
    (void)snprintf(number, sizeof(number), "%g", 2.5);
    ck_assert_str_eq(number, "2,5"); /* the host's locale is as it was */
    assert_ok(gradreg_regularizer_destroy(regularizer));
    assert_ok(gradreg_context_destroy(context));
    (void)setlocale(LC_NUMERIC, "C");
}
END_TEST

/* ---- the macros ------------------------------------------------------------------- */

static gradreg_status require(const void *pointer, int number)
{
    GR_ENTER();
    GR_REQUIRE_POINTER(pointer);
    GR_REQUIRE(number < 10, "argument 'number' is %d, expected less than 10", number);
    return GRADREG_OK;
}

static gradreg_status pass_on(int number)
{
    GR_TRY(require(&number, number));
    return GR_FAIL(GRADREG_ERROR_DEVICE, "reached");
}

START_TEST(macros_return_status_and_sentence)
{
    ck_assert_int_eq(require(NULL, 1), GRADREG_ERROR_INVALID_ARGUMENT);
    ck_assert_str_eq(gradreg_last_error(), "require: argument 'pointer' must not be NULL");
    ck_assert_int_eq(pass_on(12), GRADREG_ERROR_INVALID_ARGUMENT);
    ck_assert_str_eq(gradreg_last_error(),
                     "require: argument 'number' is 12, expected less than 10");
    ck_assert_int_eq(pass_on(1), GRADREG_ERROR_DEVICE);
    ck_assert_str_eq(gradreg_last_error(), "require: reached");
    ck_assert_int_eq(require("", 9), GRADREG_OK);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("status");
    TCase *core = tcase_create("core");

    tcase_add_loop_test(core, every_constant_has_its_own_name, 0, CONSTANTS);
    tcase_add_test(core, no_other_value_has_a_name);
    tcase_add_test(core, the_header_has_no_other_constant);
    tcase_add_test(core, ranges_say_what_to_do);
    tcase_add_test(core, version_is_the_headers);
    tcase_add_test(core, a_new_thread_has_no_sentence);
    tcase_add_test(core, threads_do_not_share_sentences);
    tcase_add_test(core, success_leaves_the_sentence);
    tcase_add_test(core, a_long_sentence_is_cut);
    tcase_add_test(core, a_sentence_may_quote_the_previous_one);
    tcase_add_test(core, numbers_have_a_point_in_every_locale);
    tcase_add_test(core, macros_return_status_and_sentence);
    suite_add_tcase(suite, core);
    return run_suite(suite);
}
