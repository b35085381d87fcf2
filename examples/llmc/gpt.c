/* gpt.c - forward and backward pass. In: params, tokens. Out: a loss, and its gradient added to grads.
 *
 *      tokens ─► wte + wpe ─► [ ln1 ─ qkv ─ attention ─ attproj ─(+)─ ln2 ─ fc ─ gelu ─ fcproj ─(+) ]
 *                                x layers                        ─► lnf ─► x wte ─► cross entropy
 *
 * Activations lie in one arena, and their gradients in another one of the same layout. */
#include "gpt.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    WTE,
    WPE,
    LN1W,
    LN1B,
    QKVW,
    QKVB,
    ATTPROJW,
    ATTPROJB,
    LN2W,
    LN2B,
    FCW,
    FCB,
    FCPROJW,
    FCPROJB,
    LNFW,
    LNFB
};

const char *const gpt_tensor_names[GPT_TENSORS] = {
    "wte",  "wpe",  "ln1w", "ln1b", "qkvw",    "qkvb",    "attprojw", "attprojb",
    "ln2w", "ln2b", "fcw",  "fcb",  "fcprojw", "fcprojb", "lnfw",     "lnfb"
};

/* ---- layers: y = f(x); then dx += and dw += from dy ------------------------------------ */

/* stats: mean and 1 / deviation of each row */
static void norm(float *y, float *stats, const float *x, const float *w, const float *b,
                 size_t rows, size_t n)
{
    for (size_t r = 0; r < rows; r++, x += n, y += n, stats += 2) {
        float mean = 0, square = 0;
        for (size_t i = 0; i < n; i++)
            mean += x[i];
        mean /= (float)n;
        for (size_t i = 0; i < n; i++)
            square += (x[i] - mean) * (x[i] - mean);
        stats[0] = mean;
        stats[1] = 1 / sqrtf(square / (float)n + 1e-5f);
        for (size_t i = 0; i < n; i++)
            y[i] = (x[i] - mean) * stats[1] * w[i] + b[i];
    }
}

static void norm_back(float *dx, float *dw, float *db, const float *dy, const float *x,
                      const float *w, const float *stats, size_t rows, size_t n)
{
    for (size_t r = 0; r < rows; r++, x += n, dx += n, dy += n, stats += 2) {
        float sum = 0, with_x = 0;
        for (size_t i = 0; i < n; i++) {
            const float hat = (x[i] - stats[0]) * stats[1];
            sum += dy[i] * w[i];
            with_x += dy[i] * w[i] * hat;
            dw[i] += dy[i] * hat;
            db[i] += dy[i];
        }
        for (size_t i = 0; i < n; i++) {
            const float hat = (x[i] - stats[0]) * stats[1];
            dx[i] += (dy[i] * w[i] - (sum + hat * with_x) / (float)n) * stats[1];
        }
    }
}

/* y[rows x out] = x[rows x in] w[out x in]^T + b; b may be NULL */
static void linear(float *y, const float *x, const float *w, const float *b, size_t rows,
                   size_t in, size_t out)
{
    for (size_t r = 0; r < rows; r++)
        for (size_t o = 0; o < out; o++) {
            float sum = b != NULL ? b[o] : 0;
            for (size_t i = 0; i < in; i++)
                sum += x[r * in + i] * w[o * in + i];
            y[r * out + o] = sum;
        }
}

static void linear_back(float *dx, float *dw, float *db, const float *dy, const float *x,
                        const float *w, size_t rows, size_t in, size_t out)
{
    for (size_t r = 0; r < rows; r++)
        for (size_t o = 0; o < out; o++) {
            const float d = dy[r * out + o];
            if (db != NULL)
                db[o] += d;
            for (size_t i = 0; i < in; i++) {
                dx[r * in + i] += d * w[o * in + i];
                dw[o * in + i] += d * x[r * in + i];
            }
        }
}

/* Causal attention of one sequence and head. Rows of q, k, v are 3 C apart, rows of y C apart. */
static void attend(float *y, float *weights, const float *qkv, size_t length, size_t channels,
                   size_t width)
{
    const float scale = 1 / sqrtf((float)width);
    for (size_t t = 0; t < length; t++) {
        const float *q = qkv + t * 3 * channels;
        float *p = weights + t * length, largest = -INFINITY, total = 0;
        for (size_t s = 0; s <= t; s++) {
            const float *k = qkv + s * 3 * channels + channels;
            p[s] = 0;
            for (size_t i = 0; i < width; i++)
                p[s] += q[i] * k[i] * scale;
            largest = fmaxf(largest, p[s]);
        }
        for (size_t s = 0; s <= t; s++)
            total += p[s] = expf(p[s] - largest);
        for (size_t i = 0; i < width; i++)
            y[t * channels + i] = 0;
        for (size_t s = 0; s <= t; s++) {
            const float *v = qkv + s * 3 * channels + 2 * channels;
            p[s] /= total;
            for (size_t i = 0; i < width; i++)
                y[t * channels + i] += p[s] * v[i];
        }
    }
}

