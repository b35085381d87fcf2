#!/usr/bin/env python3
"""The package on a device: the CUDA backend in the emulated runtime of test/cuda/emulated.

GRADREG_CUDA_MODULE is the emulated module, GRADREG_EMULATED_CUDART the runtime that it runs on. Arrays of
the device come with __cuda_array_interface__, as CuPy's do. PyTorch has no tensors there: its modules
are tested with memory of the host that kernels may touch (as on machines whose GPU shares the host's
page tables), through a context that calls itself "cpu"; work then runs when it is queued. So streams
are tested by hand, and the copies that PyTorch itself would make are not tested at all."""
import ctypes
import os

import numpy as np

import gradreg
import gradreg.context
from support import Case, main

try:
    import torch
    import gradreg.torch
except ImportError:
    torch = None

RUNTIME = ctypes.CDLL(os.environ["GRADREG_EMULATED_CUDART"])
TO_DEVICE, TO_HOST = 1, 2
NAMES = [(f"model.layers.{layer}.{part}.weight", count) for layer in range(4)
         for part, count in (("self_attn.q_proj", 24), ("mlp.up_proj", 40))]
TABLE = gradreg.flat_table([("model.embed_tokens.weight", 16), *NAMES])
COUNT = sum(segment.count for segment in TABLE)


def runtime(name, *arguments):
    error = getattr(RUNTIME, name)(*arguments)
    if error != 0:
        raise RuntimeError(f"{name}: {error}")


class OnDevice:
    """An array of the emulated device."""

    def __init__(self, values):
        self.like = np.ascontiguousarray(values)
        self.pointer = ctypes.c_void_p()
        runtime("cudaMalloc", ctypes.byref(self.pointer), ctypes.c_size_t(self.like.nbytes))
        self.write(self.like)

    def write(self, values):
        values = np.ascontiguousarray(values, dtype=self.like.dtype)
        runtime("cudaMemcpy", self.pointer, ctypes.c_void_p(values.ctypes.data),
                ctypes.c_size_t(values.nbytes), TO_DEVICE)

    def read(self):
        out = np.empty_like(self.like)
        runtime("cudaMemcpy", ctypes.c_void_p(out.ctypes.data), self.pointer,
                ctypes.c_size_t(out.nbytes), TO_HOST)
        return out

    @property
    def __cuda_array_interface__(self):
        return {"shape": self.like.shape, "typestr": self.like.dtype.str, "version": 3,
                "data": (self.pointer.value, False), "strides": None}

    def __del__(self):
        RUNTIME.cudaFree(self.pointer)


def gradient(theta):
    return (np.linspace(-1, 2, COUNT) * theta + np.sin(theta)).astype(np.float32)


def settings(**more):
    return {"layer_count": 4, "strength": 0.1, "epsilon": 0.05, **more}


def train(context, place, steps=2, **more):
    """(weights, gradients, terms) after some steps on arrays that place makes."""
    theta = place(np.linspace(-2, 3, COUNT).astype(np.float32))
    grads = place(np.zeros(COUNT, np.float32))
    read = (lambda array: array.read()) if place is OnDevice else (lambda array: array.copy())

    def backward():
        values = gradient(read(theta))
        if place is OnDevice:
            grads.write(values)
        else:
            grads[:] = values
    with gradreg.Regularizer(TABLE, context, **settings(**more)) as regularizer:
        for _ in range(steps):
            if more.get("noise"):
                regularizer.inject_noise(theta, grads)
            backward()
            regularizer.perturb(theta, grads)
            backward()
            if regularizer.extra_passes == 2:
                regularizer.mirror(theta, grads)
                backward()
            regularizer.combine(theta, grads)
        terms, state = regularizer.terms(), regularizer.save_state()
    return read(theta), read(grads), terms, state


