/* compare.cpp - see compare.h.
 *
 *   compare [--list] [--reduced] [--only NAME] [--first N] [--count N] */
#include "compare.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace compare
{

uint64_t compared_bytes;
unsigned refused_cases;

namespace
{

bool reduced;
/* The address sanitizer has guards of its own, and sees them read too. Even of a buffer of no bytes the
 * address has to be in an allocation. */
#ifdef __SANITIZE_ADDRESS__
enum : size_t { GUARD = 0 };
#else
enum : size_t { GUARD = 64 };
#endif
enum : unsigned char { UNTOUCHED = 0xa5 };

} // namespace

void require(bool holds, const std::string &sentence)
{
    if (!holds)
        throw Failure(sentence);
}

void require_ok(gradreg_status status, const char *call)
{
    if (status != GRADREG_OK)
        throw Failure(std::string(call) + " gives " + gradreg_status_name(status) + ": " +
                      gradreg_last_error());
}

void require_cuda(cudaError_t error, const char *call)
{
    if (error != cudaSuccess)
        throw Failure(std::string(call) + " gives " + cudaGetErrorName(error));
}

bool is_reduced()
{
    return reduced;
}

uint64_t Random::word()
{
    uint64_t z = state_ += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

/* ---- element types, written without the library's headers ------------------------------ */

size_t type_bytes(gradreg_type type)
{
    return type == GRADREG_TYPE_F32 ? 4 : 2;
}

namespace
{

uint32_t float_bits(float x)
{
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof(bits));
    return bits;
}

uint32_t f16_bits(double x)
{
    const double magnitude = std::fabs(x);
    const uint32_t sign = std::signbit(x) ? 0x8000 : 0;
    if (x != x)
        return 0x7e00;
    if (std::isinf(x))
        return sign | 0x7c00;
    if (magnitude < 0x1p-14)
        return sign | static_cast<uint32_t>(std::nearbyint(magnitude * 0x1p+24));
    int exponent;
    const double fraction = std::frexp(magnitude, &exponent); /* [1/2, 1) */
    const uint32_t rounded = static_cast<uint32_t>(std::nearbyint(fraction * 2048.0));
    const uint32_t bits = (static_cast<uint32_t>(exponent + 13) << 10) + rounded;
    return sign | (bits < 0x7c00 ? bits : 0x7bff);
}

double f16_value(uint32_t bits)
{
    const uint32_t exponent = bits >> 10 & 31, fraction = bits & 1023;
    const double sign = (bits & 0x8000) != 0 ? -1.0 : 1.0;
    if (exponent == 31)
        return fraction != 0 ? static_cast<double>(NAN) : sign * HUGE_VAL;
    if (exponent == 0)
        return sign * std::ldexp(fraction, -24);
    return sign * std::ldexp(1024 + fraction, static_cast<int>(exponent) - 25);
}

} // namespace

uint32_t bits_of(double x, gradreg_type type)
{
    const uint32_t bits = float_bits(static_cast<float>(x));
    if (type == GRADREG_TYPE_F32)
        return bits;
    if (type == GRADREG_TYPE_F16)
        return f16_bits(x);
    if (type != GRADREG_TYPE_BF16)
        throw Failure("a type whose patterns are not made here");
    if ((bits & 0x7fffffff) > 0x7f800000)
        return bits >> 16 | 0x40;
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

double value_of(uint32_t bits, gradreg_type type)
{
    float x;
    if (type == GRADREG_TYPE_F16)
        return f16_value(bits);
    if (type == GRADREG_TYPE_BF16)
        bits <<= 16;
    else if (type != GRADREG_TYPE_F32)
        throw Failure("a type whose patterns are not read here");
    std::memcpy(&x, &bits, sizeof(x));
    return static_cast<double>(x);
}

void put(Bytes *array, gradreg_type type, size_t i, uint32_t bits)
{
    std::memcpy(array->data() + i * type_bytes(type), &bits, type_bytes(type));
}

uint32_t get(const Bytes &array, gradreg_type type, size_t i)
{
    uint32_t bits = 0;
    std::memcpy(&bits, array.data() + i * type_bytes(type), type_bytes(type));
    return bits;
}

/* ---- sides ------------------------------------------------------------------------------ */

Side::Side(gradreg_backend backend, int which)
    : is_cuda(backend == GRADREG_BACKEND_CUDA), device(which)
{
    gradreg_context_params params = GRADREG_CONTEXT_PARAMS_INIT;
    params.backend = backend;
    params.device = which;
    params.threads = 1;
    CALL(gradreg_context_create(&context, &params));
    if (!is_cuda)
        return;
    enter();
    CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    CALL(gradreg_context_set_stream(context, stream));
}

Side::~Side()
{
    if (is_cuda)
        cudaSetDevice(device);
    gradreg_context_destroy(context);
    if (is_cuda && stream != nullptr)
        cudaStreamDestroy(stream);
}

void Side::enter() const
{
    if (is_cuda)
        CUDA(cudaSetDevice(device));
}

void *Side::allocate(size_t bytes) const
{
    void *pointer = nullptr;
    enter();
    if (is_cuda)
        CUDA(cudaMalloc(&pointer, bytes));
    else
        pointer = std::malloc(bytes);
    require(pointer != nullptr, "no memory");
    return pointer;
}

void Side::release(void *pointer) const
{
    if (!is_cuda) {
        std::free(pointer);
        return;
    }
    cudaSetDevice(device);
    cudaFree(pointer);
}

void Side::write(void *to, const void *from, size_t bytes) const
{
    if (bytes == 0)
        return;
    if (is_cuda)
        CUDA(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream));
    else
        std::memcpy(to, from, bytes);
}

void Side::read(void *to, const void *from, size_t bytes) const
{
    if (bytes == 0)
        return;
    if (is_cuda) {
        CUDA(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream));
        wait();
    } else {
        std::memcpy(to, from, bytes);
    }
}

