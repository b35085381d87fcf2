/* table.h - a table that grows cell by cell: aligned text, or Markdown for a documentation page. */
#ifndef FLATNESS_TABLE_H
#define FLATNESS_TABLE_H

#include <stdbool.h>

enum { TABLE_COLUMNS = 10 };

struct table {
    bool markdown;
    int columns, filled;       /* filled: cells of the row under way */
    int widths[TABLE_COLUMNS]; /* of the text look */
};

/* Prints the titles. Columns are as wide as their titles, the first at least first_width. */
struct table table_begin(bool markdown, int first_width, int columns,
                         const char *const *titles);
void table_text(struct table *table, const char *text);
void table_number(struct table *table, int decimals, double value);
void table_end(struct table *table);

#endif
