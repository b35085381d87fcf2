/* cpu_logprobs.h - one row of logits at a time, for every op that visits rows.
 *
 * In: a row, its target, what is asked of it. Out: its log-prob, entropy and log-sum-exp, or its gradient. */
#ifndef GRADREG_LIB_CPU_LOGPROBS_H
#define GRADREG_LIB_CPU_LOGPROBS_H

#include "cpu_backend.h"
#include "cpu_logits_kernels.h"

typedef struct gr_cpu_logits {
    gr_logits_view view;
    size_t size;   /* bytes of a logit */
    float inverse; /* 1 / temperature */
    const gr_cpu_logits_kernels *kernels;
} gr_cpu_logits;

gr_cpu_logits gradreg_cpu_logits_open(const gradreg_context *context,
                                      const gr_logits_view *view);

/* Where row r begins, in bytes. */
size_t gradreg_cpu_logits_offset(const gr_cpu_logits *logits, size_t r);

/* A row's numbers; without `turns` no entropy. A padding row is not read. */
gr_logits_row gradreg_cpu_logits_measure(const gr_cpu_logits *logits, const char *row,
                                         int32_t target, int turns);

/* The whole row's gradient into out, which may be row. logp of `values` is not read. `next`: the row
 * that is visited after this one, or NULL. */
void gradreg_cpu_logits_slope(const gr_cpu_logits *logits, char *out, const char *row,
                              int32_t target, const gr_logits_row *values, float dlogp,
                              float dentropy, const char *next);

/* A row of the gradient times a factor. */
void gradreg_cpu_logits_scale(const gr_cpu_logits *logits, char *row, double factor);

/* How many rows a thread takes at a time; at least 1. */
size_t gradreg_cpu_rows_at_once(const gr_logits_view *view, size_t threads);

#endif
