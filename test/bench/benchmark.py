#!/usr/bin/env python3
"""Runs bench_regularizer and the PyTorch peer, and makes tables of what they print.

usage: benchmark.py BENCH_REGULARIZER [--parameters N] [--repetitions N] [--rounds N]
           [--sections passes,paths,modes,memory,pytorch] [--torch-python PYTHON]...
           [--compiler TEXT] [--prefix WORDS] [--write FILE] [--check]

Every case runs `rounds` times, library and PyTorch in turn, and its samples are put together. In
every repetition the bandwidth loops run between two steps, so that a slow moment slows both.
--prefix stands before every measured command: "chrt -f 50" keeps other work away from it.
--check looks at nothing but whether the figures can be right, for machines where time means nothing.
"""
import argparse
import math
import os
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path

import logits

HERE = Path(__file__).resolve().parent
PAIRS = ["f32/f32", "bf16/f32", "bf16/bf16"]
SHAPES = {"layers": "36 layers x 9 tensors", "large": "9 large tensors"}
PATHS = ["scalar", "x86-64-v2", "x86-64-v3", "x86-64-v4"]
SIZE = {"f32": 4, "bf16": 2}

# Bytes per parameter that must move, P and G being the sizes of a weight and a gradient element.
FLOORS = {
    "plain": {"perturb": "G+3P", "combine": "3G+2P", "cycle": "6G+5P"},
    "copied": {"perturb": "2G+3P", "combine": "3G+2P", "cycle": "7G+5P"},
    "adds": {"perturb": "3G+3P", "combine": "3G+2P", "cycle": "8G+5P"},
    "restore_master": {"perturb": "G+2P", "combine": "3G+4+P", "cycle": "6G+3P+4"},
    "out_of_place": {"perturb": "G+2P", "combine": "3G", "cycle": "6G+2P"},
    "relative": {"perturb": "G+3P", "combine": "3G+2P", "cycle": "6G+6P"},
    "central": {"perturb": "G+3P", "mirror": "3G+2P", "combine": "4G+2P", "cycle": "11G+7P"},
    "compute_bf16": {"perturb": "G+3P", "combine": "3G+2P", "cycle": "6G+5P"},
    "interval": {"reuse cycle": "3G+4"},
}
NORMS = {"norm of g1": "G", "norm of g2": "G", "norm of g+": "G", "norm of theta": "P"}
MEMORY = {"memory read": 4, "memory copy": 8, "memory copy_around": 8, "memory update": 12}

MODES = {
    "plain": "g1 in the caller's second buffer, theta from a copy (the floor's cycle)",
    "copied": "g1 copied by perturb",
    "adds": "the same, and grads zeroed for a framework that adds",
    "restore_master": "theta from the caller's f32 master weights",
    "out_of_place": "theta' in the caller's own buffer",
    "relative": "step relative to the weights, per layer",
    "central": "central difference: three passes over the data",
    "interval": "the correction kept: a step that recomputes it",
    "noise": "directional noise on the attention of 6 of 36 layers",
    "compute_bf16": "statistics in bf16 (autocast)",
    "rademacher": "a random direction of +1 and -1",
    "stochastic": "stochastic rounding of the exact sum",
}


def bytes_of(formula, types):
    p, g = (SIZE[word] for word in types.split("/"))
    total = 0
    for term in formula.split("+"):
        unit = {"G": g, "P": p}.get(term[-1], 1)
        count = term.rstrip("GP")
        total += unit * (int(count) if count else 1)
    return total


IN_CACHES = 36864  # parameters: at most 0.7 MB, and still without streamed stores


# ---- running ------------------------------------------------------------------------------


