/* steps.cpp - see steps.h. */
#include "steps.h"

#include <cmath>
#include <cstring>

namespace compare
{

/* ---- variants --------------------------------------------------------------------------- */

namespace
{

enum { LAYERS = 3 };

void add_segments(Variant *v, Random *random, bool mixed)
{
    static const uint64_t counts[] = { 0,   1,   2,    31,   32,   33,   255,  256,
                                       257, 511, 1021, 4095, 4096, 4097, 8200, 12289 };
    static const uint32_t roles[] = { GRADREG_ROLE_ATTENTION, GRADREG_ROLE_MLP,
                                      GRADREG_ROLE_NORM, GRADREG_ROLE_ATTENTION,
                                      GRADREG_ROLE_EMBEDDING };
    const gradreg_segment empty = GRADREG_SEGMENT_INIT;
    const unsigned n = 2 + random->below(6);
    uint64_t offset = random->below(3);
    for (unsigned i = 0; i < n; i++) {
        gradreg_segment s = empty;
        s.offset = offset;
        s.count = random->pick(counts);
        s.layer = static_cast<int32_t>(random->below(LAYERS + 1)) - 1;
        s.role = s.layer < 0 ? random->pick(roles) : roles[random->below(4)];
        if (random->below(12) == 0)
            s.flags = GRADREG_SEGMENT_FROZEN;
        if (mixed) {
            const auto &pair = type_pairs[random->below(TYPE_PAIRS)];
            s.param_type = pair.param;
            s.grad_type = pair.grad;
        }
        offset += s.count + (random->below(3) == 0 ? random->below(9) : 0);
        v->segments.push_back(s);
        v->absent.push_back(v->scattered && random->below(8) == 0);
    }
    v->segments[0].layer = 0; /* noise and the default schedule find something */
    v->segments[0].role = GRADREG_ROLE_ATTENTION;
    v->segments[1].layer = 2;
    v->segments[1].role = GRADREG_ROLE_MLP;
    v->segments[1].count += 300;
    for (unsigned i = 2; i < n; i++)
        v->segments[i].offset += 300;
    v->end = offset + 300;
}

void add_choices(Variant *v, Random *random)
{
    static const double epsilons[] = { 1e-3, 0.1, 1e-5, 2.0 };
    static const double clips[] = { 0.0, 10.0, 1.0 };
    gradreg_regularizer_params *p = &v->params;
    p->epsilon = random->pick(epsilons);
    p->strength = random->below(6) == 0 ? 0.0 : 0.1;
    p->clip_first = random->pick(clips);
    p->clip_second = random->pick(clips);
    p->common_clip = random->below(3) == 0;
    if (random->below(4) == 0)
        p->output = GRADREG_OUTPUT_PRODUCT;
    if (random->below(3) == 0)
        p->direction = GRADREG_DIRECTION_GRADIENT + static_cast<int32_t>(random->below(4));
    p->first_gradient = GRADREG_FIRST_GRADIENT_COPIED + static_cast<int32_t>(random->below(2));
    p->second_gradient =
        GRADREG_SECOND_GRADIENT_OVERWRITES + static_cast<int32_t>(random->below(2));
    if (random->below(5) == 0)
        p->second_pass = GRADREG_SECOND_PASS_TRUNCATED;
    p->placement = GRADREG_PLACEMENT_IN_PLACE + (random->below(4) == 0);
    p->restore = GRADREG_RESTORE_COPY + (random->below(3) == 0);
    p->rounding = GRADREG_ROUNDING_NEAREST + (random->below(4) == 0);
    p->non_finite_first = GRADREG_NON_FINITE_ZERO + (random->below(3) == 0);
    p->non_finite_second =
        random->below(3) == 0 ? GRADREG_NON_FINITE_ZERO : GRADREG_NON_FINITE_KEEP_FIRST;
    p->min_fidelity = random->below(6) == 0 ? 0.9 : 0.0;
    p->interval = random->below(4) == 0 ? 2 : 1;
    p->seed = random->word();
    if (random->below(5) == 0)
        p->schedule.outside_multiplier = 0.5;
    if (random->below(6) == 0) {
        p->warmup_steps = 2;
        p->warmup = GRADREG_WARMUP_LINEAR;
        p->decay = GRADREG_DECAY_COSINE;
        p->decay_steps = 5;
    }
    if (random->below(3) == 0) {
        p->noise.rule = GRADREG_NOISE_RELATIVE + static_cast<int32_t>(random->below(3));
        p->noise.first_layer = 0;
        p->noise.last_layer = static_cast<int32_t>(random->below(2));
    }
    if (random->below(6) == 0) {
        p->adaptive.a_max = 2.0;
        p->adaptive.a_min = 0.5;
    }
    if (random->below(4) == 0)
        p->compute_type = random->below(2) == 0 ? GRADREG_TYPE_BF16 : GRADREG_TYPE_F16;
}

/* Most of what is refused is left out: some refusals are to be the same too. */
void avoid_refusals(gradreg_regularizer_params *p, bool mixed, Random *random)
{
    if (random->below(10) == 0)
        return;
    if (p->step == GRADREG_STEP_RELATIVE || p->second_pass == GRADREG_SECOND_PASS_TRUNCATED)
        p->output = GRADREG_OUTPUT_REGULARIZED;
    if (p->depth == GRADREG_DEPTH_ON_PENALTY)
        p->second_pass = GRADREG_SECOND_PASS_FULL;
    if (p->second_pass == GRADREG_SECOND_PASS_TRUNCATED && p->clip_second > 0)
        p->common_clip = 1;
    if (p->placement == GRADREG_PLACEMENT_OUT_OF_PLACE)
        p->restore = GRADREG_RESTORE_COPY;
    if (p->noise.rule == GRADREG_NOISE_STEP &&
        (mixed || p->param_type != GRADREG_TYPE_F32 || p->compute_type != 0))
        p->noise.rule = GRADREG_NOISE_NEFTUNE;
}

void add_surroundings(Variant *v, Random *random)
{
    if (random->below(8) == 0)
        v->size_of_params = 3e4; /* f16 saturates, steps get lost */
    if (random->below(10) == 0)
        v->size_of_grads = random->below(2) == 0 ? 1e-25 : 1e25; /* sums leave f32's range */
    if (random->below(6) == 0)
        v->bad_pass = static_cast<int>(random->below(3));
    if (random->below(4) == 0)
        v->grad_scale = 1024.0;
    v->wants_found_inf = random->below(3) == 0;
}

} // namespace

/* The first five choices are taken in turn, in all combinations; the rest is drawn. */
Variant variant(unsigned number)
{
    const gradreg_regularizer_params defaults = GRADREG_REGULARIZER_PARAMS_INIT;
    Random random(number);
    Variant v;
    unsigned i = number;
    v.params = defaults;
    v.params.layer_count = LAYERS;
    v.params.param_type = type_pairs[i % TYPE_PAIRS].param;
    v.params.grad_type = type_pairs[i % TYPE_PAIRS].grad;
    i /= TYPE_PAIRS;
    v.params.step = GRADREG_STEP_RAW + static_cast<int32_t>(i % LAST_STEP);
    i /= LAST_STEP;
    v.params.difference = i % 2 == 0 ? GRADREG_DIFFERENCE_FORWARD : GRADREG_DIFFERENCE_CENTRAL;
    i /= 2;
    v.params.penalty = GRADREG_PENALTY_SQUARED_NORM + static_cast<int32_t>(i % 2);
    i /= 2;
    v.params.depth = GRADREG_DEPTH_ON_UPDATE + static_cast<int32_t>(i % 2);
    v.scattered = random.below(2) == 0;
    v.misalignment = random.below(5);
    v.seed = random.word();
    const bool mixed = v.scattered && random.below(3) == 0;
    add_segments(&v, &random, mixed);
    add_choices(&v, &random);
    avoid_refusals(&v.params, mixed, &random);
    add_surroundings(&v, &random);
    if (!v.scattered && random.below(4) == 0) { /* a slice of the flat buffer */
        v.begin = random.below(static_cast<uint32_t>(v.end / 2 + 1));
        v.params.slice_begin = v.begin;
        v.params.slice_count = v.end - v.begin;
    }
    v.name = "variant " + std::to_string(number);
    return v;
}

/* ---- buffers ------------------------------------------------------------------------------ */

bool Stepper::wanted(Buffer buffer) const
{
    const gradreg_regularizer_params &p = variant.params;
    switch (buffer) {
    case FIRST: return p.first_gradient == GRADREG_FIRST_GRADIENT_CALLER_KEEPS;
    case PERTURBED: return p.placement == GRADREG_PLACEMENT_OUT_OF_PLACE;
    case MASTER: return p.restore == GRADREG_RESTORE_MASTER;
    case DIRECTION: return p.direction == GRADREG_DIRECTION_CALLER;
    default: return true;
    }
}

gradreg_type Stepper::type(Buffer buffer, size_t segment) const
{
    const gradreg_segment &s = variant.segments[segment];
    if (buffer == MASTER)
        return GRADREG_TYPE_F32;
    if (buffer == PARAMS || buffer == PERTURBED)
        return s.param_type != 0 ? s.param_type : variant.params.param_type;
    return s.grad_type != 0 ? s.grad_type : variant.params.grad_type;
}

size_t Stepper::elements(size_t segment) const
{
    const gradreg_segment &s = variant.segments[segment];
    const uint64_t from = std::max(s.offset, variant.begin);
    const uint64_t to = std::min(s.offset + s.count, variant.end);
    return from < to ? static_cast<size_t>(to - from) : 0;
}

void Stepper::lay_out(Buffer buffer)
{
    const size_t off = variant.misalignment;
    if (!variant.scattered) {
        const size_t size = type_bytes(type(buffer, 0));
        memory_[buffer].push_back(std::make_unique<Memory>(
            side, static_cast<size_t>(variant.end - variant.begin) * size, off * size));
        return;
    }
    for (size_t i = 0; i < variant.segments.size(); i++) {
        const size_t size = type_bytes(type(buffer, i));
        const bool here = elements(i) > 0;
        memory_[buffer].push_back(
            here ? std::make_unique<Memory>(side, elements(i) * size, off * size) : nullptr);
        const bool absent = variant.absent[i] && (buffer == GRADS || buffer == FIRST);
        pointers_[buffer].push_back(here && !absent ? memory_[buffer].back()->data() : nullptr);
    }
}

void Stepper::name_buffers()
{
    const gradreg_buffers empty = GRADREG_BUFFERS_INIT;
    gradreg_buffers &b = buffers_;
    b = empty;
    if (scale_ != nullptr)
        b.grad_scale = static_cast<const float *>(scale_->data());
    if (found_ != nullptr)
        b.found_inf = static_cast<float *>(found_->data());
    const auto flat = [&](Buffer which) {
        return has(which) ? memory_[which][0]->data() : nullptr;
    };
    const auto each = [&](Buffer which) {
        return has(which) ? pointers_[which].data() : nullptr;
    };
    if (variant.scattered) {
        b.param_pointers = each(PARAMS);
        b.grad_pointers = each(GRADS);
        b.first_grad_pointers = each(FIRST);
        b.perturbed_param_pointers = each(PERTURBED);
        b.master_param_pointers = each(MASTER);
        b.direction_pointers = each(DIRECTION);
        return;
    }
    b.params = flat(PARAMS);
    b.grads = flat(GRADS);
    b.first_grads = flat(FIRST);
    b.perturbed_params = flat(PERTURBED);
    b.master_params = flat(MASTER);
    b.direction = flat(DIRECTION);
    b.count = static_cast<size_t>(variant.end - variant.begin);
    b.slice_begin = variant.begin;
}

Stepper::Stepper(const Side &side_, const Variant &variant_) : side(side_), variant(variant_)
{
    created = gradreg_regularizer_create(&reg, side.context, variant.segments.data(),
                                         variant.segments.size(), &variant.params);
    if (created != GRADREG_OK) {
        sentence = gradreg_last_error();
        return;
    }
    for (int b = 0; b < BUFFERS; b++)
        if (wanted(static_cast<Buffer>(b)))
            lay_out(static_cast<Buffer>(b));
    if (variant.grad_scale != 0) {
        Bytes bytes(sizeof(float));
        put(&bytes, GRADREG_TYPE_F32, 0, bits_of(variant.grad_scale, GRADREG_TYPE_F32));
        scale_ = std::make_unique<Memory>(side, sizeof(float), 0);
        scale_->write(bytes);
    }
    if (variant.wants_found_inf) {
        found_ = std::make_unique<Memory>(side, sizeof(float), 0);
        found_->write(Bytes(sizeof(float)));
    }
    const size_t rows = static_cast<size_t>(variant.params.layer_count) + 1;
    rows_ = std::make_unique<Memory>(side, rows * GRADREG_TERMS_COLUMNS * sizeof(double), 0);
    name_buffers();
}

Stepper::~Stepper()
{
    gradreg_regularizer_destroy(reg);
}

/* A flat buffer is written whole, so that what no segment owns is known too. */
void Stepper::write(Buffer buffer, size_t segment, const Bytes &bytes)
{
    if (bytes.empty())
        return;
    if (variant.scattered) {
        memory_[buffer][segment]->write(bytes);
        return;
    }
    const gradreg_segment &s = variant.segments[segment];
    const uint64_t at = std::max(s.offset, variant.begin) - variant.begin;
    side.write(static_cast<char *>(memory_[buffer][0]->data()) +
                   static_cast<size_t>(at) * type_bytes(type(buffer, segment)),
               bytes.data(), bytes.size());
}

void Stepper::fill(uint64_t seed)
{
    for (int b = 0; b < BUFFERS && !variant.scattered; b++)
        if (has(static_cast<Buffer>(b)))
            memory_[b][0]->write(Bytes(memory_[b][0]->size(), 0x3c));
    for (size_t i = 0; i < variant.segments.size(); i++) {
        const size_t n = elements(i);
        Random random(seed + i);
        const gradreg_type param = type(PARAMS, i), grad = type(GRADS, i);
        Bytes params(n * type_bytes(param)), master(n * 4), direction(n * type_bytes(grad));
        for (size_t k = 0; k < n; k++) {
            const uint32_t wide =
                bits_of(random.unit() * variant.size_of_params, GRADREG_TYPE_F32);
            put(&master, GRADREG_TYPE_F32, k, wide);
            put(&params, param, k, bits_of(value_of(wide, GRADREG_TYPE_F32), param));
            put(&direction, grad, k, bits_of(random.unit(), grad));
        }
        write(PARAMS, i, params);
        if (has(PERTURBED))
            write(PERTURBED, i, params);
        if (has(MASTER))
            write(MASTER, i, master);
        if (has(DIRECTION))
            write(DIRECTION, i, direction);
    }
}

void Stepper::make_gradient(uint64_t seed, int pass)
{
    const Buffer to = pass == 0 && has(FIRST) ? FIRST : GRADS;
    for (size_t i = 0; i < variant.segments.size(); i++) {
        const size_t n = elements(i);
        Random random(seed * 64 + static_cast<uint64_t>(pass)), shared(seed * 64 + i + 7);
        const gradreg_type grad = type(to, i);
        Bytes bytes(n * type_bytes(grad));
        for (size_t k = 0; k < n; k++) {
            const double g = shared.unit() + 0.1 * random.unit();
            put(&bytes, grad, k, bits_of(g * variant.size_of_grads, grad));
        }
        if (pass == variant.bad_pass && i == 1 && n > 3)
            put(&bytes, grad, 3, bits_of(static_cast<double>(NAN), grad));
        write(to, i, bytes);
    }
}

Bytes Stepper::bytes(Buffer buffer) const
{
    Bytes all;
    for (const auto &memory : memory_[buffer])
        if (memory != nullptr) {
            const Bytes some = memory->read();
            all.insert(all.end(), some.begin(), some.end());
        }
    return all;
}

std::vector<double> Stepper::terms() const
{
    double *const rows = static_cast<double *>(rows_->data());
    {
        const Quiet quiet("gradreg_regularizer_terms_enqueue");
        CALL(gradreg_regularizer_terms_enqueue(reg, rows));
    }
    const Bytes bytes = rows_->read();
    std::vector<double> all(bytes.size() / sizeof(double));
    std::memcpy(all.data(), bytes.data(), bytes.size());
    return all;
}

float Stepper::found_inf() const
{
    return found_ == nullptr ? 0.0f
                             : static_cast<float>(value_of(
                                   get(found_->read(), GRADREG_TYPE_F32, 0), GRADREG_TYPE_F32));
}

void require_same_buffers(const Stepper &cpu, const Stepper &cuda, const std::string &when)
{
    static const char *const names[BUFFERS] = { "params",           "grads",  "first_grads",
                                                "perturbed_params", "master", "direction" };
    for (int b = 0; b < BUFFERS; b++) {
        const Buffer buffer = static_cast<Buffer>(b);
        if (!cpu.has(buffer))
            continue;
        /* Bytes first: mixed types have no common element. */
        const Bytes a = cpu.bytes(buffer), c = cuda.bytes(buffer);
        if (a == c) {
            compared_bytes += a.size();
            continue;
        }
        require_same(a, c, cpu.type(buffer, 0), when + ": " + names[b]);
    }
    require(cpu.found_inf() == cuda.found_inf(), when + ": found_inf differs");
}

} // namespace compare
