#!/usr/bin/env python3
"""gradreg.torch: steps against an implementation that shares nothing with the library, the ways of
calling, what PyTorch users do (accumulate, autocast, scale, freeze, tie, adapt), losses against
autograd, and what bad input raises."""
import contextlib
import copy
import io
import math
import pickle
import re
import sys
import threading

import gradreg
from support import Case, main, rows

try:
    import torch
    from torch import nn
except ImportError:
    main(needs=[("torch", "python3-torch")])

import cookbook_torch  # noqa: E402
import gradreg.torch as gt  # noqa: E402

torch.set_num_threads(1)  # small tensors; more threads would only wait for each other

LAYERS, WIDTH = 4, 8


class Block(nn.Module):
    def __init__(self, dropout):
        super().__init__()
        self.self_attn = nn.ModuleDict({"q_proj": nn.Linear(WIDTH, WIDTH, bias=False)})
        self.mlp = nn.ModuleDict({"up_proj": nn.Linear(WIDTH, WIDTH)})
        self.input_layernorm = nn.LayerNorm(WIDTH)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        x = x + torch.tanh(self.self_attn["q_proj"](self.input_layernorm(x)))
        return x + self.dropout(torch.tanh(self.mlp["up_proj"](x)))


class Model(nn.Module):
    """Named like a language model, so that names say layer and role."""

    def __init__(self, dropout=0.0, vocabulary=12):
        super().__init__()
        self.embed_tokens = nn.Embedding(vocabulary, WIDTH)
        self.layers = nn.ModuleList(Block(dropout) for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)
        self.lm_head = nn.Linear(WIDTH, vocabulary, bias=False)

    def forward(self, tokens):
        x = self.embed_tokens(tokens)
        for block in self.layers:
            x = block(x)
        return self.lm_head(self.norm(x))


def setting(seed=0, dropout=0.0, kind=torch.float32):
    torch.manual_seed(seed)
    model = Model(dropout).to(kind)
    tokens = torch.randint(0, 12, (6, 5))
    def loss_of(network, rows_=slice(None)):
        logits = network(tokens[rows_]).float()
        return nn.functional.cross_entropy(logits.flatten(0, 1), tokens[rows_].flatten(),
                                           reduction="sum") / tokens.numel()
    return model, loss_of


def closure_of(model, loss_of):
    def closure():
        loss = loss_of(model)
        loss.backward()
        return loss
    return closure


def independent_step(model, loss_of, strength, epsilon, clip=math.inf, central=False):
    """g_hat in double by the formulas of docs: names, schedule and clips written out once more."""
    model = copy.deepcopy(model).double()
    parameters = dict(model.named_parameters())
    m = schedule()

    def gradient():
        model.zero_grad()
        loss = loss_of_double(model, loss_of)
        loss.backward()
        found = {name: p.grad.clone() for name, p in parameters.items()}
        norm = math.sqrt(sum(float((g * g).sum()) for g in found.values()))
        factor = min(1.0, clip / (norm + 1e-6))
        return {name: factor * g for name, g in found.items()}
    layer = {name: int(name.split(".")[1]) if name.startswith("layers.") else None
             for name in parameters}
    moves = [name for name in parameters if layer[name] is not None]
    first = gradient()

    def at(sign):
        with torch.no_grad():
            for name in moves:
                parameters[name] += sign * epsilon * first[name]
        found = gradient()
        with torch.no_grad():
            for name in moves:
                parameters[name] -= sign * epsilon * first[name]
        return found
    plus = at(1)
    minus = at(-1) if central else first
    out = {}
    for name, g in first.items():
        k = strength * m[layer[name]] / epsilon if layer[name] is not None else 0.0
        out[name] = g + k * (plus[name] - minus[name]) / (2 if central else 1)
    return first, out


def schedule():
    """first = (12 n + 36) / 72, full = min((44 n + 36) / 72, n - 1), linear between."""
    n = LAYERS
    first, full = (12 * n + 36) // 72, min((44 * n + 36) // 72, n - 1)
    return [0.0 if l < first else 1.0 if l >= full else (l - first + 1) / (full - first + 1)
            for l in range(n)]


def loss_of_double(model, loss_of):
    # loss_of casts logits to float32; in double the model's own output is used as it is.
    old = torch.Tensor.float
    torch.Tensor.float = lambda tensor: tensor
    try:
        return loss_of(model)
    finally:
        torch.Tensor.float = old


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


