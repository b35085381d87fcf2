#!/usr/bin/env python3
"""Who may include whom in the library.  usage: check_includes.py SOURCE_ROOT

A file includes what its group's row allows and the files of its own stage, so no stage knows
another.  A file that is in no group fails too: place it here first.
"""
import re
import sys
from pathlib import Path

# group: (stems of its files, groups that it may include)
GROUPS = {
    "public": (r"gradreg", []),
    "formulas": (r"element|types|reduce|random|policy_math|logits_math|probe_math|advantage_math", ["public", "formulas"]),
    "plumbing": (r"status|params|context|threads|fpenv|device|ranges|hash|order|overlap", ["public", "plumbing"]),
    "pure": (r"layers|schedule", ["public", "formulas", "plumbing"]),
    # What a step of the regularizer is: decided by the front, read by every backend.
    "step": (r"options|table(_\w+)?|step(_data|_second)?|terms|policy_data|policy_row|logits_data|logits_check|linear_data|probe_data", ["public", "formulas", "plumbing", "pure", "step"]),
    "backend": (r"backend|module", ["public", "formulas", "plumbing", "step", "backend"]),
    "stage": (None, ["public", "formulas", "plumbing", "pure", "step", "backend"]),
}
# stage: stems of its files. They may include each other, and no other stage's.
STAGES = {
    "regularizer": r"regularizer(_\w+)?",
    "policy": r"policy(_\w+)?|advantages",
    "logprobs": r"logprobs(_\w+)?|linear",
    "probe": r"probe(_\w+)?",
    "monitors": r"monitors(_\w+)?",
}
# The two looks into the CPU's directory: the context chooses the vector path when it opens, and one
# line names the backend. lib/cuda is a module of its own, which nobody includes.
EXCEPTIONS = {
    ("lib/context.h", "cpu/cpu_features.h"),
    ("lib/backend.c", "cpu/cpu_backend.h"),
}
# Built on request, for profilers.
NVTX_FILE = "lib/ranges.c"
# A backend's directory sees what every backend sees, and its own files.
BACKEND_DIRECTORIES = {"cpu", "cuda"}
BACKEND_SEES = ["public", "formulas", "plumbing", "step", "backend"]
# Headers of the CUDA toolkit and its libraries.
CUDA = re.compile(r"(cuda|cublas|cub/|thrust/|curand|nccl|nvrtc|nvtx|nv/|cooperative_groups|"
                  r"device_launch|device_functions|mma\.h|vector_types)")
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"]+)[>"]', re.M)


def includes(path):
    text = re.sub(r"/\*.*?\*/", lambda m: re.sub(r"[^\n]", " ", m[0]),
                  path.read_text(encoding="utf-8"), flags=re.S)
    return [(text.count("\n", 0, m.start()) + 1, m[1] == '"', m[2])
            for m in INCLUDE.finditer(text)]


def group_of(stem):
    for name, (stems, _) in GROUPS.items():
        if stems and re.fullmatch(stems, stem):
            return name
    return "stage" if stage_of(stem) else None


def stage_of(stem):
    return next((name for name, stems in STAGES.items() if re.fullmatch(stems, stem)), None)


class Checker:
    def __init__(self, root):
        self.root, self.problems, self.checked = root, [], 0

    def fail(self, path, line, sentence):
        self.problems.append(f"{path.relative_to(self.root)}:{line}: {sentence}")

    def front_file(self, path):
        """A file directly in lib/ (or the public header)."""
        group = group_of(path.stem)
        if group is None:
            return self.fail(path, 1, "is in no group of test/check_includes.py")
        for line, name in self.project_includes(path):
            target = Path(name)
            other = group_of(target.stem)
            if (path.relative_to(self.root).as_posix(), name) in EXCEPTIONS or \
                    target.stem == path.stem:
                continue
            if len(target.parts) > 1:
                self.fail(path, line, f"includes {name}: lib/ must not reach into a directory")
            elif group == other == "stage":
                if stage_of(target.stem) != stage_of(path.stem):
                    self.fail(path, line, f"stage {stage_of(path.stem)} includes {name}, which is"
                                          f" of stage {stage_of(target.stem)}")
            elif other not in GROUPS[group][1]:
                self.fail(path, line, f"{group} file includes {name} ({other or 'no group'})")

    def backend_file(self, path, directory):
        own = {p.name for p in (self.root / "lib" / directory).iterdir()}
        for line, name in self.project_includes(path):
            target = Path(name)
            if target.name in own and target.parts[:-1] in ((), (directory,)):
                continue
            if group_of(target.stem) not in BACKEND_SEES or len(target.parts) > 1 and \
                    target.parts[:-1] != ("..",):
                self.fail(path, line, f"backend {directory} includes {name}")

    def project_includes(self, path):
        """The quoted includes, after a look at the others."""
        in_cuda = path.parent.name == "cuda"
        own = {p.name for p in (self.root / "lib").rglob("*.*h")}
        for line, quoted, name in includes(path):
            foreign = not (quoted and Path(name).name in own)
            ranges = path.relative_to(self.root).as_posix() == NVTX_FILE and name.startswith("nvtx3/")
            if foreign and CUDA.match(name) and not in_cuda and not ranges:
                self.fail(path, line, f"only lib/cuda includes CUDA headers: {name}")
            elif quoted:
                yield line, name

    def library(self):
        for path in sorted((self.root / "lib").rglob("*")):
            if path.suffix not in (".c", ".h", ".cu", ".cuh"):
                continue
            self.checked += 1
            directory = path.parent.name
            if path.parent == self.root / "lib":
                self.front_file(path)
            elif directory in BACKEND_DIRECTORIES:
                self.backend_file(path, directory)
            else:
                self.fail(path, 1, "lib/ has only the directories of backends")

    def public_header(self):
        path = self.root / "include" / "gradreg.h"
        self.checked += 1
        for line, _, name in includes(path):
            if name not in ("stddef.h", "stdint.h"):
                self.fail(path, line, f"the public header includes {name}")

    def oracle(self):
        """The reference shares nothing with the library, through no header either."""
        seen, todo = set(), sorted((self.root / "test").glob("oracle*.[ch]"))
        if not todo:
            self.problems.append("test/oracle.c is missing")
        while todo:
            path = todo.pop()
            if path in seen:
                continue
            seen.add(path)
            self.checked += 1
            for line, quoted, name in includes(path):
                if not quoted:
                    continue
                near = (path.parent / name).resolve()
                if near.exists() and near.is_relative_to((self.root / "test").resolve()):
                    todo.append(near)
                elif name != "gradreg.h":
                    self.fail(path, line, f"the oracle includes {name}, which is not in test/")


def main():
    checker = Checker(Path(sys.argv[1]).resolve())
    checker.public_header()
    checker.library()
    checker.oracle()
    for problem in checker.problems:
        print(problem)
    print(f"{checker.checked} files, {len(checker.problems)} forbidden includes")
    return bool(checker.problems)


sys.exit(main())
