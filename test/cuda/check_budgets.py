#!/usr/bin/env python3
"""What the compiler made of the kernels, against the budgets.

    check_budgets.py MODULE REPORT_OR_PTX...

MODULE is libgradreg-cuda.so, a report (.txt) what `ptxas -v` said, PTX (.ptx) what went into it. Every
kernel on every architecture: no stack frame, no spills, and at most 64 registers unless LIMITS names
it. The kernels that walk over weights and gradients load and store 16 bytes at a time. The module
has at most 4 MB. Prints what was checked."""
import re
import sys
from pathlib import Path

REGISTERS, MODULE_BYTES = 64, 4 * 1024 * 1024
# Kernels that may hold more at a time, and why.
LIMITS = {
    # One thread block's report on a few numbers, in double; how many blocks fit an SM is no matter. Left alone the
    # compiler takes 94 (8.0) to 128 (12.0) and spills nothing.
    "k_finish": 128,
    # All formulas of a token between two accesses. Held to 64 it spills 272 bytes; with the sums and the
    # row's numbers in shared memory it takes as many, or spills 236: the formulas themselves need them. Up to
    # 128, four blocks of 128 threads fit an SM.
    "k_policy_write": 124,
    # A visit is two kernels in one; two blocks of 256 threads an SM. Held to 64 it spills 24 bytes on
    # 9.0, where one thread works out a token while the others wait.
    "k_policy_logits": 112,
    # The row fills shared memory: one block of 512 threads an SM, which 64 would not make two. It spills
    # 60 bytes then.
    "k_policy_logits_on_chip": 120,
}
HOT = re.compile(r"k_(squares|verify|perturb|move|combine)")
READS_ONLY = re.compile(r"k_(squares|verify)")
NAME = re.compile(r"k_[a-z_]+[a-z]")
ENTRY = re.compile(r"Compiling entry function '(\w+)' for '(\w+)'")
FRAME = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers")
PTX_ENTRY = re.compile(r"\.entry (\w+)\(")
WIDE_LOAD = re.compile(r"\bld(?:\.\w+)*\.v4\.[bfsu]32\b|\bld(?:\.\w+)*\.v2\.[bfsu]64\b")
WIDE_STORE = re.compile(r"\bst(?:\.\w+)*\.v4\.[bfsu]32\b|\bst(?:\.\w+)*\.v2\.[bfsu]64\b")


class Checker:
    def __init__(self):
        self.problems, self.kernels, self.architectures = [], set(), set()
        self.compiled, self.most, self.wide = 0, 0, set()

    def expect(self, holds, sentence):
        if not holds:
            self.problems.append(sentence)

    def limit(self, kernel):
        return LIMITS.get(NAME.search(kernel)[0], REGISTERS)

    def report(self, path):
        kernel = None
        for line in path.read_text(encoding="utf-8").splitlines():
            entry, frame, used = ENTRY.search(line), FRAME.search(line), USED.search(line)
            if entry:
                kernel, architecture = entry[1], entry[2]
                self.kernels.add(kernel)
                self.architectures.add(architecture)
                self.compiled += 1
            elif frame and kernel:
                self.expect(frame.groups() == ("0", "0", "0"),
                            f"{kernel} for {architecture}: {frame[0]}")
            elif used and kernel:
                registers = int(used[1])
                limit = self.limit(kernel)
                self.most = max(self.most, registers if limit == REGISTERS else 0)
                self.expect(registers <= limit,
                            f"{kernel} for {architecture}: {registers} registers, {limit} at most")

    def ptx(self, path):
        text = path.read_text(encoding="utf-8")
        places = [(match[1], match.start()) for match in PTX_ENTRY.finditer(text)]
        for (name, begin), (_, end) in zip(places, places[1:] + [("", len(text))]):
            if not HOT.search(name):
                continue
            self.wide.add(name)
            self.expect(WIDE_LOAD.search(text, begin, end), f"{name} has no load of 16 bytes")
            if not READS_ONLY.search(name):
                self.expect(WIDE_STORE.search(text, begin, end),
                            f"{name} has no store of 16 bytes")


def main():
    module, *files = map(Path, sys.argv[1:])
    checker = Checker()
    for path in files:
        (checker.ptx if path.suffix == ".ptx" else checker.report)(path)
    size = module.stat().st_size
    checker.expect(size <= MODULE_BYTES, f"{module.name} has {size} bytes, at most {MODULE_BYTES}")
    checker.expect(len(checker.kernels) > 30 and len(checker.wide) > 15,
                   f"only {len(checker.kernels)} kernels, {len(checker.wide)} of them hot, were seen")
    for problem in checker.problems:
        print(problem)
    print(f"budgets: {len(checker.kernels)} kernels on {len(checker.architectures)} architectures "
          f"({checker.compiled} compilations), at most {checker.most} registers "
          f"({', '.join(f'{name} {limit}' for name, limit in LIMITS.items())}), "
          f"{len(checker.wide)} hot kernels with 16-byte accesses, module {size / 1e6:.2f} MB, "
          f"{len(checker.problems)} over budget")
    return bool(checker.problems)


sys.exit(main())
