/* fuzz_table.c - any bytes as a table of segments, and a walk through the calls of a step.
 *
 * In: bytes that become parameters, segments, buffers and calls. Out: an abort when the table is
 * accepted though the rules below say no, refused though they say yes, or when the walk goes
 * wrong (walk.h).
 *
 *      clang -fsanitize=fuzzer,address,undefined ... (tools of fuzz_names.c)
 *
 * or any compiler with -DGR_FUZZ_STANDALONE (standalone.h). */
#ifdef GR_FUZZ_STANDALONE
#define _POSIX_C_SOURCE 200809L /* scandir */
#endif

#include "walk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct table {
    gradreg_regularizer_params params;
    gradreg_segment segments[MOST_SEGMENTS];
    size_t count;
};

/* ---- the table that the bytes say -------------------------------------------------- */

static int32_t same_everywhere(void *user, double *values, size_t count, void *stream)
{
    (void)user, (void)values, (void)count, (void)stream;
    return 0;
}

/* Mostly what a table would have, sometimes the borders of what arithmetic can do. */
static uint64_t take_count(struct bytes *b, uint64_t small)
{
    static const uint64_t borders[] = { 4095,
                                        4096,
                                        4097,
                                        65535,
                                        65536,
                                        65537,
                                        UINT64_C(1) << 31,
                                        UINT64_C(1) << 32,
                                        UINT64_C(1) << 57,
                                        UINT64_C(1) << 58,
                                        UINT64_C(1) << 63,
                                        UINT64_MAX - 1,
                                        UINT64_MAX };
    const uint32_t which = take(b);
    if (which < 224)
        return which % (small + 1);
    return borders[which % (sizeof(borders) / sizeof(borders[0]))];
}

/* 0 to last, the smaller half of bytes giving 0: most inputs have few things at once. */
static int32_t choose(struct bytes *in, int32_t last)
{
    const uint32_t byte = take(in);
    return byte < 128 ? 0 : (int32_t)(byte % (uint32_t)(last + 1));
}

static void read_variant(gradreg_regularizer_params *p, struct bytes *in)
{
    p->difference = choose(in, 1) == 0 ? 1 : 3;
    p->first_gradient = 1 + choose(in, 1);
    p->second_gradient = 1 + choose(in, 1);
    p->placement = 1 + choose(in, 1);
    p->restore = 1 + choose(in, 1);
    p->direction = 1 + choose(in, 3);
    p->output = 1 + choose(in, 1);
    p->step = 1 + choose(in, 2);
    p->penalty = 1 + choose(in, 1);
    p->depth = 1 + choose(in, 1);
    p->rounding = 1 + choose(in, 1);
    p->second_pass = 1 + choose(in, 1);
    p->common_clip = choose(in, 1);
    p->interval = 1 + choose(in, 3);
    p->noise.rule = 1 + choose(in, 3);
}

static void read_params(gradreg_regularizer_params *p, struct bytes *in)
{
    const gradreg_regularizer_params init = GRADREG_REGULARIZER_PARAMS_INIT;

    *p = init;
    p->layer_count = 1 + (int32_t)(take(in) % 9);
    p->param_type = 1 + choose(in, 2);
    p->grad_type = 1 + choose(in, 2);
    p->compute_type = choose(in, 3);
    read_variant(p, in);
    p->schedule.outside_multiplier = choose(in, 2) / 2.0;
    p->world = 1 + choose(in, 2);
    p->all_reduce.function = same_everywhere;
    if (choose(in, 1) != 0) {
        p->parameter_count = take_count(in, 255);
        p->slice_begin = take_count(in, 63);
        p->slice_count = take_count(in, 63);
    }
}

static void read_place(gradreg_segment *s, uint64_t end, struct bytes *in)
{
    const uint32_t how = take(in);

    s->count = take_count(in, 40);
    if (how < 160)
        s->offset = end;
    else if (how < 192)
        s->offset = end + how % 8;
    else if (how < 224)
        s->offset = 0;
    else
        s->offset = take_count(in, 200);
    if (choose(in, 1) != 0) {
        s->shard_begin = take_count(in, 40);
        s->shard_count = take_count(in, 40);
    }
}