class TorchCase(Case):
    def same(self, a, b):
        self.assertEqual(a.keys(), b.keys())
        for name in a:
            self.assertTrue(torch.equal(a[name], b[name]), name)

    def close(self, found, first, want, tolerance):
        """found - first is the correction want - first, up to tolerance times its size."""
        size = math.sqrt(sum(float(((want[n] - first[n]) ** 2).sum()) for n in want))
        error = math.sqrt(sum(float(((found[n].double() - want[n]) ** 2).sum()) for n in want))
        self.assertGreater(size, 1e-4)
        self.assertLess(error / size, tolerance)


class Steps(TorchCase):
    @rows([("forward", {}, math.inf), ("central", {"difference": "central"}, math.inf),
           ("both gradients clipped", {}, 0.1)])
    def test_a_step_is_the_independent_one(self, more, clip):
        model, loss_of = setting()
        before = weights(model)
        first, want = independent_step(model, loss_of, 0.5, 0.05, clip, "difference" in more)
        limit = 0 if clip == math.inf else clip
        with gt.Regularizer(model, strength=0.5, epsilon=0.05, clip_first=limit, clip_second=limit,
                            **more) as regularizer:
            loss = regularizer.step(closure_of(model, loss_of))
            terms = regularizer.terms()
        self.close(gradients(model), first, want, 2e-4)
        self.same(weights(model), before)
        self.assertAlmostEqual(loss.item(), loss_of(model).item(), places=6)
        if clip == math.inf:
            self.assertAlmostEqual(terms.first_order_ratio, 1, delta=0.05)

    def test_sam_shape_and_closure_give_the_same_training(self):
        results = []
        for shape in ("closure", "sam", "parts"):
            model, loss_of = setting()
            optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
            regularizer = gt.Regularizer(model, optimizer, strength=0.1, epsilon=0.05)
            for _ in range(3):
                if shape == "closure":
                    regularizer.step(closure_of(model, loss_of))
                elif shape == "sam":
                    loss_of(model).backward()
                    regularizer.first_step(zero_grad=True)
                    loss_of(model).backward()
                    regularizer.second_step(zero_grad=True)
                else:
                    optimizer.zero_grad()
                    loss_of(model).backward()
                    regularizer.perturb()
                    loss_of(model).backward()
                    regularizer.combine()
                    optimizer.step()
            regularizer.close()
            results.append(weights(model))
        self.same(results[0], results[1])
        self.same(results[0], results[2])

    def test_a_model_learns_with_it(self):
        model, loss_of = setting()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        regularizer = gt.Regularizer(model, optimizer, strength=0.01, epsilon=0.05)
        losses = [regularizer.step(closure_of(model, loss_of)).item() for _ in range(20)]
        self.assertLess(losses[-1], 0.5 * losses[0])
        self.assertEqual(regularizer.terms().step, 20)

    def test_micro_batches_accumulate_to_the_whole_batch(self):
        model, loss_of = setting()
        with gt.Regularizer(model, strength=0.5, epsilon=0.05) as regularizer:
            regularizer.step(closure_of(model, loss_of))
        whole = gradients(model)

        def pieces():
            for part in (slice(0, 2), slice(2, 3), slice(3, 6)):
                loss_of(model, part).backward()
        with gt.Regularizer(model, strength=0.5, epsilon=0.05) as regularizer:
            regularizer.step(pieces)
        for name, gradient in gradients(model).items():
            torch.testing.assert_close(gradient, whole[name], rtol=1e-4, atol=1e-6)

    def test_interval_steps_take_one_pass(self):
        model, loss_of = setting()
        calls = []
        regularizer = gt.Regularizer(model, strength=0.1, epsilon=0.05, interval=3)
        for _ in range(6):
            regularizer.step(lambda: calls.append(1) or closure_of(model, loss_of)())
        self.assertEqual(len(calls), 8)

    def test_dropout_is_the_same_in_both_passes_and_new_in_the_next_step(self):
        model, loss_of = setting(dropout=0.5)
        masks = []
        model.layers[0].dropout.register_forward_hook(
            lambda _module, inputs, output: masks.append(output == 0))
        regularizer = gt.Regularizer(model, strength=0.1, epsilon=1e-3)
        for _ in range(2):
            regularizer.step(closure_of(model, loss_of))
        self.assertTrue(torch.equal(masks[0], masks[1]))
        self.assertTrue(torch.equal(masks[2], masks[3]))
        self.assertFalse(torch.equal(masks[0], masks[2]))

    def test_noise_is_in_during_the_passes_only(self):
        model, loss_of = setting()
        before, seen = weights(model), []
        def closure():
            seen.append(weights(model))
            return closure_of(model, loss_of)()
        regularizer = gt.Regularizer(model, noise="relative", epsilon=0.05,
                                     schedule=gradreg.Schedule(first_layer=2, full_layer=3))
        for _ in range(2):
            regularizer.step(closure)
            self.same(weights(model), before)
        name = "layers.0.self_attn.q_proj.weight"
        self.assertTrue(torch.equal(seen[0][name], before[name]))
        self.assertFalse(torch.equal(seen[2][name], before[name]))
        self.assertTrue(torch.equal(seen[2]["layers.3.self_attn.q_proj.weight"],
                                    before["layers.3.self_attn.q_proj.weight"]))

    def test_a_closure_that_fails_leaves_the_weights_as_they_were(self):
        model, loss_of = setting()
        before, calls = weights(model), []
        def closure():
            calls.append(1)
            if len(calls) == 2:
                raise KeyError("data ran out")
            return closure_of(model, loss_of)()
        regularizer = gt.Regularizer(model, epsilon=0.05)
        with self.assertRaises(KeyError):
            regularizer.step(closure)
        self.same(weights(model), before)
        regularizer.step(closure)

    def test_a_resumed_run_gives_the_same_bits(self):
        def fresh():
            model, loss_of = setting()
            return model, loss_of, gt.Regularizer(
                model, torch.optim.SGD(model.parameters(), lr=0.1), epsilon=0.05, interval=2,
                noise="relative", schedule=gradreg.Schedule(first_layer=1, full_layer=3))
        model, loss_of, regularizer = fresh()
        for step in range(5):
            if step == 3:
                file = io.BytesIO()
                torch.save({"model": model.state_dict(), "gr": regularizer.state_dict()}, file)
            regularizer.step(closure_of(model, loss_of))
        want = weights(model)
        file.seek(0)
        saved = torch.load(file)
        model, loss_of, regularizer = fresh()
        model.load_state_dict(saved["model"])
        regularizer.load_state_dict(saved["gr"])
        for _ in range(2):
            regularizer.step(closure_of(model, loss_of))
        self.same(weights(model), want)

    def test_metrics_are_numbers_by_name(self):
        model, loss_of = setting()
        regularizer = gt.Regularizer(model, strength=0.1, epsilon=0.05)
        regularizer.step(closure_of(model, loss_of))
        metrics = regularizer.metrics()
        self.assertAlmostEqual(metrics["gradreg/layer_03/lambda"], 0.1)
        self.assertGreater(metrics["gradreg/fidelity"], 0.99)
        for name in ("curvature", "correction_share", "layer_02/fidelity", "layer_03/curvature"):
            self.assertIsInstance(metrics["gradreg/" + name], float)
        self.assertFalse(any(value != value for value in metrics.values()))


