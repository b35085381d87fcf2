/* check_cpp.cpp - examples/cpp/gradreg.hpp: handles, exceptions, steps and losses in C++.
 *
 * Here are errors and handles; each other subject has a file check_cpp_*.cpp. */
#include <cmath>
#include <limits>
#include <memory>

#include "cpp_rig.h"
#include "suite.h"

namespace
{

/* ---- errors --------------------------------------------------------------------------- */

START_TEST(a_failure_carries_the_librarys_sentence)
{
    gradreg_context_params p = GRADREG_CONTEXT_PARAMS_INIT;
    p.threads = -3;
    const std::string sentence = thrown<gradreg::usage_error>(
        GRADREG_ERROR_INVALID_ARGUMENT, [&] { gradreg::context wrong(p); });
    ck_assert_str_eq(sentence.c_str(), gradreg_last_error());
    ck_assert_has(sentence, "threads");
    ck_assert_has(sentence, "-3");
}
END_TEST

void *nothing(void *, size_t, size_t, gradreg_memory)
{
    return nullptr;
}
void release(void *, void *, size_t, gradreg_memory)
{
}

START_TEST(without_a_module_the_cuda_backend_is_refused)
{
    setenv("GRADREG_CUDA_MODULE", "/nonexistent/libgradreg-cuda.so", 1);
    gradreg_context_params p = GRADREG_CONTEXT_PARAMS_INIT;
    p.backend = GRADREG_BACKEND_CUDA;
    const std::string said = thrown<gradreg::usage_error>(GRADREG_ERROR_UNSUPPORTED,
                                                          [&] { gradreg::context refused(p); });
    ck_assert_has(said, "gradreg_context_create");
    ck_assert_has(said, "/nonexistent/libgradreg-cuda.so");
}
END_TEST

START_TEST(the_class_of_an_exception_says_what_to_do)
{
    gradreg_context_params p = GRADREG_CONTEXT_PARAMS_INIT;
    p.allocator.allocate = nothing;
    p.allocator.release = release;
    ck_assert_has(thrown<gradreg::machine_error>(GRADREG_ERROR_OUT_OF_MEMORY,
                                                 [&] { gradreg::context none(p); }),
                  "gradreg_context_create");

    quadratic q;
    gradreg::context context = quiet();
    gradreg::regularizer r(context, table(), two_layers());
    auto buffers = gradreg::buffers::flat(q.weights, q.grads);
    q.backward();
    ck_assert(std::isfinite(r.suggest_epsilon(buffers, 0.9)));
    q.grads[3] = std::numeric_limits<float>::quiet_NaN();
    ck_assert_has(thrown<gradreg::numbers_error>(GRADREG_ERROR_NON_FINITE,
                                                 [&] { r.suggest_epsilon(buffers, 0.9); }),
                  "gradreg_regularizer_suggest_epsilon");
}
END_TEST

/* ---- handles -------------------------------------------------------------------------- */

START_TEST(handles_move_and_what_was_moved_from_is_refused)
{
    quadratic q;
    gradreg::context first = quiet();
    gradreg::context context = std::move(first);
    ck_assert_ptr_null(first.get());
    ck_assert_has(
        thrown<gradreg::usage_error>(GRADREG_ERROR_INVALID_ARGUMENT, [&] { first.info(); }),
        "NULL");
    gradreg::regularizer old(context, table(), two_layers());
    gradreg::regularizer r = std::move(old);
    auto buffers = gradreg::buffers::flat(q.weights, q.grads);
    q.backward();
    ck_assert_has(thrown<gradreg::usage_error>(GRADREG_ERROR_INVALID_ARGUMENT,
                                               [&] { old.perturb(buffers); }),
                  "gradreg_regularizer_perturb");
    thrown<gradreg::usage_error>(GRADREG_ERROR_INVALID_ARGUMENT, [&] { old.terms(); });
    r.perturb(buffers);
    r.cancel(buffers);
    old = std::move(r);
    old.perturb(buffers);
    old.cancel(buffers);
    static_assert(!std::is_copy_constructible_v<gradreg::context>);
    static_assert(!std::is_copy_constructible_v<gradreg::regularizer>);
    static_assert(std::is_nothrow_move_assignable_v<gradreg::regularizer>);
}
END_TEST

START_TEST(a_regularizer_keeps_its_context_open)
{
    quadratic q;
    auto context = std::make_unique<gradreg::context>(quiet());
    gradreg::regularizer r(*context, table(), two_layers());
    context.reset();
    auto buffers = gradreg::buffers::flat(q.weights, q.grads);
    gradreg::regularize(r, buffers, [&] { return q.backward(); });
    ck_assert_uint_eq(r.terms().total.step, 1);
}
END_TEST

START_TEST(remarks_arrive_and_a_log_that_throws_is_survived)
{
    std::vector<std::string> said;
    gradreg_context_params p = GRADREG_CONTEXT_PARAMS_INIT;
    p.threads = 1;
    gradreg::context context(p, [&](gradreg_log_level level, const char *message) {
        ck_assert_int_le(level, GRADREG_LOG_WARNING);
        said.push_back(message);
        throw 1;
    });
    gradreg_regularizer_params odd = two_layers();
    odd.clip_second = 0; /* one clip alone is worth a remark */
    gradreg::regularizer r(context, table(), odd);
    ck_assert_uint_gt(said.size(), 0);
}
END_TEST

} // namespace

int main()
{
    Suite *suite = suite_create("cpp");
    TCase *all = tcase_create("cpp");
    tcase_add_test(all, a_failure_carries_the_librarys_sentence);
    tcase_add_test(all, without_a_module_the_cuda_backend_is_refused);
    tcase_add_test(all, the_class_of_an_exception_says_what_to_do);
    tcase_add_test(all, handles_move_and_what_was_moved_from_is_refused);
    tcase_add_test(all, a_regularizer_keeps_its_context_open);
    tcase_add_test(all, remarks_arrive_and_a_log_that_throws_is_survived);
    add_step_tests(all);
    add_loss_tests(all);
    add_monitor_tests(all);
    suite_add_tcase(suite, all);
    return run_plainly(suite, CK_FORK_GETENV);
}
