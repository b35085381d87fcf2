/* case.c - tables, modes, buffers and their numbers. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* madvise */
#endif
#include "case.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "context.h"

/* ---- failures -------------------------------------------------------------------- */

void bench_require(gradreg_status status, const char *what)
{
    if (status == GRADREG_OK)
        return;
    fprintf(stderr, "%s: %s: %s\n", what, gradreg_status_name(status), gradreg_last_error());
    exit(1);
}

static void refuse(const char *option, const char *word)
{
    fprintf(stderr, "--%s: '%s' is not known\n", option, word);
    exit(2);
}

void *bench_allocate(size_t bytes)
{
    void *memory = aligned_alloc(64, (bytes + 63) & ~(size_t)63);
    if (memory == NULL) {
        fprintf(stderr, "no memory for %zu bytes\n", bytes);
        exit(1);
    }
    return memory;
}

void *bench_allocate_pages(size_t bytes, bool wanted)
{
#if defined(MADV_HUGEPAGE)
    const size_t page = (size_t)2 << 20;
    if (wanted && bytes >= page) {
        const size_t whole = (bytes + page - 1) / page * page;
        void *memory = aligned_alloc(page, whole);
        if (memory != NULL && madvise(memory, whole, MADV_HUGEPAGE) == 0)
            return memory;
        free(memory);
    }
#endif
    (void)wanted;
    return bench_allocate(bytes);
}

/* The library's memory, when it shall lie on huge pages too. */
static void *allocate_huge(void *user, size_t bytes, size_t alignment, gradreg_memory memory)
{
    (void)user, (void)alignment, (void)memory;
    return bench_allocate_pages(bytes, true);
}

static void release_huge(void *user, void *pointer, size_t bytes, gradreg_memory memory)
{
    (void)user, (void)bytes, (void)memory;
    free(pointer);
}

/* ---- modes ----------------------------------------------------------------------- */

static void choose_copied(gradreg_regularizer_params *p)
{
    p->first_gradient = GRADREG_FIRST_GRADIENT_COPIED;
}

static void choose_adds(gradreg_regularizer_params *p)
{
    p->first_gradient = GRADREG_FIRST_GRADIENT_COPIED;
    p->second_gradient = GRADREG_SECOND_GRADIENT_ADDS;
}

static void choose_master(gradreg_regularizer_params *p)
{
    p->restore = GRADREG_RESTORE_MASTER;
}

static void choose_out_of_place(gradreg_regularizer_params *p)
{
    p->placement = GRADREG_PLACEMENT_OUT_OF_PLACE;
}

static void choose_relative(gradreg_regularizer_params *p)
{
    p->step = GRADREG_STEP_RELATIVE;
}

static void choose_central(gradreg_regularizer_params *p)
{
    p->difference = GRADREG_DIFFERENCE_CENTRAL;
}

static void choose_interval(gradreg_regularizer_params *p)
{
    p->interval = 2;
}

static void choose_noise(gradreg_regularizer_params *p)
{
    p->noise.rule = GRADREG_NOISE_RELATIVE;
}

static void choose_compute_bf16(gradreg_regularizer_params *p)
{
    p->compute_type = GRADREG_TYPE_BF16;
}

static void choose_rademacher(gradreg_regularizer_params *p)
{
    p->direction = GRADREG_DIRECTION_RADEMACHER;
    p->epsilon = 1e-6;
}

static void choose_stochastic(gradreg_regularizer_params *p)
{
    p->rounding = GRADREG_ROUNDING_STOCHASTIC;
}

const bench_mode bench_modes[] = {
    { "plain", NULL },
    { "copied", choose_copied },
    { "adds", choose_adds },
    { "restore_master", choose_master },
    { "out_of_place", choose_out_of_place },
    { "relative", choose_relative },
    { "central", choose_central },
    { "interval", choose_interval },
    { "noise", choose_noise },
    { "compute_bf16", choose_compute_bf16 },
    { "rademacher", choose_rademacher },
    { "stochastic", choose_stochastic },
};
const size_t bench_mode_count = sizeof(bench_modes) / sizeof(*bench_modes);

static gradreg_type type_of(const char *word, size_t length)
{
    if (length == 3 && memcmp(word, "f32", 3) == 0)
        return GRADREG_TYPE_F32;
    if (length == 4 && memcmp(word, "bf16", 4) == 0)
        return GRADREG_TYPE_BF16;
    refuse("types", word);
    return 0;
}

static size_t type_bytes(gradreg_type type)
{
    return type == GRADREG_TYPE_F32 ? 4 : 2;
}

