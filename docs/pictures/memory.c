/* memory.c - what each way of running the regularizer costs: backward passes and memory.
 *
 * In: a model of 36 layers and 4e9 parameters, by its parameters' names. Out: a table. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "figures.h"

enum { LAYERS = 36, PER_LAYER = 9, SEGMENTS = LAYERS * PER_LAYER + 2 };

static uint64_t add(gradreg_segment *segment, const char *name, uint64_t offset, uint64_t count)
{
    must(gradreg_segment_init(segment, sizeof(*segment)));
    must(gradreg_segment_classify(&segment->layer, &segment->role, name));
    segment->offset = offset;
    segment->count = count;
    return offset + count;
}

/* Returns the number of parameters. */
static uint64_t describe(gradreg_segment *segments)
{
    static const struct {
        const char *name;
        uint64_t count;
    } tensors[PER_LAYER] = {
        { "self_attn.q_proj.weight", UINT64_C(4096) * 2560 },
        { "self_attn.k_proj.weight", UINT64_C(1024) * 2560 },
        { "self_attn.v_proj.weight", UINT64_C(1024) * 2560 },
        { "self_attn.o_proj.weight", UINT64_C(2560) * 4096 },
        { "mlp.gate_proj.weight", UINT64_C(9728) * 2560 },
        { "mlp.up_proj.weight", UINT64_C(9728) * 2560 },
        { "mlp.down_proj.weight", UINT64_C(2560) * 9728 },
        { "input_layernorm.weight", 2560 },
        { "post_attention_layernorm.weight", 2560 },
    };
    uint64_t end = add(&segments[0], "model.embed_tokens.weight", 0, UINT64_C(151936) * 2560);
    for (int layer = 0; layer < LAYERS; layer++)
        for (int i = 0; i < PER_LAYER; i++) {
            char name[96];
            snprintf(name, sizeof(name), "model.layers.%d.%s", layer, tensors[i].name);
            end = add(&segments[1 + layer * PER_LAYER + i], name, end, tensors[i].count);
        }
    return add(&segments[SEGMENTS - 1], "model.norm.weight", end, 2560);
}

/* ------------------------------------------------------------------ modes */

typedef struct mode {
    const char *name;
    const char *caller; /* what the caller brings beyond params and grads */
    gradreg_difference difference;
    gradreg_first_gradient first_gradient;
    gradreg_second_pass second_pass;
    gradreg_placement placement;
    gradreg_restore restore;
    gradreg_noise_rule noise;
    int32_t interval;
} mode;

static const mode modes[] = {
    { .name = "default", .caller = "" },
    { .name = "first_gradient CALLER_KEEPS",
      .caller = "a second gradient buffer",
      .first_gradient = GRADREG_FIRST_GRADIENT_CALLER_KEEPS },
    { .name = "restore MASTER",
      .caller = "its master weights",
      .restore = GRADREG_RESTORE_MASTER },
    { .name = "CALLER_KEEPS and MASTER",
      .caller = "both",
      .first_gradient = GRADREG_FIRST_GRADIENT_CALLER_KEEPS,
      .restore = GRADREG_RESTORE_MASTER },
    { .name = "placement OUT_OF_PLACE",
      .caller = "a second set of weights",
      .placement = GRADREG_PLACEMENT_OUT_OF_PLACE },
    { .name = "second_pass TRUNCATED",
      .caller = "",
      .second_pass = GRADREG_SECOND_PASS_TRUNCATED },
    { .name = "interval 4", .caller = "", .interval = 4 },
    { .name = "difference CENTRAL", .caller = "", .difference = GRADREG_DIFFERENCE_CENTRAL },
    { .name = "noise in the first layers", .caller = "", .noise = GRADREG_NOISE_RELATIVE },
};

static gradreg_regularizer_params params_of(const mode *m)
{
    gradreg_regularizer_params params = GRADREG_REGULARIZER_PARAMS_INIT;
    params.layer_count = LAYERS;
    params.difference = m->difference;
    params.first_gradient = m->first_gradient;
    params.second_pass = m->second_pass;
    params.common_clip = m->second_pass == GRADREG_SECOND_PASS_TRUNCATED;
    params.placement = m->placement;
    params.restore = m->restore;
    params.noise.rule = m->noise;
    params.interval = m->interval;
    return params;
}

