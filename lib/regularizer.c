/* regularizer.c - a regularizer's birth and end, and what all of its entries share.
 *
 * In: segments, parameters. Out: a handle that holds all the memory it will ever hold: one block of
 * host memory (handle, table), one for the pieces, one of backend memory:
 *
 *      control | coefficients | sums | bins | layers' bins | m | a | layer scratch | noise lengths |
 *      terms | backend's scratch | exchange | clean copy | g1 | g+ | kept correction |
 *      noise direction */
#include "regularizer.h"

#include <stdint.h>
#include <string.h>

#include "fpenv.h"
#include "options.h"
#include "schedule.h"
#include "status.h"
#include "terms.h"

static size_t padded(size_t bytes)
{
    return (bytes + 63u) & ~(size_t)63u;
}

/* Hands out parts of a block, or only adds them up while base is NULL. */
typedef struct arena {
    char *base;
    size_t used;
} arena;

static void *take(arena *a, size_t bytes)
{
    void *part = a->base != NULL ? a->base + a->used : NULL;
    a->used += padded(bytes);
    return part;
}

/* ---- host memory ----------------------------------------------------------------- */

typedef struct host_parts {
    gradreg_regularizer *handle;
    void *table;
    gr_span *spans;
    double *multipliers, *adaptive, *averages;
    void *notes;
} host_parts;

static size_t host_layout(host_parts *out, char *base, const gr_backend_ops *ops,
                          size_t segment_count, int32_t layers)
{
    const size_t slots = (size_t)layers + 1;
    arena a = { base, 0 };
    out->handle = take(&a, sizeof(gradreg_regularizer));
    out->table = take(&a, gradreg_i_table_bytes(segment_count, layers));
    out->spans = take(&a, segment_count * sizeof(gr_span));
    out->multipliers = take(&a, slots * sizeof(double));
    out->adaptive = take(&a, slots * sizeof(double));
    out->averages = take(&a, slots * sizeof(double));
    out->notes = take(&a, ops->note_bytes(segment_count));
    return a.used;
}

/* ---- backend memory -------------------------------------------------------------- */

size_t gradreg_i_regularizer_noise_bytes(const gr_table *t)
{
    size_t count = 0;
    for (size_t i = 0; i < t->segment_count; i++)
        count += t->segments[i].noise_index >= 0;
    return count * sizeof(double);
}

/* The largest range of rows that travels at once. */
static size_t exchange_rows(void)
{
    const int ranges[] = { GR_SUM_INJECT_END, GR_SUM_FIRST_END - GR_SUM_MASTER,
                           GR_SUM_SECOND_END - GR_SUM_FIRST_END,
                           GR_SUM_COMBINE_END - GR_SUM_SECOND_END };
    int most = 0;
    for (size_t i = 0; i < sizeof(ranges) / sizeof(*ranges); i++)
        most = ranges[i] > most ? ranges[i] : most;
    return (size_t)most;
}

static size_t backend_layout(gradreg_regularizer *reg, char *base)
{
    const gr_table *t = &reg->table;
    const gradreg_regularizer_params *p = &reg->work.step.options;
    const size_t bins = t->bin_count, slots = (size_t)p->layer_count + 1;
    const size_t ranks = p->world > 1 ? (size_t)p->world : 0;
    gr_step *s = &reg->work.step;
    arena a = { base, 0 };
    s->control = take(&a, sizeof(gr_control));
    s->coefficients = take(&a, bins * sizeof(gr_coefficients));
    s->sums = take(&a, (size_t)GR_SUM_ROWS * bins * sizeof(double));
    reg->backend_bins = take(&a, bins * sizeof(gr_bin));
    s->layer_first = take(&a, slots * sizeof(int32_t));
    s->multipliers = take(&a, slots * sizeof(double));
    s->adaptive = take(&a, slots * sizeof(double));
    s->layer_u = take(&a, slots * sizeof(double));
    s->layer_weights = take(&a, slots * sizeof(double));
    s->noise_squared = take(&a, gradreg_i_regularizer_noise_bytes(t));
    s->noise_length = take(&a, gradreg_i_regularizer_noise_bytes(t));
    s->terms = take(&a, slots * GRADREG_TERMS_COLUMNS * sizeof(double));
    reg->work.block_sums = take(&a, reg->ops->scratch_bytes(t));
    reg->work.exchange = take(&a, ranks * exchange_rows() * bins * sizeof(double));
    reg->clean = take(&a, t->storage.clean);
    reg->first = take(&a, t->storage.first);
    reg->plus = take(&a, t->storage.plus);
    reg->kept = take(&a, t->storage.kept);
    reg->noise = take(&a, t->storage.noise);
    s->bins = reg->backend_bins;
    s->bin_count = (int32_t)bins;
    return a.used;
}

/* ---- description ----------------------------------------------------------------- */

