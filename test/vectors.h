/* vectors.h - published numbers from test/vectors/NAME.json.
 *
 * In: a file of the folder. Out: its values; the test ends where one is missing or is of another kind. */
#ifndef GRADREG_TEST_VECTORS_H
#define GRADREG_TEST_VECTORS_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>

/* NULL where the text is no JSON; ends the program where there is no such file. */
cJSON *vectors_read(const char *folder, const char *name);

const cJSON *vectors_member(const cJSON *object, const char *name);
bool vectors_has(const cJSON *object, const char *name);
double vectors_number(const cJSON *object, const char *name);
const char *vectors_string(const cJSON *object, const char *name);
/* `count` numbers, no more and no less, of which "-inf" may stand for minus infinity; free(). */
double *vectors_numbers(const cJSON *object, const char *name, size_t count);

#endif
