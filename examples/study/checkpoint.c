/* checkpoint.c - writing without losing the old file, and reading with distrust. */
#define _POSIX_C_SOURCE 200809L
#include "checkpoint.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "problems.h"
#include "support.h"

static const char magic[8] = { 'G', 'R', 'S', 'T', 'U', 'D', 'Y', '1' };

enum { MOST_PARTS = 16, MOST_BYTES = 1 << 30 };

struct entry {
    char name[16];
    uint64_t bytes;
};

/* ------------------------------------------------------------------ writing */

struct writer {
    FILE *file;
    uint64_t hash;
    bool good;
};

static void put(struct writer *writer, const void *bytes, size_t count)
{
    writer->hash = hash_bytes(writer->hash, bytes, count);
    writer->good = writer->good && fwrite(bytes, 1, count, writer->file) == count;
}

static void put_parts(struct writer *writer, const struct part *parts, size_t count)
{
    const uint64_t number = count;
    put(writer, magic, sizeof(magic));
    put(writer, &number, sizeof(number));
    for (size_t i = 0; i < count; i++) {
        struct entry entry = { .bytes = parts[i].bytes };
        snprintf(entry.name, sizeof(entry.name), "%s", parts[i].name);
        put(writer, &entry, sizeof(entry));
    }
    for (size_t i = 0; i < count; i++)
        put(writer, parts[i].data, parts[i].bytes);
    const uint64_t hash = writer->hash;
    put(writer, &hash, sizeof(hash));
}

void checkpoint_save(const char *path, const struct part *parts, size_t count)
{
    char *near = allocate(strlen(path) + 5, 1);
    sprintf(near, "%s.new", path);
    struct writer writer = { fopen(near, "wb"), HASH_START, true };
    if (writer.file == NULL)
        fail("cannot write %s: %s", near, strerror(errno));
    errno = 0;
    put_parts(&writer, parts, count);
    bool good = writer.good && fflush(writer.file) == 0 && fsync(fileno(writer.file)) == 0;
    good = fclose(writer.file) == 0 && good;
    if (!good || rename(near, path) != 0)
        fail("cannot write %s: %s. What was saved before is still there", near,
             strerror(errno));
    free(near);
}

/* ------------------------------------------------------------------ reading */

struct content {
    unsigned char *bytes;
    size_t count;
};

static bool read_all(struct content *content, const char *path)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL && errno == ENOENT)
        return false;
    if (file == NULL)
        fail("cannot read %s: %s", path, strerror(errno));
    long size = -1;
    if (fseek(file, 0, SEEK_END) == 0)
        size = ftell(file);
    if (size < 0 || size > MOST_BYTES || fseek(file, 0, SEEK_SET) != 0)
        fail("cannot read %s: no file of a size that a checkpoint has", path);
    content->count = (size_t)size;
    content->bytes = allocate(content->count, 1);
    if (fread(content->bytes, 1, content->count, file) != content->count)
        fail("cannot read %s: %s", path, strerror(errno));
    fclose(file);
    return true;
}

/* The number of parts, after a look at everything. */
static size_t checked(const struct content *content, const char *path)
{
    const size_t head = sizeof(magic) + sizeof(uint64_t);
    uint64_t parts, hash;
    if (content->count < head + sizeof(hash) ||
        memcmp(content->bytes, magic, sizeof(magic)) != 0)
        fail("%s is not a checkpoint of this program", path);
    memcpy(&hash, content->bytes + content->count - sizeof(hash), sizeof(hash));
    if (hash_bytes(HASH_START, content->bytes, content->count - sizeof(hash)) != hash)
        fail("%s is damaged: its checksum is wrong. Remove it and start from an older one, or "
             "anew",
             path);
    memcpy(&parts, content->bytes + sizeof(magic), sizeof(parts));
    size_t left = content->count - head - sizeof(hash);
    if (parts > MOST_PARTS || parts * sizeof(struct entry) > left)
        fail("%s is damaged: %llu parts", path, (unsigned long long)parts);
    left -= parts * sizeof(struct entry);
    for (size_t i = 0; i < parts; i++) {
        struct entry entry;
        memcpy(&entry, content->bytes + head + i * sizeof(entry), sizeof(entry));
        if (entry.bytes > left)
            fail("%s is damaged: a part is longer than the file", path);
        left -= entry.bytes;
    }
    return (size_t)parts;
}

static void take_part(const struct content *content, const char *path, size_t count,
                      const struct part *part)
{
    const unsigned char *table = content->bytes + sizeof(magic) + sizeof(uint64_t);
    const unsigned char *data = table + count * sizeof(struct entry);
    for (size_t i = 0; i < count; i++) {
        struct entry entry;
        memcpy(&entry, table + i * sizeof(entry), sizeof(entry));
        if (strncmp(entry.name, part->name, sizeof(entry.name)) != 0) {
            data += entry.bytes;
            continue;
        }
        if (entry.bytes != part->bytes)
            fail("%s: part \"%s\" has %llu bytes, expected %zu: it was made with other options",
                 path, part->name, (unsigned long long)entry.bytes, part->bytes);
        memcpy(part->data, data, part->bytes);
        return;
    }
    fail("%s has no part \"%s\"", path, part->name);
}

bool checkpoint_load(const char *path, const struct part *parts, size_t count)
{
    struct content content = { NULL, 0 };
    if (!read_all(&content, path))
        return false;
    const size_t number = checked(&content, path);
    for (size_t i = 0; i < count; i++)
        take_part(&content, path, number, &parts[i]);
    free(content.bytes);
    return true;
}

/* ------------------------------------------------------------------ a model */

static bool all_finite(const float *values, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!(values[i] - values[i] == 0.0F))
            return false;
    return true;
}

struct model *checkpoint_model(const char *path, bool bf16)
{
    struct shape shape;
    if (!checkpoint_load(path, &(struct part){ "shape", &shape, sizeof(shape) }, 1))
        fail("%s: no such file. `study learn` makes a base model", path);
    if (shape_complaint(&shape) != NULL)
        fail("%s: %s", path, shape_complaint(&shape));
    if (shape.vocabulary != VOCABULARY || shape.positions != SEQUENCE - 1)
        fail("%s: made for another alphabet or length of text", path);
    struct model *model = model_new(&shape, bf16);
    checkpoint_load(
        path, &(struct part){ "params", model->params, model->parameter_count * sizeof(float) },
        1);
    if (!all_finite(model->params, model->parameter_count))
        fail("%s: parameters that are not finite", path);
    model_refresh(model);
    return model;
}

void checkpoint_save_model(const char *path, struct model *model)
{
    const struct part parts[] = {
        { "shape", &model->shape, sizeof(model->shape) },
        { "params", model->params, model->parameter_count * sizeof(float) },
    };
    checkpoint_save(path, parts, 2);
}
