/* check_layers.c - layer and role from parameter names.
 *
 * The lists in data/names are the names of real models, with what to expect written by
 * generate.py from the models' definitions. The table here holds what no model has in bulk. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gradreg.h"
#include "support.h"

#ifndef GR_TEST_DATA
#error "the build says where test/data is"
#endif

struct answer {
    int32_t layer;
    uint32_t role;
};

static const struct answer unknown = { GRADREG_LAYER_NONE, GRADREG_ROLE_OTHER };

static struct answer classify(const char *name)
{
    struct answer got = { -99, 99 };
    assert_ok(gradreg_segment_classify(&got.layer, &got.role, name));
    return got;
}

static void check_answer(const char *name, struct answer want)
{
    const struct answer got = classify(name);
    ck_assert_msg(got.layer == want.layer && got.role == want.role,
                  "%.200s: layer %d, role %u; want layer %d, role %u", name, got.layer,
                  got.role, want.layer, want.role);
}

/* `words` times `word`, then `end`. */
static char *repeated(const char *word, size_t words, const char *end)
{
    const size_t length = strlen(word);
    char *name = malloc(words * length + strlen(end) + 1);
    ck_assert_ptr_nonnull(name);
    for (size_t i = 0; i < words; i++)
        memcpy(name + i * length, word, length);
    memcpy(name + words * length, end, strlen(end) + 1);
    return name;
}

/* ---- names of real models --------------------------------------------------------- */

/* How many names: a list that was cut short would pass otherwise. */
static const struct {
    const char *file;
    int names;
} lists[] = {
    { "bert", 50 },
    { "falcon_40b", 19 },
    { "falcon_7b", 15 },
    { "gemma2_2b", 288 },
    { "gpt2", 148 },
    { "gpt_neox_20b", 532 },
    { "gpt_neox_lm_head", 28 },
    { "llama3_8b", 291 },
    { "llmc", 16 },
    { "mistral_7b", 291 },
    { "mixtral_8x7b", 995 },
    { "mixtral_8x7b_fused", 291 },
    { "opt", 36 },
    { "opt_350m", 36 },
    { "phi3_mini", 195 },
    { "qwen2.5_0.5b_lora", 628 },
    { "qwen2.5_7b", 339 },
    { "qwen2.5_dora", 70 },
    { "qwen2.5_fsdp_lora", 82 },
    { "qwen2.5_lora_embedding", 29 },
    { "qwen2.5_value_head", 41 },
    { "qwen3_0.6b_ddp", 310 },
    { "qwen3_0.6b_fsdp", 310 },
    { "qwen3_0.6b_fsdp_flat", 29 },
    { "qwen3_4b", 398 },
    { "qwen3_8b", 399 },
    { "qwen3_ddp_compiled", 36 },
    { "qwen3_fsdp_checkpointed", 36 },
    { "qwen3_moe_30b_a3b", 531 },
    { "qwen3_moe_experts", 1575 },
};
enum { LISTS = sizeof(lists) / sizeof(*lists) };

static uint32_t role_named(const char *name)
{
    static const char *const names[] = { "ATTENTION", "MLP",  "NORM",
                                         "EMBEDDING", "HEAD", "OTHER" };
    for (uint32_t i = 0; i < 6; i++)
        if (strcmp(name, names[i]) == 0)
            return UINT32_C(1) << i;
    ck_abort_msg("no role is called %s", name);
}

static int32_t layer_named(const char *name)
{
    char *end;
    const long layer = strtol(name, &end, 10);
    if (strcmp(name, "none") == 0)
        return GRADREG_LAYER_NONE;
    if (strcmp(name, "stacked") == 0)
        return GRADREG_LAYER_STACKED;
    ck_assert_msg(*name != '\0' && *end == '\0' && layer >= 0, "no layer is called %s", name);
    return (int32_t)layer;
}

/* Calls `check` for every name of a list; how many there were. */
static int for_each_name(const char *list, void (*check)(const char *, struct answer))
{
    char path[1024], line[512], name[400], layer[16], role[16];
    int names = 0;

    snprintf(path, sizeof(path), "%s/names/%s.txt", GR_TEST_DATA, list);
    FILE *file = fopen(path, "r");
    ck_assert_msg(file != NULL, "%s cannot be opened", path);
    while (fgets(line, sizeof(line), file) != NULL) {
        ck_assert_msg(sscanf(line, "%399[^\t]\t%15[^\t]\t%15s", name, layer, role) == 3,
                      "%s:%d", path, names + 1);
        check(name, (struct answer){ layer_named(layer), role_named(role) });
        names++;
    }
    fclose(file);
    return names;
}

