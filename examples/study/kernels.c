/* kernels.c - loops that a compiler turns into vector instructions without being allowed to change
 * the order of additions: sums run over eight lanes side by side, or down a column. */
#include "kernels.h"

#include <assert.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

enum { LANES = 8, MOST_POSITIONS = 64, MOST_HEAD_SIZE = 256 };

static const float NORM_EPSILON = 1e-6F;

static inline float dot(const float *restrict a, const float *restrict b, size_t count)
{
    float lanes[LANES] = { 0 };
    size_t i = 0;
    for (; i + LANES <= count; i += LANES)
        for (size_t j = 0; j < LANES; j++)
            lanes[j] += a[i + j] * b[i + j];
    for (size_t j = 0; i < count; i++, j++)
        lanes[j] += a[i] * b[i];
    return ((lanes[0] + lanes[4]) + (lanes[1] + lanes[5])) +
           ((lanes[2] + lanes[6]) + (lanes[3] + lanes[7]));
}

/* e^x to one part in 10^7: 2^n times a polynomial on [-ln 2 / 2, ln 2 / 2]. No branches and no
 * call, so that loops over it vectorize. */
static inline float exponential(float x)
{
    const float low = -87.0F, high = 88.0F, round = 12582912.0F; /* 1.5 x 2^23 */
    x = x > low ? x : low;
    x = x < high ? x : high;
    const float shifted = x * 1.44269504F + round;
    const float n = shifted - round;
    const float r = (x - n * 0.693359375F) + n * 2.12194440e-4F;
    float p = 1.9875691500e-4F;
    p = p * r + 1.3981999507e-3F;
    p = p * r + 8.3334519073e-3F;
    p = p * r + 4.1665795894e-2F;
    p = p * r + 1.6666665459e-1F;
    p = p * r + 5.0000001201e-1F;
    p = p * r * r + r + 1.0F;
    uint32_t exponent;
    memcpy(&exponent, &shifted, sizeof(exponent));
    exponent = (exponent << 23) + 0x3f800000U;
    float power;
    memcpy(&power, &exponent, sizeof(power));
    return p * power;
}

/* ------------------------------------------------------------------ norms */

static inline float inverse_rms(const float *x, size_t width)
{
    return 1.0F / sqrtf(dot(x, x, width) / (float)width + NORM_EPSILON);
}

void rms_norm(float *out, float *inverse, const float *x, const float *gain, size_t rows,
              size_t width)
{
    for (size_t r = 0; r < rows; r++, x += width, out += width) {
        inverse[r] = inverse_rms(x, width);
        for (size_t i = 0; i < width; i++)
            out[i] = gain[i] * (x[i] * inverse[r]);
    }
}

/* x^ = x i with i = 1/rms:  d_x = i (g d_out - x^ mean(x^ g d_out)) */
static inline void norm_row_back(float *restrict d_x, float *restrict d_gain,
                                 const float *restrict d_out, const float *restrict x, float i,
                                 const float *restrict gain, size_t width, float keep)
{
    float scaled[4096];
    assert(width <= 4096);
    for (size_t k = 0; k < width; k++)
        scaled[k] = gain[k] * d_out[k];
    const float mean = dot(scaled, x, width) * i / (float)width;
    for (size_t k = 0; k < width; k++) {
        d_gain[k] += d_out[k] * (x[k] * i);
        d_x[k] = keep * d_x[k] + i * (scaled[k] - x[k] * i * mean);
    }
}

void rms_norm_back(float *d_x, float *d_gain, const float *d_out, const float *x,
                   const float *inverse, const float *gain, size_t rows, size_t width)
{
    for (size_t r = 0; r < rows; r++)
        norm_row_back(d_x + r * width, d_gain, d_out + r * width, x + r * width, inverse[r],
                      gain, width, 1.0F);
}

/* ------------------------------------------------------------------ rotary positions */

/* Pairs (i, i + half) turn by the angle of their position; sign -1 turns back. */
static inline void turn(float *restrict head, const float *restrict cosines,
                        const float *restrict sines, size_t half, float sign)
{
    for (size_t i = 0; i < half; i++) {
        const float a = head[i], b = head[i + half], s = sign * sines[i];
        head[i] = a * cosines[i] - b * s;
        head[i + half] = b * cosines[i] + a * s;
    }
}

