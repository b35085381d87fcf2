#!/usr/bin/env python3
"""The recipes of docs/python.md for PyTorch, run one after the other on a small model. Each prints what
it did; the model is named like a language model's, so that names say layer and role."""
import tempfile

import torch
from torch import nn

import gradreg
import gradreg.torch


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.self_attn = nn.ModuleDict({"q_proj": nn.Linear(width, width, bias=False)})
        self.mlp = nn.ModuleDict({"up_proj": nn.Linear(width, width)})

    def forward(self, x):
        x = x + torch.tanh(self.self_attn["q_proj"](x))
        return x + torch.tanh(self.mlp["up_proj"](x))


class Policy(nn.Module):
    """Six blocks over twenty words."""

    def __init__(self, words=20, width=16):
        super().__init__()
        self.embed_tokens = nn.Embedding(words, width)
        self.layers = nn.ModuleList(Block(width) for _ in range(6))
        self.lm_head = nn.Linear(width, words, bias=False)

    def forward(self, tokens):
        x = self.embed_tokens(tokens)
        for block in self.layers:
            x = block(x)
        return self.lm_head(x)


def logp_of(model, tokens):
    """Log-probs of each word after the first."""
    return gradreg.torch.logprobs(model(tokens[:, :-1]), tokens[:, 1:])[0]


def ten_lines(model, optimizer, tokens, rewards):
    # [ten-lines]
    advantages = gradreg.advantages(rewards, group_size=4, scale="group_std")
    with torch.no_grad():
        old_logp = logp_of(model, tokens)               # at the clean weights, for both passes

    regularizer = gradreg.torch.Regularizer(model, optimizer, strength=0.01, epsilon=0.05)

    def closure():
        loss, _ = gradreg.torch.policy_loss("grpo", logp_of(model, tokens), advantages,
                                            old_logp=old_logp)
        loss.backward()
        return loss

    loss = regularizer.step(closure)                    # two passes, one optimizer step
    # [end]
    return regularizer, closure, loss


def sam_shape(regularizer, loss_of):
    # [sam]
    loss_of().backward()
    regularizer.first_step(zero_grad=True)              # to the perturbed weights
    loss_of().backward()
    regularizer.second_step(zero_grad=True)             # back, gradients regularized, optimizer.step()
    # [end]


def accumulation(regularizer, micro_batches, loss_of):
    # [accumulate]
    def closure():
        for batch in micro_batches:                     # backward() adds, as always
            (loss_of(batch) / len(micro_batches)).backward()

    regularizer.step(closure)
    # [end]


def report(regularizer):
    # [report]
    terms = regularizer.terms()
    print(f"fidelity {terms.applied_cosine:.3f}, correction {100 * terms.correction_share:.2g} % of the "
          f"gradient, curvature {terms.curvature:.3g}")
    for number, layer in enumerate(terms.layers):
        print(f"layer {number}: lambda {layer.strength:.4f}, correction {layer.correction_share:.4f}")
    log = regularizer.metrics()                         # the same as numbers by name, for a logger
    # [end]
    assert log["gradreg/fidelity"] == terms.applied_cosine


def half_precision(model, tokens, advantages, old_logp):
    # [bf16]
    regularizer = gradreg.torch.Regularizer(
        model, strength=0.01, step="relative", epsilon=2 ** -6, difference="central",
        compute_type="bf16", min_fidelity=0.9)

    def closure():
        with torch.autocast("cpu", torch.bfloat16):     # or "cuda"
            logp = logp_of(model, tokens)
        loss, _ = gradreg.torch.policy_loss("grpo", logp, advantages, old_logp=old_logp)
        loss.backward()
        return loss

    regularizer.step(closure)
    # [end]
    assert regularizer.terms().applied_cosine > 0.9


def which_epsilon(model, loss_of):
    # [epsilon]
    with gradreg.torch.Regularizer(model) as trial:
        loss_of().backward()
        epsilon = trial.suggest_epsilon(target_cosine=0.95)
        trial.zero_grad()
    # [end]
    assert 0 < epsilon < float("inf")
    return epsilon


def adapters_only(model):
    # [adapters]
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name or "norm" in name)
    # [end]


def own_names(model):
    # [names]
    def classify(name):                                 # gradreg.classify and its answers, corrected
        layer, role = gradreg.classify(name)            # ("blocks.3.mixer.up.weight": 3, OTHER)
        return layer, "mlp" if ".mixer." in name else role

    regularizer = gradreg.torch.Regularizer(model, classify=classify)
    # [end]
    return regularizer


def noise(model, optimizer, closure):
    # [noise]
    regularizer = gradreg.torch.Regularizer(
        model, optimizer, noise=gradreg.Noise("relative", scale=2 ** -7))
    for _ in range(2):                                  # the first step leaves the direction
        regularizer.step(closure)                       # rollouts and old log-probs: between steps
    # [end]
    assert regularizer.terms().noise_norm > 0


def resume(regularizer, model, path):
    # [state]
    torch.save({"model": model.state_dict(), "gradreg": regularizer.state_dict()}, path)
    saved = torch.load(path)
    regularizer.load_state_dict(saved["gradreg"])
    # [end]


def main():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = Policy()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    tokens = torch.randint(0, 20, (8, 12))
    rewards = (tokens % 2 == 0).float().mean(1)
    regularizer, closure, loss = ten_lines(model, optimizer, tokens, rewards)
    print(f"loss {loss.item():.4f}")
    advantages = gradreg.advantages(rewards, 4)
    with torch.no_grad():
        old_logp = logp_of(model, tokens)

    def loss_of(rows=slice(None)):
        return gradreg.torch.policy_loss("grpo", logp_of(model, tokens[rows]), advantages[rows],
                                         old_logp=old_logp[rows]).loss
    sam_shape(regularizer, loss_of)
    accumulation(regularizer, [slice(0, 4), slice(4, 8)], loss_of)
    report(regularizer)
    half_precision(model, tokens, advantages, old_logp)
    print(f"suggested epsilon {which_epsilon(model, loss_of):.3g}")
    noise(model, optimizer, closure)
    with tempfile.TemporaryDirectory() as folder:
        resume(regularizer, model, f"{folder}/run.pt")
    own_names(model)
    adapters_only(model)
    print("ok")


if __name__ == "__main__":
    main()
