/* records.c - lines of JSON, and nothing lost silently. */
#define _POSIX_C_SOURCE 200809L
#include "records.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "support.h"

static void complain(const struct records *records)
{
    fail("cannot write %s: %s. Make room and run the same command again: it goes on from the "
         "last "
         "checkpoint",
         records->path, strerror(errno));
}

void records_open(struct records *records, const char *path, uint64_t length)
{
    records->path = allocate(strlen(path) + 1, 1);
    strcpy(records->path, path);
    records->file = fopen(path, "r+b");
    if (records->file == NULL && errno == ENOENT)
        records->file = fopen(path, "w+b");
    if (records->file == NULL)
        fail("cannot write %s: %s", path, strerror(errno));
    if (length == 0 && ftruncate(fileno(records->file), 0) != 0 && errno != EINVAL)
        complain(records);
    if (length == 0)
        return;
    if (fseek(records->file, 0, SEEK_END) != 0 || ftell(records->file) < (long)length)
        fail("%s is shorter than it was when its checkpoint was made: remove both, or put it "
             "back",
             path);
    if (ftruncate(fileno(records->file), (off_t)length) != 0 ||
        fseek(records->file, (long)length, SEEK_SET) != 0)
        complain(records);
}

uint64_t records_sync(struct records *records)
{
    errno = 0;
    if (ferror(records->file) || fflush(records->file) != 0 ||
        (fsync(fileno(records->file)) != 0 && errno != EINVAL))
        complain(records);
    return (uint64_t)ftell(records->file);
}

void records_close(struct records *records)
{
    records_sync(records);
    if (fclose(records->file) != 0)
        complain(records);
    free(records->path);
    *records = (struct records){ NULL, NULL };
}

void record_begin(struct records *records, const char *kind)
{
    fprintf(records->file, "{\"kind\":\"%s\"", kind);
}

void record_text(struct records *records, const char *key, const char *value)
{
    fprintf(records->file, ",\"%s\":\"", key);
    for (; *value != '\0'; value++)
        if ((unsigned char)*value >= 0x20 && *value != '"' && *value != '\\')
            fputc(*value, records->file);
    fputc('"', records->file);
}

static void put_number(struct records *records, double value)
{
    if (isfinite(value))
        fprintf(records->file, "%.9g", value);
    else
        fputs("null", records->file);
}

void record_number(struct records *records, const char *key, double value)
{
    fprintf(records->file, ",\"%s\":", key);
    put_number(records, value);
}

void record_numbers(struct records *records, const char *key, const double *values,
                    size_t count)
{
    fprintf(records->file, ",\"%s\":[", key);
    for (size_t i = 0; i < count; i++) {
        if (i > 0)
            fputc(',', records->file);
        put_number(records, values[i]);
    }
    fputc(']', records->file);
}

void record_end(struct records *records)
{
    fputs("}\n", records->file);
    errno = 0;
    if (fflush(records->file) != 0 || ferror(records->file))
        complain(records);
}