void turn_heads(float *out, float *inverse, const float *qkv, const struct model *model,
                const struct block_tensors *weights, size_t rows, size_t first, size_t period)
{
    const struct shape *s = &model->shape;
    const size_t size = s->head_size, heads = s->heads + s->kv_heads;
    for (size_t r = 0; r < rows; r++)
        for (size_t h = 0; h < heads; h++) {
            const size_t angle = (first + r) % period * (size / 2);
            float *head = out + (r * heads + h) * size;
            rms_norm(head, inverse + r * heads + h, qkv + r * qkv_width(s) + h * size,
                     h < s->heads ? weights->query_norm : weights->key_norm, 1, size);
            turn(head, model->cosines + angle, model->sines + angle, size / 2, 1.0F);
        }
}

void turn_heads_back(float *d_qkv, const struct block_tensors *sums, const float *d_turned,
                     const float *qkv, const float *inverse, const struct model *model,
                     const struct block_tensors *weights, size_t rows, size_t period)
{
    const struct shape *s = &model->shape;
    const size_t size = s->head_size, heads = s->heads + s->kv_heads;
    float head[MOST_HEAD_SIZE];
    for (size_t r = 0; r < rows; r++)
        for (size_t h = 0; h < heads; h++) {
            const size_t angle = r % period * (size / 2), at = r * qkv_width(s) + h * size;
            const bool query = h < s->heads;
            memcpy(head, d_turned + (r * heads + h) * size, size * sizeof(float));
            turn(head, model->cosines + angle, model->sines + angle, size / 2, -1.0F);
            norm_row_back(d_qkv + at, query ? sums->query_norm : sums->key_norm, head, qkv + at,
                          inverse[r * heads + h],
                          query ? weights->query_norm : weights->key_norm, size, 0.0F);
        }
}

/* ------------------------------------------------------------------ attention */

float softmax(float *values, size_t count)
{
    float top = values[0], sum = 0.0F;
    for (size_t i = 1; i < count; i++)
        top = values[i] > top ? values[i] : top;
    for (size_t i = 0; i < count; i++)
        values[i] = exponential(values[i] - top);
    for (size_t i = 0; i < count; i++)
        sum += values[i];
    for (size_t i = 0; i < count; i++)
        values[i] /= sum;
    return top + logf(sum);
}

/* One head of one sequence, its rows `stride` apart. */
struct head {
    const float *query, *key, *value;
    size_t turned_stride, value_stride, out_stride;
};

static struct head head_at(const float *turned, const float *qkv, const struct shape *s,
                           size_t sequence, size_t h)
{
    const size_t row = sequence * s->positions, kv = h / (s->heads / s->kv_heads);
    const size_t stride = query_width(s) + key_width(s);
    return (struct head){
        .query = turned + row * stride + h * s->head_size,
        .key = turned + row * stride + query_width(s) + kv * s->head_size,
        .value = qkv + row * qkv_width(s) + stride + kv * s->head_size,
        .turned_stride = stride,
        .value_stride = qkv_width(s),
        .out_stride = query_width(s),
    };
}

/* columns[size x MOST_POSITIONS] = rows^T: sums over a head's elements become sums over rows. */
static void transpose(float *restrict columns, const float *restrict rows, size_t stride,
                      size_t count, size_t size)
{
    for (size_t t = 0; t < count; t++)
        for (size_t i = 0; i < size; i++)
            columns[i * MOST_POSITIONS + t] = rows[t * stride + i];
}

/* out[count] = vector . columns */
static inline void products(float *restrict out, const float *restrict vector,
                            const float *restrict columns, size_t count, size_t size)
{
    for (size_t t = 0; t < count; t++)
        out[t] = 0.0F;
    for (size_t i = 0; i < size; i++)
        for (size_t t = 0; t < count; t++)
            out[t] += vector[i] * columns[i * MOST_POSITIONS + t];
}

static inline void add_scaled(float *restrict out, float factor, const float *restrict x,
                              size_t count)
{
    for (size_t i = 0; i < count; i++)
        out[i] += factor * x[i];
}

static void attend_head(float *out, float *shares, const struct head *head,
                        const struct shape *s)
{
    float columns[MOST_HEAD_SIZE * MOST_POSITIONS];
    const size_t n = s->positions, size = s->head_size;
    const float scale = 1.0F / sqrtf((float)size);
    transpose(columns, head->key, head->turned_stride, n, size);
    for (size_t t = 0; t < n; t++, shares += n, out += head->out_stride) {
        products(shares, head->query + t * head->turned_stride, columns, t + 1, size);
        for (size_t j = 0; j <= t; j++)
            shares[j] *= scale;
        softmax(shares, t + 1);
        for (size_t j = t + 1; j < n; j++)
            shares[j] = 0.0F;
        memset(out, 0, size * sizeof(float));
        for (size_t j = 0; j <= t; j++)
            add_scaled(out, shares[j], head->value + j * head->value_stride, size);
    }
}

