"""The public algorithm in PyTorch, timed on tensors of given sizes.

usage: pytorch_peer.py TYPES THREADS REPETITIONS < sizes, one a line

Versions, none with a backward pass (gradients are filled in between, untimed):
  public    the steps of the published TRL trainer, one tensor at a time, in fp32: clip g1, clone the
            weights, step, clip g2, copy the weights back, g1 + k (g2 - g1) into the gradients
  foreach   the same result as few passes as PyTorch's operators allow, in buffers made beforehand
  sam       pytorch_optimizer's SAM, where it is installed, in its foreach form: no clip, no terms,
            and the second gradient itself is the result. Weights and gradients of one type only
Prints the lines of bench_regularizer.c.
"""
import sys
import time
from importlib import metadata

import torch

try:
    import pytorch_optimizer
except ImportError:
    pytorch_optimizer = None

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


# ---- SAM --------------------------------------------------------------------------------


class Nothing(torch.optim.Optimizer):
    """The optimizer's own step, which is not what is measured."""

    def __init__(self, params, **defaults):
        super().__init__(params, defaults)

    def step(self, closure=None):
        pass


class Sam:
    def __init__(self, params, grads):
        self.params = [torch.nn.Parameter(param, requires_grad=True) for param in params]
        self.grads = grads
        self.sam = pytorch_optimizer.SAM(self.params, Nothing, rho=EPSILON, foreach=True)

    def give(self, grads):
        for param, grad in zip(self.params, grads):
            param.grad = grad

    def perturb(self, first):
        self.give(first)
        self.sam.first_step()

    def combine(self):
        self.give(self.grads)
        self.sam.second_step()


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
    versions = [("public", Public), ("foreach", Foreach)]
    if pytorch_optimizer is not None and param_type == grad_type:
        print(f"fact\tpytorch_optimizer\t{metadata.version('pytorch_optimizer')}")
        versions.append(("sam", Sam))
    for name, version in versions:
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