START_TEST(every_name_of_a_model)
{
    ck_assert_int_eq(for_each_name(lists[_i].file, check_answer), lists[_i].names);
}
END_TEST

/* What trainers put in front of a model changes nothing. */
static void check_prefixed(const char *name, struct answer want)
{
    static const char *const prefixes[] = {
        "module.",
        "module.module.",
        "_orig_mod.",
        "_fsdp_wrapped_module.",
        "_fsdp_wrapped_module._checkpoint_wrapped_module.",
        "base_model.model.",
        "pretrained_model.",
        "policy.",
        "actor.model.",
        "model.language_model.",
        "0.auto_model.",
    };
    char prefixed[512];
    for (size_t i = 0; i < sizeof(prefixes) / sizeof(*prefixes); i++) {
        snprintf(prefixed, sizeof(prefixed), "%s%s", prefixes[i], name);
        check_answer(prefixed, want);
    }
}

static void check_in_tower(const char *name, struct answer want)
{
    static const char *const towers[] = { "visual.", "model.vision_tower.vision_model.",
                                          "audio_tower.", "thinker.visual.", "image_encoder." };
    char prefixed[512];
    (void)want;
    for (size_t i = 0; i < sizeof(towers) / sizeof(*towers); i++) {
        snprintf(prefixed, sizeof(prefixed), "%s%s", towers[i], name);
        check_answer(prefixed, unknown);
    }
}

START_TEST(prefixes_change_nothing)
{
    for_each_name(lists[_i].file, check_prefixed);
}
END_TEST

START_TEST(towers_are_outside_whatever_is_in_them)
{
    for_each_name(lists[_i].file, check_in_tower);
}
END_TEST

/* ---- single names ----------------------------------------------------------------- */

enum {
    NONE = GRADREG_LAYER_NONE,
    STACKED = GRADREG_LAYER_STACKED,
    ATTENTION = GRADREG_ROLE_ATTENTION,
    MLP = GRADREG_ROLE_MLP,
    NORM = GRADREG_ROLE_NORM,
    EMBEDDING = GRADREG_ROLE_EMBEDDING,
    HEAD = GRADREG_ROLE_HEAD,
    OTHER = GRADREG_ROLE_OTHER
};

