#!/usr/bin/env python3
"""The wheel: built from an installed library, installed in a fresh environment by pip without a
network, used from there, uninstalled without a trace.

usage: check_wheel.py SOURCE_ROOT LIBRARY_FOLDER
"""
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

USE = """
import gradreg, sys
segments = gradreg.flat_table([("layers.0.mlp.up_proj.weight", 4)])
import array
theta, grads = array.array("f", [1, 2, 3, 4]), array.array("f", [1, 1, 1, 1])
with gradreg.Regularizer(segments, layer_count=1) as regularizer:
    regularizer.perturb(theta, grads)
    regularizer.combine(theta, grads)
assert theta.tolist() == [1, 2, 3, 4], theta
print(gradreg.__file__)
"""


def run(*command, **more):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False,
                          **more)
    if done.returncode != 0:
        sys.exit(f"failed: {' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout.strip()


def files(folder):
    """Everything but what Python itself writes while it runs."""
    return {path for path in folder.rglob("*") if "__pycache__" not in path.parts}


def main():
    root, libraries = Path(sys.argv[1]), Path(sys.argv[2])
    clean = {name: value for name, value in os.environ.items()
             if name not in ("GRADREG_LIBRARY", "PYTHONPATH", "PYTHONHOME")}
    clean["PYTHONDONTWRITEBYTECODE"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        maker = root / "examples" / "python" / "make_wheel.py"
        wheel = Path(run(sys.executable, maker, libraries, folder))
        again = Path(run(sys.executable, maker, libraries, folder / "again"))
        if wheel.read_bytes() != again.read_bytes():
            sys.exit("two wheels of the same library differ")
        if not re.fullmatch(r"gradreg-[\d.]+-py3-none-(many)?linux_\w+\.whl", wheel.name):
            sys.exit(f"wheel is named {wheel.name}")
        run(sys.executable, "-m", "venv", folder / "fresh", env=clean)
        python = folder / "fresh" / "bin" / "python"
        before = files(folder / "fresh")
        run(python, "-m", "pip", "install", "--no-index", "--no-compile", wheel, env=clean)
        lines = run(python, "-m", "gradreg", "info", env=clean, cwd=folder).splitlines()
        if str(folder / "fresh") not in lines[0]:
            sys.exit(f"not the wheel's library: {lines[0]}")
        if any(line.startswith("missing") for line in lines):
            sys.exit("\n".join(lines))
        print("\n".join(lines[:4]))
        where = run(python, "-c", USE, env=clean, cwd=folder)
        if not where.startswith(str(folder / "fresh")):
            sys.exit(f"imported {where}")
        run(python, "-m", "pip", "check", env=clean)
        run(python, "-m", "pip", "uninstall", "-y", "gradreg", env=clean)
        left = files(folder / "fresh") - before
        if left:
            sys.exit(f"left behind: {sorted(map(str, left))}")
        print(f"{wheel.name}: {wheel.stat().st_size // 1024} KiB, installed, used, uninstalled")


main()