static void attend_back(float *dqkv, const float *dy, const float *weights, const float *qkv,
                        size_t length, size_t channels, size_t width)
{
    const float scale = 1 / sqrtf((float)width);
    for (size_t t = 0; t < length; t++) {
        const float *p = weights + t * length, *d = dy + t * channels;
        float mean = 0; /* sum of p dp */
        for (size_t s = 0; s <= t; s++)
            for (size_t i = 0; i < width; i++)
                mean += p[s] * d[i] * qkv[s * 3 * channels + 2 * channels + i];
        for (size_t s = 0; s <= t; s++) {
            const float *q = qkv + t * 3 * channels, *k = qkv + s * 3 * channels + channels;
            float *dq = dqkv + t * 3 * channels, *dk = dqkv + s * 3 * channels + channels;
            float dp = 0;
            for (size_t i = 0; i < width; i++) {
                dp += d[i] * k[channels + i];
                dk[channels + i] += p[s] * d[i];
            }
            for (size_t i = 0; i < width; i++) {
                dq[i] += p[s] * (dp - mean) * k[i] * scale;
                dk[i] += p[s] * (dp - mean) * q[i] * scale;
            }
        }
    }
}

static float gelu_inner(float x)
{
    return tanhf(0.7978845608f * (x + 0.044715f * x * x * x));
}

static void gelu(float *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = 0.5f * x[i] * (1 + gelu_inner(x[i]));
}

static void gelu_back(float *dx, const float *dy, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const float t = gelu_inner(x[i]);
        const float inner = 0.7978845608f * (1 + 3 * 0.044715f * x[i] * x[i]);
        dx[i] += dy[i] * (0.5f * (1 + t) + 0.5f * x[i] * (1 - t * t) * inner);
    }
}

static void add(float *y, const float *a, const float *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = a[i] + b[i];
}

static void accumulate(float *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] += x[i];
}

/* ---- where everything lies -------------------------------------------------------------- */

/* What a block keeps, in its part of the arena. */
typedef struct block {
    float *ln1, *stats1, *qkv, *weights, *attention, *projected, *middle, *ln2, *stats2, *fc,
        *gelu, *shrunk, *out;
} block;

typedef struct arena {
    float *next;
    size_t used;
} arena;

static float *take(arena *a, size_t n)
{
    float *at = a->next != NULL ? a->next + a->used : NULL;
    a->used += n;
    return at;
}

static block take_block(arena *a, const gpt *m)
{
    const size_t rows = m->batch * m->length, c = m->config.channels;
    block b;
    b.ln1 = take(a, rows * c);
    b.stats1 = take(a, rows * 2);
    b.qkv = take(a, rows * 3 * c);
    b.weights = take(a, m->batch * m->config.heads * m->length * m->length);
    b.attention = take(a, rows * c);
    b.projected = take(a, rows * c);
    b.middle = take(a, rows * c);
    b.ln2 = take(a, rows * c);
    b.stats2 = take(a, rows * 2);
    b.fc = take(a, rows * 4 * c);
    b.gelu = take(a, rows * 4 * c);
    b.shrunk = take(a, rows * c);
    b.out = take(a, rows * c);
    return b;
}

typedef struct ends {
    float *embedded, *lnf, *stats, *logits;
} ends;

static ends take_ends(arena *a, const gpt *m)
{
    const size_t rows = m->batch * m->length, c = m->config.channels;
    ends e;
    e.embedded = take(a, rows * c);
    e.lnf = take(a, rows * c);
    e.stats = take(a, rows * 2);
    e.logits = take(a, rows * m->config.vocabulary); /* after the forward pass: probabilities */
    return e;
}

static float *layer_of(const gpt *m, float *base, int tensor, size_t layer)
{
    return base + m->offset[tensor] + layer * (m->size[tensor] / m->config.layers);
}

/* ---- both passes ------------------------------------------------------------------------ */

