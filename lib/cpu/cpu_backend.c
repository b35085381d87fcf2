/* cpu_backend.c - the CPU's op tables, and what in them is not a walk over elements.
 *
 * In: rows of sums, decisions. Out: the same, reduced, decided, copied. Everything has finished
 * when an op returns; memory is the host's. */
#include "cpu_backend.h"

#include <string.h>

#include "../params.h"
#include "../terms.h"
#include "cpu_pass.h"

static double *row_at(gr_work *work, int row)
{
    return work->step.sums + (size_t)row * (size_t)work->step.bin_count;
}

/* Block sums: [GR_BLOCK_ROWS][table->block_capacity]. */
static size_t scratch_bytes(const gr_table *table)
{
    return (size_t)GR_BLOCK_ROWS * table->block_capacity * sizeof(double);
}

static size_t note_bytes(size_t segment_count)
{
    (void)segment_count;
    return 0;
}

static gradreg_status zero(gr_work *work, void *backend, size_t bytes)
{
    (void)work;
    memset(backend, 0, bytes);
    return GRADREG_OK;
}

static gradreg_status pack(gr_work *work, int first_row, int end_row)
{
    const gradreg_regularizer_params *p = &work->step.options;
    const size_t k = (size_t)(end_row - first_row) * (size_t)work->step.bin_count;
    memset(work->exchange, 0, (size_t)p->world * k * sizeof(double));
    memcpy(work->exchange + (size_t)p->rank * k, row_at(work, first_row), k * sizeof(double));
    return GRADREG_OK;
}

static gradreg_status unpack(gr_work *work, int first_row, int end_row)
{
    const size_t k = (size_t)(end_row - first_row) * (size_t)work->step.bin_count;
    double *out = row_at(work, first_row);
    for (size_t i = 0; i < k; i++) {
        double sum = work->exchange[i];
        for (size_t rank = 1; rank < (size_t)work->step.options.world; rank++)
            sum += work->exchange[rank * k + i];
        out[i] = sum;
    }
    return GRADREG_OK;
}

static void note_found(const gr_work *work, const gr_decision_input *input)
{
    const int32_t found = GRADREG_FLAG_NON_FINITE_FIRST | GRADREG_FLAG_NON_FINITE_SECOND;
    if (input->found_inf != NULL && (work->step.control->flags & found) != 0)
        *input->found_inf = 1.0f;
}

static gradreg_status count_held(gr_work *work)
{
    const gr_table *table = work->table;
    double *row = row_at(work, GR_SUM_HELD);
    memset(row, 0, (size_t)work->step.bin_count * sizeof(double));
    for (size_t i = 0; i < table->segment_count; i++)
        if ((table->segments[i].flags & GR_SEGMENT_REPLICA) == 0)
            row[table->segments[i].bin] +=
                (double)(table->segments[i].end - table->segments[i].begin);
    return GRADREG_OK;
}

static void decide_candidate(const gr_step *s, double epsilon)
{
    s->control->epsilon_used = epsilon;
    gr_step_lengths(s);
}

static gradreg_status decide(gr_work *work, enum gr_decision which,
                             const gr_decision_input *input)
{
    const gr_step *s = &work->step;
    gr_control *c = s->control;
    switch (which) {
    case GR_DECIDE_NOISE: gr_decide_noise(s, input->verified); break;
    case GR_DECIDE_PERTURB: gr_decide_perturb(s, input->grad_scale, input->verified); break;
    case GR_DECIDE_CANDIDATE: decide_candidate(s, input->value); break;
    case GR_DECIDE_FIDELITY:
        c->applied_cosine = gr_applied_cosine(s, GR_SUM_APPLIED, 0, 1);
        break;
    case GR_DECIDE_COMBINE: gr_decide_combine(s); break;
    case GR_DECIDE_FALLBACK: gr_decide_fallback(s, input->mirrored); break;
    case GR_DECIDE_REUSE: gr_decide_reuse(s, input->grad_scale); break;
    case GR_DECIDE_FINISH: gr_finish_step(s); break;
    case GR_DECIDE_CLEAR_TERMS: gr_clear_terms(s); break;
    case GR_DECIDE_VOID_TERMS: gr_void_terms(s); break;
    case GR_DECIDE_ABANDON: c->noise_in = 0; break;
    case GR_DECIDE_LOSSES: gr_note_losses(s, input->losses[0], input->losses[1]); break;
    case GR_DECIDE_STRENGTH: c->strength = input->value; break;
    case GR_DECIDE_EPSILON: c->epsilon = input->value; break;
    case GR_DECIDE_STEP: c->step = input->step; break;
    }
    note_found(work, input);
    return GRADREG_OK;
}

static gradreg_status copy_bytes(gr_work *work, void *to, const void *from, size_t bytes)
{
    (void)work;
    memcpy(to, from, bytes);
    return GRADREG_OK;
}

static const gr_backend_ops ops = {
    .name = "CPU",
    .scratch_bytes = scratch_bytes,
    .note_bytes = note_bytes,
    .zero = zero,
    .squares = gradreg_cpu_squares,
    .verify_master = gradreg_cpu_verify_master,
    .count_held = count_held,
    .inject = gradreg_cpu_inject,
    .perturb = gradreg_cpu_perturb,
    .rehearse = gradreg_cpu_rehearse,
    .mirror = gradreg_cpu_mirror,
    .combine = gradreg_cpu_combine,
    .restore = gradreg_cpu_restore,
    .decide = decide,
    .pack = pack,
    .unpack = unpack,
    .fetch = copy_bytes,
    .store = copy_bytes,
    .copy = copy_bytes,
    .host_reads = 1,
};

static gradreg_status read_metrics(gradreg_context *context, gradreg_policy_metrics *out,
                                   const gradreg_policy_metrics *metrics)
{
    (void)context;
    gradreg_i_struct_write(out, metrics, sizeof(*metrics));
    return GRADREG_OK;
}

static const gr_loss_ops losses = {
    .policy_loss = gradreg_cpu_policy_loss,
    .advantages = gradreg_cpu_advantages,
    .read_metrics = read_metrics,
};

static const gr_logits_ops logits = {
    .forward = gradreg_cpu_logprobs_forward,
    .backward = gradreg_cpu_logprobs_backward,
    .policy = gradreg_cpu_policy_logits,
#ifdef GR_HAVE_BLAS
    .linear_forward = gradreg_cpu_linear_forward,
    .linear_backward = gradreg_cpu_linear_backward,
#endif
    .linear_missing =
        "this build has no BLAS: install OpenBLAS (Debian: libopenblas-dev) and build "
        "libgradreg with -Dblas=enabled",
    .host_reads = 1,
};

const gr_backend gradreg_cpu_backend = {
    .ops = &ops,
    .losses = &losses,
    .logits = &logits,
    .probe = &gradreg_cpu_probe,
    .monitors = &gradreg_cpu_monitors,
};