class Habits(TorchCase):
    def test_frozen_parameters_and_unused_ones_are_left_alone(self):
        model, loss_of = setting()
        frozen = model.layers[2].mlp["up_proj"].weight
        frozen.requires_grad_(False)
        model.layers[1].unused = nn.Linear(2, 2)
        regularizer = gt.Regularizer(model, epsilon=0.05)
        self.assertNotIn("layers.2.mlp.up_proj.weight", regularizer.names)
        before = frozen.clone()
        def closure():
            self.assertTrue(torch.equal(frozen, before))
            return closure_of(model, loss_of)()
        regularizer.step(closure)
        self.assertIsNone(frozen.grad)
        self.assertIsNone(model.layers[1].unused.weight.grad)
        self.assertIn(gradreg.Flag.ABSENT_GRADIENT, regularizer.terms().flags)

    def test_tied_weights_count_once(self):
        model, loss_of = setting()
        model.lm_head.weight = model.embed_tokens.weight
        regularizer = gt.Regularizer(model, epsilon=0.05, strength=0)
        self.assertEqual(regularizer.names.count("embed_tokens.weight"), 1)
        self.assertNotIn("lm_head.weight", regularizer.names)
        regularizer.step(closure_of(model, loss_of))
        norm = math.sqrt(sum(float((g * g).sum()) for g in gradients(model).values()))
        self.assertAlmostEqual(regularizer.terms().first_norm, norm, places=4)
        doubled = [("embed_tokens.weight", model.embed_tokens.weight),
                   ("lm_head.weight", model.embed_tokens.weight), *model.layers.named_parameters("layers")]
        self.assertEqual(len(gt.Regularizer(doubled, epsilon=0.05).names), len(doubled) - 1)

    def test_adapters_take_the_role_of_what_they_wrap(self):
        model, _ = setting()
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        named = list(model.named_parameters())
        a, b_ = nn.Parameter(torch.randn(2, WIDTH)), nn.Parameter(torch.zeros(WIDTH, 2))
        prefix = "base_model.model.model.layers.3.self_attn.q_proj.lora_"
        named += [(f"{prefix}A.default.weight", a), (f"{prefix}B.default.weight", b_)]
        with gt.Regularizer(named, epsilon=0.05) as regularizer:
            self.assertEqual(regularizer.layer_count, 4)
            self.assertEqual([(s.layer, s.role) for s in regularizer.core.segments],
                             [(3, gradreg.Role.ATTENTION)] * 2)

    def test_names_of_ones_own_take_a_function(self):
        model, loss_of = setting(0)
        named = [(name.replace("self_attn", "mix").replace("mlp", "widen"), parameter)
                 for name, parameter in model.named_parameters()]

        def classify(name):
            layer, role = gradreg.classify(name)
            return layer, "attention" if ".mix." in name else "mlp" if ".widen." in name else role

        found = []
        for parameters, more in ((model, {}), (named, {"classify": classify})):
            regularizer = gt.Regularizer(parameters, strength=0.5, epsilon=0.05, **more)
            regularizer.step(closure_of(model, loss_of))
            found.append([gradients(model), repr(regularizer)])
        self.same(found[0][0], found[1][0])
        self.assertEqual(found[0][1], found[1][1])
        with self.assertLogs("gradreg", "WARNING") as caught:
            left = gt.Regularizer(named)
        self.assertIn("layers.0.mix.q_proj.weight first, do not say", caught.output[0])
        self.assertIn("classify", caught.output[0])
        perturbed = [int(re.search(r"(\d+) perturbed", text).group(1))
                     for text in (found[0][1], repr(left))]
        self.assertEqual(perturbed[0] - perturbed[1], sum(a != b for (a, _), (b, _) in
                                                          zip(named, model.named_parameters())))

    def test_what_gets_no_gradient_is_said_once(self):
        model, loss_of = setting()
        regularizer = gt.Regularizer(model, epsilon=0.05)
        model.norm.weight.requires_grad_(False)
        with self.assertLogs("gradreg", "WARNING") as caught:
            for _ in range(2):
                regularizer.step(closure_of(model, loss_of))
        self.assertEqual(len(caught.output), 1)
        self.assertIn("norm.weight first, have no gradient", caught.output[0])

    def test_an_optimizer_of_another_model_is_said(self):
        model, _ = setting()
        with self.assertLogs("gradreg", "WARNING") as caught:
            gt.Regularizer(model, torch.optim.SGD(setting()[0].parameters(), 0.1))
        self.assertIn("holds none of the model's parameters", caught.output[0])

    def test_half_precision_models_come_back_to_the_last_bit(self):
        model, loss_of = setting(kind=torch.bfloat16)
        before = weights(model)
        with gt.Regularizer(model, step="relative", epsilon=2 ** -6) as regularizer:
            regularizer.step(closure_of(model, loss_of))
            self.assertGreater(regularizer.terms().applied_cosine, 0.9)
        self.same(weights(model), before)
        self.assertEqual(model.norm.weight.grad.dtype, torch.bfloat16)

    def test_under_autocast_the_report_is_of_what_the_forward_pass_sees(self):
        found = {}
        for compute_type in (None, "bf16"):
            model, loss_of = setting()
            def closure():
                with torch.autocast("cpu", torch.bfloat16):
                    loss = loss_of(model)
                loss.backward()
                return loss
            with gt.Regularizer(model, epsilon=1e-3, compute_type=compute_type) as regularizer:
                regularizer.step(closure)
                found[compute_type] = regularizer.terms().applied_cosine
        self.assertGreater(found[None], 0.99)
        self.assertLess(found["bf16"], 0.5)

    def test_a_loss_scaler_sees_overflow_of_either_pass(self):
        if not hasattr(torch, "amp") or not hasattr(torch.amp, "GradScaler"):
            self.skipTest("this PyTorch has no GradScaler on the CPU")
        results = {}
        for scaled in (False, True):
            model, loss_of = setting()
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            scaler = torch.amp.GradScaler("cpu", enabled=scaled, init_scale=256.0)
            regularizer = gt.Regularizer(model, optimizer, strength=0.5, epsilon=0.05)
            regularizer.step(lambda: scaler.scale(loss_of(model)).backward(), scaler=scaler)
            scaler.update()
            results[scaled] = weights(model)
        for name, weight in results[True].items():
            torch.testing.assert_close(weight, results[False][name], rtol=1e-5, atol=1e-6)
        for bad in (1, 2):
            calls, before = [], weights(model)
            def closure():
                calls.append(1)
                loss = scaler.scale(loss_of(model))
                loss = loss * math.inf if len(calls) == bad else loss
                loss.backward()
            scale = scaler.get_scale()
            regularizer.step(closure, scaler=scaler)
            scaler.update()
            self.assertEqual(scaler.get_scale(), scale / 2)
            self.same(weights(model), before)

    def test_a_gradient_that_vanished_is_allocated_and_said(self):
        model, loss_of = setting()
        regularizer = gt.Regularizer(model, epsilon=0.05)
        loss_of(model).backward()
        regularizer.first_step(zero_grad=True)
        self.assertIsNone(model.norm.weight.grad)
        x = model.embed_tokens(torch.arange(3))
        model.lm_head(model.norm(model.layers[0](x))).sum().backward()
        with self.assertLogs("gradreg", "WARNING") as caught:
            regularizer.second_step()
        self.assertIn("layers.1.self_attn.q_proj.weight", caught.output[0])
        self.assertIsNotNone(model.layers[1].self_attn["q_proj"].weight.grad)

    def test_dense_layouts_other_than_row_major_are_fine(self):
        torch.manual_seed(0)
        convolution = nn.Conv2d(3, 4, 3)
        data = torch.randn(2, 3, 8, 8)
        results = []
        for layout in (torch.contiguous_format, torch.channels_last):
            network = copy.deepcopy(convolution).to(memory_format=layout)
            named = [("layers.0.mlp." + name, p) for name, p in network.named_parameters()]
            with gt.Regularizer(named, strength=0.5, epsilon=0.05) as regularizer:
                def closure():
                    loss = (network(data) ** 2).mean()
                    loss.backward()
                try:
                    regularizer.step(closure)
                except gradreg.InvalidArgumentError as error:
                    # Which layout a gradient has is PyTorch's choice; a mixture is refused.
                    self.assertIn("strides", str(error))
                    return
            results.append(network.weight.grad.clone())
        torch.testing.assert_close(results[0], results[1].contiguous(), rtol=1e-4, atol=1e-5)


