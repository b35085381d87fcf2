#!/usr/bin/env python3
"""Write the lists of parameter names that check_layers reads.

usage: generate.py            write them next to this file
       generate.py --check    fail unless they are what would be written

A list has one parameter a line: name, layer, role, separated by tabs. The layer is a number,
"none" or "stacked". Each model is spelled out below module by module, and the expectation comes
from the module that is being spelled out, never from the text of its name: nothing here is a
second copy of the library's rules.
"""
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ATTENTION, MLP, NORM, EMBEDDING, HEAD, OTHER = "ATTENTION MLP NORM EMBEDDING HEAD OTHER".split()
WEIGHT, BOTH = ("weight",), ("weight", "bias")


class Model:
    """Collects (name, layer, role) while a model is spelled out."""

    def __init__(self, root="", block=""):
        self.root, self.block, self.rows = root, block, []

    def outside(self, module, role, tensors=WEIGHT):
        self.rows += [(f"{module}.{tensor}", "none", role) for tensor in tensors]

    def inside(self, layer, module, role, tensors=WEIGHT):
        prefix = f"{self.root}{self.block}.{layer}.{module}"
        self.rows += [(f"{prefix}.{tensor}", str(layer), role) for tensor in tensors]

    def parameter(self, layer, name, role):
        """A tensor that is no module's weight or bias."""
        self.rows.append((f"{self.root}{self.block}.{layer}.{name}", str(layer), role))


# ---- decoders with a gated feed-forward: Qwen, Llama, Mistral, Gemma, Phi ----------


def attention(model, layer, qkv=WEIGHT, qk_norm=False):
    for projection in "q_proj", "k_proj", "v_proj":
        model.inside(layer, f"self_attn.{projection}", ATTENTION, qkv)
    model.inside(layer, "self_attn.o_proj", ATTENTION)
    if qk_norm:
        model.inside(layer, "self_attn.q_norm", NORM)
        model.inside(layer, "self_attn.k_norm", NORM)


def gated_mlp(model, layer, module="mlp"):
    for projection in "gate_proj", "up_proj", "down_proj":
        model.inside(layer, f"{module}.{projection}", MLP)


def expert_modules(model, layer, module, projections, experts):
    model.inside(layer, f"{module}.gate", MLP)
    for expert in range(experts):
        for projection in projections:
            model.inside(layer, f"{module}.experts.{expert}.{projection}", MLP)


def expert_tensors(model, layer):
    """transformers 5: one tensor for all experts of a layer."""
    model.parameter(layer, "mlp.experts.gate_up_proj", MLP)
    model.parameter(layer, "mlp.experts.down_proj", MLP)
    model.inside(layer, "mlp.gate", MLP)


def two_norms(model, layer):
    model.inside(layer, "input_layernorm", NORM)
    model.inside(layer, "post_attention_layernorm", NORM)


def decoder(layers, parts, norms=two_norms, tied=False, root="model."):
    model = Model(root, "layers")
    model.outside(f"{root}embed_tokens", EMBEDDING)
    for layer in range(layers):
        for part in parts:
            part(model, layer)
        norms(model, layer)
    model.outside(f"{root}norm", NORM)
    if not tied:
        model.outside("lm_head", HEAD)
    return model.rows


def qwen2_attention(model, layer):
    attention(model, layer, qkv=BOTH)


def qwen3_attention(model, layer):
    attention(model, layer, qk_norm=True)


def qwen2(layers, tied):
    return decoder(layers, [qwen2_attention, gated_mlp], tied=tied)


def qwen3(layers, tied=False):
    return decoder(layers, [qwen3_attention, gated_mlp], tied=tied)


def qwen3_moe(layers, experts):
    """experts None: one tensor for all of them."""
    def modules(model, layer):
        expert_modules(model, layer, "mlp", ["gate_proj", "up_proj", "down_proj"], experts)
    return decoder(layers, [qwen3_attention, modules if experts else expert_tensors])