class Run:
    """Facts and samples of one case, over all its rounds."""

    def __init__(self, types="", mode="plain"):
        self.types, self.mode, self.facts, self.ms = types, mode, {}, {}

    def read(self, text):
        for line in text.splitlines():
            kind, name, *values = line.split("\t")
            if kind == "fact":
                self.facts[name] = values[0]
            elif kind == "ms":
                self.ms.setdefault(name, []).extend(float(value) for value in values)

    def least(self, name):
        return min(self.ms[name])

    def median(self, name):
        return statistics.median(self.ms[name])

    def parameters(self):
        return int(self.facts["parameters"])

    def floor(self, name):
        formula = FLOORS.get(self.mode, {}).get(name) or NORMS.get(name)
        return None if formula is None else bytes_of(formula, self.types)

    def rate(self, name, pick):
        """GB/s of a bandwidth loop."""
        ms = pick(self, name)
        return MEMORY[name] * int(self.facts["memory_elements"]) / ms * 1e-6

    def share(self, name, pick):
        """Of the read or the update bandwidth, by the floor's bytes."""
        loop = "memory read" if name.startswith("norm") else "memory update"
        return self.floor(name) * self.parameters() / pick(self, name) * 1e-6 / self.rate(loop, pick)


def load_average():
    return ", ".join(f"{x:.2f}" for x in os.getloadavg())


execute, table = logits.execute, logits.table


class Bench:
    def __init__(self, options):
        self.options, self.cases, self.peers = options, {}, {}
        self.prefix = shlex.split(options.prefix)
        self.load = load_average()

    def command(self, types, shape, mode, threads, huge):
        o = self.options
        return [*self.prefix, o.program, "--types", types, "--shape", shape, "--mode", mode, "--threads",
                str(threads), "--parameters", str(o.parameters), "--repetitions",
                str(o.repetitions)] + (["--huge-pages"] if huge else [])

    def facts(self, types, mode):
        """What does not depend on time, from a quick run."""
        run = Run(types, mode)
        run.read(execute([self.options.program, "--types", types, "--mode", mode, "--repetitions",
                          "3", "--parameters", str(min(self.options.parameters, 20_000_000))]))
        return run.facts

    def add_round(self, types, shape="layers", mode="plain", threads=0, path=None, huge=False):
        run = self.cases.setdefault((types, shape, mode, threads, path, huge), Run(types, mode))
        run.read(execute(self.command(types, shape, mode, threads, huge), path=path))
        return run

    def run(self, types, shape="layers", mode="plain", threads=0, path=None, huge=False):
        """All rounds of a case, unless it has had some."""
        case = (types, shape, mode, threads, path, huge)
        if case not in self.cases:
            for _ in range(self.options.rounds):
                self.add_round(*case)
        return self.cases[case]

    def in_caches(self, types, path):
        """One thread over a table that its second-level cache holds: what the loops alone take."""
        run = Run(types)
        run.read(execute([*self.prefix, self.options.program, "--types", types, "--shape", "large",
                          "--threads", "1", "--parameters", str(IN_CACHES), "--repetitions", "200"],
                         path=path))
        return run

    def sizes(self, shape):
        return execute([self.options.program, "--shape", shape, "--parameters",
                        str(self.options.parameters), "--list"])


# ---- tables -------------------------------------------------------------------------------

least, median = Run.least, Run.median


def percent(x):
    return f"{100 * x:.0f} %"


def ms_cell(run, name):
    return f"{run.least(name):.1f} / {run.median(name):.1f}"


def share_cell(run, name):
    return f"{percent(run.share(name, least))} / {percent(run.share(name, median))}"


def passes_of(run):
    order = ["norm of theta", "norm of g1", "perturb", "norm of g+", "mirror", "norm of g2",
             "combine", "cycle"]
    return [name for name in order if name in run.ms]


def moved_cell(run, name):
    """The time as bytes per parameter at the update (norms: read) bandwidth of the same run."""
    return f"{run.floor(name) / run.share(name, median):.1f}"


