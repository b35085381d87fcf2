/* text.h - the tokenizer: one token a character, in an alphabet of digits and three signs.
 *
 *      "321=050+370."    123 = 50 + 73: digits come lowest first, so that the model can carry as
 *                        it writes */
#ifndef STUDY_TEXT_H
#define STUDY_TEXT_H

#include <stddef.h>
#include <stdint.h>

enum token {
    TOKEN_PLUS = 10, /* 0 .. 9 are the digits */
    TOKEN_EQUALS,
    TOKEN_END, /* "." ends an answer */
    TOKEN_PAD, /* after the end; shown as "_" */
    VOCABULARY
};

/* How many tokens were written, or 0 when a character is not of the alphabet or there are more
 * than `limit`. */
size_t text_encode(int32_t *tokens, size_t limit, const char *text);

/* text: count + 1 characters. */
void text_decode(char *text, const int32_t *tokens, size_t count);

/* A number of `digits` digits, lowest first; and back: -1 when one of them is not a digit. */
void text_write_number(int32_t *tokens, size_t digits, int number);
int text_read_number(const int32_t *tokens, size_t digits);

#endif
