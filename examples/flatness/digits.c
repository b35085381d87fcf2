/* digits.c - draws the pictures: glyph, place, brightness, blur, noise; label, label noise. */
#include "digits.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "random.h"

enum { GLYPH_ROWS = 6, GLYPH_COLUMNS = 5 };

static const char *const glyphs[DIGITS][GLYPH_ROWS] = {
    { ".###.", "#...#", "#...#", "#...#", "#...#", ".###." },
    { "..#..", ".##..", "..#..", "..#..", "..#..", ".###." },
    { ".###.", "#...#", "...#.", "..#..", ".#...", "#####" },
    { "####.", "....#", "..##.", "....#", "....#", "####." },
    { "...#.", "..##.", ".#.#.", "#####", "...#.", "...#." },
    { "#####", "#....", "####.", "....#", "....#", "####." },
    { ".###.", "#....", "####.", "#...#", "#...#", ".###." },
    { "#####", "....#", "...#.", "..#..", ".#...", ".#..." },
    { ".###.", "#...#", ".###.", "#...#", "#...#", ".###." },
    { ".###.", "#...#", ".####", "....#", "...#.", ".##.." },
};

struct examples *examples_new(size_t count, size_t size)
{
    struct examples *examples = calloc(1, sizeof(*examples));
    if (examples == NULL)
        return NULL;
    examples->count = count;
    examples->size = size;
    examples->inputs = calloc(count * size, sizeof(*examples->inputs));
    examples->labels = calloc(count, sizeof(*examples->labels));
    if (examples->inputs == NULL || examples->labels == NULL) {
        examples_free(examples);
        return NULL;
    }
    return examples;
}

void examples_free(struct examples *examples)
{
    if (examples == NULL)
        return;
    free(examples->inputs);
    free(examples->labels);
    free(examples);
}

/* Ink of the glyph that sits at (top, left); 0 outside. */
static double ink(const char *const *glyph, ptrdiff_t row, ptrdiff_t column)
{
    const bool inside = row >= 0 && row < GLYPH_ROWS && column >= 0 && column < GLYPH_COLUMNS;
    return inside && glyph[row][column] == '#' ? 1.0 : 0.0;
}

static void draw_picture(float *picture, size_t digit, struct random *random)
{
    const char *const *glyph = glyphs[digit];
    const ptrdiff_t top = (ptrdiff_t)random_below(random, PICTURE_SIDE - GLYPH_ROWS + 1);
    const ptrdiff_t left = (ptrdiff_t)random_below(random, PICTURE_SIDE - GLYPH_COLUMNS + 1);
    const double brightness = 0.7 + 0.6 * random_uniform(random);
    const double blur = 0.4 * random_uniform(random);

    for (ptrdiff_t row = 0; row < PICTURE_SIDE; row++)
        for (ptrdiff_t column = 0; column < PICTURE_SIDE; column++) {
            const ptrdiff_t r = row - top, c = column - left;
            const double neighbours = ink(glyph, r - 1, c) + ink(glyph, r + 1, c) +
                                      ink(glyph, r, c - 1) + ink(glyph, r, c + 1);
            const double shade = (1.0 - blur) * ink(glyph, r, c) + blur * 0.25 * neighbours;
            const double value = 2.0 * brightness * shade - 0.5 + 0.35 * random_normal(random);
            picture[row * PICTURE_SIDE + column] = (float)value;
        }
}

struct examples *digits_draw(size_t count, double label_noise, uint64_t seed)
{
    struct examples *examples = examples_new(count, PICTURE_PIXELS);
    if (examples == NULL)
        return NULL;
    struct random random = random_seeded(seed, 1);
    for (size_t i = 0; i < count; i++) {
        size_t digit = i % DIGITS;
        draw_picture(examples->inputs + i * PICTURE_PIXELS, digit, &random);
        if (random_uniform(&random) < label_noise)
            digit = (digit + 1 + random_below(&random, DIGITS - 1)) % DIGITS;
        examples->labels[i] = (uint8_t)digit;
    }
    return examples;
}

static char shade_character(float value)
{
    static const char shades[] = " .:*#";
    const int last = (int)sizeof(shades) - 2;
    const int shade = (int)((value + 0.5f) * (float)last / 2.0f + 0.5f);
    return shades[shade < 0 ? 0 : shade > last ? last : shade];
}

void digits_show(const struct examples *examples, size_t count)
{
    for (size_t row = 0; row < PICTURE_SIDE; row++) {
        for (size_t i = 0; i < count; i++) {
            printf("  ");
            for (size_t column = 0; column < PICTURE_SIDE; column++)
                putchar(shade_character(
                    examples->inputs[i * PICTURE_PIXELS + row * PICTURE_SIDE + column]));
        }
        putchar('\n');
    }
    for (size_t i = 0; i < count; i++)
        printf("  label %d ", examples->labels[i]);
    putchar('\n');
}
