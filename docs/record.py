#!/usr/bin/env python3
"""Put a recorded output into a page.  usage: record.py PAGE COMMAND OUTPUT_FILE

Every block of plain text (```) or table of the page that follows a comment

    <!-- recorded: COMMAND #N -->

becomes the N-th paragraph of the output (1 is the first), or all of it without #N. This is for what
takes too long, or needs too much, to be computed with every build; docs/refresh.py does the rest.
"""
import re
import sys
from pathlib import Path


def main():
    page, command, output = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    text = page.read_text(encoding="utf-8")
    whole = output.read_text(encoding="utf-8").strip("\n")
    paragraphs = re.split(r"\n\n+", whole)

    def block(match):
        part = paragraphs[int(match["part"]) - 1] if match["part"] else whole
        return match["mark"] + (part + "\n" if match["table"] else f"```\n{part}\n```\n")
    pattern = re.compile(rf"(?P<mark><!-- recorded: {re.escape(command)}(?: #(?P<part>\d+))? -->\n)"
                         r"(?:```\n.*?^```\n|(?P<table>(?:^\|[^\n]*\n)+))", re.S | re.M)
    new, count = pattern.subn(block, text)
    if count == 0:
        sys.exit(f"{page} has no block recorded from {command}")
    page.write_text(new, encoding="utf-8")
    print(f"{page}: {count} blocks")


main()