static gradreg_status check_description(gradreg_context *context,
                                        const gradreg_segment *segments, size_t segment_count)
{
    GR_REQUIRE_POINTER(context);
    GR_REQUIRE_POINTER(segments);
    GR_REQUIRE(segment_count >= 1 && segment_count <= INT32_MAX,
               "segment_count is %zu, must be 1 to 2^31 - 1", segment_count);
    return GRADREG_OK;
}

/* Everything that is known before backend memory is needed. */
static gradreg_status describe(gradreg_regularizer *reg, const host_parts *parts,
                               gradreg_context *context, const gradreg_segment *segments,
                               size_t segment_count, const gradreg_regularizer_params *options)
{
    memset(reg, 0, sizeof(*reg));
    memset(parts->spans, 0, segment_count * sizeof(gr_span));
    reg->context = context;
    reg->ops = gradreg_i_backend_ops(context);
    reg->work.notes = parts->notes;
    memset(parts->notes, 0, reg->ops->note_bytes(segment_count));
    reg->multipliers = parts->multipliers;
    reg->adaptive = parts->adaptive;
    reg->averages = parts->averages;
    reg->multipliers[0] = options->schedule.outside_multiplier;
    gradreg_i_schedule_fill(reg->multipliers + 1, &options->schedule, options->layer_count);
    for (int32_t l = 0; l <= options->layer_count; l++) {
        reg->adaptive[l] = 1.0;
        reg->averages[l] = 0.0;
    }
    GR_TRY(gradreg_i_table_build(&reg->table, parts->table, segments, segment_count, options,
                                 reg->multipliers + 1));
    reg->work.context = context;
    reg->work.table = &reg->table;
    reg->work.spans = parts->spans;
    reg->work.step.options = *options;
    reg->work.step.options.schedule.table = NULL; /* the caller's; its values are copied */
    reg->no_first = !gr_reads_first(options);
    reg->piece_bytes = gradreg_i_table_piece_bytes(&reg->table);
    reg->backend_bytes = backend_layout(reg, NULL);
    return GRADREG_OK;
}

static gradreg_status make_handle(gradreg_regularizer **out, gradreg_context *context,
                                  const gradreg_segment *segments, size_t segment_count,
                                  const gradreg_regularizer_params *options)
{
    host_parts parts;
    const gr_backend_ops *ops = gradreg_i_backend_ops(context);
    const size_t bytes = host_layout(&parts, NULL, ops, segment_count, options->layer_count);
    char *memory = gradreg_i_allocate(context, bytes, GRADREG_MEMORY_HOST);
    if (memory == NULL)
        return GRADREG_ERROR_OUT_OF_MEMORY;
    host_layout(&parts, memory, ops, segment_count, options->layer_count);
    const gradreg_status status =
        describe(parts.handle, &parts, context, segments, segment_count, options);
    if (status != GRADREG_OK) {
        gradreg_i_release(context, memory, bytes, GRADREG_MEMORY_HOST);
        return status;
    }
    parts.handle->handle_bytes = bytes;
    *out = parts.handle;
    return GRADREG_OK;
}

static void release(gradreg_regularizer *reg)
{
    gradreg_context *context = reg->context;
    gradreg_i_release(context, reg->backend_memory, reg->backend_bytes, GRADREG_MEMORY_BACKEND);
    gradreg_i_release(context, reg->table.pieces, reg->piece_bytes, GRADREG_MEMORY_HOST);
    gradreg_i_release(context, reg, reg->handle_bytes, GRADREG_MEMORY_HOST);
}

/* ---- create ---------------------------------------------------------------------- */

/* What a saved state would hold before any step: the same bytes every time. */
static gradreg_status clear_state(gradreg_regularizer *reg)
{
    const gr_step *s = &reg->work.step;
    const size_t lengths = gradreg_i_regularizer_noise_bytes(&reg->table);
    GR_TRY(reg->ops->zero(&reg->work, s->noise_squared, lengths));
    GR_TRY(reg->ops->zero(&reg->work, s->noise_length, lengths));
    GR_TRY(reg->ops->zero(&reg->work, reg->noise, reg->table.storage.noise));
    return reg->ops->zero(&reg->work, reg->kept, reg->table.storage.kept);
}

