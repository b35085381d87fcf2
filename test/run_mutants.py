#!/usr/bin/env python3
"""Seeded faults: each patch in test/mutants/ breaks the library on purpose, and the suites that it
names must then fail.  A patch that survives shows a hole in the tests.

usage: run_mutants.py SOURCE_ROOT [--meson MESON] [--jobs N] [--budget SECONDS] [NAME...]

The first line of a patch names the tests that must catch it:  # kills: TEST [TEST...]
The tree is copied once per job and built only as far as tests and patches reach. Patches that the
budget leaves no time for are counted as skipped; where the round starts depends on what the library
says, so that each change tries others. Ends with `mutants: N passed, N failed, N skipped`.
"""
import argparse
import json
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from pathlib import Path

IGNORED = shutil.ignore_patterns(".git", "build", "build-*", "__pycache__", "shared")
# Quick to compile; kernels keep the inlining that makes them quick enough to test.
OPTIONS = ["-Doptimization=1", "-Ddebug=false", "-Dexamples=false", "-Dbenchmarks=false",
           "-Ddocs=disabled", "-Dcuda=disabled", "-Dtests=enabled"]


def test_name(result):
    """NAME of "project:suite / NAME" (meson 1.0) or "suite - project:NAME" (later)."""
    return re.split(r" / |:", result["name"])[-1]


class Mutant:
    def __init__(self, path):
        self.path, self.name = path, path.stem
        text = path.read_text(encoding="utf-8")
        first = re.match(r"# kills: *(\S.*)\n", text)
        self.tests = first[1].split() if first else []
        self.files = sorted(set(re.findall(r"^\+\+\+ b/(\S+)", text, re.M)))
        self.verdict, self.detail, self.seconds = "skipped", "", 0.0

    def settle(self, verdict, detail, seconds):
        self.verdict, self.detail, self.seconds = verdict, detail, seconds


class Tree:
    """A copy of the project with a build folder, in which one patch at a time is tried."""

    def __init__(self, original, folder, meson):
        self.original, self.source, self.build = original, folder / "source", folder / "build"
        self.meson, self.green, self.limits = meson, {}, {}
        shutil.copytree(original, self.source, ignore=IGNORED, symlinks=True)
        self.call([meson, "setup", self.build, self.source, *OPTIONS], must=True)

    def call(self, command, must=False, **more):
        done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              check=False, **more)
        if must and done.returncode != 0:
            raise RuntimeError(f"{' '.join(map(str, command))}\n{done.stdout[-4000:]}")
        return done

    def test(self, names, patience=()):
        """The failing ones of these tests, or None when they could not be built."""
        log = self.build / "meson-logs" / "mutant.json"
        log.unlink(missing_ok=True)
        done = self.call([self.meson, "test", "-C", self.build, "--logbase", "mutant",
                          *patience, *names])
        if not log.exists():
            self.output = done.stdout
            return None
        results = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
        if not results:
            raise RuntimeError(f"no test is named {' '.join(names)}")
        self.output = "\n".join((r.get("stdout") or "")[-2000:] for r in results)
        self.seconds = {test_name(r): r["duration"] for r in results}
        return [test_name(r) for r in results
                if r["result"] in ("FAIL", "TIMEOUT", "ERROR", "INTERRUPT", "UNEXPECTEDPASS")]

    def see_green(self, names):
        """Without a fault these tests have to pass. They are built only now: a round that ends early
        need not build the others."""
        names = [name for name in names if name not in self.green]
        if not names:
            return
        failing = self.test(names)
        if failing is None or failing:
            raise RuntimeError(f"before any fault is seeded: {failing or 'the build'} fails\n"
                               f"{self.output[-4000:]}")
        self.green.update(self.seconds)

    def patience(self, names):
        """Let a test take five times as long as without a fault, and half a minute: a fault that
        makes it hang is found then, and not after the test's own, more generous limit."""
        if not self.limits:
            listed = json.loads(self.call([self.meson, "introspect", "--tests",
                                           self.build]).stdout)
            self.limits = {test["name"]: test["timeout"] for test in listed}
        factor = max((5 * self.green[name] + 30) / self.limits[name] for name in names)
        return ["-t", f"{factor:.2f}"]

    def restore(self, files):
        for name in files:
            # Not copy2: the new time stamp makes ninja rebuild what the patch had reached.
            shutil.copyfile(self.original / name, self.source / name)

    def try_mutant(self, mutant):
        start = time.monotonic()
        if not mutant.tests or not mutant.files:
            return mutant.settle("failed", "no '# kills: TEST' line, or no file", 0.0)
        missing = [name for name in mutant.files if not (self.source / name).exists()]
        if missing:
            return mutant.settle("failed", f"no file {missing[0]}", 0.0)
        self.see_green(mutant.tests)
        start = time.monotonic()
        try:
            patched = self.call(["patch", "-p1", "-s", "-N", "--no-backup-if-mismatch", "-r", "-",
                                 "-i", mutant.path.resolve()], cwd=self.source)
            if patched.returncode != 0:
                return mutant.settle("failed", "does not apply", 0.0)
            failing = self.test(mutant.tests, self.patience(mutant.tests))
        finally:
            self.restore(mutant.files)
        seconds = time.monotonic() - start
        if failing is None:
            error = re.search(r".*error.*", self.output)
            mutant.settle("failed", f"does not build: {error[0] if error else ''}", seconds)
        elif failing:
            mutant.settle("passed", "caught by " + ", ".join(failing), seconds)
        else:
            mutant.settle("failed", "SURVIVED " + ", ".join(mutant.tests), seconds)


