"""Compiles kernels.cu with nvcc for several architectures and runs the PTX with check_device.

    run_nvcc.py NVCC CHECK_DEVICE KERNELS_CU INCLUDE_DIR

The flags are those of the library's CUDA code: contraction off, IEEE division and square root,
warnings are errors. The machine code is compiled as well, and must not spill registers. At last
the kernels are compiled with contraction on, and that has to be noticed."""

import pathlib
import subprocess
import sys
import tempfile

ARCHITECTURES = ["80", "90", "100"]
EXACT = ["--fmad=false", "-ftz=false", "-prec-div=true", "-prec-sqrt=true"]
COMMON = ["-std=c++17", "-O3", "-Werror", "all-warnings"]


def run(command):
    """Runs, passes the output on, and ends this program if the command fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{done.stdout}exit status {done.returncode}")
    return done.stdout


def compile_ptx(nvcc, kernels, include, architecture, flags, ptx):
    run([nvcc, *COMMON, *flags, f"-arch=compute_{architecture}", f"-I{include}", "-ptx", kernels,
         "-o", str(ptx)])


def main(nvcc, check_device, kernels, include):
    known = run([nvcc, "--list-gpu-arch"]).split()
    architectures = [a for a in ARCHITECTURES if f"compute_{a}" in known]
    if not architectures:
        sys.exit(f"{nvcc} knows none of {', '.join(ARCHITECTURES)}")
    with tempfile.TemporaryDirectory() as directory:
        for architecture in architectures:
            ptx = pathlib.Path(directory, f"sm_{architecture}.ptx")
            compile_ptx(nvcc, kernels, include, architecture, EXACT, ptx)
            run([nvcc, "-cubin", f"-arch=sm_{architecture}", "-Werror", "all-warnings",
                 "-Xptxas=--warn-on-spills", str(ptx), "-o", str(ptx.with_suffix(".cubin"))])
            print(run([check_device, str(ptx)]).replace(directory + "/", ""), end="")
        contracted = pathlib.Path(directory, "contracted.ptx")
        compile_ptx(nvcc, kernels, include, architectures[0], ["--fmad=true"], contracted)
        print(run([check_device, "--contracted", str(contracted)]).replace(directory + "/", ""),
              end="")


if __name__ == "__main__":
    main(*sys.argv[1:])
