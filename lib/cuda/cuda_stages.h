/* cuda_stages.h - the passes of a step, in the order of the data flow, for cuda_backend.cu.
 *
 * In: a regularizer's work with its table and spans (cuda_table.h). Out: a pass queued on the stream. */
#ifndef GRADREG_LIB_CUDA_STAGES_H
#define GRADREG_LIB_CUDA_STAGES_H

#include "cuda_decide.cuh"
#include "cuda_table.h"

gradreg_status gradreg_cuda_squares(gr_work *work, enum gr_source source, int row);
/* Launches the pass of squares that waits, if one does, with the decision (or NULL) at its end. */
gradreg_status gradreg_cuda_flush(gr_work *work, const gr_decision_task *decision);
gradreg_status gradreg_cuda_verify_master(gr_work *work, int row);
gradreg_status gradreg_cuda_inject(gr_work *work);
gradreg_status gradreg_cuda_perturb(gr_work *work);
gradreg_status gradreg_cuda_rehearse(gr_work *work);
gradreg_status gradreg_cuda_mirror(gr_work *work);
gradreg_status gradreg_cuda_combine(gr_work *work, int read, uint32_t restored);
gradreg_status gradreg_cuda_restore(gr_work *work, uint32_t restored);
gradreg_status gradreg_cuda_decide(gr_work *work, enum gr_decision which,
                                   const gr_decision_input *input);

/* See gr_cuda_load(). */
gradreg_status gradreg_cuda_load_squares(void);
gradreg_status gradreg_cuda_load_perturb(void);
gradreg_status gradreg_cuda_load_move(void);
gradreg_status gradreg_cuda_load_combine(void);
gradreg_status gradreg_cuda_load_decide(void);

#endif