static void block_forward(const gpt *m, const block *b, const float *x, size_t layer)
{
    const size_t rows = m->batch * m->length, c = m->config.channels, t = m->length;
    const size_t width = c / m->config.heads;
#define W(tensor) layer_of(m, m->params, tensor, layer)
    norm(b->ln1, b->stats1, x, W(LN1W), W(LN1B), rows, c);
    linear(b->qkv, b->ln1, W(QKVW), W(QKVB), rows, c, 3 * c);
    for (size_t s = 0; s < m->batch; s++)
        for (size_t h = 0; h < m->config.heads; h++)
            attend(b->attention + s * t * c + h * width,
                   b->weights + (s * m->config.heads + h) * t * t,
                   b->qkv + s * t * 3 * c + h * width, t, c, width);
    linear(b->projected, b->attention, W(ATTPROJW), W(ATTPROJB), rows, c, c);
    add(b->middle, x, b->projected, rows * c);
    norm(b->ln2, b->stats2, b->middle, W(LN2W), W(LN2B), rows, c);
    linear(b->fc, b->ln2, W(FCW), W(FCB), rows, c, 4 * c);
    gelu(b->gelu, b->fc, rows * 4 * c);
    linear(b->shrunk, b->gelu, W(FCPROJW), W(FCPROJB), rows, 4 * c, c);
    add(b->out, b->middle, b->shrunk, rows * c);
}

static void block_backward(gpt *m, const block *b, const block *d, const float *x, float *dx,
                           size_t layer)
{
    const size_t rows = m->batch * m->length, c = m->config.channels, t = m->length;
    const size_t width = c / m->config.heads;
#define G(tensor) layer_of(m, m->grads, tensor, layer)
    accumulate(d->middle, d->out, rows * c);
    linear_back(d->gelu, G(FCPROJW), G(FCPROJB), d->out, b->gelu, W(FCPROJW), rows, 4 * c, c);
    gelu_back(d->fc, d->gelu, b->fc, rows * 4 * c);
    linear_back(d->ln2, G(FCW), G(FCB), d->fc, b->ln2, W(FCW), rows, c, 4 * c);
    norm_back(d->middle, G(LN2W), G(LN2B), d->ln2, b->middle, W(LN2W), b->stats2, rows, c);
    accumulate(dx, d->middle, rows * c);
    linear_back(d->attention, G(ATTPROJW), G(ATTPROJB), d->middle, b->attention, W(ATTPROJW),
                rows, c, c);
    for (size_t s = 0; s < m->batch; s++)
        for (size_t h = 0; h < m->config.heads; h++)
            attend_back(d->qkv + s * t * 3 * c + h * width,
                        d->attention + s * t * c + h * width,
                        b->weights + (s * m->config.heads + h) * t * t,
                        b->qkv + s * t * 3 * c + h * width, t, c, width);
    linear_back(d->ln1, G(QKVW), G(QKVB), d->qkv, b->ln1, W(QKVW), rows, c, 3 * c);
    norm_back(dx, G(LN1W), G(LN1B), d->ln1, x, W(LN1W), b->stats1, rows, c);
#undef G
#undef W
}

/* Logits become probabilities; returns the mean of -log p(target). */
static float cross_entropy(float *logits, const int *targets, size_t rows, size_t n)
{
    float loss = 0;
    for (size_t r = 0; r < rows; r++, logits += n) {
        float largest = -INFINITY, total = 0;
        for (size_t i = 0; i < n; i++)
            largest = fmaxf(largest, logits[i]);
        for (size_t i = 0; i < n; i++)
            total += logits[i] = expf(logits[i] - largest);
        for (size_t i = 0; i < n; i++)
            logits[i] /= total;
        loss -= logf(logits[targets[r]]) / (float)rows;
    }
    return loss;
}

float gpt_forward(gpt *m, const int *tokens, const int *targets)
{
    const size_t rows = m->batch * m->length, c = m->config.channels;
    arena a = { m->activations, 0 };
    const ends e = take_ends(&a, m);
    m->tokens = tokens, m->targets = targets;
    for (size_t r = 0; r < rows; r++)
        add(e.embedded + r * c, m->params + m->offset[WTE] + (size_t)tokens[r] * c,
            m->params + m->offset[WPE] + r % m->length * c, c);
    const float *x = e.embedded;
    for (size_t l = 0; l < m->config.layers; l++) {
        const block b = take_block(&a, m);
        block_forward(m, &b, x, l);
        x = b.out;
    }
    norm(e.lnf, e.stats, x, m->params + m->offset[LNFW], m->params + m->offset[LNFB], rows, c);
    linear(e.logits, e.lnf, m->params + m->offset[WTE], NULL, rows, c, m->config.vocabulary);
    return cross_entropy(e.logits, targets, rows, m->config.vocabulary);
}