static void read_kind(gradreg_segment *s, struct bytes *in)
{
    const uint32_t strange = take(in);

    s->layer = (int32_t)(take(in) % 10) - 1;
    s->role = 1u << take(in) % 6;
    s->param_type = choose(in, 3);
    s->grad_type = choose(in, 3);
    s->flags = (uint32_t)choose(in, 3);
    if (strange < 240)
        return;
    switch (strange % 8) {
    case 0: s->layer = GRADREG_LAYER_STACKED; break;
    case 1: s->layer = (int32_t)take_64(in); break;
    case 2: s->role = take(in); break;
    case 3: s->flags = take(in); break;
    case 4: s->param_type = (int32_t)take(in) - 2; break;
    case 5: s->grad_type = (int32_t)take(in) - 2; break;
    default: s->reserved[strange % 3] = take(in); break;
    }
}

static void read_table(struct table *t, struct bytes *in)
{
    uint64_t end = 0;

    read_params(&t->params, in);
    t->count = 1 + take(in) % MOST_SEGMENTS;
    for (size_t i = 0; i < t->count; i++) {
        gradreg_segment segment = GRADREG_SEGMENT_INIT;
        read_place(&segment, end, in);
        read_kind(&segment, in);
        t->segments[i] = segment;
        end = segment.offset + segment.count;
    }
}

/* ---- the header's rules, in its own words ------------------------------------------ */

static const uint64_t most = UINT64_C(1) << 58;

static bool segment_is_invalid(const gradreg_segment *s, const gradreg_regularizer_params *p)
{
    const bool too_large = s->count > most || s->offset > UINT64_MAX - s->count;
    const bool past =
        p->parameter_count != 0 && !too_large && s->offset + s->count > p->parameter_count;
    const bool shard = s->shard_begin > s->count || s->shard_count > s->count - s->shard_begin;
    const bool layer = s->layer < -1 || s->layer >= p->layer_count;
    const bool role = s->role == 0 || s->role > 32 || (s->role & (s->role - 1)) != 0;
    const bool type =
        s->param_type < 0 || s->param_type > 3 || s->grad_type < 0 || s->grad_type > 3;
    return too_large || past || shard || layer || role || type || s->flags > 3 ||
           s->reserved[0] != 0 || s->reserved[1] != 0 || s->reserved[2] != 0;
}

static bool segments_overlap(const struct table *t)
{
    bool any_offset = false;
    for (size_t i = 0; i < t->count; i++)
        any_offset |= t->segments[i].offset != 0;
    for (size_t i = 0; any_offset && i < t->count; i++)
        for (size_t k = 0; k < i; k++) {
            const gradreg_segment *a = &t->segments[i], *b = &t->segments[k];
            if (a->count > 0 && b->count > 0 && a->offset < b->offset + b->count &&
                b->offset < a->offset + a->count)
                return true;
        }
    return false;
}

static bool sizes_are_invalid(const struct table *t)
{
    const gradreg_regularizer_params *p = &t->params;
    uint64_t end = p->parameter_count, sum = 0;
    for (size_t i = 0; i < t->count; i++) {
        const uint64_t this_end = t->segments[i].offset + t->segments[i].count;
        end = this_end > end ? this_end : end;
        sum += t->segments[i].count;
    }
    return sum > most || p->slice_count > UINT64_MAX - p->slice_begin ||
           p->slice_begin + p->slice_count > end;
}

static bool is_noisy(const gradreg_segment *s, const gradreg_regularizer_params *p)
{
    gradreg_schedule schedule;
    if (p->noise.rule == GRADREG_NOISE_OFF || p->output == GRADREG_OUTPUT_PRODUCT ||
        s->role != GRADREG_ROLE_ATTENTION || (s->flags & GRADREG_SEGMENT_FROZEN) != 0)
        return false;
    if (gradreg_schedule_for_depth(&schedule, p->layer_count) != GRADREG_OK)
        abort();
    return s->layer >= 0 && s->layer < schedule.first_layer;
}