static const struct {
    const char *name;
    struct answer want;
} singles[] = {
    /* the same word in another place */
    { "bert.encoder.layer.7.attention.output.dense.weight", { 7, ATTENTION } },
    { "bert.encoder.layer.7.output.dense.weight", { 7, MLP } },
    { "output.weight", { NONE, HEAD } },
    { "transformer.h.3.attn.c_proj.weight", { 3, ATTENTION } },
    { "transformer.h.3.mlp.c_proj.weight", { 3, MLP } },
    { "model.layers.3.self_attn.gate_proj.weight", { 3, ATTENTION } },
    { "lm_head.layers.3.weight", { NONE, HEAD } },
    { "v_head.layers.3.mlp.weight", { NONE, HEAD } },
    { "transformer.blocks.3.norm_attn_norm.attn.Wqkv.weight", { 3, ATTENTION } },
    { "transformer.blocks.3.norm_attn_norm.norm_1.weight", { 3, NORM } },
    { "model.layers.2.input_layernorm.mlp.fc1.weight", { 2, MLP } },
    { "decoder.layers.2.self_attention.linear_qkv.layer_norm_weight", { 2, NORM } },
    { "decoder.layers.2.self_attention.linear_qkv.weight", { 2, ATTENTION } },

    { "model.layers.3.linear_attn.in_proj_qkvz.weight", { 3, ATTENTION } },
    { "model.layers.3.cross_attn.q_proj.weight", { 3, ATTENTION } },
    { "model.decoder.layers.3.encoder_attn.q_proj.weight", { 3, ATTENTION } },
    { "transformer.h.3.crossattention.c_attn.weight", { 3, ATTENTION } },

    /* tables */
    { "tok_embeddings.weight", { NONE, EMBEDDING } },
    { "embedding.word_embeddings.weight", { NONE, EMBEDDING } },
    { "backbone.embedding.weight", { NONE, EMBEDDING } },
    { "model.embed_tokens_per_layer.weight", { NONE, EMBEDDING } },

    /* heads */
    { "score.weight", { NONE, HEAD } },
    { "score.modules_to_save.default.weight", { NONE, HEAD } },
    { "score.original_module.weight", { NONE, HEAD } },
    { "classifier.dense.weight", { NONE, HEAD } },
    { "classifier.out_proj.bias", { NONE, HEAD } },
    { "value_head.summary.weight", { NONE, HEAD } },
    { "value_head.norm.weight", { NONE, NORM } },
    { "v_head.0.weight", { NONE, HEAD } },
    { "reward_head.weight", { NONE, HEAD } },
    { "qa_outputs.weight", { NONE, HEAD } },
    { "lm_head.bias", { NONE, HEAD } },
    { "transformer.output_layer.weight", { NONE, HEAD } },

    /* experts: their index is no layer's, a router is MLP */
    { "model.layers.3.mlp.experts.17.up_proj.weight", { 3, MLP } },
    { "model.layers.3.mlp.experts.gate_up_proj", { 3, MLP } },
    { "model.layers.3.mlp.experts.layers.9.weight", { 3, MLP } },
    { "model.layers.3.experts.17.w2.weight", { 3, MLP } },
    { "model.layers.3.router.proj.weight", { 3, MLP } },
    { "model.layers.3.mlp.router.bias", { 3, MLP } },
    { "model.layers.3.mlp.shared_expert_gate.weight", { 3, MLP } },
    { "model.layers.3.mlp.gate.e_score_correction_bias", { 3, MLP } },
    { "transformer.h.3.moe.gate.weight", { 3, MLP } },
    { "model.layers.3.shared_mlp.input_linear.weight", { 3, MLP } },
    { "experts.17.w2.weight", { NONE, OTHER } },

    /* norms */
    { "norm.weight", { NONE, NORM } },
    { "ln_f.bias", { NONE, NORM } },
    { "model.layers.3.ln.weight", { 3, NORM } },
    { "transformer.h.3.ln1.weight", { 3, NORM } },
    { "model.layers.3.input_layernorm.base_layer.weight", { 3, NORM } },
    { "model.norm._checkpoint_wrapped_module.weight", { NONE, NORM } },
    { "model.layers.3.mamba.norm.weight", { 3, NORM } },
    { "model.layers.3.input_layernorm.1.weight", { 3, NORM } },
    { "model.layers.3.input_layernorm._fsdp_wrapped_module.weight", { 3, NORM } },
    { "model.layers.3.input_layernorm.modules_to_save.default.weight", { 3, NORM } },
    { "model.layers.3.input_layernorm.original_module.weight", { 3, NORM } },
    { "transformer.word_embeddings_layernorm.weight", { NONE, NORM } },
    { "model.layers.3.lnproj.weight", { 3, OTHER } },

    /* positions */
    { "model.layers.3.self_attn.rotary_emb.inv_freq", { 3, OTHER } },
    { "model.rotary_emb.inv_freq", { NONE, OTHER } },
    { "bert.encoder.layer.3.attention.self.distance_embedding.weight", { 3, EMBEDDING } },
    { "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
      { 0, EMBEDDING } },

    /* adapters: their names mean nothing */
    { "model.layers.3.mlp.up_proj.lora_A.self_attn.weight", { 3, MLP } },
    { "model.layers.3.mlp.up_proj.lora_B.layers.weight", { 3, MLP } },
    { "model.layers.3.mlp.up_proj.lora_B.norm", { 3, MLP } },
    { "model.layers.3.mlp.up_proj.lora_A.weight", { 3, MLP } },
    { "model.layers.3.mlp.up_proj.lora_A", { 3, MLP } },
    { "model.layers.3.mlp.experts.base_layer.lora_A.default.weight", { 3, MLP } },
    { "model.layers.3.self_attn.q_proj.lora_magnitude_vector.default", { 3, ATTENTION } },
    { "model.layers.3.self_attn.q_proj.lora_A.default._fsdp_wrapped_module._flat_param",
      { 3, ATTENTION } },
    { "base_model.model.lm_head.lora_A.default.weight", { NONE, HEAD } },
    { "model.embed_tokens.lora_embedding_B.default", { NONE, EMBEDDING } },

    /* flat parameters: what their module says, if it says one thing */
    { "_fsdp_wrapped_module._flat_param", { NONE, OTHER } },
    { "model.layers.31._fsdp_wrapped_module._flat_param", { 31, OTHER } },
    { "model.layers.31._fsdp_wrapped_module.flat_param", { 31, OTHER } },
    { "model.layers.31.mlp._fsdp_wrapped_module._flat_param", { 31, MLP } },
    { "lm_head._fsdp_wrapped_module._flat_param", { NONE, HEAD } },

    /* outside the language model's blocks */
    { "model.visual.blocks.3.attn.qkv.weight", { NONE, OTHER } },
    { "model.visual.merger.ln_q.weight", { NONE, OTHER } },
    { "vision_tower.vision_model.encoder.layers.3.self_attn.q_proj.weight", { NONE, OTHER } },
    { "audio_tower.layers.3.fc1.weight", { NONE, OTHER } },
    { "multi_modal_projector.norm.weight", { NONE, OTHER } },
    { "video_tower.layers.3.mlp.fc1.weight", { NONE, OTHER } },
    { "speech_encoder.layers.3.mlp.fc1.weight", { NONE, OTHER } },
    { "vit.blocks.3.mlp.fc1.weight", { NONE, OTHER } },
    { "perceiver.layers.3.mlp.fc1.weight", { NONE, OTHER } },
    { "model.resampler.layers.3.mlp.fc1.weight", { NONE, OTHER } },
    { "mtp.layers.0.self_attn.q_proj.weight", { NONE, OTHER } },
    { "qformer.encoder.layer.0.attention.output.dense.weight", { NONE, OTHER } },
    { "model.language_model.layers.3.self_attn.q_proj.weight", { 3, ATTENTION } },
    { "model.layers.3.vision_gate.weight", { 3, OTHER } },

    /* several layers in one tensor, with and without a struct's name */
    { "qkvw", { STACKED, ATTENTION } },
    { "params.qkvw", { STACKED, ATTENTION } },
    { "grads.ln2b", { STACKED, NORM } },
    { "params.lnfw", { NONE, NORM } },
    { "qkvw2", { NONE, OTHER } },
    { "model.layers.3.qkvw", { 3, OTHER } },

    /* a block index, and what only looks like one */
    { "model.layers.0.mlp.up_proj.weight", { 0, MLP } },
    { "model.layers.007.mlp.up_proj.weight", { 7, MLP } },
    { "model.layers.65535.mlp.up_proj.weight", { 65535, MLP } },
    { "model.layers.2147483647.mlp.up_proj.weight", { INT32_MAX, MLP } },
    { "model.layers.00000000000000000000000012.mlp.up_proj.weight", { 12, MLP } },
    { "model.layers.2147483648.mlp.up_proj.weight", { NONE, OTHER } },
    { "model.layers.4294967297.mlp.up_proj.weight", { NONE, OTHER } },
    { "model.layers.18446744073709551617.norm.weight", { NONE, OTHER } },
    { "model.layers.99999999999999999999999999.mlp.up_proj.weight", { NONE, OTHER } },
    { "model.layers.-1.mlp.up_proj.weight", { NONE, OTHER } },
    { "model.layers.+1.mlp.up_proj.weight", { NONE, OTHER } },
    { "model.layers. 1.mlp.up_proj.weight", { NONE, OTHER } },
    { "model.layers.1a.mlp.up_proj.weight", { NONE, OTHER } },
    { "model.layers.0x1.mlp.up_proj.weight", { NONE, OTHER } },
    { "model.layers.\xd9\xa1.mlp.up_proj.weight",
      { NONE, OTHER } }, /* an Arabic one, in UTF-8 */
    { "model.layers..mlp.up_proj.weight", { NONE, OTHER } },
    { "model.layers._fsdp_wrapped_module.5.mlp.up_proj.weight", { 5, MLP } },
    { "layers.5", { 5, OTHER } },
    { "h.5", { 5, OTHER } },
    { "h5.mlp.c_fc.weight", { NONE, OTHER } },
    { "layers", { NONE, OTHER } },
    { "layers.", { NONE, OTHER } },
    { "5", { NONE, OTHER } },
    { "model.5.mlp.up_proj.weight", { NONE, OTHER } },
    { "encoder.layers.3.blocks.4.mlp.weight", { 3, MLP } },

    /* names that say little or nothing */
    { "model.layers.4.mamba.in_proj.weight", { 4, OTHER } },
    { "model.layers.4.altup.correction_coefs.weight", { 4, OTHER } },
    { "model.layers.4.weight", { 4, OTHER } },
    { "weight", { NONE, OTHER } },
    { "bias", { NONE, OTHER } },
    { "module", { NONE, OTHER } },
    { "module.", { NONE, OTHER } },
    { "lora_A", { NONE, OTHER } },
    { "lora_A.", { NONE, OTHER } },
    { "modules_to_save", { NONE, OTHER } },
    { "self_attn.q_proj.weight", { NONE, OTHER } },
    { ".", { NONE, OTHER } },
    { "....", { NONE, OTHER } },
    { " ", { NONE, OTHER } },
    { "%s%n%d", { NONE, OTHER } },
    { "model/layers/3/mlp", { NONE, OTHER } },
    { "MODEL.LAYERS.3.MLP.WEIGHT", { NONE, OTHER } },
    { "\xff\xfe\x80.\xc3\x28", { NONE, OTHER } },
    { "model.layers.3.\xe6\xb3\xa8\xe6\x84\x8f.weight", { 3, OTHER } },
};
enum { SINGLES = sizeof(singles) / sizeof(*singles) };

