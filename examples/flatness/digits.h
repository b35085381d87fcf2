/* digits.h - the data: pictures of digits drawn by code, 8 x 8 pixels, ten classes.
 *
 *      glyph ──► placed at random ──► brightness, blur, pixel noise ──► picture
 *      digit ──► with probability label_noise another digit           ──► label
 *
 * Noisy labels make the task one where flatness matters: a network can reach a low training loss
 * only by learning some wrong labels by heart, and does so with sharp corners in its loss. */
#ifndef FLATNESS_DIGITS_H
#define FLATNESS_DIGITS_H

#include <stddef.h>
#include <stdint.h>

enum { PICTURE_SIDE = 8, PICTURE_PIXELS = PICTURE_SIDE * PICTURE_SIDE, DIGITS = 10 };

/* `count` inputs of `size` numbers each, one after the other, and their classes. */
struct examples {
    size_t count, size;
    float *inputs;
    uint8_t *labels;
};

/* Both return NULL when memory is short; free with examples_free(). */
struct examples *examples_new(size_t count, size_t size);
struct examples *digits_draw(size_t count, double label_noise, uint64_t seed);
void examples_free(struct examples *examples);

/* A few pictures side by side on the terminal, their labels below. */
void digits_show(const struct examples *examples, size_t count);

#endif
