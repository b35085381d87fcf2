/* bad_input.c - see bad_input.h. */
#include "bad_input.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "numbers.h"

#define FIELD(name, pointers)                                                                  \
    {                                                                                          \
#name, #pointers, offsetof(gradreg_buffers, name), offsetof(gradreg_buffers, pointers) \
    }
const struct field_info fields[FIELDS] = {
    FIELD(params, param_pointers),
    FIELD(grads, grad_pointers),
    FIELD(first_grads, first_grad_pointers),
    FIELD(perturbed_params, perturbed_param_pointers),
    FIELD(master_params, master_param_pointers),
    FIELD(direction, direction_pointers),
};

const struct mode plain_mode = { .name = "plain" };

/* ---- a good description ------------------------------------------------------------ */

static const gradreg_segment table[CALLER_SEGMENTS] = {
    { 0, 8, 0, 0, 0, GRADREG_ROLE_ATTENTION, 0, 0, 0, { 0 } }, /* the noise segment */
    { 8, 8, 0, 0, 1, GRADREG_ROLE_MLP, 0, 0, 0, { 0 } },
    { 16, 8, 0, 0, 2, GRADREG_ROLE_ATTENTION, 0, 0, 0, { 0 } },
    { 24, 4, 0, 0, 3, GRADREG_ROLE_NORM, 0, 0, 0, { 0 } },
    { 28, 4, 0, 0, GRADREG_LAYER_NONE, GRADREG_ROLE_HEAD, 0, 0, 0, { 0 } },
    { 32, 8, 0, 0, 3, GRADREG_ROLE_MLP, 0, 0, 0, { 0 } },
};

/* Every entry is zero but this rank's: the sum over ranks is what stands there. */
static int32_t reduce(void *user, double *values, size_t count, void *stream)
{
    struct caller *c = user;
    (void)values, (void)count, (void)stream;
    if (c->during_reduce != NULL)
        c->during_reduce();
    return ++c->reduce_calls >= c->fail_reduce_at ? c->reduce_result : 0;
}

void caller_describe(struct caller *c, const struct mode *mode)
{
    gradreg_regularizer_params p = GRADREG_REGULARIZER_PARAMS_INIT;

    memcpy(c->own.segments, table, sizeof(table));
    for (size_t s = 0; s < CALLER_SEGMENTS; s++)
        c->own.segments[s].offset += mode->slice_begin;
    p.layer_count = CALLER_LAYERS;
    p.difference = mode->difference;
    p.first_gradient = mode->first_gradient;
    p.second_gradient = mode->second_gradient;
    p.placement = mode->placement;
    p.restore = mode->restore;
    p.direction = mode->direction;
    p.interval = mode->interval;
    p.world = mode->world;
    p.slice_begin = mode->slice_begin;
    p.slice_count = mode->slice_count;
    p.noise.rule = GRADREG_NOISE_NEFTUNE;
    p.adaptive.a_max = 2.0;
    p.all_reduce.function = reduce;
    p.all_reduce.user = c;
    c->own.params = p;
}

/* ---- buffers ----------------------------------------------------------------------- */

void **caller_flat(struct caller *c, enum field field)
{
    return (void **)(void *)((char *)&c->own.buffers + fields[field].flat_at);
}

void ***caller_pointers(struct caller *c, enum field field)
{
    return (void ***)(void *)((char *)&c->own.buffers + fields[field].pointers_at);
}

void **caller_pointer(struct caller *c, enum field field, size_t segment)
{
    return &c->own.pointers[field][segment];
}

static bool is_used(const struct mode *mode, enum field field)
{
    switch (field) {
    case FIRST_GRADS: return mode->first_gradient == GRADREG_FIRST_GRADIENT_CALLER_KEEPS;
    case PERTURBED_PARAMS: return mode->placement == GRADREG_PLACEMENT_OUT_OF_PLACE;
    case MASTER_PARAMS: return mode->restore == GRADREG_RESTORE_MASTER;
    case DIRECTION: return mode->direction == GRADREG_DIRECTION_CALLER;
    default: return true;
    }
}

static void lay_out(struct caller *c, enum field field)
{
    float *base = c->own.elements[field];

    for (size_t s = 0; s < CALLER_SEGMENTS; s++)
        *caller_pointer(c, field, s) = base + table[s].offset;
    if (!is_used(c->mode, field))
        return;
    if (c->mode->pointers)
        *caller_pointers(c, field) = c->own.pointers[field];
    else
        *caller_flat(c, field) = base;
}

