#!/usr/bin/env python3
"""The public header in every language standard it promises, with every warning an error.

usage: check_header.py HEADER c|c++ COMPILER...

The program that is compiled includes the header twice, makes one of each struct with its
GRADREG_..._INIT macro and takes the address of each function.
"""
import re
import subprocess
import sys
from pathlib import Path

STANDARDS = {"c": ["c99", "c11", "c2x"], "c++": ["c++98", "c++11", "c++20"]}
WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-pedantic-errors", "-Wundef", "-Werror",
            "-Wconversion", "-Wsign-conversion"]
# No -Wshadow for C++: g++ finds that gradreg_context_info() hides its struct's constructor.
ONLY_C = ["-Wshadow", "-Wstrict-prototypes", "-Wmissing-prototypes", "-Wold-style-definition",
          "-Wc++-compat"]


def program(text):
    """The C program, and the structs that lack a macro or a function of the pair."""
    functions = re.findall(r"^GRADREG_API\b[^;{]*?\b(gradreg_\w+)\s*\(", text, re.M)
    macros = re.findall(r"^#define (GRADREG_\w+)_INIT\b", text, re.M)
    structs = re.findall(r"^(typedef )?struct (gradreg_\w+) \{", text, re.M)
    lines, lacking = ['#include "gradreg.h"', '#include "gradreg.h"', "int main(void)", "{",
                      "    size_t used = 0;"], []
    for typedef, name in structs:
        macro = name.upper()
        if macro not in macros or name + "_init" not in functions:
            lacking.append(f"{name}: no {macro}_INIT or no {name}_init()")
            continue
        full = name if typedef else "struct " + name
        lines.append(f"    {{ {full} made = {macro}_INIT; used += sizeof(made); (void)made; }}")
    for name in functions:
        lines.append(f"    used += &{name} != 0;")
    return "\n".join(lines + ["    return used == 0;", "}", ""]), lacking


def main():
    header, language, *compiler = sys.argv[1:]
    source, lacking = program(re.sub(r"/\*.*?\*/", " ", Path(header).read_text(encoding="utf-8"),
                                     flags=re.S))
    failed = list(lacking)
    warnings = WARNINGS + (ONLY_C if language == "c" else [])
    for standard in STANDARDS[language]:
        command = [*compiler, f"-std={standard}", *warnings,
                   "-Wno-address", "-fsyntax-only", f"-I{Path(header).parent}", "-x", language, "-"]
        if subprocess.run(command, input=source, text=True, check=False).returncode != 0:
            failed.append(standard)
    print(f"{compiler[0]}: {', '.join(STANDARDS[language])}")
    for failure in failed:
        print(f"failed: {failure}")
    return bool(failed)


sys.exit(main())
