#!/usr/bin/env python3
"""Older processors: suites run in an emulator of processors that end just short of a vector path.
An instruction that such a processor lacks ends the program, wherever it hides.

usage: check_processors.py QEMU KERNELS_SUITE SUITE...

KERNELS_SUITE says how many vector paths it found; that must be as many as the processor has.
"""
import os
import re
import subprocess
import sys
from pathlib import Path

# Model and paths: scalar; x86-64-v2; x86-64-v3.
PROCESSORS = {"qemu64": 1, "Nehalem": 2, "Haswell": 3}


def run(qemu, model, program):
    """The output of a suite, or None after saying how it failed."""
    environment = {key: value for key, value in os.environ.items() if key != "GRADREG_VECTOR_PATH"}
    environment |= {"CK_FORK": "no", "GRADREG_TEST_SMALL": "1"}
    done = subprocess.run([qemu, "-cpu", model, program], env=environment, text=True,
                          capture_output=True, check=False)
    if done.returncode == 0:
        return done.stdout
    print(f"{model}: {Path(program).name} ended with {done.returncode}\n"
          f"{done.stdout[-2000:]}{done.stderr[-500:]}")
    return None


def main():
    qemu, kernels, *suites = sys.argv[1:]
    good = True
    for model, paths in PROCESSORS.items():
        output = run(qemu, model, kernels)
        found = re.search(r"^vector paths: (\d+) of", output or "", re.M)
        if not found or int(found[1]) != paths:
            print(f"{model}: {found[0] if found else 'no paths were listed'}, expected {paths}")
            good = False
        good = all([run(qemu, model, suite) is not None for suite in suites]) and good
        print(f"{model}: {1 + len(suites)} suites")
    return not good


sys.exit(main())
