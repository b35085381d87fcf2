/* checkpoint.h - named parts in one file, whole or not at all.
 *
 *      "GRSTUDY1" | parts | { name[16] bytes } ... | data ... | FNV-1a of all that
 *
 * A file is written next to its place, forced to the disk, and only then moved there: whatever
 * happens, the place holds the old file or the new one. Byte order is the machine's. */
#ifndef STUDY_CHECKPOINT_H
#define STUDY_CHECKPOINT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model.h"

struct part {
    const char *name; /* at most 15 characters */
    void *data;
    size_t bytes;
};

/* Ends the program with a sentence when the file cannot be written; an older one is then as it was. */
void checkpoint_save(const char *path, const struct part *parts, size_t count);

/* Fills the parts. False when there is no such file; ends the program when it is damaged, or has not
 * got a part of that name and size. */
bool checkpoint_load(const char *path, const struct part *parts, size_t count);

/* A model of the shape and with the parameters that a checkpoint holds. Fails without the file. */
struct model *checkpoint_model(const char *path, bool bf16);
void checkpoint_save_model(const char *path, struct model *model);

#endif