void Side::wait() const
{
    if (is_cuda)
        CUDA(cudaStreamSynchronize(stream));
}

Memory::Memory(const Side &side, size_t bytes, size_t misalignment)
    : side_(side), bytes_(bytes), before_(GUARD + misalignment),
      size_(before_ + std::max(bytes + GUARD, size_t(1))),
      all_(static_cast<unsigned char *>(side.allocate(size_)))
{
    const Bytes pattern(size_, UNTOUCHED);
    side.write(all_, pattern.data(), pattern.size());
    data_ = all_ + before_;
}

Memory::~Memory()
{
    side_.release(all_);
}

void Memory::write(const Bytes &bytes)
{
    require(bytes.size() == bytes_, "another number of bytes");
    side_.write(data_, bytes.data(), bytes_);
}

Bytes Memory::read() const
{
    Bytes all(size_);
    side_.read(all.data(), all_, all.size());
    for (size_t i = 0; i < all.size(); i++)
        if ((i < before_ || i >= before_ + bytes_) && all[i] != UNTOUCHED)
            throw Failure(
                "a byte beside a buffer of " + std::to_string(bytes_) +
                " bytes was written, at " +
                std::to_string(static_cast<long long>(i) - static_cast<long long>(before_)));
    const unsigned char *begin = all.data() + before_;
    return Bytes(begin, begin + bytes_);
}

/* ---- comparisons ------------------------------------------------------------------------ */

void require_same(const Bytes &cpu, const Bytes &cuda, gradreg_type type,
                  const std::string &what)
{
    require(cpu.size() == cuda.size(), what + ": another size");
    compared_bytes += cpu.size();
    if (cpu.empty() || std::memcmp(cpu.data(), cuda.data(), cpu.size()) == 0)
        return;
    for (size_t i = 0; i < cpu.size() / type_bytes(type); i++) {
        const uint32_t a = get(cpu, type, i), b = get(cuda, type, i);
        const double x = value_of(a, type), y = value_of(b, type);
        char text[160];
        if (a == b || (x != x && y != y))
            continue;
        std::snprintf(text, sizeof(text),
                      ": element %zu of %zu is %a (%x) on the CPU and %a (%x)", i,
                      cpu.size() / type_bytes(type), x, a, y, b);
        throw Failure(what + text);
    }
}

void require_same_doubles(const std::vector<double> &cpu, const std::vector<double> &cuda,
                          const std::string &what)
{
    require(cpu.size() == cuda.size(), what + ": another size");
    compared_bytes += cpu.size() * sizeof(double);
    for (size_t i = 0; i < cpu.size(); i++) {
        const double x = cpu[i], y = cuda[i];
        char text[120];
        if (std::memcmp(&x, &y, sizeof(x)) == 0 || (x != x && y != y))
            continue;
        std::snprintf(text, sizeof(text), ": number %zu is %a on the CPU and %a", i, x, y);
        throw Failure(what + text);
    }
}

bool both_accept(const std::string &call, gradreg_status cpu, const std::string &cpu_sentence,
                 gradreg_status cuda)
{
    require(cpu == cuda, call + " gives " + gradreg_status_name(cuda) + " (" +
                             gradreg_last_error() + "), on the CPU " +
                             gradreg_status_name(cpu) + " (" + cpu_sentence + ")");
    if (cpu != GRADREG_OK)
        refused_cases++;
    return cpu == GRADREG_OK;
}