/* With declared slices the buffers are of the slice's length. */
static void describe_buffers(struct caller *c)
{
    const gradreg_buffers init = GRADREG_BUFFERS_INIT;

    c->own.buffers = init;
    for (enum field f = PARAMS; f < FIELDS; f++)
        lay_out(c, f);
    c->own.buffers.count =
        c->mode->slice_count != 0 ? (size_t)c->mode->slice_count : CALLER_ELEMENTS;
    c->own.buffers.slice_begin = c->mode->slice_begin;
    c->own.grad_scale[0] = 1.0f;
    c->own.buffers.grad_scale = &c->own.grad_scale[0];
    c->own.buffers.found_inf = &c->own.found_inf[0];
    c->good = c->own.buffers;
}

static float gradient_at(unsigned pass, size_t i)
{
    return 0.25f * (float)((int)((7 * i + 3 * pass) % 11) - 5);
}

static void fill_elements(struct caller *c)
{
    for (size_t i = 0; i < CALLER_ELEMENTS; i++) {
        const float theta = 0.125f * (float)((int)(i % 9) - 4);
        c->own.elements[PARAMS][i] = c->own.elements[MASTER_PARAMS][i] = theta;
        c->own.elements[DIRECTION][i] = gradient_at(5, i);
    }
    c->own.losses[0] = 2.0f;
    c->own.losses[1] = 2.5f;
}

static void fill_the_rest(struct caller *c)
{
    const gradreg_context_params context_params = GRADREG_CONTEXT_PARAMS_INIT;
    const struct gradreg_context_info info = GRADREG_CONTEXT_INFO_INIT;
    const gradreg_schedule schedule = GRADREG_SCHEDULE_INIT;
    const gradreg_terms terms = GRADREG_TERMS_INIT;

    c->own.context_params = context_params;
    c->own.info = info;
    c->own.schedule = schedule;
    c->own.total = terms;
    for (size_t l = 0; l <= CALLER_LAYERS; l++) {
        c->own.layers[l] = terms;
        c->own.signals[l] = 1.0 + (double)l;
        c->own.table[l] = 0.25 * (double)l;
    }
}

struct caller *caller_open(const struct mode *mode)
{
    struct caller *c = calloc(1, sizeof(*c));
    gradreg_context_params params = GRADREG_CONTEXT_PARAMS_INIT;

    ck_assert_ptr_nonnull(c);
    c->mode = mode;
    params.threads = 1;
    params.allocator = counting_hook(&c->allocator);
    assert_accepted(test_context_create(&c->context, &params));
    caller_describe(c, mode);
    describe_buffers(c);
    fill_elements(c);
    fill_the_rest(c);
    assert_accepted(gradreg_regularizer_create(&c->regularizer, c->context, c->own.segments,
                                               CALLER_SEGMENTS, &c->own.params));
    return c;
}

void caller_close(struct caller *c)
{
    assert_accepted(gradreg_regularizer_destroy(c->regularizer));
    assert_accepted(gradreg_context_destroy(c->context));
    counting_check(&c->allocator);
    free(c);
}

void caller_recreate(struct caller *c)
{
    assert_accepted(gradreg_regularizer_destroy(c->regularizer));
    assert_accepted(gradreg_regularizer_create(&c->regularizer, c->context, c->own.segments,
                                               CALLER_SEGMENTS, &c->own.params));
}

size_t caller_state_bytes(const struct caller *c)
{
    size_t bytes = 0;
    assert_accepted(gradreg_regularizer_state_bytes(c->regularizer, &bytes));
    ck_assert_uint_le(bytes, CALLER_STATE);
    return bytes;
}

/* ---- the calls of a step ----------------------------------------------------------- */

static gradreg_status suggest(gradreg_regularizer *regularizer, gradreg_buffers *buffers)
{
    double epsilon;
    return gradreg_regularizer_suggest_epsilon(regularizer, &epsilon, buffers, 0.5);
}

enum { LONGEST = 6 };

static const struct call_info {
    const char *name;
    gradreg_status (*function)(gradreg_regularizer *regularizer, gradreg_buffers *buffers);
    enum call script[LONGEST]; /* a step with this call; MIRROR is left out where it must be */
} calls[CALLS] = {
    [INJECT_NOISE] = { "gradreg_regularizer_inject_noise",
                       gradreg_regularizer_inject_noise,
                       { INJECT_NOISE, PERTURB, MIRROR, COMBINE, CALLS } },
    [REMOVE_NOISE] = { "gradreg_regularizer_remove_noise",
                       gradreg_regularizer_remove_noise,
                       { INJECT_NOISE, REMOVE_NOISE, PERTURB, MIRROR, COMBINE, CALLS } },
    [PERTURB] = { "gradreg_regularizer_perturb",
                  gradreg_regularizer_perturb,
                  { PERTURB, MIRROR, COMBINE, CALLS } },
    [SUGGEST_EPSILON] = { "gradreg_regularizer_suggest_epsilon",
                          suggest,
                          { SUGGEST_EPSILON, PERTURB, MIRROR, COMBINE, CALLS } },
    [MIRROR] = { "gradreg_regularizer_mirror",
                 gradreg_regularizer_mirror,
                 { INJECT_NOISE, PERTURB, MIRROR, COMBINE, CALLS } },
    [COMBINE] = { "gradreg_regularizer_combine",
                  gradreg_regularizer_combine,
                  { INJECT_NOISE, PERTURB, MIRROR, COMBINE, CALLS } },
    [REUSE] = { "gradreg_regularizer_combine",
                gradreg_regularizer_combine,
                { INJECT_NOISE, REUSE, CALLS } },
    [FALLBACK] = { "gradreg_regularizer_fallback",
                   gradreg_regularizer_fallback,
                   { INJECT_NOISE, PERTURB, FALLBACK, CALLS } },
    [CANCEL] = { "gradreg_regularizer_cancel",
                 gradreg_regularizer_cancel,
                 { INJECT_NOISE, PERTURB, CANCEL, CALLS } },
};

