/* regularizer_buffers.c - what a call brings.
 *
 * In: the caller's gradreg_buffers. Out: one span per segment with every pointer that the backend
 * will follow, or a sentence that names the field and the segment. */
#include "regularizer.h"

#include <stdint.h>

#include "hash.h"
#include "order.h"
#include "overlap.h"
#include "params.h"
#include "status.h"
#include "types.h"

/* One kind of buffer in its two forms. */
typedef struct gr_buffer {
    const char *name, *pointers_name;
    const void *flat;
    const void *const *pointers;
    int32_t type; /* of flat; 0: segments differ */
    int needed;
} gr_buffer;

static uint64_t mixed(uint64_t hash, const void *pointer)
{
    return gr_hash(hash, (uintptr_t)pointer);
}

static int is_given(const gr_buffer *b)
{
    return b->flat != NULL || b->pointers != NULL;
}

static gradreg_status check_form(const gr_buffer *b, int needed)
{
    GR_REQUIRE(b->flat == NULL || b->pointers == NULL,
               "buffers.%s and buffers.%s are both given, must be one of them", b->name,
               b->pointers_name);
    GR_REQUIRE(!needed || is_given(b), "buffers.%s and buffers.%s are NULL, one is needed here",
               b->name, b->pointers_name);
    GR_REQUIRE(b->flat == NULL || b->type != 0,
               "buffers.%s is one flat buffer, but segments have different types: use "
               "buffers.%s",
               b->name, b->pointers_name);
    GR_REQUIRE(b->flat == NULL || (uintptr_t)b->flat % gr_type_bytes(b->type) == 0,
               "buffers.%s = %p is not aligned to %zu bytes", b->name, b->flat,
               gr_type_bytes(b->type));
    return GRADREG_OK;
}

/* ---- which part of the table is here --------------------------------------------- */

static gradreg_status check_slice(const gradreg_regularizer *reg, const gradreg_buffers *b)
{
    const gradreg_regularizer_params *p = &reg->work.step.options;
    const uint64_t end = reg->table.parameter_count;
    GR_REQUIRE(b->slice_begin <= end, "buffers.slice_begin is %llu, the table ends at %llu",
               (unsigned long long)b->slice_begin, (unsigned long long)end);
    if (p->slice_begin != 0 || p->slice_count != 0) {
        GR_REQUIRE(b->slice_begin == p->slice_begin && b->count >= p->slice_count,
                   "buffers.slice_begin %llu and count %zu differ from params.slice_begin %llu "
                   "and slice_count %llu",
                   (unsigned long long)b->slice_begin, b->count,
                   (unsigned long long)p->slice_begin, (unsigned long long)p->slice_count);
        return GRADREG_OK;
    }
    GR_REQUIRE(
        p->world > 1 || (b->slice_begin == 0 && b->count >= end),
        "buffers.count is %zu from slice_begin %llu, the table ends at %llu: with world = 1 "
        "everything must be here",
        b->count, (unsigned long long)b->slice_begin, (unsigned long long)end);
    return GRADREG_OK;
}

/* Elements of a flat buffer that belong to the table; more may follow as padding. */
static uint64_t slice_count(const gradreg_regularizer *reg, const gradreg_buffers *b)
{
    const gradreg_regularizer_params *p = &reg->work.step.options;
    const uint64_t end = reg->table.parameter_count;
    const uint64_t rest = b->slice_begin < end ? end - b->slice_begin : 0;
    if (p->slice_begin != 0 || p->slice_count != 0)
        return p->slice_count;
    return b->count < rest ? b->count : rest;
}

static gradreg_status place(gradreg_regularizer *reg, const gradreg_buffers *b, int any_flat,
                            int any_pointers)
{
    const uint64_t count = slice_count(reg, b);
    if (any_flat)
        GR_TRY(check_slice(reg, b));
    if (any_flat && reg->table.segment_count > 1 && reg->table.parameter_count > 0)
        GR_REQUIRE(!reg->table.no_offsets,
                   "buffers: a flat buffer needs segments with offsets, "
                   "all are 0: use a pointer per segment");
    reg->slice_begin = b->slice_begin;
    if (any_flat && any_pointers)
        GR_TRY(gradreg_i_table_same_part(&reg->table, b->slice_begin, count));
    if (reg->state == GR_STATE_IDLE)
        return gradreg_i_table_place(&reg->table, !any_flat, b->slice_begin, count);
    /* A step's calls all hold the same elements: copies lie where the first one put them. */
    if (any_flat && !reg->table.placed_by_pointer)
        GR_REQUIRE(reg->table.slice_begin == b->slice_begin && reg->table.slice_count == count,
                   "buffers.slice_begin or count changed within the step");
    else if (any_flat)
        GR_TRY(gradreg_i_table_same_part(&reg->table, b->slice_begin, count));
    else if (!reg->table.placed_by_pointer)
        GR_TRY(gradreg_i_table_same_part(&reg->table, reg->table.slice_begin,
                                         reg->table.slice_count));
    return GRADREG_OK;
}