static void choose_params(bench_case *c)
{
    const bench_options *o = &c->options;
    const gradreg_regularizer_params defaults = GRADREG_REGULARIZER_PARAMS_INIT;
    const char *slash = strchr(o->types, '/');
    size_t mode = 0;
    if (slash == NULL)
        refuse("types", o->types);
    c->params = defaults;
    c->params.param_type = type_of(o->types, (size_t)(slash - o->types));
    c->params.grad_type = type_of(slash + 1, strlen(slash + 1));
    c->params.strength = 1e-3;
    c->params.epsilon = 1e-3;
    c->params.first_gradient = GRADREG_FIRST_GRADIENT_CALLER_KEEPS;
    while (mode < bench_mode_count && strcmp(bench_modes[mode].name, o->mode) != 0)
        mode++;
    if (mode == bench_mode_count)
        refuse("mode", o->mode);
    if (bench_modes[mode].choose != NULL)
        bench_modes[mode].choose(&c->params);
}

/* ---- tensors --------------------------------------------------------------------- */

enum { LINE = 16 }; /* elements; every tensor begins on a cache line, as trainers' tensors do */

static void add_segment(bench_case *c, uint64_t count, int32_t layer, uint32_t role)
{
    const gradreg_segment defaults = GRADREG_SEGMENT_INIT;
    gradreg_segment *s = &c->segments[c->segment_count++];
    *s = defaults;
    s->offset = c->elements;
    s->count = count;
    s->layer = layer;
    s->role = role;
    c->parameters += count;
    c->elements += (count + LINE - 1) / LINE * LINE;
}

/* A transformer's layer in shares of its 46 quarter squares of the hidden size: q, k, v, o of
 * grouped-query attention, gate, up, down of a feed-forward part three times as wide, two norms. */
static void add_layers(bench_case *c, int32_t layers)
{
    static const uint32_t quarters[] = { 4, 1, 1, 4, 12, 12, 12 };
    const uint64_t square = c->options.parameters / (uint64_t)layers / 46;
    uint64_t hidden = 1;
    while (hidden * hidden < 4 * square)
        hidden++;
    for (int32_t layer = 0; layer < layers; layer++) {
        for (size_t i = 0; i < sizeof(quarters) / sizeof(*quarters); i++)
            add_segment(c, quarters[i] * square, layer,
                        i < 4 ? GRADREG_ROLE_ATTENTION : GRADREG_ROLE_MLP);
        add_segment(c, hidden, layer, GRADREG_ROLE_NORM);
        add_segment(c, hidden, layer, GRADREG_ROLE_NORM);
    }
}

static void add_large(bench_case *c, int32_t layers)
{
    for (int32_t layer = 0; layer < layers; layer++)
        add_segment(c, c->options.parameters / (uint64_t)layers, layer, GRADREG_ROLE_MLP);
}

static void choose_segments(bench_case *c)
{
    enum { LAYERS = 36, TENSORS = 9 };
    c->segments = bench_allocate(LAYERS * TENSORS * sizeof(gradreg_segment));
    if (strcmp(c->options.shape, "layers") == 0) {
        c->params.layer_count = LAYERS;
        add_layers(c, LAYERS);
    } else if (strcmp(c->options.shape, "large") == 0) {
        c->params.layer_count = TENSORS;
        add_large(c, TENSORS);
    } else {
        refuse("shape", c->options.shape);
    }
}

/* ---- numbers --------------------------------------------------------------------- */

/* The pattern of a float that bf16 holds too, uniform in [-scale, scale) but for that. */
static uint32_t pattern_of(uint64_t element, uint32_t seed, float scale)
{
    uint32_t x = (uint32_t)element * 0x9e3779b1u ^ (uint32_t)(element >> 32) ^ seed;
    x = (x ^ x >> 15) * 0x85ebca77u;
    x ^= x >> 13;
    const float value = ((float)(int32_t)x * 0x1p-31f) * scale;
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    return bits & 0xffff0000u;
}

typedef struct filling {
    void *array;
    gradreg_type type;
    size_t elements;
    uint32_t seed;
    float scale;
    _Atomic size_t wrong; /* of a comparison */
} filling;

enum { PIECE = 1 << 18 };

static void fill_piece(void *task, size_t index)
{
    const filling *f = task;
    const size_t begin = index * PIECE;
    const size_t end = f->elements - begin < PIECE ? f->elements : begin + PIECE;
    if (f->type == GRADREG_TYPE_F32)
        for (size_t i = begin; i < end; i++)
            ((uint32_t *)f->array)[i] = pattern_of(i, f->seed, f->scale);
    else
        for (size_t i = begin; i < end; i++)
            ((uint16_t *)f->array)[i] = (uint16_t)(pattern_of(i, f->seed, f->scale) >> 16);
}

static void compare_piece(void *task, size_t index)
{
    filling *f = task;
    const size_t begin = index * PIECE;
    const size_t end = f->elements - begin < PIECE ? f->elements : begin + PIECE;
    size_t wrong = 0;
    for (size_t i = begin; i < end; i++) {
        const uint32_t want = pattern_of(i, f->seed, f->scale);
        wrong += f->type == GRADREG_TYPE_F32
                     ? ((const uint32_t *)f->array)[i] != want
                     : ((const uint16_t *)f->array)[i] != (uint16_t)(want >> 16);
    }
    atomic_fetch_add(&f->wrong, wrong);
}

