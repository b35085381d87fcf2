#!/usr/bin/env python3
"""TRL's GRPOTrainer with gradreg, on the CPU, against an implementation that shares nothing with it.

usage: trl_step.py [--steps N] [--seed N]

Trains a tiny Qwen3 with random weights and a tokenizer of single letters (nothing is downloaded) for
real optimizer steps: generation, rewards, GRPO loss, two micro-batches a step, AdamW. Beside it the
same training runs in double from PyTorch alone: its own log-probs, loss, clips, perturbation,
combination, noise and AdamW, fed with the same completions and rewards only. Compared are every
regularized gradient and the weights at the end; then strength 0 with TRL alone, a resumed run, and
bf16. tools/check_trl runs it; fails if anything differs.
"""
import argparse
import logging
import math
import os
import sys
import tempfile
import warnings

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TRANSFORMERS_VERBOSITY="error",
                  HF_HUB_DISABLE_TELEMETRY="1", TQDM_DISABLE="1", TOKENIZERS_PARALLELISM="false")
import torch
import transformers
import trl
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (PreTrainedTokenizerFast, PrinterCallback, Qwen3Config, Qwen3ForCausalLM)
from trl import GRPOConfig, GRPOTrainer

import gradreg
from gradreg.trl import GradRegMixin

LAYERS, WIDTH = 6, 32


# [trainer]
class Trainer(GradRegMixin, GRPOTrainer):
    """GRPO with depth-scaled gradient regularization and directional noise."""
# [end]


class Recorder(Trainer):
    """Keeps what a step was made of: scored completions, and the gradient that the optimizer got."""

    def __init__(self, *arguments, **more):
        self.windows, self.parts = [], []
        super().__init__(*arguments, **more)

    def _compute_loss(self, model, inputs):
        if not self._gr_replaying:
            self.parts.append({name: value.clone() for name, value in inputs.items()
                               if torch.is_tensor(value)})
        return super()._compute_loss(model, inputs)

    def training_step(self, model, inputs, num_items_in_batch=None):
        loss = super().training_step(model, inputs, num_items_in_batch)
        if self.accelerator.sync_gradients:
            self.windows.append({"parts": self.parts, "terms": self.gradreg.terms(),
                                 "gradient": {n: p.grad.detach().double().clone()
                                              for n, p in self.model.named_parameters()}})
            self.parts = []
        return loss


def tokenizer():
    """Letters and digits, one token each."""
    words = ["<pad>", "<eos>", *"abcdefghijklmnopqrstuvwxyz0123456789"]
    built = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<pad>"))
    built.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=built, pad_token="<pad>", eos_token="<eos>")


def small_qwen3(words):
    return Qwen3ForCausalLM(Qwen3Config(
        vocab_size=len(words), hidden_size=WIDTH, intermediate_size=2 * WIDTH, num_hidden_layers=LAYERS,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, max_position_embeddings=128,
        tie_word_embeddings=True, pad_token_id=0, eos_token_id=1, bos_token_id=None))


def vowels(completions, **_):
    """A reward that random weights can earn."""
    return [sum(letter in "aeiou" for letter in text) / max(len(text), 1) for text in completions]


def train(kind, options, folder, resume=False, gradreg_settings=None, **changes):
    """A trainer after training, and the weights that it began with."""
    torch.manual_seed(options.seed)
    words = tokenizer()
    model = small_qwen3(words)
    settings = {"max_steps": options.steps, "save_strategy": "no", "bf16": False, **changes}
    arguments = GRPOConfig(
        output_dir=folder, per_device_train_batch_size=4, gradient_accumulation_steps=2,
        num_generations=4, max_completion_length=12, learning_rate=3e-3, lr_scheduler_type="constant",
        max_grad_norm=1e9, weight_decay=0.01, adam_epsilon=1e-4, beta=0.0, epsilon=0.2,
        loss_type="dapo", logging_steps=1, report_to=[], use_cpu=True, seed=options.seed,
        gradient_checkpointing=False, disable_tqdm=True, dataloader_pin_memory=False, **settings)
    data = Dataset.from_dict({"prompt": [a + b for a in "abcdefgh" for b in "0123"]})
    more = {} if gradreg_settings is None else {"gradreg": gradreg_settings}
    trainer = kind(model=model, reward_funcs=vowels, args=arguments, train_dataset=data,
                   processing_class=words, **more)
    trainer.remove_callback(PrinterCallback)
    start = {name: p.detach().double().clone() for name, p in model.named_parameters()}
    trainer.train(resume_from_checkpoint=resume)
    return trainer, start


