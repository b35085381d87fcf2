#!/usr/bin/env python3
"""Run a Python suite against the installed library.

usage: run.py BUILD_ROOT PREFIX MESON SUITE [ARGUMENT...]

Installs the build into an empty folder and points the package at the library there. In the
arguments @LIBRARIES@ is that folder.
"""
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main():
    build, prefix, meson, suite, *arguments = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([*meson.split(), "install", "-C", build, "--no-rebuild", "--quiet", "--destdir",
                        folder], check=True, stdout=subprocess.DEVNULL)
        found = list((Path(folder) / prefix.lstrip("/")).rglob("libgradreg.so.0"))
        if len(found) != 1:
            sys.exit(f"expected one libgradreg.so.0, found {found}")
        package = HERE.parent.parent / "examples" / "python"
        environment = {**os.environ, "GRADREG_LIBRARY": str(found[0]),
                       "PYTHONPATH": os.pathsep.join([str(package), str(HERE)]),
                       "PYTHONDONTWRITEBYTECODE": "1"}
        arguments = [word.replace("@LIBRARIES@", str(found[0].parent)) for word in arguments]
        return subprocess.run([sys.executable, HERE / suite, *arguments], env=environment,
                              check=False).returncode


sys.exit(main())
