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
    int optional, written; /* GR_BUFFER_ */
    const char *in_place;  /* the name of a buffer that this one may be */
} gr_buffer;

enum {
    GR_BUFFER_HOST = -1 /* read by the host, whatever the backend */,
    GR_BUFFER_READ,
    GR_BUFFER_WRITTEN
};

/* Pointers, alignment, that nothing written overlaps anything else, and that the backend reaches all of
 * it. At most 16. */
gradreg_status gradreg_i_check_buffers(gradreg_context *context, const gr_buffer *buffers,
                                       size_t count);
gradreg_status gradreg_i_check_targets(const int32_t *targets, size_t rows, size_t vocabulary);

gradreg_status gradreg_i_read_temperature(double *inverse, float temperature);
gradreg_status gradreg_i_read_logits(gr_logits_view *view, const gradreg_logits_params *caller);
size_t gradreg_i_logits_bytes(const gr_logits_view *view);

#endif
