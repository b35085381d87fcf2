"""cross_entropy + entropy + backward in PyTorch, timed on [ROWS x VOCABULARY] logits.

usage: logits_peer.py ROWS VOCABULARY f32|bf16 THREADS REPETITIONS

What a trainer writes: the loss of the targets' log-probs and an entropy bonus, and their backward pass
into the logits. Prints the lines of bench_logits.c.
"""
import sys
import time

import torch
import torch.nn.functional as F

rows, vocabulary, threads, repetitions = (int(sys.argv[i]) for i in (1, 2, 4, 5))
torch.set_num_threads(threads)
torch.manual_seed(1)
dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[sys.argv[3]]
logits = (8 * (torch.rand(rows, vocabulary) - 0.5)).to(dtype).requires_grad_(True)
targets = torch.randint(vocabulary, (rows,))
weights = torch.rand(rows) - 0.5
samples = []
for _ in range(repetitions + 1):
    logits.grad = None
    begun = time.perf_counter()
    logp = -F.cross_entropy(logits, targets, reduction="none")
    log_p = F.log_softmax(logits, -1)
    entropy = -(log_p.exp() * log_p).sum(-1)
    loss = -(weights * logp).mean() - 0.01 * entropy.mean()
    loss.backward()
    samples.append((time.perf_counter() - begun) * 1e3)
print(f"fact\ttorch\t{torch.__version__}")
print("ms\ttorch\t" + "\t".join(f"{ms:.4f}" for ms in samples[1:]))
