/* probe.c - the probe's front: a handle, and its calls validated and dispatched.
 *
 * In: gradreg_probe_params, rows of hidden states and logits. Out: checked tasks for the backend, which
 * keeps the statistics in its own memory:
 *
 *      host      handle | copy of the statistics, for summary
 *      backend   statistics: baseline, layer 0, layer 1, ... | results of GR_PROBE_ROWS rows */
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "backend.h"
#include "fpenv.h"
#include "params.h"
#include "probe_data.h"
#include "schedule.h"
#include "status.h"
#include "types.h"

enum { DEFAULT_TRIALS = 30 };

struct gradreg_probe {
    gradreg_context *context;
    const gr_probe_ops *ops;
    gradreg_probe_params params;
    gr_busy busy;
    gr_probe_statistics *statistics; /* backend memory, [1 + layer_count]: the baseline first */
    gr_probe_row *results;           /* backend memory */
    gr_probe_statistics *copy;       /* host */
    size_t host_bytes, backend_bytes;
};

static size_t slots_of(const gradreg_probe_params *params)
{
    return (size_t)params->layer_count + 1;
}

/* ---- create and destroy ---------------------------------------------------------- */

static gradreg_status read_params(gradreg_probe_params *p, const gradreg_probe_params *caller)
{
    const gradreg_probe_params defaults = GRADREG_PROBE_PARAMS_INIT;
    *p = defaults;
    GR_TRY(gradreg_i_struct_read(p, sizeof(*p), sizeof(*p), caller, "params"));
    GR_REQUIRE(p->layer_count >= 1 && p->layer_count <= GR_LAYER_COUNT_LIMIT,
               "params.layer_count is %d, must be 1 to %d", p->layer_count,
               GR_LAYER_COUNT_LIMIT);
    GR_REQUIRE(p->trials >= 0, "params.trials is %d, must be at least 1, or 0 for %d",
               p->trials, DEFAULT_TRIALS);
    GR_REQUIRE(p->reserved0 == 0, "params.reserved0 must be 0");
    GR_REQUIRE(isfinite(p->noise_scale) && p->noise_scale >= 0,
               "params.noise_scale is %g, must be finite and >= 0", p->noise_scale);
    if (p->trials == 0)
        p->trials = DEFAULT_TRIALS;
    return GRADREG_OK;
}

static gradreg_status equip(gradreg_probe *probe)
{
    const size_t slots = slots_of(&probe->params);
    char *memory =
        gradreg_i_allocate(probe->context, probe->backend_bytes, GRADREG_MEMORY_BACKEND);
    if (memory == NULL)
        return GRADREG_ERROR_OUT_OF_MEMORY;
    probe->statistics = (gr_probe_statistics *)(void *)memory;
    probe->results = (gr_probe_row *)(void *)(probe->statistics + slots);
    return probe->ops->clear(probe->context, probe->statistics, slots);
}

static void release(gradreg_probe *probe)
{
    gradreg_context *context = probe->context;
    gradreg_i_release(context, probe->statistics, probe->backend_bytes, GRADREG_MEMORY_BACKEND);
    gradreg_i_release(context, probe, probe->host_bytes, GRADREG_MEMORY_HOST);
}

static gradreg_status create(gradreg_probe **out, gradreg_context *context,
                             const gradreg_probe_params *params)
{
    const size_t statistics = slots_of(params) * sizeof(gr_probe_statistics);
    const size_t host_bytes = sizeof(gradreg_probe) + statistics;
    gradreg_probe *probe = gradreg_i_allocate(context, host_bytes, GRADREG_MEMORY_HOST);
    if (probe == NULL)
        return GRADREG_ERROR_OUT_OF_MEMORY;
    memset(probe, 0, host_bytes);
    probe->context = context;
    probe->ops = gradreg_i_backend_probe(context);
    probe->params = *params;
    atomic_init(&probe->busy.taken, 0);
    probe->copy = (gr_probe_statistics *)(void *)(probe + 1);
    probe->host_bytes = host_bytes;
    probe->backend_bytes = statistics + GR_PROBE_ROWS * sizeof(gr_probe_row);
    const gradreg_status status = equip(probe);
    if (status != GRADREG_OK) {
        release(probe);
        return status;
    }
    *out = probe;
    return GRADREG_OK;
}

