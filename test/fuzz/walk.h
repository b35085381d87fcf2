/* walk.h - what the fuzzers of tables and of parameters share: numbers from bytes, memory that is
 * limited and counted, and a random walk through the calls of a step.
 *
 * In: a regularizer, its description, and bytes that choose the form of every buffer, what is in
 * it, and the calls. Out: an abort, with a reason, when a call gives a status that the state of
 * the step does not allow, when a refused call has changed anything, when theta is not the
 * caller's to the last bit wherever the header says so, or when memory is lost. */
#ifndef GRADREG_TEST_FUZZ_WALK_H
#define GRADREG_TEST_FUZZ_WALK_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../numbers.h"
#include "gradreg.h"

static void fuzz_fail(const char *what, gradreg_status status)
{
    fprintf(stderr, "%s: %s: %s\n", what, gradreg_status_name(status), gradreg_last_error());
    abort();
}

/* What the fuzzer's own rules say of a description. */
struct verdict {
    bool invalid, unsupported;
};

static void check_verdict(struct verdict v, gradreg_status status)
{
    if (status == GRADREG_ERROR_OUT_OF_MEMORY)
        return;
    if ((status == GRADREG_OK) != (!v.invalid && !v.unsupported) ||
        (status == GRADREG_ERROR_INVALID_ARGUMENT && !v.invalid) ||
        (status == GRADREG_ERROR_UNSUPPORTED && !v.unsupported))
        fuzz_fail(v.invalid       ? "should be invalid"
                  : v.unsupported ? "should be unsupported"
                                  : "should be accepted",
                  status);
}

/* ---- bytes ------------------------------------------------------------------------- */

struct bytes {
    const uint8_t *at;
    size_t left;
};

static uint32_t take(struct bytes *b)
{
    if (b->left == 0)
        return 0;
    b->left--;
    return *b->at++;
}

static uint64_t take_64(struct bytes *b)
{
    uint64_t value = 0;
    for (int i = 0; i < 8; i++)
        value |= (uint64_t)take(b) << (8 * i);
    return value;
}

/* ---- memory ------------------------------------------------------------------------ */

enum { MEMORY_LIMIT = 8 << 20 };

struct memory {
    size_t held;
};

static void *limited_allocate(void *user, size_t bytes, size_t alignment, gradreg_memory kind)
{
    struct memory *memory = user;

    (void)kind;
    if (bytes == 0 || alignment == 0 || alignment > 64)
        fuzz_fail("a strange request for memory", GRADREG_OK);
    if (bytes > MEMORY_LIMIT - memory->held)
        return NULL;
    memory->held += bytes;
    void *block = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (block != NULL)
        memset(block, 0xa5, bytes);
    return block;
}

static void limited_release(void *user, void *pointer, size_t bytes, gradreg_memory kind)
{
    struct memory *memory = user;

    (void)kind;
    if (bytes > memory->held)
        fuzz_fail("more given back than taken", GRADREG_OK);
    memory->held -= bytes;
    free(pointer);
}

static gradreg_context *open_limited(struct memory *memory)
{
    gradreg_context_params params = GRADREG_CONTEXT_PARAMS_INIT;
    gradreg_context *context = NULL;

    params.threads = 1;
    params.allocator = (gradreg_allocator){ limited_allocate, limited_release, memory, NULL };
    const gradreg_status status = gradreg_context_create(&context, &params);
    if (status != GRADREG_OK)
        fuzz_fail("no context", status);
    return context;
}

static void close_limited(gradreg_context *context, const struct memory *memory)
{
    const gradreg_status status = gradreg_context_destroy(context);
    if (status != GRADREG_OK || memory->held != 0)
        fuzz_fail("memory or a child is left", status);
}

/* ---- buffers ----------------------------------------------------------------------- */

enum buffer { PARAMS, GRADS, FIRST, MOVED, MASTER, DIRECTION, BUFFERS };
enum { MOST_SEGMENTS = 16, MOST_ELEMENTS = 9000, SPARE = 16 };

