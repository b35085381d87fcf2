/* logits.cpp - log-probs from logits, their gradient, and losses straight from logits. */
#include <cmath>
#include <cstdio>
#include <cstring>

#include "losses.h"

namespace compare
{

namespace
{

/* Devices on which a row is held by one thread block, by several, or read twice. */
class Chip
{
  public:
    explicit Chip(unsigned number)
    {
        static const size_t bytes[] = { 227 << 10, 48 << 10, 48 << 10, 20 << 10 };
        set(bytes[number % 4], number % 4 == 1 ? 0 : number % 8 == 3 ? 2 : 8);
    }
    /* A thread block holds one block of 4,096 logits of this type, and no second one. */
    explicit Chip(gradreg_type type)
    {
        set(type == GRADREG_TYPE_F32 ? 40 << 10 : 28 << 10, 8);
    }
    ~Chip()
    {
        set(227 << 10, 8);
    }

  private:
    static void set(size_t bytes, int clusters)
    {
#ifdef GR_CUDA_EMULATED
        emulated_cuda_set_shared(bytes);
        emulated_cuda_set_clusters(clusters);
#else
        (void)bytes, (void)clusters;
#endif
    }
};

struct Rows {
    gradreg_logits_params params;
    size_t stride, size;
};

gradreg_type type_number(unsigned number)
{
    return GRADREG_TYPE_F32 + static_cast<int32_t>(number % LAST_TYPE);
}

Rows rows_of(Random *random, size_t rows, unsigned number, size_t vocabulary)
{
    const gradreg_logits_params defaults = GRADREG_LOGITS_PARAMS_INIT;
    Rows r;
    r.params = defaults;
    r.params.type = type_number(number);
    r.params.rows = rows;
    r.params.vocabulary = vocabulary;
    r.stride = r.params.vocabulary + 8 * random->below(2) + random->below(2);
    r.params.row_stride = r.stride;
    r.params.temperature = random->below(2) == 0 ? 1.0f : 0.7f;
    r.size = rows == 0 ? 0 : (rows - 1) * r.stride + r.params.vocabulary;
    return r;
}

Rows rows_of(Random *random, size_t rows, unsigned number)
{
    static const size_t vocabularies[] = { 1, 2, 33, 128, 700, 4096, 4097, 5000, 12289, 30000 };
    size_t vocabulary = rows > 40 ? 1 + random->below(40) : random->pick(vocabularies);
    if (rows > 8 && vocabulary > 5000)
        vocabulary = 1 + random->below(5000);
    return rows_of(random, rows, number, vocabulary);
}

/* Some rows have no distribution, some nearly one token. */
Bytes logits_of(Random *random, const Rows &r, bool edges)
{
    const gradreg_type type = r.params.type;
    Bytes bytes(r.size * type_bytes(type));
    for (size_t i = 0; i < r.size; i++)
        put(&bytes, type, i, bits_of(4 * random->unit(), type));
    for (size_t row = 0; row < r.params.rows; row++) {
        const size_t begin = row * r.stride;
        const size_t at = begin + random->below(static_cast<uint32_t>(r.params.vocabulary));
        switch (random->below(edges ? 12 : 24)) {
        case 0: put(&bytes, type, at, bits_of(60, type)); break;
        case 1: put(&bytes, type, at, bits_of(static_cast<double>(-INFINITY), type)); break;
        case 2:
            if (edges)
                put(&bytes, type, at, bits_of(static_cast<double>(NAN), type));
            break;
        case 3:
            if (edges)
                put(&bytes, type, at, bits_of(static_cast<double>(INFINITY), type));
            break;
        case 4:
            for (size_t i = 0; edges && i < r.params.vocabulary; i++)
                put(&bytes, type, begin + i, bits_of(static_cast<double>(-INFINITY), type));
            break;
        default: break;
        }
    }
    return bytes;
}

std::vector<int32_t> targets_of(Random *random, const Rows &r, bool padding)
{
    std::vector<int32_t> targets(r.params.rows);
    for (int32_t &one : targets)
        one = padding && random->below(6) == 0
                  ? -1
                  : static_cast<int32_t>(
                        random->below(static_cast<uint32_t>(r.params.vocabulary)));
    return targets;
}

/* ---- log-probs ------------------------------------------------------------------------------ */

void run_logprobs(unsigned number)
{
    static const size_t counts[] = { 0, 1, 3, 7, 60 };
    Random random(number + 20000);
    const Rows r = rows_of(&random, random.pick(counts), number);
    const size_t n = r.params.rows;
    const bool edges = random.below(2) == 0, in_place = random.below(3) == 0;
    const Side cpu(GRADREG_BACKEND_CPU), cuda(GRADREG_BACKEND_CUDA);
    const Array logits(cpu, cuda, r.params.type, logits_of(&random, r, edges),
                       random.below(2) * 8 + random.below(2));
    const Array dlogits(cpu, cuda, r.params.type,
                        Bytes(r.size * type_bytes(r.params.type), 0x3c));
    const Numbers<int32_t> targets(cpu, cuda, targets_of(&random, r, true));
    const Floats logp(cpu, cuda, std::vector<float>(n, 7.0f));
    const Floats entropy(cpu, cuda, std::vector<float>(n, 7.0f));
    const Floats sums(cpu, cuda, std::vector<float>(n, 7.0f));
    std::vector<float> weights = numbers(&random, n, 0, 1, false);
    for (float &x : weights)
        x = random.below(5) == 0 ? 0.0f : x;
    const Floats dlogp(cpu, cuda, weights);
    const Floats dentropy(cpu, cuda, numbers(&random, n, 0, 0.1, false));
    const bool with_entropy = random.below(2) == 0;
    for (const Side *side : { &cpu, &cuda }) {
        const Quiet quiet("log-probs");
        CALL(gradreg_logprobs_forward(
            side->context, logp.on(*side), with_entropy ? entropy.on(*side) : nullptr,
            sums.on(*side), logits.on(*side), targets.on(*side), &r.params));
        CALL(gradreg_logprobs_backward(
            side->context, in_place ? logits.on(*side) : dlogits.on(*side), logits.on(*side),
            targets.on(*side), sums.on(*side), with_entropy ? entropy.on(*side) : nullptr,
            dlogp.on(*side), with_entropy ? dentropy.on(*side) : nullptr, &r.params));
    }
    logp.require_same("logp");
    entropy.require_same("entropy");
    sums.require_same("log_sum_exp");
    dlogits.require_same("dlogits");
    logits.require_same("logits");
}

/* ---- losses --------------------------------------------------------------------------------- */

/* Most of them can be taken token by token. */
gradreg_policy token_policy(Random *random, unsigned number)
{
    gradreg_policy p = policy_of(random, number);
    if (random->below(8) == 0)
        return p;
    p.ratio_level = GRADREG_RATIO_TOKEN;
    if (p.surrogate == GRADREG_SURROGATE_GEOMETRIC_MEAN)
        p.surrogate = GRADREG_SURROGATE_CLIPPED;
    p.off_policy_threshold = 0.0;
    return p;
}

Shape few_rows(Random *random)
{
    Shape shape = shape_of(random);
    while (shape.tokens < 1 || shape.tokens > 4)
        shape = shape_of(random);
    return shape;
}

struct Loss {
    Random random;
    Chip chip;
    Side cpu, cuda;
    Shape shape;
    gradreg_policy policy;
    Rows rows;
    bool edges, in_place, captured, on_policy;

