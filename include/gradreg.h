/* gradreg.h - regularized reinforcement-learning losses over flat buffers.
 * SPDX-License-Identifier: MIT
 *
 * A trainer owns parameters and gradients and hands them over with a table that says which slice
 * belongs to which layer. The library computes the depth-scaled gradient-norm regularizer by
 * finite differences, the directional noise in early attention weights, and reports what they did.
 *
 *      context ── layers ──► schedule ──► lambda per layer
 *                    │
 *      g1 = grad L(theta) ──► perturb ──► theta'
 *      g2 = grad L(theta')──► combine ──► g_hat = g1 + k (g2 - g1), theta restored to the last bit
 *                              terms  ──► what happened, per layer
 *
 * Rules that hold for every entry below, so that no entry repeats them
 *  - Argument order: handle, outputs, in/outs, inputs, parameters, plain values.
 *  - Pointers must not be NULL unless the entry says so. Lengths count elements, not bytes.
 *  - A fallible call returns gradreg_status: 0 is success. On failure nothing that the caller owns
 *    has been written (exceptions are named at the entry) and gradreg_last_error() holds a sentence
 *    that names the function, the argument, the value and what was expected.
 *  - Buffers lie in the memory of the context's backend unless marked "host". Work is queued on the context's
 *    stream; buffers must stay valid until it has run. Only calls whose Stream says so wait for it. On the CPU
 *    every call has finished when it returns, and none gives GRADREG_ERROR_DEVICE; on other backends any call
 *    with a handle may, also because of what others did to the device.
 *  - Buffers need the natural alignment of their element type. Buffers of one call must not overlap
 *    unless the entry says so.
 *  - One handle must not be used by two threads at once; different handles are independent, also
 *    when they share a context's worker threads. Misuse that is noticed is GRADREG_ERROR_STATE.
 *  - The library never prints, aborts or exits, and keeps no pointer to caller memory after a call,
 *    except callbacks and their user pointers, which live as long as the handle they were given to.
 *    Callbacks return: an exception, longjmp or pthread_exit out of one leaves the handle busy for ever.
 *  - Results do not depend on the number of threads, the vector path, alignment or the run.
 *  - Structs that begin with struct_size grow only at their end: set it to sizeof (the _INIT macros
 *    and _init functions do). Reserved fields must be zero. In enumerations 0 selects the default.
 *    What a later version may know is GRADREG_ERROR_UNSUPPORTED: a longer struct whose tail is not
 *    zero, and what is marked "not in 0.1" or "must be NULL in 0.1".
 *
 * Sources: S1 depth-scaled gradient regularization, article series of 2026 (36-layer model);
 * S2 arXiv:2602.18037 (gradient regularization instead of a KL penalty); S3 arXiv:2210.02720
 * (finite-difference gradient regularization); S4 arXiv:2310.05914 (NEFTune).
 */
#ifndef GRADREG_H
#define GRADREG_H

#include <stddef.h>
#include <stdint.h>

/* ==================================================================== version */

#define GRADREG_VERSION_MAJOR 0
#define GRADREG_VERSION_MINOR 1
#define GRADREG_VERSION_PATCH 0

#ifndef GRADREG_API
#if defined(_WIN32)
#define GRADREG_API __declspec(dllimport)
#elif defined(__GNUC__)
#define GRADREG_API __attribute__((visibility("default")))
#else
#define GRADREG_API
#endif
#endif

