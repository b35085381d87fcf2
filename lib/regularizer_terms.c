/* regularizer_terms.c - the report, handed out.
 *
 * In: rows of numbers in backend memory (terms.h). Out: gradreg_terms structs, the same rows in
 * the caller's backend memory, and remarks in the log. */
#include "regularizer.h"

#include <stdint.h>
#include <string.h>

#include "params.h"
#include "status.h"
#include "terms.h"

/* The struct's doubles stand in the rows' order. */
static void fill(gradreg_terms *out, const double *row)
{
    const gradreg_terms empty = GRADREG_TERMS_INIT;
    *out = empty;
    memcpy(&out->strength, row, GR_TERM_DOUBLES * sizeof(double));
    out->non_finite_first = (uint64_t)row[GR_TERM_NON_FINITE_FIRST];
    out->non_finite_second = (uint64_t)row[GR_TERM_NON_FINITE_SECOND];
    out->absent = (uint64_t)row[GR_TERM_ABSENT];
    out->step = (uint64_t)row[GR_TERM_STEP];
    out->flags = (uint32_t)row[GR_TERM_FLAGS];
}

_Static_assert(offsetof(gradreg_terms, first_order_ratio) - offsetof(gradreg_terms, strength) ==
                   (GR_TERM_DOUBLES - 1) * sizeof(double),
               "a row's doubles are the struct's");
_Static_assert(GR_TERM_FLAGS + 1 == GRADREG_TERMS_COLUMNS, "a row's columns are the header's");

static gradreg_status read_row(gradreg_regularizer *reg, gradreg_terms *out, int32_t layer)
{
    double row[GRADREG_TERMS_COLUMNS];
    gradreg_terms terms;
    const double *from = reg->work.step.terms + (size_t)(layer + 1) * GRADREG_TERMS_COLUMNS;
    GR_TRY(reg->ops->fetch(&reg->work, row, from, sizeof(row)));
    fill(&terms, row);
    gradreg_i_struct_write(out, &terms, sizeof(terms));
    return GRADREG_OK;
}

typedef struct gr_report {
    gradreg_terms *total, *layers;
    size_t layer_count;
} gr_report;

static gradreg_status read_terms(gradreg_regularizer *reg, void *task)
{
    const gr_report *r = task;
    const int32_t layers = reg->work.step.options.layer_count;
    GR_REQUIRE(r->layer_count == 0 || r->layer_count == (size_t)layers,
               "layer_count is %zu, must be 0 or the regularizer's %d", r->layer_count, layers);
    GR_REQUIRE(r->layer_count == 0 || r->layers != NULL,
               "argument 'layers' must not be NULL for layer_count %zu", r->layer_count);
    if (r->total != NULL)
        GR_TRY(gradreg_i_struct_check(r->total, sizeof(gradreg_terms), "total"));
    if (r->layer_count > 0)
        GR_TRY(gradreg_i_struct_check(r->layers, sizeof(gradreg_terms), "layers[0]"));
    const size_t stride = r->layer_count > 0 ? r->layers->struct_size : 0;
    GR_REQUIRE(stride % _Alignof(gradreg_terms) == 0,
               "layers[0].struct_size is %zu, must be a multiple of %zu", stride,
               _Alignof(gradreg_terms));
    for (size_t l = 1; l < r->layer_count; l++) /* a stride may be odd */
        memcpy((char *)r->layers + l * stride, r->layers, sizeof(r->layers->struct_size));
    if (r->total != NULL)
        GR_TRY(read_row(reg, r->total, -1));
    for (size_t l = 0; l < r->layer_count; l++)
        GR_TRY(read_row(reg, (gradreg_terms *)(void *)((char *)r->layers + l * stride),
                        (int32_t)l));
    return GRADREG_OK;
}

gradreg_status gradreg_regularizer_terms(gradreg_regularizer *reg, gradreg_terms *total,
                                         gradreg_terms *layers, size_t layer_count)
{
    gr_report r = { total, layers, layer_count };
    GR_ENTER();
    return gradreg_i_regularizer_call(reg, read_terms, &r);
}

