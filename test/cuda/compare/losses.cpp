/* losses.cpp - policy losses and advantages. */
#include <cmath>
#include <cstring>
#include <memory>

#include "losses.h"

namespace compare
{

Shape shape_of(Random *random)
{
    static const size_t rows[] = { 0, 1, 2, 5, 33, 70 };
    static const size_t lengths[] = { 1, 2, 31, 32, 33, 127, 300 };
    Shape s;
    s.sequences = random->pick(rows);
    s.length = random->pick(lengths);
    s.packed = random->below(2) == 0;
    s.offsets.push_back(0);
    for (size_t i = 0; i < s.sequences; i++) {
        const size_t own = random->below(static_cast<uint32_t>(s.length) + 1);
        s.offsets.push_back(s.offsets.back() + static_cast<int64_t>(own));
        s.group.push_back(static_cast<int32_t>(random->below(4)) - 1);
    }
    s.tokens = s.packed ? static_cast<size_t>(s.offsets.back()) : s.sequences * s.length;
    return s;
}

std::vector<float> numbers(Random *random, size_t n, double middle, double width, bool edges)
{
    std::vector<float> values(n);
    for (float &x : values) {
        x = static_cast<float>(middle + width * random->unit());
        if (edges && random->below(60) == 0)
            x = random->below(2) == 0 ? -INFINITY : NAN;
    }
    return values;
}

gradreg_policy policy_of(Random *random, unsigned number)
{
    const gradreg_policy defaults = GRADREG_POLICY_INIT;
    gradreg_policy p = defaults;
    size_t presets = 0;
    while (gradreg_policy_preset_name(presets) != nullptr)
        presets++;
    if (number % 2 == 0) {
        CALL(gradreg_policy_preset(&p, gradreg_policy_preset_name(number / 2 % presets)));
        return p;
    }
    p.ratio_level = GRADREG_RATIO_TOKEN + static_cast<int32_t>(random->below(LAST_RATIO_LEVEL));
    p.surrogate =
        GRADREG_SURROGATE_CLIPPED + static_cast<int32_t>(random->below(LAST_SURROGATE));
    p.kl = GRADREG_KL_NONE + static_cast<int32_t>(random->below(LAST_KL));
    p.aggregation =
        GRADREG_AGGREGATE_SEQUENCE_MEAN + static_cast<int32_t>(random->below(LAST_AGGREGATION));
    p.rollout_mode =
        GRADREG_ROLLOUT_OFF + static_cast<int32_t>(random->below(LAST_ROLLOUT_MODE));
    p.kl_ratio_weighted = static_cast<int32_t>(random->below(2));
    p.count_empty_rows = static_cast<int32_t>(random->below(2));
    p.kl_coefficient = 0.04;
    p.entropy_coefficient = random->below(2) == 0 ? 0.01 : 0.0;
    p.off_policy_threshold = random->below(3) == 0 ? 0.05 : 0.0;
    p.log_ratio_limit = random->below(3) == 0 ? 0.5 : 0.0;
    p.dual_clip = p.surrogate == GRADREG_SURROGATE_CLIPPED && random->below(3) == 0 ? 3.0 : 0.0;
    return p;
}

std::vector<float> slopes(Random *random, size_t rows)
{
    std::vector<float> all = numbers(random, rows, 0, 1, false);
    for (float &x : all)
        x = random->below(5) == 0 ? 0.0f : x;
    return all;
}

Bytes mask_of(Random *random, size_t tokens)
{
    Bytes mask(tokens);
    for (unsigned char &one : mask)
        one = random->below(5) != 0;
    return mask;
}

Batch::Batch(const Side &cpu, const Side &cuda, Random *random, const Shape &shape,
             const Bytes &mask, double middle, bool edges, bool per_token, double rollout_width)
    : shape_(shape), per_token_(per_token),
      old_(cpu, cuda, numbers(random, shape.tokens, middle, 1.5, false)),
      ref_(cpu, cuda, numbers(random, shape.tokens, middle, 1.5, edges)),
      rollout_(cpu, cuda, numbers(random, shape.tokens, middle, rollout_width, false)),
      weight_(cpu, cuda, numbers(random, shape.tokens, 1, 0.5, false)),
      advantages_(cpu, cuda,
                  numbers(random, per_token ? shape.tokens : shape.sequences, 0, 1, false)),
      host_mask_(cpu, mask.size(), 1), device_mask_(cuda, mask.size(), 3)
{
    host_mask_.write(mask);
    device_mask_.write(mask);
}

gradreg_policy_batch Batch::on(const Side &side) const
{
    const gradreg_policy_batch nothing = GRADREG_POLICY_BATCH_INIT;
    gradreg_policy_batch b = nothing;
    b.sequences = shape_.sequences;
    b.length = shape_.length;
    b.row_offsets = shape_.packed ? shape_.offsets.data() : nullptr;
    b.old_logp = on_policy ? nullptr : old_.on(side);
    b.ref_logp = ref_.on(side);
    b.rollout_logp = rollout_.on(side);
    b.token_weight = weighted ? weight_.on(side) : nullptr;
    b.mask = static_cast<const uint8_t *>((side.is_cuda ? device_mask_ : host_mask_).data());
    b.advantages = advantages_.on(side);
    b.advantages_per_token = per_token_;
    b.group = shape_.group.data();
    return b;
}

Metrics::Metrics(const Side &cpu, const Side &cuda)
    : cpu_(cpu), cuda_(cuda), host_memory_(cpu, sizeof(gradreg_policy_metrics), 0),
      device_memory_(cuda, sizeof(gradreg_policy_metrics), 0)
{
    const gradreg_policy_metrics empty = GRADREG_POLICY_METRICS_INIT;
    Bytes start(sizeof(empty));
    std::memcpy(start.data(), &empty, sizeof(empty));
    host_memory_.write(start);
    device_memory_.write(start);
}

void Metrics::require_same(const std::string &what) const
{
    const Side *const sides[2] = { &cpu_, &cuda_ };
    const gradreg_policy_metrics empty = GRADREG_POLICY_METRICS_INIT;
    std::vector<double> numbers_of[2];
    for (int i = 0; i < 2; i++) {
        gradreg_policy_metrics m = empty;
        CALL(gradreg_policy_metrics_read(sides[i]->context, &m, on(*sides[i])));
        numbers_of[i] = { m.loss,
                          m.policy_loss,
                          m.kl,
                          m.entropy,
                          m.ratio_mean,
                          m.ratio_min,
                          m.ratio_max,
                          m.clip_low_fraction,
                          m.clip_high_fraction,
                          m.limited_fraction,
                          m.effective_sample_size,
                          static_cast<double>(m.tokens),
                          static_cast<double>(m.sequences),
                          static_cast<double>(m.empty_sequences),
                          static_cast<double>(m.non_finite) };
    }
    require_same_doubles(numbers_of[0], numbers_of[1], what);
}

namespace
{

void run_policy(unsigned number)
{
    Random random(number + 5000);
    const Shape shape = shape_of(&random);
    gradreg_policy policy = policy_of(&random, number);
    const bool edges = random.below(3) == 0, per_token = random.below(3) == 0;
    const bool on_policy = random.below(5) == 0;
    const size_t n = shape.tokens;
    const Side cpu(GRADREG_BACKEND_CPU), cuda(GRADREG_BACKEND_CUDA);
    const Floats logp(cpu, cuda, numbers(&random, n, -2, 1.5, edges));
    const Floats entropy(cpu, cuda, numbers(&random, n, 1, 0.9, false));
    const Floats dlogp(cpu, cuda, std::vector<float>(n, 7.0f));
    const Floats dentropy(cpu, cuda, std::vector<float>(n, 7.0f));
    const Bytes mask = mask_of(&random, n);
    const bool far =
        number % 10 == 1; /* weights whose squares no double holds, large and small */
    if (far) {
        policy.rollout_mode = GRADREG_ROLLOUT_TOKEN_TRUNCATE;
        policy.rollout_high = static_cast<double>(INFINITY);
    }
    Batch batch(cpu, cuda, &random, shape, mask, -2, edges, per_token, far ? 600 : 1.5);
    const Metrics metrics(cpu, cuda);
    size_t scratch = 0;
    batch.on_policy = on_policy;
    batch.weighted = number % 3 == 0;
    CALL(gradreg_policy_scratch_bytes(&scratch, shape.sequences));
    CALL(gradreg_context_reserve(cuda.context, scratch));

    const auto call = [&](const Side &side) {
        const gradreg_policy_gradient none = GRADREG_POLICY_GRADIENT_INIT;
        gradreg_policy_batch b = batch.on(side);
        gradreg_policy_gradient out = none;
        b.logp = logp.on(side);
        b.entropy = entropy.on(side);
        out.dlogp = dlogp.on(side);
        out.dentropy = dentropy.on(side);
        const Quiet quiet("gradreg_policy_loss");
        return gradreg_policy_loss(side.context, metrics.on(side), &out, &b, &policy);
    };
    const gradreg_status want = call(cpu);
    const std::string sentence = gradreg_last_error();
    if (!both_accept("the loss", want, sentence, call(cuda)))
        return;
    dlogp.require_same("dlogp");
    dentropy.require_same("dentropy");
    metrics.require_same("metrics");
}

void run_advantages(unsigned number)
{
    static const size_t counts[] = { 0, 1, 8, 33, 64, 1000 };
    const gradreg_advantage_params defaults = GRADREG_ADVANTAGE_PARAMS_INIT;
    Random random(number + 9000);
    gradreg_advantage_params p = defaults;
    const size_t size = 1 + random.below(8), count = random.pick(counts) / size * size;
    std::vector<int32_t> group(count);
    for (int32_t &one : group)
        one = static_cast<int32_t>(random.below(7)) - 3;
    p.baseline = GRADREG_BASELINE_GROUP_MEAN + static_cast<int32_t>(number % 3);
    p.scale = GRADREG_SCALE_NONE + static_cast<int32_t>(number / 3 % 3);
    p.singleton = GRADREG_SINGLETON_ZERO + static_cast<int32_t>(number / 9 % 2);
    if (number % 2 == 0)
        p.group = group.data();
    const Side cpu(GRADREG_BACKEND_CPU), cuda(GRADREG_BACKEND_CUDA);
    const Floats rewards(cpu, cuda, numbers(&random, count, 0.5, 1, random.below(2) == 0));
    const Floats out(cpu, cuda, std::vector<float>(count, 7.0f));
    const bool in_place = random.below(3) == 0;
    CALL(gradreg_context_reserve(cuda.context, 64 << 10));
    for (const Side *side : { &cpu, &cuda }) {
        const Quiet quiet("gradreg_advantages");
        CALL(gradreg_advantages(side->context, in_place ? rewards.on(*side) : out.on(*side),
                                rewards.on(*side), count, size, &p));
    }
    rewards.require_same("rewards");
    out.require_same("advantages");
}

} // namespace

std::vector<Case> loss_cases()
{
    return { { "policy", run_policy, 800, 120 }, { "advantages", run_advantages, 200, 40 } };
}

} // namespace compare
