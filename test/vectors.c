/* vectors.c - see vectors.h. */
#include "vectors.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

cJSON *vectors_read(const char *folder, const char *name)
{
    char path[4096];
    long bytes;
    snprintf(path, sizeof(path), "%s/%s.json", folder, name);
    FILE *file = fopen(path, "rb");
    if (file == NULL || fseek(file, 0, SEEK_END) != 0 || (bytes = ftell(file)) < 0) {
        fprintf(stderr, "cannot read %s\n", path);
        exit(EXIT_FAILURE);
    }
    rewind(file);
    char *text = calloc((size_t)bytes + 1, 1);
    const size_t read = fread(text, 1, (size_t)bytes, file);
    fclose(file);
    cJSON *parsed = read == (size_t)bytes ? cJSON_Parse(text) : NULL;
    free(text);
    return parsed;
}

const cJSON *vectors_member(const cJSON *object, const char *name)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
    if (item == NULL)
        ck_abort_msg("no \"%s\"", name);
    return item;
}

bool vectors_has(const cJSON *object, const char *name)
{
    return cJSON_GetObjectItemCaseSensitive(object, name) != NULL;
}

static double value_of(const cJSON *item)
{
    if (cJSON_IsString(item) && strcmp(item->valuestring, "-inf") == 0)
        return -INFINITY;
    ck_assert(cJSON_IsNumber(item));
    return item->valuedouble;
}

double vectors_number(const cJSON *object, const char *name)
{
    return value_of(vectors_member(object, name));
}

const char *vectors_string(const cJSON *object, const char *name)
{
    const cJSON *item = vectors_member(object, name);
    ck_assert(cJSON_IsString(item));
    return item->valuestring;
}

double *vectors_numbers(const cJSON *object, const char *name, size_t count)
{
    const cJSON *array = vectors_member(object, name), *item;
    double *out = calloc(count + 1, sizeof(double));
    size_t i = 0;
    ck_assert_uint_eq((unsigned)cJSON_GetArraySize(array), count);
    cJSON_ArrayForEach(item, array) out[i++] = value_of(item);
    return out;
}
