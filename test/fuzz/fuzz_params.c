/* fuzz_params.c - any bytes in the parameter structs, and a walk through the calls of a step.
 *
 * In: bytes that become edits of a context's and a regularizer's parameters: any field, any byte,
 * struct_size too, which then has exactly that much memory behind it; callbacks and tables are
 * ours or NULL. Out: an abort when a struct is accepted though the header's rules, written down
 * below in other words than the library's, say no; or refused though they say yes; or when the
 * walk goes wrong (walk.h).
 *
 * Build it like fuzz_names.c. */
#ifdef GR_FUZZ_STANDALONE
#define _POSIX_C_SOURCE 200809L /* scandir */
#endif

#include <math.h>
#include <stddef.h>

#include "walk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* ---- edits ------------------------------------------------------------------------- */

static uint64_t take_value(struct bytes *in)
{
    static const double reals[] = {
        0.0,   -0.0, 1.0, 0.5, -1.0, 2.0, 1e-3, 1e300, 4e-320, (double)NAN, (double)INFINITY,
        1e-30, 37.5
    };
    const uint32_t how = take(in);
    uint64_t bits;

    if (how < 128)
        return how % 8;
    if (how < 144)
        return (uint64_t)0 - how % 4;
    if (how < 208) {
        memcpy(&bits, &reals[how % (sizeof(reals) / sizeof(reals[0]))], sizeof(bits));
        return bits;
    }
    return take_64(in);
}

/* Fields begin at multiples of 4 or 8 bytes. */
static void edit(unsigned char *bytes, size_t size, struct bytes *in)
{
    const size_t place = take(in) + (size_t)256 * (take(in) % 4);
    const size_t at = place * 4 % size / 4 * 4;
    const uint64_t value = take_value(in);
    const size_t width = at % 8 == 0 && at + 8 <= size && take(in) < 128 ? 8 : 4;

    memcpy(bytes + at, &value, width < size - at ? width : size - at);
}

/* A copy with exactly struct_size bytes behind it, as far as a struct can be that long. */
static void *with_its_size(const void *made, size_t size, struct bytes *in)
{
    enum { LONGEST = 4096 };
    uint32_t says;
    memcpy(&says, made, sizeof(says));
    const size_t bytes = says < sizeof(says) ? sizeof(says) : says > LONGEST ? size : says;
    unsigned char *copy = calloc(1, bytes);

    if (copy == NULL)
        abort();
    memcpy(copy, made, bytes < size ? bytes : size);
    if (bytes > size && take(in) < 64)
        copy[size + take(in) % (bytes - size)] = 1;
    return copy;
}

/* Bytes behind the known struct that ask for something. */
static bool has_tail(const void *copy, size_t size)
{
    uint32_t says;
    memcpy(&says, copy, sizeof(says));
    for (size_t i = size; i < says; i++)
        if (((const unsigned char *)copy)[i] != 0)
            return true;
    return false;
}

/* ---- contexts ---------------------------------------------------------------------- */

static void run_all(void *user, size_t count, void (*body)(void *task, size_t index),
                    void *task)
{
    (void)user;
    for (size_t i = count; i-- > 0;)
        body(task, i);
}

static void read_remark(void *user, gradreg_log_level level, const char *message)
{
    (void)user;
    if (level < GRADREG_LOG_ERROR || level > GRADREG_LOG_INFO || message[0] == '\0' ||
        strchr(message, '\n') != NULL || strlen(message) > 511)
        fuzz_fail("a strange remark", GRADREG_OK);
}

static void edit_context(gradreg_context_params *p, struct memory *memory, struct bytes *in)
{
    const gradreg_context_params init = GRADREG_CONTEXT_PARAMS_INIT;
    const uint32_t hooks = take(in);

    *p = init;
    for (uint32_t left = take(in) % 5; left > 0; left--)
        edit((unsigned char *)p, sizeof(*p), in);
    p->allocator.user = memory;
    p->allocator.allocate = (hooks & 1) != 0 ? NULL : limited_allocate;
    p->allocator.release = (hooks & 2) != 0 ? NULL : limited_release;
    p->parallel_for.function = (hooks & 4) != 0 ? run_all : NULL;
    p->log.function = (hooks & 8) != 0 ? read_remark : NULL;
}