void attend(float *out, float *shares, const float *turned, const float *qkv,
            const struct shape *s, size_t sequences)
{
    const size_t n = s->positions;
    assert(n <= MOST_POSITIONS && s->head_size <= MOST_HEAD_SIZE);
    for (size_t sequence = 0; sequence < sequences; sequence++)
        for (size_t h = 0; h < s->heads; h++) {
            const struct head head = head_at(turned, qkv, s, sequence, h);
            attend_head(out + sequence * n * query_width(s) + h * s->head_size,
                        shares + (sequence * s->heads + h) * n * n, &head, s);
        }
}

/* share = softmax(score):  d_score = share (d_share - sum share d_share) */
static void attend_head_back(const struct head *d_head, const float *d_out, const float *shares,
                             const struct head *head, const struct shape *s)
{
    float columns[MOST_HEAD_SIZE * MOST_POSITIONS], d_score[MOST_POSITIONS];
    const size_t n = s->positions, size = s->head_size;
    const float scale = 1.0F / sqrtf((float)size);
    float *d_query = (float *)d_head->query, *d_key = (float *)d_head->key;
    float *d_value = (float *)d_head->value;
    transpose(columns, head->value, head->value_stride, n, size);
    for (size_t t = 0; t < n; t++, shares += n, d_out += head->out_stride) {
        products(d_score, d_out, columns, t + 1, size);
        const float mean = dot(shares, d_score, t + 1);
        for (size_t j = 0; j <= t; j++) {
            add_scaled(d_value + j * head->value_stride, shares[j], d_out, size);
            d_score[j] = shares[j] * (d_score[j] - mean) * scale;
            add_scaled(d_query + t * head->turned_stride, d_score[j],
                       head->key + j * head->turned_stride, size);
            add_scaled(d_key + j * head->turned_stride, d_score[j],
                       head->query + t * head->turned_stride, size);
        }
    }
}

static void clear_values(float *d_qkv, const struct shape *s, size_t rows)
{
    const size_t before = query_width(s) + key_width(s);
    for (size_t r = 0; r < rows; r++)
        memset(d_qkv + r * qkv_width(s) + before, 0, key_width(s) * sizeof(float));
}

void attend_back(float *d_turned, float *d_qkv, const float *d_out, const float *shares,
                 const float *turned, const float *qkv, const struct shape *s, size_t sequences)
{
    const size_t n = s->positions, rows = sequences * n;
    memset(d_turned, 0, rows * (query_width(s) + key_width(s)) * sizeof(float));
    clear_values(d_qkv, s, rows);
    for (size_t sequence = 0; sequence < sequences; sequence++)
        for (size_t h = 0; h < s->heads; h++) {
            const struct head head = head_at(turned, qkv, s, sequence, h);
            const struct head d_head = head_at(d_turned, d_qkv, s, sequence, h);
            attend_head_back(&d_head, d_out + sequence * n * query_width(s) + h * s->head_size,
                             shares + (sequence * s->heads + h) * n * n, &head, s);
        }
}

/* ------------------------------------------------------------------ SwiGLU */

void swiglu(float *restrict out, const float *restrict gate_up, size_t rows, size_t hidden)
{
    for (size_t r = 0; r < rows; r++, out += hidden, gate_up += 2 * hidden)
        for (size_t i = 0; i < hidden; i++)
            out[i] = gate_up[i] / (1.0F + exponential(-gate_up[i])) * gate_up[hidden + i];
}

void swiglu_back(float *restrict d_gate_up, const float *restrict d_out,
                 const float *restrict gate_up, size_t rows, size_t hidden)
{
    for (size_t r = 0; r < rows;
         r++, d_out += hidden, gate_up += 2 * hidden, d_gate_up += 2 * hidden)
        for (size_t i = 0; i < hidden; i++) {
            const float gate = gate_up[i], sigmoid = 1.0F / (1.0F + exponential(-gate));
            d_gate_up[i] =
                d_out[i] * gate_up[hidden + i] * sigmoid * (1.0F + gate * (1.0F - sigmoid));
            d_gate_up[hidden + i] = d_out[i] * gate * sigmoid;
        }
}
