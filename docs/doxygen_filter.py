#!/usr/bin/env python3
"""Doxygen input filter: the header's "Label:  text" become paragraphs of their own.

The header is written to be read as it is ("Stream:   none.  Threads: any.  Since: 0.1"); the alias
@label of the Doxyfile makes a heading of each label.  Line numbers stay the same.
"""
import re
import sys

LABELS = "Returns|Out|InOut|In|Values|Stream|Threads|Since|Source|Numerics"
DOC_COMMENT = re.compile(r"/\*\*(?!<).*?\*/", re.S)
LABEL = re.compile(rf"((?:^ \*|[.;)])[ \t]+)({LABELS}):[ \t]+", re.M)


def with_headings(comment):
    return LABEL.sub(r"\1@label{\2} ", comment)


with open(sys.argv[1], encoding="utf-8") as header:
    sys.stdout.write(DOC_COMMENT.sub(lambda match: with_headings(match[0]), header.read()))