class Independent:
    """The same training in double: formulas of docs/numerics.md written out in PyTorch."""

    def __init__(self, start, settings):
        self.model = small_qwen3(tokenizer()).double()
        self.parameters = dict(self.model.named_parameters())
        self.set(start)
        self.settings, self.direction = settings, None
        self.optimizer = torch.optim.AdamW(self.groups(), lr=3e-3, eps=1e-4)

    def groups(self):
        """As the trainer has them: no decay of biases and norms."""
        plain = [n for n in self.parameters if "norm" in n or n.endswith("bias")]
        return [{"params": [p for n, p in self.parameters.items() if n not in plain],
                 "weight_decay": 0.01},
                {"params": [self.parameters[n] for n in plain], "weight_decay": 0.0}]

    @torch.no_grad()
    def set(self, weights):
        for name, parameter in self.parameters.items():
            parameter.copy_(weights[name])

    @staticmethod
    def layer(name):
        return int(name.split(".")[2]) if name.startswith("model.layers.") else None

    @staticmethod
    def multiplier(layer):
        first, full = (12 * LAYERS + 36) // 72, min((44 * LAYERS + 36) // 72, LAYERS - 1)
        if layer is None or layer < first:
            return 0.0
        return 1.0 if layer >= full else (layer - first + 1) / (full - first + 1)

    def logp(self, part):
        ids = torch.cat([part["prompt_ids"], part["completion_ids"]], 1)
        mask = torch.cat([part["prompt_mask"], part["completion_mask"]], 1)
        logits = self.model(input_ids=ids, attention_mask=mask).logits
        table = torch.log_softmax(logits[:, :-1], -1)
        width = part["completion_ids"].shape[1]
        return table.gather(-1, ids[:, 1:, None])[..., 0][:, -width:]

    def gradient(self, parts, old):
        """Of the DAPO loss over the whole window: sum over tokens by their number."""
        self.model.zero_grad()
        total = sum(float(part["completion_mask"].sum()) for part in parts)
        for part, before in zip(parts, old):
            logp = self.logp(part)
            ratio = torch.exp(logp - (logp.detach() if before is None else before))
            a = part["advantages"].double()[:, None]
            loss = -torch.minimum(ratio * a, ratio.clamp(0.8, 1.2) * a)
            ((loss * part["completion_mask"]).sum() / total).backward()
        return {n: p.grad.clone() for n, p in self.parameters.items()}

    @staticmethod
    def norm(tensors):
        return math.sqrt(sum(float((t * t).sum()) for t in tensors.values()))

    def clipped(self, gradient):
        factor = min(1.0, 10 / (self.norm(gradient) + 1e-6))
        return {n: factor * g for n, g in gradient.items()}

    def noise(self, clean):
        """RMS(noise) = RMS(weights) / 128 along the last direction, early attention only."""
        if self.direction is None:
            return {}
        found = {}
        for name, u in self.direction.items():
            layer = self.layer(name)
            if layer is not None and self.multiplier(layer) == 0 and "self_attn" in name \
                    and "norm" not in name:
                found[name] = u * (2 ** -7 * float(clean[name].norm()) / float(u.norm()))
        return found

    @torch.no_grad()
    def move(self, step, sign=1):
        for name, delta in step.items():
            self.parameters[name] += sign * delta

    def step(self, parts):
        """g_hat of one window, at the weights at hand; they come back as they were."""
        clean = {n: p.detach().clone() for n, p in self.parameters.items()}
        with torch.no_grad():
            old = [self.logp(part) for part in parts]
        self.move(self.noise(clean))
        first = self.clipped(self.gradient(parts, old))
        moved = [n for n in first if self.layer(n) is not None]
        epsilon = self.settings["epsilon"]
        self.move({n: epsilon * first[n] for n in moved})
        second = self.clipped(self.gradient(parts, old))
        shorthand = self.clipped(self.gradient(parts, [None] * len(parts)))
        self.set(clean)
        self.direction = first
        k = {n: self.settings["strength"] * self.multiplier(self.layer(n)) / epsilon for n in first}
        correction, other = ({n: k[n] * (g[n] - first[n]) for n in first} for g in (second, shorthand))
        cosine = sum(float((correction[n] * other[n]).sum()) for n in first)
        return first, correction, cosine / (self.norm(correction) * self.norm(other))

    def update(self, gradient):
        for name, parameter in self.parameters.items():
            parameter.grad = gradient[name]
        self.optimizer.step()


