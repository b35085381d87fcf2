#!/usr/bin/env python3
"""Build and test the crates under examples/rust against an installed libgradreg, offline.

usage: check_rust.py SOURCE_ROOT BUILD_ROOT PREFIX MESON CARGO

Exit status 77 (skipped), with a sentence, where there is no cargo and rustc of 1.63 or newer.
"""
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

LEAST = (1, 63)
SKIPPED = 77


def run(command, **more):
    print("$", " ".join(map(str, command)), flush=True)
    done = subprocess.run([str(word) for word in command], check=False, **more)
    if done.returncode != 0:
        sys.exit(f"failed with {done.returncode}: {' '.join(map(str, command))}")


def skip(why):
    print(f"LEFT OUT: {why}. The crates of examples/rust are NOT tested here; tools/check_rust "
          "installs Debian's rustc and cargo and tests them.")
    sys.exit(SKIPPED)


def find_rustc(cargo):
    """The rustc that belongs to this cargo, if it lies beside it."""
    beside = Path(cargo).parent / "rustc"
    return str(beside) if beside.exists() else shutil.which("rustc")


def main():
    root, build, prefix, meson, cargo = sys.argv[1:]
    if not cargo:
        skip("there is no cargo")
    rustc = find_rustc(cargo)
    if rustc is None:
        skip("there is no rustc")
    said = subprocess.run([rustc, "--version"], capture_output=True, text=True, check=False).stdout
    version = re.match(r"rustc (\d+)\.(\d+)", said)
    if version is None or tuple(map(int, version.groups())) < LEAST:
        skip(f"rustc 1.63 or newer is needed, this is {said.strip() or rustc}")
    print(said.strip())

    folder = Path(build) / "rust"
    installed = folder / "installed"
    shutil.rmtree(installed, ignore_errors=True)
    run([*meson.split(), "install", "-C", build, "--no-rebuild", "--quiet", "--destdir",
         installed.resolve()])
    configs = list(installed.rglob("gradreg.pc"))
    if len(configs) != 1:
        sys.exit(f"expected one gradreg.pc, found {configs}")
    library = configs[0].parent.parent
    environment = {name: value for name, value in os.environ.items()
                   if not name.startswith(("GRADREG_", "CARGO_", "RUST"))}
    environment.update({
        "RUSTC": rustc,
        "PATH": f"{Path(rustc).parent}:{os.environ['PATH']}",
        # First in the search: what the library itself depends on is the system's.
        "PKG_CONFIG_PATH": str(configs[0].parent.resolve()),
        "PKG_CONFIG_SYSROOT_DIR": str(installed.resolve()),
        "LD_LIBRARY_PATH": str(library.resolve()),
        "CARGO_TARGET_DIR": str(folder / "target"),
        "CARGO_NET_OFFLINE": "true",
    })
    emulated = (Path(build) / "test" / "cuda").resolve()
    module, runtime = emulated / "libgradreg-cuda-emulated.so", emulated / "libemulated_cudart.so"
    if module.exists():
        environment.update({"GRADREG_TEST_CUDA_MODULE": str(module), "GRADREG_TEST_CUDART": str(runtime)})
    manifest = ["--offline", "--locked", "--manifest-path", Path(root) / "examples/rust/Cargo.toml"]
    run([cargo, "test", *manifest], env=environment)
    run([folder / "target/debug/examples/bandit"], env=environment)
    # With libgradreg.a inside: it runs without the shared library.
    static = {**environment, "GRADREG_STATIC": "1", "LD_LIBRARY_PATH": ""}
    run([cargo, "run", "--quiet", *manifest, "--example", "bandit"], env=static,
        stdout=subprocess.DEVNULL)
    needed = subprocess.run(["readelf", "-d", str(folder / "target/debug/examples/bandit")],
                            capture_output=True, text=True, check=True).stdout
    if "libgradreg" in needed:
        sys.exit("GRADREG_STATIC=1 linked the shared library")
    print(f"rust with {prefix} moved to {installed}: ok")


main()