struct walk {
    gradreg_regularizer *reg;
    gradreg_regularizer_params params; /* as given */
    const gradreg_segment *segments;
    size_t segment_count, elements; /* behind every flat buffer */
    uint32_t *memory[BUFFERS], *before[BUFFERS], *original[BUFFERS];
    size_t words;
    void *pointers[BUFFERS][MOST_SEGMENTS];
    gradreg_buffers buffers;
    bool well_formed; /* every legal call must succeed */
    enum { IDLE, NOISY, PERTURBED, MIRRORED } state;
    uint64_t ended; /* steps */
    bool loaded;    /* a state, since the last step: there is no report */
};

static bool is_out_of_place(const struct walk *w)
{
    return w->params.placement == GRADREG_PLACEMENT_OUT_OF_PLACE;
}

static uint32_t any_pattern(uint64_t *seed, uint32_t mode)
{
    const uint32_t word = (uint32_t)next_word(seed);
    if (mode % 4 == 0) /* around one, for every type of element */
        return (word & 0x807f807fu) | 0x3f803f80u;
    if (mode % 4 == 1)
        return word & 0x80ff80ffu; /* next to nothing */
    if (mode % 4 == 2)
        return 0;
    return word; /* NaN, infinities, huge */
}

static void fill_buffer(struct walk *w, enum buffer b, uint32_t mode)
{
    uint64_t seed = mode + 256 * (uint64_t)b;
    for (size_t i = 0; i < w->words; i++)
        w->memory[b][i] = any_pattern(&seed, mode);
}

static void *new_words(size_t words)
{
    void *memory = calloc(words, sizeof(uint32_t));
    if (memory == NULL)
        abort();
    return memory;
}

/* Every segment has a place of its own, as if all elements had four bytes. */
static void place_pointers(struct walk *w, enum buffer b)
{
    size_t at = 0;
    for (size_t s = 0; s < w->segment_count; s++) {
        w->pointers[b][s] = w->memory[b] + at;
        at += (size_t)w->segments[s].count;
    }
}

/* False where the table is too large to have buffers for it. */
static bool make_buffers(struct walk *w, struct bytes *in)
{
    uint64_t end = 0, sum = 0, largest = 0;
    for (size_t s = 0; s < w->segment_count; s++) {
        const gradreg_segment *at = &w->segments[s];
        if (at->count > MOST_ELEMENTS || at->offset > MOST_ELEMENTS)
            return false;
        sum += at->count;
        largest = at->count > largest ? at->count : largest;
        end = at->offset + at->count > end ? at->offset + at->count : end;
    }
    if (w->params.parameter_count > MOST_ELEMENTS || sum > MOST_ELEMENTS)
        return false;
    end = w->params.parameter_count > end ? w->params.parameter_count : end;
    w->elements = (size_t)end;
    /* a pointer that is tied to the last place brings its own segment's count */
    w->words = (size_t)((end > sum ? end : sum) + largest) + SPARE;
    for (enum buffer b = PARAMS; b < BUFFERS; b++) {
        w->memory[b] = new_words(w->words);
        w->before[b] = new_words(w->words);
        w->original[b] = new_words(w->words);
        fill_buffer(w, b, take(in));
        place_pointers(w, b);
    }
    /* params = round(master) where weights are f32 */
    memcpy(w->memory[MASTER], w->memory[PARAMS], w->words * sizeof(uint32_t));
    for (enum buffer b = PARAMS; b < BUFFERS; b++)
        memcpy(w->original[b], w->memory[b], w->words * sizeof(uint32_t));
    return true;
}

static void drop_buffers(struct walk *w)
{
    for (enum buffer b = PARAMS; b < BUFFERS; b++) {
        free(w->memory[b]);
        free(w->before[b]);
        free(w->original[b]);
    }
}