const char *call_name(enum call call)
{
    return calls[call].name;
}

gradreg_status caller_do(struct caller *c, enum call call)
{
    return calls[call].function(c->regularizer, &c->own.buffers);
}

static bool is_central(const struct mode *mode)
{
    return mode->difference == GRADREG_DIFFERENCE_CENTRAL;
}

bool caller_can(const struct mode *mode, enum call call)
{
    if (call == MIRROR)
        return is_central(mode);
    /* The step after the first one reuses its correction, and every second one. */
    if (call == INJECT_NOISE || call == REMOVE_NOISE)
        return mode->interval <= 1;
    return (call == REUSE) == (mode->interval > 1);
}

unsigned caller_needs(const struct mode *mode, enum call call)
{
    const unsigned weights = 1u << PARAMS | 1u << MASTER_PARAMS;
    const unsigned first = 1u << FIRST_GRADS | 1u << DIRECTION;
    const bool reads_grads =
        !is_used(mode, FIRST_GRADS) || mode->second_gradient == GRADREG_SECOND_GRADIENT_ADDS;
    const unsigned restores = is_used(mode, PERTURBED_PARAMS) ? 0 : weights;
    unsigned needs = 0;

    switch (call) {
    case INJECT_NOISE: needs = weights | 1u << PERTURBED_PARAMS; break;
    case REMOVE_NOISE:
    case CANCEL: needs = weights; break;
    case PERTURB:
    case SUGGEST_EPSILON:
        needs = weights | 1u << PERTURBED_PARAMS | first | (reads_grads ? 1u << GRADS : 0);
        break;
    case MIRROR: needs = weights | 1u << PERTURBED_PARAMS | first | 1u << GRADS; break;
    case FALLBACK: needs = restores | 1u << FIRST_GRADS | 1u << GRADS; break;
    default: needs = restores | first | 1u << GRADS; break;
    }
    for (enum field f = PARAMS; f < FIELDS; f++)
        if (!is_used(mode, f))
            needs &= ~(1u << f);
    return needs;
}

/* ---- the trainer's part ------------------------------------------------------------ */

static void backward(struct caller *c, enum field field, unsigned pass, bool adds)
{
    float *to = c->own.elements[field];
    for (size_t i = 0; i < CALLER_ELEMENTS; i++)
        to[i] = gradient_at(pass, i) + (adds ? to[i] : 0.0f);
}

/* What happens right before a call: the gradients that it will read are made. */
static void prepare(struct caller *c, enum call call)
{
    const bool adds = c->mode->second_gradient == GRADREG_SECOND_GRADIENT_ADDS;

    if (call == PERTURB || call == SUGGEST_EPSILON || call == REUSE)
        backward(c, is_used(c->mode, FIRST_GRADS) ? FIRST_GRADS : GRADS, 0, false);
    else if (call == MIRROR)
        backward(c, GRADS, 1, adds);
    else if (call == COMBINE || call == FALLBACK)
        backward(c, GRADS, 2, adds);
}

static const enum call *skip_mirror(const struct caller *c, const enum call *at)
{
    return *at == MIRROR && !is_central(c->mode) ? at + 1 : at;
}

static void play(struct caller *c, enum call call)
{
    const gradreg_status status = caller_do(c, call);
    backend_wait();
    if (status != GRADREG_OK)
        ck_abort_msg("mode %s: %s gave %s: %s", c->mode->name, calls[call].name,
                     gradreg_status_name(status), gradreg_last_error());
    coverage_note(calls[call].name, status, false);
}

static void play_until(struct caller *c, const enum call *script, enum call until)
{
    for (c->next = skip_mirror(c, script); *c->next != until;
         c->next = skip_mirror(c, c->next + 1)) {
        prepare(c, *c->next);
        play(c, *c->next);
    }
}