START_TEST(single_name)
{
    check_answer(singles[_i].name, singles[_i].want);
}
END_TEST

/* ---- what docs/layers.md shows ---------------------------------------------------- */

START_TEST(answer_goes_into_a_segment)
{
    const uint64_t offset = 4096, count = 64;
    /* [classify] */
    gradreg_segment segment = GRADREG_SEGMENT_INIT;
    const char *name = "model.layers.7.self_attn.q_proj.weight";
    segment.offset = offset;
    segment.count = count;
    gradreg_segment_classify(&segment.layer, &segment.role, name);
    /* segment.layer is 7, segment.role is GRADREG_ROLE_ATTENTION */
    /* [end] */
    ck_assert(segment.layer == 7 && segment.role == GRADREG_ROLE_ATTENTION);
    ck_assert(segment.offset == 4096 && segment.count == 64);
}
END_TEST

/* [split] */
/* One segment a layer; what a name said about the stacked tensor is in `stacked`. */
static size_t split(gradreg_segment *out, const gradreg_segment *stacked, int32_t layers)
{
    for (int32_t layer = 0; layer < layers; layer++) {
        out[layer] = *stacked;
        out[layer].layer = layer;
        out[layer].count = stacked->count / (uint64_t)layers;
        out[layer].offset = stacked->offset + (uint64_t)layer * out[layer].count;
    }
    return (size_t)layers;
}
/* [end] */