/* ------------------------------------------------------------------ backward passes */

enum { TINY = LAYERS }; /* weights of a model on which whole steps are run */

/* Extra passes per step over 12 steps, and where the second pass may stop. */
static double count_passes(int32_t *stop, gradreg_context *context, const mode *m)
{
    float theta[TINY], master[TINY], moved[TINY], grads[TINY], first[TINY];
    gradreg_segment segments[TINY];
    gradreg_regularizer_params params = params_of(m);
    gradreg_regularizer *regularizer = NULL;
    gradreg_buffers buffers = GRADREG_BUFFERS_INIT;
    int32_t passes, total = 0;

    for (int i = 0; i < TINY; i++) {
        must(gradreg_segment_init(&segments[i], sizeof(segments[i])));
        segments[i].offset = (uint64_t)i;
        segments[i].count = 1;
        segments[i].layer = i;
        segments[i].role = GRADREG_ROLE_ATTENTION;
        theta[i] = master[i] = grads[i] = first[i] = 1;
    }
    buffers.params = theta;
    buffers.grads = grads;
    buffers.count = TINY;
    buffers.first_grads =
        m->first_gradient == GRADREG_FIRST_GRADIENT_CALLER_KEEPS ? first : NULL;
    buffers.perturbed_params = m->placement == GRADREG_PLACEMENT_OUT_OF_PLACE ? moved : NULL;
    buffers.master_params = m->restore == GRADREG_RESTORE_MASTER ? master : NULL;
    must(gradreg_regularizer_create(&regularizer, context, segments, TINY, &params));
    must(gradreg_regularizer_first_needed_layer(regularizer, stop));
    for (int step = 0; step < 12; step++) {
        must(gradreg_regularizer_extra_passes(regularizer, &passes));
        total += passes;
        if (passes > 0)
            must(gradreg_regularizer_perturb(regularizer, &buffers));
        if (passes > 1)
            must(gradreg_regularizer_mirror(regularizer, &buffers));
        must(gradreg_regularizer_combine(regularizer, &buffers));
    }
    must(gradreg_regularizer_destroy(regularizer));
    return total / 12.0;
}

/* ------------------------------------------------------------------ the table */

static void print_mode(gradreg_context *context, const mode *m, const gradreg_segment *segments,
                       uint64_t parameters)
{
    static const gradreg_type pairs[][2] = { { GRADREG_TYPE_F32, GRADREG_TYPE_F32 },
                                             { GRADREG_TYPE_BF16, GRADREG_TYPE_F32 },
                                             { GRADREG_TYPE_BF16, GRADREG_TYPE_BF16 } };
    char passes[48];
    int32_t stop;
    const double count = count_passes(&stop, context, m);

    if (stop == GRADREG_LAYER_NONE)
        snprintf(passes, sizeof(passes), "%g", count);
    else
        snprintf(passes, sizeof(passes), "%g, down to layer %d", count, stop);
    printf("| %-28s | %-19s |", m->name, passes);
    for (size_t i = 0; i < sizeof(pairs) / sizeof(*pairs); i++) {
        gradreg_regularizer_params params = params_of(m);
        size_t bytes;
        params.param_type = pairs[i][0];
        params.grad_type = pairs[i][1];
        must(gradreg_regularizer_workspace_bytes(&bytes, context, segments, SEGMENTS, &params));
        printf(" %10.2f |", (double)bytes / (double)parameters);
    }
    printf(" %-24s |\n", m->caller);
}

void print_memory(void)
{
    static gradreg_segment segments[SEGMENTS];
    gradreg_context *context = NULL;
    const uint64_t parameters = describe(segments);

    must(gradreg_context_create(&context, NULL));
    printf("| %.2fe9 parameters, %d layers  | extra passes a step | f32/f32    | bf16/f32   | "
           "bf16/bf16  | the caller brings        |\n|---|---|---|---|---|---|\n",
           (double)parameters / 1e9, LAYERS);
    for (size_t i = 0; i < sizeof(modes) / sizeof(*modes); i++)
        print_mode(context, &modes[i], segments, parameters);
    must(gradreg_context_destroy(context));
}
