/* coverage.c - see coverage.h.
 *
 * A declaration begins at the start of a line with GRADREG_API; the comment before it is its
 * documentation, and the statuses that stand behind "Returns:" are its promise. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include "coverage.h"

#include "backend.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { MOST_FUNCTIONS = 256, NAME_BYTES = 64 };

static const struct status_word {
    const char *word;
    gradreg_status status;
} words[] = {
    { "OK", GRADREG_OK },
    { "INVALID_ARGUMENT", GRADREG_ERROR_INVALID_ARGUMENT },
    { "UNSUPPORTED", GRADREG_ERROR_UNSUPPORTED },
    { "STATE", GRADREG_ERROR_STATE },
    { "OUT_OF_MEMORY", GRADREG_ERROR_OUT_OF_MEMORY },
    { "DEVICE", GRADREG_ERROR_DEVICE },
    { "BLAS", GRADREG_ERROR_BLAS },
    { "COMMUNICATION", GRADREG_ERROR_COMMUNICATION },
    { "NON_FINITE", GRADREG_ERROR_NON_FINITE },
};
enum { WORDS = sizeof(words) / sizeof(words[0]) };

struct entry {
    char name[NAME_BYTES];
    uint32_t seen; /* bit per row of `words` */
    unsigned bad_inputs;
};

static struct table {
    size_t count;
    struct entry entries[MOST_FUNCTIONS];
} * table;

static uint32_t bit_of(gradreg_status status)
{
    for (unsigned i = 0; i < WORDS; i++)
        if (words[i].status == status)
            return 1u << i;
    return 0;
}

/* What only another backend can give: this library has the CPU's. */
static uint32_t elsewhere(void)
{
    return bit_of(GRADREG_ERROR_DEVICE) | bit_of(GRADREG_ERROR_BLAS);
}

static void stop(const char *what)
{
    fprintf(stderr, "coverage: %s\n", what);
    exit(EXIT_FAILURE);
}

/* ---- notes ------------------------------------------------------------------------- */

void coverage_open(void)
{
    void *memory =
        mmap(NULL, sizeof(*table), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        stop("no shared memory");
    table = memory;
}

static struct entry *find(const char *name, size_t length)
{
    for (size_t i = 0; i < table->count; i++)
        if (strlen(table->entries[i].name) == length &&
            memcmp(table->entries[i].name, name, length) == 0)
            return &table->entries[i];
    return NULL;
}

void coverage_note(const char *call, gradreg_status status, bool bad)
{
    const size_t length = strcspn(call, "(");
    struct entry *entry = find(call, length);

    if (entry == NULL) {
        if (table->count == MOST_FUNCTIONS || length >= NAME_BYTES)
            stop(call);
        entry = &table->entries[table->count++];
        memcpy(entry->name, call, length);
    }
    entry->seen |= bit_of(status);
    entry->bad_inputs += bad;
}

/* ---- the header -------------------------------------------------------------------- */

static char *read_text(const char *path)
{
    FILE *file = fopen(path, "rb");
    char *text = calloc(1, (size_t)1 << 20);

    if (file == NULL || text == NULL)
        stop(path);
    const size_t bytes = fread(text, 1, ((size_t)1 << 20) - 1, file);
    fclose(file);
    if (bytes == 0)
        stop("an empty header");
    return text;
}

/* Where the next declaration begins, or NULL. */
static const char *next_declaration(const char *at)
{
    const char *found = strstr(at, "\nGRADREG_API ");
    return found == NULL ? NULL : found + strlen("\nGRADREG_API ");
}

/* The function that is declared here, its name's length in *length. */
static const char *declared_name(const char *declaration, size_t *length)
{
    const char *open = strchr(declaration, '(');
    const char *name = open;

    while (name > declaration && strchr(" *\n", name[-1]) == NULL)
        name--;
    *length = (size_t)(open - name);
    return name;
}

static bool is_word_at(const char *at, const char *word)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ_";
    const size_t length = strlen(word);
    return strncmp(at, word, length) == 0 && strchr(letters, at[-1]) == NULL &&
           (at[length] == '\0' || strchr(letters, at[length]) == NULL);
}

static uint32_t words_in(const char *begin, const char *end)
{
    uint32_t found = 0;
    for (const char *at = begin; at < end; at++)
        for (unsigned i = 0; i < WORDS; i++)
            if (is_word_at(at, words[i].word))
                found |= 1u << i;
    return found;
}

static const char *find_within(const char *begin, const char *end, const char *text)
{
    const char *found = strstr(begin, text);
    return found != NULL && found < end ? found : NULL;
}

/* The last comment in front of a declaration. */
static const char *comment_before(const char *text, const char *declaration)
{
    const char *found = NULL;
    for (const char *at = text; (at = find_within(at, declaration, "/**")) != NULL; at++)
        found = at;
    if (found == NULL)
        stop("a declaration without documentation");
    return found;
}

static const char *end_of_returns(const char *begin, const char *end)
{
    static const char *const labels[] = { " Out:", " In:", " InOut:", " Values:", " Stream:" };
    for (size_t i = 0; i < sizeof(labels) / sizeof(labels[0]); i++) {
        const char *found = find_within(begin, end, labels[i]);
        end = found != NULL ? found : end;
    }
    return end;
}

static uint32_t promised(const char *text, const char *declaration);

