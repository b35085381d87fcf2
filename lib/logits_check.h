/* logits_check.h - checks that the calls over logits share.
 *
 * In: a caller's params and pointers. Out: plain numbers, or a sentence that names the argument. */
#ifndef GRADREG_LIB_LOGITS_CHECK_H
#define GRADREG_LIB_LOGITS_CHECK_H

#include "logits_data.h"

/* One buffer of a call. */
typedef struct gr_buffer {
    const char *name;
    const void *at;
    size_t bytes, alignment;
    int optional, written;
    const char *in_place; /* the name of a buffer that this one may be */
} gr_buffer;

/* Pointers, alignment, and that nothing written overlaps anything else. */
gradreg_status gradreg_i_check_buffers(const gr_buffer *buffers, size_t count);
gradreg_status gradreg_i_check_targets(const int32_t *targets, size_t rows, size_t vocabulary);

gradreg_status gradreg_i_read_temperature(double *inverse, float temperature);
gradreg_status gradreg_i_read_logits(gr_logits_view *view, const gradreg_logits_params *caller);
size_t gradreg_i_logits_bytes(const gr_logits_view *view);
size_t gradreg_i_element_bytes(gradreg_type type);

#endif
