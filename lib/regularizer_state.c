/* regularizer_state.c - stop and resume with the same bits.
 *
 * In: a handle at rest, or a saved state. Out: one block of bytes, or a handle that goes on as the
 * saved one would have:
 *
 *      header | counters and settings | averages | noise lengths | noise direction | correction */
#include "regularizer.h"

#include <math.h>
#include <string.h>

#include "hash.h"
#include "status.h"

#define GR_STATE_MAGIC   UINT64_C(0x3174617473726721) /* "!grstat1" */
#define GR_STATE_VERSION 1u

typedef struct gr_state_header {
    uint64_t magic;
    uint32_t version;
    uint32_t header_bytes;
    uint64_t bytes;
    uint64_t table_hash;
    uint64_t checksum; /* of what follows the header */
} gr_state_header;

typedef struct gr_state_body {
    double strength, epsilon;
    uint64_t step, combine_calls, dropped_steps;
    int32_t has_noise_direction, has_kept, has_averages, reserved;
} gr_state_body;

/* The parts behind the body, in order: where they are in this handle. */
typedef struct gr_state_part {
    void *host, *backend; /* one of them */
    size_t bytes;
} gr_state_part;

enum { GR_STATE_PARTS = 5 };

static void parts_of(const gradreg_regularizer *reg, gr_state_part parts[GR_STATE_PARTS])
{
    const gr_step *s = &reg->work.step;
    const size_t lengths = gradreg_i_regularizer_noise_bytes(&reg->table);
    const gr_state_part all[GR_STATE_PARTS] = {
        { reg->averages, NULL, (size_t)s->options.layer_count * sizeof(double) },
        { NULL, s->noise_squared, lengths },
        { NULL, s->noise_length, lengths },
        { NULL, reg->noise, reg->table.storage.noise },
        { NULL, reg->kept, reg->table.storage.kept },
    };
    memcpy(parts, all, sizeof(all));
}

static size_t state_bytes(const gradreg_regularizer *reg)
{
    gr_state_part parts[GR_STATE_PARTS];
    size_t bytes = sizeof(gr_state_header) + sizeof(gr_state_body);
    parts_of(reg, parts);
    for (int i = 0; i < GR_STATE_PARTS; i++)
        bytes += parts[i].bytes;
    return bytes;
}

/* Eight bytes at a time: states of large models are gigabytes. */
static uint64_t checksum(const char *p, size_t bytes)
{
    uint64_t hash = UINT64_C(0x9e3779b97f4a7c15), word;
    for (; bytes >= sizeof(word); p += sizeof(word), bytes -= sizeof(word)) {
        memcpy(&word, p, sizeof(word));
        hash = (hash ^ word) * UINT64_C(0xff51afd7ed558ccd);
        hash ^= hash >> 32;
    }
    for (; bytes > 0; p++, bytes--)
        hash = gr_hash(hash, (unsigned char)*p);
    return hash;
}

gradreg_status gradreg_regularizer_state_bytes(const gradreg_regularizer *regularizer,
                                               size_t *out)
{
    GR_ENTER();
    GR_REQUIRE_POINTER(regularizer);
    GR_REQUIRE_POINTER(out);
    *out = state_bytes(regularizer);
    return GRADREG_OK;
}

typedef struct gr_transfer {
    char *out;
    const char *in;
    size_t bytes;
} gr_transfer;

static gradreg_status check_size(const gradreg_regularizer *reg, size_t bytes)
{
    GR_REQUIRE(bytes == state_bytes(reg),
               "bytes is %zu, must be state_bytes = %zu for this table and "
               "these parameters",
               bytes, state_bytes(reg));
    return gradreg_i_regularizer_expect(reg, GR_STATE_IDLE, GR_STATE_IDLE);
}

/* ---- save ------------------------------------------------------------------------ */

