/* device_functions.h - CUDA's keywords and built-in device functions, on top of emulator.h. */
#ifndef GRADREG_TEST_DEVICE_FUNCTIONS_H
#define GRADREG_TEST_DEVICE_FUNCTIONS_H

#include <algorithm>
#include <cmath>

#define __global__
#define __device__
#define __host__
#define __grid_constant__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))
#define threadIdx        (emulator::here->thread)
#define blockIdx         (emulator::here->block)
#define blockDim         (emulator::here->block_size)
#define gridDim          (emulator::here->grid_size)

static const int warpSize = 32;

#define GR_SHARED(type, name, count)          \
    static const char name##_declaration = 0; \
    type *const name = static_cast<type *>(   \
        emulator::shared_array(&name##_declaration, sizeof(type) * (count)))
#define GR_DYNAMIC_SHARED(type, name) \
    type *const name = static_cast<type *>(emulator::dynamic_shared_array())

/* ---- the block ---------------------------------------------------------------------- */

static inline void __syncthreads()
{
    emulator::barrier();
}

static inline int __syncthreads_or(int predicate)
{
    return emulator::barrier(predicate != 0).yes != 0;
}

static inline int __syncthreads_and(int predicate)
{
    const emulator::Votes votes = emulator::barrier(predicate != 0);
    return votes.yes == votes.threads;
}

static inline int __syncthreads_count(int predicate)
{
    return static_cast<int>(emulator::barrier(predicate != 0).yes);
}

static inline void __threadfence()
{
    emulator::fence();
}

static inline void __threadfence_block()
{
    emulator::fence();
}

static inline void __threadfence_system()
{
    emulator::fence();
}

/* ---- the cluster -------------------------------------------------------------------- */

static inline void __cluster_barrier_arrive()
{
    emulator::cluster_arrive();
}

static inline void __cluster_barrier_wait()
{
    emulator::cluster_wait();
}

static inline void *__cluster_map_shared_rank(const void *address, unsigned rank)
{
    return emulator::cluster_address(address, rank);
}

/* ---- the warp ----------------------------------------------------------------------- */

static inline void __syncwarp(unsigned mask = 0xffffffffu)
{
    const unsigned char nothing = 0;
    emulator::exchange(mask, &nothing, 1);
}

namespace emulator
{

/* What lane `from` gave; the own value when `from` is out of the group, or not in the mask. */
template <class T> T value_of_lane(unsigned mask, T value, unsigned from, unsigned width)
{
    static_assert(sizeof(T) <= 8, "an exchange carries 8 bytes");
    const unsigned own = lane();
    const unsigned char *values = exchange(mask, &value, sizeof(T));
    if (from < 32 && from / width == own / width && (mask >> from & 1u) != 0)
        std::memcpy(&value, values + 8 * from, sizeof(T));
    return value;
}

} // namespace emulator

template <class T> T __shfl_sync(unsigned mask, T value, int from, int width = 32)
{
    const unsigned group = emulator::lane() / static_cast<unsigned>(width);
    const unsigned within = static_cast<unsigned>(from) % static_cast<unsigned>(width);
    return emulator::value_of_lane(mask, value, group * static_cast<unsigned>(width) + within,
                                   static_cast<unsigned>(width));
}

/* Lanes of an earlier group may be read here, as CUDA lets them be; no kernel needs it. */
template <class T> T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32)
{
    return emulator::value_of_lane(mask, value,
                                   emulator::lane() ^ static_cast<unsigned>(lane_mask),
                                   static_cast<unsigned>(width));
}

template <class T> T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32)
{
    return emulator::value_of_lane(mask, value, emulator::lane() + by,
                                   static_cast<unsigned>(width));
}

template <class T> T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32)
{
    return emulator::value_of_lane(mask, value, emulator::lane() - by,
                                   static_cast<unsigned>(width));
}

static inline unsigned __ballot_sync(unsigned mask, int predicate)
{
    const unsigned char yes = predicate != 0;
    const unsigned char *values = emulator::exchange(mask, &yes, 1);
    unsigned votes = 0;
    for (unsigned i = 0; i < 32; i++)
        if ((mask >> i & 1u) != 0 && values[8 * i] != 0)
            votes |= 1u << i;
    return votes;
}

static inline int __any_sync(unsigned mask, int predicate)
{
    return __ballot_sync(mask, predicate) != 0;
}

static inline int __all_sync(unsigned mask, int predicate)
{
    return __ballot_sync(mask, predicate) == mask;
}

static inline unsigned __activemask()
{
    return emulator::active_mask();
}

/* ---- atomics: a block's threads run one at a time, so that plain code is atomic ------- */

/* The race checker is told of the address, and must not see the accesses themselves. */
#define GR_ATOMIC static inline __attribute__((no_sanitize("thread"), noinline))

namespace emulator
{

template <class T, class Operation> GR_ATOMIC T read_modify_write(T *address, Operation change)
{
    atomic(address, sizeof(T));
    const T old = *address;
    *address = change(old);
    return old;
}

} // namespace emulator

#define GR_DEFINE_ATOMIC(name, type, expression)                                   \
    static inline type name(type *address, type value)                             \
    {                                                                              \
        return emulator::read_modify_write(                                        \
            address, [value](type old) { return static_cast<type>(expression); }); \
    }
#define GR_DEFINE_ATOMICS(type)                                               \
    GR_DEFINE_ATOMIC(atomicAdd, type, old + value)                            \
    GR_DEFINE_ATOMIC(atomicMax, type, old < value ? value : old)              \
    GR_DEFINE_ATOMIC(atomicMin, type, value < old ? value : old)              \
    GR_DEFINE_ATOMIC(atomicAnd, type, old &value)                             \
    GR_DEFINE_ATOMIC(atomicOr, type, old | value)                             \
    GR_DEFINE_ATOMIC(atomicXor, type, old ^ value)                            \
    GR_DEFINE_ATOMIC(atomicExch, type, (static_cast<void>(old), value))       \
    static inline type atomicCAS(type *address, type compare, type value)     \
    {                                                                         \
        return emulator::read_modify_write(                                   \
            address, [=](type old) { return old == compare ? value : old; }); \
    }