def passes(bench):
    out = ["## Passes and cycle", "",
           "Milliseconds are least / median over the repetitions. `floor` is what must move, in bytes "
           "per parameter; `as bytes` is the median time in bytes per parameter at the bandwidth "
           "measured between the same steps: that of reading for norms, of updating in place "
           "otherwise. `share` is the floor over it, of the least times / of the medians.", ""]
    for shape, title in SHAPES.items():
        rows = []
        for types in PAIRS:
            run = bench.run(types, shape)
            for name in passes_of(run):
                rows.append([types, name, ms_cell(run, name), run.floor(name),
                             moved_cell(run, name), share_cell(run, name)])
        out += [f"### {title}, {threads_text(run)}, {run.facts['path']}", "",
                table(["weights/grads", "pass", "ms", "floor", "as bytes", "share"], rows), ""]
    rows = [[types, *(f"{bench.run(types).rate(name, least):.1f} / "
                      f"{bench.run(types).rate(name, median):.1f}" for name in MEMORY)]
            for types in PAIRS]
    out += ["### The machine in the same runs, GB/s, best / median", "",
            table(["next to", "read", "copy", "copy around the caches", "update in place"], rows), ""]
    return out


def threads_text(run):
    count = int(run.facts["threads"])
    return f"{count} thread" + ("s" if count > 1 else "")


def paths(bench):
    best = bench.run(PAIRS[0]).facts["path"]
    known = PATHS[:PATHS.index(best) + 1] if best in PATHS else [best]
    rows, scaling = [], []
    for types in PAIRS:
        for path in known:
            run = bench.run(types) if path == best else bench.run(types, path=path)
            rows.append([types, path, *(ms_cell(run, name) for name in
                                        ("norm of g2", "perturb", "combine", "cycle")),
                         *(share_cell(run, name) for name in ("norm of g2", "perturb", "combine"))])
        one, all_ = bench.run(types, threads=1), bench.run(types)
        scaling.append([types, ms_cell(one, "cycle"), ms_cell(all_, "cycle"),
                        f"{one.least('cycle') / all_.least('cycle'):.2f}",
                        f"{one.least('memory update') / all_.least('memory update'):.2f}",
                        f"{one.least('memory read') / all_.least('memory read'):.2f}"])
    return ["## Vector paths", "", "Shares are of the bandwidth in the widest registers.", "",
            table(["weights/grads", "path", "norm ms", "perturb ms", "combine ms", "cycle ms",
                   "norm", "perturb", "combine"], rows), "",
            f"## One thread and {bench.run(PAIRS[0]).facts['threads']}", "",
            table(["weights/grads", "cycle, 1 thread", "all threads", "gain",
                   "gain of updating", "of reading"], scaling), ""]


def modes(bench):
    rows = []
    for types in ("f32/f32", "bf16/bf16"):
        plain = bench.run(types)
        for mode, text in MODES.items():
            run = bench.run(types, mode=mode)
            for cycle in [name for name in ("cycle", "reuse cycle") if name in run.ms]:
                floor = run.floor(cycle)
                rows.append([types, mode if cycle == "cycle" else mode + ", reused",
                             ms_cell(run, cycle), floor or "",
                             share_cell(run, cycle) if floor else "",
                             f"{run.least(cycle) / plain.least('cycle'):.2f}",
                             text if cycle == "cycle" else "a step that reuses it"])
    huge = []
    for types in PAIRS:
        run, plain = bench.run(types, huge=True), bench.run(types)
        huge.append([types, *(ms_cell(run, name) for name in
                              ("norm of g2", "perturb", "combine", "cycle")),
                     f"{plain.least('cycle') / run.least('cycle'):.2f}"])
    return ["## Modes", "", "Times of a whole step's calls; `of plain` compares the least times.",
            "", table(["weights/grads", "mode", "ms", "floor", "share", "of plain", ""], rows), "",
            "## Huge pages", "",
            "The same with the trainer's and the library's buffers on huge pages (`madvise`, or the "
            "system's `transparent_hugepage/enabled` = `always`).", "",
            table(["weights/grads", "norm ms", "perturb ms", "combine ms", "cycle ms",
                   "cycle: gain"], huge), ""]


