#!/usr/bin/env python3
"""The public algorithm in eager PyTorch on a GPU, and a fused loss kernel in Triton: the peers of
bench_cuda.  usage: peers.py [MILLION_PARAMETERS] [REPETITIONS]

Without torch, or without a GPU that it can use, says so and ends with 77."""
import statistics
import sys


def skip(sentence):
    print(sentence)
    sys.exit(77)


try:
    import torch
except ImportError:
    skip("torch is not installed: no peers")
if not torch.cuda.is_available():
    skip("torch finds no GPU: no peers")

try:
    import triton
    import triton.language as tl
except ImportError:
    triton = None

LAYERS = 36
SHARES = (16, 8, 8, 16, 1, 32, 32, 32, 1)


def milliseconds(call, repetitions):
    times = []
    for i in range(repetitions + 1):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        end.synchronize()
        if i:
            times.append(start.elapsed_time(end))
    return statistics.median(times)


def tensors(million, dtype):
    per_layer = million * 1000000 // LAYERS
    return [torch.randn(max(1, per_layer * share // sum(SHARES)), device="cuda",
                        dtype=torch.float32).mul_(0.02).to(dtype)
            for _ in range(LAYERS) for share in SHARES]


def public_cycle(params, grads, second, epsilon=1e-3, strength=1e-2, clip=1.0):
    """As published: clip, keep g and theta, step, clip, mix, put theta back; tensor by tensor."""
    norm = torch.norm(torch.stack([g.float().norm() for g in grads]))
    factor = torch.clamp(clip / (norm + 1e-6), max=1.0)
    for g in grads:
        g.mul_(factor.to(g.dtype))
    kept = [g.clone() for g in grads]
    clean = [p.clone() for p in params]
    for p, g in zip(params, grads):
        p.add_(g.to(p.dtype), alpha=epsilon)
    for g, s in zip(grads, second):
        g.copy_(s)
    norm = torch.norm(torch.stack([g.float().norm() for g in grads]))
    factor = torch.clamp(clip / (norm + 1e-6), max=1.0)
    for g, k, p, c in zip(grads, kept, params, clean):
        g.mul_(factor.to(g.dtype))
        g.sub_(k).mul_(strength / epsilon).add_(k)
        p.copy_(c)


def bench_cycle(million, repetitions):
    print("| types | public algorithm, eager PyTorch, ms a cycle |\n|---|---|")
    for name, param, grad in (("bf16/bf16", torch.bfloat16, torch.bfloat16),
                              ("bf16/f32", torch.bfloat16, torch.float32),
                              ("f32/f32", torch.float32, torch.float32)):
        params, grads = tensors(million, param), tensors(million, grad)
        second = tensors(million, grad)
        ms = milliseconds(lambda: public_cycle(params, grads, second), repetitions)
        # The copy of the second gradient stands for the backward pass that would write it.
        copy = milliseconds(lambda: [g.copy_(s) for g, s in zip(grads, second)], repetitions)
        print(f"| {name} | {ms - copy:.3f} |")
        del params, grads, second
        torch.cuda.empty_cache()


def bench_logits(repetitions, rows=4096, vocabulary=151936):
    """Log-probs and their gradient by autograd, and by a Triton kernel that visits rows twice."""
    logits = torch.randn(rows, vocabulary, device="cuda", dtype=torch.bfloat16)
    targets = torch.randint(0, vocabulary, (rows,), device="cuda")
    gigabytes = logits.numel() * 2 * 1e-9

    def eager():
        x = logits.detach().requires_grad_()
        logp = torch.log_softmax(x.float(), -1).gather(-1, targets[:, None])
        logp.sum().backward()

    print(f"\n| logits [{rows} x {vocabulary}] bf16 | ms | GB/s of 6 bytes a logit |\n|---|---|---|")
    ms = milliseconds(eager, max(3, repetitions // 4))
    print(f"| eager PyTorch, forward and backward | {ms:.3f} | {3 * gigabytes / ms * 1e3:.0f} |")
    fused = triton_loss()
    if fused is None:
        print("| Triton is not installed | | |")
        return
    out = torch.empty(rows, device="cuda")
    work = logits.clone()
    ms = milliseconds(lambda: fused(work, targets, out), repetitions)
    print(f"| one Triton kernel in place, two visits of a row | {ms:.3f} | "
          f"{3 * gigabytes / ms * 1e3:.0f} |")


def triton_loss():
    if triton is None:
        return None

    def call(logits, targets, out):
        loss_kernel[(logits.shape[0],)](logits, targets, out, logits.shape[1], BLOCK=8192,
                                        num_warps=16)

    return call


if triton is not None:
    @triton.jit
    def loss_kernel(logits, targets, out, vocabulary, BLOCK: tl.constexpr):
        row = tl.program_id(0).to(tl.int64)
        base = logits + row * vocabulary
        target = tl.load(targets + row)
        largest = -float("inf")
        total = 0.0
        for start in range(0, vocabulary, BLOCK):
            at = start + tl.arange(0, BLOCK)
            x = tl.load(base + at, mask=at < vocabulary, other=-float("inf")).to(tl.float32)
            above = tl.maximum(largest, tl.max(x, 0))
            total = total * tl.exp(largest - above) + tl.sum(tl.exp(x - above), 0)
            largest = above
        chosen = tl.load(base + target).to(tl.float32)
        tl.store(out + row, chosen - largest - tl.log(total))
        for start in range(0, vocabulary, BLOCK):
            at = start + tl.arange(0, BLOCK)
            x = tl.load(base + at, mask=at < vocabulary, other=-float("inf")).to(tl.float32)
            p = tl.exp(x - largest) / total
            g = tl.where(at == target, 1.0 - p, -p)
            tl.store(base + at, g.to(tl.bfloat16), mask=at < vocabulary)


def main():
    million = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    repetitions = int(sys.argv[2]) if len(sys.argv) > 2 else 20
    print(f"torch {torch.__version__}, {torch.cuda.get_device_name()}, {million} million "
          f"parameters, {repetitions} repetitions, medians\n")
    bench_cycle(million, repetitions)
    bench_logits(repetitions)


main()