static bool size_is_wrong(uint32_t says, size_t size)
{
    return says < size || says > 4096;
}

static struct verdict judge_context(const gradreg_context_params *p)
{
    const bool half = (p->allocator.allocate == NULL) != (p->allocator.release == NULL);
    const bool reserved = p->allocator.reserved != NULL ||
                          p->parallel_for.reserved[0] != NULL ||
                          p->parallel_for.reserved[1] != NULL || p->log.reserved0 != 0 ||
                          p->log.reserved1 != NULL;
    struct verdict v = { false, false };

    v.invalid = p->backend < 0 || p->backend > 2 || p->threads < 0 || p->threads > 1024 ||
                half || reserved || p->log.level < -1 || p->log.level > 3 ||
                (p->device != 0 && p->backend != GRADREG_BACKEND_CUDA);
    v.unsupported = p->backend == GRADREG_BACKEND_CUDA;
    return v;
}

static gradreg_context *make_context(struct memory *memory, struct bytes *in)
{
    gradreg_context_params made;
    gradreg_context *context = (gradreg_context *)memory;
    edit_context(&made, memory, in);
    void *copy = with_its_size(&made, sizeof(made), in);
    struct verdict v = judge_context(&made);

    if (size_is_wrong(made.struct_size, sizeof(made)))
        v = (struct verdict){ true, false };
    else
        v.unsupported |= has_tail(copy, sizeof(made));
    const gradreg_status status = gradreg_context_create(&context, copy);
    check_verdict(v, status);
    if ((status == GRADREG_OK) != (context != NULL))
        fuzz_fail("a context without success", status);
    free(copy);
    return context;
}

/* ---- a regularizer's parameters ---------------------------------------------------- */

static int32_t same_everywhere(void *user, double *values, size_t count, void *stream)
{
    (void)user, (void)values, (void)count, (void)stream;
    return 0;
}

enum { MULTIPLIERS = 64 };

static void edit_params(gradreg_regularizer_params *p, double *multipliers, struct bytes *in)
{
    const gradreg_regularizer_params init = GRADREG_REGULARIZER_PARAMS_INIT;
    const uint32_t hooks = take(in);

    *p = init;
    p->layer_count = 4;
    for (uint32_t left = take(in) % 12; left > 0; left--)
        edit((unsigned char *)p, sizeof(*p), in);
    for (int i = 0; i < MULTIPLIERS; i++)
        multipliers[i] = i / 8.0;
    if ((hooks & 2) != 0) {
        const uint64_t value = take_value(in);
        memcpy(&multipliers[take(in) % MULTIPLIERS], &value, sizeof(value));
    }
    const bool given = (hooks & 1) == 0 && p->layer_count <= MULTIPLIERS;
    p->schedule.table = given ? multipliers : NULL;
    p->all_reduce.function = (hooks & 4) != 0 ? NULL : same_everywhere;
}

static bool is_finite_in(double x, double least, double largest)
{
    return isfinite(x) && x >= least && x <= largest;
}

static const double none = HUGE_VAL;

static bool schedule_is_invalid(const gradreg_schedule *s, int32_t layers)
{
    const bool by_default = s->first_layer == -1 && s->full_layer == -1;
    const bool ordered =
        0 <= s->first_layer && s->first_layer <= s->full_layer && s->full_layer <= layers;
    bool wrong = s->curve < 0 || s->curve > 5 || s->reserved0 != 0 || s->reserved1[0] != 0 ||
                 s->reserved1[1] != 0 || s->reserved1[2] != 0 || !(by_default || ordered);

    wrong |= !is_finite_in(s->outside_multiplier, 0, none);
    if (s->curve == GRADREG_CURVE_POWER)
        wrong |= !is_finite_in(s->power, 0x1p-1074, none);
    if (s->curve != GRADREG_CURVE_TABLE)
        return wrong;
    for (int32_t l = 0; s->table != NULL && l < layers; l++)
        wrong |= !is_finite_in(s->table[l], 0, none);
    return wrong || s->table == NULL;
}

