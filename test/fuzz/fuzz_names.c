/* fuzz_names.c - any bytes as a parameter's name.
 *
 * In: bytes; those before the first zero are the name. Out: an abort, with the name, when an
 * answer is impossible or does not keep what every name keeps: a wrapper in front and a dot
 * behind change nothing, a tower in front makes it unknown, a block in front gives the layer.
 *
 *      clang -fsanitize=fuzzer,address,undefined -Iinclude -Ilib test/fuzz/fuzz_names.c \
 *          lib/layers.c lib/status.c
 *
 * or any compiler with -DGR_FUZZ_STANDALONE (standalone.h). */
#ifdef GR_FUZZ_STANDALONE
#define _POSIX_C_SOURCE 200809L /* scandir */
#endif

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gradreg.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct answer {
    int32_t layer;
    uint32_t role;
};

static const struct answer unknown = { GRADREG_LAYER_NONE, GRADREG_ROLE_OTHER };

static void complain(const char *name, const char *what, struct answer got)
{
    fprintf(stderr, "%s: layer %d, role %u for \"%s\"\n", what, (int)got.layer,
            (unsigned)got.role, name);
    abort();
}

static struct answer classify(const char *name)
{
    struct answer got = { -99, 0 };
    if (gradreg_segment_classify(&got.layer, &got.role, name) != GRADREG_OK)
        complain(name, "refused", got);
    if (got.layer < GRADREG_LAYER_STACKED || got.role == 0 || got.role > GRADREG_ROLE_OTHER ||
        (got.role & (got.role - 1)) != 0)
        complain(name, "impossible", got);
    return got;
}

/* In memory that ends with the name. */
static struct answer classify_around(const char *before, const char *name, const char *behind)
{
    const size_t length = strlen(before) + strlen(name) + strlen(behind);
    char *joined = malloc(length + 1);
    if (joined == NULL)
        abort();
    snprintf(joined, length + 1, "%s%s%s", before, name, behind);
    const struct answer got = classify(joined);
    free(joined);
    return got;
}

static void expect(const char *name, const char *what, struct answer got, struct answer want)
{
    if (got.layer != want.layer || got.role != want.role)
        complain(name, what, got);
}

static void check_name(const char *name)
{
    const struct answer alone = classify(name);
    expect(name, "wrapped", classify_around("module._orig_mod.", name, ""), alone);
    expect(name, "with a dot", classify_around("", name, "."), alone);
    expect(name, "in a tower", classify_around("visual.", name, ""), unknown);

    const struct answer inside = classify_around("h.7.", name, "");
    if (inside.layer != 7)
        complain(name, "in block 7", inside);
}

static void check_empty(void)
{
    struct answer got = { -99, 99 };
    if (gradreg_segment_classify(&got.layer, &got.role, "") != GRADREG_ERROR_INVALID_ARGUMENT ||
        got.layer != -99 || got.role != 99)
        complain("", "not refused", got);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *name = malloc(size + 1);
    if (name == NULL)
        abort();
    if (size > 0)
        memcpy(name, data, size);
    name[size] = '\0';
    if (name[0] == '\0')
        check_empty();
    else
        check_name(name);
    free(name);
    return 0;
}

#ifdef GR_FUZZ_STANDALONE
static const char *const fuzz_words[] = {
    ".",
    ".layers.",
    ".layer.",
    ".h.",
    ".blocks.",
    "0.",
    "17.",
    "2147483647",
    "4294967296.",
    "module.",
    "_orig_mod.",
    "base_layer.",
    "_fsdp_wrapped_module.",
    "_flat_param",
    "lora_A.",
    "default.",
    "modules_to_save.",
    "original_module.",
    "self_attn.",
    "attention.",
    "mlp.",
    "output.",
    "experts.",
    "norm.",
    "LayerNorm.",
    "ln_",
    "embed_tokens.",
    "lm_head.",
    "score.",
    "wte",
    "qkvw",
    "visual.",
    "weight",
    "bias",
    "relative_attention_bias.",
    "inv_freq",
    "model.",
    "dense.",
    "\xc3\xa9",
    NULL,
};
#include "standalone.h"
#endif
