#!/usr/bin/env python3
"""Compiles one file of the CUDA module and keeps what ptxas said about it.

    nvcc.py NVCC OBJECT DEPFILE REPORT FLAGS... SOURCE

meson's own CUDA support would pass the C compiler's warnings and a shared runtime along. The
report (registers, spills, local memory per kernel and architecture) is what the tests read."""

import subprocess
import sys


def main(nvcc, out, depfile, report, *arguments):
    done = subprocess.run([nvcc, "-c", "-Xptxas=-v", "-MD", "-MF", depfile, "-MT", out, "-o", out,
                           *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    with open(report, "w", encoding="utf-8") as file:
        file.write(done.stdout)
    if done.returncode != 0:
        sys.exit(done.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
