#!/usr/bin/env python3
"""Doxygen input filter: what the header says in its own way, in Doxygen's.

The header is written to be read as it is. For the reference
 - the comment at its head, with the rules that hold for every entry, becomes the main page,
 - the sections ("/* ==== context */") become groups,
 - "Label:  text" in a comment becomes a paragraph of its own (alias @label of the Doxyfile),
 - "typedef int32_t name; enum {" becomes the enumeration "name", so that its constants and the
   places where it is used find each other,
 - " .. " becomes an ellipsis, because a full stop ends the summary of an entry.
Line numbers stay the same.
"""
import re
import sys

LABELS = "Returns|Out|InOut|In|Values|Stream|Threads|Since|Source|Numerics"
COMMENT = re.compile(r"/\*\*.*?\*/", re.S)
DOC_COMMENT = re.compile(r"/\*\*(?!<).*?\*/", re.S)
LABEL = re.compile(rf"((?:^ \*|[.;)])[ \t]+)({LABELS}):[ \t]+", re.M)
SECTION = re.compile(r"^/\* =+ ([\w -]+) \*/$", re.M)
ENUMERATION = re.compile(r"^typedef int32_t (\w+);\n((?:[ \t]*\n)*)enum \{", re.M)
HEAD = re.compile(r"\A/\* gradreg\.h - (?P<title>[^\n.]*)\.\n \* SPDX[^\n]*\n(?P<rest>.*?\*/)",
                  re.S)


# Ends of names ("_terms", "_state_*"), which would be taken for emphasis.
SUFFIX = re.compile(r"(?<![\w`])(_\w+\*?)")


def group(section):
    """A section's name as an identifier."""
    return re.sub(r"\W", "_", section)


def with_main_page(text):
    links = ", ".join(f'@ref {group(name)} "{name}"' for name in SECTION.findall(text))

    def page(match):
        rest = SUFFIX.sub(r"`\1`", match["rest"])
        return (f"/** @mainpage {match['title'].capitalize()}\n"
                f" * The sections: {links}. Enumerations are `int32_t`.\n{rest}")
    return HEAD.sub(page, text, count=1)


def with_groups(text):
    names = SECTION.findall(text)

    def opened(match):
        before = "/** @} */ " if match[1] != names[0] else ""
        return f"{before}/** @defgroup {group(match[1])} {match[1].capitalize()} */ /** @{{ */"
    closed = SECTION.sub(opened, text)
    return re.sub(r"(#endif /\* GRADREG_H \*/)", r"\1 /** @} */", closed) if names else closed


def in_doxygens_way(text):
    text = COMMENT.sub(lambda match: match[0].replace(" .. ", " … "), text)
    text = DOC_COMMENT.sub(lambda match: LABEL.sub(r"\1@label{\2} ", match[0]), text)
    text = ENUMERATION.sub(r"enum \1\n\2{", text)
    return with_groups(with_main_page(text))


with open(sys.argv[1], encoding="utf-8") as header:
    sys.stdout.reconfigure(encoding="utf-8")
    sys.stdout.write(in_doxygens_way(header.read()))
