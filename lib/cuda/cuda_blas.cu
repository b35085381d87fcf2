/* cuda_blas.cu - see cuda_blas.h. In: a product of matrices in device memory. Out: queued on the stream.
 *
 * cuBLAS is looked for under its soname, or where GRADREG_CUBLAS says. Its declarations are this file's own,
 * so that the module is built without its headers; where these are at hand the numbers are compared. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* secure_getenv */
#endif
#include "cuda_blas.h"

#include "../types.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define VARIABLE "GRADREG_CUBLAS"

typedef struct gr_blas_handle *blas_handle;

enum {
    BLAS_OK = 0,
    BLAS_NO_MEMORY = 3,
    BLAS_PLAIN = 0,
    BLAS_TURNED = 1,
    BLAS_F32 = 0,
    BLAS_F16 = 2,
    BLAS_BF16 = 14,
    BLAS_SUMS_F32 = 68,
    BLAS_ANY_ALGORITHM = -1,
    BLAS_SUMS_STAY_WIDE = 16
};

#if !defined(GR_CUDA_EMULATED) && defined(__has_include)
#if __has_include(<cublas_v2.h>)
#include <cublas_v2.h>
static_assert(static_cast<int>(CUBLAS_STATUS_SUCCESS) == BLAS_OK &&
                  static_cast<int>(CUBLAS_STATUS_ALLOC_FAILED) == BLAS_NO_MEMORY &&
                  static_cast<int>(CUBLAS_OP_N) == BLAS_PLAIN &&
                  static_cast<int>(CUBLAS_OP_T) == BLAS_TURNED &&
                  static_cast<int>(CUDA_R_32F) == BLAS_F32 &&
                  static_cast<int>(CUDA_R_16F) == BLAS_F16 &&
                  static_cast<int>(CUDA_R_16BF) == BLAS_BF16 &&
                  static_cast<int>(CUBLAS_COMPUTE_32F) == BLAS_SUMS_F32 &&
                  static_cast<int>(CUBLAS_GEMM_DEFAULT) == BLAS_ANY_ALGORITHM &&
                  static_cast<int>(CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION) ==
                      BLAS_SUMS_STAY_WIDE,
              "cuBLAS's numbers are what this file takes them for");
#endif
#endif

/* Matrices are stored column by column. */
typedef struct gr_blas {
    int (*create)(blas_handle *handle);
    int (*destroy)(blas_handle handle);
    int (*set_stream)(blas_handle handle, cudaStream_t stream);
    int (*set_workspace)(blas_handle handle, void *workspace, size_t bytes);
    int (*set_math_mode)(blas_handle handle, int mode);
    int (*multiply)(blas_handle handle, int a_turned, int b_turned, int rows, int columns,
                    int inner, const void *alpha, const void *a, int a_type, int a_stride,
                    const void *b, int b_type, int b_stride, const void *beta, void *out,
                    int out_type, int out_stride, int sums, int algorithm);
} gr_blas;

/* What a context keeps. */
typedef struct gr_blas_state {
    blas_handle handle;
    void *workspace;
} gr_blas_state;

/* cuBLAS's own size on compute capability 9.0, and enough elsewhere. */
#ifndef GR_BLAS_WORKSPACE
#define GR_BLAS_WORKSPACE (32 << 20)
#endif
enum { WORKSPACE_BYTES = GR_BLAS_WORKSPACE };

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static gr_blas blas; /* all or nothing; stays open for ever */

static gradreg_status report(const char *call, int status)
{
    return GR_CUDA_FAIL(status == BLAS_NO_MEMORY ? GRADREG_ERROR_OUT_OF_MEMORY
                                                 : GRADREG_ERROR_BLAS,
                        "%s gives cuBLAS status %d", call, status);
}

#define BLAS_TRY(name, call)                       \
    do {                                           \
        const int status_ = (call);                \
        if (status_ != BLAS_OK)                    \
            return report("cublas" name, status_); \
    } while (0)

/* ---- opening --------------------------------------------------------------------- */

/* NULL, and why. */
static void *open_library(const char **why)
{
    char name[32];
    const char *named = secure_getenv(VARIABLE);
    const int is_named = named != NULL && named[0] != '\0';
    (void)snprintf(name, sizeof(name), "libcublas.so.%d", CUDART_VERSION / 1000);
    *why = is_named ? VARIABLE " is no absolute path"
                    : "LD_LIBRARY_PATH has relative entries, so that nothing is looked for";
    if (is_named ? named[0] != '/' : !gradreg_cuda_core->library_path_is_absolute())
        return NULL;
    void *const library = dlopen(is_named ? named : name, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL)
        *why = dlerror();
    return library;
}

static int find(void *library, const char *name, void *function)
{
    void *const found = dlsym(library, name);
    *static_cast<void **>(function) = found;
    return found != NULL;
}

