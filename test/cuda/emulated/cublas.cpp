/* cublas.cpp - a stand-in for the part of cuBLAS that the library opens.
 *
 * In: the calls of host code. Out: products of small matrices on the stream, sums in double, rounded
 * once to f32. A handle without a workspace since its stream was set counts as an allocation of the
 * call, as cuBLAS then takes memory of its own. Calls fail on purpose as the runtime's do. */
#include <cmath>
#include <vector>

#include "races.h"
#include "streams.h"

using namespace emulated;

namespace
{

enum Status { OK = 0, NOT_INITIALIZED = 1, ALLOC_FAILED = 3, INVALID_VALUE = 7, FAILED = 13 };
enum Type { F32 = 0, F16 = 2, BF16 = 14 };

/* A matrix stored column by column. */
struct Matrix {
    const void *at;
    int type, stride;
    bool turned;

    double operator()(int row, int column) const
    {
        const size_t i = turned ? static_cast<size_t>(row) * static_cast<size_t>(stride) +
                                      static_cast<size_t>(column)
                                : static_cast<size_t>(column) * static_cast<size_t>(stride) +
                                      static_cast<size_t>(row);
        if (type == F32)
            return static_cast<double>(static_cast<const float *>(at)[i]);
        const uint32_t bits = static_cast<const uint16_t *>(at)[i];
        return type == BF16 ? wide(bits << 16) : half(bits);
    }

  private:
    static double wide(uint32_t bits)
    {
        float x;
        std::memcpy(&x, &bits, sizeof(x));
        return static_cast<double>(x);
    }

    static double half(uint32_t bits)
    {
        const int exponent = static_cast<int>(bits >> 10 & 31);
        const double fraction = bits & 1023, sign = (bits & 0x8000) != 0 ? -1.0 : 1.0;
        if (exponent == 31)
            return fraction != 0 ? static_cast<double>(NAN) : sign * HUGE_VAL;
        return sign * (exponent == 0 ? std::ldexp(fraction, -24)
                                     : std::ldexp(1024 + fraction, exponent - 25));
    }
};

struct Product {
    int rows, columns, inner;
    float alpha, beta;
    Matrix a, b;
    float *out;
    int stride;

    void run() const
    {
        for (int column = 0; column < columns; column++) {
            float *const to = out + static_cast<size_t>(column) * static_cast<size_t>(stride);
            for (int row = 0; row < rows; row++) {
                double sum = 0;
                for (int k = 0; k < inner; k++)
                    sum += a(row, k) * b(k, column);
                sum *= static_cast<double>(alpha);
                if (beta != 0.0f)
                    sum += static_cast<double>(beta) * static_cast<double>(to[row]);
                to[row] = static_cast<float>(sum);
            }
            races::copied(to, nullptr, static_cast<size_t>(rows) * sizeof(float));
        }
    }
};

/* A call that fails leaves no error in the caller's runtime: cuBLAS has its own. */
class BlasCall
{
  public:
    explicit BlasCall(const char *name, bool late = false)
        : before_(last_error), call_(name, late)
    {
    }
    bool fails() const
    {
        return call_.early() != cudaSuccess;
    }
    int end(int status)
    {
        return call_.end(cudaSuccess) != cudaSuccess && status == OK ? +FAILED : status;
    }
    ~BlasCall()
    {
        last_error = before_;
    }

  private:
    cudaError_t before_;
    Call call_;
};

} // namespace

struct Handle {
    cudaStream_t stream = nullptr;
    bool has_workspace = false;
};

extern "C" {
int cublasCreate_v2(Handle **handle);
int cublasDestroy_v2(Handle *handle);
int cublasSetStream_v2(Handle *handle, cudaStream_t stream);
int cublasSetWorkspace_v2(Handle *handle, void *workspace, size_t bytes);
int cublasSetMathMode(Handle *handle, int mode);
int cublasGemmEx(Handle *handle, int a_turned, int b_turned, int rows, int columns, int inner,
                 const void *alpha, const void *a, int a_type, int a_stride, const void *b,
                 int b_type, int b_stride, const void *beta, void *out, int out_type,
                 int out_stride, int sums, int algorithm);
}

int cublasCreate_v2(Handle **handle)
{
    BlasCall call("cublasCreate");
    if (call.fails() || refuse_in_capture() != cudaSuccess)
        return NOT_INITIALIZED;
    *handle = new Handle;
    counts.live_handles++;
    thread_counts.allocations++;
    return call.end(OK);
}

int cublasDestroy_v2(Handle *handle)
{
    BlasCall call("cublasDestroy", true);
    delete handle;
    counts.live_handles--;
    return call.end(OK);
}

int cublasSetStream_v2(Handle *handle, cudaStream_t stream)
{
    BlasCall call("cublasSetStream");
    if (call.fails())
        return FAILED;
    handle->stream = stream;
    handle->has_workspace = false;
    return call.end(OK);
}

int cublasSetWorkspace_v2(Handle *handle, void *workspace, size_t bytes)
{
    BlasCall call("cublasSetWorkspace");
    if (call.fails())
        return FAILED;
    if (!is_known(workspace, bytes) || reinterpret_cast<uintptr_t>(workspace) % 256 != 0)
        return call.end(INVALID_VALUE);
    handle->has_workspace = true;
    return call.end(OK);
}

int cublasSetMathMode(Handle *, int)
{
    BlasCall call("cublasSetMathMode");
    return call.fails() ? +FAILED : call.end(OK);
}

int cublasGemmEx(Handle *handle, int a_turned, int b_turned, int rows, int columns, int inner,
                 const void *alpha, const void *a, int a_type, int a_stride, const void *b,
                 int b_type, int b_stride, const void *beta, void *out, int out_type,
                 int out_stride, int sums, int)
{
    BlasCall call("cublasGemmEx");
    if (call.fails())
        return FAILED;
    const std::shared_ptr<Stream> on = stream_of(handle->stream);
    const bool strides = a_stride >= (a_turned ? inner : rows) &&
                         b_stride >= (b_turned ? columns : inner) && out_stride >= rows;
    if (on == nullptr || !strides || rows < 0 || columns < 0 || inner < 0 || out_type != F32 ||
        a_type != b_type || sums != 68)
        return call.end(INVALID_VALUE);
    thread_counts.allocations += !handle->has_workspace;
    thread_counts.f32_products += a_type == F32;
    const Product product = { rows,
                              columns,
                              inner,
                              *static_cast<const float *>(alpha),
                              *static_cast<const float *>(beta),
                              { a, a_type, a_stride, a_turned != 0 },
                              { b, b_type, b_stride, b_turned != 0 },
                              static_cast<float *>(out),
                              out_stride };
    return call.end(add(on, [product] { product.run(); }) == cudaSuccess ? +OK : +FAILED);
}
