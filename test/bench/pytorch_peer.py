"""The public algorithm in PyTorch, timed on tensors of given sizes.

usage: pytorch_peer.py TYPES THREADS REPETITIONS < sizes, one a line

Two versions, neither with a backward pass (gradients are filled in between, untimed):
  public    the steps of the published TRL trainer, one tensor at a time, in fp32: clip g1, clone the
            weights, step, clip g2, copy the weights back, g1 + k (g2 - g1) into the gradients
  foreach   the same result as few passes as PyTorch's operators allow, in buffers made beforehand
Prints the lines of bench_regularizer.c.
"""
import sys
import time

import torch

CLIP, EPSILON, STRENGTH = 10.0, 1e-3, 1e-3
TYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


def fill(tensors, scale):
    for tensor in tensors:
        tensor.uniform_(-scale, scale)


def factor(norm):
    return min(1.0, CLIP / (norm + 1e-6))


# ---- the published steps ----------------------------------------------------------------


def clip_each(grads):
    total = torch.zeros((), dtype=torch.float32)
    for grad in grads:
        total += grad.float().pow(2).sum()
    c = factor(total.sqrt().item())
    if c < 1.0:
        for grad in grads:
            grad.mul_(c)


class Public:
    def __init__(self, params, grads):
        self.params, self.grads = params, grads

    def perturb(self, first):
        self.first = [grad.to(torch.float32) for grad in first]
        self.saved = [param.clone() for param in self.params]
        clip_each(self.first)
        for param, grad in zip(self.params, self.first):
            moved = param.float()
            moved.add_(grad, alpha=EPSILON)
            param.copy_(moved.to(param.dtype))

    def combine(self):
        second = [grad.to(torch.float32) for grad in self.grads]
        clip_each(second)
        for param, saved in zip(self.params, self.saved):
            param.copy_(saved)
        for grad, one, two in zip(self.grads, self.first, second):
            combined = one.add_(two - one, alpha=STRENGTH / EPSILON)
            grad.copy_(combined.to(grad.dtype))


# ---- as few passes as there are operators for -------------------------------------------


def clip_all(grads):
    norms = torch._foreach_norm(grads)
    c = factor(torch.stack([norm.float() for norm in norms]).norm().item())
    if c < 1.0:
        torch._foreach_mul_(grads, c)


def copy_all(to, source):
    if hasattr(torch, "_foreach_copy_"):
        torch._foreach_copy_(to, source)
    else:
        for a, b in zip(to, source):
            a.copy_(b)


class Foreach:
    def __init__(self, params, grads):
        self.params, self.grads = params, grads
        self.saved = [torch.empty_like(param) for param in params]

    def perturb(self, first):
        self.first = first
        clip_all(first)
        copy_all(self.saved, self.params)
        if self.params[0].dtype == first[0].dtype:
            torch._foreach_add_(self.params, first, alpha=EPSILON)
        else:
            for param, grad in zip(self.params, first):
                param.add_(grad, alpha=EPSILON)

    def combine(self):
        clip_all(self.grads)
        copy_all(self.params, self.saved)
        for one, two in zip(self.first, self.grads):
            one.lerp_(two, STRENGTH / EPSILON)


# ---- the run ----------------------------------------------------------------------------


def milliseconds(function, *args):
    begun = time.perf_counter()
    function(*args)
    return (time.perf_counter() - begun) * 1e3


def main():
    types, threads, repetitions = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    param_type, grad_type = (TYPES[word] for word in types.split("/"))
    torch.set_num_threads(threads)
    torch.manual_seed(1)
    sizes = [int(line) for line in sys.stdin]
    params = [torch.empty(n, dtype=param_type) for n in sizes]
    first = [torch.empty(n, dtype=grad_type) for n in sizes]
    grads = [torch.empty(n, dtype=grad_type) for n in sizes]
    fill(params, 0.035)
    print(f"fact\ttorch\t{torch.__version__}")
    for name, version in (("public", Public), ("foreach", Foreach)):
        algorithm, samples = version(params, grads), []
        for _ in range(repetitions + 1):
            fill(first, 3e-3)
            ms = milliseconds(algorithm.perturb, first)
            fill(grads, 3e-3)
            samples.append(ms + milliseconds(algorithm.combine))
        print(f"ms\t{name}\t" + "\t".join(f"{ms:.4f}" for ms in samples[1:]))
        del algorithm


with torch.no_grad():
    main()
