/* presets.c - what every preset of the policy losses is made of, as the table of docs/losses.md.
 *
 *      presets            the table
 *      presets NAME       one preset, field by field */
#include <stdio.h>
#include <stdlib.h>

#include "gradreg.h"

static const char *const ratios[] = {
    [GRADREG_RATIO_TOKEN] = "r of the token",
    [GRADREG_RATIO_SEQUENCE] = "s of the sequence",
    [GRADREG_RATIO_SEQUENCE_TOKEN] = "s, moving as r",
};
static const char *const surrogates[] = {
    [GRADREG_SURROGATE_CLIPPED] = "clipped",
    [GRADREG_SURROGATE_CLIPPED_WEIGHT] = "clipped weight",
    [GRADREG_SURROGATE_SOFT_GATE] = "soft gate",
    [GRADREG_SURROGATE_GEOMETRIC_MEAN] = "geometric mean",
    [GRADREG_SURROGATE_PLAIN] = "plain",
};
static const char *const aggregations[] = {
    [GRADREG_AGGREGATE_SEQUENCE_MEAN] = "1 / (B n)",
    [GRADREG_AGGREGATE_TOKEN_MEAN] = "1 / N",
    [GRADREG_AGGREGATE_CONSTANT] = "1 / (B L)",
    [GRADREG_AGGREGATE_SEQUENCE_SUM] = "1 / B",
    [GRADREG_AGGREGATE_LENGTH_WEIGHTED] = "n / (B n)",
    [GRADREG_AGGREGATE_PROMPT_MEAN] = "1 / (P n of the prompt)",
};

/* A library of another age may have constants that these tables lack. */
static const char *name_of(const char *const *names, size_t count, int32_t constant)
{
    if (constant < 0 || (size_t)constant >= count || names[constant] == NULL) {
        fprintf(stderr, "no name for constant %d: this program is older than its library\n",
                (int)constant);
        exit(EXIT_FAILURE);
    }
    return names[constant];
}
#define NAME_OF(names, constant) name_of(names, sizeof(names) / sizeof(*(names)), constant)

static gradreg_policy preset(const char *name)
{
    gradreg_policy p;
    if (gradreg_policy_preset(&p, name) != GRADREG_OK) {
        fprintf(stderr, "%s\n", gradreg_last_error());
        exit(EXIT_FAILURE);
    }
    return p;
}

/* What the surrogate makes of which range. */
static void print_range(const gradreg_policy *p)
{
    switch (p->surrogate) {
    case GRADREG_SURROGATE_PLAIN: printf("none"); break;
    case GRADREG_SURROGATE_SOFT_GATE:
        printf("tau %g, %g", p->gate_positive, p->gate_negative);
        break;
    case GRADREG_SURROGATE_GEOMETRIC_MEAN:
        printf("d in [%g, %g]", -p->clip_low, p->clip_high);
        break;
    default: printf("[%g, %g]", 1.0 - p->clip_low, 1.0 + p->clip_high);
    }
}

static void print_limits(const gradreg_policy *p)
{
    if (p->dual_clip > 0.0)
        printf("dual clip %g", p->dual_clip);
    if (p->log_ratio_limit > 0.0)
        printf("%slog ratio %g", p->dual_clip > 0.0 ? ", " : "", p->log_ratio_limit);
}

static void print_row(const char *name)
{
    const gradreg_policy p = preset(name);
    /* A plain surrogate has no ratio in it, and a geometric mean is the sequence's. */
    const char *ratio = p.surrogate == GRADREG_SURROGATE_PLAIN ? "-"
                        : p.surrogate == GRADREG_SURROGATE_GEOMETRIC_MEAN
                            ? NAME_OF(ratios, GRADREG_RATIO_SEQUENCE)
                            : NAME_OF(ratios, p.ratio_level);
    printf("| `%s` | %s | %s | ", name, ratio, NAME_OF(surrogates, p.surrogate));
    print_range(&p);
    printf(" | ");
    print_limits(&p);
    printf(" | %s | %s |\n", NAME_OF(aggregations, p.aggregation),
           p.count_empty_rows ? "yes" : "no");
}

static void print_fields(const char *name)
{
    const gradreg_policy p = preset(name);
    printf("ratio_level       %d\nsurrogate         %d\naggregation       %d\n"
           "clip_low          %g\nclip_high         %g\ndual_clip         %g\n"
           "gate_positive     %g\ngate_negative     %g\nlog_ratio_limit   %g\n"
           "count_empty_rows  %d\n",
           p.ratio_level, p.surrogate, p.aggregation, p.clip_low, p.clip_high, p.dual_clip,
           p.gate_positive, p.gate_negative, p.log_ratio_limit, p.count_empty_rows);
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        print_fields(argv[1]);
        return 0;
    }
    printf("| preset | ratio | surrogate | range | limits | weight of a token | empty rows in "
           "B |\n"
           "|---|---|---|---|---|---|---|\n");
    for (size_t i = 0; gradreg_policy_preset_name(i) != NULL; i++)
        print_row(gradreg_policy_preset_name(i));
    return 0;
}