/* Flat, by pointer, both or not at all; a pointer may be missing, tied, or not aligned. */
static void choose_form(struct walk *w, enum buffer b, uint32_t form, void **flat,
                        void *const **pointers)
{
    *flat = form % 4 == 1 || form % 4 == 2 ? w->memory[b] : NULL;
    *pointers = form % 4 == 0 || form % 4 == 2 ? w->pointers[b] : NULL;
    if (form % 4 != 0)
        w->well_formed = false;
    if (form / 4 % 4 == 0)
        return;
    w->well_formed = false;
    const size_t s = form / 16 % w->segment_count;
    if (form / 4 % 4 == 1)
        w->pointers[b][s] = NULL;
    else if (form / 4 % 4 == 2)
        w->pointers[b][s] = (char *)w->pointers[b][s] + 1 + form % 3;
    else
        w->pointers[b][s] = w->pointers[b][(s + 1) % w->segment_count];
}

static uint32_t take_form(struct bytes *in, bool plain)
{
    const uint32_t form = take(in);
    return plain ? 0 : form;
}

static void choose_forms(struct walk *w, struct bytes *in)
{
    gradreg_buffers b = GRADREG_BUFFERS_INIT;
    const bool plain = take(in) < 160;
    void *master, *direction;
    void *const *master_pointers, *const *direction_pointers;

    w->well_formed =
        w->params.world <= 1 && w->params.slice_count == 0 && w->params.slice_begin == 0;
    choose_form(w, PARAMS, take_form(in, plain), &b.params, &b.param_pointers);
    choose_form(w, GRADS, take_form(in, plain), &b.grads, &b.grad_pointers);
    choose_form(w, FIRST, take_form(in, plain), &b.first_grads, &b.first_grad_pointers);
    choose_form(w, MOVED, take_form(in, plain), &b.perturbed_params,
                &b.perturbed_param_pointers);
    choose_form(w, MASTER, take_form(in, plain), &master, &master_pointers);
    choose_form(w, DIRECTION, take_form(in, plain), &direction, &direction_pointers);
    b.master_params = master;
    b.direction = direction;
    b.master_param_pointers = (const void *const *)master_pointers;
    b.direction_pointers = (const void *const *)direction_pointers;
    b.count = w->elements;
    w->buffers = b;
}

/* ---- the calls --------------------------------------------------------------------- */

enum call { INJECT, REMOVE, PERTURB, MIRROR, COMBINE, FALLBACK, CANCEL, SUGGEST, CALLS };

static const char *const call_names[CALLS] = { "inject_noise", "remove_noise",   "perturb",
                                               "mirror",       "combine",        "fallback",
                                               "cancel",       "suggest_epsilon" };

static gradreg_status make_call(struct walk *w, enum call call)
{
    double epsilon;
    switch (call) {
    case INJECT: return gradreg_regularizer_inject_noise(w->reg, &w->buffers);
    case REMOVE: return gradreg_regularizer_remove_noise(w->reg, &w->buffers);
    case PERTURB: return gradreg_regularizer_perturb(w->reg, &w->buffers);
    case MIRROR: return gradreg_regularizer_mirror(w->reg, &w->buffers);
    case COMBINE: return gradreg_regularizer_combine(w->reg, &w->buffers);
    case FALLBACK: return gradreg_regularizer_fallback(w->reg, &w->buffers);
    case CANCEL: return gradreg_regularizer_cancel(w->reg, &w->buffers);
    default: return gradreg_regularizer_suggest_epsilon(w->reg, &epsilon, &w->buffers, 0.75);
    }
}

/* The contract's table of calls and states. */
static bool is_central(const struct walk *w)
{
    return w->params.difference == GRADREG_DIFFERENCE_CENTRAL;
}

static bool reuses(const struct walk *w)
{
    const bool product = w->params.output == GRADREG_OUTPUT_PRODUCT;
    const uint64_t interval =
        product || w->params.interval < 1 ? 1 : (uint64_t)w->params.interval;
    return w->ended % interval != 0;
}

static bool is_legal(const struct walk *w, enum call call)
{
    const bool resting = w->state == IDLE || w->state == NOISY;
    switch (call) {
    case INJECT: return w->state == IDLE;
    case REMOVE: return w->state == NOISY;
    case PERTURB: return resting && !reuses(w);
    case MIRROR: return is_central(w) && w->state == PERTURBED;
    case COMBINE:
        if (reuses(w))
            return resting;
        return w->state == (is_central(w) ? MIRRORED : PERTURBED);
    case FALLBACK: return w->state == PERTURBED || w->state == MIRRORED;
    case SUGGEST: return resting;
    default: return true;
    }
}