START_TEST(stacked_tensor_can_be_split)
{
    gradreg_segment stacked = GRADREG_SEGMENT_INIT, parts[12];
    uint64_t next = 1000;
    stacked.offset = next;
    stacked.count = 12 * 768;
    assert_ok(gradreg_segment_classify(&stacked.layer, &stacked.role, "fcw"));
    ck_assert_int_eq(stacked.layer, GRADREG_LAYER_STACKED);
    ck_assert_uint_eq(split(parts, &stacked, 12), 12);
    for (int32_t layer = 0; layer < 12; layer++) {
        ck_assert(parts[layer].layer == layer && parts[layer].role == GRADREG_ROLE_MLP);
        ck_assert(parts[layer].offset == next && parts[layer].count == 768);
        next += parts[layer].count;
    }
}
END_TEST

/* ---- anything else ---------------------------------------------------------------- */

static bool is_possible(struct answer got)
{
    return got.layer >= GRADREG_LAYER_STACKED && got.role >= GRADREG_ROLE_ATTENTION &&
           got.role <= GRADREG_ROLE_OTHER && (got.role & (got.role - 1)) == 0;
}

/* In memory that ends with the name, so that a sanitizer sees a byte read too many. */
static struct answer classify_bytes(const char *bytes, size_t length)
{
    char *name = malloc(length + 1);
    ck_assert_ptr_nonnull(name);
    memcpy(name, bytes, length);
    name[length] = '\0';
    const struct answer got = classify(name);
    free(name);
    return got;
}

