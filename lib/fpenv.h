/* fpenv.h - the floating-point environment that the contract's bits are defined in.
 *
 * In: whatever the host set (FTZ, DAZ, another rounding direction, unmasked exceptions). Out:
 * round to nearest, denormals kept, exceptions masked, between enter and leave; afterwards the
 * host's own setting, its sticky exception flags included.
 *
 *      gr_fpenv host;
 *      gradreg_i_fp_enter(&host);
 *      compute(...);
 *      gradreg_i_fp_leave(&host);
 *
 * A callback between enter and leave may change the environment, or open a library whose start-up
 * does (-ffast-math). What it leaves behind is not computed in:
 *
 *      gr_fpenv own;
 *      gradreg_i_fp_keep(&own);
 *      callback(...);
 *      gradreg_i_fp_leave(&own);
 *
 * Compilers do not know that arithmetic depends on this register and may move it across these
 * calls. So what computes between them is called through a pointer or lives in another file. */
#ifndef GRADREG_LIB_FPENV_H
#define GRADREG_LIB_FPENV_H

#include <stdint.h>

#if defined(__SSE2__)
#include <xmmintrin.h>

#define GR_FPENV_DEFAULT 0x1f80u /* MXCSR after reset */

typedef struct gr_fpenv {
    uint32_t host;
} gr_fpenv;

static inline void gradreg_i_fp_keep(gr_fpenv *env)
{
    env->host = _mm_getcsr();
}

static inline void gradreg_i_fp_enter(gr_fpenv *env)
{
    gradreg_i_fp_keep(env);
    _mm_setcsr(GR_FPENV_DEFAULT);
}

static inline void gradreg_i_fp_leave(const gr_fpenv *env)
{
    _mm_setcsr(env->host);
}

#elif defined(__aarch64__)

/* Control and sticky flags are two registers here. */
typedef struct gr_fpenv {
    uint64_t control, flags;
} gr_fpenv;

static inline void gradreg_i_fp_keep(gr_fpenv *env)
{
    __asm__ volatile("mrs %0, fpcr\n\tmrs %1, fpsr" : "=r"(env->control), "=r"(env->flags));
}

static inline void gradreg_i_fp_enter(gr_fpenv *env)
{
    gradreg_i_fp_keep(env);
    __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)0) : "memory");
}

static inline void gradreg_i_fp_leave(const gr_fpenv *env)
{
    __asm__ volatile("msr fpcr, %0\n\tmsr fpsr, %1"
                     :
                     : "r"(env->control), "r"(env->flags)
                     : "memory");
}

#else
#include <fenv.h>

typedef struct gr_fpenv {
    fenv_t host;
} gr_fpenv;

static inline void gradreg_i_fp_keep(gr_fpenv *env)
{
    (void)fegetenv(&env->host);
}

static inline void gradreg_i_fp_enter(gr_fpenv *env)
{
    gradreg_i_fp_keep(env);
    (void)fesetenv(FE_DFL_ENV);
}

static inline void gradreg_i_fp_leave(const gr_fpenv *env)
{
    (void)fesetenv(&env->host);
}

#endif
#endif
