/* bad_rows.c - see bad_rows.h. */
#include "bad_rows.h"

#include <string.h>

#define BOTH_FORMS(...)                 \
    { .pointers = false, __VA_ARGS__ }, \
    {                                   \
        .pointers = true, __VA_ARGS__   \
    }
static const struct mode modes[BAD_MODES] = {
    BOTH_FORMS(.name = "plain"),
    BOTH_FORMS(.name = "central, adds", .difference = GRADREG_DIFFERENCE_CENTRAL,
               .second_gradient = GRADREG_SECOND_GRADIENT_ADDS),
    BOTH_FORMS(.name = "keeps, elsewhere, caller's direction",
               .first_gradient = GRADREG_FIRST_GRADIENT_CALLER_KEEPS,
               .placement = GRADREG_PLACEMENT_OUT_OF_PLACE,
               .direction = GRADREG_DIRECTION_CALLER),
    BOTH_FORMS(.name = "central, keeps, master, adds", .difference = GRADREG_DIFFERENCE_CENTRAL,
               .first_gradient = GRADREG_FIRST_GRADIENT_CALLER_KEEPS,
               .second_gradient = GRADREG_SECOND_GRADIENT_ADDS,
               .restore = GRADREG_RESTORE_MASTER, .direction = GRADREG_DIRECTION_CALLER),
    BOTH_FORMS(.name = "interval", .interval = 2),
    BOTH_FORMS(.name = "interval, keeps", .interval = 2,
               .first_gradient = GRADREG_FIRST_GRADIENT_CALLER_KEEPS),
    { .name = "declared slice", .slice_begin = 8, .slice_count = CALLER_ELEMENTS },
};

bool bad_row(struct row *row, int i)
{
    row->mode = &modes[i / CALLS];
    row->call = (enum call)(i % CALLS);
    if (!caller_can(row->mode, row->call))
        return false;
    row->undisturbed = caller_undisturbed(row->mode, row->call);
    return true;
}

bool bad_row_needs(const struct row *row, enum field field)
{
    return (caller_needs(row->mode, row->call) >> field & 1) != 0;
}

bool begins_a_step(enum call call)
{
    return call == INJECT_NOISE || call == PERTURB || call == SUGGEST_EPSILON;
}

struct caller *bad_row_begin(const struct row *row)
{
    struct caller *c = caller_open(row->mode);
    caller_lead_to(c, row->call);
    return c;
}

/* Everything good again: the step ends as it would have. */
static void go_on(struct caller *c, const struct row *row, const struct belongings *good)
{
    memcpy(&c->own, good, sizeof(c->own));
    ck_assert_msg(caller_go_on(c) == row->undisturbed, "%s, %s: other bits after %s",
                  row->mode->name, call_name(row->call), c->what);
    caller_close(c);
}

void bad_row_refuses(const struct row *row, const struct defect *defect,
                     void (*spoil_buffers)(struct caller *c, const struct defect *defect))
{
    static struct belongings good;
    struct caller *c = bad_row_begin(row);

    memcpy(&good, &c->own, sizeof(good));
    spoil_buffers(c, defect);
    assert_refused(c, call_name(row->call), defect->what, caller_do(c, row->call), defect->want,
                   defect->words[0], defect->words[1]);
    go_on(c, row, &good);
}
