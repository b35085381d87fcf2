/* check_cuda_module.c - how libgradreg finds the CUDA module, and what it says where there is none.
 *
 *   check_cuda_module DIRECTORY [MODULE]
 *
 * In: the directory of the modules made from cuda_modules.c; the real module, where nvcc has built
 * it. Nothing here needs a device; with one, opening it is tried as well. */
#define _GNU_SOURCE /* setenv, dladdr, mkdtemp, fork */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support.h"

#define VARIABLE "GRADREG_CUDA_MODULE"

static const char *directory, *real_module;

static gradreg_status open_cuda(gradreg_context **context, int32_t device)
{
    gradreg_context_params params = GRADREG_CONTEXT_PARAMS_INIT;
    params.backend = GRADREG_BACKEND_CUDA;
    params.device = device;
    return gradreg_context_create(context, &params);
}

/* Names a module by its absolute path. */
static void choose(const char *name)
{
    char path[4096];
    (void)snprintf(path, sizeof(path), "%s/%s", directory, name);
    ck_assert_int_eq(setenv(VARIABLE, path, 1), 0);
}

/* Opening fails as it should, leaves nothing behind, and the other question agrees. */
static void refuses(gradreg_status status, const char *one, const char *other)
{
    counting_allocator allocator = { 0 };
    gradreg_context_params params = GRADREG_CONTEXT_PARAMS_INIT;
    gradreg_context *context = (gradreg_context *)&allocator;
    params.backend = GRADREG_BACKEND_CUDA;
    params.allocator = counting_hook(&allocator);
    assert_fails(gradreg_context_create(&context, &params), status, "params.backend", one,
                 other);
    ck_assert_ptr_null(context);
    counting_check(&allocator);
    ck_assert_int_eq(gradreg_backend_available(GRADREG_BACKEND_CUDA), 0);
}

START_TEST(a_relative_path_is_refused)
{
    static const char *const relative[] = { "libgradreg-cuda.so", "./libgradreg-cuda.so",
                                            "../lib/libgradreg-cuda.so", " /lib/x.so" };
    ck_assert_int_eq(setenv(VARIABLE, relative[_i], 1), 0);
    refuses(GRADREG_ERROR_INVALID_ARGUMENT, VARIABLE, "absolute");
}
END_TEST

START_TEST(a_file_that_is_not_there_is_named)
{
    choose("no-such-module.so");
    refuses(GRADREG_ERROR_UNSUPPORTED, VARIABLE, "no-such-module.so");
}
END_TEST

START_TEST(a_library_that_is_no_module_is_refused)
{
    choose("libcuda_module_nameless.so");
    refuses(GRADREG_ERROR_UNSUPPORTED, "libcuda_module_nameless.so", "not a module");
}
END_TEST

START_TEST(a_module_of_another_version_is_refused)
{
    choose("libcuda_module_older.so");
    refuses(GRADREG_ERROR_UNSUPPORTED, "0.0.9", gradreg_version());
}
END_TEST

START_TEST(a_module_with_other_structs_is_refused)
{
    choose("libcuda_module_other.so");
    refuses(GRADREG_ERROR_UNSUPPORTED, "other sources", "build both");
}
END_TEST

START_TEST(a_module_without_a_driver_says_so)
{
    choose("libcuda_module_driverless.so");
    refuses(GRADREG_ERROR_UNSUPPORTED, "no driver", "test's module");
}
END_TEST

START_TEST(the_current_directory_is_not_searched)
{
    char here[4096];
    ck_assert_ptr_nonnull(getcwd(here, sizeof(here)));
    ck_assert_int_eq(unsetenv(VARIABLE), 0);
    ck_assert_int_eq(chdir(directory), 0); /* which has a libgradreg-cuda.so that aborts */
    if (real_module != NULL) {             /* it lies beside libgradreg and is found there */
        gradreg_context *context = NULL;
        (void)open_cuda(&context, 0);
        assert_ok(gradreg_context_destroy(context));
    } else {
        refuses(GRADREG_ERROR_UNSUPPORTED, "no CUDA module", VARIABLE);
        ck_assert_int_eq(setenv("LD_LIBRARY_PATH", ":relative", 1), 0);
        refuses(GRADREG_ERROR_UNSUPPORTED, "not searched", "LD_LIBRARY_PATH");
        ck_assert_int_eq(unsetenv("LD_LIBRARY_PATH"), 0);
    }
    ck_assert_int_eq(chdir(here), 0);
}
END_TEST

/* What `check_cuda_module --say` ends with: a process of its own, with a libgradreg of its own. */
static int say(void)
{
    gradreg_context *context;
    (void)unsetenv(VARIABLE);
    (void)puts(open_cuda(&context, 0) == GRADREG_ERROR_UNSUPPORTED ? gradreg_last_error()
                                                                   : "no refusal");
    return 0;
}

static void copy_file(const char *to, const char *from)
{
    char block[65536];
    FILE *in = fopen(from, "rb"), *out = fopen(to, "wb");
    ck_assert(in != NULL && out != NULL);
    for (size_t n; (n = fread(block, 1, sizeof(block), in)) > 0;)
        ck_assert_uint_eq(fwrite(block, 1, n, out), n);
    ck_assert_int_eq(fclose(in), 0);
    ck_assert_int_eq(fclose(out), 0);
}