#ifdef GR_CUDA_EMULATED
Quiet::Quiet(const char *call)
    : call_(call), waits_(emulated_cuda_host_waits()), allocations_(emulated_cuda_allocations())
{
}

Quiet::~Quiet() noexcept(false)
{
    if (std::uncaught_exceptions() > 0)
        return;
    require(emulated_cuda_host_waits() == waits_, std::string(call_) + " waits for the device");
    require(emulated_cuda_allocations() == allocations_, std::string(call_) + " allocates");
}
#else
Quiet::Quiet(const char *)
{
}

Quiet::~Quiet() noexcept(false)
{
}
#endif

/* ---- running ------------------------------------------------------------------------------ */

namespace
{

struct Options {
    bool list = false;
    const char *only = nullptr;
    unsigned first = 0, count = ~0u;
};

unsigned run_case(const Case &one, const Options &options)
{
    const unsigned end = reduced ? one.reduced : one.count;
    const uint64_t bytes = compared_bytes;
    unsigned ran = 0, differ = 0;
    refused_cases = 0;
    for (unsigned i = options.first; i < end && i - options.first < options.count; i++, ran++) {
        try {
            one.run(i);
        } catch (const std::exception &failure) {
            if (differ++ < 5)
                std::printf("%s %u: %s\n", one.name, i, failure.what());
        }
    }
    std::printf("%-12s %5u cases, %5u of them refused by both, %10llu bytes equal, %u differ\n",
                one.name, ran, refused_cases,
                static_cast<unsigned long long>(compared_bytes - bytes), differ);
    std::fflush(stdout);
    return differ;
}

Options options_from(int argc, char **argv)
{
    Options options;
    for (int i = 1; i < argc; i++) {
        const std::string word = argv[i];
        if (word == "--list")
            options.list = true;
        else if (word == "--reduced")
            reduced = true;
        else if (word == "--only" && i + 1 < argc)
            options.only = argv[++i];
        else if (word == "--first" && i + 1 < argc)
            options.first = static_cast<unsigned>(std::atoi(argv[++i]));
        else if (word == "--count" && i + 1 < argc)
            options.count = static_cast<unsigned>(std::atoi(argv[++i]));
        else
            throw Failure("usage: compare [--list] [--reduced] [--only NAME] [--first N] "
                          "[--count N]");
    }
    return options;
}

std::vector<Case> all_cases()
{
    std::vector<Case> all;
    for (const auto &some : { regularizer_cases(), session_cases(), loss_cases(),
                              logits_cases(), hidden_cases(), monitor_cases() })
        all.insert(all.end(), some.begin(), some.end());
    return all;
}

int run(const Options &options)
{
    unsigned differ = 0, groups = 0;
    for (const Case &one : all_cases()) {
        if (options.only != nullptr && std::strcmp(options.only, one.name) != 0)
            continue;
        groups++;
        if (options.list)
            std::printf("%s\n", one.name);
        else
            differ += run_case(one, options);
    }
#ifdef GR_CUDA_EMULATED
    if (emulated_cuda_ptx_launches() > 0)
        std::printf(
            "PTX: %llu launches of %llu kernels in %llu shapes equal, %llu million "
            "instructions\n",
            static_cast<unsigned long long>(emulated_cuda_ptx_launches()),
            static_cast<unsigned long long>(emulated_cuda_ptx_kernels()),
            static_cast<unsigned long long>(emulated_cuda_ptx_shapes()),
            static_cast<unsigned long long>(emulated_cuda_ptx_instructions() / 1000000));
    if (emulated_cuda_watched() > 0)
        std::printf("race checker: %llu accesses watched\n",
                    static_cast<unsigned long long>(emulated_cuda_watched()));
    if (emulated_cuda_live() > 0) {
        std::printf("%zu allocations, streams, events or graphs are left behind\n",
                    emulated_cuda_live());
        differ++;
    }
#endif
    if (!options.list)
        std::printf("compared: %llu bytes in %u groups, %u cases differ\n",
                    static_cast<unsigned long long>(compared_bytes), groups, differ);
    return differ == 0 && groups > 0 ? 0 : 1;
}

} // namespace

} // namespace compare

int main(int argc, char **argv)
{
    try {
        return compare::run(compare::options_from(argc, argv));
    } catch (const std::exception &failure) {
        std::printf("%s\n", failure.what());
        return 1;
    }
}