class BadInput(TorchCase):
    def setUp(self):
        self.model, self.loss_of = setting()

    def test_parameters_it_cannot_work_on(self):
        error = gradreg.Error
        self.refused((error, TypeError), ["embed_tokens.weight", "float64"], gt.Regularizer,
                     self.model.double())
        wide = nn.Parameter(torch.ones(4, 8)[:, ::2])
        self.refused((error, ValueError), ["layers.0.a", "not contiguous"], gt.Regularizer,
                     [("layers.0.a", wide)])
        self.refused((error, NotImplementedError), "meta", gt.Regularizer,
                     [("layers.0.a", nn.Parameter(torch.ones(4, device="meta")))])
        both = [("layers.0.a", nn.Parameter(torch.ones(4))),
                ("layers.0.b", nn.Parameter(torch.ones(4, device="meta")))]
        self.refused((error, ValueError), ["layers.0.b", "meta", "cpu"], gt.Regularizer, both)
        self.refused((error, ValueError), "classify", gt.Regularizer,
                     [("weight", nn.Parameter(torch.ones(4)))])
        self.refused((error, ValueError), "requires a gradient", gt.Regularizer, [])
        self.refused((error, TypeError), "not list", gt.Regularizer, [("layers.0.a", [1.0])])
        self.refused((error, TypeError), "'lamda'", gt.Regularizer, setting()[0], lamda=1)
        self.refused((error, TypeError), "did you mean epsilon?", gt.Regularizer, setting()[0], epsilom=1)
        for wrong, kind in ((setting()[0].parameters(), "Parameter"),
                            (torch.optim.SGD(setting()[0].parameters(), 0.1), "SGD")):
            self.refused((error, TypeError), ["named_parameters()", "not " + kind], gt.Regularizer, wrong)
        self.refused((error, ValueError), ["classify('layers.0.a')", "'mpl'"], gt.Regularizer,
                     [("layers.0.a", nn.Parameter(torch.ones(4)))], classify=lambda name: (0, "mpl"))

    def test_a_step_without_a_gradient_anywhere(self):
        regularizer = gt.Regularizer(self.model)
        before = weights(self.model)
        words = ["no parameter has a gradient", "backward()"]
        self.refused((gradreg.Error, RuntimeError), words, regularizer.perturb)
        self.refused((gradreg.Error, RuntimeError), words, regularizer.step, lambda: None)
        self.same(weights(self.model), before)
        with gt.Regularizer(self.model, direction="gaussian", output="product") as free:
            free.perturb()
            free.cancel()

    def test_an_optimizer_that_steps_between_the_passes(self):
        optimizer = torch.optim.SGD(self.model.parameters(), 0.1)
        regularizer = gt.Regularizer(self.model, epsilon=0.05, difference="central")
        before = weights(self.model)
        words = ["embed_tokens.weight was written to since perturb", "optimizer.step() after combine"]
        closure = closure_of(self.model, self.loss_of)
        closure()
        regularizer.first_step()
        closure()
        optimizer.step()
        self.refused((gradreg.Error, RuntimeError), words, regularizer.mirror)
        self.refused((gradreg.Error, RuntimeError), words, regularizer.combine)
        regularizer.cancel()
        moved = "layers.3.mlp.up_proj.weight"
        self.assertTrue(torch.equal(weights(self.model)[moved], before[moved]))
        regularizer.step(closure)

    def test_a_model_that_was_converted_since(self):
        regularizer = gt.Regularizer(self.model, epsilon=0.05)
        self.model.bfloat16()
        with self.assertNoLogs("gradreg") if hasattr(self, "assertNoLogs") else contextlib.nullcontext():
            self.refused((gradreg.Error, TypeError), ["perturb: embed_tokens.weight", "bfloat16"],
                         regularizer.step, closure_of(self.model, self.loss_of))

    def test_copies_and_settings_that_would_do_nothing(self):
        regularizer = gt.Regularizer(self.model)
        for copied in (pickle.dumps, copy.deepcopy, copy.copy):
            self.refused((gradreg.Error, NotImplementedError), ["torch.Regularizer", "state_dict()"], copied,
                         regularizer)
            self.refused((gradreg.Error, NotImplementedError), "Context", copied, regularizer.context)
        for name, words in (("strength", "set_strength()"), ("interval", "make a new one")):
            self.refused((gradreg.Error, NotImplementedError), words, setattr, regularizer, name, 2)
            self.refused((gradreg.Error, NotImplementedError), words, setattr, regularizer.core, name, 2)
        regularizer.title = "mine"
        policy = gradreg.Policy("dapo", clip_high=0.5)
        self.assertEqual(pickle.loads(pickle.dumps(policy)).clip_high, 0.5)
        for copied in (copy.copy(policy), copy.deepcopy(policy)):
            self.assertEqual(repr(copied), repr(policy))
            copied.clip_high = 0.25
            self.assertEqual(policy.clip_high, 0.5)

    def test_changes_between_the_passes(self):
        regularizer = gt.Regularizer(self.model, epsilon=0.05)
        self.loss_of(self.model).backward()
        regularizer.perturb()
        weight = self.model.layers[0].mlp["up_proj"].weight
        kept = weight.data
        weight.grad = None
        weight.data = torch.ones(3, 3)
        self.refused((gradreg.Error, ValueError), ["layers.0.mlp.up_proj.weight", "9 elements", "64"],
                     regularizer.cancel)
        weight.data = kept.double()
        self.refused((gradreg.Error, TypeError), ["layers.0.mlp.up_proj.weight", "float64"],
                     regularizer.cancel)
        weight.data = torch.ones(16, 8)[::2]
        self.refused((gradreg.Error, ValueError), "not contiguous", regularizer.cancel)
        weight.data = kept
        regularizer.cancel()

    def test_gradients_it_cannot_work_on(self):
        model = nn.ModuleDict({"layers": nn.ModuleList([nn.Embedding(4, 2, sparse=True)])})
        regularizer = gt.Regularizer(model)
        model["layers"][0](torch.tensor([1])).sum().backward()
        self.refused((gradreg.Error, ValueError), ["layers.0.weight", "sparse"], regularizer.perturb)

    def test_order_threads_and_close(self):
        regularizer = gt.Regularizer(self.model, epsilon=0.05)
        self.loss_of(self.model).backward()
        self.refused((gradreg.StateError, RuntimeError), "combine", regularizer.combine)
        regularizer.close()
        self.refused((gradreg.StateError, RuntimeError), "after close", regularizer.perturb)

    def test_states_of_another_model(self):
        regularizer = gt.Regularizer(self.model, epsilon=0.05)
        state = regularizer.state_dict()
        self.refused((gradreg.Error, ValueError), "other parameters", regularizer.load_state_dict,
                     {**state, "names": state["names"][1:]})
        self.refused((gradreg.Error, ValueError), "version", regularizer.load_state_dict,
                     {**state, "version": 2})
        broken = {**state, "state": state["state"].clone()}
        broken["state"][20] ^= 1
        self.refused((gradreg.Error, ValueError), "gradreg_regularizer_state_load",
                     regularizer.load_state_dict, broken)