def memory(bench):
    rows = []
    for types in PAIRS:
        for mode in MODES:
            facts = bench.facts(types, mode)
            n = int(facts["parameters"])
            rows.append([types, mode, f"{int(facts['library_bytes']) / n:.2f}",
                         f"{int(facts['caller_bytes']) / n:.2f}", facts["allocations_per_step"]])
    return ["## Memory", "",
            "Bytes per parameter beside weights and gradients: what the library holds "
            "(`gradreg_regularizer_workspace_bytes`) and what the mode asks the caller for. The "
            "published implementation holds 12 (bf16 weights) to 14 (f32). Allocations are calls of "
            "the allocator per step after creation.", "",
            table(["weights/grads", "mode", "library", "caller", "allocations per step"], rows), ""]


# ---- PyTorch ------------------------------------------------------------------------------

# Bytes per parameter that the operators of pytorch_peer.py move, counted.
PUBLIC_BYTES = {"f32/f32": 108, "bf16/f32": 108, "bf16/bf16": 122}


def torch_pythons(options):
    found = []
    for python in options.torch_python or ["/usr/bin/python3"]:
        try:
            result = subprocess.run([python, "-c", "import torch; print(torch.__version__)"],
                                    text=True, capture_output=True, check=False)
        except OSError:
            continue
        if result.returncode == 0:
            found.append(python)
    return found


def pytorch(bench):
    """Library and peer in turn, so that both meet the same machine."""
    out = ["## Against PyTorch", ""]
    pythons = torch_pythons(bench.options)
    if not pythons:
        return out + ["PyTorch is not installed (Debian: python3-torch).", ""]
    out += ["The published algorithm as PyTorch runs it on the same sizes and threads, and a version "
            "with as few passes as its operators allow (foreach); times without the backward passes, "
            "least / median. Bytes per parameter that they move: "
            + ", ".join(f"{k} {v}" for k, v in PUBLIC_BYTES.items())
            + " (public), 64, 64, 32 (foreach).", ""]
    rows, sam = [], []
    for python in pythons:
        for shape, title in SHAPES.items():
            sizes = bench.sizes(shape)
            for types in PAIRS:
                peer = Run(types)
                for _ in range(bench.options.rounds):
                    run = bench.add_round(types, shape)
                    peer.read(execute([*bench.prefix, python, HERE / "pytorch_peer.py", types,
                                       run.facts["threads"], str(bench.options.repetitions)],
                                      given=sizes))
                bench.peers[(shape, types, peer.facts["torch"])] = peer
                rows.append([peer.facts["torch"], title, types, ms_cell(peer, "public"),
                             ms_cell(peer, "foreach"), ms_cell(run, "cycle"),
                             ratio_cell(peer, "public", run), ratio_cell(peer, "foreach", run)])
                if "sam" in peer.ms:
                    sam.append([peer.facts["pytorch_optimizer"], title, types,
                                ms_cell(peer, "sam"), ms_cell(run, "cycle"),
                                ratio_cell(peer, "sam", run)])
    out += [table(["PyTorch", "tensors", "weights/grads", "public ms", "foreach ms", "library ms",
                   "public / library", "foreach / library"], rows), ""]
    return out + (against_sam(sam) if sam else [])


def ratio_cell(peer, name, run):
    return (f"{peer.least(name) / run.least('cycle'):.1f} / "
            f"{peer.median(name) / run.median('cycle'):.1f}")


def against_sam(rows):
    return ["### pytorch_optimizer's SAM", "",
            "In its foreach form, without the optimizer's own step. It does less than a step of the "
            "library: one norm, no second clip, no correction and no terms; the second gradient is the "
            "result.", "",
            table(["pytorch_optimizer", "tensors", "weights/grads", "SAM ms", "library ms",
                   "SAM / library"], rows), ""]