gradreg_status gradreg_probe_create(gradreg_probe **out, gradreg_context *context,
                                    const gradreg_probe_params *params)
{
    gradreg_probe_params read;
    GR_ENTER();
    GR_REQUIRE_POINTER(out);
    *out = NULL;
    GR_REQUIRE_POINTER(context);
    GR_REQUIRE_POINTER(params);
    GR_TRY(read_params(&read, params));
    gradreg_i_child_add(context);
    const gradreg_status status = create(out, context, &read);
    if (status != GRADREG_OK)
        gradreg_i_child_remove(context);
    return status;
}

gradreg_status gradreg_probe_destroy(gradreg_probe *probe)
{
    GR_ENTER();
    if (probe == NULL)
        return GRADREG_OK;
    GR_TRY(gradreg_i_busy_enter(&probe->busy, "probe"));
    gradreg_context *context = probe->context;
    release(probe);
    gradreg_i_child_remove(context);
    return GRADREG_OK;
}

gradreg_status gradreg_probe_reset(gradreg_probe *probe)
{
    GR_ENTER();
    GR_REQUIRE_POINTER(probe);
    GR_TRY(gradreg_i_busy_enter(&probe->busy, "probe"));
    const gradreg_status status =
        probe->ops->clear(probe->context, probe->statistics, slots_of(&probe->params));
    gradreg_i_busy_leave(&probe->busy);
    return status;
}

/* ---- rows ------------------------------------------------------------------------ */

/* The names of the arguments that differ between inject and observe. */
typedef struct row_names {
    const char *buffer, *width;
} row_names;

static gradreg_status check_rows(const gradreg_probe *probe, gr_probe_rows *shape,
                                 const void *buffer, const row_names *names)
{
    const size_t size = gr_type_bytes(shape->type);
    GR_REQUIRE(gr_type_is_known(shape->type), "type is %d, must be a GRADREG_TYPE_ constant",
               shape->type);
    GR_REQUIRE(shape->width >= 1 && shape->width <= INT32_MAX,
               "%s is %zu, must be 1 to 2^31 - 1", names->width, shape->width);
    GR_REQUIRE(shape->stride == 0 || shape->stride >= shape->width,
               "row_stride is %zu, must be 0 or at least %s = %zu", shape->stride, names->width,
               shape->width);
    if (shape->stride == 0)
        shape->stride = shape->width;
    GR_REQUIRE(shape->rows == 0 || buffer != NULL, "argument '%s' must not be NULL",
               names->buffer);
    GR_REQUIRE((uintptr_t)buffer % size == 0, "%s = %p is not aligned to %zu bytes",
               names->buffer, buffer, size);
    GR_REQUIRE(shape->rows <= 1 ||
                   shape->stride <= (PTRDIFF_MAX / size - shape->width) / (shape->rows - 1),
               "rows = %zu with row_stride = %zu end past the address space", shape->rows,
               shape->stride);
    const gr_pointer place = { "", names->buffer, shape->rows > 0 ? buffer : NULL, -1 };
    return gradreg_i_check_place(probe->context, &place);
}

static gradreg_status check_trials(const gradreg_probe *probe, size_t rows, int32_t first_trial)
{
    const int32_t trials = probe->params.trials;
    GR_REQUIRE(first_trial >= 0 && first_trial <= trials,
               "first_trial is %d, must be 0 to %d, the probe's trials", first_trial, trials);
    GR_REQUIRE(rows <= (size_t)(trials - first_trial),
               "first_trial = %d with rows = %zu ends past trial %d, the probe's last",
               first_trial, rows, trials - 1);
    return GRADREG_OK;
}

typedef gradreg_status (*entry)(gradreg_probe *probe, void *task);

static gradreg_status call(gradreg_probe *probe, entry function, void *task)
{
    gr_fpenv host;
    GR_TRY(gradreg_i_busy_enter(&probe->busy, "probe"));
    gradreg_i_fp_enter(&host);
    const gradreg_status status = function(probe, task);
    gradreg_i_fp_leave(&host);
    gradreg_i_busy_leave(&probe->busy);
    return status;
}

static gradreg_status run_inject(gradreg_probe *probe, void *task)
{
    return probe->ops->inject(probe->context, task);
}