def mixtral(layers, experts):
    def modules(model, layer):
        expert_modules(model, layer, "block_sparse_moe", ["w1", "w2", "w3"], experts)
    return decoder(layers, [attention, modules if experts else expert_tensors])


def llama(layers):
    return decoder(layers, [attention, gated_mlp])


def gemma2(layers):
    def norms(model, layer):
        two_norms(model, layer)
        model.inside(layer, "pre_feedforward_layernorm", NORM)
        model.inside(layer, "post_feedforward_layernorm", NORM)
    return decoder(layers, [attention, gated_mlp], norms=norms, tied=True)


def phi3(layers):
    def parts(model, layer):
        model.inside(layer, "self_attn.o_proj", ATTENTION)
        model.inside(layer, "self_attn.qkv_proj", ATTENTION)
        model.inside(layer, "mlp.gate_up_proj", MLP)
        model.inside(layer, "mlp.down_proj", MLP)
    return decoder(layers, [parts])


# ---- GPT-2 and its relatives --------------------------------------------------------


def gpt2(layers):
    model = Model("transformer.", "h")
    model.outside("transformer.wte", EMBEDDING)
    model.outside("transformer.wpe", EMBEDDING)
    for layer in range(layers):
        model.inside(layer, "ln_1", NORM, BOTH)
        model.inside(layer, "attn.c_attn", ATTENTION, BOTH)
        model.inside(layer, "attn.c_proj", ATTENTION, BOTH)
        model.inside(layer, "ln_2", NORM, BOTH)
        model.inside(layer, "mlp.c_fc", MLP, BOTH)
        model.inside(layer, "mlp.c_proj", MLP, BOTH)
    model.outside("transformer.ln_f", NORM, BOTH)
    return model.rows


def gpt_neox(layers, head):
    model = Model("gpt_neox.", "layers")
    model.outside("gpt_neox.embed_in", EMBEDDING)
    for layer in range(layers):
        model.inside(layer, "input_layernorm", NORM, BOTH)
        model.inside(layer, "post_attention_layernorm", NORM, BOTH)
        model.inside(layer, "attention.query_key_value", ATTENTION, BOTH)
        model.inside(layer, "attention.dense", ATTENTION, BOTH)
        model.inside(layer, "mlp.dense_h_to_4h", MLP, BOTH)
        model.inside(layer, "mlp.dense_4h_to_h", MLP, BOTH)
    model.outside("gpt_neox.final_layer_norm", NORM, BOTH)
    model.outside(head, HEAD)
    return model.rows


def opt(layers, projected):
    """projected: OPT-350m, whose token table is narrower than its blocks and which ends without
    a norm."""
    model = Model("model.decoder.", "layers")
    model.outside("model.decoder.embed_tokens", EMBEDDING)
    model.outside("model.decoder.embed_positions", EMBEDDING)
    if projected:
        model.outside("model.decoder.project_out", HEAD)
        model.outside("model.decoder.project_in", EMBEDDING)
    else:
        model.outside("model.decoder.final_layer_norm", NORM, BOTH)
    for layer in range(layers):
        for projection in "k_proj", "v_proj", "q_proj", "out_proj":
            model.inside(layer, f"self_attn.{projection}", ATTENTION, BOTH)
        model.inside(layer, "self_attn_layer_norm", NORM, BOTH)
        model.inside(layer, "fc1", MLP, BOTH)
        model.inside(layer, "fc2", MLP, BOTH)
        model.inside(layer, "final_layer_norm", NORM, BOTH)
    return model.rows


def falcon(layers, new):
    """new: the decoder of Falcon-40B, with a norm each for attention and feed-forward."""
    model = Model("transformer.", "h")
    model.outside("transformer.word_embeddings", EMBEDDING)
    for layer in range(layers):
        model.inside(layer, "self_attention.query_key_value", ATTENTION)
        model.inside(layer, "self_attention.dense", ATTENTION)
        model.inside(layer, "mlp.dense_h_to_4h", MLP)
        model.inside(layer, "mlp.dense_4h_to_h", MLP)
        for norm in ("ln_attn", "ln_mlp") if new else ("input_layernorm",):
            model.inside(layer, norm, NORM, BOTH)
    model.outside("transformer.ln_f", NORM, BOTH)
    return model.rows


