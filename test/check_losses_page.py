#!/usr/bin/env python3
"""The table of docs/losses.md is what the presets are.  usage: check_losses_page.py PAGE PROGRAM

Fails when the table after "<!-- output: presets -->" differs from what PROGRAM prints, when a preset
is not explained in the rest of the page, or when PROGRAM accepts an unknown name.
"""
import re
import subprocess
import sys
from pathlib import Path


def main():
    page, program = Path(sys.argv[1]).read_text(encoding="utf-8"), sys.argv[2]
    printed = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    shown = re.search(r"<!-- output: presets -->\n\n((?:\|.*\n)+)", page)
    problems = []
    if shown is None or shown[1] != printed:
        problems.append("the table is not what examples/presets prints: put that there")
    rest = page.replace(shown[1], "") if shown else page
    names = re.findall(r"^\| `([^`]+)`", printed, re.M)
    problems += [f"{name} is not explained" for name in names
                 if not re.search(rf"`{re.escape(name)}`", rest)]
    refused = subprocess.run([program, "no such loss"], capture_output=True, text=True, check=False)
    if refused.returncode == 0 or "no such loss" not in refused.stderr:
        problems.append("an unknown name is not refused")
    if subprocess.run([program, names[0]], capture_output=True, check=False).returncode != 0:
        problems.append(f"{names[0]} is refused")
    for problem in problems:
        print(f"docs/losses.md: {problem}")
    print(f"{len(names)} presets, {len(problems)} problems")
    return bool(problems)


sys.exit(main())
