/* layers.c - layer and role of a parameter from its name.
 *
 * In: a name of words and dots, "model.layers.7.self_attn.q_proj.weight". Out: 7, ATTENTION.
 *
 * A name is read once, from left to right. A word that no table below lists says nothing, so
 * prefixes like "model." or "policy." need no table. Wrappers (FSDP, LoRA, ...) are taken out
 * first; then three things decide, each where docs/layers.md shows it:
 *
 *      prefix ── outside words ──► EMBEDDING, HEAD, stacked; a tower's word: unknown
 *        │
 *      layers.7  the block index
 *        │
 *      rest ──── block words ────► ATTENTION, MLP: the first one listed
 *        │
 *      ending ── norm, table ────► NORM, EMBEDDING, OTHER, whatever stood before it */
#include <stdbool.h>
#include <string.h>

#include "gradreg.h"
#include "status.h"

struct word {
    const char *text;
    size_t length;
};

struct meaning {
    const char *word;
    uint32_t role;
};

/* ---- tables ---------------------------------------------------------------------- */
/* Each ends with NULL. */

/* Modules that stand for the one they wrap. */
static const char *const wrappers[] = {
    "module",                     /* DistributedDataParallel, DeepSpeed, Megatron */
    "_orig_mod",                  /* torch.compile */
    "_fsdp_wrapped_module",       /* FullyShardedDataParallel */
    "_checkpoint_wrapped_module", /* activation checkpointing */
    "base_layer",                 /* PEFT: the layer under an adapter */
    "original_module",            /* PEFT: what modules_to_save had copied */
    NULL,
};

/* "N" after one of these is the index of a block. */
static const char *const containers[] = { "layers", "layer", "h", "blocks", "block", NULL };

/* Parts that have blocks of their own, which are not the language model's: any word in front
 * of the block that contains one of the first list or is one of the second. */
static const char *const tower_parts[] = { "vision", "visual", "image",       "video",
                                           "audio",  "speech", "multi_modal", NULL };
static const char *const towers[] = { "vit", "qformer", "perceiver", "resampler", "mtp", NULL };

/* Outside the blocks. */
static const struct meaning outside_words[] = {
    { "embed_tokens", GRADREG_ROLE_EMBEDDING },
    { "embed_tokens_per_layer", GRADREG_ROLE_EMBEDDING },
    { "embed_positions", GRADREG_ROLE_EMBEDDING },
    { "embed_in", GRADREG_ROLE_EMBEDDING },
    { "embeddings", GRADREG_ROLE_EMBEDDING },
    { "embedding", GRADREG_ROLE_EMBEDDING },
    { "word_embeddings", GRADREG_ROLE_EMBEDDING },
    { "position_embeddings", GRADREG_ROLE_EMBEDDING },
    { "tok_embeddings", GRADREG_ROLE_EMBEDDING },
    { "wte", GRADREG_ROLE_EMBEDDING },
    { "wpe", GRADREG_ROLE_EMBEDDING },
    { "project_in", GRADREG_ROLE_EMBEDDING }, /* OPT: a table's factor */
    { "lm_head", GRADREG_ROLE_HEAD },
    { "embed_out", GRADREG_ROLE_HEAD },
    { "project_out", GRADREG_ROLE_HEAD },
    { "output", GRADREG_ROLE_HEAD },
    { "output_layer", GRADREG_ROLE_HEAD },
    { "cls", GRADREG_ROLE_HEAD },
    { "pooler", GRADREG_ROLE_HEAD },
    { "classifier", GRADREG_ROLE_HEAD },
    { "qa_outputs", GRADREG_ROLE_HEAD },
    { "score", GRADREG_ROLE_HEAD },
    { "v_head", GRADREG_ROLE_HEAD },
    { "value_head", GRADREG_ROLE_HEAD },
    { "reward_head", GRADREG_ROLE_HEAD },
    { "lnfw", GRADREG_ROLE_NORM }, /* llm.c, as its wte and wpe above */
    { "lnfb", GRADREG_ROLE_NORM },
    { NULL, 0 },
};