gradreg_status gradreg_probe_inject(gradreg_probe *probe, void *hidden, gradreg_type type,
                                    size_t rows, size_t width, size_t row_stride, int32_t layer,
                                    int32_t first_trial)
{
    static const row_names names = { "hidden", "width" };
    gr_probe_rows shape = { rows, width, row_stride, type };
    GR_ENTER();
    GR_REQUIRE_POINTER(probe);
    GR_TRY(check_rows(probe, &shape, hidden, &names));
    GR_REQUIRE(layer >= 0 && layer < probe->params.layer_count, "layer is %d, must be 0 to %d",
               layer, probe->params.layer_count - 1);
    GR_TRY(check_trials(probe, rows, first_trial));
    gr_inject_task task = {
        probe->statistics + 1 + layer, probe->results,    hidden, shape, layer, first_trial,
        probe->params.noise_scale,     probe->params.seed
    };
    return call(probe, run_inject, &task);
}

static gradreg_status run_observe(gradreg_probe *probe, void *task)
{
    return probe->ops->observe(probe->context, task);
}

gradreg_status gradreg_probe_observe(gradreg_probe *probe, const void *logits,
                                     gradreg_type type, size_t rows, size_t vocabulary,
                                     size_t row_stride, int32_t target, int32_t layer,
                                     int32_t first_trial)
{
    static const row_names names = { "logits", "vocabulary" };
    gr_probe_rows shape = { rows, vocabulary, row_stride, type };
    GR_ENTER();
    GR_REQUIRE_POINTER(probe);
    GR_TRY(check_rows(probe, &shape, logits, &names));
    GR_REQUIRE(target >= 0 && (size_t)target < vocabulary, "target is %d, must be 0 to %zu",
               target, vocabulary - 1);
    GR_REQUIRE(layer >= GRADREG_LAYER_NONE && layer < probe->params.layer_count,
               "layer is %d, must be 0 to %d or GRADREG_LAYER_NONE", layer,
               probe->params.layer_count - 1);
    if (layer != GRADREG_LAYER_NONE)
        GR_TRY(check_trials(probe, rows, first_trial));
    gr_observe_task task = { probe->statistics + 1 + layer, probe->results, logits, shape,
                             (size_t)target };
    return call(probe, run_observe, &task);
}

/* ---- summary --------------------------------------------------------------------- */

static gradreg_probe_layer report_of(const gr_probe_statistics *s, double baseline,
                                     int32_t layer)
{
    gradreg_probe_layer row = GRADREG_PROBE_LAYER_INIT;
    const int some = s->trials > 0;
    row.layer = layer;
    row.mean = some ? s->mean : (double)NAN;
    row.std = some ? gr_probe_deviation(s) : (double)NAN;
    row.min = some ? s->min : (double)NAN;
    row.max = some ? s->max : (double)NAN;
    row.baseline = baseline;
    row.trials = s->trials;
    row.non_finite = s->non_finite;
    row.not_injected = s->not_injected;
    row.saturated = s->saturated;
    return row;
}

static gradreg_status summarize(gradreg_probe *probe, void *task)
{
    gradreg_probe_layer *out = task;
    const size_t stride = out->struct_size;
    const gr_probe_statistics *s = probe->copy;
    GR_TRY(probe->ops->read(probe->context, probe->copy, probe->statistics,
                            slots_of(&probe->params)));
    const double baseline = s[0].trials > 0 ? s[0].mean : (double)NAN;
    for (int32_t l = 0; l < probe->params.layer_count; l++) {
        const gradreg_probe_layer row = report_of(&s[1 + l], baseline, l);
        char *at = (char *)out + (size_t)l * stride;
        memcpy(at, out, sizeof(out->struct_size));
        gradreg_i_struct_write(at, &row, sizeof(row));
    }
    return GRADREG_OK;
}

gradreg_status gradreg_probe_summary(gradreg_probe *probe, gradreg_probe_layer *out,
                                     size_t layer_count)
{
    GR_ENTER();
    GR_REQUIRE_POINTER(probe);
    GR_REQUIRE_POINTER(out);
    GR_REQUIRE(layer_count == (size_t)probe->params.layer_count,
               "layer_count is %zu, must be %d, the probe's", layer_count,
               probe->params.layer_count);
    GR_TRY(gradreg_i_struct_check(out, sizeof(*out), "out[0]"));
    GR_REQUIRE(out->struct_size % _Alignof(gradreg_probe_layer) == 0,
               "out[0].struct_size is %u, must be a multiple of %zu", out->struct_size,
               _Alignof(gradreg_probe_layer));
    return call(probe, summarize, out);
}
