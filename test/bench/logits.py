#!/usr/bin/env python3
"""Runs bench_logits and its PyTorch peer, and makes tables of what they print.

usage: logits.py BENCH_LOGITS [--repetitions N] [--rounds N] [--scale N] [--torch-python PYTHON]...

--scale N divides the rows by N, for a quick look. benchmark.py puts `tables()` on the page of
benchmarks. The fused call is the one that computes log-probs, entropy, loss and gradient in one visit of
each row; `separate` are the three calls, both in place. `copy` reads and writes the matrix once in
the same repetition.
"""
import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
SHAPES = [(512, 151936), (4096, 32000)]
HEAD = (1024, 32000, 2048)
PATHS = ["x86-64-v2", "x86-64-v3", "x86-64-v4"]
GOALS = {"x86-64-v4": (22, 19), "x86-64-v3": (17, 15)}


def execute(command, given=None, path=None):
    """What it prints, on a vector path if one is named. Ends this program where it fails."""
    env = {k: v for k, v in os.environ.items() if k != "GRADREG_VECTOR_PATH"}
    if path is not None:
        env["GRADREG_VECTOR_PATH"] = path
    done = subprocess.run([str(word) for word in command], input=given, env=env, text=True,
                          capture_output=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}: {done.stderr.strip()}")
    return done.stdout


class Case:
    """Facts and samples, over all rounds."""

    def __init__(self):
        self.facts, self.ms = {}, {}

    def read(self, text):
        for line in text.splitlines():
            kind, name, *values = line.split("\t")
            if kind == "fact":
                self.facts[name] = values[0]
            else:
                self.ms.setdefault(name, []).extend(map(float, values))

    def least(self, name):
        return min(self.ms[name])

    def cell(self, name):
        return f"{self.least(name):.1f} / {statistics.median(self.ms[name]):.1f}"


def table(header, rows):
    rows = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(cells):
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths)) + " |"
    return "\n".join([line(header), line(["-" * width for width in widths]), *map(line, rows)])


def torch_of(pythons):
    for python in pythons or ["/usr/bin/python3"]:
        try:
            done = subprocess.run([python, "-c", "import torch"], capture_output=True, check=False)
        except OSError:
            continue
        if done.returncode == 0:
            return python
    return None


def known_paths(program):
    best = Case()
    best.read(execute([program, "--rows", "2", "--vocabulary", "64", "--repetitions", "1"]))
    return [path for path in PATHS if path <= best.facts["path"]] or [None]


def measure(program, rows, vocabulary, kind, repetitions, rounds, python):
    """The library on every path and with one thread, PyTorch in turn with them."""
    paths = known_paths(program)
    cases = {name: Case() for name in [*paths, "one thread", "torch"]}
    threads = os.cpu_count()
    for _ in range(rounds):
        for path in paths:
            cases[path].read(execute([program, "--rows", rows, "--vocabulary", vocabulary, "--type",
                                      kind, "--repetitions", repetitions], path=path))
        cases["one thread"].read(execute([program, "--rows", rows, "--vocabulary", vocabulary,
                                          "--type", kind, "--repetitions", repetitions,
                                          "--threads", 1]))
        if python:
            threads = cases[paths[-1]].facts["threads"]
            cases["torch"].read(execute([python, HERE / "logits_peer.py", rows, vocabulary, kind,
                                         threads, max(2, repetitions // 2)]))
    return cases


def share(case, name, matrices):
    """Of what copying at the same bandwidth would take for that many reads or writes of the matrix."""
    return f"{100 * matrices / 2 * case.least('copy') / case.least(name):.0f} %"


def rows_of(cases, shape, kind):
    out, peer = [], cases.pop("torch")
    for name, case in cases.items():
        ratio = [f"{peer.least('torch') / case.least(op):.1f}" if peer.ms else ""
                 for op in ("fused", "separate")]
        out.append([shape, kind, name, case.facts["threads"], case.cell("forward"),
                    case.cell("backward"), case.cell("separate"), case.cell("fused"),
                    case.cell("copy"), share(case, "separate", 3), share(case, "fused", 2),
                    *ratio])
    if peer.ms:
        out.append([shape, kind, "PyTorch " + peer.facts["torch"], "", "", "", peer.cell("torch"),
                    "", "", "", "", "1", "1"])
    return out


def linear_rows(program, kind, repetitions):
    rows, vocabulary, width = HEAD
    case = Case()
    case.read(execute([program, "--rows", rows, "--vocabulary", vocabulary, "--width", width, "--type",
                       kind, "--repetitions", repetitions]))
    if not case.ms:
        return case, []
    return case, [[kind, pass_, case.cell("linear " + pass_), case.cell("products " + pass_),
                   f"{100 * case.least('products ' + pass_) / case.least('linear ' + pass_):.0f} %"]
                  for pass_ in ("forward", "backward")]


def tables(program, repetitions, rounds, pythons, scale=1):
    python = torch_of(pythons)
    rows = []
    for count, vocabulary in SHAPES:
        for kind in ("f32", "bf16"):
            cases = measure(program, count // scale, vocabulary, kind, repetitions, rounds, python)
            rows += rows_of(cases, f"{count // scale} x {vocabulary}", kind)
    out = ["## Log-probs from logits", "",
           "Log-probs, entropies, a policy loss with an entropy bonus, and the gradient into the logits "
           "in place; milliseconds, least / median. `fused` is `gradreg_policy_logits`, `separate` the "
           "three calls. Shares of the copy bandwidth count 2 passes over the matrix for the fused "
           "call and 3 for the separate ones. The last columns are PyTorch's `cross_entropy` + entropy "
           "+ backward over the same sizes and all threads, divided by the library's time; goals: "
           + ", ".join(f"{path} {a}x fused, {b}x separate" for path, (a, b) in GOALS.items())
           + (" (f32)." if python else ". PyTorch is not installed (Debian: python3-torch)."), "",
           table(["logits", "type", "path", "threads", "forward", "backward", "separate", "fused",
                  "copy", "separate of copy", "fused of copy", "PyTorch / fused",
                  "PyTorch / separate"], rows), ""]
    linear, core = [], {}
    for kind in ("f32", "bf16"):
        case, lines = linear_rows(program, kind, max(2, repetitions // 2))
        core, linear = case.facts, linear + lines
    out += ["## Log-probs from hidden states", ""]
    if not linear:
        return out + ["This build has no BLAS (Debian: libopenblas-dev).", ""]
    count, vocabulary, width = HEAD
    return out + [f"{count} tokens, vocabulary {vocabulary}, width {width}, chunks of "
                  f"{core['chunk rows']} rows, {core['blas threads']} BLAS threads. OpenBLAS calls "
                  f"this processor {core['blas core']}"
                  + (f" (OPENBLAS_CORETYPE={os.environ['OPENBLAS_CORETYPE']})"
                     if "OPENBLAS_CORETYPE" in os.environ else "")
                  + ". `products` are the matrix products of the call alone, from f32.", "",
                  table(["hidden, weight", "call", "ms", "products alone", "products / call"],
                        linear), ""]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--scale", type=int, default=1)
    parser.add_argument("--torch-python", action="append")
    options = parser.parse_args()
    print("\n".join(tables(options.program, options.repetitions, options.rounds,
                           options.torch_python, options.scale)))


if __name__ == "__main__":
    main()
