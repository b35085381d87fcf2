/* backend.h - what a backend must supply: five tables of functions, for the regularizer first.
 *
 * In: a gr_work, whose spans, table and view lie where the backend can reach them. Out: sums per
 * bin, moved weights, gradients. The front (regularizer_step.c) has validated everything and
 * calls the ops in the order of the data flow; an op may assert, never re-checks, and does not
 * wait for the device except where it says so. To add a backend: fill a gr_backend in lib/NAME/ and
 * name it in backend.c. Every op is REQUIRED but for those that say otherwise. */
#ifndef GRADREG_LIB_BACKEND_H
#define GRADREG_LIB_BACKEND_H

#include <stddef.h>

#ifndef __cplusplus
#include "context.h" /* to a module in C++ a context is only a name */
#endif
#include "gradreg.h"
#include "linear_data.h"
#include "logits_data.h"
#include "policy_data.h"
#include "probe_data.h"
#include "step.h"
#include "table.h"

/* One segment's part in one call; every pointer is to its element segment.begin, or NULL. */
typedef struct gr_span {
    char *params;
    char *moved;        /* where theta' goes: params, or perturbed_params */
    const char *master; /* f32; NULL when clean weights come from elsewhere */
    const char *first;  /* g1, wherever it is in this call */
    char *grads;
    const char *direction;
    char *clean; /* library: copy of theta */
    char *first_copy;
    char *plus;
    char *kept;
    char *noise;
    uint32_t absent; /* GR_ABSENT_ bits of the step */
    uint32_t reserved;
} gr_span;

enum { GR_ABSENT_FIRST = 1, GR_ABSENT_PLUS = 2, GR_ABSENT_SECOND = 4 };

/* What a pass of squares reads. */
enum gr_source {
    GR_SOURCE_FIRST,        /* g1 of every segment that is not frozen */
    GR_SOURCE_SECOND,       /* grads of segments whose second gradient is read */
    GR_SOURCE_DIRECTION,    /* v of perturbed segments */
    GR_SOURCE_WEIGHTS,      /* clean theta of perturbed segments */
    GR_SOURCE_NOISE_WEIGHTS /* clean theta of noise segments */
};

enum gr_decision {
    GR_DECIDE_NOISE,
    GR_DECIDE_PERTURB,
    GR_DECIDE_CANDIDATE, /* value = epsilon: lengths as perturb would choose them */
    GR_DECIDE_FIDELITY,  /* applied_cosine of a candidate */
    GR_DECIDE_COMBINE,
    GR_DECIDE_FALLBACK,
    GR_DECIDE_REUSE,
    GR_DECIDE_FINISH, /* terms, step counter */
    GR_DECIDE_CLEAR_TERMS,
    GR_DECIDE_VOID_TERMS,
    GR_DECIDE_ABANDON, /* cancel, remove_noise: the noise is out */
    GR_DECIDE_LOSSES,
    GR_DECIDE_STRENGTH,
    GR_DECIDE_EPSILON,
    GR_DECIDE_STEP
};

typedef struct gr_decision_input {
    const float *grad_scale; /* backend memory, or NULL */
    float *found_inf;        /* backend memory, or NULL */
    const float *losses[2];  /* backend memory */
    int verified;            /* the master weights were checked in this call */
    int mirrored;            /* theta stood at theta - delta */
    double value;
    uint64_t step;
} gr_decision_input;

typedef struct gr_work {
    gradreg_context *context;
    const gr_table *table;
    gr_span *spans;
    gr_step step;
    void *block_sums; /* backend memory of scratch_bytes(); nothing else looks into it */
    void *notes;      /* host memory of note_bytes(), zeroed at birth; likewise */
    double *exchange; /* [world][rows of the largest range][bin_count] */
    int noisy;        /* theta stands at the noisy point */
    int streaming;    /* buffers are too large for the caches */
} gr_work;

enum { GR_BLOCK_ROWS = GR_COMBINE_SUMS + 1 };

