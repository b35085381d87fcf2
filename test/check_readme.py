#!/usr/bin/env python3
"""The pages show the examples that are compiled and run, to the letter.

usage: check_readme.py [--write] SOURCE_ROOT

Every block of code in README.md and docs/*.md must follow a comment <!-- example: PATH --> and be the
text of that file, or of the part between the lines `/* [NAME] */` and `/* [end] */` (Python, CMake,
meson: `# [NAME]` and `# [end]`; Rust: `// [NAME]` and `// [end]`) when the comment says PATH#NAME. A
block without such a comment fails: nobody runs it. --write puts the files' text into the pages.
"""
import difflib
import re
import sys
import textwrap
from pathlib import Path

BLOCK = re.compile(r"(?:<!-- *example: *(?P<path>[^#\s]+)(?:#(?P<part>[\w-]+))? *-->[ \t]*\n\s*)?"
                   r"^```(?P<language>c|cpp|rust|python|cmake|meson)\n(?P<text>.*?)^```", re.S | re.M)


def source_text(root, path, part):
    text = (root / path).read_text(encoding="utf-8")
    if part is None:
        return text
    mark = r"^[ \t]*(?:/\*|#|//) \[{}\](?: \*/)?\n"
    match = re.search(mark.format(part) + "(.*?)" + mark.format("end"), text, re.S | re.M)
    if match is None:
        sys.exit(f"{path} has no part [{part}]")
    return textwrap.dedent(match[1])


def write_page(root, page):
    def block(match):
        if match["path"] is None:
            return match[0]
        begin, end = (match.span("text")[i] - match.start() for i in (0, 1))
        return (match[0][:begin] + source_text(root, match["path"], match["part"]) +
                match[0][end:])
    text = page.read_text(encoding="utf-8")
    page.write_text(BLOCK.sub(block, text), encoding="utf-8")


def check_page(root, page):
    shown, wrong = 0, 0
    text = page.read_text(encoding="utf-8")
    for block in BLOCK.finditer(text):
        where = f"{page.name}:{text.count(chr(10), 0, block.start('text'))}"
        if block["path"] is None:
            wrong += 1
            print(f"{where}: a block of {block['language']} that no example is behind")
            continue
        shown += 1
        want = source_text(root, block["path"], block["part"])
        if block["text"] != want:
            wrong += 1
            print(f"{where}: differs from {block['path']}")
            print("\n".join(difflib.unified_diff(want.splitlines(), block["text"].splitlines(),
                                                 block["path"], page.name, lineterm="")))
    return shown, wrong


def main():
    write = sys.argv[1] == "--write"
    root = Path(sys.argv[-1])
    shown, wrong = 0, 0
    for page in [root / "README.md", *sorted((root / "docs").glob("*.md"))]:
        if write:
            write_page(root, page)
        more, bad = check_page(root, page)
        shown, wrong = shown + more, wrong + bad
        if page.name == "README.md" and more == 0:
            print("README.md shows no example")
            wrong += 1
    print(f"{shown} examples shown, {wrong} wrong")
    return bool(wrong)


sys.exit(main())
