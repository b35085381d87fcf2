#!/usr/bin/env python3
"""gradreg over NumPy arrays: the step against its closed form, types, reports, states, losses, and
what bad input raises."""
import array
import contextlib
import ctypes
import io
import logging
import math
import threading

import numpy as np

import cookbook_numpy
import gradreg
from support import Case, main, rows

NAMES = [(f"model.layers.{layer}.{part}.weight", count) for layer in range(4)
         for part, count in (("self_attn.q_proj", 24), ("mlp.up_proj", 40), ("input_layernorm", 8))]
TABLE = gradreg.flat_table([("model.embed_tokens.weight", 16), *NAMES])
COUNT = sum(segment.count for segment in TABLE)


class Quadratic:
    """L = theta' A theta / 2, whose gradient and Hessian are known."""

    def __init__(self, seed=1):
        random = np.random.default_rng(seed)
        half = random.standard_normal((COUNT, COUNT)) / math.sqrt(COUNT)
        self.hessian = half @ half.T
        self.theta = random.standard_normal(COUNT).astype(np.float32)

    def gradient(self, theta):
        return (self.hessian @ theta.astype(np.float64)).astype(np.float32)


def multipliers(schedule=None):
    m = (schedule or gradreg.Schedule()).multipliers(4)
    return np.concatenate([np.full(s.count, m[s.layer] if s.layer >= 0 else 0.0) for s in TABLE])


def step(regularizer, model, theta, grads, passes=None):
    regularizer.perturb(theta, grads)
    grads[:] = model.gradient(theta)
    if (passes or regularizer.extra_passes) == 2:
        regularizer.mirror(theta, grads)
        grads[:] = model.gradient(theta)
    regularizer.combine(theta, grads)


