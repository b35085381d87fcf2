#!/usr/bin/env python3
"""Runs the comparison with the PTX that nvcc made when it built the module: every launch runs a
second time from it and has to leave the same bytes.

    run_ptx.py COMPARE MODULE CUBLAS CASES NAME.CAPABILITY.ptx...

CASES is a list with commas: advantages:20 are the first 20 of that group, advantages:5+2 the two after
the fifth. All of them run once for each compute capability, below 9.0 on a device without clusters. At
the end every kernel of the module must have run from each PTX, and one that waits for a cluster also in
clusters."""
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

# Kernels that cannot be reached by a comparison, and why.
NEVER_RUN = {}
ENTRY = re.compile(r"\.entry (\w+)\(")
RAN = re.compile(r"^from PTX: (.*)\n", re.M)
SUM = re.compile(r"^PTX: (\d+) launches of \d+ kernels in (\d+) shapes equal, (\d+) million", re.M)
NOISE = re.compile(r"^(from PTX:|emulated CUDA:).*\n", re.M)


def kernels_of(files):
    """What has to run: entries, and " in clusters" behind those that have a cluster's barrier."""
    kernels = set()
    for path in files:
        parts = ENTRY.split(Path(path).read_text(encoding="utf-8"))
        for name, body in zip(parts[1::2], parts[2::2]):
            kernels.add(name)
            if "barrier.cluster" in body:
                kernels.add(f"{name} in clusters")
    return kernels


def run(command, environment):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          check=False, env=environment)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{done.stdout}exit status {done.returncode}")
    return done.stdout


def run_capability(compare, cases, capability, files, environment):
    """The sentences that say which kernels did not run."""
    wanted, ran, sums = kernels_of(files), set(), Counter()
    environment = dict(environment, GRADREG_EMULATED_PTX=":".join(files),
                       GRADREG_EMULATED_CLUSTERS=str(8 * (int(capability) >= 90)))
    for case in cases.split(","):
        name, count = case.split(":")
        first, _, count = count.rpartition("+")
        output = run([compare, "--only", name, "--first", first or "0", "--count", count],
                     environment)
        print(NOISE.sub("", output), end="", flush=True)
        ran.update(RAN.findall(output))
        found = SUM.search(output)
        if found is None:
            sys.exit(f"{name}: nothing ran from PTX")
        for what, number in zip(("launches", "shapes", "millions"), found.groups()):
            sums[what] += int(number)
    plain = {name for name in wanted if " " not in name}
    print(f"PTX for {capability}: {len(ran & plain)} of {len(plain)} kernels, "
          f"{len(ran - plain)} of {len(wanted - plain)} in clusters, {sums['launches']} launches in "
          f"{sums['shapes']} shapes, {sums['millions']} million instructions")
    return ([f"PTX for {capability}: {name} never ran" for name in wanted - ran - set(NEVER_RUN)] +
            [f"PTX for {capability}: {name} is no exception" for name in set(NEVER_RUN) & ran])


def main(compare, module, cublas, cases, *ptx):
    environment = dict(os.environ, GRADREG_CUDA_MODULE=module, GRADREG_CUBLAS=cublas,
                       GRADREG_EMULATED_REPORT="1")
    problems = []
    for capability in sorted({Path(path).suffixes[-2][1:] for path in ptx}, key=int):
        files = [path for path in ptx if path.endswith(f".{capability}.ptx")]
        problems += run_capability(compare, cases, capability, files, environment)
    sys.exit("\n".join(sorted(problems)) or None)


main(*sys.argv[1:])
