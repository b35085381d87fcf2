/* access_calls.cpp - what code compiled with -fsanitize=thread calls at each access, handed to
 * races.h instead of the sanitizer's own library.
 *
 * In: the calls of instrumented kernels and of the host code around them. Out: races::access(). The
 * module is linked without -fsanitize=thread; a build for the real sanitizer leaves this file out. */
#include <atomic>
#include <cstdint>

#include "races.h"

using emulated::races::access;

#pragma GCC diagnostic ignored "-Wmissing-declarations"
#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT void __tsan_init()
{
}

EXPORT void __tsan_func_entry(void *)
{
}

EXPORT void __tsan_func_exit()
{
}

EXPORT void __tsan_vptr_update(void **address, void *)
{
    access(address, sizeof(*address), true, __builtin_return_address(0));
}

EXPORT void __tsan_vptr_read(void **address)
{
    access(address, sizeof(*address), false, __builtin_return_address(0));
}

EXPORT void __tsan_read_range(void *address, unsigned long bytes)
{
    access(address, bytes, false, __builtin_return_address(0));
}

EXPORT void __tsan_write_range(void *address, unsigned long bytes)
{
    access(address, bytes, true, __builtin_return_address(0));
}

#define DEFINE_ACCESSES(bytes)                                      \
    EXPORT void __tsan_read##bytes(void *address)                   \
    {                                                               \
        access(address, bytes, false, __builtin_return_address(0)); \
    }                                                               \
    EXPORT void __tsan_write##bytes(void *address)                  \
    {                                                               \
        access(address, bytes, true, __builtin_return_address(0));  \
    }                                                               \
    EXPORT void __tsan_unaligned_read##bytes(void *address)         \
    {                                                               \
        access(address, bytes, false, __builtin_return_address(0)); \
    }                                                               \
    EXPORT void __tsan_unaligned_write##bytes(void *address)        \
    {                                                               \
        access(address, bytes, true, __builtin_return_address(0));  \
    }                                                               \
    EXPORT void __tsan_volatile_read##bytes(void *address)          \
    {                                                               \
        access(address, bytes, false, __builtin_return_address(0)); \
    }                                                               \
    EXPORT void __tsan_volatile_write##bytes(void *address)         \
    {                                                               \
        access(address, bytes, true, __builtin_return_address(0));  \
    }
DEFINE_ACCESSES(1)
DEFINE_ACCESSES(2)
DEFINE_ACCESSES(4)
DEFINE_ACCESSES(8)
DEFINE_ACCESSES(16)

/* Atomics of host code: done, and nobody's business. */
#define DEFINE_ATOMICS(bits)                                                                   \
    EXPORT uint##bits##_t __tsan_atomic##bits##_load(const volatile uint##bits##_t *at, int)   \
    {                                                                                          \
        return __atomic_load_n(at, __ATOMIC_SEQ_CST);                                          \
    }                                                                                          \
    EXPORT void __tsan_atomic##bits##_store(volatile uint##bits##_t *at, uint##bits##_t value, \
                                            int)                                               \
    {                                                                                          \
        __atomic_store_n(at, value, __ATOMIC_SEQ_CST);                                         \
    }                                                                                          \
    EXPORT uint##bits##_t __tsan_atomic##bits##_exchange(volatile uint##bits##_t *at,          \
                                                         uint##bits##_t value, int)            \
    {                                                                                          \
        return __atomic_exchange_n(at, value, __ATOMIC_SEQ_CST);                               \
    }                                                                                          \
    EXPORT uint##bits##_t __tsan_atomic##bits##_fetch_add(volatile uint##bits##_t *at,         \
                                                          uint##bits##_t value, int)           \
    {                                                                                          \
        return __atomic_fetch_add(at, value, __ATOMIC_SEQ_CST);                                \
    }                                                                                          \
    EXPORT uint##bits##_t __tsan_atomic##bits##_fetch_sub(volatile uint##bits##_t *at,         \
                                                          uint##bits##_t value, int)           \
    {                                                                                          \
        return __atomic_fetch_sub(at, value, __ATOMIC_SEQ_CST);                                \
    }                                                                                          \
    EXPORT int __tsan_atomic##bits##_compare_exchange_strong(                                  \
        volatile uint##bits##_t *at, uint##bits##_t *expected, uint##bits##_t value, int, int) \
    {                                                                                          \
        return __atomic_compare_exchange_n(at, expected, value, false, __ATOMIC_SEQ_CST,       \
                                           __ATOMIC_SEQ_CST);                                  \
    }
DEFINE_ATOMICS(8)
DEFINE_ATOMICS(32)
DEFINE_ATOMICS(64)
