/* logits_rig.c - see logits_rig.h. */
#include "logits_rig.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define U 0x1p-24

static float *floats(size_t count)
{
    return guarded_new(count * sizeof(float), 0);
}

static void fill_rows(logits_rig *rig, double spread, uint64_t *state)
{
    const gradreg_logits_params *p = &rig->params;
    memset(rig->logits, 0xff, rig->bytes); /* NaN of every type */
    for (size_t r = 0; r < p->rows; r++) {
        for (size_t j = 0; j < p->vocabulary; j++)
            typed_set(rig->logits, p->type, r * rig->stride + j, next_signed(state, spread));
        if (r % 3 == 1)
            typed_set(rig->logits, p->type,
                      r * rig->stride + (size_t)(next_word(state) % p->vocabulary),
                      spread + 30.0 * next_unit(state));
        rig->targets[r] = (int32_t)(next_word(state) % p->vocabulary);
        rig->dlogp[r] = r % 4 == 3 ? 0.0f : (float)next_signed(state, 2.0);
        rig->dentropy[r] = (float)next_signed(state, 0.5);
    }
}

logits_rig *logits_rig_new(size_t rows, size_t vocabulary, gradreg_type type, size_t gap,
                           size_t off, double spread, uint64_t *state)
{
    const gradreg_logits_params params = GRADREG_LOGITS_PARAMS_INIT;
    logits_rig *rig = calloc(1, sizeof(*rig));
    rig->params = params;
    rig->params.type = type;
    rig->params.rows = rows;
    rig->params.vocabulary = vocabulary;
    rig->params.row_stride = gap > 0 ? vocabulary + gap : 0;
    rig->stride = vocabulary + gap;
    rig->off = off;
    rig->bytes = rows == 0 ? 0 : ((rows - 1) * rig->stride + vocabulary) * type_bytes(type);
    rig->logits = guarded_new(rig->bytes, off * type_bytes(type));
    rig->dlogits = guarded_new(rig->bytes, off * type_bytes(type));
    rig->targets = guarded_new(rows * sizeof(int32_t), 0);
    rig->logp = floats(rows);
    rig->entropy = floats(rows);
    rig->log_sum_exp = floats(rows);
    rig->dlogp = floats(rows);
    rig->dentropy = floats(rows);
    rig->z = calloc(vocabulary + 1, sizeof(double));
    fill_rows(rig, spread, state);
    return rig;
}

void logits_rig_free(logits_rig *rig)
{
    guarded_free(rig->logits);
    guarded_free(rig->dlogits);
    guarded_free(rig->targets);
    guarded_free(rig->logp);
    guarded_free(rig->entropy);
    guarded_free(rig->log_sum_exp);
    guarded_free(rig->dlogp);
    guarded_free(rig->dentropy);
    free(rig->z);
    free(rig);
}

static void check_gaps(const logits_rig *rig)
{
    const gradreg_logits_params *p = &rig->params;
    const size_t size = type_bytes(p->type);
    const unsigned char *bytes = rig->dlogits;
    for (size_t r = 0; r + 1 < p->rows; r++)
        for (size_t b = (r * rig->stride + p->vocabulary) * size;
             b < (r + 1) * rig->stride * size; b++)
            if (bytes[b] != 0xa5)
                ck_abort_msg("byte %zu lies between rows and was written", b);
}

void logits_rig_run(logits_rig *rig, gradreg_context *context)
{
    memset(rig->dlogits, 0xa5, rig->bytes);
    assert_ok(gradreg_logprobs_forward(context, rig->logp, rig->entropy, rig->log_sum_exp,
                                       rig->logits, rig->targets, &rig->params));
    assert_ok(gradreg_logprobs_backward(context, rig->dlogits, rig->logits, rig->targets,
                                        rig->log_sum_exp, rig->entropy, rig->dlogp,
                                        rig->dentropy, &rig->params));
    const void *const buffers[] = {
        rig->logits,  rig->dlogits,     rig->targets, rig->logp,
        rig->entropy, rig->log_sum_exp, rig->dlogp,   rig->dentropy
    };
    for (size_t i = 0; i < sizeof(buffers) / sizeof(buffers[0]); i++)
        guarded_check(buffers[i]);
    check_gaps(rig);
}

static double inverse_temperature(const logits_rig *rig)
{
    return rig->params.temperature == 0.0f ? 1.0 : 1.0 / (double)rig->params.temperature;
}

const double *logits_rig_row(logits_rig *rig, size_t r)
{
    const gradreg_logits_params *p = &rig->params;
    const float inverse = (float)inverse_temperature(rig);
    for (size_t j = 0; j < p->vocabulary; j++)
        rig->z[j] =
            (double)((float)typed_get(rig->logits, p->type, r * rig->stride + j) * inverse);
    return rig->z;
}

/* ---- bounds ---------------------------------------------------------------------- */

static double held(double got, double want, double bound, const char *what, const char *name,
                   size_t r, size_t j)
{
    const double error = fabs(got - want);
    if (!(error <= bound))
        ck_abort_msg("%s: %s of row %zu, %zu: %.9g, expected %.17g, bound %.3g", what, name, r,
                     j, got, want, bound);
    return bound > 0.0 ? error / bound : 0.0;
}