/* Constants that there are, 0 counted, and those of them that come later. */
static void judge_choice(struct verdict *v, int32_t value, int32_t last, uint32_t later)
{
    if (value < 0 || value > last)
        v->invalid = true;
    else if ((later >> value & 1) != 0)
        v->unsupported = true;
}

static void judge_choices(struct verdict *v, const gradreg_regularizer_params *p)
{
    judge_choice(v, p->param_type, 3, 0);
    judge_choice(v, p->grad_type, 3, 0);
    judge_choice(v, p->compute_type, 3, 0);
    judge_choice(v, p->update_type, 3, 1u << 1 | 1u << 2 | 1u << 3);
    judge_choice(v, p->step, 3, 0);
    judge_choice(v, p->difference, 3, 1u << 2);
    judge_choice(v, p->penalty, 2, 0);
    judge_choice(v, p->depth, 2, 0);
    judge_choice(v, p->direction, 4, 0);
    judge_choice(v, p->output, 3, 1u << 3);
    judge_choice(v, p->common_clip, 1, 0);
    judge_choice(v, p->first_gradient, 3, 1u << 3);
    judge_choice(v, p->second_gradient, 2, 0);
    judge_choice(v, p->second_pass, 2, 0);
    judge_choice(v, p->placement, 2, 0);
    judge_choice(v, p->restore, 2, 0);
    judge_choice(v, p->perturb_from_master, 1, 1u << 1);
    judge_choice(v, p->rounding, 2, 0);
    judge_choice(v, p->non_finite_first, 2, 0);
    judge_choice(v, p->non_finite_second, 3, 0);
    v->invalid |= p->non_finite_second == GRADREG_NON_FINITE_PROPAGATE;
    judge_choice(v, p->realised_step, 1, 1u << 1);
    judge_choice(v, p->warmup, 2, 0);
    judge_choice(v, p->decay, 3, 0);
    judge_choice(v, p->noise.rule, 4, 0);
}

static bool numbers_are_invalid(const gradreg_regularizer_params *p)
{
    const gradreg_adaptive *a = &p->adaptive;
    const bool adaptive = is_finite_in(a->a_min, 0, none) && is_finite_in(a->a_max, 0, none) &&
                          is_finite_in(a->power, -none, none) && is_finite_in(a->ema, 0, 1) &&
                          a->ema < 1 && (a->a_max == 0 || a->a_max >= a->a_min);
    return !adaptive || !is_finite_in(p->strength, 0, none) ||
           !is_finite_in(p->epsilon, 0x1p-1074, none) ||
           !is_finite_in(p->clip_first, 0, none) || !is_finite_in(p->clip_second, 0, none) ||
           !is_finite_in(p->min_fidelity, 0, 1) || !is_finite_in(p->strength_end, 0, none) ||
           !is_finite_in(p->noise.scale, -none, none);
}

static bool counts_are_invalid(const gradreg_regularizer_params *p)
{
    const int32_t world = p->world == 0 ? 1 : p->world;
    const bool decays = p->decay == GRADREG_DECAY_LINEAR || p->decay == GRADREG_DECAY_COSINE;
    return p->interval < 0 || (decays && p->decay_steps == 0) || world < 1 || world > 1 << 20 ||
           p->rank < 0 || p->rank >= world || (world > 1 && p->all_reduce.function == NULL) ||
           p->all_reduce.reserved0 != 0 || p->all_reduce.reserved1 != NULL ||
           ((p->regularized_roles | p->perturbed_roles | p->noise.roles) & ~63u) != 0;
}

