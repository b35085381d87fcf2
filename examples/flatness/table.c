/* table.c - cells to stdout; a full row ends its line. */
#include "table.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

void table_text(struct table *table, const char *text)
{
    if (table->markdown)
        printf("| %s ", text + strspn(text, " "));
    else if (table->filled == 0)
        printf("  %-*s", table->widths[0], text);
    else
        printf("  %*s", table->widths[table->filled], text);
    if (++table->filled < table->columns)
        return;
    puts(table->markdown ? "|" : "");
    fflush(stdout); /* rows of long runs are read while the next one is made */
    table->filled = 0;
}

void table_number(struct table *table, int decimals, double value)
{
    char text[40];
    snprintf(text, sizeof(text), "%.*f", decimals, value);
    table_text(table, text);
}

struct table table_begin(bool markdown, int first_width, int columns, const char *const *titles)
{
    assert(columns >= 2 && columns <= TABLE_COLUMNS);
    struct table table = { .markdown = markdown, .columns = columns };
    for (int c = 0; c < columns; c++) {
        const int width = (int)strlen(titles[c]);
        table.widths[c] = c == 0 && width < first_width ? first_width : width;
    }
    for (int c = 0; c < columns; c++)
        table_text(&table, titles[c]);
    if (markdown)
        for (int c = 0; c < columns; c++)
            printf(c == 0 ? "|:--" : c + 1 < columns ? "|--:" : "|--:|\n");
    return table;
}

void table_end(struct table *table)
{
    (void)table; /* without assertions */
    assert(table->filled == 0);
    putchar('\n');
}
