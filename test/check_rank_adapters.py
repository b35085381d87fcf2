#!/usr/bin/env python3
"""examples/ranks: the MPI adapter is compiled and run with 2 and 3 processes by each MPI that is
installed, the NCCL adapter is compiled against nccl.h.

usage: check_rank_adapters.py SOURCE_ROOT LIBRARY CC [CXX]

Exit status 77 (skipped), with a sentence, where there is neither MPI nor nccl.h.
"""
import glob
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SKIPPED = 77
STRICT = ["-Wall", "-Wextra", "-Wconversion", "-Werror"]


def run(command, **more):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True,
                          check=False, **more)
    if done.returncode != 0:
        sys.exit(f"failed: {' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def implementations():
    """(mpicc, mpirun) of each MPI that is installed: Debian keeps several side by side."""
    named = [(shutil.which(f"mpicc.{name}"), shutil.which(f"mpirun.{name}"))
             for name in ("mpich", "openmpi")]
    plain = [(shutil.which("mpicc"), shutil.which("mpirun"))]
    return [pair for pair in named if None not in pair] or [pair for pair in plain if None not in pair]


def check_mpi(root, library, folder):
    found = implementations()
    if not found:
        print("MPI: LEFT OUT, there is no mpicc and mpirun here; tools/check_ranks installs them")
    for mpicc, mpirun in found:
        run_sharded(root, library, folder, mpicc, mpirun)
    return bool(found)


def run_sharded(root, library, folder, mpicc, mpirun):
    print(f"MPI: {mpicc}")
    # Open MPI refuses root and more processes than cores unless told otherwise; MPICH ignores these.
    environment = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1",
                   "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
                   "OMPI_MCA_rmaps_base_oversubscribe": "1",
                   "OMPI_MCA_btl_vader_single_copy_mechanism": "none",
                   "LD_LIBRARY_PATH": str(library.parent)}
    program = folder / "sharded"
    # Not -Wconversion: MPI's own macros convert.
    run([mpicc, "-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", f"-I{root / 'include'}",
         root / "examples/ranks/sharded.c", "-o", program, f"-L{library.parent}", "-lgradreg"])
    for ranks in (2, 3):
        said = run([mpirun, "-n", ranks, program], env=environment, timeout=120)
        print(said.strip())
        if "are the same to the bit" not in said or f"{ranks} ranks" not in said:
            sys.exit("the slices together are not the whole")


def check_nccl(root, folder, compilers):
    places = [Path(place) / "nccl.h" for place in
              ["/usr/include", *sorted(glob.glob("/usr/local/cuda*/include"))]]
    include = [place.parent for place in places
               if place.exists() and (place.parent / "cuda_runtime.h").exists()]
    if not include:
        print("NCCL: LEFT OUT, there is no nccl.h with a CUDA toolkit here")
        return False
    for compiler, standard, suffix in zip(compilers, ("-std=c11", "-std=c++11"), ("c", "cpp")):
        source = folder / f"nccl.{suffix}"
        source.write_text('#include "gradreg_nccl.h"\n'
                          "int ranks(gradreg_regularizer_params *p, ncclComm_t *c);\n"
                          "int ranks(gradreg_regularizer_params *p, ncclComm_t *c)\n"
                          "{\n    return (int)gradreg_nccl_ranks(p, c);\n}\n", encoding="utf-8")
        run([*compiler.split(), standard, *STRICT, "-c", f"-I{root / 'include'}",
             f"-I{root / 'examples/ranks'}", "-isystem", include[0], source, "-o",
             folder / "nccl.o"])
        print(f"NCCL, {standard}: compiles with {include[0]}/nccl.h")
    return True


def main():
    root, library, *compilers = sys.argv[1:]
    root, library = Path(root), Path(library).resolve()
    with tempfile.TemporaryDirectory() as folder:
        done = [check_mpi(root, library, Path(folder)), check_nccl(root, Path(folder), compilers)]
    return 0 if any(done) else SKIPPED


sys.exit(main())
