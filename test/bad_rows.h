/* bad_rows.h - one call of a step in one mode, given bad buffers.
 *
 * In: a mode and a call (a row), and what is done to the buffers (a defect). Out: the refusal as
 * in bad_input.h; then the buffers are as they were, and the step goes on to the bits that it has
 * without the refused call. The modes together use every buffer, flat and by pointer. */
#ifndef GRADREG_TEST_BAD_ROWS_H
#define GRADREG_TEST_BAD_ROWS_H

#include "bad_input.h"

enum { BAD_MODES = 13, BAD_ROWS = BAD_MODES * CALLS };

struct row {
    const struct mode *mode;
    enum call call;
    uint64_t undisturbed;
};

/* What is done to the buffers, and what the sentence then names. */
struct defect {
    const char *what;
    enum field field, other;
    size_t segment;
    gradreg_status want;
    char words[2][64];
};

/* False where a row has nothing to show: the call does not belong to the mode. */
bool bad_row(struct row *row, int i);
/* Whether the call follows this buffer. */
bool bad_row_needs(const struct row *row, enum field field);
bool begins_a_step(enum call call);

/* A caller right before the call. */
struct caller *bad_row_begin(const struct row *row);
void bad_row_refuses(const struct row *row, const struct defect *defect,
                     void (*spoil_buffers)(struct caller *c, const struct defect *defect));

#endif
