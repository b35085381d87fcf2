/* logits.cpp - log-probs from logits, their gradient, and losses straight from logits. */
#include <cmath>

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
    const LogProbs made(cpu, cuda, n);
    const Floats dlogp(cpu, cuda, slopes(&random, n));
    const Floats dentropy(cpu, cuda, numbers(&random, n, 0, 0.1, false));
    const bool with_entropy = random.below(2) == 0;
    for (const Side *side : { &cpu, &cuda }) {
        float *const entropy = with_entropy ? made.entropy.on(*side) : nullptr;
        const Quiet quiet("log-probs");
        CALL(gradreg_logprobs_forward(side->context, made.logp.on(*side), entropy,
                                      made.sums.on(*side), logits.on(*side), targets.on(*side),
                                      &r.params));
        CALL(gradreg_logprobs_backward(
            side->context, in_place ? logits.on(*side) : dlogits.on(*side), logits.on(*side),
            targets.on(*side), made.sums.on(*side), entropy, dlogp.on(*side),
            with_entropy ? dentropy.on(*side) : nullptr, &r.params));
    }
    made.logp.require_same("logp");
    made.entropy.require_same("entropy");
    made.sums.require_same("log_sum_exp");
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

/* Logits, mask and targets of a loss. The CPU refuses a target that is none; on the GPU its row is one
 * without a distribution, which the CPU finds in the logits. */
struct Tokens {
    Bytes logits, cpu_logits, mask;
    std::vector<int32_t> cpu_targets, cuda_targets;

    explicit Tokens(Loss *l)
        : logits(logits_of(&l->random, l->rows, l->edges)), cpu_logits(logits),
          mask(mask_of(&l->random, l->shape.tokens)),
          cpu_targets(targets_of(&l->random, l->rows, l->edges)), cuda_targets(cpu_targets)
    {
        const gradreg_logits_params &p = l->rows.params;
        for (size_t i = 0; !l->in_place && i < p.rows; i++)
            if (l->edges && p.vocabulary > 1 && l->random.below(10) == 0) {
                cuda_targets[i] =
                    l->random.below(2) == 0 ? -7 : static_cast<int32_t>(p.vocabulary);
                cpu_targets[i] = 0;
                put(&cpu_logits, p.type, i * l->rows.stride + 1,
                    bits_of(static_cast<double>(NAN), p.type));
            }
    }
};

void run_loss(Loss &l, unsigned number)
{
    const Side &cpu = l.cpu, &cuda = l.cuda;
    const gradreg_logits_params &p = l.rows.params;
    const Tokens tokens(&l);
    const Array logits(cpu, cuda, p.type, tokens.cpu_logits, tokens.logits,
                       l.random.below(2) * 8 + l.random.below(2));
    const Array dlogits(cpu, cuda, p.type, Bytes(l.rows.size * type_bytes(p.type), 0x3c));
    const Array targets(cpu, cuda, GRADREG_TYPE_F32, bytes_of_vector(tokens.cpu_targets),
                        bytes_of_vector(tokens.cuda_targets));
    const LogProbs made(cpu, cuda, p.rows);
    Batch batch(cpu, cuda, &l.random, l.shape, tokens.mask, -4, l.edges);
    const Metrics metrics(cpu, cuda);
    size_t scratch = 0;
    batch.on_policy = l.on_policy;
    batch.weighted = number % 3 == 0;
    CALL(gradreg_policy_logits_scratch_bytes(&scratch, l.shape.sequences, &p));
    CALL(gradreg_context_reserve(cuda.context, scratch));
    const bool with_numbers = l.random.below(3) != 0;

    const auto call = [&](const Side &side) {
        const gradreg_policy_batch b = batch.on(side);
        const Quiet quiet("gradreg_policy_logits");
        return gradreg_policy_logits(
            side.context, metrics.on(side), l.in_place ? logits.on(side) : dlogits.on(side),
            with_numbers ? made.logp.on(side) : nullptr,
            with_numbers ? made.entropy.on(side) : nullptr, logits.on(side),
            static_cast<const int32_t *>(targets.on(side)), &b, &l.policy, &p);
    };
    const gradreg_status want = call(cpu);
    const std::string sentence = gradreg_last_error();
    const gradreg_status got =
        l.captured ? call_captured(cuda, [&] { return call(cuda); }) : call(cuda);
    if (!both_accept("the loss", want, sentence, got))
        return;
    made.logp.require_same("logp");
    made.entropy.require_same("entropy");
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

} // namespace

std::vector<Case> logits_cases()
{
    return { { "logprobs", run_logprobs, 300, 30 },
             { "policy-logits", run_policy_logits, 600, 60 },
             { "clusters", run_clusters, 180, 12 } };
}

} // namespace compare
