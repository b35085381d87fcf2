/* presets.c - what every preset of the policy losses is made of, as the table of docs/losses.md.
 *
 *      presets            the table
 *      presets NAME       one preset, field by field */
#include <stdio.h>
#include <stdlib.h>

#include "gradreg.h"

static const char *const ratios[] = { "", "r of the token", "s of the sequence",
                                      "s, moving as r" };
static const char *const surrogates[] = { "",          "clipped",        "clipped weight",
                                          "soft gate", "geometric mean", "plain" };
static const char *const aggregations[] = {
    "", "1 / (B n)", "1 / N", "1 / (B L)", "1 / B", "n / (B n)", "1 / (P n of the prompt)"
};

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
                            ? ratios[2]
                            : ratios[p.ratio_level];
    printf("| `%s` | %s | %s | ", name, ratio, surrogates[p.surrogate]);
    print_range(&p);
    printf(" | ");
    print_limits(&p);
    printf(" | %s | %s |\n", aggregations[p.aggregation], p.count_empty_rows ? "yes" : "no");
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