/* The sum of the others: exp within 2.1e-7 (3.6 u), a distance d rounded to d (1 + u), at most 32
 * roundings of a lane, one more of each product. What lies 87 and more below the top is left out:
 * e^d and -d e^d are below 2^-125 and 2^-118 then. */
static double check_forward(const logits_rig *rig, const oracle_logits *o, size_t r,
                            const char *what)
{
    const double left_out = (double)rig->params.vocabulary;
    const double sum = U * (37 * o->others + o->distance) + left_out * 0x1p-125;
    const double turn = U * (38 * o->distance + o->distance_sq) + left_out * 0x1p-118;
    const double entropy = U * fabs(o->entropy) + 2 * sum + turn + 0x1p-126;
    double worst = held((double)rig->log_sum_exp[r], o->log_sum_exp,
                        U * fabs(o->log_sum_exp) + sum + 0x1p-126, what, "log_sum_exp", r, 0);
    worst =
        fmax(worst, held((double)rig->entropy[r], o->entropy, entropy, what, "entropy", r, 0));
    return fmax(worst, held((double)rig->logp[r], o->logp, U * fabs(o->logp) + sum + 0x1p-126,
                            what, "logp", r, 0));
}

/* l is rounded once, exp within 3.6 u; level and tilt once each, product and sum once each. */
static double check_slope(const logits_rig *rig, const double *z, size_t r, size_t j,
                          const char *what)
{
    const gradreg_logits_params *p = &rig->params;
    const double inverse = inverse_temperature(rig), lse = (double)rig->log_sum_exp[r];
    const double dlogp = (double)rig->dlogp[r], h = (double)rig->entropy[r];
    const double dh = (double)rig->dentropy[r], l = z[j] - lse;
    const double want =
        inverse * oracle_logits_slope(z, j, (size_t)rig->targets[r], lse, h, dlogp, dh);
    const double level = fabs(dlogp) + fabs(dh * h), tilt = isinf(l) ? 0.0 : fabs(dh * l);
    const double size = isinf(l) ? 0.0 : exp(l) * inverse * (level + tilt);
    const double error =
        size * U * (fabs(isinf(l) ? 0.0 : l) + 9.0) + 0x1p-124 * (level + tilt);
    const double got = typed_get(rig->dlogits, p->type, r * rig->stride + j);
    return held(got, want, error + type_half_step(p->type, fabs(want) + error), what, "dlogits",
                r, j);
}

static void check_padding(const logits_rig *rig, size_t r)
{
    ck_assert(rig->logp[r] == 0.0f && rig->entropy[r] == 0.0f && rig->log_sum_exp[r] == 0.0f);
    for (size_t j = 0; j < rig->params.vocabulary; j++)
        if (typed_bits(rig->dlogits, rig->params.type, r * rig->stride + j) != 0)
            ck_abort_msg("padding row %zu has a gradient at %zu", r, j);
}

double logits_rig_check(logits_rig *rig, const char *what)
{
    double worst = 0.0;
    for (size_t r = 0; r < rig->params.rows; r++) {
        if (rig->targets[r] == -1) {
            check_padding(rig, r);
            continue;
        }
        const double *z = logits_rig_row(rig, r);
        const oracle_logits o =
            oracle_logits_row(z, rig->params.vocabulary, (size_t)rig->targets[r]);
        worst = fmax(worst, check_forward(rig, &o, r, what));
        for (size_t j = 0; j < rig->params.vocabulary; j++)
            worst = fmax(worst, check_slope(rig, z, r, j, what));
    }
    return worst;
}

static void same_floats(const float *got, const float *want, size_t n, const char *what,
                        const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (float_bits(got[i]) != float_bits(want[i]) && !(isnan(got[i]) && isnan(want[i])))
            ck_abort_msg("%s: %s[%zu] is %a, expected %a", what, name, i, (double)got[i],
                         (double)want[i]);
}

void logits_rig_same(const logits_rig *got, const logits_rig *want, const char *what)
{
    const gradreg_logits_params *p = &got->params;
    same_floats(got->logp, want->logp, p->rows, what, "logp");
    same_floats(got->entropy, want->entropy, p->rows, what, "entropy");
    same_floats(got->log_sum_exp, want->log_sum_exp, p->rows, what, "log_sum_exp");
    for (size_t r = 0; r < p->rows; r++)
        for (size_t j = 0; j < p->vocabulary; j++) {
            const uint32_t a = typed_bits(got->dlogits, p->type, r * got->stride + j);
            const uint32_t b = typed_bits(want->dlogits, p->type, r * want->stride + j);
            if (a != b && !(isnan(typed_get(got->dlogits, p->type, r * got->stride + j)) &&
                            isnan(typed_get(want->dlogits, p->type, r * want->stride + j))))
                ck_abort_msg("%s: dlogits of row %zu, %zu: %08x, expected %08x", what, r, j,
                             (unsigned)a, (unsigned)b);
        }
}

gradreg_context *logits_context(int32_t threads, const char *path)
{
    gradreg_context *context = context_on(path, threads);
    ck_assert_ptr_nonnull(context);
    return context;
}
