/* cpu_rows.c - rows to threads: several short ones at a time, and few of them on this thread alone.
 *
 * In: a body that does one row. Out: every row done once, in any order. */
#include "cpu_rows.h"

#include "../threads.h"

/* Elements: less than a thread takes to wake up, and what it should take at a time. */
enum { SMALL = 8192, PORTION = 4096 };

typedef struct portions {
    gr_cpu_row_body body;
    void *task;
    size_t rows, rows_each;
} portions;

static void do_portion(void *task, size_t index)
{
    const portions *p = task;
    const size_t begin = index * p->rows_each;
    const size_t left = p->rows - begin;
    const size_t n = left < p->rows_each ? left : p->rows_each;
    for (size_t row = begin; row < begin + n; row++)
        p->body(p->task, row);
}

void gradreg_cpu_rows(gradreg_context *context, size_t rows, size_t elements,
                      gr_cpu_row_body body, void *task)
{
    const size_t each = elements < PORTION ? PORTION / (elements + 1) + 1 : 1;
    portions p = { body, task, rows, each };
    if (rows <= SMALL / (elements + 1)) {
        p.rows_each = rows;
        if (rows > 0)
            do_portion(&p, 0);
        return;
    }
    gradreg_i_parallel(context, (rows + each - 1) / each, do_portion, &p);
}