class Device(Case):
    def setUp(self):
        self.context = gradreg.Context("cuda")
        self.cpu = gradreg.Context("cpu")

    def tearDown(self):
        self.context.close()
        self.cpu.close()

    def test_a_context_says_where_it_is(self):
        self.assertEqual(self.context.device, "cuda:0")
        self.assertEqual(self.context.info.backend, gradreg.Backend.CUDA)
        self.assertIn("cuda:0", repr(self.context))
        self.assertTrue(gradreg.backend_available("cuda"))
        with gradreg.Context("cuda", device=1) as second:
            self.assertEqual(second.device, "cuda:1")

    def test_steps_have_the_bits_of_the_cpu(self):
        for more in ({}, {"difference": "central"}, {"step": "relative", "epsilon": 2 ** -6},
                     {"noise": "relative"}):
            with self.subTest(more):
                here = train(self.context, OnDevice, **more)
                there = train(self.cpu, np.array, **more)
                np.testing.assert_array_equal(here[0], there[0])
                np.testing.assert_array_equal(here[1], there[1])
                self.assertEqual(repr(here[2]), repr(there[2]))
                self.assertEqual(repr(here[2].layers), repr(there[2].layers))

    def test_a_state_goes_on_on_the_other_side(self):
        *_, state = train(self.context, OnDevice, noise="relative")
        with gradreg.Regularizer(TABLE, self.cpu, **settings(noise="relative")) as regularizer:
            regularizer.load_state(state)
            self.assertEqual(regularizer.terms().step, 0)
        *_, other = train(self.cpu, np.array, noise="relative")
        with gradreg.Regularizer(TABLE, self.context, **settings(noise="relative")) as regularizer:
            regularizer.load_state(other)

    def test_losses_and_scale_lie_on_the_device(self):
        theta, grads = OnDevice(np.ones(COUNT, np.float32)), OnDevice(np.ones(COUNT, np.float32))
        scale, found = OnDevice(np.full(1, 8, np.float32)), OnDevice(np.zeros(1, np.float32))
        first, second = OnDevice(np.full(1, 2, np.float32)), OnDevice(np.full(1, 3, np.float32))
        with gradreg.Regularizer(TABLE, self.context, **settings()) as regularizer:
            regularizer.perturb(theta, grads, grad_scale=scale, found_inf=found)
            regularizer.combine(theta, grads, grad_scale=scale, found_inf=found)
            self.refused((gradreg.Error, TypeError), "first", regularizer.observe_losses, 2.0, 3.0)
            regularizer.observe_losses(first, second)
            self.assertTrue(np.isfinite(regularizer.terms().first_order_ratio))
            grads.write(np.full(COUNT, np.inf, np.float32))
            regularizer.perturb(theta, grads, grad_scale=scale, found_inf=found)
            regularizer.cancel(theta, grads)
        self.assertEqual(found.read()[0], 1)

    def test_a_stream_of_the_callers_is_followed(self):
        stream = ctypes.c_void_p()
        runtime("cudaStreamCreate", ctypes.byref(stream))
        self.context.set_stream(stream.value)
        theta, grads = OnDevice(np.ones(COUNT, np.float32)), OnDevice(np.ones(COUNT, np.float32))
        with gradreg.Regularizer(TABLE, self.context, **settings()) as regularizer:
            regularizer.perturb(theta, grads)
            self.assertNotEqual(RUNTIME.cudaStreamQuery(stream), 0)  # queued there, and nothing waited
            runtime("cudaStreamSynchronize", stream)
            self.assertFalse(np.array_equal(theta.read(), np.ones(COUNT)))
            regularizer.combine(theta, grads)
        self.context.synchronize()
        np.testing.assert_array_equal(theta.read(), 1)
        self.context.set_stream(None)
        runtime("cudaStreamDestroy", stream)

    def test_arrays_of_another_place_are_refused(self):
        here, there = OnDevice(np.ones(COUNT, np.float32)), np.ones(COUNT, np.float32)
        kinds = (gradreg.InvalidArgumentError, ValueError)
        with gradreg.Regularizer(TABLE, self.context, **settings()) as regularizer:
            self.refused(kinds, ["params", "lies on cpu", "works on cuda:0"], regularizer.perturb,
                         there, here)
            self.refused(kinds, ["grads", "lies on cpu", "works on cuda:0"], regularizer.perturb,
                         here, there)
        with gradreg.Regularizer(TABLE, self.cpu, **settings()) as regularizer:
            self.refused(kinds, ["params", "lies on cuda:0", "works on cpu"], regularizer.perturb,
                         here, there)
        with gradreg.Context("cuda", device=1) as second:
            with gradreg.Regularizer(TABLE, second, **settings()) as regularizer:
                self.refused(kinds, "works on cuda:1", regularizer.perturb, here, here)

    def test_an_address_that_lies_is_found_by_the_library(self):
        class Liar:
            def __init__(self, array):
                self.array = array
                self.__cuda_array_interface__ = {
                    "shape": array.shape, "typestr": "<f4", "version": 3, "strides": None,
                    "data": (array.ctypes.data, False)}
        array = Liar(np.ones(COUNT, np.float32))
        with gradreg.Regularizer(TABLE, self.context, **settings()) as regularizer:
            self.refused((gradreg.InvalidArgumentError, ValueError),
                         ["gradreg_regularizer_perturb", "params"], regularizer.perturb, array, array)

    def test_a_device_that_is_not_there_is_refused(self):
        self.refused(gradreg.Error, ["gradreg_context_create", "7"], gradreg.Context, "cuda", device=7)

    def test_a_crashed_device_is_an_error_of_its_own(self):
        theta, grads = OnDevice(np.ones(COUNT, np.float32)), OnDevice(np.ones(COUNT, np.float32))
        regularizer = gradreg.Regularizer(TABLE, self.context, **settings())
        RUNTIME.emulated_cuda_crash(0)
        try:
            error = self.refused((gradreg.DeviceError, RuntimeError), "gradreg_regularizer_",
                                 lambda: [regularizer.perturb(theta, grads),
                                          regularizer.combine(theta, grads), regularizer.terms()])
            self.assertTrue(str(error))
        finally:
            RUNTIME.emulated_cuda_reset_errors()


