/* monitors.cpp - the probe, the divergence of rows, and how far weights have moved. */
#include <cmath>
#include <cstring>

#include "losses.h"

namespace compare
{

namespace
{

Bytes elements(Random *random, gradreg_type type, size_t n, double size, bool edges)
{
    Bytes bytes(n * type_bytes(type));
    for (size_t i = 0; i < n; i++) {
        const bool edge = edges && random->below(400) == 0;
        put(&bytes, type, i,
            bits_of(edge ? static_cast<double>(random->below(2) == 0 ? NAN : -INFINITY)
                         : size * random->unit(),
                    type));
    }
    return bytes;
}

/* ---- the probe ------------------------------------------------------------------------------ */

enum { LAYERS = 3, TRIALS = 6 };

/* The baseline, noise into rows, probabilities out of them, the summary. */
void trace(const Side &side, const Array &hidden, const Array &logits, size_t width,
           size_t stride, uint64_t seed, gradreg_probe_layer summary[LAYERS])
{
    const gradreg_probe_params defaults = GRADREG_PROBE_PARAMS_INIT;
    const gradreg_probe_layer empty = GRADREG_PROBE_LAYER_INIT;
    gradreg_probe_params params = defaults;
    gradreg_probe *probe = nullptr;
    params.layer_count = LAYERS;
    params.trials = TRIALS;
    params.seed = seed;
    CALL(gradreg_probe_create(&probe, side.context, &params));
    const int32_t target = static_cast<int32_t>(width / 2),
                  layer = static_cast<int32_t>(seed % LAYERS);
    {
        const Quiet quiet("the probe");
        CALL(gradreg_probe_observe(probe, logits.on(side), logits.type(), 1, width, stride,
                                   target, GRADREG_LAYER_NONE, 0));
        CALL(gradreg_probe_inject(probe, hidden.on(side), hidden.type(), TRIALS, width, stride,
                                  layer, 0));
        CALL(gradreg_probe_observe(probe, logits.on(side), logits.type(), TRIALS, width, stride,
                                   target, layer, 0));
        if (seed % 5 == 0) {
            CALL(gradreg_probe_reset(probe));
            CALL(gradreg_probe_observe(probe, logits.on(side), logits.type(), 2, width, stride,
                                       target, layer, 1));
        }
    }
    for (int i = 0; i < LAYERS; i++)
        summary[i] = empty;
    CALL(gradreg_probe_summary(probe, summary, LAYERS));
    CALL(gradreg_probe_destroy(probe));
}

std::vector<double> numbers_of(const gradreg_probe_layer summary[LAYERS])
{
    std::vector<double> all;
    for (int i = 0; i < LAYERS; i++) {
        const gradreg_probe_layer &l = summary[i];
        for (double x :
             { l.mean, l.std, l.min, l.max, l.baseline, static_cast<double>(l.trials),
               static_cast<double>(l.non_finite), static_cast<double>(l.not_injected),
               static_cast<double>(l.saturated) })
            all.push_back(x);
    }
    return all;
}

void run_probe(unsigned number)
{
    static const size_t widths[] = { 1, 7, 128, 4096, 5000, 9001 };
    Random random(number + 40000);
    const size_t width = random.pick(widths);
    const size_t stride = width + random.below(3) * 4 + random.below(2);
    const gradreg_type type = GRADREG_TYPE_F32 + static_cast<int32_t>(number % LAST_TYPE);
    const size_t n = (TRIALS - 1) * stride + width;
    const bool edges = random.below(2) == 0;
    const Side cpu(GRADREG_BACKEND_CPU), cuda(GRADREG_BACKEND_CUDA);
    const double size = random.below(6) == 0 ? 6e4 : 1.0; /* f16 saturates */
    const Array hidden(cpu, cuda, type, elements(&random, type, n, size, edges),
                       random.below(2) * 8 + random.below(2));
    const Array logits(cpu, cuda, type, elements(&random, type, n, 4.0, edges));
    gradreg_probe_layer summaries[2][LAYERS];
    trace(cpu, hidden, logits, width, stride, number, summaries[0]);
    trace(cuda, hidden, logits, width, stride, number, summaries[1]);
    require_same_doubles(numbers_of(summaries[0]), numbers_of(summaries[1]), "summary");
    hidden.require_same("hidden");
}

/* ---- monitors ------------------------------------------------------------------------------- */

std::vector<float> weights_of(Random *random, size_t n, bool edges)
{
    std::vector<float> values(n);
    for (float &x : values) {
        x = random->below(9) == 0 ? 0.0f : static_cast<float>(1.0 + random->unit());
        if (edges && random->below(500) == 0)
            x = random->below(2) == 0 ? -1.0f : NAN;
    }
    return values;
}

void run_divergence(unsigned number)
{
    static const size_t counts[] = { 0, 1, 4, 33 };
    static const size_t widths[] = { 1, 31, 32, 700, 4096, 5003 };
    Random random(number + 50000);
    const size_t rows = random.pick(counts), columns = random.pick(widths);
    const bool edges = random.below(2) == 0;
    const Side cpu(GRADREG_BACKEND_CPU), cuda(GRADREG_BACKEND_CUDA);
    const Floats p(cpu, cuda, weights_of(&random, rows * columns, edges));
    const Floats q(cpu, cuda, weights_of(&random, rows * columns, edges));
    const Floats out(cpu, cuda, std::vector<float>(rows, 7.0f));
    const bool equal = random.below(4) == 0;
    for (const Side *side : { &cpu, &cuda }) {
        const Quiet quiet("gradreg_js_divergence");
        CALL(gradreg_js_divergence(side->context, out.on(*side), p.on(*side),
                                   equal ? p.on(*side) : q.on(*side), rows, columns));
    }
    out.require_same("divergence");
}

void run_delta(unsigned number)
{
    static const size_t counts[] = { 0, 1, 33, 4096, 9000, 70001 };
    const gradreg_segment nothing = GRADREG_SEGMENT_INIT;
    Random random(number + 60000);
    const gradreg_type type = GRADREG_TYPE_F32 + static_cast<int32_t>(number % LAST_TYPE);
    std::vector<gradreg_segment> segments(random.below(6));
    size_t end = random.below(20);
    for (gradreg_segment &one : segments) {
        one = nothing;
        one.offset = end;
        one.count = random.pick(counts);
        end += one.count + random.below(9);
    }
    const double size = random.below(5) == 0 ? 1e30 : 1.0; /* squares beyond fp32 */
    const bool edges = random.below(3) == 0;
    const Side cpu(GRADREG_BACKEND_CPU), cuda(GRADREG_BACKEND_CUDA);
    const Array before(cpu, cuda, type, elements(&random, type, end, size, edges));
    const Array after(cpu, cuda, type, elements(&random, type, end, size, false),
                      random.below(2) * 8);
    const std::vector<double> start(segments.size(), 7.0);
    Bytes bytes(start.size() * sizeof(double));
    if (!start.empty())
        std::memcpy(bytes.data(), start.data(), bytes.size());
    Memory host(cpu, bytes.size(), 0), device(cuda, bytes.size(), 0);
    host.write(bytes);
    device.write(bytes);
    CALL(gradreg_context_reserve(cuda.context, 64 << 10));
    for (const Side *side : { &cpu, &cuda }) {
        const Quiet quiet("gradreg_weight_delta");
        CALL(gradreg_weight_delta(
            side->context, static_cast<double *>(side->is_cuda ? device.data() : host.data()),
            before.on(*side), after.on(*side), type, segments.data(), segments.size()));
    }
    std::vector<double> norms[2] = { start, start };
    const Bytes both[2] = { host.read(), device.read() };
    for (int i = 0; i < 2; i++)
        if (!start.empty())
            std::memcpy(norms[i].data(), both[i].data(), bytes.size());
    require_same_doubles(norms[0], norms[1], "norms");
}

} // namespace

std::vector<Case> monitor_cases()
{
    return { { "probe", run_probe, 200, 20 },
             { "divergence", run_divergence, 200, 20 },
             { "delta", run_delta, 200, 20 } };
}

} // namespace compare
