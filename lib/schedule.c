/* schedule.c - how strongly each layer is regularized.
 *
 * In: a schedule and the number of layers. Out: m(l), one double a layer:
 *
 *      m    1 |              ___________
 *             |          _-'                 x = (l - first + 1) / (full - first + 1),
 *           0 |______.-'                     so that the ramp touches neither 0 nor 1
 *             0      first   full      n
 *
 * The curves use element.h alone, under the contract's floating-point environment: the same
 * bits everywhere. */
#include "schedule.h"

#include <assert.h>
#include <math.h>

#include "element.h"
#include "fpenv.h"
#include "status.h"

/* ---- checks ---------------------------------------------------------------------- */

static gradreg_status check_layer_count(int32_t layer_count)
{
    GR_REQUIRE(layer_count >= 1 && layer_count <= GR_LAYER_COUNT_LIMIT,
               "layer_count is %d, must be 1 to %d", layer_count, GR_LAYER_COUNT_LIMIT);
    return GRADREG_OK;
}

static gradreg_status check_reserved(const gradreg_schedule *schedule, const char *argument)
{
    GR_REQUIRE(schedule->reserved0 == 0, "%s.reserved0 is %d, must be 0", argument,
               schedule->reserved0);
    for (int i = 0; i < 3; i++)
        GR_REQUIRE(schedule->reserved1[i] == 0, "%s.reserved1[%d] is %llu, must be 0", argument,
                   i, (unsigned long long)schedule->reserved1[i]);
    return GRADREG_OK;
}

static gradreg_status check_layers(const gradreg_schedule *schedule, int32_t layer_count,
                                   const char *argument)
{
    const int32_t first = schedule->first_layer, full = schedule->full_layer;

    GR_REQUIRE((first == -1) == (full == -1),
               "%s.first_layer is %d and .full_layer is %d: both must be -1, the default, or "
               "neither",
               argument, first, full);
    GR_REQUIRE(first >= 0, "%s.first_layer is %d, must be 0 or more, or -1 like full_layer",
               argument, first);
    GR_REQUIRE(first <= full, "%s.first_layer is %d, must not be above full_layer %d", argument,
               first, full);
    GR_REQUIRE(full <= layer_count, "%s.full_layer is %d, must not be above layer_count %d",
               argument, full, layer_count);
    return GRADREG_OK;
}

static gradreg_status check_numbers(const gradreg_schedule *schedule, const char *argument)
{
    const double power = schedule->power, outside = schedule->outside_multiplier;

    if (schedule->curve == GRADREG_CURVE_POWER)
        GR_REQUIRE(isfinite(power) && power > 0.0, "%s.power is %g, must be finite and > 0",
                   argument, power);
    GR_REQUIRE(isfinite(outside) && outside >= 0.0,
               "%s.outside_multiplier is %g, must be finite and >= 0", argument, outside);
    return GRADREG_OK;
}

static gradreg_status check_table(const gradreg_schedule *schedule, int32_t layer_count,
                                  const char *argument)
{
    const double *table = schedule->table;

    GR_REQUIRE(table != NULL, "%s.table must not be NULL with GRADREG_CURVE_TABLE", argument);
    GR_REQUIRE((uintptr_t)table % _Alignof(double) == 0,
               "%s.table is %p, must be aligned to %zu bytes", argument, (const void *)table,
               _Alignof(double));
    for (int32_t layer = 0; layer < layer_count; layer++)
        GR_REQUIRE(isfinite(table[layer]) && table[layer] >= 0.0,
                   "%s.table[%d] is %g, must be finite and >= 0", argument, layer,
                   table[layer]);
    return GRADREG_OK;
}

/* ---- default --------------------------------------------------------------------- */

static void set_default_layers(gradreg_schedule *schedule, int32_t layer_count)
{
    const int32_t full = (44 * layer_count + 36) / 72;

    schedule->first_layer = (12 * layer_count + 36) / 72;
    schedule->full_layer = full < layer_count ? full : layer_count - 1;
}

