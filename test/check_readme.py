#!/usr/bin/env python3
"""The README shows the example that is compiled and run, to the letter.

usage: check_readme.py SOURCE_ROOT

Every block of C or Python in README.md and docs/*.md that follows a comment <!-- example: PATH -->
must be the text of that file, or of the part between the lines `/* [NAME] */` and `/* [end] */`
(Python: `# [NAME]` and `# [end]`) when the comment says PATH#NAME. A block without such a comment
fails in README.md, a block of Python everywhere: nobody runs it.
"""
import difflib
import re
import sys
import textwrap
from pathlib import Path

BLOCK = re.compile(r"(?:<!-- *example: *(?P<path>[^#\s]+)(?:#(?P<part>[\w-]+))? *-->[ \t]*\n\s*)?"
                   r"^```(?P<language>c|python)\n(?P<text>.*?)^```", re.S | re.M)


def source_text(root, path, part):
    text = (root / path).read_text(encoding="utf-8")
    if part is None:
        return text
    mark = r"^[ \t]*(?:/\*|#) \[{}\](?: \*/)?\n"
    match = re.search(mark.format(part) + "(.*?)" + mark.format("end"), text, re.S | re.M)
    if match is None:
        sys.exit(f"{path} has no part [{part}]")
    return textwrap.dedent(match[1])


def check_page(root, page, strict):
    shown, wrong = 0, 0
    text = page.read_text(encoding="utf-8")
    for block in BLOCK.finditer(text):
        where = f"{page.name}:{text.count(chr(10), 0, block.start('text'))}"
        if block["path"] is None:
            if strict or block["language"] == "python":
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
    root = Path(sys.argv[1])
    shown, wrong = check_page(root, root / "README.md", True)
    if shown == 0:
        print("README.md shows no example")
        wrong += 1
    for page in sorted((root / "docs").glob("*.md")):
        more, bad = check_page(root, page, False)
        shown, wrong = shown + more, wrong + bad
    print(f"{shown} examples shown, {wrong} wrong")
    return bool(wrong)


sys.exit(main())
