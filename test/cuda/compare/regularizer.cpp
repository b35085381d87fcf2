/* regularizer.cpp - steps of the regularizer in many variants, call by call. */
#include "steps.h"

#include <cstring>

namespace compare
{

namespace
{

/* Both sides' calls give the same status; on the device without waiting. */
template <class Function>
gradreg_status both(const char *name, Stepper *cpu, Stepper *cuda, Function call)
{
    gradreg_status want = call(cpu), got;
    {
        const Quiet quiet(name);
        got = call(cuda);
    }
    require(want == got, std::string(name) + " gives " + gradreg_status_name(got) + " (" +
                             gradreg_last_error() + "), on the CPU " +
                             gradreg_status_name(want));
    require(want == GRADREG_OK, std::string(name) + ": " + gradreg_last_error());
    return want;
}

#define BOTH(function)                                                         \
    do {                                                                       \
        both(#function, cpu, cuda,                                             \
             [](Stepper *one) { return function(one->reg, one->buffers()); }); \
        require_same_buffers(*cpu, *cuda, when + ", after " #function);        \
    } while (0)

void passes(Stepper *cpu, Stepper *cuda, uint64_t seed, const std::string &when)
{
    int32_t extra = 0, other = 0;
    CALL(gradreg_regularizer_extra_passes(cpu->reg, &extra));
    CALL(gradreg_regularizer_extra_passes(cuda->reg, &other));
    require(extra == other, when + ": extra_passes differ");
    for (Stepper *one : { cpu, cuda })
        one->make_gradient(seed, 0);
    if (extra == 0)
        return;
    BOTH(gradreg_regularizer_perturb);
    for (Stepper *one : { cpu, cuda })
        one->make_gradient(seed, 1);
    if (extra == 1)
        return;
    BOTH(gradreg_regularizer_mirror);
    for (Stepper *one : { cpu, cuda })
        one->make_gradient(seed, 2);
}

void one_step(Stepper *cpu, Stepper *cuda, unsigned step, bool last_but_one)
{
    const Variant &v = cpu->variant;
    const std::string when = v.name + ", step " + std::to_string(step);
    const bool noisy =
        v.params.noise.rule != GRADREG_NOISE_OFF && v.params.output != GRADREG_OUTPUT_PRODUCT;
    int32_t extra = 0;
    if (noisy)
        BOTH(gradreg_regularizer_inject_noise);
    CALL(gradreg_regularizer_extra_passes(cpu->reg, &extra));
    passes(cpu, cuda, v.seed + step, when);
    if (last_but_one && extra > 0 && v.seed % 3 == 0) {
        BOTH(gradreg_regularizer_cancel);
        return;
    }
    if (last_but_one && extra > 0 && v.seed % 3 == 1)
        BOTH(gradreg_regularizer_fallback);
    else
        BOTH(gradreg_regularizer_combine);
    require_same_doubles(cpu->terms(), cuda->terms(), when + ": terms");
}

void require_same_state(Stepper *cpu, Stepper *cuda, const std::string &when)
{
    size_t bytes = 0, other = 0;
    CALL(gradreg_regularizer_state_bytes(cpu->reg, &bytes));
    CALL(gradreg_regularizer_state_bytes(cuda->reg, &other));
    require(bytes == other, when + ": state_bytes differ");
    Bytes a(bytes), b(bytes);
    CALL(gradreg_regularizer_state_save(cpu->reg, a.data(), bytes));
    CALL(gradreg_regularizer_state_save(cuda->reg, b.data(), bytes));
    require(a == b, when + ": saved states differ");
    compared_bytes += bytes;
    /* Each goes on with what the other saved. */
    CALL(gradreg_regularizer_state_load(cpu->reg, b.data(), bytes));
    CALL(gradreg_regularizer_state_load(cuda->reg, a.data(), bytes));
}

void between_steps(Stepper *cpu, Stepper *cuda, unsigned step)
{
    const Variant &v = cpu->variant;
    for (Stepper *one : { cpu, cuda }) {
        if (step == 0) {
            const Quiet quiet("settings");
            CALL(gradreg_regularizer_set_strength(one->reg, 0.25));
            CALL(gradreg_regularizer_set_epsilon(one->reg, v.params.epsilon * 2));
        }
        if (v.params.adaptive.a_max > 0) {
            const double signals[3] = { 1.0, 2.0 + step, 0.5 };
            CALL(gradreg_regularizer_observe_layers(one->reg, signals, 3));
        }
    }
    if (step == 1)
        require_same_state(cpu, cuda, v.name);
}

void suggest(Stepper *cpu, Stepper *cuda)
{
    double a = 0, b = 0;
    for (Stepper *one : { cpu, cuda })
        one->make_gradient(cpu->variant.seed, 0);
    const gradreg_status want =
        gradreg_regularizer_suggest_epsilon(cpu->reg, &a, cpu->buffers(), 0.9);
    const gradreg_status got =
        gradreg_regularizer_suggest_epsilon(cuda->reg, &b, cuda->buffers(), 0.9);
    require(want == got, cpu->variant.name + ": suggest_epsilon gives " +
                             gradreg_status_name(got) + ", on the CPU " +
                             gradreg_status_name(want));
    if (want == GRADREG_OK)
        require_same_doubles({ a }, { b }, cpu->variant.name + ": suggest_epsilon");
}

void run_variant(unsigned number)
{
    const Variant v = variant(number);
    const Side host(GRADREG_BACKEND_CPU), device(GRADREG_BACKEND_CUDA);
    Stepper cpu(host, v), cuda(device, v);
    if (!both_accept(v.name + ": create", cpu.created, cpu.sentence, cuda.created))
        return;
    for (Stepper *one : { &cpu, &cuda })
        one->fill(v.seed);
    for (unsigned step = 0; step < 3; step++) {
        one_step(&cpu, &cuda, step, step == 1);
        between_steps(&cpu, &cuda, step);
    }
    if (v.seed % 4 == 0)
        suggest(&cpu, &cuda);
}

/* One long segment among short ones: several blocks a thread block, many thread blocks. */
void run_long(unsigned number)
{
    Variant v = variant(7 * number + 1000);
    v.begin = v.params.slice_begin = v.params.slice_count = 0;
    v.segments[0].count += 70001;
    for (size_t i = 1; i < v.segments.size(); i++)
        v.segments[i].offset += 70001;
    v.end += 70001;
    v.name = "long " + std::to_string(number);
    const Side host(GRADREG_BACKEND_CPU), device(GRADREG_BACKEND_CUDA);
    Stepper cpu(host, v), cuda(device, v);
    if (!both_accept(v.name + ": create", cpu.created, cpu.sentence, cuda.created))
        return;
    for (Stepper *one : { &cpu, &cuda })
        one->fill(v.seed);
    for (unsigned step = 0; step < 2; step++)
        one_step(&cpu, &cuda, step, false);
}

} // namespace

std::vector<Case> regularizer_cases()
{
    return { { "variants", run_variant, 2400, 120 }, { "long", run_long, 60, 3 } };
}

} // namespace compare
