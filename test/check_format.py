#!/usr/bin/env python3
"""Sources are formatted by clang-format 14.  usage: check_format.py SOURCE_ROOT CLANG_FORMAT

include/gradreg.h is laid out by hand: its columns of comments are read as tables. Generated files
are left as they are. `tools/format` repairs what this test finds.
"""
import subprocess
import sys
from pathlib import Path

FOLDERS = ("lib", "test", "examples", "docs")
GENERATED = ("test/abi/",)


def sources(root):
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*")):
            name = path.relative_to(root).as_posix()
            if path.suffix in (".c", ".h", ".cu", ".cuh", ".cpp", ".hpp") and \
                    not name.startswith(GENERATED):
                yield path


def formatted(tool, path):
    return subprocess.run([tool, "--style=file", str(path)], capture_output=True, text=True,
                          check=True).stdout


def main():
    root, tool, *fix = Path(sys.argv[1]), *sys.argv[2:]
    version = subprocess.run([tool, "--version"], capture_output=True, text=True,
                             check=True).stdout
    if "version 14." not in version:
        print(f"layout differs between versions, and this is {version.strip()}")
        return 77
    files = list(sources(root))
    if fix == ["--fix"]:
        return subprocess.run([tool, "--style=file", "-i", *map(str, files)],
                              check=False).returncode
    badly = [path for path in files if formatted(tool, path) != path.read_text(encoding="utf-8")]
    for path in badly:
        print(f"{path.relative_to(root)}: not as clang-format 14 lays it out (tools/format)")
    print(f"{len(files)} files, {len(badly)} to format")
    return bool(badly) or not files


sys.exit(main())