# ---- goals --------------------------------------------------------------------------------


def ceiling_cell(run, alone, name):
    """The share of a pass if its loops did not wait for memory, on all threads of `run`."""
    rate = alone.floor(name) * alone.parameters() / least(alone, name) * 1e-6
    loop = "memory read" if name.startswith("norm") else "memory update"
    return percent(rate * int(run.facts["threads"]) / run.rate(loop, median))


def goals(bench):
    """The project's goals next to what was measured, whatever it is."""
    best = bench.run(PAIRS[0]).facts["path"]
    wide = best == "x86-64-v4"
    rows = []
    known = [path for path in ("x86-64-v4", "x86-64-v3")
             if best in PATHS and PATHS.index(path) <= PATHS.index(best)]
    for path in known:
        for types in PAIRS:
            run = bench.run(types) if path == best else bench.run(types, path=path)
            alone = bench.in_caches(types, path)
            norm = {"x86-64-v4": "90", "x86-64-v3": "85"}[path]
            for name, must, stretch in (("norm of g2", norm, "98"), ("perturb", "90", "105"),
                                        ("combine", "82", "94")):
                rows.append([f"{name.split(' of')[0]}, {types}, {path}, share of bandwidth",
                             must + " %", stretch + " %", share_cell(run, name),
                             ceiling_cell(run, alone, name)])
    for (shape, types, version), peer in bench.peers.items():
        run = bench.run(types, shape)
        must, stretch = {("layers", "f32/f32"): ("3.2", "3.5"), ("large", "f32/f32"): ("3.2", "7.5"),
                         ("layers", "bf16/bf16"): ("3.8", "5"),
                         ("large", "bf16/bf16"): ("3.8", "5")}.get((shape, types), ("", ""))
        ratio = ratio_cell(peer, "public", run)
        rows.append([f"cycle against the public algorithm, PyTorch {version}, {types}, "
                     f"{SHAPES[shape]}", must, stretch, ratio,
                     f"{PUBLIC_BYTES[types] / run.floor('cycle'):.1f}"])
    rows.append(["allocations per step", "0", "",
                 max(run.facts["allocations_per_step"] for run in bench.cases.values()), ""])
    note = [] if wide else ["This processor has no AVX-512: the rows for it are missing.", ""]
    return ["## Goals", "",
            "Least / median. `in caches` is the share that the loops would reach if they never waited for "
            f"memory: `bench_regularizer --shape large --threads 1 --parameters {IN_CACHES}`, times the "
            "threads, over the median bandwidth. Where it is near `must`, arithmetic leaves memory no time: "
            "combine of bf16 takes 10 additions, 9 multiplications and 7 conversions per register (no fused "
            "multiply-add, bf16 rounded by integers: the same bits on every path), on Zen 4 at least 13 "
            "cycles per 16 elements. For PyTorch the last column is the ratio of the bytes that both "
            "move; a peer that takes new memory in its step needs longer than its bytes do.", "", *note,
            table(["goal", "must", "stretch", "measured", "in caches, of bytes"], rows), ""]


# ---- the page -----------------------------------------------------------------------------

SECTIONS = {"passes": passes, "paths": paths, "modes": modes, "memory": memory,
            "pytorch": pytorch}


def huge_pages():
    try:
        text = Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text(encoding="ascii")
    except OSError:
        return "unknown"
    return text.split("[")[1].split("]")[0]


def environment():
    """What the peer's threads were told; by default they wait busily, which suffers on a busy machine."""
    names = [name for name in sorted(os.environ) if name.startswith(("OMP_", "GOMP_"))]
    return "".join(f"{name}={os.environ[name]} " for name in names)