/* ---- one pointer ----------------------------------------------------------------- */

static gradreg_status find(char **out, const gradreg_regularizer *reg, const gr_buffer *b,
                           size_t index, int32_t type, int needed)
{
    const gr_segment *s = &reg->table.segments[index];
    *out = NULL;
    if (s->begin == s->end || !is_given(b))
        return GRADREG_OK;
    if (b->flat != NULL) {
        const uint64_t at = s->offset + s->begin - reg->slice_begin;
        *out = (char *)(uintptr_t)b->flat + at * gr_type_bytes(type);
        return GRADREG_OK;
    }
    *out = (char *)(uintptr_t)b->pointers[index];
    GR_REQUIRE(*out != NULL || !needed,
               "buffers.%s[%zu] is NULL, the segment has %llu elements here", b->pointers_name,
               index, (unsigned long long)(s->end - s->begin));
    GR_REQUIRE((uintptr_t)*out % gr_type_bytes(type) == 0,
               "buffers.%s[%zu] = %p is not aligned to %zu bytes", b->pointers_name, index,
               (void *)*out, gr_type_bytes(type));
    return GRADREG_OK;
}

/* ---- overlaps -------------------------------------------------------------------- */

/* Flat buffers as wholes: a gradient of one segment must not be a weight of another. */
static gradreg_status check_flat(const gr_buffer *const *all, size_t count, uint64_t count_here)
{
    const uint64_t n = count_here;
    for (size_t i = 0; i < count; i++)
        for (size_t k = 0; k < i && all[i]->flat != NULL; k++) {
            GR_REQUIRE(!gr_overlap(all[i]->flat, n * gr_type_bytes(all[i]->type), all[k]->flat,
                                   n * gr_type_bytes(all[k]->type)),
                       "buffers.%s overlaps buffers.%s within %llu elements", all[i]->name,
                       all[k]->name, (unsigned long long)n);
        }
    return GRADREG_OK;
}

enum { GR_KINDS = GR_TABLE_KEYS };

/* What one segment has in one kind of buffer. */
typedef struct gr_extent {
    const char *begin, *end;
    size_t segment;
    int kind;
} gr_extent;

/* All of them; key = place of the kind among those given * segment_count + segment. */
typedef struct gr_extents {
    const gradreg_regularizer *reg;
    int kinds[GR_KINDS], kind_count;
} gr_extents;

static gr_extents extents_given(const gradreg_regularizer *reg, const gr_buffer *const *all)
{
    gr_extents extents = { reg, { 0 }, 0 };
    for (int kind = 0; kind < GR_KINDS; kind++)
        if (is_given(all[kind]))
            extents.kinds[extents.kind_count++] = kind;
    return extents;
}

static uint64_t count_extents(const gr_extents *extents)
{
    return (uint64_t)extents->kind_count * extents->reg->table.segment_count;
}

static gr_extent extent_of(const gr_extents *extents, uint64_t key)
{
    const gradreg_regularizer *reg = extents->reg;
    const gr_table *t = &reg->table;
    const size_t i = (size_t)(key % t->segment_count);
    const gr_segment *s = &t->segments[i];
    const gr_span *span = &reg->work.spans[i];
    const gradreg_regularizer_params *p = &reg->work.step.options;
    const int keeps = p->first_gradient == GRADREG_FIRST_GRADIENT_CALLER_KEEPS;
    const char *const begins[GR_KINDS] = { span->params,
                                           span->grads,
                                           keeps ? span->first : NULL,
                                           span->moved != span->params ? span->moved : NULL,
                                           span->master,
                                           span->direction };
    const size_t w = gr_type_bytes(s->param_type), g = gr_type_bytes(s->grad_type);
    const size_t sizes[GR_KINDS] = { w, g, g, w, sizeof(float), g };
    const int kind = extents->kinds[key / t->segment_count];
    const char *begin = begins[kind];
    const uint64_t n = s->end - s->begin;
    return (gr_extent){ begin, begin == NULL ? NULL : begin + n * sizes[kind], i, kind };
}

static int address_before(const void *keys, uint64_t a, uint64_t b)
{
    const uintptr_t at = (uintptr_t)extent_of(keys, a).begin;
    const uintptr_t bt = (uintptr_t)extent_of(keys, b).begin;
    return at != bt ? at < bt : a < b;
}

