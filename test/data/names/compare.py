#!/usr/bin/env python3
"""Hold the lists against models built by the libraries that name the parameters.

usage: compare.py        needs torch, transformers and peft; nothing else of the project does

Models are built without memory for their weights (torch's meta device), as deep as the list, but
narrow. Prints one line a list: how many names, and how many differ. README.md says with which
versions this was last run.
"""
import os
import sys
import warnings
from pathlib import Path

import peft
import torch
import transformers as tf

HERE = Path(__file__).resolve().parent
NARROW = {"hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 4, "vocab_size": 128}
GROUPED = {**NARROW, "num_key_value_heads": 2}
FUSED_EXPERTS = int(tf.__version__.split(".")[0]) >= 5


def build(kind, config):
    with torch.device("meta"):
        return kind(config)


def qwen2(layers):
    return build(tf.Qwen2ForCausalLM, tf.Qwen2Config(
        num_hidden_layers=layers, tie_word_embeddings=False, **GROUPED))


def qwen3(layers, tied=False):
    return build(tf.Qwen3ForCausalLM, tf.Qwen3Config(
        num_hidden_layers=layers, tie_word_embeddings=tied, **GROUPED))


def qwen3_moe(layers, experts):
    return build(tf.Qwen3MoeForCausalLM, tf.Qwen3MoeConfig(
        num_hidden_layers=layers, num_experts=experts, **GROUPED))


def mixtral():
    return build(tf.MixtralForCausalLM, tf.MixtralConfig(num_hidden_layers=32, **GROUPED))


def opt(projected):
    return build(tf.OPTForCausalLM, tf.OPTConfig(
        num_hidden_layers=2, hidden_size=64, ffn_dim=64, num_attention_heads=4,
        word_embed_proj_dim=32 if projected else 64, do_layer_norm_before=not projected))


def falcon(new):
    return build(tf.FalconForCausalLM, tf.FalconConfig(
        num_hidden_layers=2, hidden_size=64, num_attention_heads=4, bias=False, alibi=False,
        new_decoder_architecture=new, num_kv_heads=2))


def bert_names():
    config = tf.BertConfig(num_hidden_layers=2, **NARROW)
    both = build(tf.BertForPreTraining, config), build(tf.BertForSequenceClassification, config)
    return {name for model in both for name in model.state_dict()}


def adapted(model, adapter="default", embedding=False, **options):
    linear = "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj".split()
    options = {"target_modules": ["embed_tokens"]} if embedding else {
        "target_modules": linear, "modules_to_save": ["lm_head"], **options}
    return peft.get_peft_model(model, peft.LoraConfig(r=2, **options), adapter_name=adapter)


def one_process():
    if not torch.distributed.is_initialized():
        store = torch.distributed.HashStore()
        torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)


def on_cpu(model):
    model = model.to_empty(device="cpu")
    getattr(model, "tie_weights", lambda: None)()
    return model


def ddp(model):
    one_process()
    return torch.nn.parallel.DistributedDataParallel(on_cpu(model))


def fsdp(model, orig=True, block=tf.models.qwen3.modeling_qwen3.Qwen3DecoderLayer):
    from torch.distributed.fsdp import FullyShardedDataParallel
    from torch.distributed.fsdp.wrap import ModuleWrapPolicy
    one_process()
    return FullyShardedDataParallel(
        on_cpu(model), auto_wrap_policy=ModuleWrapPolicy({block}), use_orig_params=orig,
        device_id=torch.device("cpu"))


def checkpointed(model, block=tf.models.qwen3.modeling_qwen3.Qwen3DecoderLayer):
    from torch.distributed.algorithms._checkpoint import checkpoint_wrapper
    checkpoint_wrapper.apply_activation_checkpointing(
        model, check_fn=lambda module: isinstance(module, block))
    return model


QWEN2_BLOCK = tf.models.qwen2.modeling_qwen2.Qwen2DecoderLayer
MODELS = {
    "qwen2.5_7b": lambda: qwen2(28),
    "qwen3_4b": lambda: qwen3(36, tied=True),
    "qwen3_8b": lambda: qwen3(36),
    "llama3_8b": lambda: build(tf.LlamaForCausalLM, tf.LlamaConfig(num_hidden_layers=32, **GROUPED)),
    "mistral_7b": lambda: build(
        tf.MistralForCausalLM, tf.MistralConfig(num_hidden_layers=32, **GROUPED)),
    "gemma2_2b": lambda: build(
        tf.Gemma2ForCausalLM, tf.Gemma2Config(num_hidden_layers=26, **GROUPED)),
    "phi3_mini": lambda: build(
        tf.Phi3ForCausalLM, tf.Phi3Config(num_hidden_layers=32, pad_token_id=0, **GROUPED)),
    "gpt2": lambda: build(tf.GPT2LMHeadModel, tf.GPT2Config(n_layer=12, n_embd=48)),
    ("gpt_neox_lm_head" if FUSED_EXPERTS else "gpt_neox_20b"): lambda: build(
        tf.GPTNeoXForCausalLM,
        tf.GPTNeoXConfig(num_hidden_layers=2 if FUSED_EXPERTS else 44, **NARROW)),
    "opt": lambda: opt(False),
    "opt_350m": lambda: opt(True),
    "falcon_7b": lambda: falcon(False),
    "falcon_40b": lambda: falcon(True),
    "bert": bert_names,
    "qwen2.5_0.5b_lora": lambda: adapted(qwen2(24)),
    "qwen2.5_dora": lambda: adapted(on_cpu(qwen2(2)), "norm_policy", use_dora=True),
    "qwen2.5_lora_embedding": lambda: adapted(qwen2(2), embedding=True),
    "qwen3_0.6b_ddp": lambda: ddp(qwen3(28, tied=True)),
    "qwen3_0.6b_fsdp": lambda: fsdp(qwen3(28, tied=True)),
    "qwen3_0.6b_fsdp_flat": lambda: fsdp(qwen3(28, tied=True), orig=False),
    "qwen3_fsdp_checkpointed": lambda: checkpointed(fsdp(qwen3(3))),
    "qwen3_ddp_compiled": lambda: ddp(torch.compile(on_cpu(qwen3(3)))),
    "qwen2.5_fsdp_lora": lambda: fsdp(adapted(qwen2(3)), block=QWEN2_BLOCK),
    **({"qwen3_moe_30b_a3b": lambda: qwen3_moe(48, 8), "mixtral_8x7b_fused": mixtral}
       if FUSED_EXPERTS else
       {"qwen3_moe_experts": lambda: qwen3_moe(4, 128), "mixtral_8x7b": mixtral}),
}
# What a checkpoint has and a model does not list: tied tensors, buffers.
NOT_PARAMETERS = {"bert.embeddings.position_ids"}


def listed(name):
    lines = (HERE / f"{name}.txt").read_text(encoding="ascii").splitlines()
    return {line.split("\t")[0] for line in lines}


def main():
    warnings.simplefilter("ignore")
    tf.logging.set_verbosity_error()
    wrong = 0
    for name, model in MODELS.items():
        want, got = listed(name), model()
        if not isinstance(got, set):
            got = {parameter for parameter, _ in got.named_parameters()}
        differ = want ^ (got - NOT_PARAMETERS)
        print(f"{name}: {len(want)} names, {len(differ)} differ", *sorted(differ)[:4])
        wrong += bool(differ)
    print(f"torch {torch.__version__}, transformers {tf.__version__}, peft {peft.__version__}: "
          f"{len(MODELS)} lists, {wrong} wrong")
    return bool(wrong)


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.exit(main())
