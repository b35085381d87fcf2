/* bandwidth.c - the loops of one vector path. n is a multiple of 64, arrays lie on cache lines.
 *
 * In: BENCH_LOOPS, the name of the table; the compiler's target. Out: the table. */
#include "bandwidth.h"

#if defined(__AVX512F__)
#include <immintrin.h>
typedef __m512 vector;
#define LOAD(p)      _mm512_loadu_ps(p)
#define STORE(p, x)  _mm512_storeu_ps(p, x)
#define AROUND(p, x) _mm512_stream_ps(p, x)
#define ALL(x)       _mm512_set1_ps(x)
#define PLUS(a, b)   _mm512_add_ps(a, b)
#define TIMES(a, b)  _mm512_mul_ps(a, b)
#define FENCE()      _mm_sfence()
#elif defined(__AVX__)
#include <immintrin.h>
typedef __m256 vector;
#define LOAD(p)      _mm256_loadu_ps(p)
#define STORE(p, x)  _mm256_storeu_ps(p, x)
#define AROUND(p, x) _mm256_stream_ps(p, x)
#define ALL(x)       _mm256_set1_ps(x)
#define PLUS(a, b)   _mm256_add_ps(a, b)
#define TIMES(a, b)  _mm256_mul_ps(a, b)
#define FENCE()      _mm_sfence()
#elif defined(__SSE2__)
#include <immintrin.h>
typedef __m128 vector;
#define LOAD(p)      _mm_loadu_ps(p)
#define STORE(p, x)  _mm_storeu_ps(p, x)
#define AROUND(p, x) _mm_stream_ps(p, x)
#define ALL(x)       _mm_set1_ps(x)
#define PLUS(a, b)   _mm_add_ps(a, b)
#define TIMES(a, b)  _mm_mul_ps(a, b)
#define FENCE()      _mm_sfence()
#else
typedef float vector;
#define LOAD(p)      (*(p))
#define STORE(p, x)  (*(p) = (x))
#define AROUND(p, x) (*(p) = (x))
#define ALL(x)       (x)
#define PLUS(a, b)   ((a) + (b))
#define TIMES(a, b)  ((a) * (b))
#define FENCE()      ((void)0)
#endif

enum { WIDTH = sizeof(vector) / sizeof(float), LINE = 16, SUMS = 4 };

static float read_all(const float *a, size_t n)
{
    float lanes[WIDTH], total = 0.0f;
    vector sums[SUMS];
    for (int k = 0; k < SUMS; k++)
        sums[k] = ALL(0.0f);
    for (size_t i = 0; i < n; i += SUMS * WIDTH)
        for (int k = 0; k < SUMS; k++) {
            const vector x = LOAD(a + i + k * WIDTH);
            sums[k] = PLUS(sums[k], TIMES(x, x));
        }
    STORE(lanes, PLUS(PLUS(sums[0], sums[1]), PLUS(sums[2], sums[3])));
    for (int k = 0; k < WIDTH; k++)
        total += lanes[k];
    return total;
}

static void copy(float *to, const float *from, size_t n)
{
    for (size_t i = 0; i < n; i += WIDTH)
        STORE(to + i, LOAD(from + i));
}

/* Whole lines at a time: what is stored around the caches leaves the processor in lines. */
static void copy_around(float *to, const float *from, size_t n)
{
    for (size_t i = 0; i < n; i += LINE)
        for (size_t k = 0; k < LINE; k += WIDTH)
            AROUND(to + i + k, LOAD(from + i + k));
    FENCE();
}

static void update(float *a, const float *b, float factor, size_t n)
{
    const vector f = ALL(factor);
    for (size_t i = 0; i < n; i += WIDTH)
        STORE(a + i, PLUS(LOAD(a + i), TIMES(f, LOAD(b + i))));
}

const bandwidth_loops BENCH_LOOPS = { read_all, copy, copy_around, update };