static void judge_combinations(struct verdict *v, const gradreg_regularizer_params *p)
{
    const bool product = p->output == GRADREG_OUTPUT_PRODUCT;
    const bool truncated = p->second_pass == GRADREG_SECOND_PASS_TRUNCATED;
    const int32_t param = p->param_type == 0 ? GRADREG_TYPE_F32 : p->param_type;
    const int32_t grad = p->grad_type == 0 ? GRADREG_TYPE_F32 : p->grad_type;

    v->unsupported |= product && (truncated || p->step == GRADREG_STEP_RELATIVE);
    v->unsupported |= truncated && (p->depth == GRADREG_DEPTH_ON_PENALTY ||
                                    (p->clip_second > 0 && p->common_clip == 0));
    v->unsupported |=
        p->placement == GRADREG_PLACEMENT_OUT_OF_PLACE && p->restore == GRADREG_RESTORE_MASTER;
    v->unsupported |= grad != GRADREG_TYPE_F32 && grad != param;
}

/* ---- with a table ------------------------------------------------------------------ */

enum { SEGMENTS = 4, END = 96 };

static void make_table(gradreg_segment *segments, const gradreg_regularizer_params *p)
{
    static const gradreg_segment made[SEGMENTS] = {
        { 0, 32, 0, 0, 0, GRADREG_ROLE_ATTENTION, 0, 0, 0, { 0 } },
        { 32, 17, 0, 0, 0, GRADREG_ROLE_MLP, 0, 0, 0, { 0 } },
        { 49, 30, 0, 0, 0, GRADREG_ROLE_ATTENTION, 0, 0, 0, { 0 } },
        { 79, 17, 0, 0, GRADREG_LAYER_NONE, GRADREG_ROLE_EMBEDDING, 0, 0, 0, { 0 } },
    };
    memcpy(segments, made, sizeof(made));
    if (p->layer_count >= 1 && p->layer_count <= 65536)
        segments[2].layer = p->layer_count - 1;
}

static bool slices_are_invalid(const gradreg_regularizer_params *p)
{
    const uint64_t end = p->parameter_count > END ? p->parameter_count : END;
    return (p->parameter_count != 0 && p->parameter_count < END) || p->slice_begin > end ||
           p->slice_count > end - p->slice_begin;
}

/* The layers that get noise. False if the description of them is not legal. */
static bool noise_layers(const gradreg_regularizer_params *p, int32_t *first, int32_t *last)
{
    gradreg_schedule schedule = p->schedule;
    *first = p->noise.first_layer;
    *last = p->noise.last_layer;
    if (*first == -1 && *last == -1) {
        if (schedule.first_layer == -1 &&
            gradreg_schedule_for_depth(&schedule, p->layer_count) != GRADREG_OK)
            return false;
        *first = 0;
        *last = schedule.first_layer - 1;
    }
    return 0 <= *first && *first <= *last && *last < p->layer_count;
}

static double multiplier_of(const gradreg_regularizer_params *p, const gradreg_segment *s)
{
    static double m[65536];
    if (s->layer < 0)
        return p->schedule.outside_multiplier;
    if (gradreg_schedule_multipliers(m, &p->schedule, p->layer_count) != GRADREG_OK)
        return 1.0;
    return m[s->layer];
}

static bool step_noise_fits(const gradreg_regularizer_params *p, const gradreg_segment *s)
{
    const uint32_t block = GRADREG_ROLE_ATTENTION | GRADREG_ROLE_MLP | GRADREG_ROLE_NORM;
    const uint32_t perturbed = p->perturbed_roles == 0 ? block : p->perturbed_roles;
    return p->param_type <= GRADREG_TYPE_F32 && p->compute_type <= GRADREG_TYPE_F32 &&
           (s->role & perturbed) != 0 &&
           (p->depth != GRADREG_DEPTH_ON_PENALTY || multiplier_of(p, s) > 0);
}