/* llm.c's other tensors: each holds every layer. */
static const struct meaning stacked_words[] = {
    { "ln1w", GRADREG_ROLE_NORM },
    { "ln1b", GRADREG_ROLE_NORM },
    { "qkvw", GRADREG_ROLE_ATTENTION },
    { "qkvb", GRADREG_ROLE_ATTENTION },
    { "attprojw", GRADREG_ROLE_ATTENTION },
    { "attprojb", GRADREG_ROLE_ATTENTION },
    { "ln2w", GRADREG_ROLE_NORM },
    { "ln2b", GRADREG_ROLE_NORM },
    { "fcw", GRADREG_ROLE_MLP },
    { "fcb", GRADREG_ROLE_MLP },
    { "fcprojw", GRADREG_ROLE_MLP },
    { "fcprojb", GRADREG_ROLE_MLP },
    { NULL, 0 },
};

/* Inside a block, where the index gives the layer. */
static const struct meaning block_words[] = {
    { "self_attn", GRADREG_ROLE_ATTENTION },
    { "attn", GRADREG_ROLE_ATTENTION },
    { "self_attention", GRADREG_ROLE_ATTENTION },
    { "attention", GRADREG_ROLE_ATTENTION },
    { "linear_attn", GRADREG_ROLE_ATTENTION },
    { "cross_attn", GRADREG_ROLE_ATTENTION },
    { "encoder_attn", GRADREG_ROLE_ATTENTION },
    { "crossattention", GRADREG_ROLE_ATTENTION },
    { "mlp", GRADREG_ROLE_MLP },
    { "feed_forward", GRADREG_ROLE_MLP },
    { "ffn", GRADREG_ROLE_MLP },
    { "fc1", GRADREG_ROLE_MLP },
    { "fc2", GRADREG_ROLE_MLP },
    { "intermediate", GRADREG_ROLE_MLP }, /* BERT, as the next */
    { "output", GRADREG_ROLE_MLP },
    { "block_sparse_moe", GRADREG_ROLE_MLP },
    { "moe", GRADREG_ROLE_MLP },
    { "shared_mlp", GRADREG_ROLE_MLP },
    { "experts", GRADREG_ROLE_MLP },
    { "router", GRADREG_ROLE_MLP },
    { NULL, 0 },
};

/* The tensor itself or the module that it belongs to, inside and outside of blocks. */
static const struct meaning endings[] = {
    { "relative_attention_bias", GRADREG_ROLE_EMBEDDING },
    { "distance_embedding", GRADREG_ROLE_EMBEDDING },
    { "inv_freq", GRADREG_ROLE_OTHER }, /* rotary frequencies: constants, not trained */
    { NULL, 0 },
};

/* ---- words ----------------------------------------------------------------------- */

static bool word_is(struct word word, const char *text)
{
    return strlen(text) == word.length && memcmp(word.text, text, word.length) == 0;
}

static bool word_begins(struct word word, const char *text)
{
    return word.length >= strlen(text) && memcmp(word.text, text, strlen(text)) == 0;
}

static bool word_contains(struct word word, const char *part)
{
    const size_t length = strlen(part);
    for (size_t i = 0; i + length <= word.length; i++)
        if (memcmp(word.text + i, part, length) == 0)
            return true;
    return false;
}

static bool word_is_one_of(struct word word, const char *const *list)
{
    for (; *list != NULL; list++)
        if (word_is(word, *list))
            return true;
    return false;
}

