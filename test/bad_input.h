/* bad_input.h - a caller of every function, built so that a refusal can be shown to do nothing.
 *
 * In: a mode, which says what buffers the regularizer needs and whether they are flat. Out: good
 * arguments for every call, in one block of memory; a walk to just before any call of a step; and
 * the assertion behind every row of the matrix: the status, a sentence that names function,
 * argument and value, no byte of the block changed, and a step that goes on to the same bits. */
#ifndef GRADREG_TEST_BAD_INPUT_H
#define GRADREG_TEST_BAD_INPUT_H

#include <check.h>
#include <limits.h>
#include <stddef.h>
#include <stdint.h>

#include "coverage.h"
#include "gradreg.h"
#include "support.h"

enum {
    CALLER_LAYERS = 4,
    CALLER_SEGMENTS = 6,
    CALLER_ELEMENTS = 40, /* no gaps: a buffer that is shifted lies on a neighbour's segment */
    CALLER_SPARE = 24,    /* elements behind every buffer, for buffers that are shifted */
    CALLER_TAIL = 64,     /* bytes behind structs, for newer callers */
    CALLER_STATE = 4096
};

/* The buffers of a call, each flat or as pointers. */
enum field { PARAMS, GRADS, FIRST_GRADS, PERTURBED_PARAMS, MASTER_PARAMS, DIRECTION, FIELDS };

extern const struct field_info {
    const char *name, *pointers_name;
    size_t flat_at, pointers_at; /* in gradreg_buffers */
} fields[FIELDS];

enum call {
    INJECT_NOISE,
    REMOVE_NOISE,
    PERTURB,
    SUGGEST_EPSILON,
    MIRROR,
    COMBINE,
    REUSE, /* combine on a step that reuses the correction */
    FALLBACK,
    CANCEL,
    CALLS
};

/* With g1 in grads or kept, one second pass or two, weights moved here or elsewhere, ... */
struct mode {
    const char *name;
    bool pointers;
    gradreg_difference difference;
    gradreg_first_gradient first_gradient;
    gradreg_second_gradient second_gradient;
    gradreg_placement placement;
    gradreg_restore restore;
    gradreg_direction direction;
    int32_t interval;
    int32_t world;        /* 2: the other rank is silent */
    uint64_t slice_begin; /* declared; the table begins there */
    uint64_t slice_count;
};

/* All that is the caller's. */
struct belongings {
    gradreg_segment segments[CALLER_SEGMENTS];
    gradreg_buffers buffers;
    unsigned char buffers_tail[CALLER_TAIL];
    gradreg_regularizer_params params;
    unsigned char params_tail[CALLER_TAIL];
    gradreg_context_params context_params;
    unsigned char context_params_tail[CALLER_TAIL];
    struct gradreg_context_info info;
    gradreg_schedule schedule;
    gradreg_terms total, layers[CALLER_LAYERS + 1];
    double table[CALLER_LAYERS + 1], multipliers[CALLER_LAYERS + 1];
    double signals[CALLER_LAYERS + 1];
    double rows[(CALLER_LAYERS + 1) * GRADREG_TERMS_COLUMNS + 1];
    double norm, number;
    float elements[FIELDS][CALLER_ELEMENTS + CALLER_SPARE];
    void *pointers[FIELDS][CALLER_SEGMENTS];
    float grad_scale[2], found_inf[2], losses[3];
    gradreg_context *context_out;
    gradreg_regularizer *regularizer_out;
    size_t size;
    int32_t integer;
    uint32_t role;
    unsigned char state[CALLER_STATE + 8];
};

struct caller {
    const struct mode *mode;
    gradreg_context *context;
    gradreg_regularizer *regularizer;
    counting_allocator allocator;
    int32_t reduce_result; /* of the caller's all_reduce, from the call numbered below on */
    size_t reduce_calls, fail_reduce_at;
    void (*during_reduce)(void); /* called from it, if not NULL */
    const enum call *next;       /* of the script */
    struct belongings own, before;
    gradreg_buffers good; /* buffers before they were spoilt */
    const char *function, *what;
};

/* ---- callers ----------------------------------------------------------------------- */

extern const struct mode plain_mode;

/* Opens a context and a regularizer; everything in `own` is fit for any call. */
struct caller *caller_open(const struct mode *mode);
void caller_close(struct caller *c);

