/* standalone.h - a fuzzer's main() for compilers without libFuzzer.
 *
 * In: LLVMFuzzerTestOneInput, the words of its language in fuzz_words (ends with NULL), and
 *
 *      fuzz_NAME CORPUS [MUTATIONS [SEED]]
 *
 * Every file of the directory CORPUS is an input; then MUTATIONS changed ones follow, made from
 * SEED alone and the corpus, so that a failure comes back with the same command. Out: 0, or the
 * fuzzer's abort. Include it once, last, under GR_FUZZ_STANDALONE. */
#ifndef GRADREG_TEST_FUZZ_STANDALONE_H
#define GRADREG_TEST_FUZZ_STANDALONE_H

#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../numbers.h"

enum { FUZZ_FILES = 4096, FUZZ_BYTES = 4096 };

struct fuzz_input {
    uint8_t bytes[FUZZ_BYTES];
    size_t size;
};

static struct fuzz_input *fuzz_corpus[FUZZ_FILES];
static size_t fuzz_corpus_size;

static void fuzz_stop(const char *what, const char *which)
{
    fprintf(stderr, "%s: %s\n", which, what);
    exit(2);
}

static void fuzz_load(const char *directory, const char *name)
{
    char path[4096];
    struct fuzz_input *input = calloc(1, sizeof(*input));
    const int length = snprintf(path, sizeof(path), "%s/%s", directory, name);
    FILE *file = length < (int)sizeof(path) ? fopen(path, "rb") : NULL;

    if (input == NULL || file == NULL || fuzz_corpus_size == FUZZ_FILES)
        fuzz_stop("cannot be read, or one too many", path);
    input->size = fread(input->bytes, 1, FUZZ_BYTES, file);
    fclose(file);
    fuzz_corpus[fuzz_corpus_size++] = input;
}

static int fuzz_is_input(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

/* In the order of names: the same on every file system. */
static void fuzz_load_all(const char *directory)
{
    struct dirent **entries;
    const int count = scandir(directory, &entries, fuzz_is_input, alphasort);
    for (int i = 0; i < count; i++) {
        fuzz_load(directory, entries[i]->d_name);
        free(entries[i]);
    }
    if (count <= 0)
        fuzz_stop("no input there", directory);
    free(entries);
}

/* Replaces `removed` bytes at `at` by `count` others; what does not fit is cut off. */
static void fuzz_splice(struct fuzz_input *input, size_t at, size_t removed,
                        const uint8_t *bytes, size_t count)
{
    static uint8_t made[FUZZ_BYTES];
    const size_t after = at + removed < input->size ? input->size - at - removed : 0;
    const size_t fits = count < FUZZ_BYTES - at ? count : FUZZ_BYTES - at;
    const size_t rest = after < FUZZ_BYTES - at - fits ? after : FUZZ_BYTES - at - fits;

    memcpy(made, input->bytes, at);
    memcpy(made + at, bytes, fits);
    memcpy(made + at + fits, input->bytes + at + removed, rest);
    input->size = at + fits + rest;
    memcpy(input->bytes, made, input->size);
}

static void fuzz_insert_word(struct fuzz_input *input, size_t at, size_t removed,
                             uint64_t *state)
{
    size_t words = 0;
    while (fuzz_words[words] != NULL)
        words++;
    const char *word = fuzz_words[next_word(state) % words];
    fuzz_splice(input, at, removed, (const uint8_t *)word, strlen(word));
}

/* One change at a random place; several of them make an input. */
static void fuzz_mutate(struct fuzz_input *input, uint64_t *state)
{
    const struct fuzz_input *other = fuzz_corpus[next_word(state) % fuzz_corpus_size];
    const size_t at = input->size == 0 ? 0 : next_word(state) % input->size;
    const size_t some = next_word(state) % 16;
    const uint8_t byte = (uint8_t)next_word(state);

    switch (next_word(state) % 8) {
    case 0: fuzz_splice(input, at, 1, &byte, 1); break;
    case 1: fuzz_splice(input, at, 0, &byte, 1); break;
    case 2: fuzz_splice(input, at, some, &byte, 0); break;
    case 3: fuzz_splice(input, at, input->size, &byte, 0); break;
    case 4: fuzz_splice(input, at, input->size, other->bytes, other->size); break;
    case 5: fuzz_splice(input, at, 0, other->bytes, other->size); break;
    default: fuzz_insert_word(input, at, some < 8 ? 0 : some, state); break;
    }
}

int main(int argc, char **argv)
{
    const unsigned long mutations = argc > 2 ? strtoul(argv[2], NULL, 10) : 0;
    uint64_t state = argc > 3 ? strtoull(argv[3], NULL, 10) : 1;
    static struct fuzz_input input;

    if (argc < 2)
        fuzz_stop("usage: CORPUS [MUTATIONS [SEED]]", argv[0]);
    fuzz_load_all(argv[1]);
    for (size_t i = 0; i < fuzz_corpus_size; i++)
        LLVMFuzzerTestOneInput(fuzz_corpus[i]->bytes, fuzz_corpus[i]->size);
    for (unsigned long i = 0; i < mutations; i++) {
        input = *fuzz_corpus[next_word(&state) % fuzz_corpus_size];
        for (uint64_t changes = 1 + next_word(&state) % 5; changes > 0; changes--)
            fuzz_mutate(&input, &state);
        LLVMFuzzerTestOneInput(input.bytes, input.size);
    }
    printf("%zu inputs and %lu mutations of them\n", fuzz_corpus_size, mutations);
    for (size_t i = 0; i < fuzz_corpus_size; i++)
        free(fuzz_corpus[i]);
    return 0;
}

#endif