/* Under the mutex. */
static gradreg_status load(void)
{
    gr_blas found;
    const char *why;
    void *library = open_library(&why);
    GR_CUDA_REQUIRE(
        library != NULL, GRADREG_ERROR_UNSUPPORTED,
        "log-probs from hidden states need cuBLAS of CUDA %d: %.300s; %s can name one "
        "by an absolute path",
        CUDART_VERSION / 1000, why, VARIABLE);
    if (!find(library, "cublasCreate_v2", &found.create) ||
        !find(library, "cublasDestroy_v2", &found.destroy) ||
        !find(library, "cublasSetStream_v2", &found.set_stream) ||
        !find(library, "cublasSetWorkspace_v2", &found.set_workspace) ||
        !find(library, "cublasSetMathMode", &found.set_math_mode) ||
        !find(library, "cublasGemmEx", &found.multiply)) {
        dlclose(library);
        return GR_CUDA_FAIL(GRADREG_ERROR_UNSUPPORTED,
                            "the cuBLAS that was found lacks functions of version %d",
                            CUDART_VERSION / 1000);
    }
    blas = found;
    return GRADREG_OK;
}

static gradreg_status load_once(void)
{
    gradreg_status status = GRADREG_OK;
    pthread_mutex_lock(&mutex);
    if (blas.multiply == NULL)
        status = load();
    pthread_mutex_unlock(&mutex);
    return status;
}

static gradreg_status fill(gr_blas_state *s)
{
    GR_CUDA_TRY(cudaMalloc(&s->workspace, WORKSPACE_BYTES));
    BLAS_TRY("Create", blas.create(&s->handle));
    BLAS_TRY("SetMathMode", blas.set_math_mode(s->handle, BLAS_SUMS_STAY_WIDE));
    return GRADREG_OK;
}

static void release(gr_blas_state *s)
{
    if (s->handle != NULL)
        (void)blas.destroy(s->handle);
    if (cudaFree(s->workspace) != cudaSuccess)
        (void)cudaGetLastError();
    free(s);
}

static gradreg_status open(gr_cuda_context *c)
{
    unsigned long long graph;
    GR_TRY(gradreg_cuda_capture(c, &graph));
    GR_CUDA_REQUIRE(
        graph == 0, GRADREG_ERROR_STATE,
        "the stream is being captured, and the first log-probs from hidden states of a "
        "context open cuBLAS: call once before");
    GR_TRY(load_once());
    gr_blas_state *s = static_cast<gr_blas_state *>(calloc(1, sizeof(gr_blas_state)));
    GR_CUDA_REQUIRE(s != NULL, GRADREG_ERROR_OUT_OF_MEMORY, "no memory for a cuBLAS handle");
    const gradreg_status status = fill(s);
    if (status != GRADREG_OK)
        release(s);
    else
        c->blas = s;
    return status;
}

/* A new stream makes cuBLAS forget its workspace: it would allocate one of its own. */
gradreg_status gradreg_cuda_blas_begin(gr_cuda_context *c)
{
    if (c->blas == NULL)
        GR_TRY(open(c));
    const gr_blas_state *s = static_cast<gr_blas_state *>(c->blas);
    BLAS_TRY("SetStream", blas.set_stream(s->handle, c->stream));
    BLAS_TRY("SetWorkspace", blas.set_workspace(s->handle, s->workspace, WORKSPACE_BYTES));
    return GRADREG_OK;
}

void gradreg_cuda_blas_close(gr_cuda_context *c)
{
    if (c->blas != NULL)
        release(static_cast<gr_blas_state *>(c->blas));
    c->blas = NULL;
}

/* ---- products -------------------------------------------------------------------- */

static int type_of(gradreg_type type)
{
    switch (static_cast<gr_type>(type)) {
    case GR_TYPE_F32: break;
    case GR_TYPE_BF16: return BLAS_BF16;
    case GR_TYPE_F16: return BLAS_F16;
    }
    return BLAS_F32;
}

/* Stored by rows, a matrix is its transpose stored by columns: out' = b' a'. */
gradreg_status gradreg_cuda_multiply(const gr_cuda_context *c, const gr_product *p)
{
    const gr_blas_state *s = static_cast<const gr_blas_state *>(c->blas);
    const float one = 1.0f, before = p->adds ? 1.0f : 0.0f;
    BLAS_TRY("GemmEx",
             blas.multiply(s->handle, p->b_turned ? BLAS_TURNED : BLAS_PLAIN,
                           p->a_turned ? BLAS_TURNED : BLAS_PLAIN, static_cast<int>(p->columns),
                           static_cast<int>(p->rows), static_cast<int>(p->inner), &one, p->b.at,
                           type_of(p->b.type), static_cast<int>(p->b.stride), p->a.at,
                           type_of(p->a.type), static_cast<int>(p->a.stride), &before, p->out,
                           BLAS_F32, static_cast<int>(p->out_stride), BLAS_SUMS_F32,
                           BLAS_ANY_ALGORITHM));
    return GRADREG_OK;
}