#ifdef __cplusplus
extern "C" {
#endif

/** Version of the library in use, e.g. "0.1.0"; compare with GRADREG_VERSION_* of the header.
 *
 *  Returns:  a static string, never NULL.
 *  Stream:   none.  Threads: any.  Since: 0.1
 */
GRADREG_API const char *gradreg_version(void);

/* ==================================================================== status */

/** Result of a call. 0 is success, negative is failure; the range says what a trainer should do.
 *  Numbers are never reused. */
typedef int32_t gradreg_status;
enum {
    GRADREG_OK = 0,
    /* -1 .. -19: the calling code is wrong; fix it. */
    GRADREG_ERROR_INVALID_ARGUMENT = -1, /**< a documented precondition does not hold */
    GRADREG_ERROR_UNSUPPORTED = -2,      /**< not in this version, build, or on this device */
    GRADREG_ERROR_STATE = -3,            /**< calls out of order, or two threads on one handle */
    /* -20 .. -39: the machine; retry, fall back or stop. */
    GRADREG_ERROR_OUT_OF_MEMORY = -20, /**< an allocation failed */
    GRADREG_ERROR_DEVICE = -21,        /**< the device or its driver reported an error */
    GRADREG_ERROR_BLAS = -22,          /**< the BLAS library reported an error */
    GRADREG_ERROR_COMMUNICATION = -23, /**< the caller's all_reduce reported failure */
    /* -40 .. -59: the numbers; skip this step. */
    GRADREG_ERROR_NON_FINITE = -40 /**< a value that must be finite is not */
};

/** The constant's own name, e.g. "GRADREG_ERROR_STATE"; "GRADREG_ERROR_UNKNOWN" for other values.
 *
 *  Returns:  a static string, never NULL.
 *  Stream:   none.  Threads: any.  Since: 0.1
 */
GRADREG_API const char *gradreg_status_name(gradreg_status status);

/** The sentence about this thread's latest failure; "" before the first one. A later success does
 *  not clear it. Its numbers have a decimal point in every locale, as those of remarks in a log have.
 *
 *  Returns:  a string owned by the library, valid until this thread's next failing call.
 *  Stream:   none.  Threads: any; each thread has its own.  Since: 0.1
 */
GRADREG_API const char *gradreg_last_error(void);

/* ==================================================================== context */

typedef int32_t gradreg_backend;
enum {
    GRADREG_BACKEND_AUTO = 0, /**< the CPU: where buffers lie is the caller's fact, not guessed */
    GRADREG_BACKEND_CPU = 1,
    GRADREG_BACKEND_CUDA = 2
};

typedef int32_t gradreg_memory;
enum {
    GRADREG_MEMORY_HOST = 1,   /**< must be readable and writable by the CPU */
    GRADREG_MEMORY_BACKEND = 2 /**< must be usable by the context's backend (CPU: host memory) */
};

typedef int32_t gradreg_log_level;
enum {
    GRADREG_LOG_OFF = -1,
    GRADREG_LOG_ERROR = 1,
    GRADREG_LOG_WARNING = 2, /**< the default */
    GRADREG_LOG_INFO = 3
};

/** Where all memory of a context and its children comes from. Both functions or neither; neither
 *  means the library's own. allocate returns `bytes` (> 0) aligned to `alignment` (a power of two),
 *  or NULL; release gets the same pointer and byte count. Called from API calls only, never inside
 *  a step. */
typedef struct gradreg_allocator {
    void *(*allocate)(void *user, size_t bytes, size_t alignment, gradreg_memory memory);
    void (*release)(void *user, void *pointer, size_t bytes, gradreg_memory memory);
    void *user;
    void *reserved;
} gradreg_allocator;

#define GRADREG_ALLOCATOR_INIT                                                                  \
    {                                                                                           \
        0, 0, 0, 0                                                                              \
    }

/** The caller's own threads instead of the library's: run body(task, i) once for every i in
 *  [0, count), in any order and on any threads, and return when all have finished. May run all of
 *  them on the calling thread. Threads, the calling one too, need 256 KiB of stack. NULL: the library's
 *  own pool, started at the first large call and started anew in a forked child. CPU backend only. */
typedef struct gradreg_parallel_for {
    void (*function)(void *user, size_t count, void (*body)(void *task, size_t index),
                     void *task);
    void *user;
    void *reserved[2];
} gradreg_parallel_for;

#define GRADREG_PARALLEL_FOR_INIT                                                               \
    {                                                                                           \
        0, 0, {0, 0}                                                                            \
    }

/** Where remarks go (a mode that does nothing useful, a dropped correction, ...). `message` is one
 *  line without a line break, valid during the call. Called on the thread that made the API call.
 *  NULL: remarks are lost. The callback must not call back into the same handle. */
typedef struct gradreg_log {
    void (*function)(void *user, gradreg_log_level level, const char *message);
    void *user;
    gradreg_log_level level; /**< the most talkative level wanted; 0 = GRADREG_LOG_WARNING */
    uint32_t reserved0;
    void *reserved1;
} gradreg_log;

#define GRADREG_LOG_INIT                                                                        \
    {                                                                                           \
        0, 0, 0, 0, 0                                                                           \
    }

/** How to open a context. */
typedef struct gradreg_context_params {
    uint32_t struct_size;
    gradreg_backend backend;           /**< default GRADREG_BACKEND_AUTO */
    int32_t device;                    /**< device index of the backend; CPU: must be 0 (default) */
    int32_t threads;                   /**< that work, the caller's among them, at most 1024; 0 (default) =
                                            what this process may use */
    gradreg_allocator allocator;       /**< default: the library's own */
    gradreg_parallel_for parallel_for; /**< default: the library's own pool */
    gradreg_log log;                   /**< default: silent */
} gradreg_context_params;

#define GRADREG_CONTEXT_PARAMS_INIT                                                             \
    {                                                                                           \
        (uint32_t)sizeof(gradreg_context_params), GRADREG_BACKEND_AUTO, 0, 0,                     \
            GRADREG_ALLOCATOR_INIT, GRADREG_PARALLEL_FOR_INIT, GRADREG_LOG_INIT                 \
    }

/** What a context turned out to be; filled by gradreg_context_info(). */
struct gradreg_context_info {
    uint32_t struct_size;
    gradreg_backend backend; /**< GRADREG_BACKEND_CPU or _CUDA, never AUTO */
    int32_t device;
    int32_t threads;      /**< CPU: threads that will work, the caller's among them */
    uint64_t bytes_held;  /**< by the context and all its children, now */
    uint64_t allocations; /**< calls of allocate so far: constant between steps */
    char device_name[64];
    char vector_path[16]; /**< "scalar", "x86-64-v2", "x86-64-v3", "x86-64-v4"; "" elsewhere */
    uint64_t reserved[4];
};

#define GRADREG_CONTEXT_INFO_INIT                                                               \
    {                                                                                           \
        (uint32_t)sizeof(struct gradreg_context_info), 0, 0, 0, 0, 0, {0}, {0}, {0, 0, 0, 0}    \
    }

typedef struct gradreg_context gradreg_context;

/** Write the defaults, field by field as documented at the struct.
 *
 *  Returns:  OK; INVALID_ARGUMENT if out is NULL or struct_size is not that of a known version.
 *  Out:      out, struct_size bytes.
 *  Stream:   none.  Threads: any.  Since: 0.1
 */
GRADREG_API gradreg_status gradreg_context_params_init(gradreg_context_params *out,
                                                       size_t struct_size);
/** As gradreg_context_params_init().  Returns: as there.  Stream: none.  Threads: any.  Since: 0.1 */
GRADREG_API gradreg_status gradreg_context_info_init(struct gradreg_context_info *out,
                                                     size_t struct_size);
/** As gradreg_context_params_init().  Returns: as there.  Stream: none.  Threads: any.  Since: 0.1 */
GRADREG_API gradreg_status gradreg_allocator_init(gradreg_allocator *out, size_t struct_size);
/** As gradreg_context_params_init().  Returns: as there.  Stream: none.  Threads: any.  Since: 0.1 */
GRADREG_API gradreg_status gradreg_parallel_for_init(gradreg_parallel_for *out,
                                                     size_t struct_size);
/** As gradreg_context_params_init().  Returns: as there.  Stream: none.  Threads: any.  Since: 0.1 */
GRADREG_API gradreg_status gradreg_log_init(gradreg_log *out, size_t struct_size);

/** Open a context: a backend, its threads, and where memory and remarks go.
 *
 *  CPU: the fastest vector path of this processor is taken once, here. The environment variable
 *  GRADREG_VECTOR_PATH ("scalar", "x86-64-v2", "x86-64-v3", "x86-64-v4") forces another one; one
 *  that the processor lacks, or an unknown word, is INVALID_ARGUMENT. All give the same bits.
 *
 *  Returns:  OK; INVALID_ARGUMENT; UNSUPPORTED (no such backend in this build or on this machine);
 *            OUT_OF_MEMORY; DEVICE. *out is NULL after a failure.
 *  Out:      out, one handle, to be given to gradreg_context_destroy().
 *  In:       params, host, may be NULL for the defaults.
 *  Stream:   none; may wait for the device.  Threads: any.  Since: 0.1
 */
GRADREG_API gradreg_status gradreg_context_create(gradreg_context **out,
                                                  const gradreg_context_params *params);

/** Close a context and end its threads.
 *
 *  Returns:  OK, also for NULL; STATE while children live (the sentence counts them), and the
 *            context stays usable.
 *  Stream:   waits.  Threads: the only user of this handle.  Since: 0.1
 */
GRADREG_API gradreg_status gradreg_context_destroy(gradreg_context *context);

/** Queue all later work of the context and its children on `stream` (CUDA: a cudaStream_t).
 *
 *  Returns:  OK; INVALID_ARGUMENT (CPU: stream must be NULL; CUDA: one of another device).
 *  In:       stream, may be NULL: the backend's default stream.
 *  Stream:   none.  Threads: the only user of this handle.  Since: 0.1
 */
GRADREG_API gradreg_status gradreg_context_set_stream(gradreg_context *context, void *stream);

/** Wait until everything queued on the context's stream has run.
 *
 *  Returns:  OK; DEVICE.
 *  Stream:   waits.  Threads: the only user of this handle.  Since: 0.1
 */
GRADREG_API gradreg_status gradreg_context_synchronize(gradreg_context *context);

/** What the context turned out to be: backend, device, vector path, threads, memory.
 *
 *  Returns:  OK; INVALID_ARGUMENT.
 *  Out:      out, host, with struct_size set.
 *  Stream:   none.  Threads: any.  Since: 0.1
 */
GRADREG_API gradreg_status gradreg_context_info(const gradreg_context *context,
                                                struct gradreg_context_info *out);

/** Reserve at least `bytes` of scratch memory now, so that no later operation of this context that
 *  needs scratch allocates. Never shrinks. The regularizer needs none.
 *
 *  Returns:  OK; OUT_OF_MEMORY (what was reserved before stays).
 *  Values:   bytes, 0 is a no-op.
 *  Stream:   may wait.  Threads: the only user of this handle.  Since: 0.1
 */
GRADREG_API gradreg_status gradreg_context_reserve(gradreg_context *context, size_t bytes);

/** Whether gradreg_context_create() can open this backend here.
 *
 *  Returns:  1 or 0; 0 for unknown values.
 *  Stream:   none.  Threads: any.  Since: 0.1
 */
GRADREG_API int32_t gradreg_backend_available(gradreg_backend backend);

/* ==================================================================== layers */

/** Element types. */
typedef int32_t gradreg_type;
enum {
    GRADREG_TYPE_F32 = 1,  /**< IEEE binary32 */
    GRADREG_TYPE_BF16 = 2, /**< upper half of a binary32 */
    GRADREG_TYPE_F16 = 3   /**< IEEE binary16 */
};

/** What a tensor is for; a segment has exactly one, role masks combine them with |. */
enum {
    GRADREG_ROLE_ATTENTION = 1,
    GRADREG_ROLE_MLP = 2, /**< feed-forward weights, experts and routers */
    GRADREG_ROLE_NORM = 4,
    GRADREG_ROLE_EMBEDDING = 8, /**< token and position tables */
    GRADREG_ROLE_HEAD = 16,     /**< the output projection, classifiers, value heads */
    GRADREG_ROLE_OTHER = 32
};

/** Layers count 0 .. layer_count - 1. */
enum {
    GRADREG_LAYER_NONE = -1,   /**< outside the blocks: embedding, final norm, head */
    GRADREG_LAYER_STACKED = -2 /**< several layers in one tensor: split it, one segment a layer */
};

enum {
    /** The same tensor is also in another rank's table. Set it on every copy except one over all
     *  ranks: this rank then leaves the segment out of sums, and everything else is as usual. */
    GRADREG_SEGMENT_REPLICA = 1,
    /** Not trained: never perturbed, its gradient never read, written or counted absent. */
    GRADREG_SEGMENT_FROZEN = 2
};

/** One tensor, or one layer's part of one. Frozen at 64 bytes. */
typedef struct gradreg_segment {
    uint64_t offset;        /**< first element in the flat buffer, over all ranks; may be 0 in every segment
                                 where all buffers are pointers per segment. Default 0 */
    uint64_t count;         /**< elements over all ranks; 0 is allowed. Default 0 */
    uint64_t shard_begin;   /**< with a pointer per segment: first element held here. Default 0 */
    uint64_t shard_count;   /**< ... and how many; shard_begin = shard_count = 0 means all.
                                 Nothing held here: shard_begin = count, shard_count = 0 */
    int32_t layer;          /**< 0 .. layer_count - 1 or GRADREG_LAYER_NONE. Default NONE */
    uint32_t role;          /**< one GRADREG_ROLE_ constant. Default GRADREG_ROLE_OTHER */
    gradreg_type param_type; /**< 0 (default) = the regularizer's param_type */
    gradreg_type grad_type;  /**< 0 (default) = the regularizer's grad_type */
    uint32_t flags;         /**< GRADREG_SEGMENT_ flags. Default 0 */
    uint32_t reserved[3];
} gradreg_segment;

#define GRADREG_SEGMENT_INIT                                                                    \
    {                                                                                           \
        0, 0, 0, 0, GRADREG_LAYER_NONE, GRADREG_ROLE_OTHER, 0, 0, 0, {0, 0, 0}                  \
    }

/** As gradreg_context_params_init().  Returns: as there.  Stream: none.  Threads: any.  Since: 0.1 */
GRADREG_API gradreg_status gradreg_segment_init(gradreg_segment *out, size_t struct_size);

/** Layer and role of a parameter from its name.
 *
 *  Knows the Hugging Face names of Qwen2/3, Llama, Mistral, Mixtral-style experts, Gemma, Phi,
 *  GPT-2, GPT-NeoX, OPT, Falcon and BERT-style models, LoRA adapters (the role of the module they
 *  wrap), DDP, FSDP and torch.compile prefixes, and llm.c's sixteen tensors (whose block tensors
 *  hold every layer: GRADREG_LAYER_STACKED). Norm weights are NORM wherever they sit, position
 *  tables EMBEDDING. A name it does not know is GRADREG_ROLE_OTHER with the layer that the name's
 *  block index says, or GRADREG_LAYER_NONE. Vision and audio towers are OTHER outside the blocks.
 *
 *  Returns:  OK, for unknown names too; INVALID_ARGUMENT for NULL or an empty name.
 *  Out:      layer, role, host.
 *  In:       parameter_name, host, zero-terminated.
 *  Stream:   none.  Threads: any.  Since: 0.1
 */
GRADREG_API gradreg_status gradreg_segment_classify(int32_t *layer, uint32_t *role,
                                                    const char *parameter_name);

/* ==================================================================== schedule */

typedef int32_t gradreg_curve;
enum {
    GRADREG_CURVE_LINEAR = 1, /**< x (default) */
    GRADREG_CURVE_COSINE = 2, /**< (1 - cos(pi x)) / 2 */
    GRADREG_CURVE_POWER = 3,  /**< x^power */
    GRADREG_CURVE_STEP = 4,   /**< 0 until full_layer */
    GRADREG_CURVE_TABLE = 5   /**< the caller's own multipliers */
};

/** How strongly each layer is regularized: m(l) in [0, 1] (TABLE: any finite m >= 0).
 *
 *      m(l) = 0 for l < first_layer;  1 for l >= full_layer;
 *             curve((l - first_layer + 1) / (full_layer - first_layer + 1)) between
 *      TABLE: m(l) = table[l] for every layer
 *
 *  0 <= first_layer <= full_layer <= layer_count. first_layer = full_layer = 0 regularizes all
 *  layers evenly. Frozen at 64 bytes. Source: S1. */
typedef struct gradreg_schedule {
    gradreg_curve curve;       /**< default GRADREG_CURVE_LINEAR */
    int32_t first_layer;       /**< first regularized layer. Default -1, with full_layer = -1: both as
                                    gradreg_schedule_for_depth() fills them in */
    int32_t full_layer;        /**< first layer at full strength. Default -1, with first_layer */
    int32_t reserved0;
    double power;              /**< POWER: exponent, finite and > 0. Default 1 */
    double outside_multiplier; /**< m of GRADREG_LAYER_NONE, finite and >= 0. Default 0, which also
                                    means: not perturbed */
    const double *table;       /**< TABLE: host, layer_count multipliers, copied. Default NULL */
    uint64_t reserved1[3];
} gradreg_schedule;

#define GRADREG_SCHEDULE_INIT                                                                   \
    {                                                                                           \
        GRADREG_CURVE_LINEAR, -1, -1, 0, 1.0, 0.0, 0, {0, 0, 0}                                 \
    }

/** As gradreg_context_params_init().  Returns: as there.  Stream: none.  Threads: any.  Since: 0.1 */
GRADREG_API gradreg_status gradreg_schedule_init(gradreg_schedule *out, size_t struct_size);

/** The default schedule for a model of any depth n, in integer division:
 *
 *      first = (12 n + 36) / 72,  full = min((44 n + 36) / 72, n - 1),  linear
 *
 *  n = 36: 6 and 22, the article's. n = 1: m = 1; n = 2: 1/2, 1; n = 3: 0, 1/2, 1.
 *
 *  Returns:  OK; INVALID_ARGUMENT unless 1 <= layer_count <= 65536.
 *  Out:      out, host, every field.
 *  Stream:   none.  Threads: any.  Since: 0.1.  Source: S1
 */
GRADREG_API gradreg_status gradreg_schedule_for_depth(gradreg_schedule *out,
                                                      int32_t layer_count);

/** m(l) for every layer.
 *
 *  Returns:  OK; INVALID_ARGUMENT with the offending field.
 *  Out:      out, host, layer_count doubles.
 *  In:       schedule, host.
 *  Stream:   none.  Threads: any.  Since: 0.1.  Source: S1
 */
GRADREG_API gradreg_status gradreg_schedule_multipliers(double *out,
                                                        const gradreg_schedule *schedule,
                                                        int32_t layer_count);

/* ==================================================================== regularizer */

/** Length of the finite-difference step delta. w is the direction (GRADREG_DIRECTION_), weighted
 *  per layer under GRADREG_DEPTH_ON_PENALTY. */
typedef int32_t gradreg_step;
enum {
    GRADREG_STEP_RAW = 1,        /**< delta = epsilon w (default) */
    GRADREG_STEP_NORMALIZED = 2, /**< delta = epsilon w / ||w|| */
    GRADREG_STEP_RELATIVE = 3    /**< delta_l = epsilon (||theta_l|| / ||u_l||) w_l per layer */
};
typedef int32_t gradreg_difference;
enum {
    GRADREG_DIFFERENCE_FORWARD = 1,  /**< g(theta + delta) - g(theta) (default) */
    GRADREG_DIFFERENCE_BACKWARD = 2, /**< not in 0.1: UNSUPPORTED */
    GRADREG_DIFFERENCE_CENTRAL = 3   /**< (g(theta + delta) - g(theta - delta)) / 2: two passes */
};
typedef int32_t gradreg_penalty;
enum {
    GRADREG_PENALTY_SQUARED_NORM = 1, /**< R = 1/2 ||g||^2 (default) */
    GRADREG_PENALTY_NORM = 2          /**< R = ||g|| */
};
typedef int32_t gradreg_depth;
enum {
    GRADREG_DEPTH_ON_UPDATE = 1, /**< Lambda H g: rows of the correction are scaled (default) */
    GRADREG_DEPTH_ON_PENALTY = 2 /**< H Lambda g: exact gradient of sum_l lambda_l/2 ||g_l||^2 */
};
typedef int32_t gradreg_direction;
enum {
    GRADREG_DIRECTION_GRADIENT = 1,   /**< the clipped first gradient (default) */
    GRADREG_DIRECTION_CALLER = 2,     /**< gradreg_buffers.direction, of the gradient's type */
    GRADREG_DIRECTION_RADEMACHER = 3, /**< +1 or -1, from (seed, step, segment, element) */
    GRADREG_DIRECTION_GAUSSIAN = 4    /**< standard normal, from the same counter */
};
typedef int32_t gradreg_output;
enum {
    GRADREG_OUTPUT_REGULARIZED = 1, /**< g_hat = a + k_s D (default) */
    GRADREG_OUTPUT_PRODUCT = 2,     /**< D / epsilon_eff = H u, the Hessian-vector product */
    GRADREG_OUTPUT_SECOND = 3       /**< not in 0.1: UNSUPPORTED */
};
typedef int32_t gradreg_first_gradient;
enum {
    GRADREG_FIRST_GRADIENT_COPIED = 1,       /**< perturb copies grads (default) */
    GRADREG_FIRST_GRADIENT_CALLER_KEEPS = 2, /**< in first_grads, which is only read */
    GRADREG_FIRST_GRADIENT_ACCUMULATED = 3   /**< not in 0.1: UNSUPPORTED */
};
typedef int32_t gradreg_second_gradient;
enum {
    GRADREG_SECOND_GRADIENT_OVERWRITES = 1, /**< the backward pass overwrites grads (default) */
    GRADREG_SECOND_GRADIENT_ADDS = 2 /**< it adds into grads (PyTorch, llm.c, ggml): perturb and
                                          mirror write zeros to grads when they are done */
};
typedef int32_t gradreg_second_pass;
enum {
    GRADREG_SECOND_PASS_FULL = 1,     /**< default */
    GRADREG_SECOND_PASS_TRUNCATED = 2 /**< g2 is read only on regularized roles of layers with m > 0:
                                           gradreg_regularizer_first_needed_layer() */
};
typedef int32_t gradreg_placement;
enum {
    GRADREG_PLACEMENT_IN_PLACE = 1,    /**< theta' replaces theta in params (default) */
    GRADREG_PLACEMENT_OUT_OF_PLACE = 2 /**< theta' goes to perturbed_params, params stay clean */
};
typedef int32_t gradreg_restore;
enum {
    GRADREG_RESTORE_COPY = 1,  /**< from a copy that the library holds (default) */
    GRADREG_RESTORE_MASTER = 2 /**< from master_params (f32): needs params = round(master) bit for
                                    bit, verified on the first step and on request. An optimizer that
                                    rounds stochastically breaks this on every step: use COPY */
};
typedef int32_t gradreg_rounding;
enum {
    GRADREG_ROUNDING_NEAREST = 1,   /**< of theta + delta, ties to even (default) */
    GRADREG_ROUNDING_STOCHASTIC = 2 /**< of theta + (float)coefficient * direction, which is formed
                                         in double; reproducibly from the seed */
};
typedef int32_t gradreg_non_finite;
enum {
    GRADREG_NON_FINITE_ZERO = 1,      /**< g_hat = 0 (default for the first gradient) */
    GRADREG_NON_FINITE_PROPAGATE = 2, /**< g_hat = g1 as it is (first gradient only) */
    GRADREG_NON_FINITE_KEEP_FIRST = 3 /**< g_hat = c1 g1 (second only, its default) */
};
typedef int32_t gradreg_warmup;
enum {
    GRADREG_WARMUP_ZERO = 1,  /**< t = 0 for warmup_steps (default) */
    GRADREG_WARMUP_LINEAR = 2 /**< t = step / warmup_steps */
};
typedef int32_t gradreg_decay;
enum {
    GRADREG_DECAY_CONSTANT = 1, /**< t = 1 after the warm-up (default) */
    GRADREG_DECAY_LINEAR = 2,   /**< t falls to strength_end over decay_steps */
    GRADREG_DECAY_COSINE = 3    /**< the same along half a cosine */
};
typedef int32_t gradreg_noise_rule;
enum {
    GRADREG_NOISE_OFF = 1,      /**< default */
    GRADREG_NOISE_RELATIVE = 2, /**< RMS(noise) = scale RMS(weights), per segment */
    GRADREG_NOISE_NEFTUNE = 3,  /**< ||noise||_F = scale / sqrt(3), per segment */
    GRADREG_NOISE_STEP = 4      /**< scale times the last usable step's delta; f32 weights and compute */
};

/** Directional noise: the last usable step's clipped first gradient, whatever the direction of the
 *  Hessian step, as adversarial noise on early attention weights during the whole step. Steps that were
 *  dropped or had nothing to step along update it too. Frozen at 64 bytes. Source: S1, S4. */
typedef struct gradreg_noise {
    gradreg_noise_rule rule; /**< default GRADREG_NOISE_OFF */
    uint32_t roles;          /**< 0 = default GRADREG_ROLE_ATTENTION */
    int32_t first_layer;     /**< default -1, with last_layer = -1: the layers before the schedule's
                                  first regularized one, of which there must be one */
    int32_t last_layer;      /**< inclusive. Default -1, with first_layer */
    double scale;            /**< 0 (default) = 2^-7 RELATIVE, 5 NEFTUNE, 1 STEP; > 0 ascends the
                                  loss, < 0 descends */
    uint64_t reserved[5];
} gradreg_noise;

#define GRADREG_NOISE_INIT                                                                      \
    {                                                                                           \
        GRADREG_NOISE_OFF, GRADREG_ROLE_ATTENTION, -1, -1, 0.0, {0, 0, 0, 0, 0}                 \
    }

/** Multipliers a(layer) from a per-layer signal that the caller feeds with
 *  gradreg_regularizer_observe_layers(): a_l = clamp((ema_l / mean ema)^power, a_min, a_max).
 *  Off (a = 1) while a_max is 0. Source: S1, outlook. */
typedef struct gradreg_adaptive {
    double a_min; /**< >= 0. Default 0 */
    double a_max; /**< >= a_min; 0 (default) = off */
    double power; /**< finite. Default 1 */
    double ema;   /**< weight of the past in [0, 1): ema <- ema * past + (1 - ema) * signal, the first
                       signal as it is; a = 1 before it. Default 0.9 */
} gradreg_adaptive;

#define GRADREG_ADAPTIVE_INIT                                                                   \
    {                                                                                           \
        0.0, 0.0, 1.0, 0.9                                                                      \
    }

/** For buffers that are cut over ranks: FSDP, ZeRO, Megatron's distributed optimizer. Plain data
 *  parallel is world = 1 with gradients already averaged.
 *
 *  Ranks must agree on the table (REPLICA flags and shards apart), the parameters, strength, epsilon,
 *  step, grad_scale and the order of calls; together they hold every element exactly once (copies are
 *  REPLICA), which the CPU backend checks. A call that fails with INVALID_ARGUMENT on one rank leaves
 *  the others waiting in all_reduce.
 *
 *  Sum over ranks: values[0 .. count) += over all ranks, in place, in the backend's memory, queued
 *  on `stream`; returns 0 for success. The library hands over arrays in which each entry is nonzero
 *  on one rank only, so any order of additions is exact. Every rank calls it equally often. */
typedef struct gradreg_all_reduce {
    int32_t (*function)(void *user, double *values, size_t count, void *stream);
    void *user;
    int32_t capturable; /**< may be recorded in a CUDA graph (NCCL: yes, MPI: no). Default 0 */
    uint32_t reserved0;
    void *reserved1;
} gradreg_all_reduce;

#define GRADREG_ALL_REDUCE_INIT                                                                 \
    {                                                                                           \
        0, 0, 0, 0, 0                                                                           \
    }

/** How to regularize. Defaults are the paper's code's (S2). */
typedef struct gradreg_regularizer_params {
    uint32_t struct_size;
    gradreg_type param_type;   /**< default F32 */
    gradreg_type grad_type;    /**< default F32. Pairs: f32/f32, bf16/f32, bf16/bf16, f16/f32, f16/f16 */
    gradreg_type compute_type; /**< what the forward pass rounds weights to (autocast); statistics of
                                    the applied step use it. 0 (default) = each segment's param type */
    gradreg_type update_type;  /**< 0 (default); others are UNSUPPORTED in 0.1 */
    int32_t layer_count;       /**< blocks of the model, 1 .. 65536. Default 0: must be set */
    gradreg_schedule schedule; /**< default GRADREG_SCHEDULE_INIT: by depth */
    double strength;           /**< lambda, finite and >= 0. Default 1e-2 */
    double epsilon;            /**< finite and > 0. Default 1e-3 */
    gradreg_step step;         /**< default RAW */
    gradreg_difference difference; /**< default FORWARD */
    gradreg_penalty penalty;       /**< default SQUARED_NORM */
    gradreg_depth depth;           /**< default ON_UPDATE */
    gradreg_direction direction;   /**< default GRADIENT */
    gradreg_output output;         /**< default REGULARIZED */
    uint32_t regularized_roles;    /**< 0 = default ATTENTION | MLP | NORM */
    uint32_t perturbed_roles;      /**< 0 = default ATTENTION | MLP | NORM */
    double clip_first;             /**< C1, global norm; 0 = off. Default 10 */
    double clip_second;            /**< C2, global norm; 0 = off. Default 10 */
    int32_t common_clip;           /**< 1: the step's smallest factor for both gradients. Default 0 */
    gradreg_first_gradient first_gradient;   /**< default COPIED */
    gradreg_second_gradient second_gradient; /**< default OVERWRITES */
    gradreg_second_pass second_pass;         /**< default FULL */
    gradreg_placement placement;             /**< default IN_PLACE */
    gradreg_restore restore;                 /**< default COPY */
    int32_t perturb_from_master;             /**< 0 (default); 1 is UNSUPPORTED in 0.1 */
    gradreg_rounding rounding;               /**< default NEAREST */
    gradreg_non_finite non_finite_first;     /**< default ZERO */
    gradreg_non_finite non_finite_second;    /**< default KEEP_FIRST */
    double min_fidelity;   /**< in [0, 1]: below this applied cosine the correction is dropped and
                                g_hat = c1 g1. Default 0 = never */
    int32_t realised_step; /**< 0 (default); 1 is UNSUPPORTED in 0.1 */
    int32_t interval;      /**< K >= 1: recompute the correction every K-th step. 0 = default 1 */
    gradreg_warmup warmup; /**< default ZERO */
    gradreg_decay decay;   /**< default CONSTANT */
    uint64_t warmup_steps; /**< default 0 */
    uint64_t decay_steps;  /**< LINEAR, COSINE: >= 1. Default 0 */
    double strength_end;   /**< t at the end of the decay, finite and >= 0. Default 0 */
    gradreg_adaptive adaptive; /**< default off */
    uint64_t seed;             /**< of random directions and stochastic rounding. Default 0 */
    gradreg_noise noise;       /**< default off */
    int32_t rank;              /**< 0 .. world - 1. Default 0 */
    int32_t world;             /**< ranks that share the table; 0 = default 1 */
    gradreg_all_reduce all_reduce; /**< needed for world > 1 */
    uint64_t parameter_count;  /**< length of the flat buffer over all ranks; 0 (default) = end of the
                                    last segment. Segments that end past it are refused */
    uint64_t slice_begin;      /**< this rank's slice of the flat buffer. Default 0, with slice_count = 0:
                                    memory is held for the whole table and any slice may come */
    uint64_t slice_count;      /**< its length; memory is held for it only. Default 0 */
} gradreg_regularizer_params;

#define GRADREG_REGULARIZER_PARAMS_INIT                                                         \
    {                                                                                           \
        (uint32_t)sizeof(gradreg_regularizer_params), GRADREG_TYPE_F32, GRADREG_TYPE_F32, 0, 0, \
            0, GRADREG_SCHEDULE_INIT, 1e-2, 1e-3, GRADREG_STEP_RAW,                             \
            GRADREG_DIFFERENCE_FORWARD, GRADREG_PENALTY_SQUARED_NORM, GRADREG_DEPTH_ON_UPDATE,  \
            GRADREG_DIRECTION_GRADIENT, GRADREG_OUTPUT_REGULARIZED,                             \
            GRADREG_ROLE_ATTENTION | GRADREG_ROLE_MLP | GRADREG_ROLE_NORM,                      \
            GRADREG_ROLE_ATTENTION | GRADREG_ROLE_MLP | GRADREG_ROLE_NORM, 10.0, 10.0, 0,       \
            GRADREG_FIRST_GRADIENT_COPIED, GRADREG_SECOND_GRADIENT_OVERWRITES,                  \
            GRADREG_SECOND_PASS_FULL, GRADREG_PLACEMENT_IN_PLACE, GRADREG_RESTORE_COPY, 0,      \
            GRADREG_ROUNDING_NEAREST, GRADREG_NON_FINITE_ZERO, GRADREG_NON_FINITE_KEEP_FIRST,   \
            0.0, 0, 1, GRADREG_WARMUP_ZERO, GRADREG_DECAY_CONSTANT, 0, 0, 0.0,                  \
            GRADREG_ADAPTIVE_INIT, 0, GRADREG_NOISE_INIT, 0, 1, GRADREG_ALL_REDUCE_INIT, 0, 0, 0 \
    }

/** The caller's buffers for one call. Either flat bases (params, grads, ...: element i of a segment
 *  is base[segment.offset + i - slice_begin]; all segments then share one param type and one grad
 *  type) or, for any of them, an array of host pointers with one entry per segment, whose element i
 *  is pointer[s][i - segment.shard_begin]. A pair must not be given both ways, and with slices
 *  every flat base covers the same slice.
 *
 *  grads is what the trainer's backward pass fills and what combine and fallback replace by g_hat.
 *  A NULL entry of grad_pointers says that the segment got no gradient: it counts as zeros and as
 *  absent, and the segment's correction is left out of this step. params (and grads, if it is used
 *  for several calls of a step) and the table stay the same within a step. */
typedef struct gradreg_buffers {
    uint32_t struct_size;
    uint32_t verify_master;   /**< 1: check params = round(master_params) in this perturb or
                                   inject_noise call. Default 0 */
    void *params;             /**< param type */
    void *grads;              /**< grad type */
    size_t count;             /**< elements behind every flat base */
    uint64_t slice_begin;     /**< position of element 0 in the flat buffer over all ranks */
    void *first_grads;        /**< CALLER_KEEPS: g1, grad type; never written */
    void *perturbed_params;   /**< OUT_OF_PLACE: receives theta' for every element of every segment */
    const void *master_params; /**< RESTORE_MASTER: f32 */
    const void *direction;    /**< DIRECTION_CALLER: v itself (no grad_scale), grad type; the same at
                                   every call of a step */
    void *update;             /**< must be NULL in 0.1 */
    const float *grad_scale;  /**< NULL, or one f32, not 0: gradient buffers hold grad_scale times g.
                                   perturb's value counts for the step (combine's where extra_passes
                                   is 0); g_hat leaves scaled the same way */
    float *found_inf;         /**< NULL, or one f32 that combine, fallback (and perturb, for g1) set to
                                   1 when a gradient was not finite; never set to 0 */
    const double *first_norm; /**< must be NULL in 0.1 */
    const double *second_norm; /**< must be NULL in 0.1 */
    void *const *param_pointers;
    void *const *grad_pointers;
    void *const *first_grad_pointers;
    void *const *perturbed_param_pointers;
    const void *const *master_param_pointers;
    const void *const *direction_pointers;
    void *const *update_pointers; /**< must be NULL in 0.1 */
} gradreg_buffers;

#define GRADREG_BUFFERS_INIT                                                                    \
    {                                                                                           \
        (uint32_t)sizeof(gradreg_buffers), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,   \
            0, 0, 0, 0                                                                          \
    }

enum {
    GRADREG_FLAG_DROPPED = 1,           /**< applied cosine below min_fidelity: g_hat = c1 g1 */
    GRADREG_FLAG_NON_FINITE_FIRST = 2,  /**< g1 (or v, or a norm) not finite */
    GRADREG_FLAG_NON_FINITE_SECOND = 4, /**< g2 (CENTRAL: either) not finite */
    GRADREG_FLAG_NO_DIRECTION = 8,      /**< nothing to step along: ||w|| = 0, a coefficient beyond
                                             f32, or noise was asked for and moved nothing, as
                                             before a step has left a direction */
    GRADREG_FLAG_SATURATED = 16,        /**< an f16 store was clipped to +-65504 */
    GRADREG_FLAG_MASTER_MISMATCH = 32,  /**< params != round(master_params) when last checked: nothing
                                             is moved until a check passes */
    GRADREG_FLAG_ABSENT_GRADIENT = 64   /**< a segment had no gradient in some pass */
};

/** What the last combine or fallback did, for one layer or in total; NaN where undefined, and NaN
 *  with step 0 before the first. Norms and products are of the unscaled gradients. What compares g1 with
 *  g2 leaves out segments that were absent in a pass; PRODUCT has neither strength, penalty nor shares.
 *  Frozen at 256 bytes. "Perturbed" runs over segments that delta moves. */
typedef struct gradreg_terms {
    uint32_t struct_size;
    uint32_t reserved0;
    double strength;           /**< total: lambda t(step); layer: lambda t(step) m(l) a(l) */
    double effective_strength; /**< strength times the common clip factor, of a correction that is made; NaN
                                    without one and with separate clips active. A reused correction:
                                    strength, NaN where g1 is clipped */
    double effective_epsilon;  /**< ||delta|| / ||w||, of the whole step in every row */
    double penalty;            /**< sum over regularized roles of lambda_s/2 ||g1_s||^2, for PENALTY_NORM
                                    too */
    double first_norm;         /**< ||g1|| */
    double second_norm;        /**< ||g2|| (CENTRAL: of the pass at theta - delta; TRUNCATED: rows seen) */
    double clip_first;         /**< c1; 1 when g1 is not finite */
    double clip_second;        /**< c2 (CENTRAL: the smaller one); common_clip changes neither report */
    double direction_norm;     /**< ||u|| on perturbed segments, before clipping */
    double hvp_norm;           /**< ||D0|| ||w0|| / ||delta||, D0 and w0 without clips: about ||H w0||; in
                                    layers ||w0|| and ||delta|| of the whole step */
    double curvature;          /**< <delta, D0> / ||delta||^2: Rayleigh quotient along the step */
    double alignment;          /**< cos(g1, g2); CENTRAL: cos(g+, g-) */
    double correction_share;   /**< ||g_hat - a|| / ||a|| before storage rounding */
    double update_norm;        /**< ||g_hat|| before storage rounding */
    double perturbation_norm;  /**< ||delta|| as intended */
    double applied_norm;       /**< ||rn(theta') - rn(theta)||, rn = rounding to compute_type (CENTRAL: of
                                    the step to theta + delta) */
    double applied_cosine;     /**< between the two, 0 when nothing of delta reached the weights; CENTRAL:
                                    the smaller of the two steps' */
    double changed_fraction;   /**< share of the weights that delta moves whose rn() changed */
    double difference_noise;   /**< u sqrt(||g1||^2 + ||g2||^2) / ||g2 - g1||, u = half an ulp at 1 */
    double stored_share;       /**< <stored g_hat - a, corr> / ||corr||^2, corr = k D */
    double noise_norm;         /**< ||noise|| as intended */
    double noise_applied_cosine; /**< between intended and applied noise */
    double first_order_ratio;  /**< (L2 - L1) / <g1, theta' - theta>; total only */
    uint64_t non_finite_first;  /**< elements */
    uint64_t non_finite_second; /**< elements */
    uint64_t absent;            /**< segments (with ranks: shards) without a gradient, summed over the
                                     step's passes */
    uint64_t step;              /**< step counter after the call: 1 for the first */
    uint32_t flags;             /**< GRADREG_FLAG_ bits; layers carry those of the total */
    uint32_t reserved1;
    uint64_t reserved2[3];
} gradreg_terms;

#define GRADREG_TERMS_INIT                                                                      \
    {                                                                                           \
        (uint32_t)sizeof(gradreg_terms), 0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0,   \
            0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0, 0, 0, 0, 0, 0,  \
            {0, 0, 0}                                                                           \
    }

/** Doubles per row of gradreg_regularizer_terms_enqueue(). */
#define GRADREG_TERMS_COLUMNS 28

typedef struct gradreg_regularizer gradreg_regularizer;

/** As gradreg_context_params_init().  Returns: as there.  Stream: none.  Threads: any.  Since: 0.1 */
GRADREG_API gradreg_status gradreg_noise_init(gradreg_noise *out, size_t struct_size);
/** As gradreg_context_params_init().  Returns: as there.  Stream: none.  Threads: any.  Since: 0.1 */
GRADREG_API gradreg_status gradreg_adaptive_init(gradreg_adaptive *out, size_t struct_size);
/** As gradreg_context_params_init().  Returns: as there.  Stream: none.  Threads: any.  Since: 0.1 */
GRADREG_API gradreg_status gradreg_all_reduce_init(gradreg_all_reduce *out, size_t struct_size);
/** As gradreg_context_params_init().  Returns: as there.  Stream: none.  Threads: any.  Since: 0.1 */
GRADREG_API gradreg_status gradreg_regularizer_params_init(gradreg_regularizer_params *out,
                                                           size_t struct_size);
/** As gradreg_context_params_init().  Returns: as there.  Stream: none.  Threads: any.  Since: 0.1 */
GRADREG_API gradreg_status gradreg_buffers_init(gradreg_buffers *out, size_t struct_size);
/** As gradreg_context_params_init().  Returns: as there.  Stream: none.  Threads: any.  Since: 0.1 */
GRADREG_API gradreg_status gradreg_terms_init(gradreg_terms *out, size_t struct_size);

/** Create a regularizer for one table of segments. Allocates everything it will ever hold.
 *
 *  One step, with clip coefficients c1 = min(1, C1/(||g1|| + 1e-6)), c2 alike:
 *
 *      perturb   g~ = c1 g1;  u = g~ or the chosen direction;  w = u or m a u (ON_PENALTY)
 *                theta' = round(theta + delta) on perturbed segments
 *      combine   a = c1 g1;  b = c2 g2;  D = b - a;  g_hat = a + k_s D
 *                k_s = kappa_s / (epsilon_eff nu),  epsilon_eff = ||delta|| / ||w||
 *                kappa_s = lambda t m a (ON_UPDATE) or lambda t (ON_PENALTY, whose w has m a) on
 *                regularized roles, else 0;  t: warm-up and decay, m: schedule, a: adaptive
 *                nu = 1 (SQUARED_NORM) or ||u|| (NORM; ON_PENALTY: sqrt(sum m a ||u_l||^2))
 *
 *  Perturbed: role in perturbed_roles, not FROZEN, layer >= 0 or outside_multiplier > 0; norms of
 *  theta, u and w run over perturbed segments (RELATIVE: of one layer; NONE is one group, and a layer
 *  with ||u_l|| = 0 is not stepped), clips over all. Segments
 *  whose k_s is 0 get exactly a. Coefficients are computed in double and rounded once to f32; per
 *  element every operation is rounded once to f32, storage to nearest even, f16 saturates.
 *
 *  Refused combinations, all UNSUPPORTED: PRODUCT with RELATIVE or TRUNCATED; TRUNCATED with ON_PENALTY,
 *  and with clip_second unless common_clip; OUT_OF_PLACE with RESTORE_MASTER; noise STEP unless weights
 *  and compute are f32, or where delta would be 0; everything marked UNSUPPORTED above. PRODUCT ignores
 *  clips, strength, schedule, depth, penalty, interval, min_fidelity and noise.
 *
 *  Returns:  OK; INVALID_ARGUMENT (the sentence names both offenders for overlaps); UNSUPPORTED;
 *            OUT_OF_MEMORY. *out is NULL after a failure.
 *  Out:      out, to be given to gradreg_regularizer_destroy() before the context's end.
 *  In:       segments, host, copied, any order; segment_count >= 1.
 *  Stream:   waits.  Threads: the context's only user.  Since: 0.1.  Source: S1, S2, S3
 */
GRADREG_API gradreg_status gradreg_regularizer_create(gradreg_regularizer **out,
                                                      gradreg_context *context,
                                                      const gradreg_segment *segments,
                                                      size_t segment_count,
                                                      const gradreg_regularizer_params *params);

/** Bytes that gradreg_regularizer_create() would hold for the same description, all included.
 *
 *  Returns:  as gradreg_regularizer_create(); OUT_OF_MEMORY too: the table is built to be measured.
 *  Out:      out, host.
 *  Stream:   none.  Threads: any.  Since: 0.1
 */
GRADREG_API gradreg_status gradreg_regularizer_workspace_bytes(
    size_t *out, gradreg_context *context, const gradreg_segment *segments, size_t segment_count,
    const gradreg_regularizer_params *params);

/** Release a regularizer. A step in progress is abandoned as it stands: cancel first.
 *
 *  Returns:  OK, also for NULL; STATE if another thread is inside the handle.
 *  Stream:   waits.  Threads: the only user of this handle.  Since: 0.1
 */
GRADREG_API gradreg_status gradreg_regularizer_destroy(gradreg_regularizer *regularizer);

/** Add this step's noise to the noise segments: theta_n = round(theta + noise), noise along the
 *  last usable step's clipped first gradient. Before a step has left one nothing moves, and the
 *  terms say NO_DIRECTION, as they do whenever no noise segment moves. Rollouts and old log-probs
 *  belong before this call.
 *
 *  Rule STEP with step RELATIVE repeats the length of the last step that was taken: a combine that
 *  reuses its correction (interval) measures no weights. If a handle's first step was a fallback
 *  there is no such length before a second one: nothing moves until then.
 *
 *  Returns:  OK; STATE unless idle; UNSUPPORTED if noise is off; INVALID_ARGUMENT; COMMUNICATION.
 *  InOut:    buffers: params (OUT_OF_PLACE: perturbed_params).
 *  Stream:   queued.  Threads: the only user of this handle.  Since: 0.1.  Source: S1, S4
 */
GRADREG_API gradreg_status gradreg_regularizer_inject_noise(gradreg_regularizer *regularizer,
                                                            gradreg_buffers *buffers);

/** Take the noise back: theta to the last bit.
 *
 *  Returns:  OK; STATE unless noise is in; INVALID_ARGUMENT.
 *  InOut:    buffers: params (OUT_OF_PLACE: nothing is written, params are clean).
 *  Stream:   queued.  Threads: the only user of this handle.  Since: 0.1
 */
GRADREG_API gradreg_status gradreg_regularizer_remove_noise(gradreg_regularizer *regularizer,
                                                            gradreg_buffers *buffers);

/** Step away from theta along the direction. grads (CALLER_KEEPS: first_grads) holds g1.
 *
 *      theta' = round(theta + (float)coefficient * u)
 *
 *  u here is g1 as it lies in grads, or v: clip and grad_scale are in the coefficient.
 *
 *  Both backward passes must differentiate the same function: same rollouts, advantages, old
 *  log-probs (taken at clean theta, not "none"), denominators, dropout seed and routing.
 *  With a g1 that is not finite nothing moves, and combine or fallback act on the policy.
 *
 *  Returns:  OK; STATE unless idle or noisy, or when extra_passes is 0; INVALID_ARGUMENT;
 *            COMMUNICATION (nothing has moved).
 *  InOut:    buffers: params or perturbed_params; grads is zeroed under ADDS.
 *  Stream:   queued.  Threads: the only user of this handle.  Since: 0.1.  Source: S2, S3
 */
GRADREG_API gradreg_status gradreg_regularizer_perturb(gradreg_regularizer *regularizer,
                                                       gradreg_buffers *buffers);

/** CENTRAL only: keep grads as g(theta + delta) and go to theta - delta.
 *
 *  Returns:  OK; STATE unless perturbed and CENTRAL; INVALID_ARGUMENT.
 *  InOut:    buffers: params or perturbed_params; grads is zeroed under ADDS.
 *  Stream:   queued.  Threads: the only user of this handle.  Since: 0.1.  Source: S3
 */
GRADREG_API gradreg_status gradreg_regularizer_mirror(gradreg_regularizer *regularizer,
                                                      gradreg_buffers *buffers);

/** End the step: grads (g2) becomes g_hat (PRODUCT: H u), theta is restored to the last bit.
 *  When extra_passes said 0, grads (or first_grads) holds g1 and the kept correction is added.
 *  An unusable second gradient gives c1 g1 or zeros (non_finite_second); PRODUCT: zeros.
 *
 *  Returns:  OK, for unusable gradients too: the terms' flags tell; STATE; INVALID_ARGUMENT;
 *            COMMUNICATION: from the first of its two reductions nothing has been written and the
 *            state is unchanged; from the second (statistics) the step is complete, theta restored,
 *            and only the terms are NaN. The sentence says which.
 *  InOut:    buffers: grads, params.
 *  Stream:   queued.  Threads: the only user of this handle.  Since: 0.1.  Source: S1, S2, S3
 */
GRADREG_API gradreg_status gradreg_regularizer_combine(gradreg_regularizer *regularizer,
                                                       gradreg_buffers *buffers);

/** End a perturbed step without its second gradient: grads becomes c1 g1 (PRODUCT: zeros), theta is
 *  restored. Counts as a step.
 *
 *  Returns:  OK; STATE unless perturbed or mirrored; INVALID_ARGUMENT; COMMUNICATION: as combine.
 *  InOut:    buffers: grads, params.
 *  Stream:   queued.  Threads: the only user of this handle.  Since: 0.1
 */
GRADREG_API gradreg_status gradreg_regularizer_fallback(gradreg_regularizer *regularizer,
                                                        gradreg_buffers *buffers);

/** Leave any state: theta to the last bit, noise out, no gradient written, no step counted. Under
 *  ADDS grads then holds zeros or a partial sum.
 *
 *  Returns:  OK, when idle too; INVALID_ARGUMENT.
 *  InOut:    buffers: params.
 *  Stream:   queued.  Threads: the only user of this handle.  Since: 0.1
 */
GRADREG_API gradreg_status gradreg_regularizer_cancel(gradreg_regularizer *regularizer,
                                                      gradreg_buffers *buffers);

/** Backward passes wanted beyond the first in the current step: 1 (CENTRAL 2), or 0 on steps that
 *  reuse the correction (interval). A function of the number of combine and fallback calls only.
 *
 *  Returns:  OK; INVALID_ARGUMENT.
 *  Out:      out, host.
 *  Stream:   none.  Threads: the only user of this handle.  Since: 0.1
 */
GRADREG_API gradreg_status gradreg_regularizer_extra_passes(gradreg_regularizer *regularizer,
                                                            int32_t *out);

/** TRUNCATED: the lowest layer whose second gradient is read; the second backward pass may stop
 *  there. GRADREG_LAYER_NONE: everything is needed. layer_count: nothing is.
 *
 *  Returns:  OK; INVALID_ARGUMENT.
 *  Out:      out, host.
 *  Stream:   none.  Threads: any.  Since: 0.1
 */
GRADREG_API gradreg_status gradreg_regularizer_first_needed_layer(
    const gradreg_regularizer *regularizer, int32_t *out);

/** Change lambda for later steps. A step in progress keeps what perturb latched.
 *
 *  Returns:  OK; INVALID_ARGUMENT unless finite and >= 0; STATE unless idle or noisy.
 *  Stream:   queued; takes effect in a captured graph.  Threads: the only user.  Since: 0.1
 */
GRADREG_API gradreg_status gradreg_regularizer_set_strength(gradreg_regularizer *regularizer,
                                                            double strength);
/** Change epsilon for later steps.
 *
 *  Returns:  OK; INVALID_ARGUMENT unless finite and > 0; STATE unless idle or noisy.
 *  Stream:   queued; takes effect in a captured graph.  Threads: the only user.  Since: 0.1
 */
GRADREG_API gradreg_status gradreg_regularizer_set_epsilon(gradreg_regularizer *regularizer,
                                                           double epsilon);
/** Set the step counter, on which warm-up, decay and random numbers depend.
 *
 *  Returns:  OK; INVALID_ARGUMENT above 2^53; STATE unless idle or noisy.
 *  Stream:   queued; takes effect in a captured graph.  Threads: the only user.  Since: 0.1
 */
GRADREG_API gradreg_status gradreg_regularizer_set_step(gradreg_regularizer *regularizer,
                                                        uint64_t step);

/** Feed the adaptive multipliers with one signal per layer (activation RMS, attention entropy, ...).
 *
 *  Returns:  OK; INVALID_ARGUMENT (count must be layer_count, signals finite and >= 0); UNSUPPORTED
 *            if adaptive is off; STATE unless idle or noisy.
 *  In:       signals, host, count doubles, copied.
 *  Stream:   queued.  Threads: the only user of this handle.  Since: 0.1.  Source: S1, outlook
 */
GRADREG_API gradreg_status gradreg_regularizer_observe_layers(gradreg_regularizer *regularizer,
                                                              const double *signals, size_t count);

/** Report the losses of the step just combined: terms then hold first_order_ratio, which tends to 1
 *  when both passes differentiate the same function and epsilon is small enough.
 *
 *  Returns:  OK; STATE unless idle with a combined step that had a second pass.
 *  In:       first = L(theta), second = L(theta'), one f32 each, read when the stream gets there.
 *  Stream:   queued.  Threads: the only user of this handle.  Since: 0.1
 */
GRADREG_API gradreg_status gradreg_regularizer_observe_losses(gradreg_regularizer *regularizer,
                                                              const float *first,
                                                              const float *second);

/** The smallest of 24 epsilons, two per octave around the rounding of the weights in the precision
 *  that the forward pass sees, whose applied step has at least this cosine with the intended one
 *  for the gradient at hand; infinity if none has. Neither buffers nor the handle change.
 *
 *  Returns:  OK; INVALID_ARGUMENT (target_cosine in (0, 1)); STATE unless idle or noisy; NON_FINITE
 *            (gradient not finite, or no direction); COMMUNICATION.
 *  Out:      out, host.
 *  In:       buffers, as for perturb.
 *  Stream:   waits.  Threads: the only user of this handle.  Since: 0.1
 */
GRADREG_API gradreg_status gradreg_regularizer_suggest_epsilon(gradreg_regularizer *regularizer,
                                                               double *out,
                                                               gradreg_buffers *buffers,
                                                               double target_cosine);

/** What the last combine or fallback did.
 *
 *  Returns:  OK; INVALID_ARGUMENT (struct_size; layer_count must be the regularizer's, or 0).
 *  Out:      total, host, may be NULL; layers, host, layer_count entries at the stride of
 *            layers[0].struct_size, may be NULL when layer_count is 0.
 *  Stream:   waits.  Threads: the only user of this handle.  Since: 0.1
 */
GRADREG_API gradreg_status gradreg_regularizer_terms(gradreg_regularizer *regularizer,
                                                     gradreg_terms *total, gradreg_terms *layers,
                                                     size_t layer_count);

/** The same numbers without waiting: (1 + layer_count) rows of GRADREG_TERMS_COLUMNS doubles, the
 *  total first; columns are the doubles of gradreg_terms in their order, then non_finite_first,
 *  non_finite_second, absent, step, flags as doubles.
 *
 *  Returns:  OK; INVALID_ARGUMENT.
 *  Out:      out, backend memory.
 *  Stream:   queued.  Threads: the only user of this handle.  Since: 0.1
 */
GRADREG_API gradreg_status gradreg_regularizer_terms_enqueue(gradreg_regularizer *regularizer,
                                                             double *out);

/** Size of the saved state: step counter, strength and epsilon in force, interval count and kept
 *  correction, noise direction, averages of the adaptive multipliers.
 *
 *  Returns:  OK; INVALID_ARGUMENT.
 *  Out:      out, host.
 *  Stream:   none.  Threads: any.  Since: 0.1
 */
GRADREG_API gradreg_status gradreg_regularizer_state_bytes(const gradreg_regularizer *regularizer,
                                                           size_t *out);

/** Save what a resumed run needs to give the same bits. Versioned, checksummed, in this machine's byte
 *  order, tied to the table and to the parameters that shape the state.
 *
 *  Returns:  OK; INVALID_ARGUMENT (bytes differs from state_bytes); STATE unless idle.
 *  Out:      state, host, bytes bytes.
 *  Stream:   waits.  Threads: the only user of this handle.  Since: 0.1
 */
GRADREG_API gradreg_status gradreg_regularizer_state_save(gradreg_regularizer *regularizer,
                                                          void *state, size_t bytes);

/** Load a saved state. Terms are NaN afterwards.
 *
 *  Returns:  OK; INVALID_ARGUMENT (size, version, checksum, another table or other parameters: the
 *            handle is unchanged); STATE unless idle.
 *  In:       state, host, bytes bytes.
 *  Stream:   waits.  Threads: the only user of this handle.  Since: 0.1
 */
GRADREG_API gradreg_status gradreg_regularizer_state_load(gradreg_regularizer *regularizer,
                                                          const void *state, size_t bytes);

/* ==================================================================== policy losses */

/* What all policy losses share. Token log-probs l_t of the policy being trained, old l_t' of the
 * policy that the ratio is taken against, reference, and rollout engine; a mask; advantages A.
 *
 *      L = scale * ( sum over tokens of w_t (W_t rho_t + beta k_t)  -  c * mean entropy )
 *
 * rho: the surrogate of ratio and advantage; W: token weight times rollout correction, a constant;
 * k: the KL estimate; w: the aggregation's weight, whose denominators are an argument or counted over
 * the same tokens as the numerator. Minimization sign. Masked positions are never read, tokens with a
 * log-prob that is not finite leave numerator and denominators and are counted. */

/** Which ratio the surrogate sees. d_t = l_t - l_t'. Source: losses of TRL, verl and their papers. */
typedef int32_t gradreg_ratio_level;
enum {
    GRADREG_RATIO_TOKEN = 1,         /**< r_t = exp(d_t) (default) */
    GRADREG_RATIO_SEQUENCE = 2,      /**< s = exp(mean of d_t over the sequence) (GSPO) */
    GRADREG_RATIO_SEQUENCE_TOKEN = 3 /**< value s, gradient of r_t alone (GSPO-token) */
};
/** rho as a function of the ratio r and the advantage A. */
typedef int32_t gradreg_surrogate;
enum {
    GRADREG_SURROGATE_CLIPPED = 1,        /**< -min(r A, clip(r) A) (default) */
    GRADREG_SURROGATE_CLIPPED_WEIGHT = 2, /**< -clip(r) A l, clip(r) a constant (CISPO) */
    GRADREG_SURROGATE_SOFT_GATE = 3,      /**< -(4/tau) sigmoid(tau (r - 1)) A (SAPO) */
    GRADREG_SURROGATE_GEOMETRIC_MEAN = 4, /**< -A exp(mean of clipped d_t) per sequence (GMPO) */
    GRADREG_SURROGATE_PLAIN = 5           /**< -A l (REINFORCE, GPG) */
};
/** k as a function of u = l_ref - l. */
typedef int32_t gradreg_kl;
enum {
    GRADREG_KL_NONE = 1, /**< default */
    GRADREG_KL_K1 = 2,   /**< -u */
    GRADREG_KL_K2 = 3,   /**< u^2 / 2 */
    GRADREG_KL_K3 = 4,   /**< exp(u) - u - 1 */
    GRADREG_KL_ABS = 5   /**< |u| */
};
/** w_t; n_i tokens in sequence i, N in the batch, B sequences. */
typedef int32_t gradreg_aggregation;
enum {
    GRADREG_AGGREGATE_SEQUENCE_MEAN = 1,   /**< 1 / (B n_i) (GRPO, default) */
    GRADREG_AGGREGATE_TOKEN_MEAN = 2,      /**< 1 / N (BNPO, DAPO) */
    GRADREG_AGGREGATE_CONSTANT = 3,        /**< 1 / (B max_length) (Dr. GRPO) */
    GRADREG_AGGREGATE_SEQUENCE_SUM = 4,    /**< 1 / B */
    GRADREG_AGGREGATE_LENGTH_WEIGHTED = 5, /**< n_i / (B n_i) (LUSPO) */
    GRADREG_AGGREGATE_PROMPT_MEAN = 6      /**< 1 / (prompts * tokens of the prompt), a prompt's
                                                sequences being in one call. Prompts without a
                                                token never count */
};
/** What is made of the rollout engine's log-probs l_s: weight exp(l' - l_s), per token or summed over
 *  the sequence, cut off at [rollout_low, rollout_high] or zeroed outside. */
typedef int32_t gradreg_rollout_mode;
enum {
    GRADREG_ROLLOUT_OFF = 1, /**< default */
    GRADREG_ROLLOUT_TOKEN_TRUNCATE = 2,
    GRADREG_ROLLOUT_TOKEN_MASK = 3,
    GRADREG_ROLLOUT_SEQUENCE_TRUNCATE = 4,
    GRADREG_ROLLOUT_SEQUENCE_MASK = 5
};

/** A policy loss as a composition. Start from gradreg_policy_preset(). Frozen at 256 bytes. */
typedef struct gradreg_policy {
    uint32_t struct_size;
    gradreg_ratio_level ratio_level;  /**< default TOKEN. Without meaning to GEOMETRIC_MEAN, whose
                                           ratio is its mean's exp */
    gradreg_surrogate surrogate;      /**< default CLIPPED */
    gradreg_kl kl;                    /**< default NONE */
    gradreg_aggregation aggregation;  /**< default SEQUENCE_MEAN */
    gradreg_rollout_mode rollout_mode; /**< default OFF */
    int32_t kl_ratio_weighted;        /**< 1: r_t k_t, or s k_t with a sequence ratio. Default 0 */
    int32_t count_empty_rows;         /**< 1: sequences without a token count in B. Default 0 */
    double clip_low;  /**< distance from 1 (GEOMETRIC_MEAN: of d from 0) downwards, in [0, inf].
                           Default 0.2 */
    double clip_high; /**< upwards, in [0, inf]. Default 0.2 */
    double cap;       /**< CLIPPED: the unclipped branch sees min(r, cap). 0 (default) = off, else > 1 */
    double dual_clip; /**< CLIPPED: for A < 0 rho is at most -dual_clip A. 0 (default) = off, else > 1 */
    double gate_positive;   /**< SOFT_GATE: tau for A > 0, > 0. Default 1 */
    double gate_negative;   /**< tau otherwise, > 0. Default 1.05 */
    double log_ratio_limit; /**< d (its mean, where the ratio is of a mean) is clamped to +-this,
                                 gradient 0 beyond. 0 (default) = off */
    double kl_coefficient;  /**< beta, finite; does nothing with KL_NONE. Default 0: a kl is only
                                 measured */
    double kl_limit;        /**< k is clamped to +-this, gradient 0 beyond. 0 (default) = off */
    double entropy_coefficient;  /**< c, finite. Default 0 */
    double off_policy_threshold; /**< rho is left out of sequences with A < 0 whose mean of (l_s - l), or
                                      (l' - l) without rollout log-probs, exceeds this. 0 (default) =
                                      off */
    double rollout_low;  /**< default 0 */
    double rollout_high; /**< default 3; > rollout_low */
    double token_total;    /**< N over all micro-batches and ranks; 0 (default) = this batch's own */
    double sequence_total; /**< B likewise */
    double prompt_total;   /**< prompts likewise */
    double max_length;     /**< CONSTANT; 0 (default) = the batch's length (packed: longest row) */
    double loss_scale;     /**< 0 = default 1 */
    uint64_t reserved[10];
} gradreg_policy;

#define GRADREG_POLICY_INIT                                                                     \
    {                                                                                           \
        (uint32_t)sizeof(gradreg_policy), GRADREG_RATIO_TOKEN, GRADREG_SURROGATE_CLIPPED,       \
            GRADREG_KL_NONE, GRADREG_AGGREGATE_SEQUENCE_MEAN, GRADREG_ROLLOUT_OFF, 0, 0, 0.2,   \
            0.2, 0.0, 0.0, 1.0, 1.05, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 3.0, 0.0, 0.0, 0.0, 0.0,    \
            1.0, {0, 0, 0, 0, 0, 0, 0, 0, 0, 0}                                                 \
    }

/** What the loss is computed over. Layout of all token arrays: [sequences x length], or packed, row i
 *  at row_offsets[i] .. row_offsets[i + 1]. */
typedef struct gradreg_policy_batch {
    uint32_t struct_size;
    int32_t advantages_per_token; /**< 1: advantages has the layout of logp. Default 0: one a sequence */
    size_t sequences;             /**< rows; 0 is allowed */
    size_t length;                /**< padded row length; packed: ignored */
    const int64_t *row_offsets; /**< sequences + 1 ascending, first 0; NULL (default) = padded. Host */
    const float *logp;          /**< l_t of the policy being trained */
    const float *old_logp;      /**< l_t': at the clean weights, a constant of both passes of a
                                     regularized step. NULL: the on-policy shorthand l' = l, which has
                                     the right gradient and another function's Hessian */
    const float *ref_logp;     /**< needed with a KL */
    const float *rollout_logp; /**< needed with a rollout_mode */
    const float *token_weight; /**< >= 0, multiplies rho; NULL = 1 */
    const float *entropy;      /**< H_t in nats; needed with an entropy_coefficient, else measured */
    const uint8_t *mask;       /**< nonzero = counts; NULL = all */
    const float *advantages;
    const int32_t *group; /**< prompt id per sequence, any numbers; needed for PROMPT_MEAN. Host */
} gradreg_policy_batch;

#define GRADREG_POLICY_BATCH_INIT                                                               \
    {                                                                                           \
        (uint32_t)sizeof(gradreg_policy_batch), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0           \
    }

/** Where the gradient goes. Layout of logp; masked and non-finite positions become 0. */
typedef struct gradreg_policy_gradient {
    uint32_t struct_size;
    uint32_t reserved0;
    float *dlogp;    /**< dL/dl_t; may be logp itself */
    float *dentropy; /**< dL/dH_t; may be NULL while entropy_coefficient is 0 */
} gradreg_policy_gradient;

#define GRADREG_POLICY_GRADIENT_INIT                                                            \
    {                                                                                           \
        (uint32_t)sizeof(gradreg_policy_gradient), 0, 0, 0                                      \
    }

/** What the loss saw. Fractions and means over tokens that count; with GRADREG_RATIO_SEQUENCE the ratio
 *  and the three fractions are means over sequences that have one, of the share of each one's tokens
 *  (not GEOMETRIC_MEAN, whose figures are over tokens). 0 where nothing counts (ratios and effective sample
 *  size: 1). */
typedef struct gradreg_policy_metrics {
    uint32_t struct_size;
    uint32_t reserved0;
    double loss;
    double policy_loss;         /**< without KL and entropy */
    double kl;                  /**< mean of k_t, with its ratio if kl_ratio_weighted */
    double entropy;             /**< mean of H_t; 0 without entropies */
    double ratio_mean;
    double ratio_min;
    double ratio_max;
    double clip_low_fraction;   /**< ratio below 1 - clip_low with A < 0 (GEOMETRIC_MEAN: d below
                                     -clip_low; PLAIN: none) */
    double clip_high_fraction;  /**< ratio above 1 + clip_high with A > 0 (likewise) */
    double limited_fraction;    /**< cap, dual_clip, log_ratio_limit or kl_limit took hold */
    double effective_sample_size; /**< (sum W)^2 / (N sum W^2) of rollout weights, a number as long
                                       as every W is; 1 without */
    uint64_t tokens;            /**< that count */
    uint64_t sequences;         /**< rows */
    uint64_t empty_sequences;   /**< rows in which nothing counts */
    uint64_t non_finite;        /**< tokens left out because an input is not finite */
    uint64_t reserved1[3];
} gradreg_policy_metrics;

#define GRADREG_POLICY_METRICS_INIT                                                             \
    {                                                                                           \
        (uint32_t)sizeof(gradreg_policy_metrics), 0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0,    \
            0.0, 0.0, 0.0, 0, 0, 0, 0, {0, 0, 0}                                                \
    }

/** As gradreg_context_params_init().  Returns: as there.  Stream: none.  Threads: any.  Since: 0.1 */
GRADREG_API gradreg_status gradreg_policy_init(gradreg_policy *out, size_t struct_size);
/** As gradreg_context_params_init().  Returns: as there.  Stream: none.  Threads: any.  Since: 0.1 */
GRADREG_API gradreg_status gradreg_policy_batch_init(gradreg_policy_batch *out,
                                                     size_t struct_size);
/** As gradreg_context_params_init().  Returns: as there.  Stream: none.  Threads: any.  Since: 0.1 */
GRADREG_API gradreg_status gradreg_policy_gradient_init(gradreg_policy_gradient *out,
                                                        size_t struct_size);
/** As gradreg_context_params_init().  Returns: as there.  Stream: none.  Threads: any.  Since: 0.1 */
GRADREG_API gradreg_status gradreg_policy_metrics_init(gradreg_policy_metrics *out,
                                                       size_t struct_size);

/** A loss of the literature, or with "@trl", "@verl" a framework's own constants and rules. Names and
 *  derivations: docs/losses.md.
 *
 *  Returns:  OK; INVALID_ARGUMENT for an unknown name (the sentence lists the known ones).
 *  Out:      out, host, every field.
 *  In:       name, host, zero-terminated.
 *  Stream:   none.  Threads: any.  Since: 0.1.  Source: docs/losses.md
 */
GRADREG_API gradreg_status gradreg_policy_preset(gradreg_policy *out, const char *name);

/** The i-th preset's name, for lists; NULL past the last.
 *
 *  Returns:  a static string or NULL.
 *  Stream:   none.  Threads: any.  Since: 0.1
 */
GRADREG_API const char *gradreg_policy_preset_name(size_t index);

/** Scratch that gradreg_policy_loss() takes from the context for such a batch; hand it to
 *  gradreg_context_reserve() ahead of time, else the first large call allocates.
 *
 *  Returns:  OK; INVALID_ARGUMENT.
 *  Out:      out, host.
 *  Values:   sequences, rows.
 *  Stream:   none.  Threads: any.  Since: 0.1
 */
GRADREG_API gradreg_status gradreg_policy_scratch_bytes(size_t *out, size_t sequences);

/** Loss, gradient and metrics of a batch of sequences: the formula at the head of this section.
 *
 *  In double per token, rounded once; sums in a fixed order. Exact gradients, sequence ratios and
 *  their products with the KL included. Nothing that counts: loss 0, gradient 0.
 *
 *  Returns:  OK; INVALID_ARGUMENT; UNSUPPORTED (a field of a newer version); OUT_OF_MEMORY (scratch);
 *            STATE (context in use). Nothing is written unless OK.
 *  Out:      metrics, backend memory, with struct_size set, may be NULL; out. No overlap with each other
 *            or with what is read, but out.dlogp may be batch.logp.
 *  In:       batch, policy.
 *  Stream:   queued (CPU: finished).  Threads: the context's only user.  Since: 0.1
 *  Source:   the papers and implementations named in docs/losses.md
 */
GRADREG_API gradreg_status gradreg_policy_loss(gradreg_context *context,
                                               gradreg_policy_metrics *metrics,
                                               gradreg_policy_gradient *out,
                                               const gradreg_policy_batch *batch,
                                               const gradreg_policy *policy);

/** Copy metrics from backend memory to the host.
 *
 *  Returns:  OK; INVALID_ARGUMENT; STATE (context in use).
 *  Out:      out, host, with struct_size set; not metrics itself.
 *  In:       metrics, backend memory.
 *  Stream:   waits.  Threads: the context's only user.  Since: 0.1
 */
GRADREG_API gradreg_status gradreg_policy_metrics_read(gradreg_context *context,
                                                       gradreg_policy_metrics *out,
                                                       const gradreg_policy_metrics *metrics);

/* ==================================================================== advantages */

typedef int32_t gradreg_baseline;
enum {
    GRADREG_BASELINE_GROUP_MEAN = 1,    /**< R - mean of the group (default) */
    GRADREG_BASELINE_LEAVE_ONE_OUT = 2, /**< R - mean of the others (RLOO) */
    GRADREG_BASELINE_NONE = 3           /**< R */
};
typedef int32_t gradreg_scale;
enum {
    GRADREG_SCALE_NONE = 1,      /**< (default) */
    GRADREG_SCALE_GROUP_STD = 2, /**< / (standard deviation of the group + epsilon) */
    GRADREG_SCALE_BATCH_STD = 3  /**< / (standard deviation of all rewards + epsilon) */
};
/** A group with one usable reward. */
typedef int32_t gradreg_singleton;
enum {
    GRADREG_SINGLETON_ZERO = 1,  /**< advantage 0 (default; TRL) */
    GRADREG_SINGLETON_REWARD = 2 /**< baseline 0 and deviation 1: R / (1 + epsilon) with GROUP_STD (verl),
                                      R without a scale */
};

/** How rewards become advantages. Standard deviations are Bessel-corrected, computed in double in two
 *  passes, and where one is 0 its rewards get 0. A reward that is NaN or infinite is left out and gets
 *  0. */
typedef struct gradreg_advantage_params {
    uint32_t struct_size;
    gradreg_baseline baseline;   /**< default GROUP_MEAN */
    gradreg_scale scale;         /**< default NONE */
    gradreg_singleton singleton; /**< default ZERO */
    double epsilon;              /**< >= 0. Default 1e-4 */
    const int32_t *group;        /**< host, group id per reward, any numbers, any order; NULL (default)
                                      = consecutive groups of group_size */
} gradreg_advantage_params;

#define GRADREG_ADVANTAGE_PARAMS_INIT                                                           \
    {                                                                                           \
        (uint32_t)sizeof(gradreg_advantage_params), GRADREG_BASELINE_GROUP_MEAN,                \
            GRADREG_SCALE_NONE, GRADREG_SINGLETON_ZERO, 1e-4, 0                                 \
    }

/** As gradreg_context_params_init().  Returns: as there.  Stream: none.  Threads: any.  Since: 0.1 */
GRADREG_API gradreg_status gradreg_advantage_params_init(gradreg_advantage_params *out,
                                                         size_t struct_size);

/** Advantages of a batch of rewards, group by group.
 *
 *  Returns:  OK; INVALID_ARGUMENT (count must be a multiple of group_size, unless group is given);
 *            UNSUPPORTED (a field of a newer version); OUT_OF_MEMORY (scratch, with group ids); STATE
 *            (context in use). Nothing is written unless OK.
 *  Out:      out, count f32; may be rewards.
 *  In:       rewards, count f32.
 *  Values:   group_size >= 1, ignored with group ids.
 *  Stream:   queued (CPU: finished).  Threads: the context's only user.  Since: 0.1
 *  Source:   GRPO arXiv:2402.03300, Dr. GRPO arXiv:2503.20783, RLOO
 */
GRADREG_API gradreg_status gradreg_advantages(gradreg_context *context, float *out,
                                              const float *rewards, size_t count,
                                              size_t group_size,
                                              const gradreg_advantage_params *params);

/* ==================================================================== log-probs */

/* From logits x to what the policy losses need, and back. With z = x / temperature:
 *
 *      log_sum_exp = ln sum_j exp z_j      logp = z_target - log_sum_exp
 *      H = -sum_j p_j ln p_j, in nats      p_j = exp(z_j - log_sum_exp)
 *
 *      dL/dx_j = ( dlogp ([j = target] - p_j) - dentropy p_j (ln p_j + H) ) / temperature
 *
 * A row whose target is -1 is padding: it is never read, its numbers are 0, its gradient is zeros. A
 * logit of -inf (a mask), or with z below fp32's range, has p = 0 and gradient 0, also as a target (logp
 * is -inf then). A row with a NaN, with +inf, with z above fp32's range, or with nothing but -inf gives
 * NaN; its gradient is NaN too, but zeros where dlogp and dentropy are 0. Rows with dlogp = dentropy = 0
 * get zeros without being read. Other targets outside [0, vocabulary): INVALID_ARGUMENT on the CPU; on CUDA the row's
 * numbers are NaN and its gradient is zeros. */

/** A matrix of logits, and of their gradient. */
typedef struct gradreg_logits_params {
    uint32_t struct_size;
    gradreg_type type; /**< of logits and dlogits. Default F32 */
    size_t rows;       /**< tokens. Default 0 */
    size_t vocabulary; /**< logits of a row, at most 2^31 - 1. Default 0: must be set when rows > 0 */
    size_t row_stride; /**< elements from row to row, >= vocabulary; what lies between is neither read
                            nor written. 0 (default) = vocabulary */
    float temperature; /**< finite, > 0; its inverse, rounded to fp32, multiplies the logits.
                            0 = default 1 */
    uint32_t reserved0;
} gradreg_logits_params;

#define GRADREG_LOGITS_PARAMS_INIT                                                              \
    {                                                                                           \
        (uint32_t)sizeof(gradreg_logits_params), GRADREG_TYPE_F32, 0, 0, 0, 1.0f, 0             \
    }

/** As gradreg_context_params_init().  Returns: as there.  Stream: none.  Threads: any.  Since: 0.1 */
GRADREG_API gradreg_status gradreg_logits_params_init(gradreg_logits_params *out,
                                                      size_t struct_size);

/** Log-prob of each row's target, entropy, and log of the sum of exponentials.
 *
 *  The largest logit is taken off first: logits of +-1e4 are safe, H is exact near one-hot rows and near
 *  uniform ones. exp is a polynomial in fp32 below 2.5 ulp, sums have a fixed order in fp32 lanes and
 *  double: relative error of H and of 1 - p_max below 3e-6, mostly 2e-7, while H > 4e-31 vocabulary (exp
 *  flushes what is not normal in fp32 to 0); each result is rounded once.
 *
 *  Returns:  OK; INVALID_ARGUMENT; UNSUPPORTED (a field of a newer version); STATE (context in use).
 *            Nothing is written unless OK.
 *  Out:      logp, entropy, log_sum_exp: rows f32 each; the last two may be NULL.
 *  In:       logits, rows x vocabulary of params.type; targets, rows.
 *  Stream:   queued (CPU: finished).  Threads: the context's only user.  Since: 0.1
 *  Source:   the formulas above
 */
GRADREG_API gradreg_status gradreg_logprobs_forward(gradreg_context *context, float *logp,
                                                    float *entropy, float *log_sum_exp,
                                                    const void *logits, const int32_t *targets,
                                                    const gradreg_logits_params *params);

/** The gradient with respect to the logits, by the formula above.
 *
 *  p_j is e^(z_j - log_sum_exp) with log_sum_exp as it was rounded to fp32: its relative error is that
 *  half ulp of log_sum_exp (5e-7 from 8 to 16) and 2.5 ulp of exp. Results are rounded once to
 *  params.type; f16 saturates.
 *
 *  Returns:  OK; INVALID_ARGUMENT; UNSUPPORTED (a field of a newer version); STATE (context in use).
 *            Nothing is written unless OK.
 *  Out:      dlogits, rows x vocabulary of params.type; may be logits itself.
 *  In:       logits, targets, params as given to forward; log_sum_exp and entropy as it returned them
 *            (entropy may be NULL without dentropy); dlogp = dL/dlogp and dentropy = dL/dH, rows f32
 *            each; dentropy may be NULL.
 *  Stream:   queued (CPU: finished).  Threads: the context's only user.  Since: 0.1
 *  Source:   the formulas above
 */
GRADREG_API gradreg_status gradreg_logprobs_backward(
    gradreg_context *context, void *dlogits, const void *logits, const int32_t *targets,
    const float *log_sum_exp, const float *entropy, const float *dlogp, const float *dentropy,
    const gradreg_logits_params *params);

/** Scratch that gradreg_policy_logits() takes from the context for such a call; for
 *  gradreg_context_reserve().
 *
 *  Returns:  OK; INVALID_ARGUMENT; UNSUPPORTED (a field of a newer version).
 *  Out:      out, host.
 *  In:       params, of which rows counts.
 *  Values:   sequences, of the batch.
 *  Stream:   none.  Threads: any.  Since: 0.1
 */
GRADREG_API gradreg_status gradreg_policy_logits_scratch_bytes(
    size_t *out, size_t sequences, const gradreg_logits_params *params);

/** gradreg_logprobs_forward(), gradreg_policy_loss() and gradreg_logprobs_backward() in one visit of
 *  each row, for losses that are known token by token. Row r of the logits is token r of the batch's
 *  layout (padded or packed), masked tokens included.
 *
 *  The same bits as the three calls, given batch.entropy = H. Masked rows are never read: gradient 0,
 *  log-prob 0, entropy 0. Mask padding rows (target -1) too, else they count with log-prob 0. Where a
 *  denominator is counted in the call, it counts the tokens of the three calls: a row without a
 *  distribution, or whose target is masked, leaves numerator and denominator. Because that shows when
 *  its row is read, other rows may have been written by then: they are computed again, or in place
 *  multiplied by the ratio of the weights, one more rounding. In place, with an entropy bonus, and
 *  weights that one factor cannot mend (SEQUENCE_MEAN, PROMPT_MEAN; CONSTANT, SEQUENCE_SUM and
 *  LENGTH_WEIGHTED without token_total and sequence_total), or in place with a rollout_mode by sequence,
 *  all rows are read twice instead.
 *
 *  Returns:  OK; INVALID_ARGUMENT; UNSUPPORTED (a field of a newer version; or what needs a whole
 *            sequence first: a ratio_level but TOKEN, GEOMETRIC_MEAN, an off_policy_threshold, a
 *            rollout_mode by sequence without old_logp: use the three calls); OUT_OF_MEMORY (scratch);
 *            STATE (context in use). Nothing is written unless OK.
 *  Out:      metrics, backend memory, with struct_size set, may be NULL; dlogits, params.rows x
 *            vocabulary of params.type, may be logits itself; logp and entropy, params.rows f32 each, may
 *            be NULL.
 *  In:       logits; targets, params.rows; batch, whose logp and entropy must be NULL; policy; params,
 *            whose rows are the batch's tokens.
 *  Stream:   queued (CPU: finished).  Threads: the context's only user.  Since: 0.1
 *  Source:   the sections above
 */
GRADREG_API gradreg_status gradreg_policy_logits(
    gradreg_context *context, gradreg_policy_metrics *metrics, void *dlogits, float *logp,
    float *entropy, const void *logits, const int32_t *targets, const gradreg_policy_batch *batch,
    const gradreg_policy *policy, const gradreg_logits_params *params);

/* From hidden states h and the head's weight W [vocabulary x width] instead of logits: x = h Wt, a chunk
 * of rows at a time, so that the logits of a batch never exist together. Everything else is as above.
 * Needs a BLAS: on the CPU OpenBLAS at build time (option blas), on CUDA cuBLAS, opened at a context's first
 * call, which is refused with STATE in a capture. OpenBLAS's own threads multiply, as many as it was told to
 * use (OPENBLAS_NUM_THREADS). Sums depend on the BLAS, its core and thread count, so these calls alone do
 * not promise the same bits everywhere. */

/** Hidden states, head weight, and how they are worked on. */
typedef struct gradreg_linear_params {
    uint32_t struct_size;
    gradreg_type type;           /**< of hidden and weight. Default F32. Products are f32 */
    gradreg_type gradient_type;  /**< of dhidden; 0 (default) = type */
    int32_t add_weight_gradient; /**< 1: dweight += ...; 0 (default): dweight = ... */
    size_t rows;                 /**< tokens. Default 0 */
    size_t width;                /**< of a hidden state, at most 2^31 - 1; must be set when rows > 0 */
    size_t vocabulary;           /**< rows of the weight, at most 2^31 - 1; likewise */
    size_t hidden_stride;        /**< elements from row to row of hidden and of dhidden; 0 = width */
    size_t weight_stride;        /**< of weight; 0 = width. dweight has no gaps */
    size_t chunk_rows;           /**< rows at a time; 0 (default): as many as have 2^26 logits */
    float temperature;           /**< as in gradreg_logits_params. 0 = default 1 */
    uint32_t reserved0;
} gradreg_linear_params;

#define GRADREG_LINEAR_PARAMS_INIT                                                              \
    {                                                                                           \
        (uint32_t)sizeof(gradreg_linear_params), GRADREG_TYPE_F32, 0, 0, 0, 0, 0, 0, 0, 0,      \
            1.0f, 0                                                                             \
    }

/** As gradreg_context_params_init().  Returns: as there.  Stream: none.  Threads: any.  Since: 0.1 */
GRADREG_API gradreg_status gradreg_linear_params_init(gradreg_linear_params *out,
                                                      size_t struct_size);

/** gradreg_logprobs_forward() of h Wt. Rows with target -1 are never read.
 *
 *  Returns:  OK; INVALID_ARGUMENT; UNSUPPORTED (no BLAS; a field of a newer version);
 *            OUT_OF_MEMORY (scratch); STATE (context in use). Nothing is written unless OK.
 *  Out:      logp, entropy, log_sum_exp: rows f32 each; the last two may be NULL.
 *  In:       hidden, rows x width; weight, vocabulary x width, both of params.type; targets, rows.
 *  Stream:   queued (CPU: finished).  Threads: the context's only user.  Since: 0.1
 *  Source:   the formulas above
 */
GRADREG_API gradreg_status gradreg_linear_logprobs_forward(
    gradreg_context *context, float *logp, float *entropy, float *log_sum_exp, const void *hidden,
    const void *weight, const int32_t *targets, const gradreg_linear_params *params);

/** The gradient with respect to hidden states and weight: with G the gradient of the logits,
 *  dhidden = G W, dweight = Gt h. Logits are computed a second time, G takes their place.
 *
 *  Rows that are padding, or whose dlogp and dentropy are 0, are never read and get zeros. A row without
 *  a distribution that something asks of makes its dhidden and all of dweight NaN.
 *
 *  Returns:  OK; INVALID_ARGUMENT; UNSUPPORTED (no BLAS; a field of a newer version);
 *            OUT_OF_MEMORY (scratch); STATE (context in use). Nothing is written unless OK.
 *  Out:      dhidden, rows x width of gradient_type; dweight, vocabulary x width f32, added to with
 *            add_weight_gradient. One of them may be NULL.
 *  In:       hidden, weight, targets, params as given to forward; log_sum_exp and entropy as it returned
 *            them (entropy may be NULL without dentropy); dlogp, dentropy: rows f32; dentropy may be
 *            NULL.
 *  Stream:   queued (CPU: finished).  Threads: the context's only user.  Since: 0.1
 *  Source:   the formulas above
 */
GRADREG_API gradreg_status gradreg_linear_logprobs_backward(
    gradreg_context *context, void *dhidden, float *dweight, const void *hidden,
    const void *weight, const int32_t *targets, const float *log_sum_exp, const float *entropy,
    const float *dlogp, const float *dentropy, const gradreg_linear_params *params);

/** Scratch that both calls take from the context: f32 for a chunk's logits, its hidden states and their
 *  gradient, and, where the weight is not f32, for 2^22 of its elements; for gradreg_context_reserve().
 *
 *  Returns:  OK; INVALID_ARGUMENT; UNSUPPORTED (a field of a newer version).
 *  Out:      out, host.
 *  In:       params.
 *  Stream:   none.  Threads: any.  Since: 0.1
 */
GRADREG_API gradreg_status gradreg_linear_logprobs_scratch_bytes(
    size_t *out, const gradreg_linear_params *params);

/* ==================================================================== probe */

/* How firmly does each layer hold an answer? A layer-wise causal trace: for each layer, and for each
 * of some trials, noise is added to the final token's hidden state as it leaves the layer, the forward
 * pass runs on, and the probability of the target token is read.
 *
 *      clean forward pass                    ──► observe(GRADREG_LAYER_NONE)
 *      forward pass up to layer l ──► inject ──► the layers above ──► observe(l)      for every l
 *      summary: mean, spread, extremes per layer, next to the clean probability
 *
 * The caller owns the forward pass. A draw depends on (seed, layer, trial, element) alone: trials may be
 * rows of one batch, a batch each, or come in any order, and models that are compared see the same
 * noise. Source: S1. */

/** What is traced, and how often. */
typedef struct gradreg_probe_params {
    uint32_t struct_size;
    int32_t layer_count; /**< 1 .. 65536. Default 0: must be set */
    int32_t trials;      /**< per layer, at least 1; 0 = default 30 */
    uint32_t reserved0;
    double noise_scale; /**< standard deviation of the noise over the RMS of its row, finite, >= 0; 0 moves
                             nothing. Default 0.5 */
    uint64_t seed;      /**< default 0 */
} gradreg_probe_params;

#define GRADREG_PROBE_PARAMS_INIT                                                               \
    {                                                                                           \
        (uint32_t)sizeof(gradreg_probe_params), 0, 30, 0, 0.5, 0                                \
    }

/** What was observed at one layer. mean to max are of the probabilities that are finite, NaN without
 *  any. Frozen at 128 bytes. */
typedef struct gradreg_probe_layer {
    uint32_t struct_size;
    int32_t layer;   /**< its number */
    double mean;     /**< of the target's probability */
    double std;      /**< Bessel-corrected standard deviation; 0 with one observation */
    double min;      /**< smallest */
    double max;      /**< largest */
    double baseline; /**< mean of what was observed with GRADREG_LAYER_NONE, the same in every layer; NaN
                          without */
    uint64_t trials;       /**< observations in the figures above */
    uint64_t non_finite;   /**< observations left out because the row had no probability */
    uint64_t not_injected; /**< rows that inject left alone because an element was not finite */
    uint64_t saturated;    /**< f16 elements that inject clipped to +-65504 */
    uint64_t reserved[6];
} gradreg_probe_layer;

#define GRADREG_PROBE_LAYER_INIT                                                                \
    {                                                                                           \
        (uint32_t)sizeof(gradreg_probe_layer), 0, 0.0, 0.0, 0.0, 0.0, 0.0, 0, 0, 0, 0,          \
            {0, 0, 0, 0, 0, 0}                                                                  \
    }

typedef struct gradreg_probe gradreg_probe;

/** As gradreg_context_params_init().  Returns: as there.  Stream: none.  Threads: any.  Since: 0.1 */
GRADREG_API gradreg_status gradreg_probe_params_init(gradreg_probe_params *out,
                                                     size_t struct_size);
/** As gradreg_context_params_init().  Returns: as there.  Stream: none.  Threads: any.  Since: 0.1 */
GRADREG_API gradreg_status gradreg_probe_layer_init(gradreg_probe_layer *out, size_t struct_size);

/** Create a probe. Allocates everything it will ever hold: 128 bytes per layer and some
 *  kilobytes.
 *
 *  Returns:  OK; INVALID_ARGUMENT (the sentence names the field); UNSUPPORTED (a field of a newer
 *            version); OUT_OF_MEMORY; DEVICE. *out is NULL after a failure.
 *  Out:      out, one handle, a child of context, to be given to gradreg_probe_destroy().
 *  In:       params, host.
 *  Stream:   waits.  Threads: any.  Since: 0.1
 */
GRADREG_API gradreg_status gradreg_probe_create(gradreg_probe **out, gradreg_context *context,
                                                const gradreg_probe_params *params);

/** Destroy a probe.
 *
 *  Returns:  OK, also for NULL; STATE (in use by another call).
 *  Stream:   waits.  Threads: the only user of probe.  Since: 0.1
 */
GRADREG_API gradreg_status gradreg_probe_destroy(gradreg_probe *probe);

/** Forget all observations and counts, e.g. before the next prompt. Draws stay what they are.
 *
 *  Returns:  OK; INVALID_ARGUMENT; STATE (in use by another call); DEVICE.
 *  Stream:   queued.  Threads: the only user of probe.  Since: 0.1
 */
GRADREG_API gradreg_status gradreg_probe_reset(gradreg_probe *probe);

/** Add noise to hidden states: row r of hidden is trial first_trial + r, and
 *
 *      x[i] = round(x[i] + sigma n_i),  sigma = noise_scale RMS(x),  RMS(x)^2 = sum of x[i]^2 / width
 *
 *  n standard normal, a function of (seed, layer, trial, i) alone (lib/random.h, with 2^31 + layer for the
 *  segment and trial for the step, so that no draw is one of a regularizer's). RMS by the summation tree of
 *  lib/reduce.h, sigma rounded to f32 once, product and sum in f32, the store to nearest even. f16
 *  saturates at +-65504 and is counted; f32 and bf16 may overflow to infinity as sums do. A row with
 *  an element that is not finite is left alone and counted, a row of zeros has no RMS and stays.
 *  Only width elements of a row are touched: with row_stride = length x width the final tokens of a
 *  [batch x length x width] array are rows.
 *
 *  Returns:  OK; INVALID_ARGUMENT; STATE (in use by another call); DEVICE.
 *  InOut:    hidden, rows x row_stride elements of `type` (the last row: width); NULL with rows 0.
 *  Values:   type, GRADREG_TYPE_F32, _BF16 or _F16; width, 1 to 2^31 - 1; row_stride >= width, 0 = width;
 *            layer, 0 to layer_count - 1; first_trial >= 0, first_trial + rows <= trials.
 *  Stream:   queued.  Threads: the only user of probe.  Since: 0.1.  Source: S1
 */
GRADREG_API gradreg_status gradreg_probe_inject(gradreg_probe *probe, void *hidden,
                                                gradreg_type type, size_t rows, size_t width,
                                                size_t row_stride, int32_t layer,
                                                int32_t first_trial);

/** Read the target's probability exp(z_target) / sum of exp(z) from rows of logits z and add it to the
 *  layer's statistics, in the order of rows; GRADREG_LAYER_NONE: to the baseline.
 *
 *  In double, relative to the largest logit, sums in a fixed order; z = -inf has probability 0. A row
 *  with a NaN, with +inf, or with nothing but -inf has no probability: counted in non_finite and left out.
 *  Nothing is remembered per trial: a trial that is observed twice counts twice, e.g. for two prompts.
 *
 *  Returns:  OK; INVALID_ARGUMENT; STATE (in use by another call); DEVICE.
 *  In:       logits, rows x row_stride elements of `type` (the last row: vocabulary); NULL with rows 0.
 *  Values:   type, GRADREG_TYPE_F32, _BF16 or _F16; vocabulary, 1 to 2^31 - 1; row_stride >= vocabulary,
 *            0 = vocabulary; target, 0 to vocabulary - 1; layer, 0 to layer_count - 1, or
 *            GRADREG_LAYER_NONE; first_trial >= 0, first_trial + rows <= trials (NONE: ignored).
 *  Stream:   queued.  Threads: the only user of probe.  Since: 0.1.  Source: S1
 */
GRADREG_API gradreg_status gradreg_probe_observe(gradreg_probe *probe, const void *logits,
                                                 gradreg_type type, size_t rows,
                                                 size_t vocabulary, size_t row_stride,
                                                 int32_t target, int32_t layer,
                                                 int32_t first_trial);

/** What has been observed so far, layer by layer.
 *
 *  Returns:  OK; INVALID_ARGUMENT (struct_size; layer_count must be the probe's); STATE (in use by
 *            another call); DEVICE.
 *  Out:      out, host, layer_count entries at the stride of out[0].struct_size.
 *  Stream:   waits.  Threads: the only user of probe.  Since: 0.1
 */
GRADREG_API gradreg_status gradreg_probe_summary(gradreg_probe *probe, gradreg_probe_layer *out,
                                                 size_t layer_count);

/* ==================================================================== monitors */

/** The share of n-grams that are distinct: different runs of `order` tokens over all runs,
 *  count - order + 1. 1 says that nothing repeats. NaN where there is no run. Exact, whatever the
 *  tokens' numbers; time grows with count log(order), memory is up to 52 bytes per token and is taken
 *  from the C library for the call, there being no context.
 *
 *  Returns:  OK; INVALID_ARGUMENT; OUT_OF_MEMORY.
 *  Out:      out, host.
 *  In:       tokens, host, count of any value; NULL with count 0.
 *  Values:   count, at most 2^31 - 1; order >= 1.
 *  Stream:   none.  Threads: any.  Since: 0.1.  Source: S1
 */
GRADREG_API gradreg_status gradreg_distinct_ngrams(double *out, const int32_t *tokens,
                                                   size_t count, int32_t order);

/** Trailing mean: out[i] is the mean of values[i - window + 1 .. i], of fewer at the start. NaN entries
 *  are left out; NaN where all are. In double; infinities last as long as the window sees them. Time
 *  does not grow with window.
 *
 *  Returns:  OK; INVALID_ARGUMENT.
 *  Out:      out, host, count doubles, apart from values; NULL with count 0.
 *  In:       values, host, count floats, e.g. the entropies of a generation; NULL with count 0.
 *  Values:   count, at most 2^40; window >= 1.
 *  Stream:   none.  Threads: any.  Since: 0.1.  Source: S1 (window 5)
 */
GRADREG_API gradreg_status gradreg_moving_average(double *out, const float *values, size_t count,
                                                  size_t window);

/** Jensen-Shannon divergence between the distributions of two equally shaped sets of rows, e.g. two
 *  models' attention maps, in nats:
 *
 *      out[r] = KL(P || M) / 2 + KL(Q || M) / 2,  M = (P + Q) / 2,  P = p[r] / sum,  Q = q[r] / sum
 *
 *  in [0, ln 2]. Rows are divided by their sums, so that weights, counts and rounded probabilities will
 *  do; zeros are fine. Exactly 0 for equal rows, and accurate for nearly equal ones. NaN for a row that
 *  is no distribution: a negative element, one that is not finite, or a sum of 0. In double, sums in a
 *  fixed order, rounded once.
 *
 *  Returns:  OK; INVALID_ARGUMENT; STATE (context in use); DEVICE.
 *  Out:      out, rows f32, apart from p and q.
 *  In:       p, q, rows x columns f32 each, may be the same; NULL with rows 0.
 *  Values:   columns, 1 to 2^31 - 1.
 *  Stream:   queued.  Threads: the context's only user.  Since: 0.1
 */
GRADREG_API gradreg_status gradreg_js_divergence(gradreg_context *context, float *out,
                                                 const float *p, const float *q, size_t rows,
                                                 size_t columns);

/** How far weights have moved: norms[s] = ||after - before|| over segment s, the Frobenius norm.
 *
 *  Differences and lanes in f32, summed by the tree of lib/reduce.h (its step 4 takes differences in
 *  double: finite weights have a finite norm). NaN for a segment with an element that is not finite.
 *  Element i of a segment is before[offset + i]. Layers, roles, grad_type and flags mean nothing here;
 *  overlapping segments are fine.
 *
 *  Returns:  OK; INVALID_ARGUMENT (the sentence names the segment); STATE (context in use);
 *            OUT_OF_MEMORY (32 KiB of the context's scratch, at the first call unless reserved); DEVICE.
 *  Out:      norms, segment_count doubles, apart from the weights; NULL with segment_count 0.
 *  In:       before, after, as far as the last segment's end, may be the same; segments, host, with
 *            param_type 0 or `type` and without shards.
 *  Values:   type, GRADREG_TYPE_F32, _BF16 or _F16.
 *  Stream:   queued.  Threads: the context's only user.  Since: 0.1.  Source: S1
 */
GRADREG_API gradreg_status gradreg_weight_delta(gradreg_context *context, double *norms,
                                                const void *before, const void *after,
                                                gradreg_type type,
                                                const gradreg_segment *segments,
                                                size_t segment_count);

#ifdef __cplusplus
}
#endif
#endif /* GRADREG_H */