static void judge_noise(struct verdict *v, const gradreg_regularizer_params *p,
                        const gradreg_segment *segments)
{
    const uint32_t roles = p->noise.roles == 0 ? GRADREG_ROLE_ATTENTION : p->noise.roles;
    int32_t first, last;
    bool any = false;

    for (int i = 0; i < 5; i++)
        v->invalid |= p->noise.reserved[i] != 0;
    if (p->noise.rule <= GRADREG_NOISE_OFF || p->output == GRADREG_OUTPUT_PRODUCT)
        return;
    v->invalid |= !noise_layers(p, &first, &last);
    const bool step = p->noise.rule == GRADREG_NOISE_STEP;
    v->unsupported |= step && p->direction > GRADREG_DIRECTION_GRADIENT;
    for (int i = 0; i < SEGMENTS; i++) {
        const gradreg_segment *s = &segments[i];
        if ((s->role & roles) == 0 || s->layer < first || s->layer > last)
            continue;
        any = true;
        v->unsupported |= step && !step_noise_fits(p, s);
    }
    v->invalid |= !any;
}

static struct verdict judge(const gradreg_regularizer_params *p, const void *copy,
                            const gradreg_segment *segments)
{
    struct verdict v = { false, false };

    if (size_is_wrong(p->struct_size, sizeof(*p)))
        return (struct verdict){ true, false };
    if (p->layer_count < 1 || p->layer_count > 65536)
        return (struct verdict){ true, has_tail(copy, sizeof(*p)) };
    v.invalid = schedule_is_invalid(&p->schedule, p->layer_count) || numbers_are_invalid(p) ||
                counts_are_invalid(p) || slices_are_invalid(p);
    v.unsupported = has_tail(copy, sizeof(*p));
    judge_choices(&v, p);
    judge_combinations(&v, p);
    judge_noise(&v, p, segments);
    return v;
}

/* ---- one input --------------------------------------------------------------------- */

static void try_params(gradreg_context *context, struct memory *memory, struct bytes *in)
{
    static struct walk w;
    static gradreg_segment segments[SEGMENTS];
    static double multipliers[MULTIPLIERS];
    gradreg_regularizer_params made;

    edit_params(&made, multipliers, in);
    make_table(segments, &made);
    void *copy = with_its_size(&made, sizeof(made), in);
    memset(&w, 0, sizeof(w));
    const gradreg_status status = describe(&w.reg, context, memory, segments, SEGMENTS, copy);
    if (size_is_wrong(made.struct_size, sizeof(made)) &&
        status != GRADREG_ERROR_INVALID_ARGUMENT)
        fuzz_fail("a struct of no version", status);
    check_verdict(judge(&made, copy, segments), status);
    if (status == GRADREG_OK) {
        w.params = made;
        w.segments = segments;
        w.segment_count = SEGMENTS;
        walk_through(&w, in);
        end_walk(&w);
    }
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bytes in = { data, size };
    struct memory memory = { 0 };
    gradreg_context *context = make_context(&memory, &in);

    if (context == NULL || memory.held == 0) { /* refused, or with memory that nobody counts */
        (void)gradreg_context_destroy(context);
        context = open_limited(&memory);
    }
    try_params(context, &memory, &in);
    close_limited(context, &memory);
    return 0;
}

#ifdef GR_FUZZ_STANDALONE
static const char *const fuzz_words[] = {
    "\x01",
    "\x02",
    "\x03",
    "\x04",
    "\x08",
    "\x10",
    "\x20",
    "\x7f",
    "\x80",
    "\x81",
    "\x8f",
    "\x90",
    "\x95",
    "\x99",
    "\x9a",
    "\xc0",
    "\xd0",
    "\xe0",
    "\xff",
    "\x0e\x0e",
    "\xd0\x01\x01\x01\x01\x01\x01\x01\x01",
    "\x02\x09\x03\x09\x04",
    "\x0c\x01\x03\xff",
    NULL,
};
#include "standalone.h"
#endif