def compare(trainer, start, settings, options):
    """Prints a line per step; whether everything agrees."""
    alone = Independent(start, settings)
    good = True
    print("                                 g_hat - independent   without old log-probs:\n"
          "step  tokens    |g1|  |corr|/|a|       over |corr|      cosine of corrections")
    for number, window in enumerate(trainer.windows, 1):
        first, correction, cosine = alone.step(window["parts"])
        want = {n: first[n] + correction[n] for n in first}
        size, whole = alone.norm(correction), alone.norm(first)
        error = alone.norm({n: window["gradient"][n] - want[n] for n in want}) / size
        tokens = sum(int(part["completion_mask"].sum()) for part in window["parts"])
        print(f"{number:4}  {tokens:6}  {whole:.4f}  {size / whole:10.4f}  {error:16.1e}  {cosine:25.3f}")
        good &= error < 1e-3 and abs(window["terms"].correction_share * whole / size - 1) < 1e-3
        alone.update(want)
    final = {n: p.detach().double() for n, p in trainer.model.named_parameters()}
    moved = alone.norm({n: p.detach() - start[n] for n, p in alone.parameters.items()})
    apart = alone.norm({n: p.detach() - final[n] for n, p in alone.parameters.items()})
    print(f"weights after {len(trainer.windows)} steps: moved by {moved:.3f}, the two trainings "
          f"{apart:.1e} apart")
    return good and apart / moved < 1e-3 and len(trainer.windows) == options.steps


def show_log(trainer):
    """What the trainer logged in its last step."""
    last = [entry for entry in trainer.state.log_history if "gradreg/curvature" in entry][-1]
    print("\nlogged in the last step (every layer has these four; one is shown):")
    for name in sorted(last):
        if name.startswith("gradreg/") and ("layer_" not in name or "layer_05" in name):
            print(f"  {name:38} {last[name]:.5g}")
    return all(f"gradreg/layer_{layer:02}/{what}" in last for layer in range(1, LAYERS)
               for what in ("lambda", "fidelity", "curvature", "correction_share"))


def weights(trainer):
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters()}


def without_strength(options, folder):
    """strength 0 and no noise must be TRL's own training, bit for bit."""
    off = {"strength": 0.0, "clip_first": 0, "clip_second": 0}
    one, _ = train(Recorder, options, folder, gradreg_settings=off)
    other, _ = train(GRPOTrainer, options, folder)
    mine, plain = weights(one), weights(other)
    same = all(torch.equal(mine[name], plain[name]) for name in plain)
    print(f"strength 0 beside TRL alone: weights {'equal bit for bit' if same else 'DIFFER'}")
    return same


def resumed(options, settings, folder):
    """A run that is stopped half-way goes on with the noise and the counter that it had."""
    half = options.steps // 2
    straight, _ = train(Recorder, options, folder, gradreg_settings=dict(settings),
                        save_strategy="steps", save_steps=half)
    again, _ = train(Recorder, options, folder, os.path.join(folder, f"checkpoint-{half}"),
                     gradreg_settings=dict(settings), save_strategy="no")
    first = again.windows[0]["terms"]
    good = first.step == half + 1 and first.noise_norm > 0 and len(again.windows) == options.steps - half
    mine, whole = weights(again), weights(straight)
    same = all(torch.equal(mine[name], whole[name]) for name in whole)
    print(f"resumed after step {half}: next step is number {first.step}, noise of norm "
          f"{first.noise_norm:.4f}, final weights {'equal bit for bit' if same else 'DIFFER'}")
    return good and same


def in_bf16(options, folder):
    """Under autocast the report is of what the forward pass sees."""
    found = []
    for settings in ({"epsilon": 1e-3}, {"step": "relative", "epsilon": 2 ** -6,
                                         "difference": "central"}):
        trainer, _ = train(Recorder, options, folder, gradreg_settings=settings, bf16=True, max_steps=1)
        found.append(trainer.windows[0]["terms"].applied_cosine)
    print(f"bf16 autocast: fidelity {found[0]:.3f} with epsilon 1e-3, {found[1]:.3f} with relative steps "
          "of 2^-6")
    return found[0] < 0.5 and found[1] > 0.95


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.getLogger("gradreg").setLevel(logging.ERROR)
    print(f"torch {torch.__version__.split('+', maxsplit=1)[0]}, transformers {transformers.__version__}, "
          f"trl {trl.__version__}, gradreg {gradreg.version()}\n")
    settings = {"strength": 0.02, "epsilon": 0.05, "noise": "relative"}
    with tempfile.TemporaryDirectory() as folder:
        trainer, start = train(Recorder, options, folder, gradreg_settings=dict(settings))
        good = compare(trainer, start, settings, options)
        good &= show_log(trainer)
        print()
        good &= without_strength(options, folder)
        good &= resumed(options, settings, folder)
        good &= in_bf16(options, folder)
    print("\nok" if good else "\nFAILED")
    return not good


if __name__ == "__main__":
    sys.exit(main())