    explicit Loss(unsigned number)
        : random(number + 30000), chip(number), cpu(GRADREG_BACKEND_CPU),
          cuda(GRADREG_BACKEND_CUDA), shape(shape_of(&random)),
          policy(token_policy(&random, number)), rows(rows_of(&random, shape.tokens, number)),
          edges(random.below(2) == 0), in_place(random.below(2) == 0),
          captured(random.below(4) == 0), on_policy(random.below(5) == 0)
    {
    }

    /* A few rows, each of them held by a cluster of 2, 4 or 8 thread blocks, the last of which may have
     * one logit, or none. */
    static Loss in_clusters(unsigned number)
    {
        static const size_t vocabularies[] = { 8191, 9000, 16385, 8192, 12289, 30000 };
        return Loss(number, vocabularies[number / LAST_TYPE % 6]);
    }

  private:
    Loss(unsigned number, size_t vocabulary)
        : random(number + 40000), chip(type_number(number)), cpu(GRADREG_BACKEND_CPU),
          cuda(GRADREG_BACKEND_CUDA), shape(few_rows(&random)),
          policy(token_policy(&random, number)),
          rows(rows_of(&random, shape.tokens, number, vocabulary)), edges(random.below(2) == 0),
          in_place(random.below(2) == 0), captured(random.below(4) == 0),
          on_policy(random.below(5) == 0)
    {
    }
};

/* A call on a stream that is captured runs when the graph does. */
template <class Function> gradreg_status call_captured(const Side &side, Function call)
{
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t exec = nullptr;
    side.wait();
    CUDA(cudaStreamBeginCapture(side.stream, cudaStreamCaptureModeThreadLocal));
    const gradreg_status status = call();
    CUDA(cudaStreamEndCapture(side.stream, &graph));
    if (status == GRADREG_OK) {
        CUDA(cudaGraphInstantiate(&exec, graph, 0));
        CUDA(cudaGraphLaunch(exec, side.stream));
        CUDA(cudaGraphExecDestroy(exec));
    }
    CUDA(cudaGraphDestroy(graph));
    return status;
}

void run_loss(Loss &l, unsigned number)
{
    Random &random = l.random;
    const Side &cpu = l.cpu, &cuda = l.cuda;
    const Rows &r = l.rows;
    const size_t n = r.params.rows, size = type_bytes(r.params.type);
    const Bytes read = logits_of(&random, r, l.edges);
    Bytes mask(n), host_read = read;
    for (unsigned char &one : mask)
        one = random.below(5) != 0;
    std::vector<int32_t> host_targets = targets_of(&random, r, l.edges);
    std::vector<int32_t> device_targets = host_targets;
    /* The CPU refuses a target that is none. On the GPU its row is one without a distribution. */
    for (size_t i = 0; !l.in_place && i < n; i++)
        if (l.edges && r.params.vocabulary > 1 && random.below(10) == 0) {
            device_targets[i] =
                random.below(2) == 0 ? -7 : static_cast<int32_t>(r.params.vocabulary);
            host_targets[i] = 0;
            put(&host_read, r.params.type, i * r.stride + 1,
                bits_of(static_cast<double>(NAN), r.params.type));
        }
    const Array logits(cpu, cuda, r.params.type, host_read, read,
                       random.below(2) * 8 + random.below(2));
    const Array dlogits(cpu, cuda, r.params.type, Bytes(r.size * size, 0x3c));
    const Array targets(cpu, cuda, GRADREG_TYPE_F32, bytes_of_vector(host_targets),
                        bytes_of_vector(device_targets));
    const Floats logp(cpu, cuda, std::vector<float>(n, 7.0f));
    const Floats entropy(cpu, cuda, std::vector<float>(n, 7.0f));
    const Floats old(cpu, cuda, numbers(&random, n, -4, 1.5, false));
    const Floats ref(cpu, cuda, numbers(&random, n, -4, 1.5, l.edges));
    const Floats rollout(cpu, cuda, numbers(&random, n, -4, 1.5, false));
    const Floats weight(cpu, cuda, numbers(&random, n, 1, 0.5, false));
    const Floats advantages(cpu, cuda, numbers(&random, l.shape.sequences, 0, 1, false));
    Memory host_mask(cpu, n, 1), device_mask(cuda, n, 3);
    host_mask.write(mask);
    device_mask.write(mask);
    const Metrics metrics(cpu, cuda);
    size_t scratch = 0;
    CALL(gradreg_policy_logits_scratch_bytes(&scratch, l.shape.sequences, &r.params));
    CALL(gradreg_context_reserve(cuda.context, scratch));
    const bool with_numbers = random.below(3) != 0;

    const auto call = [&](const Side &side) {
        const gradreg_policy_batch nothing = GRADREG_POLICY_BATCH_INIT;
        gradreg_policy_batch b = nothing;
        b.sequences = l.shape.sequences;
        b.length = l.shape.length;
        b.row_offsets = l.shape.packed ? l.shape.offsets.data() : nullptr;
        b.old_logp = l.on_policy ? nullptr : old.on(side);
        b.ref_logp = ref.on(side);
        b.rollout_logp = rollout.on(side);
        b.token_weight = number % 3 == 0 ? weight.on(side) : nullptr;
        b.mask =
            static_cast<const uint8_t *>(side.is_cuda ? device_mask.data() : host_mask.data());
        b.advantages = advantages.on(side);
        b.group = l.shape.group.data();
        const Quiet quiet("gradreg_policy_logits");
        return gradreg_policy_logits(
            side.context, metrics.on(side), l.in_place ? logits.on(side) : dlogits.on(side),
            with_numbers ? logp.on(side) : nullptr, with_numbers ? entropy.on(side) : nullptr,
            logits.on(side), static_cast<const int32_t *>(targets.on(side)), &b, &l.policy,
            &r.params);
    };
    const gradreg_status want = call(cpu);
    const std::string sentence = want == GRADREG_OK ? "" : gradreg_last_error();
    const gradreg_status got =
        l.captured ? call_captured(cuda, [&] { return call(cuda); }) : call(cuda);
    require(want == got, std::string("the loss gives ") + gradreg_status_name(got) + " (" +
                             gradreg_last_error() + "), on the CPU " +
                             gradreg_status_name(want) + " (" + sentence + ")");
    if (want != GRADREG_OK) {
        refused_cases++;
        return;
    }
    logp.require_same("logp");
    entropy.require_same("entropy");
    dlogits.require_same("dlogits");
    if (l.in_place)
        logits.require_same("logits");
    metrics.require_same("metrics");
}

void run_policy_logits(unsigned number)
{
    Loss loss(number);
    run_loss(loss, number);
}

void run_clusters(unsigned number)
{
    Loss loss = Loss::in_clusters(number);
    run_loss(loss, number);
}

/* ---- from hidden states --------------------------------------------------------------------- */

/* Products are summed in another order, so these alone are compared within a bound: per element
 * 2^-16 of the array's largest magnitude, and half a unit in the last place of a type of 16 bits. */
void require_near(const Array &array, const std::string &what)
{
    const Bytes cpu = array.read(false), cuda = array.read(true);
    const gradreg_type type = array.type();
    const size_t n = cpu.size() / type_bytes(type);
    const double unit = type == GRADREG_TYPE_F32   ? 0.0
                        : type == GRADREG_TYPE_F16 ? 0x1p-10
                                                   : 0x1p-7;
    const double least = type == GRADREG_TYPE_F16 ? 0x1p-24 : 0.0; /* between numbers near 0 */
    double largest = 0;
    for (size_t i = 0; i < n; i++) {
        const double x = std::fabs(value_of(get(cpu, type, i), type));
        largest = x > largest && std::isfinite(x) ? x : largest;
    }
    for (size_t i = 0; i < n; i++) {
        const double x = value_of(get(cpu, type, i), type);
        const double y = value_of(get(cuda, type, i), type);
        const bool same = x == y || (x != x && y != y);
        char text[160];
        if (same ||
            std::fabs(x - y) <= 0x1p-16 * largest + std::fmax(unit * std::fabs(x), least))
            continue;
        std::snprintf(text, sizeof(text),
                      ": element %zu of %zu is %a on the CPU and %a, of at most %a", i, n, x, y,
                      largest);
        throw Failure(what + text);
    }
    compared_bytes += cpu.size();
}

gradreg_linear_params linear_of(Random *random, unsigned number)
{
    static const size_t counts[] = { 0, 1, 3, 9, 20 };
    static const size_t widths[] = { 1, 5, 16, 33, 70 };
    static const size_t vocabularies[] = { 1, 2, 40, 129, 300 };
    const gradreg_linear_params defaults = GRADREG_LINEAR_PARAMS_INIT;
    gradreg_linear_params p = defaults;
    p.type = GRADREG_TYPE_F32 + static_cast<int32_t>(number % LAST_TYPE);
    p.gradient_type = static_cast<gradreg_type>(random->below(2) == 0 ? 0 : GRADREG_TYPE_F32);
    if (p.type == GRADREG_TYPE_F32 && random->below(2) == 0)
        p.gradient_type = GRADREG_TYPE_BF16;
    p.rows = random->pick(counts);
    p.width = random->pick(widths);
    p.vocabulary = random->pick(vocabularies);
    p.hidden_stride = p.width + random->below(3);
    p.weight_stride = p.width + random->below(3);
    p.chunk_rows = random->below(3) == 0 ? 0 : 1 + random->below(5);
    p.add_weight_gradient = static_cast<int32_t>(random->below(2));
    p.temperature = random->below(2) == 0 ? 1.0f : 1.3f;
    return p;
}

/* Of 16 bits and so wide that the weight is converted in two panels: 64 rows of it, and the rest. */
gradreg_linear_params panels_of(Random *random, unsigned number)
{
    const size_t width = 65537;
    gradreg_linear_params p = linear_of(random, 3 * (number / 2) + 1 + number % 2);
    p.hidden_stride += width - p.width;
    p.weight_stride += width - p.width;
    p.width = width;
    p.vocabulary = 67;
    p.rows = 2;
    return p;
}

/* Rows that take no part are never read: they are NaN here. */
Bytes hidden_of(Random *random, const gradreg_linear_params &p,
                const std::vector<int32_t> &targets)
{
    Bytes bytes(p.rows * p.hidden_stride * type_bytes(p.type));
    for (size_t i = 0; i < p.rows * p.hidden_stride; i++) {
        const bool read = i % p.hidden_stride < p.width && targets[i / p.hidden_stride] >= 0;
        put(&bytes, p.type, i,
            bits_of(read ? random->unit() : static_cast<double>(NAN), p.type));
    }
    return bytes;
}

Bytes weight_of(Random *random, const gradreg_linear_params &p)
{
    const double size = p.width < 1000 ? 0.5 : 0.01; /* wide rows: logits as of the others */
    Bytes bytes(p.vocabulary * p.weight_stride * type_bytes(p.type));
    for (size_t i = 0; i < p.vocabulary * p.weight_stride; i++)
        put(&bytes, p.type, i,
            bits_of(i % p.weight_stride < p.width ? size * random->unit()
                                                  : static_cast<double>(NAN),
                    p.type));
    return bytes;
}

void run_hidden(Random &random, unsigned number, const gradreg_linear_params &p)
{
    const size_t n = p.rows;
    const gradreg_type gradient = p.gradient_type != 0 ? p.gradient_type : p.type;
    std::vector<int32_t> target(n);
    for (int32_t &one : target)
        one = random.below(4) == 0
                  ? -1
                  : static_cast<int32_t>(random.below(static_cast<uint32_t>(p.vocabulary)));
    const Side cpu(GRADREG_BACKEND_CPU), cuda(GRADREG_BACKEND_CUDA);
    const Array hidden(cpu, cuda, p.type, hidden_of(&random, p, target));
    const Array weight(cpu, cuda, p.type, weight_of(&random, p));
    const Numbers<int32_t> targets(cpu, cuda, target);
    const Floats logp(cpu, cuda, std::vector<float>(n, 7.0f));
    const Floats entropy(cpu, cuda, std::vector<float>(n, 7.0f));
    const Floats sums(cpu, cuda, std::vector<float>(n, 7.0f));
    std::vector<float> weights = numbers(&random, n, 0, 1, false);
    for (float &x : weights)
        x = random.below(5) == 0 ? 0.0f : x;
    const bool with_entropy = random.below(2) == 0;
    const Floats dlogp(cpu, cuda, weights);
    const Floats dentropy(cpu, cuda, numbers(&random, n, 0, 0.1, false));
    const Array dhidden(cpu, cuda, gradient, Bytes(n * p.hidden_stride * type_bytes(gradient)));
    const Floats dweight(cpu, cuda, numbers(&random, p.vocabulary * p.width, 0, 0.1, false));
    const bool no_dhidden = random.below(6) == 0,
               no_dweight = !no_dhidden && random.below(6) == 0;
    size_t scratch = 0;
    CALL(gradreg_linear_logprobs_scratch_bytes(&scratch, &p));
    CALL(gradreg_context_reserve(cuda.context, scratch));
    const auto forward = [&](const Side &side) {
        return gradreg_linear_logprobs_forward(
            side.context, logp.on(side), with_entropy ? entropy.on(side) : nullptr,
            sums.on(side), hidden.on(side), weight.on(side), targets.on(side), &p);
    };
    const auto backward = [&](const Side &side) {
        return gradreg_linear_logprobs_backward(
            side.context, no_dhidden ? nullptr : dhidden.on(side),
            no_dweight ? nullptr : dweight.on(side), hidden.on(side), weight.on(side),
            targets.on(side), sums.on(side), with_entropy ? entropy.on(side) : nullptr,
            dlogp.on(side), with_entropy ? dentropy.on(side) : nullptr, &p);
    };
    if (forward(cpu) ==
        GRADREG_ERROR_UNSUPPORTED) { /* a build without a BLAS: nothing to compare */
        refused_cases++;
        return;
    }
    CALL(forward(cpu));
    CALL(backward(cpu));
    const gradreg_status first = call_captured(cuda, [&] { return forward(cuda); });
    require(first == GRADREG_ERROR_STATE, "cuBLAS is not opened in a capture");
    CALL(forward(cuda));
    if (number % 3 == 0) {
        CALL(call_captured(cuda, [&] { return backward(cuda); }));
    } else {
        const Quiet quiet("log-probs from hidden states");
        CALL(forward(cuda));
        CALL(backward(cuda));
    }
    require_near(logp, "logp");
    require_near(entropy, "entropy");
    require_near(sums, "log_sum_exp");
    require_near(dhidden, "dhidden");
    require_near(dweight, "dweight");
}

void run_linear(unsigned number)
{
    Random random(number + 70000);
    run_hidden(random, number, linear_of(&random, number));
}

void run_panels(unsigned number)
{
    Random random(number + 80001);
    run_hidden(random, number, panels_of(&random, number));
}

} // namespace

std::vector<Case> logits_cases()
{
    return { { "logprobs", run_logprobs, 300, 30 },
             { "policy-logits", run_policy_logits, 600, 60 },
             { "clusters", run_clusters, 180, 12 },
             { "linear", run_linear, 300, 30 },
             { "panels", run_panels, 6, 1 } };
}

} // namespace compare