/* "as gradreg_f()": f's promise. */
static uint32_t promised_by(const char *text, const char *name)
{
    const size_t length = strcspn(name, "(");
    for (const char *at = text; (at = next_declaration(at)) != NULL;) {
        size_t other;
        const char *found = declared_name(at, &other);
        if (other == length && memcmp(found, name, length) == 0)
            return promised(text, at);
    }
    stop("a reference to a function that is not declared");
    return 0;
}

static uint32_t promised(const char *text, const char *declaration)
{
    const char *comment = comment_before(text, declaration);
    const char *returns = find_within(comment, declaration, "Returns:");
    if (returns == NULL)
        stop("documentation without Returns:");
    const char *end = end_of_returns(returns, declaration);
    const char *except = find_within(returns, end, "except");
    const char *there = find_within(comment, end, "s gradreg_"); /* "As" or "as" */
    uint32_t found = words_in(returns, except != NULL ? except : end);

    if (there != NULL && (there > returns || find_within(returns, end, "as there") != NULL))
        found |= promised_by(text, there + 2);
    return except != NULL ? found & ~words_in(except, end) : found;
}

/* What the rules at the head of the header promise for every entry: no NULL, one thread, no field
 * of a later version. */
static uint32_t promised_to_all(void)
{
    return bit_of(GRADREG_ERROR_INVALID_ARGUMENT) | bit_of(GRADREG_ERROR_STATE) |
           bit_of(GRADREG_ERROR_UNSUPPORTED);
}

/* ---- the comparison ---------------------------------------------------------------- */

static void print_statuses(const char *name, const char *what, uint32_t statuses)
{
    if (statuses == 0)
        return;
    fprintf(stderr, "coverage: %s: %s", name, what);
    for (unsigned i = 0; i < WORDS; i++)
        if ((statuses >> i & 1) != 0)
            fprintf(stderr, " %s", words[i].word);
    fprintf(stderr, "\n");
}

static bool is_covered(const char *text, const char *declaration, const char *name,
                       const struct entry *entry)
{
    const bool fallible = strncmp(declaration, "gradreg_status", 14) == 0;
    const bool takes_nothing = strncmp(strchr(declaration, '('), "(void)", 6) == 0;
    const uint32_t documented = fallible ? promised(text, declaration) : bit_of(GRADREG_OK);
    const uint32_t seen = entry == NULL ? 0 : entry->seen;
    const uint32_t missing = documented & ~elsewhere() & ~seen;
    const uint32_t surprising = seen & ~(documented | promised_to_all());
    const bool no_row = !takes_nothing && (entry == NULL || entry->bad_inputs == 0);

    print_statuses(name, "never gave", missing);
    print_statuses(name, "gave what its documentation does not name:", surprising);
    if (no_row)
        fprintf(stderr, "coverage: %s: no bad input\n", name);
    return missing == 0 && surprising == 0 && !no_row;
}

bool coverage_complete_of(const char *header_path, bool (*covers)(const char *name))
{
    char *text = read_text(header_path);
    unsigned functions = 0, inputs = 0;
    bool complete = true;

    for (const char *at = text; (at = next_declaration(at)) != NULL;) {
        char name[NAME_BYTES] = "";
        size_t length;
        const char *found = declared_name(at, &length);
        memcpy(name, found, length < NAME_BYTES ? length : NAME_BYTES - 1);
        if (!covers(name))
            continue;
        const struct entry *entry = find(found, length);
        functions++;
        complete = is_covered(text, at, name, entry) && complete;
        inputs += entry == NULL ? 0 : entry->bad_inputs;
    }
    printf(on_cuda() ? "%u functions were given %u bad inputs there\n"
                     : "%u functions, %u bad inputs\n",
           functions, inputs);
    free(text);
    return complete && functions > 0;
}

/* Whether a call queues work or waits for it. */
static bool has_stream(const char *text, const char *declaration)
{
    const char *label = find_within(comment_before(text, declaration), declaration, "Stream:");
    if (label == NULL)
        stop("documentation without Stream:");
    label += strlen("Stream:");
    label += strspn(label, " ");
    return strncmp(label, "queued", 6) == 0 || strncmp(label, "waits", 5) == 0;
}

bool coverage_of_device(const char *header_path, bool (*lets_go)(const char *name))
{
    char *text = read_text(header_path);
    unsigned functions = 0;
    bool complete = true;

    for (const char *at = text; (at = next_declaration(at)) != NULL;) {
        size_t length;
        const char *found = declared_name(at, &length);
        const struct entry *entry = find(found, length);
        if (entry == NULL)
            continue;
        const uint32_t device = bit_of(GRADREG_ERROR_DEVICE);
        const uint32_t documented = promised(text, at) | (has_stream(text, at) ? device : 0);
        const uint32_t surprising = entry->seen & ~(documented | promised_to_all() | device);
        const uint32_t missing =
            lets_go(entry->name) ? 0 : documented & elsewhere() & ~entry->seen;
        print_statuses(entry->name, "never gave", missing);
        print_statuses(entry->name, "gave what its documentation does not name:", surprising);
        complete = complete && missing == 0 && surprising == 0;
        functions += documented & elsewhere() ? 1 : 0;
    }
    printf("%u functions gave what a device's failure is\n", functions);
    free(text);
    return complete && functions > 0;
}
