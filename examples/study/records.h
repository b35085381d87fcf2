/* records.h - what a run has to say, one JSON object a line.
 *
 *      record_begin(r, "step");  record_number(r, "loss", 0.5);  record_end(r);
 *
 * A checkpoint keeps the length of the file; a resumed run cuts off what came later and writes it
 * again. */
#ifndef STUDY_RECORDS_H
#define STUDY_RECORDS_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct records {
    FILE *file;
    char *path;
};

/* Opens, or makes, the file and goes on behind its first `length` bytes. */
void records_open(struct records *records, const char *path, uint64_t length);
void records_close(struct records *records);

/* Everything written so far is on the disk; returns the length. Ends the program when it cannot be. */
uint64_t records_sync(struct records *records);

void record_begin(struct records *records, const char *kind);
void record_text(struct records *records, const char *key, const char *value);
void record_number(struct records *records, const char *key, double value); /* NaN: null */
void record_numbers(struct records *records, const char *key, const double *values,
                    size_t count);
void record_end(struct records *records);

#endif
