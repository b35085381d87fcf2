#!/usr/bin/env python3
"""Runs the comparison with the PTX that nvcc made when it built the module: every launch runs a
second time from it and has to leave the same bytes.

    run_ptx.py COMPARE MODULE CASES PTX...

CASES is a list with commas, advantages:20,policy:4: that many of each."""
import os
import subprocess
import sys


def run(command, **more):
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False, **more)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}exit status {done.returncode}")
    return done.stdout


def main(compare, module, cases, *ptx):
    environment = dict(os.environ, GRADREG_CUDA_MODULE=module, GRADREG_EMULATED_PTX=":".join(ptx))
    for case in cases.split(","):
        name, count = case.split(":")
        output = run([compare, "--only", name, "--count", count], env=environment)
        print(output, end="")
        if "PTX: " not in output:
            sys.exit(f"{name}: nothing ran from PTX")


main(*sys.argv[1:])