static const char *given_name(const gr_buffer *b)
{
    return b->pointers != NULL ? b->pointers_name : b->name;
}

/* A gradient of one segment must not be a weight of another, and a tensor that two segments point
 * to would be stepped twice. What is only read may be shared within its kind. */
static gradreg_status check_pointers(const gr_extents *extents, const gr_buffer *const *all)
{
    static const int written[GR_KINDS] = { 1, 1, 0, 1, 0, 0 };
    const size_t count = (size_t)count_extents(extents);
    uint64_t *order = extents->reg->table.order;
    gr_extent furthest[GR_KINDS] = { { 0 } };
    gradreg_i_order(order, count, address_before, extents);
    for (size_t i = 0; i < count; i++) {
        const gr_extent e = extent_of(extents, order[i]);
        for (int kind = 0; kind < GR_KINDS && e.begin != e.end; kind++)
            GR_REQUIRE((kind == e.kind && !written[kind]) ||
                           (uintptr_t)furthest[kind].end <= (uintptr_t)e.begin,
                       "buffers.%s of segments[%zu] overlaps buffers.%s of segments[%zu]%s",
                       given_name(all[e.kind]), e.segment, given_name(all[kind]),
                       furthest[kind].segment,
                       kind == e.kind ? ": list a tied tensor once" : "");
        if (e.begin != e.end && (uintptr_t)e.end > (uintptr_t)furthest[e.kind].end)
            furthest[e.kind] = e;
    }
    return GRADREG_OK;
}

/* The calls of a step bring different buffers, so several fingerprints are remembered. */
enum { GR_REMEMBERED = 4 };

static int known(const uint64_t hashes[GR_REMEMBERED], uint64_t hash)
{
    for (int i = 0; i < GR_REMEMBERED; i++)
        if (hashes[i] == hash)
            return 1;
    return 0;
}

/* Sorting costs more than the calls of a small step: the same pointers are checked once. */
static gradreg_status check_pointers_once(gradreg_regularizer *reg, const gr_buffer *const *all)
{
    const gr_extents extents = extents_given(reg, all);
    uint64_t hash = GR_HASH_START;
    for (uint64_t key = 0; key < count_extents(&extents); key++) {
        const gr_extent e = extent_of(&extents, key);
        hash = gr_hash(mixed(mixed(hash, e.begin), e.end), (uint64_t)e.kind);
    }
    if (known(reg->checked_pointers, hash))
        return GRADREG_OK;
    GR_TRY(check_pointers(&extents, all));
    reg->checked_pointers[reg->next_pointers++ % GR_REMEMBERED] = hash;
    return GRADREG_OK;
}

/* ---- memory of the wrong kind ---------------------------------------------------- */

/* "grads" or "grad_pointers[3]" as the caller knows it. */
static gr_pointer pointer_of(const gr_buffer *b, size_t index)
{
    const gr_pointer flat = { "buffers.", b->name, b->flat, -1 };
    if (b->pointers == NULL)
        return flat;
    return (gr_pointer){ "buffers.", b->pointers_name, b->pointers[index], (int64_t)index };
}

static size_t pointer_count(const gradreg_regularizer *reg, const gr_buffer *b)
{
    return b->pointers != NULL ? reg->table.segment_count : 1;
}

/* Looking a pointer up costs a call of the driver: the same ones are looked up once. */
static gradreg_status check_places(gradreg_regularizer *reg, const gradreg_buffers *b,
                                   const gr_buffer *const *all, size_t kinds)
{
    const gr_pointer scalars[] = { { "buffers.", "grad_scale", b->grad_scale, -1 },
                                   { "buffers.", "found_inf", b->found_inf, -1 } };
    uint64_t hash = mixed(mixed(GR_HASH_START, b->grad_scale), b->found_inf);
    if (!gradreg_i_places_differ(reg->context))
        return GRADREG_OK;
    for (size_t k = 0; k < kinds; k++)
        for (size_t i = 0; i < pointer_count(reg, all[k]); i++)
            hash = mixed(hash, pointer_of(all[k], i).at);
    if (known(reg->checked_places, hash))
        return GRADREG_OK;
    for (size_t k = 0; k < kinds; k++)
        for (size_t i = 0; i < pointer_count(reg, all[k]); i++) {
            const gr_segment *s = &reg->table.segments[i];
            const gr_pointer p = pointer_of(all[k], i);
            if (all[k]->pointers == NULL || s->begin < s->end)
                GR_TRY(gradreg_i_check_place(reg->context, &p));
        }
    for (size_t i = 0; i < sizeof(scalars) / sizeof(*scalars); i++)
        GR_TRY(gradreg_i_check_place(reg->context, &scalars[i]));
    reg->checked_places[reg->next_place++ % GR_REMEMBERED] = hash;
    return GRADREG_OK;
}