GR_DEFINE_ATOMICS(int)
GR_DEFINE_ATOMICS(unsigned)
GR_DEFINE_ATOMICS(unsigned long long)
GR_DEFINE_ATOMIC(atomicAdd, float, old + value)
GR_DEFINE_ATOMIC(atomicAdd, double, old + value)
GR_DEFINE_ATOMIC(atomicInc, unsigned, old >= value ? 0u : old + 1)
GR_DEFINE_ATOMIC(atomicDec, unsigned, old == 0 || old > value ? value : old - 1)
#undef GR_DEFINE_ATOMICS
#undef GR_DEFINE_ATOMIC

/* ---- memory with a hint --------------------------------------------------------------- */

#define GR_DEFINE_LOAD(name)                               \
    template <class T> static inline T name(const T *from) \
    {                                                      \
        return *from;                                      \
    }
GR_DEFINE_LOAD(__ldg)
GR_DEFINE_LOAD(__ldca)
GR_DEFINE_LOAD(__ldcg)
GR_DEFINE_LOAD(__ldcs)
GR_DEFINE_LOAD(__ldlu)
GR_DEFINE_LOAD(__ldcv)
#undef GR_DEFINE_LOAD
#define GR_DEFINE_STORE(name)                                  \
    template <class T> static inline void name(T *to, T value) \
    {                                                          \
        *to = value;                                           \
    }
GR_DEFINE_STORE(__stwb)
GR_DEFINE_STORE(__stcg)
GR_DEFINE_STORE(__stcs)
GR_DEFINE_STORE(__stwt)
#undef GR_DEFINE_STORE

/* ---- numbers -------------------------------------------------------------------------- */

#define GR_DEFINE_CAST(name, from, to)                                 \
    static inline to name(from value)                                  \
    {                                                                  \
        to bits;                                                       \
        static_assert(sizeof(bits) == sizeof(value), "another width"); \
        std::memcpy(&bits, &value, sizeof(bits));                      \
        return bits;                                                   \
    }
GR_DEFINE_CAST(__float_as_uint, float, unsigned)
GR_DEFINE_CAST(__float_as_int, float, int)
GR_DEFINE_CAST(__uint_as_float, unsigned, float)
GR_DEFINE_CAST(__int_as_float, int, float)
GR_DEFINE_CAST(__double_as_longlong, double, long long)
GR_DEFINE_CAST(__longlong_as_double, long long, double)
#undef GR_DEFINE_CAST

static inline int __popc(unsigned x)
{
    return __builtin_popcount(x);
}

static inline int __popcll(unsigned long long x)
{
    return __builtin_popcountll(x);
}

static inline int __clz(int x)
{
    return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x));
}

static inline int __clzll(long long x)
{
    return x == 0 ? 64 : __builtin_clzll(static_cast<unsigned long long>(x));
}

static inline int __ffs(int x)
{
    return __builtin_ffs(x);
}

static inline int __ffsll(long long x)
{
    return __builtin_ffsll(x);
}

static inline unsigned __umulhi(unsigned a, unsigned b)
{
    return static_cast<unsigned>(static_cast<unsigned long long>(a) * b >> 32);
}

static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b)
{
    __extension__ using Wide = unsigned __int128;
    return static_cast<unsigned long long>(static_cast<Wide>(a) * b >> 64);
}

/* Byte i of the result is byte (selector >> 4 i & 7) of high:low. */
static inline unsigned __byte_perm(unsigned low, unsigned high, unsigned selector)
{
    const unsigned long long both = static_cast<unsigned long long>(high) << 32 | low;
    unsigned result = 0;
    for (unsigned i = 0; i < 4; i++)
        result |= static_cast<unsigned>(both >> 8 * (selector >> 4 * i & 7) & 0xff) << 8 * i;
    return result;
}

static inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned by)
{
    const unsigned long long both = static_cast<unsigned long long>(high) << 32 | low;
    return static_cast<unsigned>(both << (by & 31) >> 32);
}

static inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned by)
{
    const unsigned long long both = static_cast<unsigned long long>(high) << 32 | low;
    return static_cast<unsigned>(both >> (by & 31));
}

#define GR_DEFINE_ROUNDED(name, type, expression) \
    static inline type name(type a, type b)       \
    {                                             \
        return expression;                        \
    }
GR_DEFINE_ROUNDED(__fadd_rn, float, a + b)
GR_DEFINE_ROUNDED(__fsub_rn, float, a - b)
GR_DEFINE_ROUNDED(__fmul_rn, float, a *b)
GR_DEFINE_ROUNDED(__fdiv_rn, float, a / b)
GR_DEFINE_ROUNDED(__dadd_rn, double, a + b)
GR_DEFINE_ROUNDED(__dsub_rn, double, a - b)
GR_DEFINE_ROUNDED(__dmul_rn, double, a *b)
GR_DEFINE_ROUNDED(__ddiv_rn, double, a / b)
#undef GR_DEFINE_ROUNDED

static inline float __fsqrt_rn(float x)
{
    return std::sqrt(x);
}

static inline double __dsqrt_rn(double x)
{
    return std::sqrt(x);
}

static inline float __fmaf_rn(float a, float b, float c)
{
    return std::fma(a, b, c);
}

static inline double __fma_rn(double a, double b, double c)
{
    return std::fma(a, b, c);
}

using std::max;
using std::min;

#endif
