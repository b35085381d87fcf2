/* cpu_rows.h - a loop over rows on all threads.
 *
 * In: a body that does one row. Out: it has done every row, on any threads, in any order. */
#ifndef GRADREG_LIB_CPU_ROWS_H
#define GRADREG_LIB_CPU_ROWS_H

#include "../context.h"

typedef void (*gr_cpu_row_body)(void *task, size_t row);

/* `elements` of a row say how many rows are worth a thread's while. */
void gradreg_cpu_rows(gradreg_context *context, size_t rows, size_t elements,
                      gr_cpu_row_body body, void *task);

#endif
