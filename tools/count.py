#!/usr/bin/env python3
"""Sum test results.  usage: count.py [TESTLOG_JSON | MUTANTS_OUTPUT]...

A Check program counts each of its checks; a test that prints no such line counts as one. A program
that failed although all its checks passed (a leak, a crash at exit) is one failure more. Prints one
line, `N passed, N failed, N skipped`, and exits with 1 if anything failed or nothing ran.

What failed goes to stderr before that: each test's name, how it ended, its failed checks and the
end of what it printed. Often nothing but the end of a log is kept.
"""
import json
import re
import sys
from pathlib import Path

CHECKS = re.compile(r"^\d+%: Checks: (\d+), Failures: (\d+), Errors: (\d+)", re.M)
FAILED_CHECK = re.compile(r"^\S+:\d+:[FE]:.*", re.M)
MUTANTS = re.compile(r"^mutants: (\d+) passed, (\d+) failed, (\d+) skipped$", re.M)
FAILED_MUTANT = re.compile(r"^(?:  failed .*|error: .*|before any fault .*)", re.M)
LINES = 20  # of each test's output
TESTS = 12  # whose output is shown; the others are named


def count_test(result, output):
    """(passed, failed, skipped) of one program."""
    if result == "SKIP":
        return 0, 0, 1
    good = result in ("OK", "EXPECTEDFAIL")
    closing = [tuple(map(int, line)) for line in CHECKS.findall(output)]
    if not closing:
        return (1, 0, 0) if good else (0, 1, 0)
    failed = sum(failures + errors for _, failures, errors in closing)
    passed = sum(checks for checks, _, _ in closing) - failed
    return passed, failed if good or failed else 1, 0


def last_lines(text):
    return text.rstrip("\n").split("\n")[-LINES:] if text.strip() else []


def describe(suite, test):
    """(one line, what it printed) of a test that failed."""
    stdout, stderr = test.get("stdout") or "", test.get("stderr") or ""
    title = (f"{suite}: {test['name']}: {test['result']}, exit status {test.get('returncode')}, "
             f"{test.get('duration', 0):.1f} s")
    perturbed = (test.get("env") or {}).get("MALLOC_PERTURB_")
    if perturbed:
        title += f", MALLOC_PERTURB_={perturbed}"
    checks = FAILED_CHECK.findall(stdout)[:LINES]
    return title, [*(checks or last_lines(stdout)), *last_lines(stderr)]


def read_tests(path, text):
    """Counts and failures of one run of the tests; its folder's folder is the suite's."""
    suite, counts, failures = Path(path).parent.parent.name, [], []
    for line in text.splitlines():
        test = json.loads(line)
        counts.append(count_test(test["result"], test.get("stdout") or ""))
        if counts[-1][1] > 0:
            failures.append(describe(suite, test))
    return counts, failures


def read_file(path):
    if not Path(path).exists():
        return [(0, 1, 0)], [(f"no results: {path}", [])]
    text = Path(path).read_text(encoding="utf-8", errors="replace")
    if path.endswith(".json"):
        return read_tests(path, text)
    counts = [tuple(map(int, line)) for line in MUTANTS.findall(text)] or [(0, 1, 0)]
    if counts[0][1] == 0:
        return counts, []
    return counts, [("seeded faults", FAILED_MUTANT.findall(text) or last_lines(text))]


def report(failures):
    for number, (title, lines) in enumerate(failures):
        print(f"FAILED {title}", file=sys.stderr)
        for line in lines if number < TESTS else []:
            print(f"    {line[:300]}", file=sys.stderr)


def main():
    files = [read_file(path) for path in sys.argv[1:]]
    counts = [count for counted, _ in files for count in counted]
    report([failure for _, failed in files for failure in failed])
    passed, failed, skipped = (sum(column) for column in zip(*counts)) if counts else (0, 0, 0)
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return failed > 0 or passed == 0


if __name__ == "__main__":
    sys.exit(main())