void gpt_backward(gpt *m)
{
    const size_t rows = m->batch * m->length, c = m->config.channels;
    const size_t layers = m->config.layers, n = m->config.vocabulary;
    arena a = { m->activations, 0 }, g = { m->activation_grads, 0 };
    const ends e = take_ends(&a, m), d = take_ends(&g, m);
    const arena a_blocks = a, g_blocks = g;
    arena none = { NULL, 0 };
    take_block(&none, m); /* how much of the arenas a block takes */

    memset(m->activation_grads, 0, m->activation_count * sizeof(float));
    for (size_t r = 0; r < rows; r++)
        for (size_t i = 0; i < n; i++)
            d.logits[r * n + i] =
                (e.logits[r * n + i] - ((int)i == m->targets[r])) / (float)rows;
    linear_back(d.lnf, m->grads + m->offset[WTE], NULL, d.logits, e.lnf,
                m->params + m->offset[WTE], rows, c, n);
    for (size_t l = layers + 1; l-- > 0;) {
        /* The block below this place: what it puts out, and what comes down to it. */
        arena al = a_blocks, gl = g_blocks, ab = a_blocks, gb = g_blocks;
        al.used += l * none.used, gl.used += l * none.used;
        ab.used += l == 0 ? 0 : (l - 1) * none.used, gb.used = ab.used;
        const float *x = l == 0 ? e.embedded : take_block(&ab, m).out;
        float *dx = l == 0 ? d.embedded : take_block(&gb, m).out;
        if (l == layers) {
            norm_back(dx, m->grads + m->offset[LNFW], m->grads + m->offset[LNFB], d.lnf, x,
                      m->params + m->offset[LNFW], e.stats, rows, c);
        } else {
            const block b = take_block(&al, m), db = take_block(&gl, m);
            block_backward(m, &b, &db, x, dx, l);
        }
    }
    for (size_t r = 0; r < rows; r++) {
        accumulate(m->grads + m->offset[WTE] + (size_t)m->tokens[r] * c, d.embedded + r * c, c);
        accumulate(m->grads + m->offset[WPE] + r % m->length * c, d.embedded + r * c, c);
    }
}

/* ---- create ----------------------------------------------------------------------------- */

static void measure(gpt *m)
{
    const gpt_config *k = &m->config;
    const size_t c = k->channels, l = k->layers;
    const size_t sizes[GPT_TENSORS] = {
        k->vocabulary * c, k->context * c, l * c, l * c, l * 3 * c * c, l * 3 * c,
        l * c * c,         l * c,          l * c, l * c, l * 4 * c * c, l * 4 * c,
        l * 4 * c * c,     l * c,          c,     c
    };
    m->count = 0;
    for (int t = 0; t < GPT_TENSORS; t++) {
        m->size[t] = sizes[t];
        m->offset[t] = m->count;
        m->count += sizes[t];
    }
    arena none = { NULL, 0 };
    take_ends(&none, m);
    for (size_t i = 0; i < l; i++)
        take_block(&none, m);
    m->activation_count = none.used;
}

static int is_norm_weight(int t)
{
    return t == LN1W || t == LN2W || t == LNFW;
}

static int is_matrix(int t)
{
    return t == WTE || t == WPE || t == QKVW || t == ATTPROJW || t == FCW || t == FCPROJW;
}

/* Roughly normal, from a sum of four uniform numbers. */
static float random_weight(unsigned *state)
{
    float sum = 0;
    for (int i = 0; i < 4; i++) {
        *state = *state * 1664525u + 1013904223u;
        sum += (float)(*state >> 8) / 16777216.0f - 0.5f;
    }
    return sum * 1.732f;
}

int gpt_create(gpt *m, gpt_config config, size_t batch, size_t length, unsigned seed)
{
    memset(m, 0, sizeof(*m));
    m->config = config, m->batch = batch, m->length = length;
    measure(m);
    m->params = malloc(m->count * sizeof(float));
    m->grads = calloc(m->count, sizeof(float));
    m->activations = malloc(m->activation_count * sizeof(float));
    m->activation_grads = malloc(m->activation_count * sizeof(float));
    if (!m->params || !m->grads || !m->activations || !m->activation_grads) {
        gpt_destroy(m);
        return -1;
    }
    for (int t = 0; t < GPT_TENSORS; t++)
        for (size_t i = 0; i < m->size[t]; i++)
            m->params[m->offset[t] + i] =
                is_matrix(t) ? 0.1f * random_weight(&seed) : (float)is_norm_weight(t);
    return 0;
}

void gpt_destroy(gpt *m)
{
    free(m->params);
    free(m->grads);
    free(m->activations);
    free(m->activation_grads);
    memset(m, 0, sizeof(*m));
}