static gradreg_status fill_backend_memory(gradreg_regularizer *reg)
{
    const size_t slots = (size_t)reg->work.step.options.layer_count + 1;
    const gr_backend_ops *ops = reg->ops;
    gr_control control;
    memset(&control, 0, sizeof(control));
    control.strength = reg->work.step.options.strength;
    control.epsilon = reg->work.step.options.epsilon;
    control.grad_scale = 1.0;
    GR_TRY(ops->store(&reg->work, reg->work.step.control, &control, sizeof(control)));
    GR_TRY(ops->store(&reg->work, reg->backend_bins, reg->table.bins,
                      reg->table.bin_count * sizeof(gr_bin)));
    GR_TRY(ops->store(&reg->work, (void *)(uintptr_t)reg->work.step.layer_first,
                      reg->table.layer_first, slots * sizeof(int32_t)));
    GR_TRY(ops->store(&reg->work, (void *)(uintptr_t)reg->work.step.multipliers,
                      reg->multipliers, slots * sizeof(double)));
    GR_TRY(ops->store(&reg->work, (void *)(uintptr_t)reg->work.step.adaptive, reg->adaptive,
                      slots * sizeof(double)));
    GR_TRY(gradreg_i_regularizer_clear(reg, 0, GR_SUM_ROWS));
    GR_TRY(ops->zero(&reg->work, reg->work.step.coefficients,
                     reg->table.bin_count * sizeof(gr_coefficients)));
    GR_TRY(clear_state(reg));
    const gr_decision_input input = { 0 };
    return ops->decide(&reg->work, GR_DECIDE_CLEAR_TERMS, &input);
}

/* Buffers that no cache holds: streamed stores pay from about this footprint on. */
static int is_large(const gr_table *t)
{
    const uint64_t limit = UINT64_C(16) << 20;
    uint64_t bytes = 0;
    for (size_t i = 0; i < t->segment_count; i++)
        bytes += t->segments[i].capacity * 12;
    return bytes > limit;
}

static gradreg_status equip(gradreg_regularizer *reg)
{
    void *pieces = gradreg_i_allocate(reg->context, reg->piece_bytes, GRADREG_MEMORY_HOST);
    if (pieces == NULL && reg->piece_bytes > 0)
        return GRADREG_ERROR_OUT_OF_MEMORY;
    gradreg_i_table_attach_pieces(&reg->table, pieces);
    reg->backend_memory =
        gradreg_i_allocate(reg->context, reg->backend_bytes, GRADREG_MEMORY_BACKEND);
    if (reg->backend_memory == NULL)
        return GRADREG_ERROR_OUT_OF_MEMORY;
    backend_layout(reg, reg->backend_memory);
    reg->work.streaming = is_large(&reg->table);
    gr_device_guard guard;
    GR_TRY(gradreg_i_device_enter(reg->context, &guard));
    const gradreg_status status = fill_backend_memory(reg);
    gradreg_i_device_leave(reg->context, &guard);
    return status;
}

static void remark(gradreg_regularizer *reg)
{
    const gradreg_regularizer_params *p = &reg->work.step.options;
    int steps = 0, regularizes = 0;
    gradreg_i_options_remark(reg->context, p);
    for (size_t b = 0; b < reg->table.bin_count; b++) {
        const gr_bin *bin = &reg->table.bins[b];
        steps |= (bin->flags & GR_SEGMENT_PERTURBED) != 0;
        regularizes |=
            (bin->flags & GR_SEGMENT_REGULARIZED) != 0 &&
            (p->depth == GRADREG_DEPTH_ON_PENALTY || reg->multipliers[bin->layer + 1] > 0);
    }
    if (!steps)
        gradreg_i_log(
            reg->context, GRADREG_LOG_WARNING,
            "segments: none is perturbed, the regularizer will do nothing: it wants "
            "layers of 0 or more (or outside_multiplier > 0), roles of perturbed_roles");
    if (!regularizes && p->output == GRADREG_OUTPUT_REGULARIZED)
        gradreg_i_log(
            reg->context, GRADREG_LOG_WARNING,
            "segments: none is regularized, the regularizer will do nothing: it wants "
            "layers whose multiplier is not 0, roles of regularized_roles");
}

static gradreg_status make_equipped(gradreg_regularizer **out, gradreg_context *context,
                                    const gradreg_segment *segments, size_t segment_count,
                                    const gradreg_regularizer_params *options)
{
    GR_TRY(make_handle(out, context, segments, segment_count, options));
    const gradreg_status status = equip(*out);
    if (status != GRADREG_OK)
        release(*out);
    return status;
}

gradreg_status gradreg_regularizer_create(gradreg_regularizer **out, gradreg_context *context,
                                          const gradreg_segment *segments, size_t segment_count,
                                          const gradreg_regularizer_params *params)
{
    gradreg_regularizer_params options;
    gradreg_regularizer *reg = NULL;
    GR_ENTER();
    GR_REQUIRE_POINTER(out);
    *out = NULL;
    GR_TRY(check_description(context, segments, segment_count));
    GR_TRY(gradreg_i_options_read(&options, params));
    gradreg_i_child_add(context);
    const gradreg_status status =
        make_equipped(&reg, context, segments, segment_count, &options);
    if (status != GRADREG_OK) {
        gradreg_i_child_remove(context);
        return status;
    }
    remark(reg);
    *out = reg;
    return GRADREG_OK;
}