START_TEST(every_beginning_of_a_name)
{
    const char *name =
        "module._fsdp_wrapped_module.base_model.model.model.layers.12._fsdp_wrapped_"
        "module._checkpoint_wrapped_module.self_attn.q_norm.modules_to_save.default."
        "lora_A.default.weight";
    for (size_t length = 1; length <= strlen(name); length++)
        ck_assert(is_possible(classify_bytes(name, length)));
    for (size_t start = 0; start < strlen(name); start++)
        ck_assert(is_possible(classify(name + start)));
}
END_TEST

START_TEST(every_byte)
{
    for (int first = 1; first < 256; first++)
        for (int second = 1; second < 256; second++) {
            const char name[] = { (char)first, (char)second, '\0' };
            const struct answer want = { NONE, memcmp(name, "ln", 2) == 0 ? NORM : OTHER };
            check_answer(name, want);
        }
}
END_TEST

/* With strict_string_checks a sanitizer measures the rest of the text at every comparison. */
static size_t many(void)
{
    return getenv("GRADREG_TEST_SMALL") != NULL ? 3000 : 200000;
}

START_TEST(names_of_any_length)
{
    static const struct {
        const char *word, *end;
        struct answer want;
    } cases[] = {
        { "module.", "model.layers.3.mlp.up_proj.weight", { 3, MLP } },
        { "prefix.", "model.layers.3.mlp.up_proj.weight", { 3, MLP } },
        { "x", ".model.layers.3.mlp.up_proj.weight", { 3, MLP } },
        { ".", "model.layers.3.mlp.up_proj.weight", { 3, MLP } },
        { "norm", "", { NONE, NORM } },
        { "layers.", "3.mlp.up_proj.weight", { 3, MLP } },
        { "lora_A.", "model.layers.3.mlp.up_proj.weight", { 3, MLP } },
        { "9", "", { NONE, OTHER } },
        { "0", ".layers.4.mlp.weight", { 4, MLP } },
        { "visio", "n.layers.4.mlp.weight", { NONE, OTHER } },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        char *name = repeated(cases[i].word, many(), cases[i].end);
        check_answer(name, cases[i].want);
        free(name);
    }
}
END_TEST

START_TEST(index_of_any_length)
{
    char *digits = repeated("9", many(), ".mlp.weight"),
         *zeros = repeated("0", many(), "8.mlp.weight");
    char *name = repeated("layers.", 1, digits);
    check_answer(name, unknown);
    free(name);
    name = repeated("layers.", 1, zeros);
    check_answer(name, (struct answer){ 8, MLP });
    free(name);
    free(digits);
    free(zeros);
}
END_TEST

START_TEST(null_or_empty_is_refused_and_nothing_written)
{
    int32_t layer = 77;
    uint32_t role = 77;
    const gradreg_status refused = GRADREG_ERROR_INVALID_ARGUMENT;

    assert_fails(gradreg_segment_classify(NULL, &role, "norm"), refused, "'layer'", "NULL");
    assert_fails(gradreg_segment_classify(&layer, NULL, "norm"), refused, "'role'", "NULL");
    assert_fails(gradreg_segment_classify(&layer, &role, NULL), refused, "'parameter_name'",
                 "NULL");
    assert_fails(gradreg_segment_classify(&layer, &role, ""), refused, "'parameter_name'",
                 "empty");
    ck_assert(layer == 77 && role == 77);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("layers");
    TCase *tc = tcase_create("models");
    tcase_set_timeout(tc, 60);
    add_loop_test(tc, every_name_of_a_model, 0, LISTS);
    add_loop_test(tc, prefixes_change_nothing, 0, LISTS);
    add_loop_test(tc, towers_are_outside_whatever_is_in_them, 0, LISTS);
    suite_add_tcase(suite, tc);

    tc = tcase_create("names");
    tcase_set_timeout(tc, 60);
    add_loop_test(tc, single_name, 0, SINGLES);
    tcase_add_test(tc, answer_goes_into_a_segment);
    tcase_add_test(tc, stacked_tensor_can_be_split);
    tcase_add_test(tc, every_beginning_of_a_name);
    tcase_add_test(tc, every_byte);
    tcase_add_test(tc, names_of_any_length);
    tcase_add_test(tc, index_of_any_length);
    tcase_add_test(tc, null_or_empty_is_refused_and_nothing_written);
    suite_add_tcase(suite, tc);
    return run_suite(suite);
}