static gradreg_status save(gradreg_regularizer *reg, void *task)
{
    const gr_transfer *t = task;
    gr_state_part parts[GR_STATE_PARTS];
    gr_control c;
    char *at = t->out + sizeof(gr_state_header);
    GR_TRY(check_size(reg, t->bytes));
    GR_TRY(reg->ops->fetch(&reg->work, &c, reg->work.step.control, sizeof(c)));
    const gr_state_body body = { c.strength,         c.epsilon,         c.step,
                                 reg->combine_calls, c.dropped_steps,   c.has_noise_direction,
                                 c.has_kept,         reg->has_averages, 0 };
    memcpy(at, &body, sizeof(body));
    at += sizeof(body);
    parts_of(reg, parts);
    for (int i = 0; i < GR_STATE_PARTS; at += parts[i++].bytes)
        if (parts[i].host != NULL)
            memcpy(at, parts[i].host, parts[i].bytes);
        else
            GR_TRY(reg->ops->fetch(&reg->work, at, parts[i].backend, parts[i].bytes));
    const gr_state_header header = { GR_STATE_MAGIC,
                                     GR_STATE_VERSION,
                                     sizeof(gr_state_header),
                                     t->bytes,
                                     reg->table.hash,
                                     checksum(t->out + sizeof(gr_state_header),
                                              t->bytes - sizeof(gr_state_header)) };
    memcpy(t->out, &header, sizeof(header));
    return GRADREG_OK;
}

gradreg_status gradreg_regularizer_state_save(gradreg_regularizer *reg, void *state,
                                              size_t bytes)
{
    gr_transfer t = { state, NULL, bytes };
    GR_ENTER();
    GR_REQUIRE_POINTER(state);
    return gradreg_i_regularizer_call(reg, save, &t);
}

/* ---- load ------------------------------------------------------------------------ */

static gradreg_status check_header(const gradreg_regularizer *reg, const gr_transfer *t)
{
    gr_state_header header;
    memcpy(&header, t->in, sizeof(header));
    GR_REQUIRE(header.magic == GR_STATE_MAGIC && header.header_bytes == sizeof(header),
               "state does not begin like a saved regularizer");
    GR_REQUIRE(header.version == GR_STATE_VERSION,
               "state has version %u, this library reads %u", header.version, GR_STATE_VERSION);
    GR_REQUIRE(header.bytes == t->bytes, "state says it has %llu bytes, bytes is %zu",
               (unsigned long long)header.bytes, t->bytes);
    GR_REQUIRE(header.table_hash == reg->table.hash,
               "state was saved for another table of segments or other parameters");
    GR_REQUIRE(header.checksum == checksum(t->in + sizeof(header), t->bytes - sizeof(header)),
               "state is damaged: its checksum differs");
    return GRADREG_OK;
}

static gradreg_status take_body(gradreg_regularizer *reg, const gr_state_body *body)
{
    gr_control c;
    GR_TRY(reg->ops->fetch(&reg->work, &c, reg->work.step.control, sizeof(c)));
    c.strength = body->strength;
    c.epsilon = body->epsilon;
    c.step = body->step;
    c.dropped_steps = body->dropped_steps;
    c.has_noise_direction = body->has_noise_direction;
    c.has_kept = body->has_kept;
    reg->combine_calls = body->combine_calls;
    reg->has_averages = body->has_averages;
    reg->losses_expected = 0;
    return reg->ops->store(&reg->work, reg->work.step.control, &c, sizeof(c));
}

static gradreg_status load(gradreg_regularizer *reg, void *task)
{
    const gr_transfer *t = task;
    gr_state_part parts[GR_STATE_PARTS];
    gr_state_body body;
    const gr_decision_input input = { 0 };
    const char *at = t->in + sizeof(gr_state_header);
    GR_TRY(check_size(reg, t->bytes));
    GR_TRY(check_header(reg, t));
    memcpy(&body, at, sizeof(body));
    at += sizeof(body);
    GR_REQUIRE(isfinite(body.strength) && body.strength >= 0 && isfinite(body.epsilon) &&
                   body.epsilon > 0 &&
                   body.step <= UINT64_C(1) << 54, /* set_step to 2^53, then steps */
               "state holds strength %g, epsilon %g, step %llu: not from a regularizer",
               body.strength, body.epsilon, (unsigned long long)body.step);
    GR_TRY(take_body(reg, &body));
    parts_of(reg, parts);
    for (int i = 0; i < GR_STATE_PARTS; at += parts[i++].bytes)
        if (parts[i].host != NULL)
            memcpy(parts[i].host, at, parts[i].bytes);
        else
            GR_TRY(reg->ops->store(&reg->work, parts[i].backend, at, parts[i].bytes));
    GR_TRY(gradreg_i_regularizer_store_adaptive(reg));
    return reg->ops->decide(&reg->work, GR_DECIDE_CLEAR_TERMS, &input);
}

gradreg_status gradreg_regularizer_state_load(gradreg_regularizer *reg, const void *state,
                                              size_t bytes)
{
    gr_transfer t = { NULL, state, bytes };
    GR_ENTER();
    GR_REQUIRE_POINTER(state);
    return gradreg_i_regularizer_call(reg, load, &t);
}
