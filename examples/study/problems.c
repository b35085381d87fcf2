/* problems.c - making problems and checking answers. */
#include "problems.h"

enum { STRIDE = DIGITS + 1 }; /* a number and the sign behind it */

static uint64_t mixed(uint64_t value)
{
    struct random random = { value * 0x9e3779b97f4a7c15U };
    return random_bits(&random);
}

bool held_out_total(int total)
{
    return mixed((uint64_t)total) % 5 == 0;
}

bool held_out_pair(int first, int second)
{
    return mixed((uint64_t)(first * NUMBERS + second) + 0x10000000U) % 8 == 0;
}

/* ------------------------------------------------------------------ text */

size_t problem_prompt_length(enum problem_kind kind)
{
    return kind == SPLIT ? STRIDE : 2 * STRIDE;
}

static void put(int32_t *tokens, size_t place, int number, enum token sign)
{
    text_write_number(tokens + place * STRIDE, DIGITS, number);
    tokens[place * STRIDE + DIGITS] = (int32_t)sign;
}

void problem_text(int32_t tokens[SEQUENCE], const struct problem *problem)
{
    const int second = problem->total - problem->first;
    if (problem->kind == ADD) {
        put(tokens, 0, problem->first, TOKEN_PLUS);
        put(tokens, 1, second, TOKEN_EQUALS);
        put(tokens, 2, problem->total, TOKEN_END);
        return;
    }
    put(tokens, 0, problem->total, TOKEN_EQUALS);
    put(tokens, 1, problem->first, TOKEN_PLUS);
    put(tokens, 2, second, TOKEN_END);
}

/* The sum of the numbers from `place` on, or -1 when the text is not numbers, + between them and
 * the end behind the last. */
static int read_sum(const int32_t *tokens, size_t place, size_t numbers)
{
    int sum = 0;
    for (size_t i = 0; i < numbers; i++) {
        const int32_t *here = tokens + (place + i) * STRIDE;
        const int number = text_read_number(here, DIGITS);
        if (number < 0 || here[DIGITS] != (i + 1 < numbers ? TOKEN_PLUS : TOKEN_END))
            return -1;
        sum += number;
    }
    return sum;
}

bool problem_solved(const struct problem *problem, const int32_t tokens[SEQUENCE])
{
    if (problem->kind == ADD)
        return read_sum(tokens, 2, 1) == problem->total;
    return read_sum(tokens, 1, 2) == problem->total;
}

size_t answer_length(enum problem_kind kind, const int32_t tokens[SEQUENCE])
{
    const size_t begin = problem_prompt_length(kind);
    size_t i = begin;
    while (i < SEQUENCE && tokens[i] != TOKEN_END)
        i++;
    return (i < SEQUENCE ? i + 1 : SEQUENCE) - begin;
}

struct ease answer_ease(const int32_t tokens[SEQUENCE])
{
    struct ease ease = { 0, 0 };
    int carry = 0;
    for (size_t place = 1; place < 3; place++)
        ease.zero_terms += text_read_number(tokens + place * STRIDE, DIGITS) == 0;
    for (size_t digit = 0; digit < DIGITS; digit++) {
        for (size_t place = 1; place < 3; place++)
            carry += tokens[place * STRIDE + digit];
        carry /= 10;
        ease.carries += carry > 0;
    }
    return ease;
}

/* ------------------------------------------------------------------ drawing */

static struct problem draw_total(struct random *random, bool held_out)
{
    struct problem problem = { .kind = SPLIT };
    do
        problem.total = random_below(random, NUMBERS);
    while (held_out_total(problem.total) != held_out);
    problem.first = random_below(random, problem.total + 1);
    return problem;
}

static struct problem draw_pair(struct random *random, bool held_out)
{
    struct problem problem = { .kind = ADD };
    do {
        problem.total = random_below(random, NUMBERS);
        problem.first = random_below(random, problem.total + 1);
    } while (held_out_pair(problem.first, problem.total - problem.first) != held_out);
    return problem;
}

struct problem problem_lesson(struct random *random)
{
    return random_below(random, 3) == 0 ? draw_pair(random, false) : draw_total(random, false);
}

struct problem problem_prompt(struct random *random)
{
    return draw_total(random, false);
}

void problem_set(struct problem *problems, size_t count, enum problem_kind kind, bool taught,
                 uint64_t seed)
{
    struct random random = random_for(seed, FOR_SETS, (uint64_t)kind, taught);
    for (size_t i = 0; i < count; i++) {
        problems[i] = kind == ADD ? draw_pair(&random, !taught) : draw_total(&random, !taught);
        problems[i].kind = kind;
    }
}