static bool has_noise(const struct walk *w)
{
    return w->params.output != GRADREG_OUTPUT_PRODUCT &&
           w->params.noise.rule > GRADREG_NOISE_OFF;
}

static void check_status(const struct walk *w, enum call call, gradreg_status status)
{
    const bool legal = is_legal(w, call);
    if (call == INJECT && !has_noise(w)) {
        if (status != GRADREG_ERROR_UNSUPPORTED)
            fuzz_fail("noise that is off", status);
        return;
    }
    if (!legal && status != GRADREG_ERROR_STATE)
        fuzz_fail(call_names[call], status);
    if (legal && status == GRADREG_ERROR_STATE)
        fuzz_fail(call_names[call], status);
    if (legal && status != GRADREG_OK && w->well_formed &&
        !(call == SUGGEST && status == GRADREG_ERROR_NON_FINITE))
        fuzz_fail(call_names[call], status);
}

static void note_state(struct walk *w, enum call call)
{
    switch (call) {
    case INJECT: w->state = NOISY; break;
    case PERTURB: w->state = PERTURBED; break;
    case MIRROR: w->state = MIRRORED; break;
    case SUGGEST: break;
    case COMBINE:
    case FALLBACK:
        w->ended++;
        w->loaded = false;
        w->state = IDLE;
        break;
    default: w->state = IDLE; break;
    }
}

static bool same(const struct walk *w, uint32_t *const *a, uint32_t *const *b,
                 enum buffer which)
{
    return memcmp(a[which], b[which], w->words * sizeof(uint32_t)) == 0;
}

static void check_memory(const struct walk *w, enum call call, gradreg_status status)
{
    const bool refused = status != GRADREG_OK || call == SUGGEST;
    for (enum buffer b = PARAMS; refused && b < BUFFERS; b++)
        if (!same(w, w->memory, w->before, b))
            fuzz_fail("a refused call wrote", status);
    if ((w->state == IDLE || is_out_of_place(w)) && !same(w, w->memory, w->original, PARAMS))
        fuzz_fail("theta is not the caller's", status);
    if (!same(w, w->memory, w->before, FIRST) || !same(w, w->memory, w->original, MASTER) ||
        !same(w, w->memory, w->original, DIRECTION))
        fuzz_fail("what is only read was written", status);
}

static void do_call(struct walk *w, enum call call)
{
    for (enum buffer b = PARAMS; b < BUFFERS; b++)
        memcpy(w->before[b], w->memory[b], w->words * sizeof(uint32_t));
    const gradreg_status status = make_call(w, call);
    check_status(w, call, status);
    if (status == GRADREG_OK)
        note_state(w, call);
    check_memory(w, call, status);
}

/* ---- between the calls ------------------------------------------------------------- */

static void check_terms(struct walk *w)
{
    gradreg_terms total = GRADREG_TERMS_INIT;
    int32_t passes = -1;
    gradreg_status status = gradreg_regularizer_terms(w->reg, &total, NULL, 0);
    if (status != GRADREG_OK || (!w->loaded && total.step < w->ended) ||
        (total.flags & ~127u) != 0)
        fuzz_fail("terms", status);
    if (total.update_norm < 0 || total.first_norm < 0 || total.penalty < 0 ||
        total.applied_cosine > 1.0001 || total.changed_fraction > 1.0 ||
        total.clip_first > 1.0 || total.clip_second > 1.0)
        fuzz_fail("terms that cannot be", status);
    status = gradreg_regularizer_extra_passes(w->reg, &passes);
    if (status != GRADREG_OK || passes != (reuses(w) ? 0 : is_central(w) ? 2 : 1))
        fuzz_fail("extra_passes", status);
}

