#!/usr/bin/env python3
"""Compiles one file of the CUDA module and keeps what the compilers said and made on the way.

    nvcc.py NVCC OBJECT DEPFILE REPORT PTX,PTX... FLAGS... SOURCE

meson's own CUDA support would pass the C compiler's warnings and a shared runtime along. REPORT is
what ptxas said (registers, spills, local memory per kernel and architecture), NAME.90.ptx what it read
for compute capability 9.0: the tests check both, and run the PTX."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path


def main(nvcc, out, depfile, report, ptx, *arguments):
    with tempfile.TemporaryDirectory() as kept:
        done = subprocess.run([nvcc, "-c", "-Xptxas=-v", "-MD", "-MF", depfile, "-MT", out, "-o",
                               out, "--keep", "--keep-dir", kept, *arguments],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        with open(report, "w", encoding="utf-8") as file:
            file.write(done.stdout)
        if done.returncode != 0:
            sys.exit(done.stdout)
        for path in ptx.split(","):
            capability = Path(path).suffixes[-2][1:]
            shutil.copyfile(next(Path(kept).glob(f"*compute_{capability}.ptx")), path)


if __name__ == "__main__":
    main(*sys.argv[1:])