/* ---- all spans ------------------------------------------------------------------- */

typedef struct gr_given {
    gr_buffer params, grads, first, moved, master, direction;
} gr_given;

static void collect(gr_given *g, const gradreg_regularizer *reg, const gradreg_buffers *b,
                    int needs)
{
    const gradreg_regularizer_params *p = &reg->work.step.options;
    const int32_t param = reg->table.one_param_type, grad = reg->table.one_grad_type;
    const gr_buffer none = { 0 };
#define BUFFER(field, pointers, type, needed) \
    (gr_buffer){ #field, #pointers, b->field, (const void *const *)b->pointers, type, needed }
    *g = (gr_given){ none, none, none, none, none, none };
    if (needs & GR_NEED_PARAMS)
        g->params = BUFFER(params, param_pointers, param, 1);
    if (needs & (GR_NEED_GRADS | GR_SEES_GRADS))
        g->grads = BUFFER(grads, grad_pointers, grad, (needs & GR_NEED_GRADS) != 0);
    if ((needs & GR_NEED_FIRST) && p->first_gradient == GRADREG_FIRST_GRADIENT_CALLER_KEEPS)
        g->first = BUFFER(first_grads, first_grad_pointers, grad, 1);
    if ((needs & GR_NEED_MOVED) && p->placement == GRADREG_PLACEMENT_OUT_OF_PLACE)
        g->moved = BUFFER(perturbed_params, perturbed_param_pointers, param, 1);
    if ((needs & GR_NEED_MASTER) && p->restore == GRADREG_RESTORE_MASTER)
        g->master = BUFFER(master_params, master_param_pointers, GRADREG_TYPE_F32, 1);
    if ((needs & GR_NEED_DIRECTION) && p->direction == GRADREG_DIRECTION_CALLER)
        g->direction = BUFFER(direction, direction_pointers, grad, 1);
#undef BUFFER
}

static gradreg_status check_later(const gradreg_buffers *b)
{
    if (b->update != NULL || b->update_pointers != NULL)
        return GR_FAIL(GRADREG_ERROR_UNSUPPORTED,
                       "buffers.update is given, it is not part of version 0.1");
    if (b->first_norm != NULL || b->second_norm != NULL)
        return GR_FAIL(GRADREG_ERROR_UNSUPPORTED,
                       "buffers.%s is given, it is not part of version 0.1",
                       b->first_norm != NULL ? "first_norm" : "second_norm");
    GR_REQUIRE(b->verify_master <= 1, "buffers.verify_master is %u, must be 0 or 1",
               b->verify_master);
    GR_REQUIRE((uintptr_t)b->grad_scale % sizeof(float) == 0,
               "buffers.grad_scale = %p is not aligned to 4 bytes",
               (const void *)b->grad_scale);
    GR_REQUIRE((uintptr_t)b->found_inf % sizeof(float) == 0,
               "buffers.found_inf = %p is not aligned to 4 bytes", (void *)b->found_inf);
    return GRADREG_OK;
}

static gradreg_status check_forms(gr_given *g)
{
    gr_buffer *all[] = {
        &g->params, &g->grads, &g->first, &g->moved, &g->master, &g->direction
    };
    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
        GR_TRY(check_form(all[i], all[i]->needed));
    return GRADREG_OK;
}

static int touches_weights(const gradreg_regularizer *reg, const gr_segment *s)
{
    return (s->flags & (GR_SEGMENT_PERTURBED | GR_SEGMENT_NOISY)) != 0 ||
           reg->work.step.options.placement == GRADREG_PLACEMENT_OUT_OF_PLACE;
}

/* Where there is room for the whole segment every element has its own place, whatever slice of it
 * is here: what is kept from step to step stays with its element. */
static char *held(char *base, uint64_t at, const gr_segment *s, int32_t type, int present)
{
    const uint64_t before = s->capacity == s->count ? s->begin : 0;
    return present ? base + at + before * gr_type_bytes(type) : NULL;
}

static gradreg_status fill_span(gradreg_regularizer *reg, size_t i, const gr_given *g)
{
    const gradreg_regularizer_params *p = &reg->work.step.options;
    const gr_segment *s = &reg->table.segments[i];
    gr_span *span = &reg->work.spans[i];
    const int trained = (s->flags & GR_SEGMENT_FROZEN) == 0;
    const int moves = (s->flags & (GR_SEGMENT_PERTURBED | GR_SEGMENT_NOISY)) != 0;
    const int in_place = p->placement == GRADREG_PLACEMENT_IN_PLACE;
    const gr_buffer none = { 0 };
    char *first, *master, *direction;
    GR_TRY(find(&span->params, reg, &g->params, i, s->param_type, touches_weights(reg, s)));
    GR_TRY(find(&span->grads, reg, trained ? &g->grads : &none, i, s->grad_type, 0));
    GR_TRY(find(&first, reg, trained ? &g->first : &none, i, s->grad_type, 0));
    GR_TRY(find(&span->moved, reg, &g->moved, i, s->param_type, 1));
    GR_TRY(find(&master, reg, moves ? &g->master : &none, i, GRADREG_TYPE_F32, moves));
    GR_TRY(find(&direction, reg, (s->flags & GR_SEGMENT_PERTURBED) ? &g->direction : &none, i,
                s->grad_type, 1));
    if (in_place)
        span->moved = span->params;
    span->master = master;
    span->direction = direction;
    const int copied = p->first_gradient == GRADREG_FIRST_GRADIENT_COPIED;
    span->first = reg->no_first ? NULL : copied ? span->grads : first;
    span->first_copy =
        held(reg->first, s->first_at, s, s->grad_type, trained && copied && !reg->no_first);
    span->clean = held(reg->clean, s->clean_at, s, s->param_type,
                       moves && in_place && p->restore == GRADREG_RESTORE_COPY);
    span->plus =
        held(reg->plus, s->plus_at, s, s->grad_type,
             p->difference == GRADREG_DIFFERENCE_CENTRAL && (s->flags & GR_SEGMENT_SEEN) != 0);
    span->kept =
        held(reg->kept, s->kept_at, s, GRADREG_TYPE_F32, (s->flags & GR_SEGMENT_KEEPS) != 0);
    span->noise =
        held(reg->noise, s->noise_at, s, GRADREG_TYPE_F32, (s->flags & GR_SEGMENT_NOISY) != 0);
    return GRADREG_OK;
}

/* Of the weights that this step moves, so that a later call with others is noticed. */
static uint64_t fingerprint(const gradreg_regularizer *reg)
{
    uint64_t hash = GR_HASH_START;
    for (size_t i = 0; i < reg->table.segment_count; i++)
        hash = mixed(mixed(hash, reg->work.spans[i].moved), reg->work.spans[i].params);
    return hash;
}

gradreg_status gradreg_i_regularizer_spans(gradreg_regularizer *reg, gradreg_buffers *b,
                                           const gradreg_buffers *caller, int needs)
{
    const gradreg_buffers defaults = GRADREG_BUFFERS_INIT;
    gr_given g;
    GR_REQUIRE(caller != NULL, "argument 'buffers' must not be NULL");
    *b = defaults;
    GR_TRY(gradreg_i_struct_read(b, sizeof(*b), sizeof(*b), caller, "buffers"));
    GR_TRY(check_later(b));
    collect(&g, reg, b, needs);
    GR_TRY(check_forms(&g));
    const gr_buffer *all[] = {
        &g.params, &g.grads, &g.first, &g.moved, &g.master, &g.direction
    };
    int any_flat = 0, any_pointers = 0;
    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++) {
        any_flat |= all[i]->flat != NULL;
        any_pointers |= all[i]->pointers != NULL;
    }
    GR_TRY(place(reg, b, any_flat, any_pointers));
    if (any_flat)
        GR_TRY(check_flat(all, sizeof(all) / sizeof(*all), slice_count(reg, b)));
    for (size_t i = 0; i < reg->table.segment_count; i++)
        GR_TRY(fill_span(reg, i, &g));
    if (any_pointers)
        GR_TRY(check_pointers_once(reg, all));
    GR_TRY(check_places(reg, b, all, sizeof(all) / sizeof(*all)));
    if (reg->ops->begin != NULL)
        GR_TRY(reg->ops->begin(&reg->work));
    const int moved_given =
        needs &
        (reg->work.step.options.placement == GRADREG_PLACEMENT_IN_PLACE ? GR_NEED_PARAMS
                                                                        : GR_NEED_MOVED);
    if (!moved_given)
        return GRADREG_OK;
    const uint64_t weights = fingerprint(reg);
    if (reg->state != GR_STATE_IDLE) {
        GR_REQUIRE(weights == reg->step_buffers,
                   "buffers.params (or perturbed_params) changed within the step");
        return GRADREG_OK;
    }
    reg->step_buffers = weights;
    return GRADREG_OK;
}