class Losses(TorchCase):
    def setUp(self):
        torch.manual_seed(4)
        self.logp = -torch.rand(3, 5)
        self.old = self.logp + 0.2 * torch.randn(3, 5)
        self.mask = torch.arange(5) < torch.tensor([[5], [3], [1]])
        self.advantages = torch.tensor([1.0, -0.5, 2.0])

    def grpo(self, logp, entropy=None):
        ratio = torch.exp(logp - self.old)
        a = self.advantages[:, None]
        rho = -torch.minimum(ratio * a, ratio.clamp(0.8, 1.2) * a)
        loss = ((rho * self.mask).sum(1) / self.mask.sum(1)).mean()
        return loss if entropy is None else loss - 0.1 * (entropy * self.mask).sum() / self.mask.sum()

    def test_a_policy_loss_flows_back_like_its_formula(self):
        entropy = torch.rand(3, 5)
        found, want = [], []
        for into in (found, want):
            logp, h = self.logp.clone().requires_grad_(), entropy.clone().requires_grad_()
            if into is found:
                policy = gradreg.Policy("grpo", entropy_coefficient=0.1)
                loss, metrics = gt.policy_loss(policy, logp, self.advantages, old_logp=self.old,
                                               mask=self.mask.long(), entropy=h)
                self.assertEqual(metrics.tokens, 9)
            else:
                loss = self.grpo(logp, h)
            (3 * loss).backward()
            into += [loss.detach(), logp.grad, h.grad]
        for a, b_ in zip(found, want):
            torch.testing.assert_close(a, b_, rtol=1e-5, atol=1e-6)

    def test_only_what_needs_a_gradient_gets_one(self):
        logp = self.logp.clone().requires_grad_()
        loss, _ = gt.policy_loss("grpo", logp * 1, self.advantages, old_logp=self.old.double(),
                                 mask=self.mask, entropy=torch.ones(3, 5))
        loss.backward()
        self.assertIsNotNone(logp.grad)
        half = self.logp.to(torch.bfloat16).requires_grad_()
        gt.policy_loss("grpo", half, self.advantages).loss.backward()
        self.assertEqual(half.grad.dtype, torch.bfloat16)

    def test_wrong_shapes_are_value_errors(self):
        self.refused((gradreg.Error, ValueError), "old_logp", gt.policy_loss, "grpo", self.logp,
                     self.advantages, old_logp=self.old[:2])
        self.refused((gradreg.Error, ValueError), "meta", gt.policy_loss, "grpo",
                     self.logp.to("meta"), self.advantages)