static gradreg_status enqueue(gradreg_regularizer *reg, void *task)
{
    const size_t rows = (size_t)reg->work.step.options.layer_count + 1;
    const gr_pointer out = { "argument ", "out", task, -1 };
    GR_TRY(gradreg_i_check_place(reg->context, &out));
    return reg->ops->copy(&reg->work, task, reg->work.step.terms,
                          rows * GRADREG_TERMS_COLUMNS * sizeof(double));
}

gradreg_status gradreg_regularizer_terms_enqueue(gradreg_regularizer *reg, double *out)
{
    GR_ENTER();
    GR_REQUIRE_POINTER(out);
    GR_REQUIRE((uintptr_t)out % sizeof(*out) == 0,
               "argument 'out' is %p, must be aligned to %zu bytes", (void *)out, sizeof(*out));
    return gradreg_i_regularizer_call(reg, enqueue, out);
}

/* ---- remarks --------------------------------------------------------------------- */

/* A framework whose backward pass adds, used as if it overwrote, makes g2 := g1 + g2. */
static void remark_adding(gradreg_regularizer *reg, const double *total)
{
    const double ratio = total[GR_TERM_SECOND_NORM] / total[GR_TERM_FIRST_NORM];
    if (reg->warned_adding ||
        reg->work.step.options.second_gradient == GRADREG_SECOND_GRADIENT_ADDS)
        return;
    reg->warned_adding = 1; /* looked at on the first step only */
    if (total[GR_TERM_ALIGNMENT] > 0.9 && ratio >= 1.5 && ratio <= 3.0)
        gradreg_i_log(
            reg->context, GRADREG_LOG_WARNING,
            "cos(g1, g2) = %.3f with ||g2||/||g1|| = %.2f: does the backward pass add "
            "into grads? Then set second_gradient = GRADREG_SECOND_GRADIENT_ADDS",
            total[GR_TERM_ALIGNMENT], ratio);
}

static void remark_dropped(gradreg_regularizer *reg, const double *total)
{
    const uint64_t dropped = reg->work.step.control->dropped_steps;
    if (((uint32_t)total[GR_TERM_FLAGS] & GRADREG_FLAG_DROPPED) == 0 || dropped % 100 > 1 ||
        (dropped % 100 == 1 && dropped > 1))
        return;
    gradreg_i_log(reg->context, GRADREG_LOG_WARNING,
                  "correction dropped (%llu times so far): applied cosine %.4f is below "
                  "min_fidelity %.4f",
                  (unsigned long long)dropped, total[GR_TERM_APPLIED_COSINE],
                  reg->work.step.options.min_fidelity);
}

/* Nothing fails then, and nothing is regularized either. */
static void remark_master(gradreg_regularizer *reg, const double *total)
{
    const int mismatch = ((uint32_t)total[GR_TERM_FLAGS] & GRADREG_FLAG_MASTER_MISMATCH) != 0;

    if (mismatch && !reg->warned_master)
        gradreg_i_log(reg->context, GRADREG_LOG_WARNING,
                      "params are not round(master_params): nothing is moved or regularized "
                      "until they are. Are they rounded to nearest even after each update? "
                      "If not, set restore = GRADREG_RESTORE_COPY");
    reg->warned_master = mismatch;
}

/* What bf16 does to the published epsilon. min_fidelity has a remark of its own. */
static void remark_swallowed(gradreg_regularizer *reg, const double *total)
{
    if (reg->warned_swallowed || reg->work.step.options.min_fidelity > 0 ||
        !(total[GR_TERM_APPLIED_COSINE] < 0.5))
        return;
    reg->warned_swallowed = 1;
    gradreg_i_log(reg->context, GRADREG_LOG_WARNING,
                  "applied cosine %.3f: rounding the weights left little of the step, and the "
                  "correction is mostly noise. gradreg_regularizer_suggest_epsilon() finds the "
                  "smallest epsilon that arrives; min_fidelity drops such corrections",
                  total[GR_TERM_APPLIED_COSINE]);
}

void gradreg_i_regularizer_remark(gradreg_regularizer *reg)
{
    if (!reg->ops->host_reads)
        return;
    const double *total = reg->work.step.terms;
    if (total[GR_TERM_SECOND_NORM] == total[GR_TERM_SECOND_NORM])
        remark_adding(reg, total);
    remark_dropped(reg, total);
    remark_master(reg, total);
    remark_swallowed(reg, total);
}
