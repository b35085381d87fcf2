/* inputs.h - words for the cases of cases.h: random ones, and what lies at the edges. */
#ifndef GRADREG_TEST_DEVICE_INPUTS_H
#define GRADREG_TEST_DEVICE_INPUTS_H

#include <cstdint>
#include <vector>

#include "cases.h"

/* The words of `items` items; the same ones for the same case every time. b is never empty. */
void fill_inputs(const device_case &which, uint32_t items, std::vector<uint64_t> *a,
                 std::vector<uint64_t> *b);

#endif
