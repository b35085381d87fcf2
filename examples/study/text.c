/* text.c - characters to tokens and back. */
#include "text.h"

#include <string.h>

static const char alphabet[] = "0123456789+=._";

size_t text_encode(int32_t *tokens, size_t limit, const char *text)
{
    const size_t count = strlen(text);
    if (count > limit)
        return 0;
    for (size_t i = 0; i < count; i++) {
        const char *found = strchr(alphabet, text[i]);
        if (found == NULL)
            return 0;
        tokens[i] = (int32_t)(found - alphabet);
    }
    return count;
}

void text_decode(char *text, const int32_t *tokens, size_t count)
{
    for (size_t i = 0; i < count; i++)
        text[i] = tokens[i] >= 0 && tokens[i] < VOCABULARY ? alphabet[tokens[i]] : '?';
    text[count] = '\0';
}

void text_write_number(int32_t *tokens, size_t digits, int number)
{
    for (size_t i = 0; i < digits; i++, number /= 10)
        tokens[i] = number % 10;
}

int text_read_number(const int32_t *tokens, size_t digits)
{
    int number = 0;
    for (size_t i = digits; i-- > 0;) {
        if (tokens[i] < 0 || tokens[i] > 9)
            return -1;
        number = 10 * number + tokens[i];
    }
    return number;
}