static void run(const bench_case *c, filling *f, void (*body)(void *task, size_t index))
{
    gradreg_i_parallel(c->context, (f->elements + PIECE - 1) / PIECE, body, f);
}

static gradreg_type buffer_type(const bench_case *c, enum bench_buffer which)
{
    if (which == BENCH_MASTER)
        return GRADREG_TYPE_F32;
    return which == BENCH_GRADS || which == BENCH_FIRST ? c->params.grad_type
                                                        : c->params.param_type;
}

/* Norms of about 17 at 100 million parameters: both clips at 10 are at work. */
void bench_backward(const bench_case *c, enum bench_buffer into, int pass)
{
    filling f = {
        c->buffer[into], buffer_type(c, into), c->elements, (uint32_t)pass, 3e-3f, 0
    };
    run(c, &f, fill_piece);
}

static filling theta(const bench_case *c, enum bench_buffer where)
{
    const filling f = { c->buffer[where], buffer_type(c, where), c->elements, 77u, 0.035f, 0 };
    return f;
}

bool bench_theta_is_clean(const bench_case *c)
{
    filling f = theta(c, BENCH_PARAMS);
    run(c, &f, compare_piece);
    return f.wrong == 0;
}

/* ---- buffers --------------------------------------------------------------------- */

static bool asks_for(const bench_case *c, enum bench_buffer which)
{
    const gradreg_regularizer_params *p = &c->params;
    switch (which) {
    case BENCH_FIRST: return p->first_gradient == GRADREG_FIRST_GRADIENT_CALLER_KEEPS;
    case BENCH_PERTURBED: return p->placement == GRADREG_PLACEMENT_OUT_OF_PLACE;
    case BENCH_MASTER: return p->restore == GRADREG_RESTORE_MASTER;
    default: return true;
    }
}

static void make_buffers(bench_case *c)
{
    for (int i = 0; i < BENCH_BUFFERS; i++) {
        const enum bench_buffer which = (enum bench_buffer)i;
        const size_t bytes = c->elements * type_bytes(buffer_type(c, which));
        c->buffer[i] =
            asks_for(c, which) ? bench_allocate_pages(bytes, c->options.huge_pages) : NULL;
        if (c->buffer[i] == NULL)
            continue;
        memset(c->buffer[i], 0, bytes);
        if (which != BENCH_PARAMS && which != BENCH_GRADS)
            c->caller_bytes += bytes;
    }
}

static void fill_buffers(bench_case *c)
{
    const gradreg_buffers defaults = GRADREG_BUFFERS_INIT;
    filling params = theta(c, BENCH_PARAMS), master = theta(c, BENCH_MASTER);
    run(c, &params, fill_piece);
    if (c->buffer[BENCH_MASTER] != NULL)
        run(c, &master, fill_piece);
    if (c->buffer[BENCH_FIRST] != NULL)
        bench_backward(c, BENCH_FIRST, 1);
    c->buffers = defaults;
    c->buffers.params = c->buffer[BENCH_PARAMS];
    c->buffers.grads = c->buffer[BENCH_GRADS];
    c->buffers.first_grads = c->buffer[BENCH_FIRST];
    c->buffers.perturbed_params = c->buffer[BENCH_PERTURBED];
    c->buffers.master_params = c->buffer[BENCH_MASTER];
    c->buffers.count = c->elements;
}

/* ---- open and close -------------------------------------------------------------- */

void bench_open(bench_case *c, const bench_options *options)
{
    gradreg_context_params params = GRADREG_CONTEXT_PARAMS_INIT;
    memset(c, 0, sizeof(*c));
    c->options = *options;
    params.threads = options->threads;
    if (options->huge_pages) {
        params.allocator.allocate = allocate_huge;
        params.allocator.release = release_huge;
    }
    choose_params(c);
    choose_segments(c);
    bench_require(gradreg_context_create(&c->context, &params), "context");
    make_buffers(c);
    fill_buffers(c);
    bench_require(gradreg_regularizer_workspace_bytes(
                      &c->library_bytes, c->context, c->segments, c->segment_count, &c->params),
                  "workspace_bytes");
    bench_require(gradreg_regularizer_create(&c->regularizer, c->context, c->segments,
                                             c->segment_count, &c->params),
                  "create");
}

void bench_close(bench_case *c)
{
    bench_require(gradreg_regularizer_destroy(c->regularizer), "destroy");
    bench_require(gradreg_context_destroy(c->context), "destroy");
    for (int i = 0; i < BENCH_BUFFERS; i++)
        free(c->buffer[i]);
    free(c->segments);
}
