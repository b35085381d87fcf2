#!/usr/bin/env python3
"""Compiles files of lib/cuda to PTX and runs the comparison with it: every launch runs a second
time from nvcc's output and has to leave the same bytes.

    run_ptx.py NVCC COMPARE MODULE ROOT FILES CASES

FILES and CASES are lists with commas: cuda_write,cuda_advantages and advantages:20,policy:4 (that many
of each). The flags are those of lib/cuda/meson.build that decide about results."""
import os
import subprocess
import sys
import tempfile
from pathlib import Path

FLAGS = ["-std=c++17", "-O3", "--fmad=false", "-ftz=false", "-prec-div=true", "-prec-sqrt=true",
         "-diag-suppress=177", "-arch=compute_90", "-ptx"]


def run(command, **more):
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False, **more)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}exit status {done.returncode}")
    return done.stdout


def main(nvcc, compare, module, root, files, cases):
    root = Path(root)
    includes = [f"-I{root / place}" for place in ("include", "lib", "lib/cuda")]
    with tempfile.TemporaryDirectory() as folder:
        made = []
        for name in files.split(","):
            made.append(Path(folder, name + ".ptx"))
            run([nvcc, *FLAGS, *includes, root / "lib" / "cuda" / (name + ".cu"), "-o", made[-1]])
        environment = dict(os.environ, GRADREG_CUDA_MODULE=module,
                           GRADREG_EMULATED_PTX=":".join(map(str, made)))
        for case in cases.split(","):
            name, count = case.split(":")
            output = run([compare, "--only", name, "--count", count], env=environment)
            print(output, end="")
            if "PTX: " not in output:
                sys.exit(f"{name}: nothing ran from PTX")


main(*sys.argv[1:])