gradreg_status gradreg_schedule_for_depth(gradreg_schedule *out, int32_t layer_count)
{
    static const gradreg_schedule defaults = GRADREG_SCHEDULE_INIT;

    GR_ENTER();
    GR_REQUIRE_POINTER(out);
    GR_TRY(check_layer_count(layer_count));
    *out = defaults;
    set_default_layers(out, layer_count);
    return GRADREG_OK;
}

gradreg_status gradreg_i_schedule_resolve(gradreg_schedule *inout, int32_t layer_count,
                                          const char *argument)
{
    gradreg_schedule schedule = *inout;

    GR_TRY(check_layer_count(layer_count));
    GR_TRY(check_reserved(&schedule, argument));
    if (schedule.curve == 0)
        schedule.curve = GRADREG_CURVE_LINEAR;
    GR_REQUIRE(schedule.curve >= GRADREG_CURVE_LINEAR && schedule.curve <= GRADREG_CURVE_TABLE,
               "%s.curve is %d, must be a GRADREG_CURVE_ constant", argument, schedule.curve);
    if (schedule.first_layer == -1 && schedule.full_layer == -1)
        set_default_layers(&schedule, layer_count);
    GR_TRY(check_layers(&schedule, layer_count, argument));
    GR_TRY(check_numbers(&schedule, argument));
    if (schedule.curve == GRADREG_CURVE_TABLE)
        GR_TRY(check_table(&schedule, layer_count, argument));
    *inout = schedule;
    return GRADREG_OK;
}

/* ---- multipliers ----------------------------------------------------------------- */

/* (1 - cos pi x) / 2. Near 0 the difference would cancel; sin^2 is the same and does not. */
static double cosine(double x)
{
    const double sine = gr_sin_turn(0.25 * x);
    return x < 0.5 ? sine * sine : 0.5 * (1.0 - gr_cos_turn(0.5 * x));
}

static double curve_at(const gradreg_schedule *schedule, double x)
{
    switch (schedule->curve) {
    case GRADREG_CURVE_COSINE: return cosine(x);
    case GRADREG_CURVE_POWER: return gr_pow(x, schedule->power);
    case GRADREG_CURVE_STEP: return 0.0;
    default: return x;
    }
}

static double multiplier(const gradreg_schedule *schedule, int32_t layer)
{
    const int32_t first = schedule->first_layer, full = schedule->full_layer;

    if (schedule->curve == GRADREG_CURVE_TABLE)
        return schedule->table[layer];
    if (layer < first)
        return 0.0;
    if (layer >= full)
        return 1.0;
    return curve_at(schedule, (double)(layer - first + 1) / (double)(full - first + 1));
}

static void fill(double *out, const gradreg_schedule *schedule, int32_t layer_count)
{
    for (int32_t layer = 0; layer < layer_count; layer++)
        out[layer] = multiplier(schedule, layer);
}

void gradreg_i_schedule_fill(double *out, const gradreg_schedule *resolved, int32_t layer_count)
{
    /* Volatile, so that no compiler can move the arithmetic out of the environment (fpenv.h). */
    void (*volatile const compute)(double *, const gradreg_schedule *, int32_t) = fill;
    gr_fpenv host;

    assert(resolved->first_layer >= 0 && resolved->first_layer <= resolved->full_layer);
    gradreg_i_fp_enter(&host);
    compute(out, resolved, layer_count);
    gradreg_i_fp_leave(&host);
}

gradreg_status gradreg_schedule_multipliers(double *out, const gradreg_schedule *schedule,
                                            int32_t layer_count)
{
    GR_ENTER();
    GR_REQUIRE_POINTER(out);
    GR_REQUIRE_POINTER(schedule);
    GR_REQUIRE((uintptr_t)out % _Alignof(double) == 0,
               "argument 'out' is %p, must be aligned to %zu bytes", (void *)out,
               _Alignof(double));

    gradreg_schedule resolved = *schedule;
    GR_TRY(gradreg_i_schedule_resolve(&resolved, layer_count, "schedule"));
    gradreg_i_schedule_fill(out, &resolved, layer_count);
    return GRADREG_OK;
}
