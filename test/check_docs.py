#!/usr/bin/env python3
"""Every entry of the public header says what it returns, how it queues, who may call it and
since when.  usage: check_docs.py HEADER

Fails on a GRADREG_API declaration whose doc comment lacks one of these; warns about parameters
that the comment never names, and about fields of public structs without a comment.
"""
import re
import sys
from pathlib import Path

REQUIRED = ("Returns", "Stream", "Threads", "Since")
ENTRY = re.compile(r"(?P<comment>/\*(?:(?!\*/).)*\*/)?\s*^GRADREG_API\b(?P<declaration>[^;]*);",
                   re.S | re.M)
STRUCT = re.compile(r"^(?:typedef )?struct (?P<name>gradreg_\w+) \{\n(?P<body>.*?)^\}", re.S | re.M)
# Parameters whose meaning the rules at the top of the header give once for all entries.
COMMON = {"out", "context", "regularizer", "struct_size", "void", ""}


def entries(text):
    for match in ENTRY.finditer(text):
        comment = match["comment"] or ""
        declaration = " ".join(match["declaration"].split())
        name = re.search(r"(gradreg_\w+)\s*\((.*)\)$", declaration)
        yield text.count("\n", 0, match.start("declaration")) + 1, name[1], name[2], comment


def labels(comment):
    """The words that stand as "Label:" at the start of a line or after a sentence's end."""
    return set(re.findall(r"(?:^\s*/?\*+|[.;])\s+(\w+):", comment, re.M))


def parameters(arguments):
    for argument in arguments.split(","):
        yield re.sub(r"\[.*", "", argument.strip()).split(" ")[-1].lstrip("*")


def entry_problems(name, arguments, comment):
    if not comment.startswith("/**"):
        return [f"{name}: no doc comment directly above"], []
    missing = [f"{name}: no {label}:" for label in REQUIRED if label not in labels(comment)]
    if re.search(r"/\*\*\s*As gradreg_\w+\(\)", comment):
        return missing, []
    silent = [f"{name}: parameter {parameter} is not mentioned"
              for parameter in parameters(arguments)
              if parameter not in COMMON and not re.search(rf"\b{parameter}\b", comment)]
    return missing, silent


def undocumented_fields(text):
    """Fields without a trailing /**< comment, unless their names say all there is to say."""
    for struct in STRUCT.finditer(text):
        line = text.count("\n", 0, struct.start("body"))
        body = re.sub(r"(/\*\*<)(?:(?!\*/).)*\*/", lambda m: m[1] + "\n" * m[0].count("\n"),
                      struct["body"], flags=re.S)
        for number, field in enumerate(body.split("\n"), line + 1):
            name = re.search(r"(\w+)(?:\[\w+\])?;\s*(/\*\*<)?", field)
            if name and not name[2] and not re.match(r"(struct_size|reserved\d?|user)$", name[1]):
                yield number, f"{struct['name']}.{name[1]}: no comment"


def main():
    path = Path(sys.argv[1])
    text = path.read_text(encoding="utf-8")
    failures, warnings, count = [], [], 0
    for line, name, arguments, comment in entries(text):
        missing, silent = entry_problems(name, arguments, comment)
        failures += [(line, sentence) for sentence in missing]
        warnings += [(line, sentence) for sentence in silent]
        count += 1
    warnings += undocumented_fields(text)
    for line, sentence in warnings:
        print(f"{path.name}:{line}: warning: {sentence}")
    for line, sentence in failures:
        print(f"{path.name}:{line}: error: {sentence}")
    declared = len(re.findall(r"^GRADREG_API\b", text, re.M))
    print(f"{count} of {declared} entries read, {len(failures)} errors, {len(warnings)} warnings")
    return bool(failures) or count != declared or count == 0


sys.exit(main())
