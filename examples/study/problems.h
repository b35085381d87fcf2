/* problems.h - what the model is asked, and whether an answer is right. Digits lowest first.
 *
 *      SPLIT      "321="      ──► "050+370."   any two numbers that add up: 123 = 50 + 73
 *      COMPLETE   "321=050+"  ──► "370."       the first is given, at random
 *      ADD        "050+370="  ──► "321."       the other way round
 *
 * Reinforcement learning rewards SPLIT only: the domain. A model may raise that reward by learning
 * to calculate, or by learning to write sums that are easy (123 = 0 + 123). COMPLETE asks for the
 * same calculation with a number that the model did not choose; ADD was taught together with SPLIT
 * and is not rewarded: the two sets outside the domain. */
#ifndef STUDY_PROBLEMS_H
#define STUDY_PROBLEMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "random.h"
#include "text.h"

enum {
    DIGITS = 3,
    NUMBERS = 1000,
    SEQUENCE = 12, /* "321=050+370." */
    ANSWER = 8     /* the longest answer, "050+370." */
};

enum problem_kind { SPLIT, COMPLETE, ADD, PROBLEM_KINDS };

/* One in five totals, and one in eight pairs of ADD, are never taught and never rewarded. */
bool held_out_total(int total);
bool held_out_pair(int first, int second);

struct problem {
    enum problem_kind kind;
    int total, first; /* total = first + second */
};

/* Text with a right answer, padded. The answer begins at token problem_prompt_length(). */
void problem_text(int32_t tokens[SEQUENCE], const struct problem *problem);
size_t problem_prompt_length(enum problem_kind kind);

/* Is what stands behind the prompt, in a sequence that begins with the problem's prompt, a right
 * answer? */
bool problem_solved(const struct problem *problem, const int32_t tokens[SEQUENCE]);

/* How many tokens the answer has, its end included; SEQUENCE - prompt length without an end. */
size_t answer_length(enum problem_kind kind, const int32_t tokens[SEQUENCE]);

/* A lesson for supervised training: SPLIT or ADD, none that is held out. */
struct problem problem_lesson(struct random *random);
/* A SPLIT to be rewarded: a total that is not held out. */
struct problem problem_prompt(struct random *random);

/* `count` problems of a kind to be tried on: held out, or (taught) of those that are not. */
void problem_set(struct problem *problems, size_t count, enum problem_kind kind, bool taught,
                 uint64_t seed);

/* How easy a right SPLIT answer is. */
struct ease {
    int zero_terms; /* numbers that are 0 */
    int carries;    /* in the addition of the two */
};
struct ease answer_ease(const int32_t tokens[SEQUENCE]);

#endif