def bert(layers):
    """BertForPreTraining, then the head of BertForSequenceClassification."""
    model = Model("bert.encoder.", "layer")
    for table in "word", "position", "token_type":
        model.outside(f"bert.embeddings.{table}_embeddings", EMBEDDING)
    model.outside("bert.embeddings.LayerNorm", NORM, BOTH)
    for layer in range(layers):
        for projection in "query", "key", "value":
            model.inside(layer, f"attention.self.{projection}", ATTENTION, BOTH)
        model.inside(layer, "attention.output.dense", ATTENTION, BOTH)
        model.inside(layer, "attention.output.LayerNorm", NORM, BOTH)
        model.inside(layer, "intermediate.dense", MLP, BOTH)
        model.inside(layer, "output.dense", MLP, BOTH)
        model.inside(layer, "output.LayerNorm", NORM, BOTH)
    model.outside("bert.pooler.dense", HEAD, BOTH)
    model.rows.append(("cls.predictions.bias", "none", HEAD))
    model.outside("cls.predictions.transform.dense", HEAD, BOTH)
    model.outside("cls.predictions.transform.LayerNorm", NORM, BOTH)
    model.outside("cls.predictions.decoder", HEAD, BOTH)  # tied: in checkpoints only
    model.outside("cls.seq_relationship", HEAD, BOTH)
    model.outside("classifier", HEAD, BOTH)
    return model.rows


def llmc():
    """struct ParameterTensors: block tensors hold all layers, one after the other."""
    return [("wte", "none", EMBEDDING), ("wpe", "none", EMBEDDING)] + [
        (name + kind, "stacked", role)
        for name, role in (("ln1", NORM), ("qkv", ATTENTION), ("attproj", ATTENTION),
                           ("ln2", NORM), ("fc", MLP), ("fcproj", MLP))
        for kind in "wb"] + [("lnfw", "none", NORM), ("lnfb", "none", NORM)]


# ---- wrappers: the same rows under other names --------------------------------------


def ddp(rows):
    return [("module." + name, layer, role) for name, layer, role in rows]


def compiled(rows):
    return [("_orig_mod." + name, layer, role) for name, layer, role in rows]


def value_head(rows):
    """TRL's AutoModelForCausalLMWithValueHead."""
    head = [(f"v_head.summary.{tensor}", "none", HEAD) for tensor in BOTH]
    return [("pretrained_model." + name, layer, role) for name, layer, role in rows] + head


def in_block(name, wrapper):
    """`wrapper` behind the block's index."""
    words = name.split(".")
    at = words.index("layers") + 2
    return ".".join(words[:at] + [wrapper] + words[at:])


def checkpointed(rows):
    return [(name if layer == "none" else in_block(name, "_checkpoint_wrapped_module"), layer, role)
            for name, layer, role in rows]


FSDP = "_fsdp_wrapped_module"


def fsdp(rows):
    """FSDP1 with use_orig_params: the model and each block are wrapped."""
    return [(f"{FSDP}." + (name if layer == "none" else in_block(name, FSDP)), layer, role)
            for name, layer, role in rows]


def fsdp_flat(layers):
    """FSDP1 without: one tensor for what is outside the blocks, one for each block."""
    return [(f"{FSDP}._flat_param", "none", OTHER)] + [
        (f"{FSDP}.model.layers.{layer}.{FSDP}._flat_param", str(layer), OTHER)
        for layer in range(layers)]


def lora(rows, adapter="default", magnitudes=False):
    """PEFT around every linear layer but the head, which modules_to_save copies."""
    wrapped = []
    for name, layer, role in rows:
        module, tensor = name.rsplit(".", 1)
        module = "base_model.model." + module
        if role == HEAD:
            copies = ["original_module", f"modules_to_save.{adapter}"]
        elif role in (ATTENTION, MLP):
            copies = ["base_layer"]
        else:
            wrapped.append((f"{module}.{tensor}", layer, role))
            continue
        wrapped += [(f"{module}.{copy}.{tensor}", layer, role) for copy in copies]
        if role != HEAD and tensor == "weight":
            wrapped += [(f"{module}.lora_{part}.{adapter}.weight", layer, role) for part in "AB"]
            if magnitudes:
                wrapped.append((f"{module}.lora_magnitude_vector.{adapter}.weight", layer, role))
    return wrapped