def preface(bench):
    facts, o = bench.run(PAIRS[0]).facts, bench.options
    return ["# Benchmarks", "",
            "Generated by `tools/bench`; edit that, not this.", "",
            f"- {time.strftime('%Y-%m-%d')}, {facts['device']}, {facts['threads']} threads, "
            f"{facts['path']}, transparent huge pages: {huge_pages()}",
            f"- {o.compiler}" if o.compiler else "- compiler unknown",
            f"- {facts['parameters']} parameters, {o.repetitions} repetitions in each of {o.rounds} "
            f"rounds; load average at the start {bench.load}, at the end {load_average()}",
            f"- command: `{environment()}{o.command}`", ""]


def closing():
    return ["## How to read this", "",
            "A machine that others use moves by 15 % and more: compare figures of one table only, the "
            "least times before the medians. Everything is measured through the public calls; the "
            "passes inside them are timed where the front calls the backend. The bandwidth loops are "
            "`test/bench/bandwidth.c`, the peer is `test/bench/pytorch_peer.py`.", ""]


# ---- the check ----------------------------------------------------------------------------


def check(bench):
    """Whether the figures can be right; times are not judged."""
    failures = []

    def demand(holds, what):
        if not holds:
            failures.append(what)
    demand([bytes_of("6G+5P", types) for types in PAIRS] == [44, 34, 22], "floors of a cycle")
    demand([bytes_of("3G+4+P", types) for types in PAIRS] == [20, 18, 12], "floors of a restore")
    for types in PAIRS:
        p, g = (SIZE[word] for word in types.split("/"))
        for mode in MODES:
            run = bench.run(types, mode=mode, threads=2)
            name = f"{types} {mode}"
            demand({"perturb", "norm of g2", "combine", "cycle"} <= set(run.ms), f"{name}: passes")
            for series, samples in run.ms.items():
                demand(len(samples) >= bench.options.repetitions * bench.options.rounds,
                       f"{name}, {series}: {len(samples)} samples")
                demand(all(0 < ms < 1e5 and math.isfinite(ms) for ms in samples),
                       f"{name}, {series}: {samples}")
            parts = sum(run.median(x) for x in run.ms if x in ("perturb()", "combine()"))
            demand(parts <= 3 * run.median("cycle"), f"{name}: parts are longer than the whole")
            demand(float(run.facts["allocations_per_step"]) == 0, f"{name}: allocates")
            held = int(run.facts["library_bytes"]) / run.parameters()
            least_held = {"plain": p, "copied": p + g, "adds": p + g, "central": p + g,
                          "restore_master": 0, "out_of_place": 0}.get(mode, p)
            demand(least_held <= held < least_held + 6, f"{name}: holds {held:.2f} bytes")
    print(f"{len(bench.cases)} cases, {len(failures)} of their figures cannot be right")
    for failure in failures:
        print(failure)
    return 1 if failures else 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--parameters", type=int, default=100_000_000)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--sections", default=",".join(SECTIONS))
    parser.add_argument("--torch-python", action="append")
    parser.add_argument("--logits", help="bench_logits: its tables too")
    parser.add_argument("--compiler", default="")
    parser.add_argument("--command", default="tools/bench")
    parser.add_argument("--prefix", default="")
    parser.add_argument("--write")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    bench = Bench(options)
    if options.check:
        return check(bench)
    wanted = options.sections.split(",")
    # PyTorch first: its rounds take turns with the library's.
    parts = {name: SECTIONS[name](bench) for name in sorted(wanted, key=lambda x: x != "pytorch")}
    lines = preface(bench) + (goals(bench) if {"passes", "paths"} <= set(wanted) else [])
    lines += [line for name in SECTIONS if name in parts for line in parts[name]]
    if options.logits:
        lines += logits.tables(options.logits, options.repetitions, options.rounds,
                               torch_pythons(options))
    lines += closing()
    text = "\n".join(lines)
    print(text)
    if options.write:
        Path(options.write).write_text(text, encoding="utf-8")
    return 0


sys.exit(main())