START_TEST(a_module_beside_libgradreg_that_cannot_be_loaded_is_not_called_missing)
{
    char folder[] = "/tmp/gradreg-XXXXXX", library[256], module[256], program[4096] = { 0 };
    char command[8192], sentence[1024] = { 0 };
    Dl_info info;
    ck_assert_int_ne(dladdr((const void *)(uintptr_t)gradreg_version, &info), 0);
    ck_assert_ptr_nonnull(strrchr(info.dli_fname, '/'));
    ck_assert_int_gt(readlink("/proc/self/exe", program, sizeof(program) - 1), 0);
    ck_assert_ptr_nonnull(mkdtemp(folder));
    (void)snprintf(library, sizeof(library), "%s%s", folder, strrchr(info.dli_fname, '/'));
    (void)snprintf(module, sizeof(module), "%s/libgradreg-cuda.so", folder);
    copy_file(library, info.dli_fname);
    FILE *file = fopen(module, "w");
    ck_assert(file != NULL && fputs("no library", file) >= 0 && fclose(file) == 0);
    (void)snprintf(command, sizeof(command), "LD_LIBRARY_PATH=%s '%s' --say", folder, program);
    file = popen(command, "r");
    ck_assert_ptr_nonnull(file);
    const char *const read = fgets(sentence, sizeof(sentence), file);
    ck_assert_int_eq(pclose(file), 0);
    ck_assert_int_eq(unlink(library) | unlink(module) | rmdir(folder), 0);
    ck_assert_ptr_nonnull(read);
    ck_assert_msg(strstr(sentence, "cannot be loaded") != NULL, "%s", sentence);
    ck_assert_msg(strstr(sentence, module) != NULL, "%s", sentence);
}
END_TEST

START_TEST(the_cpu_works_whatever_the_module)
{
    gradreg_context *context;
    choose("libcuda_module_older.so");
    ck_assert_int_eq(gradreg_backend_available(GRADREG_BACKEND_CPU), 1);
    assert_ok(gradreg_context_create(&context, NULL));
    assert_ok(gradreg_context_synchronize(context));
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

static void *search(void *unused)
{
    (void)gradreg_backend_available(GRADREG_BACKEND_CUDA);
    return unused;
}

/* The child has no thread that would end the search: nothing may wait for it there. */
START_TEST(a_fork_during_the_search_leaves_a_child_that_is_told)
{
    char number[16], byte;
    int ends[2], status = -1;
    pthread_t thread;

    ck_assert_int_eq(pipe(ends), 0);
    (void)snprintf(number, sizeof(number), "%d", ends[1]);
    ck_assert_int_eq(setenv("GRADREG_TEST_PIPE", number, 1), 0);
    choose("libcuda_module_slow.so");
    ck_assert_int_eq(pthread_create(&thread, NULL, search, NULL), 0);
    ck_assert_int_eq(read(ends[0], &byte, 1), 1);
    (void)fflush(NULL);
    const pid_t child = fork();
    if (child == 0) {
        (void)alarm(20);
        _exit(gradreg_backend_available(GRADREG_BACKEND_CUDA) != 0 ||
              strstr(gradreg_last_error(), "forked") == NULL);
    }
    ck_assert_int_gt(child, 0);
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_msg(status == 0, "the child: %s %d", WIFSIGNALED(status) ? "signal" : "exit",
                  WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    refuses(GRADREG_ERROR_UNSUPPORTED, "no driver", "test's module");
}
END_TEST

/* The module that nvcc made: on a machine without a device it says why, on one with a device a
 * context opens and closes. */
START_TEST(the_real_module_opens_or_says_why)
{
    gradreg_context *context = NULL;
    if (real_module == NULL)
        return;
    ck_assert_int_eq(setenv(VARIABLE, real_module, 1), 0);
    const gradreg_status status = open_cuda(&context, 0);
    if (status == GRADREG_OK) {
        struct gradreg_context_info info = GRADREG_CONTEXT_INFO_INIT;
        ck_assert_int_eq(gradreg_backend_available(GRADREG_BACKEND_CUDA), 1);
        assert_ok(gradreg_context_info(context, &info));
        ck_assert_int_eq(info.backend, GRADREG_BACKEND_CUDA);
        ck_assert_int_gt((int)strlen(info.device_name), 0);
        assert_ok(gradreg_context_destroy(context));
        assert_fails(open_cuda(&context, 4096), GRADREG_ERROR_INVALID_ARGUMENT, "params.device",
                     "4096");
        return;
    }
    refuses(GRADREG_ERROR_UNSUPPORTED, "driver", "CUDA");
}
END_TEST

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "--say") == 0)
        return say();
    Suite *suite = suite_create("cuda_module");
    TCase *core = tcase_create("core");
    if (argc < 2)
        return 2;
    /* meson lists the folders of all libraries that this test waits for, the modules' too, and the
     * loader reads the list once. */
    if (getenv("LD_LIBRARY_PATH") != NULL && unsetenv("LD_LIBRARY_PATH") == 0)
        return execv("/proc/self/exe", argv);
    directory = argv[1];
    real_module = argc > 2 ? argv[2] : NULL;
    tcase_set_timeout(core, 60);
    tcase_add_loop_test(core, a_relative_path_is_refused, 0, 4);
    tcase_add_test(core, a_file_that_is_not_there_is_named);
    tcase_add_test(core, a_library_that_is_no_module_is_refused);
    tcase_add_test(core, a_module_of_another_version_is_refused);
    tcase_add_test(core, a_module_with_other_structs_is_refused);
    tcase_add_test(core, a_module_without_a_driver_says_so);
    tcase_add_test(core, the_current_directory_is_not_searched);
    tcase_add_test(core,
                   a_module_beside_libgradreg_that_cannot_be_loaded_is_not_called_missing);
    tcase_add_test(core, the_cpu_works_whatever_the_module);
    tcase_add_test(core, a_fork_during_the_search_leaves_a_child_that_is_told);
    tcase_add_test(core, the_real_module_opens_or_says_why);
    suite_add_tcase(suite, core);
    return run_suite(suite);
}