gradreg_status gradreg_regularizer_workspace_bytes(size_t *out, gradreg_context *context,
                                                   const gradreg_segment *segments,
                                                   size_t segment_count,
                                                   const gradreg_regularizer_params *params)
{
    gradreg_regularizer_params options;
    gradreg_regularizer *reg = NULL;
    GR_ENTER();
    GR_REQUIRE_POINTER(out);
    GR_TRY(check_description(context, segments, segment_count));
    GR_TRY(gradreg_i_options_read(&options, params));
    gradreg_i_child_add(context);
    const gradreg_status status = make_handle(&reg, context, segments, segment_count, &options);
    if (status == GRADREG_OK) {
        *out = reg->handle_bytes + reg->piece_bytes + reg->backend_bytes;
        gradreg_i_release(context, reg, reg->handle_bytes, GRADREG_MEMORY_HOST);
    }
    gradreg_i_child_remove(context);
    return status;
}

gradreg_status gradreg_regularizer_destroy(gradreg_regularizer *reg)
{
    GR_ENTER();
    if (reg == NULL)
        return GRADREG_OK;
    GR_TRY(gradreg_i_busy_enter(&reg->busy, "regularizer"));
    gradreg_context *context = reg->context;
    release(reg);
    gradreg_i_child_remove(context);
    return GRADREG_OK;
}

/* ---- what all entries share ------------------------------------------------------ */

gradreg_status gradreg_i_regularizer_call(gradreg_regularizer *reg, gr_entry entry, void *task)
{
    gr_fpenv host;
    gr_device_guard guard;
    GR_REQUIRE(reg != NULL, "argument 'regularizer' must not be NULL");
    GR_TRY(gradreg_i_busy_enter(&reg->busy, "regularizer"));
    gradreg_status status = gradreg_i_device_enter(reg->context, &guard);
    if (status == GRADREG_OK) {
        gradreg_i_fp_enter(&host);
        status = entry(reg, task);
        gradreg_i_fp_leave(&host);
        gradreg_i_device_leave(reg->context, &guard);
    }
    gradreg_i_busy_leave(&reg->busy);
    return status;
}

/* What leads from one state to a call that another one is wanted for. */
static const char *way_out(enum gr_state now, enum gr_state wanted)
{
    if (now == GR_STATE_MIRRORED && wanted == GR_STATE_PERTURBED)
        return "combine is next";
    if (wanted == GR_STATE_MIRRORED)
        return now == GR_STATE_PERTURBED ? "call mirror first"
                                         : "call perturb and mirror first";
    if (wanted == GR_STATE_PERTURBED)
        return "call perturb first";
    if (wanted == GR_STATE_NOISY)
        return "call inject_noise first";
    return now == GR_STATE_NOISY ? "call remove_noise or end the step first"
                                 : "end the step first, with combine, fallback or cancel";
}

gradreg_status gradreg_i_regularizer_expect(const gradreg_regularizer *reg, enum gr_state one,
                                            enum gr_state other)
{
    static const char *const names[] = { "idle", "noisy", "perturbed", "mirrored" };
    if (reg->state == one || reg->state == other)
        return GRADREG_OK;
    return GR_FAIL(GRADREG_ERROR_STATE, "the regularizer is %s, must be %s%s%s: %s",
                   names[reg->state], names[one], one == other ? "" : " or ",
                   one == other ? "" : names[other], way_out(reg->state, one));
}

gradreg_status gradreg_i_regularizer_clear(gradreg_regularizer *reg, int first_row, int end_row)
{
    const size_t bins = reg->table.bin_count;
    return reg->ops->zero(&reg->work, reg->work.step.sums + (size_t)first_row * bins,
                          (size_t)(end_row - first_row) * bins * sizeof(double));
}

gradreg_status gradreg_i_regularizer_reduce(gradreg_regularizer *reg, int first_row,
                                            int end_row, const char *what)
{
    const gradreg_regularizer_params *p = &reg->work.step.options;
    const size_t count =
        (size_t)p->world * (size_t)(end_row - first_row) * reg->table.bin_count;
    if (p->world == 1)
        return GRADREG_OK;
    GR_TRY(reg->ops->pack(&reg->work, first_row, end_row));
    const char *entered = gradreg_i_entered();
    gr_fpenv own;
    gradreg_i_fp_keep(&own);
    const int32_t failure = p->all_reduce.function(p->all_reduce.user, reg->work.exchange,
                                                   count, reg->context->stream);
    gradreg_i_fp_leave(&own);
    gradreg_i_enter(entered);
    if (failure != 0)
        return GR_FAIL(GRADREG_ERROR_COMMUNICATION,
                       "all_reduce over %zu doubles returned %d %s", count, failure, what);
    return reg->ops->unpack(&reg->work, first_row, end_row);
}