class LogProbs(TorchCase):
    def setUp(self):
        torch.manual_seed(5)
        self.logits, self.targets = torch.randn(2, 3, 11), torch.randint(0, 11, (2, 3))
        self.targets[1, 2] = -100
        self.kept = (self.targets >= 0).float()

    def want(self, logits, temperature):
        logp = torch.log_softmax(logits.double() / temperature, -1)
        chosen = logp.gather(-1, self.targets.clamp(min=0)[..., None])[..., 0]
        return chosen * self.kept, -(logp.exp() * logp).sum(-1) * self.kept

    def test_log_probs_and_entropies_flow_back_like_log_softmax(self):
        a, b_ = self.logits.clone().requires_grad_(), self.logits.clone().requires_grad_()
        got, want = gt.logprobs(a, self.targets, temperature=0.7), self.want(b_, 0.7)
        scale = torch.rand(2, 3)
        ((got[0] + 0.3 * got[1]) * scale).sum().backward()
        ((want[0] + 0.3 * want[1]) * scale.double()).sum().backward()
        for x, y in zip((*got, a.grad), (*want, b_.grad)):
            torch.testing.assert_close(x.double(), y.double(), rtol=1e-5, atol=1e-6)

    def test_one_output_alone_flows_back_too(self):
        for which in (0, 1):
            a, b_ = self.logits.clone().requires_grad_(), self.logits.clone().requires_grad_()
            gt.logprobs(a, self.targets)[which].sum().backward()
            self.want(b_, 1.0)[which].sum().backward()
            torch.testing.assert_close(a.grad, b_.grad, rtol=1e-5, atol=1e-6)

    def test_a_linear_head_flows_back_into_hidden_and_weight(self):
        self.linear_head()

    def test_without_a_blas_pytorch_multiplies(self):
        def refuse(*_arguments, **_more):
            raise gradreg.UnsupportedError("no BLAS")
        kept, calls = gt._logprobs.linear_logprobs, gt._product
        rows_at_once = []
        gt._logprobs.linear_logprobs = refuse
        gt._product = lambda rows_, weight: rows_at_once.append(len(rows_)) or calls(rows_, weight)
        try:
            self.linear_head(chunk_rows=4)
        finally:
            gt._logprobs.linear_logprobs, gt._product = kept, calls
        self.assertEqual(rows_at_once, [4, 2, 4, 2])

    def linear_head(self, **more):
        hidden, weight = torch.randn(2, 3, 6), torch.randn(11, 6)
        leaves = [[t.clone().requires_grad_() for t in (hidden, weight)] for _ in range(2)]
        got = gt.linear_logprobs(*leaves[0], self.targets, temperature=1.3, **more)
        want = self.want(leaves[1][0] @ leaves[1][1].T, 1.3)
        (got[0].sum() + got[1].sum()).backward()
        (want[0].sum() + want[1].sum()).backward()
        for x, y in zip((*got, *(t.grad for t in leaves[0])), (*want, *(t.grad for t in leaves[1]))):
            torch.testing.assert_close(x.double(), y.double(), rtol=1e-4, atol=1e-5)

    def test_the_fused_loss_is_the_three_calls(self):
        advantages, mask = torch.tensor([1.0, -1.0]), self.targets >= 0
        old = self.want(self.logits, 1.0)[0].float() - 0.1
        a, b_ = self.logits.clone().requires_grad_(), self.logits.clone().requires_grad_()
        one, metrics = gt.policy_logits("dapo", a, self.targets, advantages, old_logp=old, mask=mask)
        one.backward()
        logp, _ = gt.logprobs(b_, self.targets)
        three, want = gt.policy_loss("dapo", logp, advantages, old_logp=old, mask=mask)
        three.backward()
        self.assertEqual(metrics.tokens, want.tokens)
        torch.testing.assert_close(one, three, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(a.grad, b_.grad, rtol=1e-4, atol=1e-6)

    def test_log_probs_of_half_precision_logits(self):
        a = self.logits.to(torch.bfloat16).requires_grad_()
        gt.logprobs(a, self.targets)[0].sum().backward()
        self.assertEqual(a.grad.dtype, torch.bfloat16)


class Cookbook(TorchCase):
    def test_every_recipe_runs(self):
        with contextlib.redirect_stdout(io.StringIO()) as out:
            cookbook_torch.main()
        self.assertTrue(out.getvalue().endswith("ok\n"))


if __name__ == "__main__":
    print("PyTorch", torch.__version__, threading.active_count(), sys.version.split()[0])
    main()
