#!/usr/bin/env python3
"""Exported symbols == GRADREG_API declarations == lines of the linker map.

usage: check_symbols.py LIBRARY HEADER MAP        compare
       check_symbols.py --write HEADER MAP        write the map, in the header's order
"""
import re
import subprocess
import sys
from pathlib import Path


def without_comments(path):
    return re.sub(r"/\*.*?\*/", " ", Path(path).read_text(encoding="utf-8"), flags=re.S)


def declared(header):
    return re.findall(r"^GRADREG_API\b[^;{]*?\b(gradreg_\w+)\s*\(", without_comments(header), re.M)


def mapped(path):
    text = without_comments(path)
    if "*" in text.split("local:")[0]:
        sys.exit(f"{path}: a wildcard exports what nobody decided to export")
    return re.findall(r"\b(gradreg_\w+)\s*;", text)


def exported(library):
    nm = subprocess.run(["nm", "-D", "--defined-only", library], capture_output=True, text=True,
                        check=True)
    lines = [line.split() for line in nm.stdout.splitlines()]
    return [parts[-1].split("@")[0] for parts in lines if parts[-2] != "A"]


def write(header, path):
    names = "".join(f"        {name};\n" for name in declared(header))
    Path(path).write_text(
        "/* Exported names, in the header's order: test/check_symbols.py --write include/gradreg.h"
        f" lib/gradreg.map */\nGRADREG_0 {{\n    global:\n{names}    local:\n        *;\n}};\n",
        encoding="utf-8")


def compare(library, header, path):
    want, have, allowed = set(declared(header)), set(exported(library)), set(mapped(path))
    problems = {
        "exported, not declared": have - want,
        "declared, not exported": want - have,
        "declared, not in the map": want - allowed,
        "in the map, not declared": allowed - want,
    }
    for title, names in problems.items():
        if names:
            print(f"{title}: {', '.join(sorted(names))}")
    print(f"{len(have)} exported symbols")
    return not want or any(problems.values())


if sys.argv[1] == "--write":
    write(*sys.argv[2:])
else:
    sys.exit(compare(*sys.argv[1:]))
