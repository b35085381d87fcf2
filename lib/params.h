/* params.h - structs that a caller of another age has compiled.
 *
 * In: a caller's struct that begins with uint32_t struct_size, or a place for one. Out: a struct
 * of this version's size with every field decided, or a sentence that names the argument.
 *
 *      older caller    [ known fields ]              the rest keeps its defaults
 *      this version    [ known fields              ]
 *      newer caller    [ known fields              | tail ]   fine while the tail is zero */
#ifndef GRADREG_LIB_PARAMS_H
#define GRADREG_LIB_PARAMS_H

#include "gradreg.h"

#include <stddef.h>

/* No struct of any version is larger: above it struct_size is garbage, and reading that far for
 * a tail could leave the caller's memory. */
#define GR_STRUCT_SIZE_LIMIT 4096

/* Copies what the caller knows over the defaults that stand in *out. `known` is the size in this
 * version, `minimum` the size in the first version that had the struct. Then out->struct_size is
 * `known`. INVALID_ARGUMENT for a struct that no version had, UNSUPPORTED for a field that this
 * version does not know; *out is untouched after both. `argument` is the name in sentences. */
gradreg_status gradreg_i_struct_read(void *out, size_t known, size_t minimum,
                                     const void *caller, const char *argument);

/* Behind every *_init: as many of the defaults as an older caller has room for, a zeroed tail for newer
 * ones, and their struct_size. Structs without a struct_size (minimum 0) have one size for ever. */
gradreg_status gradreg_i_struct_init(void *out, size_t struct_size, const void *defaults,
                                     size_t known, size_t minimum);

/* For structs that the library fills: whether the caller's struct_size is possible at all. */
gradreg_status gradreg_i_struct_check(const void *caller, size_t minimum, const char *argument);

/* Fills a checked struct: as much of `filled`, `known` bytes long, as the caller has room for. The
 * caller's struct_size and everything that this version does not know stay as they are. */
void gradreg_i_struct_write(void *caller, const void *filled, size_t known);

#endif
