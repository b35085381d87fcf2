#!/usr/bin/env python3
"""Install the build into an empty folder and use it from there with pkg-config alone: from C and
C++, shared and static, and from Python through ctypes.

usage: check_install.py BUILD_ROOT PREFIX VERSION CONSUMER_SOURCE MESON CC [CXX]

MESON, CC and CXX are one argument each; words are separated by blanks.
"""
import ctypes
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path


def run(command, **more):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True,
                          check=False, **more)
    if done.returncode != 0:
        sys.exit(f"failed: {' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout.strip()


class Installed:
    """The tree that `meson install` left, seen through pkg-config moved to where it lies."""

    def __init__(self, destination, prefix):
        self.prefix = destination / prefix.lstrip("/")
        configs = list(destination.rglob("gradreg.pc"))
        if len(configs) != 1:
            sys.exit(f"expected one gradreg.pc, found {configs}")
        self.environment = {**os.environ, "PKG_CONFIG_LIBDIR": str(configs[0].parent)}
        self.library_folder = Path(self.config("--variable=libdir"))

    def config(self, *arguments):
        return run(["pkg-config", f"--define-variable=prefix={self.prefix}", *arguments, "gradreg"],
                   env=self.environment)

    def flags(self, *arguments):
        return self.config(*arguments).split()


def check_files(installed, version):
    folder = installed.library_folder
    full, major = folder / f"libgradreg.so.{version}", folder / "libgradreg.so.0"
    for path in (full, major, folder / "libgradreg.so", folder / "libgradreg.a",
                 Path(installed.config("--variable=includedir")) / "gradreg.h"):
        if not path.exists():
            sys.exit(f"not installed: {path}")
    headers = [path.name for path in installed.prefix.rglob("*.h")]
    if headers != ["gradreg.h"]:
        sys.exit(f"installed headers: {headers}")
    soname = re.search(r"SONAME.*\[(.*)\]", run(["readelf", "-d", full]))[1]
    if soname != "libgradreg.so.0":
        sys.exit(f"soname is {soname}")
    if installed.config("--modversion") != version:
        sys.exit("gradreg.pc has another version than the project")


def check_hidden(installed):
    """The static archive must not claim names outside the project's own."""
    names = run(["nm", "-g", "--defined-only", "-A", installed.library_folder / "libgradreg.a"])
    foreign = {line.split()[-1] for line in names.splitlines() if " " in line}
    foreign = {name for name in foreign if not name.startswith("gradreg_")}
    if foreign:
        sys.exit(f"global names without the prefix gradreg_: {sorted(foreign)}")


def check_consumer(installed, folder, title, compiler, source, version):
    # As a user with strict flags would; the header is found by pkg-config's -I and nothing else.
    strict = ["-Wall", "-Wextra", "-Werror", "-pedantic"]
    static = [flag for flag in installed.flags("--static", "--libs") if flag != "-lgradreg"]
    links = {
        "shared": [*installed.flags("--libs"), f"-Wl,-rpath,{installed.library_folder}"],
        "static": [installed.library_folder / "libgradreg.a", *static],
    }
    for kind, link in links.items():
        program = folder / f"consumer-{title}-{kind}"
        run([*compiler, *strict, *installed.flags("--cflags"), source, "-o", program, *link])
        needs_library = "libgradreg" in run(["readelf", "-d", program])
        if needs_library != (kind == "shared"):
            sys.exit(f"{program.name} was linked with the other library")
        if run([program]) != version:
            sys.exit(f"{program.name} printed something else than {version}")
        print(f"{title}, {kind}: ok")


def check_python(installed, version):
    library = ctypes.CDLL(str(installed.library_folder / "libgradreg.so.0"))
    library.gradreg_version.restype = ctypes.c_char_p
    if library.gradreg_version().decode() != version:
        sys.exit("ctypes: another version")
    print("python, ctypes: ok")


def main():
    build, prefix, version, source, meson, *compilers = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        run([*meson.split(), "install", "-C", build, "--no-rebuild", "--destdir", folder / "root"])
        installed = Installed(folder / "root", prefix)
        check_files(installed, version)
        check_hidden(installed)
        for language, compiler in zip(("c", "c++"), compilers):
            text = folder / ("consumer.cpp" if language == "c++" else "consumer.c")
            text.write_text(Path(source).read_text(encoding="utf-8"), encoding="utf-8")
            check_consumer(installed, folder, language, compiler.split(), text, version)
        check_python(installed, version)


main()