static const struct meaning *meaning_of(struct word word, const struct meaning *table)
{
    for (; table->word != NULL; table++)
        if (word_is(word, table->word))
            return table;
    return NULL;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* "input_layernorm", "LayerNorm", "q_norm", "norm"; "ln", "ln_1", "ln1w", "ln_f" */
static bool is_norm(struct word word)
{
    if (word_contains(word, "norm") || word_contains(word, "Norm"))
        return true;
    if (!word_begins(word, "ln"))
        return false;
    return word.length == 2 || word.text[2] == '_' || is_digit(word.text[2]);
}

static bool is_tower(struct word word)
{
    for (const char *const *part = tower_parts; *part != NULL; part++)
        if (word_contains(word, *part))
            return true;
    return word_is_one_of(word, towers);
}

/* The number that a word is, or -1. Too large ones stay just above INT32_MAX. */
static int64_t number_of(struct word word)
{
    int64_t number = word.length == 0 ? -1 : 0;
    for (size_t i = 0; i < word.length; i++) {
        if (!is_digit(word.text[i]))
            return -1;
        number = 10 * number + (word.text[i] - '0');
        if (number > INT32_MAX)
            number = (int64_t)INT32_MAX + 1;
    }
    return number;
}

/* ---- reading --------------------------------------------------------------------- */

/* Takes the next word that is no wrapper off the text; of length 0 at the end. */
static struct word take_word(const char **rest)
{
    struct word word = { *rest, 0 };
    while (**rest != '\0') {
        word.text = *rest;
        word.length = strcspn(*rest, ".");
        *rest += word.length;
        if (**rest == '.')
            ++*rest;
        if (!word_is_one_of(word, wrappers))
            return word;
        word.length = 0;
    }
    return word;
}

/* PEFT: the next word is an adapter's name, which its user chose and which means nothing. */
static bool is_adapter(struct word word)
{
    return word_is(word, "modules_to_save") || word_begins(word, "lora_");
}

/* The block index that follows `word`, or -1. */
static int64_t index_after(struct word word, const char *rest)
{
    return word_is_one_of(word, containers) ? number_of(take_word(&rest)) : -1;
}

struct reading {
    struct word last, before_last;
    int32_t layer;
    uint32_t role; /* 0 until a word has told */
    bool in_block;
};

static void learn(struct reading *reading, struct word word, const struct meaning *table)
{
    const struct meaning *meaning = meaning_of(word, table);
    if (meaning == NULL)
        return;
    reading->role = meaning->role;
    if (table == stacked_words)
        reading->layer = GRADREG_LAYER_STACKED;
}

/* One word in front of the block, or the two that are the block. False: nothing in this name
 * is the language model's, or the index is none that a layer can have. */
static bool read_outside_word(struct reading *reading, struct word word, const char **rest)
{
    const int64_t index = index_after(word, *rest);
    if (is_tower(word) || index > INT32_MAX)
        return false;
    if (index >= 0) {
        take_word(rest);
        reading->in_block = true;
        reading->layer = (int32_t)index;
    } else {
        learn(reading, word, outside_words);
        learn(reading, word, stacked_words);
    }
    return true;
}

static struct reading read_words(const char *rest)
{
    const struct reading unknown = { .layer = GRADREG_LAYER_NONE };
    struct reading reading = unknown;

    while (*rest != '\0') {
        const struct word word = take_word(&rest);
        if (is_adapter(word)) {
            take_word(&rest);
            continue;
        }
        if (word.length == 0 || number_of(word) >= 0) /* an expert's, or a place in a list */
            continue;
        reading.before_last = reading.last;
        reading.last = word;
        if (reading.role != 0) /* only the ending is still of interest */
            continue;
        if (reading.in_block)
            learn(&reading, word, block_words);
        else if (!read_outside_word(&reading, word, &rest))
            return unknown;
    }
    return reading;
}

/* The last word is the tensor, the one before it its module. */
static uint32_t role_of_ending(const struct reading *reading)
{
    const struct word words[] = { reading->last, reading->before_last };
    for (int i = 0; i < 2; i++) {
        const struct meaning *meaning = meaning_of(words[i], endings);
        if (meaning != NULL)
            return meaning->role;
        if (is_norm(words[i]))
            return GRADREG_ROLE_NORM;
    }
    return 0;
}

gradreg_status gradreg_segment_classify(int32_t *layer, uint32_t *role,
                                        const char *parameter_name)
{
    GR_ENTER();
    GR_REQUIRE_POINTER(layer);
    GR_REQUIRE_POINTER(role);
    GR_REQUIRE_POINTER(parameter_name);
    GR_REQUIRE(parameter_name[0] != '\0', "argument 'parameter_name' must not be empty");

    const struct reading reading = read_words(parameter_name);
    const uint32_t ending = role_of_ending(&reading);
    *layer = reading.layer;
    *role = ending != 0 ? ending : reading.role != 0 ? reading.role : GRADREG_ROLE_OTHER;
    return GRADREG_OK;
}