void caller_lead_to(struct caller *c, enum call call)
{
    play_until(c, calls[PERTURB].script, CALLS);
    play_until(c, calls[call].script, call);
    prepare(c, call);
}

static uint64_t digest_bytes(uint64_t so_far, const void *data, size_t bytes)
{
    const unsigned char *at = data;
    for (size_t i = 0; i < bytes; i++)
        so_far = digest(so_far, at[i]);
    return so_far;
}

uint64_t caller_go_on(struct caller *c)
{
    uint64_t sum = DIGEST_START;

    play(c, *c->next);
    play_until(c, c->next + 1, CALLS);
    assert_accepted(
        gradreg_regularizer_terms(c->regularizer, &c->own.total, c->own.layers, CALLER_LAYERS));
    ck_assert_mem_eq(c->own.elements[PARAMS], c->own.elements[MASTER_PARAMS],
                     CALLER_ELEMENTS * sizeof(float));
    sum = digest_bytes(sum, c->own.elements, sizeof(c->own.elements));
    sum = digest_bytes(sum, &c->own.total, sizeof(c->own.total));
    return digest_bytes(sum, c->own.layers, CALLER_LAYERS * sizeof(c->own.layers[0]));
}

uint64_t caller_undisturbed(const struct mode *mode, enum call call)
{
    struct caller *c = caller_open(mode);

    caller_lead_to(c, call);
    const uint64_t sum = caller_go_on(c);
    caller_close(c);
    return sum;
}

/* ---- refusals ---------------------------------------------------------------------- */

void caller_remember(struct caller *c, const char *function, const char *what)
{
    c->function = function;
    c->what = what;
    memcpy(&c->before, &c->own, sizeof(c->own));
    make_sentence_stale();
}

static void check_untouched(const struct caller *c)
{
    const unsigned char *now = (const unsigned char *)&c->own;
    const unsigned char *then = (const unsigned char *)&c->before;

    if (memcmp(now, then, sizeof(c->own)) == 0)
        return;
    for (size_t i = 0; i < sizeof(c->own); i++)
        if (now[i] != then[i])
            ck_abort_msg("%s, %s: byte %zu of the caller's changed", c->function, c->what, i);
}

void caller_check_refusal(struct caller *c, gradreg_status got, gradreg_status want,
                          const char *const *named)
{
    char call[128], what[256];

    (void)snprintf(call, sizeof(call), "%s()", c->function);
    (void)snprintf(what, sizeof(what), "%s, %s", c->mode->name, c->what);
    check_status(what, 0, call, got, want);
    check_sentence(what, 0, call, named);
    check_untouched(c);
    coverage_note(c->function, got, true);
}

void caller_refuse_description(struct caller *c, const char *what, gradreg_status want,
                               const char *word, const char *value)
{
    struct belongings *own = &c->own;
    gradreg_regularizer *out = c->regularizer;

    assert_refused(c, "gradreg_regularizer_create", what,
                   gradreg_regularizer_create(&own->regularizer_out, c->context, own->segments,
                                              CALLER_SEGMENTS, &own->params),
                   want, word, value);
    assert_refused(c, "gradreg_regularizer_workspace_bytes", what,
                   gradreg_regularizer_workspace_bytes(&own->size, c->context, own->segments,
                                                       CALLER_SEGMENTS, &own->params),
                   want, word, value);
    ck_assert_int_eq(gradreg_regularizer_create(&out, c->context, own->segments,
                                                CALLER_SEGMENTS, &own->params),
                     want);
    ck_assert_ptr_null(out);
}

/* ---- spoilt fields ----------------------------------------------------------------- */

void spoil(void *base, const struct spoilt *how)
{
    char *at = (char *)base + how->at;
    const int32_t narrow = (int32_t)how->integer;
    void *pointer = (void *)(uintptr_t)how->integer;

    switch (how->kind) {
    case INTEGER_32: memcpy(at, &narrow, sizeof(narrow)); break;
    case INTEGER_64: memcpy(at, &how->integer, sizeof(how->integer)); break;
    case REAL: memcpy(at, &how->real, sizeof(how->real)); break;
    case POINTER: memcpy(at, &pointer, sizeof(pointer)); break;
    }
}

const char *spoilt_name(const struct spoilt *how)
{
    static char name[64];
    const char *reserved = strstr(how->field, "reserved");
    const size_t length = reserved == NULL
                              ? strlen(how->field)
                              : (size_t)(reserved - how->field) + strlen("reserved");

    (void)snprintf(name, sizeof(name), "%.*s", (int)length, how->field);
    return name;
}

uint32_t bad_size(size_t sizeof_struct, int which)
{
    const uint32_t sizes[BAD_SIZES] = { 0, 4, (uint32_t)sizeof_struct - 1, 4097, UINT32_MAX };
    return sizes[which];
}
