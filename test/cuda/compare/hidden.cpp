/* hidden.cpp - log-probs from hidden states and a head weight, and their gradients. */
#include <cmath>
#include <cstdio>
#include <exception>

#include "losses.h"

namespace compare
{

namespace
{

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

/* Of every element, whatever the array's largest. */
void require_equal(const Array &array, const Bytes &want, const std::string &what)
{
    const gradreg_type type = array.type();
    for (int side = 0; side < 2; side++) {
        const Bytes got = array.read(side == 1);
        for (size_t i = 0; i < got.size() / type_bytes(type); i++) {
            const double x = value_of(get(got, type, i), type);
            const double y = value_of(get(want, type, i), type);
            char text[120];
            if (x == y)
                continue;
            std::snprintf(text, sizeof(text), ": element %zu is %a %s, expected %a", i, x,
                          side == 1 ? "on CUDA" : "on the CPU", y);
            throw Failure(what + text);
        }
    }
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

/* f16, and so wide that the weight is converted in two panels: 64 rows of it, and the rest. */
gradreg_linear_params panels_of(Random *random, unsigned number)
{
    const size_t width = 65537;
    gradreg_linear_params p = linear_of(random, LAST_TYPE * number + 2);
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

std::vector<int32_t> targets_of(Random *random, const gradreg_linear_params &p)
{
    std::vector<int32_t> targets(p.rows);
    for (int32_t &one : targets)
        one = random->below(4) == 0
                  ? -1
                  : static_cast<int32_t>(random->below(static_cast<uint32_t>(p.vocabulary)));
    return targets;
}

/* dL/dlogp of each row; in a third of the cases one is huge, tiny or not finite. */
std::vector<float> edged(Random *random, unsigned number, size_t n)
{
    static const float edges[] = { INFINITY, -INFINITY, NAN, 1e30f, 1e-30f };
    Random extra(number + 90001);
    std::vector<float> made = slopes(random, n);
    if (n > 0 && extra.below(3) == 0)
        made[extra.below(static_cast<uint32_t>(n))] = extra.pick(edges);
    return made;
}

/* Products of f32 are slow where there are tensor cores: of bf16 there are none. */
class Narrow
{
  public:
    explicit Narrow(gradreg_type type) : type_(type), before_(products())
    {
    }
    ~Narrow() noexcept(false)
    {
        if (std::uncaught_exceptions() == 0)
            require(type_ != GRADREG_TYPE_BF16 || products() == before_,
                    "products of bf16 are made without any of f32");
    }

  private:
    static uint64_t products()
    {
#ifdef GR_CUDA_EMULATED
        return emulated_cuda_f32_products();
#else
        return 0;
#endif
    }
    gradreg_type type_;
    uint64_t before_;
};

/* Both calls from hidden states, on both sides. */
class Hidden
{
  public:
    Hidden(Random *random, unsigned number, const gradreg_linear_params &p)
        : cpu(GRADREG_BACKEND_CPU), cuda(GRADREG_BACKEND_CUDA), p_(p),
          gradient_(p.gradient_type != 0 ? p.gradient_type : p.type),
          target_(targets_of(random, p)),
          hidden_(cpu, cuda, p.type, hidden_of(random, p, target_)),
          weight_(cpu, cuda, p.type, weight_of(random, p)), targets_(cpu, cuda, target_),
          made_(cpu, cuda, p.rows), dlogp_(cpu, cuda, edged(random, number, p.rows)),
          with_entropy_(random->below(2) == 0),
          dentropy_(cpu, cuda, numbers(random, p.rows, 0, 0.1, false)),
          dhidden_(cpu, cuda, gradient_,
                   Bytes(p.rows * p.hidden_stride * type_bytes(gradient_))),
          dweight_(cpu, cuda, numbers(random, p.vocabulary * p.width, 0, 0.1, false)),
          dweight_before_(dweight_.read(false)), no_dhidden_(random->below(6) == 0),
          no_dweight_(!no_dhidden_ && random->below(6) == 0)
    {
        size_t scratch = 0;
        CALL(gradreg_linear_logprobs_scratch_bytes(&scratch, &p));
        CALL(gradreg_context_reserve(cuda.context, scratch));
    }

    gradreg_status forward(const Side &side) const
    {
        return gradreg_linear_logprobs_forward(
            side.context, made_.logp.on(side), with_entropy_ ? made_.entropy.on(side) : nullptr,
            made_.sums.on(side), hidden_.on(side), weight_.on(side), targets_.on(side), &p_);
    }
    gradreg_status backward(const Side &side) const
    {
        return gradreg_linear_logprobs_backward(
            side.context, no_dhidden_ ? nullptr : dhidden_.on(side),
            no_dweight_ ? nullptr : dweight_.on(side), hidden_.on(side), weight_.on(side),
            targets_.on(side), made_.sums.on(side),
            with_entropy_ ? made_.entropy.on(side) : nullptr, dlogp_.on(side),
            with_entropy_ ? dentropy_.on(side) : nullptr, &p_);
    }
    void require_near() const
    {
        compare::require_near(made_.logp, "logp");
        compare::require_near(made_.entropy, "entropy");
        compare::require_near(made_.sums, "log_sum_exp");
        compare::require_near(dhidden_, "dhidden");
        compare::require_near(dweight_, "dweight");
        if (p_.vocabulary == 1)
            require_certain();
    }

    const Side cpu, cuda;

  private:
    /* A token that is alone is certain, however its logit was rounded: there is nothing to bound. */
    void require_certain() const
    {
        const Bytes zeros(p_.rows * sizeof(float)), slopes = dlogp_.read(false);
        require_equal(made_.logp, zeros, "logp of the only token");
        if (with_entropy_)
            require_equal(made_.entropy, zeros, "entropy of the only token");
        for (size_t r = 0; r < p_.rows; r++)
            if (!std::isfinite(value_of(get(slopes, GRADREG_TYPE_F32, r), GRADREG_TYPE_F32)))
                return;
        const bool kept = no_dweight_ || p_.add_weight_gradient != 0;
        require_equal(dhidden_, Bytes(dhidden_.read(false).size()),
                      "dhidden of the only token");
        require_equal(dweight_, kept ? dweight_before_ : Bytes(dweight_before_.size()),
                      "dweight of the only token");
    }

    const gradreg_linear_params p_;
    const gradreg_type gradient_;
    const std::vector<int32_t> target_;
    const Array hidden_, weight_;
    const Numbers<int32_t> targets_;
    const LogProbs made_;
    const Floats dlogp_;
    const bool with_entropy_;
    const Floats dentropy_;
    const Array dhidden_;
    const Floats dweight_;
    const Bytes dweight_before_;
    const bool no_dhidden_, no_dweight_;
};

void run_hidden(Random &random, unsigned number, const gradreg_linear_params &p)
{
    const Hidden rows(&random, number, p);
    const Side &cpu = rows.cpu, &cuda = rows.cuda;
    if (rows.forward(cpu) == GRADREG_ERROR_UNSUPPORTED) { /* a build without a BLAS */
        refused_cases++;
        return;
    }
    CALL(rows.forward(cpu));
    CALL(rows.backward(cpu));
    const gradreg_status first = call_captured(cuda, [&] { return rows.forward(cuda); });
    require(first == GRADREG_ERROR_STATE, "cuBLAS is not opened in a capture");
    CALL(rows.forward(cuda));
    const Narrow narrow(p.type);
    if (number % 3 == 0) {
        CALL(call_captured(cuda, [&] { return rows.backward(cuda); }));
    } else {
        const Quiet quiet("log-probs from hidden states");
        CALL(rows.forward(cuda));
        CALL(rows.backward(cuda));
    }
    rows.require_near();
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

std::vector<Case> hidden_cases()
{
    return { { "linear", run_linear, 300, 30 }, { "panels", run_panels, 6, 1 } };
}

} // namespace compare