def work(tree, todo, deadline, broken):
    try:
        while time.monotonic() < deadline:
            tree.try_mutant(todo.get_nowait())
    except queue.Empty:
        pass
    except Exception as error:  # a thread must not take the others' results with it
        broken.append(error)


def start_trees(options, folder, mutants):
    """As many trees as jobs."""
    count = max(1, min(options.jobs, (len(mutants) + 3) // 4))
    trees = [Tree(options.root, Path(folder) / str(index), options.meson) for index in range(count)]
    print(f"{len(mutants)} mutants, {count} trees")
    return trees


def start_of_round(root, count):
    checksum = 0
    for path in sorted((root / "lib").rglob("*.[ch]*")):
        checksum = zlib.crc32(path.read_bytes(), checksum)
    return checksum % count


def report(mutants):
    width = max(len(mutant.name) for mutant in mutants)
    for mutant in mutants:
        print(f"  {mutant.verdict:8}{mutant.name:{width}}  {mutant.seconds:6.1f} s  {mutant.detail}")
    count = {verdict: sum(mutant.verdict == verdict for mutant in mutants)
             for verdict in ("passed", "failed", "skipped")}
    if count["skipped"]:
        print("TIME RAN OUT before all mutants were tried")
    print("mutants: " + ", ".join(f"{number} {verdict}" for verdict, number in count.items()))
    return count["failed"] > 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("root", type=lambda path: Path(path).resolve())
    parser.add_argument("names", nargs="*")
    parser.add_argument("--meson", default="meson")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--budget", type=float, default=900.0)
    options = parser.parse_intermixed_args()
    deadline = time.monotonic() + options.budget
    mutants = [Mutant(path) for path in sorted((options.root / "test/mutants").glob("*.patch"))
               if not options.names or path.stem in options.names]
    if not mutants:
        sys.exit("test/mutants has no such patch")
    first = start_of_round(options.root, len(mutants))
    mutants = mutants[first:] + mutants[:first]
    todo, broken = queue.Queue(), []
    for mutant in mutants:
        todo.put(mutant)
    with tempfile.TemporaryDirectory(prefix="gradreg-mutants-") as folder:
        trees = start_trees(options, folder, mutants)
        workers = [threading.Thread(target=work, args=(tree, todo, deadline, broken))
                   for tree in trees]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    for error in broken:
        print(f"error: {error}")
    return report(mutants) or bool(broken)


sys.exit(main())
