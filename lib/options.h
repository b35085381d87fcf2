/* options.h - the regularizer's parameters, checked and completed.
 *
 * In: what the caller wrote. Out: the same struct with every default filled in, every field legal
 * and every combination that this version refuses refused, so that nobody behind asks again. */
#ifndef GRADREG_LIB_OPTIONS_H
#define GRADREG_LIB_OPTIONS_H

#include "gradreg.h"

gradreg_status gradreg_i_options_read(gradreg_regularizer_params *out,
                                      const gradreg_regularizer_params *caller);

/* Modes that are legal and probably not meant. */
void gradreg_i_options_remark(gradreg_context *context,
                              const gradreg_regularizer_params *options);

/* Whether a pair of element types is among those that kernels exist for. */
int gradreg_i_type_pair_known(gradreg_type param_type, gradreg_type grad_type);
const char *gradreg_i_type_name(gradreg_type type);

#endif
