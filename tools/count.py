#!/usr/bin/env python3
"""Sum test results.  usage: count.py [TESTLOG_JSON | MUTANTS_OUTPUT]...

A Check program counts each of its checks; a test that prints no such line counts as one. A program
that failed although all its checks passed (a leak, a crash at exit) is one failure more. Prints one
line, `N passed, N failed, N skipped`, and exits with 1 if anything failed or nothing ran.
"""
import json
import re
import sys
from pathlib import Path

CHECKS = re.compile(r"^\d+%: Checks: (\d+), Failures: (\d+), Errors: (\d+)", re.M)
MUTANTS = re.compile(r"^mutants: (\d+) passed, (\d+) failed, (\d+) skipped$", re.M)


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


def count_file(path):
    if not Path(path).exists():
        print(f"no results: {path}", file=sys.stderr)
        return [(0, 1, 0)]
    text = Path(path).read_text(encoding="utf-8", errors="replace")
    if path.endswith(".json"):
        tests = [json.loads(line) for line in text.splitlines()]
        return [count_test(test["result"], test.get("stdout") or "") for test in tests]
    return [tuple(map(int, line)) for line in MUTANTS.findall(text)] or [(0, 1, 0)]


def main():
    counts = [count for path in sys.argv[1:] for count in count_file(path)]
    passed, failed, skipped = (sum(column) for column in zip(*counts)) if counts else (0, 0, 0)
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return failed > 0 or passed == 0


sys.exit(main())
