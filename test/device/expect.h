/* expect.h - what programs that check a stand-in for a GPU share: a sentence per expectation.
 *
 * In: whether it holds. Out: how many there were and how many do not hold, each of these on stderr. */
#ifndef GRADREG_TEST_DEVICE_EXPECT_H
#define GRADREG_TEST_DEVICE_EXPECT_H

#include <cstdio>
#include <string>

inline int expectations, failures;

inline void expect(bool holds, const std::string &what)
{
    expectations++;
    if (!holds) {
        failures++;
        std::fprintf(stderr, "not so: %s\n", what.c_str());
    }
}

/* The exit status, after a line such as "NAME: 12 of 12 expectations hold". */
inline int told(const char *name, const std::string &more)
{
    std::printf("%s: %d of %d expectations hold%s\n", name, expectations - failures,
                expectations, more.c_str());
    return failures == 0 ? 0 : 1;
}

#endif