/* Own.segments, own.params: as create wants them. */
void caller_describe(struct caller *c, const struct mode *mode);
/* Another regularizer, of what own.segments and own.params say by now. */
void caller_recreate(struct caller *c);

/* Of a saved state; at most CALLER_STATE. */
size_t caller_state_bytes(const struct caller *c);

/* The buffers that a call follows in this mode, a bit per field. */
unsigned caller_needs(const struct mode *mode, enum call call);
/* Whether the call can succeed in this mode at all. */
bool caller_can(const struct mode *mode, enum call call);

const char *call_name(enum call call);
gradreg_status caller_do(struct caller *c, enum call call);

/* One step, so that there is a direction for noise; then the calls that come before `call`; then
 * what the trainer does right before it. */
void caller_lead_to(struct caller *c, enum call call);
/* The call and the rest of its step, then a digest of everything that the caller can see. */
uint64_t caller_go_on(struct caller *c);
/* The same without a refused call in between. */
uint64_t caller_undisturbed(const struct mode *mode, enum call call);

/* Where a field's buffer is, flat or of a segment, to be spoilt. */
void **caller_flat(struct caller *c, enum field field);
void **caller_pointer(struct caller *c, enum field field, size_t segment);
void ***caller_pointers(struct caller *c, enum field field);

/* ---- refusals ---------------------------------------------------------------------- */

void caller_remember(struct caller *c, const char *function, const char *what);
void caller_check_refusal(struct caller *c, gradreg_status got, gradreg_status want,
                          const char *const *named);

/* `function` and, in messages only, `what` is wrong; the words must be in the sentence. */
#define assert_refused(c, function, what, call, want, ...)                               \
    do {                                                                                 \
        caller_remember(c, function, what);                                              \
        const gradreg_status got_ = (call);                                              \
        caller_check_refusal(c, got_, want, (const char *const[]){ __VA_ARGS__, NULL }); \
    } while (0)

/* Neither create nor workspace_bytes takes own.segments with own.params. */
void caller_refuse_description(struct caller *c, const char *what, gradreg_status want,
                               const char *word, const char *value);

/* Succeeds, and is noted as a status that the function can give. */
#define assert_accepted(call)                    \
    do {                                         \
        assert_ok(call);                         \
        coverage_note(#call, GRADREG_OK, false); \
    } while (0)

/* ---- one field of a struct, spoilt -------------------------------------------------- */

enum kind { INTEGER_32, INTEGER_64, REAL, POINTER };

struct spoilt {
    const char *field; /* as sentences name it */
    size_t at;         /* in the struct */
    enum kind kind;
    int64_t integer;
    double real;
    gradreg_status want;
    const char *value; /* as sentences show it; NULL: they need not */
};

/* A field of `type`, with an integer, a double, or a pointer given as a number. */
#define BAD_INTEGER(type, field, number)                                                      \
    {                                                                                         \
#field, offsetof(type, field), INTEGER_32, number, 0, GRADREG_ERROR_INVALID_ARGUMENT, \
            #number                                                                           \
    }
#define BAD_REAL(type, field, number, shown)                                                  \
    {                                                                                         \
#field, offsetof(type, field), REAL, 0, number, GRADREG_ERROR_INVALID_ARGUMENT, shown \
    }
#define BAD_RESERVED(type, field, bits)                                                      \
    {                                                                                        \
#field, offsetof(type, field), INTEGER_##bits, 1, 0, GRADREG_ERROR_INVALID_ARGUMENT, \
            NULL                                                                             \
    }
#define LATER(type, field, number)                                                       \
    {                                                                                    \
#field, offsetof(type, field), INTEGER_32, number, 0, GRADREG_ERROR_UNSUPPORTED, \
            #number                                                                      \
    }

void spoil(void *base, const struct spoilt *how);
/* The field's name as far as a sentence must give it: numbers of reserved fields may be left out. */
const char *spoilt_name(const struct spoilt *how);

/* struct_size values that no version had. */
enum { BAD_SIZES = 5 };
uint32_t bad_size(size_t sizeof_struct, int which);

/* ---- the parts of the matrix ------------------------------------------------------- */

TCase *bad_schedules_case(void);
TCase *bad_params_case(void);
TCase *bad_tables_case(void);
TCase *bad_buffers_case(void);
TCase *bad_slices_case(void);
TCase *bad_order_case(void);
TCase *bad_reports_case(void);

#endif
