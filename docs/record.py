#!/usr/bin/env python3
"""Put a recorded output into a page.  usage: record.py PAGE COMMAND OUTPUT_FILE

The page has a line <!-- recorded: COMMAND -->, and the block of plain text after it becomes the
output. For what is too long, or needs too much, to be computed on every build (docs/refresh.py does
the rest).
"""
import re
import sys
from pathlib import Path


def main():
    page, command, output = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    text = page.read_text(encoding="utf-8")
    pattern = re.compile(rf"(<!-- recorded: {re.escape(command)} -->\n)```\n.*?^```$", re.S | re.M)
    body = output.read_text(encoding="utf-8").strip("\n")
    new, count = pattern.subn(lambda match: f"{match[1]}```\n{body}\n```", text)
    if count != 1:
        sys.exit(f"{page} has {count} blocks recorded from {command}")
    page.write_text(new, encoding="utf-8")
    print(f"{page}: written")


main()