class Step(Case):
    def setUp(self):
        self.model = Quadratic()
        self.theta = self.model.theta.copy()
        self.grads = self.model.gradient(self.theta)
        self.first = self.grads.astype(np.float64)
        self.moved = np.concatenate([np.full(s.count, s.layer >= 0) for s in TABLE])

    @rows([("forward", "forward", 2e-3), ("central", "central", 2e-3)])
    def test_a_step_adds_lambda_h_g_to_the_gradient(self, difference, tolerance):
        self.setUp()
        with gradreg.Regularizer(TABLE, layer_count=4, strength=0.1, epsilon=0.05, clip_first=0,
                                 clip_second=0, difference=difference) as regularizer:
            step(regularizer, self.model, self.theta, self.grads)
            terms = regularizer.terms()
        want = self.first + 0.1 * multipliers() * (self.model.hessian @ (self.first * self.moved))
        correction = np.linalg.norm(want - self.first)
        self.assertGreater(correction, 0.01)
        self.assertLess(np.linalg.norm(self.grads - want), tolerance * correction)
        np.testing.assert_array_equal(self.theta, self.model.theta)
        self.assertEqual(terms.step, 1)
        self.assertEqual(terms.flags, gradreg.Flag(0))
        self.assertAlmostEqual(terms.first_norm, np.linalg.norm(self.first), places=4)
        self.assertEqual(len(terms.layers), 4)
        self.assertAlmostEqual(terms.layers[3].strength, 0.1)
        direction = self.first * self.moved
        rayleigh = direction @ self.model.hessian @ direction / (direction @ direction)
        self.assertAlmostEqual(terms.curvature, rayleigh, delta=2e-3 * rayleigh)

    def test_an_array_per_segment_gives_the_bits_of_the_flat_buffer(self):
        kept = self.grads.copy()
        with gradreg.Regularizer(TABLE, layer_count=4) as regularizer:
            step(regularizer, self.model, self.theta, self.grads)
        split = np.cumsum([s.count for s in TABLE])[:-1]
        theta, grads = np.split(self.model.theta.copy(), split), np.split(kept, split)
        with gradreg.Regularizer(TABLE, layer_count=4) as regularizer:
            regularizer.perturb(theta, grads)
            second = np.split(self.model.gradient(np.concatenate(theta)), split)
            for old, new in zip(grads, second):
                old[:] = new
            regularizer.combine(theta, grads)
        np.testing.assert_array_equal(np.concatenate(grads), self.grads)

    def test_strength_zero_gives_the_first_gradient_bit_for_bit(self):
        kept = self.grads.copy()
        with gradreg.Regularizer(TABLE, layer_count=4, strength=0, clip_first=0,
                                 clip_second=0) as regularizer:
            step(regularizer, self.model, self.theta, self.grads)
        np.testing.assert_array_equal(self.grads, kept)

    @rows([("bf16 in uint16", "bf16", np.uint16), ("f16", "f16", np.float16)])
    def test_half_precision_weights_come_back_to_the_last_bit(self, kind, dtype):
        self.setUp()
        if dtype == np.uint16:
            theta = (self.theta.view(np.uint32) >> 16).astype(np.uint16)
        else:
            theta = self.theta.astype(dtype)
        kept = theta.copy()
        with gradreg.Regularizer(TABLE, layer_count=4, param_type=kind, step="relative",
                                 epsilon=2 ** -6) as regularizer:
            regularizer.perturb(theta, self.grads)
            self.assertFalse(np.array_equal(theta, kept))
            regularizer.combine(theta, self.grads)
            terms = regularizer.terms()
        np.testing.assert_array_equal(theta, kept)
        self.assertGreater(terms.applied_cosine, 0.9)

    def test_ml_dtypes_arrays_are_bf16(self):
        try:
            import ml_dtypes
        except ImportError:
            self.skipTest("ml_dtypes is not installed")
        theta = self.theta.astype(ml_dtypes.bfloat16)
        kept = theta.copy()
        with gradreg.Regularizer(TABLE, layer_count=4, param_type=ml_dtypes.bfloat16) as regularizer:
            regularizer.perturb(theta, self.grads)
            regularizer.combine(theta, self.grads)
        np.testing.assert_array_equal(theta.view(np.uint16), kept.view(np.uint16))

    def test_plain_python_arrays_will_do(self):
        theta, grads = (array.array("f", values.tolist()) for values in (self.theta, self.grads))
        with gradreg.Regularizer(TABLE, layer_count=4) as regularizer:
            regularizer.perturb(theta, grads)
            self.assertNotEqual(theta.tolist(), self.theta.tolist())
            regularizer.cancel(theta)
        self.assertEqual(theta.tolist(), self.theta.tolist())

    def test_noise_starts_with_the_second_step_and_leaves_no_trace(self):
        # The article's first regularized layer is beyond the default of a model of four layers.
        with gradreg.Regularizer(TABLE, layer_count=4, noise="relative",
                                 schedule=gradreg.Schedule(first_layer=1, full_layer=2)) as regularizer:
            for turn in range(2):
                self.grads[:] = self.model.gradient(self.theta)
                regularizer.inject_noise(self.theta)
                moved = np.flatnonzero(self.theta != self.model.theta)
                step(regularizer, self.model, self.theta, self.grads)
                np.testing.assert_array_equal(self.theta, self.model.theta)
                self.assertEqual(len(moved) > 0, turn > 0)
            self.assertGreater(regularizer.terms().noise_norm, 0)

    def test_a_resumed_run_gives_the_same_bits(self):
        def run(steps, state=None):
            theta = self.model.theta.copy()
            with gradreg.Regularizer(TABLE, layer_count=4, interval=2, noise={"rule": "relative"},
                                     warmup="linear", warmup_steps=3, schedule={"first_layer": 2,
                                     "full_layer": 3}) as regularizer:
                if state is not None:
                    regularizer.load_state(state)
                for _ in range(steps):
                    grads = self.model.gradient(theta)
                    regularizer.inject_noise(theta)
                    if regularizer.extra_passes:
                        regularizer.perturb(theta, grads)
                        grads[:] = self.model.gradient(theta)
                    regularizer.combine(theta, grads)
                return grads, regularizer.save_state()
        straight, _ = run(5)
        _, state = run(3)
        resumed, _ = run(2, state)
        np.testing.assert_array_equal(straight, resumed)

    def test_scale_and_found_inf_are_read_and_written(self):
        scale, found = np.array([1024], np.float32), np.zeros(1, np.float32)
        plain = self.grads.copy()
        with gradreg.Regularizer(TABLE, layer_count=4) as regularizer:
            step(regularizer, self.model, self.theta, plain)
        scaled = self.grads * scale
        with gradreg.Regularizer(TABLE, layer_count=4) as regularizer:
            regularizer.perturb(self.theta, scaled, grad_scale=scale, found_inf=found)
            scaled[:] = self.model.gradient(self.theta) * scale
            regularizer.combine(self.theta, scaled, grad_scale=scale, found_inf=found)
            np.testing.assert_allclose(scaled / scale, plain, rtol=1e-5, atol=1e-6)
            self.assertEqual(found[0], 0)
            scaled[3] = np.inf
            regularizer.perturb(self.theta, scaled, grad_scale=scale, found_inf=found)
            regularizer.fallback(self.theta, scaled, grad_scale=scale, found_inf=found)
            self.assertIn(gradreg.Flag.NON_FINITE_FIRST, regularizer.terms().flags)
        self.assertEqual(found[0], 1)
        self.assertFalse(scaled.any())

    def test_two_ranks_with_half_the_buffer_each_give_the_bits_of_one(self):
        # Cut in the middle of a segment, not of a block of the sum: one rank's row stays zero there.
        whole, cut = self.grads.copy(), COUNT // 2
        with gradreg.Regularizer(TABLE, layer_count=4) as regularizer:
            step(regularizer, self.model, self.theta, whole)
            want = regularizer.terms()
        barrier, rows_of, reports = threading.Barrier(2, timeout=30), {}, {}

        def rank(number, part):
            def reduce(address, count, _stream):
                values = np.ctypeslib.as_array((ctypes.c_double * count).from_address(address))
                rows_of[number] = values.copy()
                barrier.wait()
                values[:] = rows_of[0] + rows_of[1]
                barrier.wait()
            theta, grads = self.theta[part].copy(), self.grads[part].copy()
            with gradreg.Context() as context, gradreg.Regularizer(
                    TABLE, context, layer_count=4, rank=number, world=2,
                    all_reduce=reduce) as regularizer:
                regularizer.perturb(theta, grads, slice_begin=part.start)
                rows_of[number, "theta"] = theta.copy()
                barrier.wait()
                moved = np.concatenate([rows_of[0, "theta"], rows_of[1, "theta"]])
                grads[:] = self.model.gradient(moved)[part]
                regularizer.combine(theta, grads, slice_begin=part.start)
                reports[number] = (regularizer.terms(), theta, grads)
        threads = [threading.Thread(target=rank, args=(i, part)) for i, part in
                   enumerate((slice(0, cut), slice(cut, COUNT)))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        np.testing.assert_array_equal(np.concatenate([reports[0][1], reports[1][1]]), self.theta)
        np.testing.assert_allclose(np.concatenate([reports[0][2], reports[1][2]]), whole, rtol=1e-5,
                                   atol=1e-6)
        self.assertAlmostEqual(reports[0][0].first_norm / want.first_norm, 1, places=7)
        self.assertEqual(reports[0][0].curvature, reports[1][0].curvature)

    def test_suggested_epsilon_arrives(self):
        theta = (self.theta.view(np.uint32) >> 16).astype(np.uint16)
        with gradreg.Regularizer(TABLE, layer_count=4, param_type="bf16") as regularizer:
            epsilon = regularizer.suggest_epsilon(theta, self.grads, 0.95)
            self.assertTrue(0 < epsilon < math.inf)
            regularizer.set_epsilon(epsilon)
            regularizer.perturb(theta, self.grads)
            regularizer.fallback(theta, self.grads)
            self.assertGreaterEqual(regularizer.terms().applied_cosine, 0.95)

    def test_losses_give_the_first_order_ratio(self):
        loss = lambda theta: float(theta.astype(float) @ self.model.hessian @ theta) / 2
        with gradreg.Regularizer(TABLE, layer_count=4, epsilon=1e-2) as regularizer:
            first = loss(self.theta)
            regularizer.perturb(self.theta, self.grads)
            second = loss(self.theta)
            self.grads[:] = self.model.gradient(self.theta)
            regularizer.combine(self.theta, self.grads)
            regularizer.observe_losses(first, second)
            self.assertAlmostEqual(regularizer.terms().first_order_ratio, 1, delta=0.1)

    def test_terms_come_without_waiting_too(self):
        out = np.empty((5, 28))
        with gradreg.Regularizer(TABLE, layer_count=4) as regularizer:
            step(regularizer, self.model, self.theta, self.grads)
            regularizer.terms_enqueue(out)
            terms = regularizer.terms()
        self.assertEqual(out[0, 0], terms.strength)
        self.assertEqual(out[4, 4], terms.layers[3].first_norm)
        self.assertEqual(out[0, 26], 1)

    def test_adaptive_multipliers_follow_the_signals(self):
        with gradreg.Regularizer(TABLE, layer_count=4,
                                 adaptive=gradreg.Adaptive(a_min=0.5, a_max=2)) as regularizer:
            regularizer.observe_layers([1, 1, 1, 5])
            step(regularizer, self.model, self.theta, self.grads)
            self.assertAlmostEqual(regularizer.terms().layers[3].strength, 2e-2)

    def test_workspace_is_what_creation_holds(self):
        want = gradreg.workspace_bytes(TABLE, layer_count=4, noise="relative",
                                       schedule={"first_layer": 1, "full_layer": 2})
        with gradreg.Context() as context:
            before = context.info.bytes_held
            regularizer = gradreg.Regularizer(TABLE, context, layer_count=4, noise="relative",
                                              schedule={"first_layer": 1, "full_layer": 2})
            self.assertEqual(context.info.bytes_held - before, want)
            regularizer.close()


class Layers(Case):
    def test_names_say_layer_and_role(self):
        for name, layer, role in (
                ("model.layers.7.self_attn.q_proj.weight", 7, gradreg.Role.ATTENTION),
                ("module.model.layers.3.mlp.gate_proj.lora_A.default.weight", 3, gradreg.Role.MLP),
                ("model.norm.weight", gradreg.LAYER_NONE, gradreg.Role.NORM)):
            self.assertEqual(gradreg.classify(name), (layer, role))

    def test_the_article_schedule(self):
        schedule = gradreg.Schedule.for_depth(36)
        self.assertEqual((schedule.first_layer, schedule.full_layer), (6, 22))
        m = schedule.multipliers(36)
        self.assertEqual((m[5], m[22], m[35]), (0, 1, 1))
        self.assertEqual(gradreg.Schedule.even().multipliers(3), [1, 1, 1])
        self.assertEqual(gradreg.Schedule(table=[0, 2, 5]).multipliers(3), [0, 2, 5])


class Losses(Case):
    def setUp(self):
        random = np.random.default_rng(3)
        self.logp = -random.random((3, 5), np.float32)
        self.old = self.logp + 0.1 * random.standard_normal((3, 5)).astype(np.float32)
        self.mask = np.arange(5)[None, :] < np.array([5, 3, 0])[:, None]
        self.advantages = np.array([1, -0.5, 2], np.float32)

    def test_grpo_matches_its_formula_and_its_differences(self):
        out = gradreg.policy_loss("grpo", self.logp, self.advantages, old_logp=self.old, mask=self.mask)

        def loss(logp):
            ratio = np.exp(logp - self.old.astype(float))
            a = self.advantages[:, None]
            rho = -np.minimum(ratio * a, np.clip(ratio, 0.8, 1.2) * a) * self.mask
            return sum(rho[i].sum() / self.mask[i].sum() for i in range(2)) / 2
        self.assertAlmostEqual(out.loss, loss(self.logp.astype(float)), places=6)
        self.assertEqual(out.metrics.tokens, 8)
        self.assertEqual(out.metrics.empty_sequences, 1)
        for i, j in ((0, 0), (0, 4), (1, 2)):
            up, down = self.logp.astype(float), self.logp.astype(float)
            up[i, j] += 1e-6
            down[i, j] -= 1e-6
            self.assertAlmostEqual(out.dlogp[i, j], (loss(up) - loss(down)) / 2e-6, places=4)
        self.assertFalse(out.dlogp[~self.mask].any())

    def test_packed_rows_are_the_padded_ones(self):
        padded = gradreg.policy_loss("dapo", self.logp, self.advantages, old_logp=self.old,
                                     mask=self.mask)
        packed = gradreg.policy_loss("dapo", self.logp[self.mask], self.advantages,
                                     old_logp=self.old[self.mask], row_offsets=[0, 5, 8, 8])
        np.testing.assert_array_equal(packed.dlogp, padded.dlogp[self.mask])
        self.assertEqual(packed.loss, padded.loss)

    def test_entropy_gradients_come_with_entropies(self):
        entropy = np.ones((3, 5), np.float32)
        policy = gradreg.Policy("grpo", entropy_coefficient=0.5)
        out = gradreg.policy_loss(policy, self.logp, self.advantages, entropy=entropy)
        self.assertTrue(out.dentropy.all())
        self.assertIsNone(gradreg.policy_loss("grpo", self.logp, self.advantages).dentropy)

    def test_a_policy_is_a_preset_with_changes(self):
        policy = gradreg.Policy("grpo", clip_high=0.28, kl="k3")
        self.assertEqual((policy.clip_low, policy.clip_high, policy.kl), (0.2, 0.28, gradreg.Kl.K3))
        policy.aggregation = "token_mean"
        self.assertEqual(policy.aggregation, gradreg.Aggregation.TOKEN_MEAN)
        self.assertIn("cispo@trl", gradreg.Policy.names())
        self.assertIn("clip_high=0.28", repr(policy))

    def test_advantages_of_the_families(self):
        rewards = [1.0, 0.0, 0.0, 1.0, math.nan, 3.0]
        out = gradreg.advantages(rewards, 3)
        np.testing.assert_allclose(out, [2 / 3, -1 / 3, -1 / 3, -1, 0, 1], rtol=1e-6)
        out = gradreg.advantages(rewards, group=[7, 7, 7, 9, 9, 9], baseline="leave_one_out")
        np.testing.assert_allclose(out, [1, -0.5, -0.5, -2, 0, 2], rtol=1e-6)
        out = gradreg.advantages([1.0, 0.0], 2, scale="group_std", epsilon=0)
        np.testing.assert_allclose(out, [math.sqrt(0.5), -math.sqrt(0.5)], rtol=1e-6)
        np.testing.assert_array_equal(gradreg.advantages(rewards, baseline="none")[:4], rewards[:4])

    def test_what_would_do_nothing_is_refused(self):
        self.refused((gradreg.Error, ValueError), ["group_size", "group"], gradreg.advantages, [1.0, 0.0])
        policy = gradreg.Policy("grpo", kl_coefficient=0.04)
        for call in (lambda: gradreg.policy_loss(policy, self.logp, self.advantages, ref_logp=self.logp),
                     lambda: gradreg.policy_logits(policy, np.zeros((3, 5, 4), np.float32),
                                                   np.zeros((3, 5), np.int32), self.advantages)):
            self.refused((gradreg.Error, ValueError), ["kl_coefficient = 0.04", "kl='k3'"], call)
        policy.kl = "k3"
        gradreg.policy_loss(policy, self.logp, self.advantages, ref_logp=self.logp)


class LogProbs(Case):
    def setUp(self):
        random = np.random.default_rng(7)
        self.logits = random.standard_normal((4, 9)).astype(np.float32)
        self.targets = np.array([0, 8, -1, 3], np.int32)

    def want(self, logits, temperature=1.0):
        z = logits.astype(float) / temperature
        lse = np.log(np.exp(z).sum(-1))
        p = np.exp(z - lse[:, None])
        keep = self.targets >= 0
        logp = (z[np.arange(4), np.maximum(self.targets, 0)] - lse) * keep
        return logp, (lse - (p * z).sum(-1)) * keep, lse * keep, p

    def test_log_probs_entropies_and_gradients(self):
        out = gradreg.logprobs(self.logits, self.targets, temperature=0.5)
        logp, entropy, lse, p = self.want(self.logits, 0.5)
        for got, want in zip(out, (logp, entropy, lse)):
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
        dlogp = np.array([1, 2, 3, -1], np.float32)
        gradient = gradreg.logprobs_backward(self.logits, self.targets, out, dlogp, temperature=0.5)
        one = (np.arange(9) == self.targets[:, None]).astype(float)
        want = (one - p) * (dlogp * (self.targets >= 0))[:, None] / 0.5
        np.testing.assert_allclose(gradient, want, rtol=1e-5, atol=1e-6)

    def test_rows_may_lie_apart_and_be_overwritten(self):
        wide = np.full((4, 12), 7, np.float32)
        wide[:, :9] = self.logits
        out = gradreg.logprobs(wide[:, :9], self.targets)
        np.testing.assert_array_equal(out.logp, gradreg.logprobs(self.logits, self.targets).logp)
        ones = np.ones(4, np.float32)
        want = gradreg.logprobs_backward(self.logits, self.targets, out, ones)
        gradreg.logprobs_backward(wide[:, :9], self.targets, out, ones, out=wide[:, :9])
        np.testing.assert_array_equal(wide[:, :9], want)
        np.testing.assert_array_equal(wide[:, 9:], 7)

    def test_hidden_states_and_a_head_instead_of_logits(self):
        random = np.random.default_rng(8)
        hidden = random.standard_normal((4, 5)).astype(np.float32)
        weight = random.standard_normal((9, 5)).astype(np.float32)
        try:
            out = gradreg.linear_logprobs(hidden, weight, self.targets)
        except gradreg.UnsupportedError as error:
            self.assertIn("BLAS", str(error))
            self.skipTest("this library was built without a BLAS")
        logp, entropy, _, p = self.want(hidden @ weight.T)
        np.testing.assert_allclose(out.logp, logp, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(out.entropy, entropy, rtol=1e-4, atol=1e-5)
        dlogp = np.array([1, 2, 3, -1], np.float32)
        dhidden, dweight = gradreg.linear_logprobs_backward(hidden, weight, self.targets, out, dlogp)
        one = (np.arange(9) == self.targets[:, None]).astype(float)
        dlogits = (one - p) * (dlogp * (self.targets >= 0))[:, None]
        np.testing.assert_allclose(dhidden, dlogits @ weight, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(dweight, dlogits.T @ hidden, rtol=1e-4, atol=1e-5)
        self.refused((gradreg.Error, ValueError), ["weight", "(9, 4)"], gradreg.linear_logprobs, hidden,
                     np.ones((9, 4), np.float32), self.targets)

    def test_a_loss_straight_from_logits(self):
        logits = np.random.default_rng(9).standard_normal((2, 3, 9)).astype(np.float32)
        targets = np.array([[1, 2, 3], [4, 5, 0]], np.int32)
        advantages = np.array([1, -1], np.float32)
        one = gradreg.policy_logits("dapo", logits, targets, advantages)
        out = gradreg.logprobs(logits, targets)
        loss = gradreg.policy_loss("dapo", out.logp, advantages)
        want = gradreg.logprobs_backward(logits, targets, out, loss.dlogp)
        np.testing.assert_allclose(one.dlogits, want, rtol=1e-5, atol=1e-7)
        np.testing.assert_array_equal(one.logp, out.logp)
        self.assertAlmostEqual(one.loss, loss.loss, places=6)
        self.refused((gradreg.UnsupportedError, NotImplementedError), "gradreg_policy_logits",
                     gradreg.policy_logits, "gspo", logits, targets, advantages)

    def test_bad_rows_and_targets(self):
        kinds = (gradreg.Error, ValueError)
        self.refused(kinds, "9", gradreg.logprobs, self.logits, np.full(4, 9, np.int32))
        self.refused(kinds, ["targets", "3 elements"], gradreg.logprobs, self.logits, self.targets[:3])
        self.refused((gradreg.Error, TypeError), ["targets", "int64"], gradreg.logprobs, self.logits,
                     self.targets.astype(np.int64))
        self.refused(kinds, "rows are not contiguous", gradreg.logprobs, self.logits.T[:4],
                     self.targets)
        self.refused(kinds, "shape", gradreg.logprobs, self.logits[0], self.targets)


class Watching(Case):
    def test_a_probe_finds_the_layer_that_noise_hurts(self):
        with gradreg.Probe(2, trials=20, seed=3) as probe:
            clean = np.zeros((1, 8), np.float32)
            clean[0, 2] = 3
            probe.observe(clean, 2)
            for layer, share in ((0, 0.0), (1, 1.0)):
                hidden = np.ones((20, 8), np.float32)
                probe.inject(hidden, layer)
                noise = hidden - 1
                self.assertAlmostEqual(noise.std(), 0.5, delta=0.1)
                probe.observe((clean + share * noise).astype(np.float32), 2, layer)
            calm, hurt = probe.summary()
            p = math.exp(3) / (math.exp(3) + 7)
            self.assertAlmostEqual(calm.mean, p, places=5)
            self.assertAlmostEqual(calm.baseline, p, places=5)
            self.assertEqual((calm.trials, hurt.trials, hurt.layer), (20, 20, 1))
            self.assertLess(calm.std, 1e-6)
            self.assertGreater(hurt.std, 0.02)
            probe.reset()
            self.assertEqual(probe.summary()[0].trials, 0)
        self.refused(gradreg.StateError, "after close", probe.summary)
        self.refused((gradreg.Error, ValueError), "gradreg_probe_create", gradreg.Probe, 0)

    def test_monitors_give_their_figures(self):
        self.assertAlmostEqual(gradreg.distinct_ngrams([1, 2, 1, 2, 1], 2), 0.5)
        np.testing.assert_allclose(gradreg.moving_average([1, 2, 6, math.nan], 2), [1, 1.5, 4, 6])
        p = np.array([[1, 0], [0.5, 0.5]], np.float32)
        q = np.array([[0, 1], [0.5, 0.5]], np.float32)
        np.testing.assert_allclose(gradreg.js_divergence(p, q), [math.log(2), 0], atol=1e-6)
        before = np.zeros(COUNT, np.float32)
        after = before.copy()
        after[16:20] = 2
        np.testing.assert_allclose(gradreg.weight_delta(before, after, TABLE)[:3], [0, 4, 0])
        self.refused((gradreg.Error, ValueError), "end at", gradreg.weight_delta, before[:9], after[:9],
                     TABLE)
        self.refused((gradreg.Error, ValueError), "shape", gradreg.js_divergence, p, q[:1])


class Cookbook(Case):
    def test_every_recipe_runs(self):
        with contextlib.redirect_stdout(io.StringIO()) as out:
            cookbook_numpy.main()
        self.assertTrue(out.getvalue().endswith("ok\n"))


class BadInput(Case):
    def setUp(self):
        self.regularizer = gradreg.Regularizer(TABLE, layer_count=4)
        self.theta, self.grads = np.ones(COUNT, np.float32), np.ones(COUNT, np.float32)

    def tearDown(self):
        self.regularizer.close()

    def test_wrong_element_types(self):
        kinds = (gradreg.Error, TypeError)
        call = self.regularizer.perturb
        self.refused(kinds, ["perturb: grads", "float64"], call, self.theta, self.grads.astype(float))
        self.refused(kinds, ["params", "made for F32"], call, self.theta.astype(np.float16), self.grads)
        self.refused(kinds, "foreign order", call, self.theta.astype(">f4"), self.grads)
        self.refused(kinds, "expected an array, not str", call, "theta", self.grads)
        self.refused(kinds, "read-only bytes", call, bytes(4 * COUNT), self.grads)
        self.refused(kinds, ["logp", "float64"], gradreg.policy_loss, "grpo", np.zeros((1, 2)),
                     np.zeros(1, np.float32))

    def test_layouts(self):
        kinds = (gradreg.Error, ValueError)
        twice = np.ones(2 * COUNT, np.float32)
        call = self.regularizer.perturb
        self.refused(kinds, ["params", "not contiguous"], call, twice[::2], self.grads)
        self.refused(kinds, "differ in length", call, self.theta, twice)
        self.refused(kinds, "gradreg_regularizer_perturb", call, self.theta[1:], self.grads[1:])
        fixed = self.theta.copy()
        fixed.setflags(write=False)
        self.refused(kinds, "read-only", call, fixed, self.grads)
        arrays = [np.ones(s.count, np.float32) for s in TABLE]
        self.refused(kinds, ["12 arrays for 13 segments"], call, arrays[1:], arrays)
        short = [*arrays[:-1], np.ones(7, np.float32)]
        self.refused(kinds, ["grads[12] (model.layers.3.input_layernorm.weight)", "7 elements"], call,
                     arrays, short)
        self.refused((gradreg.Error, TypeError), "params[0]", call, [None, *arrays[1:]], arrays)
        np.testing.assert_array_equal(self.theta, 1)

    def test_another_device(self):
        class OnDevice:
            __cuda_array_interface__ = {"shape": (COUNT,), "typestr": "<f4", "data": (4096, False),
                                        "version": 3, "strides": None}
        self.refused((gradreg.Error, ValueError), ["params", "lies on cuda:0", "works on cpu"],
                     self.regularizer.perturb, OnDevice(), self.grads)

    def test_calls_out_of_order(self):
        self.refused((gradreg.StateError, RuntimeError), "gradreg_regularizer_mirror",
                     self.regularizer.mirror, self.theta, self.grads)

    def test_use_after_close(self):
        self.regularizer.close()
        self.regularizer.close()
        self.assertTrue(self.regularizer.closed)
        self.refused((gradreg.StateError, RuntimeError), "after close", self.regularizer.perturb,
                     self.theta, self.grads)
        context = gradreg.Context()
        context.close()
        self.refused(gradreg.StateError, "after close", context.synchronize)
        self.assertIn("closed", repr(context))

    def test_a_context_with_children_stays_open(self):
        context = gradreg.Context()
        child = gradreg.Regularizer(TABLE, context, layer_count=4)
        self.refused(gradreg.StateError, "gradreg_context_destroy", context.close)
        child.close()
        context.close()

    def test_words_that_are_not_known(self):
        self.refused((gradreg.Error, ValueError), ["difference", "'middle'", "'central'"],
                     gradreg.Regularizer, TABLE, layer_count=4, difference="middle")
        self.refused((gradreg.Error, TypeError), ["'lambda_'", "strength"], gradreg.Regularizer, TABLE,
                     layer_count=4, lambda_=1)
        self.refused((gradreg.Error, TypeError), "int8", gradreg.Regularizer, TABLE, layer_count=4,
                     param_type="int8")
        self.refused((gradreg.Error, ValueError), "grpo", gradreg.Policy, "gppo")
        self.refused((gradreg.Error, TypeError), "strength", gradreg.Regularizer, TABLE, layer_count=4,
                     strength="much")
        self.refused((gradreg.Error, TypeError), ["'gradients'", "first_grads"],
                     self.regularizer.perturb, self.theta, gradients=self.grads)

    def test_what_the_library_refuses_keeps_its_sentence_and_status(self):
        error = self.refused((gradreg.InvalidArgumentError, ValueError), "gradreg_regularizer_create",
                             gradreg.Regularizer, TABLE, layer_count=4, epsilon=-1)
        self.assertEqual(error.status_name, "GRADREG_ERROR_INVALID_ARGUMENT")
        self.refused((gradreg.UnsupportedError, NotImplementedError), "difference = 2", gradreg.Regularizer,
                     TABLE, layer_count=4, difference="backward")
        self.refused((gradreg.NonFiniteError, FloatingPointError), "suggest_epsilon",
                     self.regularizer.suggest_epsilon, self.theta, np.full(COUNT, np.nan, np.float32))
        self.refused(gradreg.Error, "table has 3", gradreg.Regularizer, TABLE, layer_count=4,
                     schedule=gradreg.Schedule(table=[1, 1, 1]))

    def test_a_failing_all_reduce_is_the_cause(self):
        # World 2 on one rank: every reduction goes through the callback.
        def fail(_address, _count, _stream):
            raise OSError("link down")
        half = [gradreg.Segment(s.count, s.layer, s.role, s.offset, name=s.name) for s in TABLE]
        with gradreg.Regularizer(half, layer_count=4, world=2, all_reduce=fail) as regularizer:
            error = self.refused((gradreg.CommunicationError, ConnectionError), "all_reduce",
                                 regularizer.perturb, self.theta[:COUNT // 2].copy(),
                                 self.grads[:COUNT // 2].copy())
        self.assertIsInstance(error.__cause__, OSError)

    def test_two_threads_on_one_handle(self):
        inside, leave = threading.Event(), threading.Event()

        def reduce(_address, _count, _stream):
            inside.set()
            leave.wait(30)
        with gradreg.Context() as context, gradreg.Regularizer(
                TABLE, context, layer_count=4, world=2, all_reduce=reduce) as regularizer:
            arguments = (self.theta[:COUNT // 2].copy(), self.grads[:COUNT // 2].copy())
            failures = []
            def first():
                try:
                    regularizer.perturb(*arguments)
                except gradreg.Error as error:
                    failures.append(error)
            thread = threading.Thread(target=first)
            thread.start()
            self.assertTrue(inside.wait(30))
            self.refused((gradreg.StateError, RuntimeError), "thread", regularizer.perturb, *arguments)
            self.refused(gradreg.StateError, "thread", regularizer.close)
            leave.set()
            thread.join(30)

    def test_shapes_of_losses(self):
        kinds = (gradreg.Error, ValueError)
        logp, advantages = np.zeros((2, 3), np.float32), np.zeros(2, np.float32)
        self.refused(kinds, "(6,)", gradreg.policy_loss, "grpo", logp.ravel(), advantages)
        self.refused(kinds, ["old_logp", "5 elements"], gradreg.policy_loss, "grpo", logp, advantages,
                     old_logp=np.zeros(5, np.float32))
        self.refused(kinds, "advantages", gradreg.policy_loss, "grpo", logp, np.zeros(3, np.float32))
        self.refused(kinds, "group has 1", gradreg.policy_loss, "grpo", logp, advantages, group=[1])
        self.refused(kinds, "row_offsets", gradreg.policy_loss, "grpo", logp.ravel(), advantages,
                     row_offsets=[0, 3, 9])
        self.refused(kinds, "gradreg_advantages", gradreg.advantages, np.zeros(5, np.float32), 2)


class Remarks(Case):
    def test_remarks_reach_the_log(self):
        heard = []
        with gradreg.Context(log=lambda level, text: heard.append((level, text))) as context:
            gradreg.Regularizer(TABLE, context, layer_count=4, clip_first=1, clip_second=0).close()
        self.assertEqual(heard[0][0], gradreg.LogLevel.WARNING)
        self.assertIn("clip", heard[0][1])
        with self.assertLogs("gradreg", logging.WARNING), gradreg.Context() as context:
            gradreg.Regularizer(TABLE, context, layer_count=4, clip_first=1, clip_second=0).close()

    def test_a_context_says_what_it_is(self):
        with gradreg.Context(threads=2) as context:
            self.assertEqual(context.info.threads, 2)
            self.assertEqual(context.device, "cpu")
            context.reserve(1 << 16)
            self.assertGreater(context.info.bytes_held, 1 << 16)
        self.assertTrue(gradreg.backend_available("cpu"))

    def test_collected_objects_give_their_memory_back(self):
        context = gradreg.Context()
        before = context.info.bytes_held
        gradreg.Regularizer(TABLE, context, layer_count=4)
        self.assertEqual(context.info.bytes_held, before)
        context.close()


if __name__ == "__main__":
    main()