def lora_of_embedding(rows, adapter="default"):
    """PEFT around the token table."""
    wrapped = []
    for name, layer, role in rows:
        module, tensor = ("base_model.model." + name).rsplit(".", 1)
        if role == EMBEDDING:
            wrapped += [(f"{module}.base_layer.{tensor}", layer, role)] + [
                (f"{module}.lora_embedding_{part}.{adapter}", layer, role) for part in "AB"]
        else:
            wrapped.append((f"{module}.{tensor}", layer, role))
    return wrapped


LISTS = {
    "qwen2.5_7b": lambda: qwen2(28, tied=False),
    "qwen3_4b": lambda: qwen3(36, tied=True),
    "qwen3_8b": lambda: qwen3(36),
    "qwen3_moe_experts": lambda: qwen3_moe(4, 128),
    "qwen3_moe_30b_a3b": lambda: qwen3_moe(48, None),
    "llama3_8b": lambda: llama(32),
    "mistral_7b": lambda: llama(32),
    "mixtral_8x7b": lambda: mixtral(32, 8),
    "mixtral_8x7b_fused": lambda: mixtral(32, None),
    "gemma2_2b": lambda: gemma2(26),
    "phi3_mini": lambda: phi3(32),
    "gpt2": lambda: gpt2(12),
    "gpt_neox_20b": lambda: gpt_neox(44, "embed_out"),
    "gpt_neox_lm_head": lambda: gpt_neox(2, "lm_head"),
    "opt": lambda: opt(2, projected=False),
    "opt_350m": lambda: opt(2, projected=True),
    "falcon_7b": lambda: falcon(2, new=False),
    "falcon_40b": lambda: falcon(2, new=True),
    "bert": lambda: bert(2),
    "llmc": llmc,
    "qwen2.5_0.5b_lora": lambda: lora(qwen2(24, tied=False)),
    "qwen2.5_dora": lambda: lora(qwen2(2, tied=False), adapter="norm_policy", magnitudes=True),
    "qwen2.5_lora_embedding": lambda: lora_of_embedding(qwen2(2, tied=False)),
    "qwen3_0.6b_ddp": lambda: ddp(qwen3(28, tied=True)),
    "qwen3_0.6b_fsdp": lambda: fsdp(qwen3(28, tied=True)),
    "qwen3_0.6b_fsdp_flat": lambda: fsdp_flat(28),
    "qwen3_fsdp_checkpointed": lambda: fsdp(checkpointed(qwen3(3))),
    "qwen3_ddp_compiled": lambda: ddp(compiled(qwen3(3))),
    "qwen2.5_fsdp_lora": lambda: fsdp(lora(qwen2(3, tied=False))),
    "qwen2.5_value_head": lambda: value_head(qwen2(3, tied=False)),
}


def text_of(rows):
    names = [name for name, _, _ in rows]
    assert len(set(names)) == len(names), "a name twice"
    return "".join("\t".join(row) + "\n" for row in rows)


def main():
    check = sys.argv[1:] == ["--check"]
    wrong = []
    for name, rows in LISTS.items():
        path, text = HERE / f"{name}.txt", text_of(rows())
        if not check:
            path.write_text(text, encoding="ascii")
        elif not path.exists() or path.read_text(encoding="ascii") != text:
            wrong.append(path.name)
    wrong += [path.name for path in HERE.glob("*.txt") if path.stem not in LISTS]
    for name in sorted(wrong):
        print(f"{name}: not what generate.py writes")
    print(f"{len(LISTS)} lists, {sum(len(rows()) for rows in LISTS.values())} names, "
          f"{len(wrong)} wrong")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
