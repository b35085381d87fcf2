/* regularizer.h - the handle behind gradreg_regularizer, for its own files.
 *
 * In: what create was given. Out: all that lives as long as the handle, and what its files ask of each
 * other:
 *
 *      regularizer.c          create, size, destroy; the frame of an entry, sums over ranks
 *      regularizer_buffers.c  what a call brings, checked and turned into spans
 *      regularizer_step.c     the step: inject, perturb, mirror, combine, fallback, cancel
 *      regularizer_settings.c strength, epsilon, step counter, observations, suggestions
 *      regularizer_terms.c    the report
 *      regularizer_state.c    save and load */
#ifndef GRADREG_LIB_REGULARIZER_H
#define GRADREG_LIB_REGULARIZER_H

#include "backend.h"
#include "context.h"
#include "gradreg.h"
#include "table.h"

enum gr_state { GR_STATE_IDLE, GR_STATE_NOISY, GR_STATE_PERTURBED, GR_STATE_MIRRORED };

struct gradreg_regularizer {
    gradreg_context *context;
    const gr_backend_ops *ops;
    gr_busy busy;
    gr_work work; /* its step.options are the resolved parameters */
    gr_table table;
    enum gr_state state;
    int verified_master;
    int no_first;        /* a central product along another direction needs no g1 */
    int losses_expected; /* observe_losses belongs to the step just combined */
    int warned_adding, warned_master, warned_swallowed;
    uint64_t combine_calls;       /* counts combine and fallback: the interval's clock */
    uint64_t slice_begin;         /* of this call's flat buffers */
    uint64_t checked_pointers[4]; /* fingerprints of the last that do not overlap */
    uint64_t checked_places[4];   /* ... and that lie in the backend's memory */
    unsigned next_pointers, next_place;
    uint64_t step_buffers; /* fingerprint of the weights that this step moves */
    double *averages;      /* adaptive: one per layer, host */
    int has_averages;
    double *multipliers; /* m: [0] = outside, [1 + layer], host */
    double *adaptive;    /* a, likewise */
    /* allocations */
    size_t handle_bytes, piece_bytes, backend_bytes;
    void *backend_memory;
    /* library buffers in backend memory */
    char *clean, *first, *plus, *kept, *noise;
    gr_bin *backend_bins;
};

/* Around every entry on a handle: one thread at a time, the contract's floating-point
 * environment. `task` is the entry's own arguments. */
typedef gradreg_status (*gr_entry)(gradreg_regularizer *reg, void *task);
gradreg_status gradreg_i_regularizer_call(gradreg_regularizer *reg, gr_entry entry, void *task);

/* STATE, naming the state and what was expected, unless the state is one of the two. */
gradreg_status gradreg_i_regularizer_expect(const gradreg_regularizer *reg, enum gr_state one,
                                            enum gr_state other);

/* One double per noise segment. */
size_t gradreg_i_regularizer_noise_bytes(const gr_table *table);

/* sums[first_row .. end_row) = 0 */
gradreg_status gradreg_i_regularizer_clear(gradreg_regularizer *reg, int first_row,
                                           int end_row);

/* Sums over ranks; nothing has changed after a failure. `what` is for the sentence. */
gradreg_status gradreg_i_regularizer_reduce(gradreg_regularizer *reg, int first_row,
                                            int end_row, const char *what);

/* What a call needs from its buffers. */
enum {
    GR_NEED_PARAMS = 1,
    GR_NEED_MOVED = 2, /* perturbed_params, if OUT_OF_PLACE */
    GR_NEED_GRADS = 4,
    GR_NEED_FIRST = 8, /* first_grads, if CALLER_KEEPS */
    GR_NEED_DIRECTION = 16,
    GR_NEED_MASTER = 32, /* if RESTORE_MASTER */
    GR_SEES_GRADS = 64   /* not needed, but must not overlap what is */
};

/* Fills the spans; first is where g1 is before perturb. Gradient pointers may come out NULL where
 * segments have none. Within a step the weights must be those that it began with. */
gradreg_status gradreg_i_regularizer_spans(gradreg_regularizer *reg, gradreg_buffers *read,
                                           const gradreg_buffers *caller, int needs);

/* What perturb needs, and the sums behind its decision, reduced over ranks. `with_weights`: norms
 * of theta too, whatever the step. */
int gradreg_i_regularizer_needs_at_perturb(const gradreg_regularizer *reg);
gradreg_status gradreg_i_regularizer_measure(gradreg_regularizer *reg, int with_weights);

/* Backward passes wanted beyond the first in the current step. */
int32_t gradreg_i_regularizer_extra_passes(const gradreg_regularizer *reg);

/* a(layer) from the averages, into backend memory. */
gradreg_status gradreg_i_regularizer_store_adaptive(gradreg_regularizer *reg);

/* Remarks that need this step's numbers; only where they can be read without waiting. */
void gradreg_i_regularizer_remark(gradreg_regularizer *reg);

#endif
