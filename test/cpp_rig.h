/* cpp_rig.h - what suites of examples/cpp/gradreg.hpp share, the parts of check_cpp.cpp above all.
 *
 * In: nothing, or a call. Out: two layers whose loss is quadratic, a context on one thread, and what kind of
 * exception a call ends with. */
#ifndef GRADREG_TEST_CPP_RIG_H
#define GRADREG_TEST_CPP_RIG_H

#include <check.h>

#include <cstring>
#include <string>
#include <vector>

#include "gradreg.hpp"

/* L = 1/2 sum c_i w_i^2, and its gradient. */
inline float gradient(std::vector<float> &grads, const std::vector<float> &weights)
{
    float loss = 0;
    grads.resize(weights.size());
    for (std::size_t i = 0; i < weights.size(); i++) {
        const float c = static_cast<float>(i + 1) * 0.25f;
        grads[i] = c * weights[i];
        loss += 0.5f * c * weights[i] * weights[i];
    }
    return loss;
}

/* Two layers of four weights. */
struct quadratic {
    std::vector<float> weights{ 1, -2, 3, 0.5f, -1, 2, 0.25f, 4 };
    std::vector<float> grads = std::vector<float>(8);

    float backward()
    {
        return gradient(grads, weights);
    }
};

inline std::vector<gradreg_segment> table()
{
    return { gradreg::segment("model.layers.0.mlp.up_proj.weight", 0, 4),
             gradreg::segment("model.layers.1.mlp.up_proj.weight", 4, 4) };
}

inline gradreg_regularizer_params two_layers()
{
    gradreg_regularizer_params p = GRADREG_REGULARIZER_PARAMS_INIT;
    p.layer_count = 2;
    p.strength = 0.1;
    return p;
}

inline gradreg::context quiet()
{
    gradreg_context_params p = GRADREG_CONTEXT_PARAMS_INIT;
    p.threads = 1;
    return gradreg::context(p);
}

/* What kind of exception `call` throws, its status and its sentence; "" for none. */
template <class Exception, class Call> std::string thrown(gradreg_status status, Call &&call)
{
    try {
        call();
    } catch (const Exception &e) {
        ck_assert_int_eq(e.status(), status);
        ck_assert_str_eq(e.status_name(), gradreg_status_name(status));
        return e.what();
    }
    return "";
}

inline bool same_bits(const std::vector<float> &a, const std::vector<float> &b)
{
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * 4) == 0;
}

inline void ck_assert_has(const std::string &sentence, const char *word)
{
    ck_assert_msg(sentence.find(word) != std::string::npos, "\"%s\" lacks \"%s\"",
                  sentence.c_str(), word);
}

/* The parts of check_cpp.cpp: their tests, added to its one case. */
void add_step_tests(TCase *all);
void add_loss_tests(TCase *all);
void add_monitor_tests(TCase *all);

#endif