static void judge_noise(const struct table *t, struct verdict *v)
{
    const gradreg_regularizer_params *p = &t->params;
    const bool step = p->noise.rule == GRADREG_NOISE_STEP;
    bool any = false;

    if (p->noise.rule == GRADREG_NOISE_OFF || p->output == GRADREG_OUTPUT_PRODUCT)
        return;
    v->unsupported |= step && p->direction != GRADREG_DIRECTION_GRADIENT;
    for (size_t i = 0; i < t->count; i++) {
        const gradreg_segment *s = &t->segments[i];
        if (!is_noisy(s, p))
            continue;
        any = true;
        /* noise layers come before the first regularized one: m = 0 there */
        v->unsupported |= step && p->depth == GRADREG_DEPTH_ON_PENALTY;
        v->unsupported |=
            step && ((s->param_type != 0 ? s->param_type : p->param_type) != GRADREG_TYPE_F32 ||
                     p->compute_type > GRADREG_TYPE_F32);
    }
    v->invalid |= !any;
}

static void judge_types(const struct table *t, struct verdict *v)
{
    for (size_t i = 0; i < t->count; i++) {
        const gradreg_segment *s = &t->segments[i];
        const int32_t param = s->param_type != 0 ? s->param_type : t->params.param_type;
        const int32_t grad = s->grad_type != 0 ? s->grad_type : t->params.grad_type;
        v->unsupported |= grad != GRADREG_TYPE_F32 && grad != param;
    }
}

static struct verdict judge(const struct table *t)
{
    const gradreg_regularizer_params *p = &t->params;
    const bool product = p->output == GRADREG_OUTPUT_PRODUCT;
    const bool truncated = p->second_pass == GRADREG_SECOND_PASS_TRUNCATED;
    struct verdict v = { false, false };

    for (size_t i = 0; i < t->count; i++)
        v.invalid |= segment_is_invalid(&t->segments[i], p);
    v.invalid |= segments_overlap(t) || sizes_are_invalid(t);
    v.unsupported |= product && (truncated || p->step == GRADREG_STEP_RELATIVE);
    v.unsupported |= truncated && (p->depth == GRADREG_DEPTH_ON_PENALTY || !p->common_clip);
    v.unsupported |=
        p->placement == GRADREG_PLACEMENT_OUT_OF_PLACE && p->restore == GRADREG_RESTORE_MASTER;
    judge_types(t, &v);
    judge_noise(t, &v);
    return v;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct table t;
    static struct walk w;
    struct bytes in = { data, size };
    struct memory memory = { 0 };
    gradreg_context *context = open_limited(&memory);

    read_table(&t, &in);
    memset(&w, 0, sizeof(w));
    const gradreg_status status =
        describe(&w.reg, context, &memory, t.segments, t.count, &t.params);
    check_verdict(judge(&t), status);
    if (status == GRADREG_OK) {
        w.params = t.params;
        w.segments = t.segments;
        w.segment_count = t.count;
        walk_through(&w, &in);
        end_walk(&w);
    }
    close_limited(context, &memory);
    return 0;
}

#ifdef GR_FUZZ_STANDALONE
static const char *const fuzz_words[] = {
    "\x01",
    "\x02",
    "\x03",
    "\x08",
    "\x10",
    "\x28",
    "\x7f",
    "\x80",
    "\x81",
    "\x82",
    "\x83",
    "\xa0",
    "\xc0",
    "\xe0",
    "\xe1",
    "\xe2",
    "\xe3",
    "\xf0",
    "\xf8",
    "\xff",
    "\x0e\x0e",
    "\x02\x09\x03\x09\x04",
    "\x08\x02\x09\x04\x0b",
    "\x01\x01\x01\x01\x01\x01\x01\x01",
    NULL,
};
#include "standalone.h"
#endif