class NoDevice(Case):
    def test_no_device_is_said(self):
        RUNTIME.emulated_cuda_set_devices(0)
        try:
            self.refused((gradreg.UnsupportedError, NotImplementedError), "gradreg_context_create",
                         gradreg.Context, "cuda")
        finally:
            RUNTIME.emulated_cuda_set_devices(2)
        gradreg.Context("cuda").close()


class Torch(Case):
    """gradreg.torch over the CUDA backend, in memory that host and device share."""

    def setUp(self):
        if torch is None:
            self.skipTest("python3-torch is not installed")
        import check_torch  # pylint: disable=import-outside-toplevel
        self.suite = check_torch
        RUNTIME.emulated_cuda_set_pageable(1)
        RUNTIME.emulated_cuda_set_schedule(ctypes.c_uint64(1))  # at once, as PyTorch does not wait
        self.context = gradreg.Context("cuda")
        self.context.device = "cpu"

    def tearDown(self):
        if torch is not None:
            self.context.close()
            RUNTIME.emulated_cuda_set_pageable(0)
            RUNTIME.emulated_cuda_set_schedule(ctypes.c_uint64(0))

    def trained(self, context, **more):
        model, loss_of = self.suite.setting()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        regularizer = gradreg.torch.Regularizer(model, optimizer, context=context, strength=0.1,
                                                epsilon=0.05, **more)
        for _ in range(3):
            regularizer.step(self.suite.closure_of(model, loss_of))
        return self.suite.weights(model), repr(regularizer.terms()), regularizer.state_dict()["state"]

    def test_training_has_the_bits_of_the_cpu(self):
        for more in ({}, {"difference": "central"}, {"noise": "relative"}):
            with self.subTest(more):
                here, there = self.trained(self.context, **more), self.trained(None, **more)
                for name, weight in here[0].items():
                    self.assertTrue(torch.equal(weight, there[0][name]), name)
                self.assertEqual(here[1], there[1])

    def test_losses_have_the_bits_of_the_cpu(self):
        torch.manual_seed(3)
        logits, targets = torch.randn(6, 11), torch.randint(0, 11, (6,))
        rewards = torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0, 0.0])
        results = []
        for context in (self.context, None):
            leaf = logits.clone().requires_grad_()
            advantages = gradreg.advantages(rewards, 3, scale="group_std", context=context)
            logp, entropy = gradreg.torch.logprobs(leaf, targets, context=context)
            loss, metrics = gradreg.torch.policy_loss(
                "grpo", logp.view(6, 1), advantages, old_logp=logp.detach().view(6, 1) - 0.1,
                entropy=entropy.view(6, 1), context=context)
            loss.backward()
            results.append([advantages, logp, entropy, loss, leaf.grad, torch.tensor(metrics.loss)])
        for here, there in zip(*results):
            self.assertTrue(torch.equal(here, there))

    def test_the_stream_is_pytorchs_current_one(self):
        asked, given = [], []
        current, context = torch.cuda.current_stream, gradreg.Context("cuda", device=1)
        class Stream:
            cuda_stream = 0
        torch.cuda.current_stream = lambda device: asked.append(device) or Stream
        context.set_stream = given.append
        try:
            gradreg.context.follow_stream(context)
        finally:
            torch.cuda.current_stream = current
        self.assertEqual(asked, [torch.device("cuda:1")])
        self.assertEqual(given, [Stream])


if __name__ == "__main__":
    main()