typedef struct gr_backend_ops {
    const char *name;
    /* What the backend itself wants per regularizer: backend memory once the table is built, host
     * memory before. */
    size_t (*scratch_bytes)(const gr_table *table);
    size_t (*note_bytes)(size_t segment_count);
    /* OPTIONAL, NULL does nothing: the spans are those of a call that begins. */
    gradreg_status (*begin)(gr_work *work);
    /* zero bytes in backend memory; queued */
    gradreg_status (*zero)(gr_work *work, void *backend, size_t bytes);
    /* sums[row] = squares; for gradients and directions sums[row + 1] = elements not finite */
    gradreg_status (*squares)(gr_work *work, enum gr_source source, int row);
    /* sums[row] = elements of perturbed and noise segments with params != round(master), replicas
     * too: what this rank must not overwrite counts here */
    gradreg_status (*verify_master)(gr_work *work, int row);
    /* sums[GR_SUM_HELD] = elements here, replicas left out */
    gradreg_status (*count_held)(gr_work *work);
    /* theta -> theta + noise; clean copies; OUT_OF_PLACE: every element */
    gradreg_status (*inject)(gr_work *work);
    /* theta -> theta + delta; clean copies; g1 to first_copy; zeros to grads under ADDS */
    gradreg_status (*perturb)(gr_work *work);
    /* the sums of perturb, and nothing else */
    gradreg_status (*rehearse)(gr_work *work);
    /* grads to plus; clean (+ noise) - delta; zeros to grads under ADDS */
    gradreg_status (*mirror)(gr_work *work);
    /* g_hat to grads, the next noise direction, theta back on segments with any of `restored`'s
     * flags, sums[GR_SUM_ABSENT]. `read` is a GR_READ_ mode */
    gradreg_status (*combine)(gr_work *work, int read, uint32_t restored);
    /* theta back on segments with any of these flags */
    gradreg_status (*restore)(gr_work *work, uint32_t restored);
    gradreg_status (*decide)(gr_work *work, enum gr_decision which,
                             const gr_decision_input *input);
    /* this rank's row of sums[first_row .. end_row) into a zeroed exchange; and back, adding the
     * ranks' rows in their order */
    gradreg_status (*pack)(gr_work *work, int first_row, int end_row);
    gradreg_status (*unpack)(gr_work *work, int first_row, int end_row);
    /* from backend memory to the host; waits */
    gradreg_status (*fetch)(gr_work *work, void *host, const void *backend, size_t bytes);
    /* from the host, whose memory is free again on return; waits for more than a few thousand
     * bytes only */
    gradreg_status (*store)(gr_work *work, void *backend, const void *host, size_t bytes);
    /* within backend memory; queued */
    gradreg_status (*copy)(gr_work *work, void *to, const void *from, size_t bytes);
    int host_reads; /* backend memory is host memory, and every op has finished on return */
} gr_backend_ops;

const gr_backend_ops *gradreg_i_backend_ops(const gradreg_context *context);

/* What a backend must supply for the losses. Scratch has been found; every op is REQUIRED. */
typedef struct gr_loss_ops {
    gradreg_status (*policy_loss)(gradreg_context *context, const gr_policy_task *task);
    gradreg_status (*advantages)(gradreg_context *context, const gr_advantage_task *task);
    /* to the host; waits */
    gradreg_status (*read_metrics)(gradreg_context *context, gradreg_policy_metrics *out,
                                   const gradreg_policy_metrics *metrics);
} gr_loss_ops;

const gr_loss_ops *gradreg_i_backend_losses(const gradreg_context *context);

/* What a backend must supply for rows of logits. Every op but the linear ones is REQUIRED. */
typedef struct gr_logits_ops {
    gradreg_status (*forward)(gradreg_context *context, const gr_logprobs_task *task);
    gradreg_status (*backward)(gradreg_context *context, const gr_logprobs_slope_task *task);
    gradreg_status (*policy)(gradreg_context *context, const gr_policy_logits_task *task);
    /* from hidden states; NULL where the build lacks what they need, and linear_missing says what */
    gradreg_status (*linear_forward)(gradreg_context *context, const gr_linear_task *task);
    gradreg_status (*linear_backward)(gradreg_context *context, const gr_linear_task *task);
    const char *linear_missing;
    int host_reads; /* targets can be checked before the op: backend memory is host memory */
} gr_logits_ops;

const gr_logits_ops *gradreg_i_backend_logits(const gradreg_context *context);

/* What a backend must supply for the probe; formulas in probe_math.h. Every op is REQUIRED. */
typedef struct gr_probe_ops {
    /* zeros; queued */
    gradreg_status (*clear)(gradreg_context *context, gr_probe_statistics *statistics,
                            size_t count);
    gradreg_status (*inject)(gradreg_context *context, const gr_inject_task *task);
    gradreg_status (*observe)(gradreg_context *context, const gr_observe_task *task);
    /* to the host; waits */
    gradreg_status (*read)(gradreg_context *context, gr_probe_statistics *host,
                           const gr_probe_statistics *statistics, size_t count);
} gr_probe_ops;

const gr_probe_ops *gradreg_i_backend_probe(const gradreg_context *context);

/* What a backend must supply for the monitors of buffers; the others are the host's. */
typedef struct gr_monitor_ops {
    gradreg_status (*divergence)(gradreg_context *context, const gr_divergence_task *task);
    gradreg_status (*delta)(gradreg_context *context, const gr_delta_task *task);
} gr_monitor_ops;

const gr_monitor_ops *gradreg_i_backend_monitors(const gradreg_context *context);

/* All that a backend supplies. Every table is REQUIRED. */
typedef struct gr_backend {
    const gr_backend_ops *ops;
    const gr_loss_ops *losses;
    const gr_logits_ops *logits;
    const gr_probe_ops *probe;
    const gr_monitor_ops *monitors;
} gr_backend;

#endif