/* What was saved is loaded, and saves as the same bytes. */
static void save_and_load(struct walk *w)
{
    size_t bytes = 0;
    gradreg_status status = gradreg_regularizer_state_bytes(w->reg, &bytes);
    if (status != GRADREG_OK || bytes > MEMORY_LIMIT)
        fuzz_fail("state_bytes", status);
    char *first = calloc(2, bytes), *second = first + bytes;
    if (first == NULL)
        abort();
    status = gradreg_regularizer_state_save(w->reg, first, bytes);
    if ((status == GRADREG_OK) != (w->state == IDLE))
        fuzz_fail("state_save", status);
    if (status == GRADREG_OK) {
        status = gradreg_regularizer_state_load(w->reg, first, bytes);
        if (status != GRADREG_OK ||
            gradreg_regularizer_state_save(w->reg, second, bytes) != GRADREG_OK ||
            memcmp(first, second, bytes) != 0)
            fuzz_fail("a saved state does not come back", status);
        w->loaded = true;
    }
    free(first);
}

static void change_settings(struct walk *w, uint32_t how)
{
    const bool resting = w->state == IDLE || w->state == NOISY;
    const gradreg_status status =
        how % 3 == 0   ? gradreg_regularizer_set_strength(w->reg, how / 8.0)
        : how % 3 == 1 ? gradreg_regularizer_set_epsilon(w->reg, (how + 1) / 64.0)
                       : gradreg_regularizer_set_step(w->reg, w->ended);
    if ((status == GRADREG_OK) != resting)
        fuzz_fail("a setting", status);
}

static void walk_on(struct walk *w, struct bytes *in)
{
    const uint32_t op = take(in);

    switch (op % 16) {
    case 8:
    case 9: fill_buffer(w, GRADS, op / 16); break;
    case 10: fill_buffer(w, FIRST, op / 16); break;
    case 11: check_terms(w); break;
    case 12: save_and_load(w); break;
    case 13: change_settings(w, op / 16); break;
    case 14:
    case 15: /* a whole step */
        for (int i = 0; i < 4; i++)
            do_call(w, (const enum call[]){ INJECT, PERTURB, MIRROR, COMBINE }[i]);
        break;
    default: do_call(w, (enum call)(op % 16)); break;
    }
}

/* Ends in any state: destroy takes it as it is. */
static void walk_through(struct walk *w, struct bytes *in)
{
    if (!make_buffers(w, in))
        return;
    choose_forms(w, in);
    for (int steps = 0; steps < 40 && in->left > 0; steps++)
        walk_on(w, in);
    if (w->well_formed)
        do_call(w, CANCEL);
    drop_buffers(w);
}

/* ---- a description, asked for twice ------------------------------------------------ */

static gradreg_status describe(gradreg_regularizer **out, gradreg_context *context,
                               struct memory *memory, const gradreg_segment *segments,
                               size_t count, const gradreg_regularizer_params *params)
{
    size_t bytes = 12345;
    const size_t before = memory->held;
    const gradreg_status asked =
        gradreg_regularizer_workspace_bytes(&bytes, context, segments, count, params);
    if (memory->held != before || (asked != GRADREG_OK && bytes != 12345))
        fuzz_fail("workspace_bytes left something", asked);
    const gradreg_status made =
        gradreg_regularizer_create(out, context, segments, count, params);
    if ((made == GRADREG_OK) != (*out != NULL))
        fuzz_fail("create", made);
    if (asked != made && made != GRADREG_ERROR_OUT_OF_MEMORY)
        fuzz_fail("create and workspace_bytes differ", made);
    if (made == GRADREG_ERROR_OUT_OF_MEMORY && asked == GRADREG_OK &&
        bytes <= MEMORY_LIMIT - before)
        fuzz_fail("there was memory enough", made);
    if (made == GRADREG_OK && memory->held - before != bytes)
        fuzz_fail("workspace_bytes is not what is held", made);
    if (made != GRADREG_OK && memory->held != before)
        fuzz_fail("a failed create left memory", made);
    return made;
}

static void end_walk(struct walk *w)
{
    const gradreg_status status = gradreg_regularizer_destroy(w->reg);
    if (status != GRADREG_OK)
        fuzz_fail("destroy", status);
}

#endif
