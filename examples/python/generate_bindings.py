#!/usr/bin/env python3
"""The ctypes bindings of include/gradreg.h: gradreg/_bindings.py is what this prints.

usage: generate_bindings.py HEADER            print
       generate_bindings.py --write HEADER    write gradreg/_bindings.py beside this file
       generate_bindings.py --check HEADER    fail if it differs from what would be written

Pointers to plain values become c_void_p, which takes addresses, arrays and byref(); pointers to
structs keep their type, so that a wrong struct is refused before the call.
"""
import re
import sys
import textwrap
from pathlib import Path

OUTPUT = Path(__file__).resolve().parent / "gradreg" / "_bindings.py"
SCALARS = {"void": "None", "char": "c.c_char", "float": "c.c_float", "double": "c.c_double",
           "size_t": "c.c_size_t", "int": "c.c_int",
           **{f"{sign}int{bits}_t": f"c.c_{sign}int{bits}"
              for sign in ("", "u") for bits in (8, 16, 32, 64)}}
TOKEN = re.compile(r"\w+|[*()\[\],]")


class Declarations:
    """What the header declares, in its order."""

    def __init__(self, text):
        text = re.sub(r"/\*.*?\*/", " ", text, flags=re.S)
        self.version = [re.search(rf"VERSION_{part} (\d+)", text)[1]
                        for part in ("MAJOR", "MINOR", "PATCH")]
        self.defines = [pair for pair in re.findall(r"^#define (GRADREG_\w+) (\d+)$", text, re.M)
                        if "_VERSION_" not in pair[0]]
        self.aliases = dict((name, kind) for kind, name in
                            re.findall(r"^typedef (u?int\d+_t) (gradreg_\w+);", text, re.M))
        self.enums = self.find_enums(text)
        self.struct_names = re.findall(r"^(?:typedef )?struct (gradreg_\w+) \{", text, re.M)
        self.structs = [(name, self.fields(body)) for name, body in re.findall(
            r"^(?:typedef )?struct (gradreg_\w+) \{(.*?)^\}", text, re.S | re.M)]
        self.functions = [self.declaration(" ".join(prototype.split())) for prototype in
                          re.findall(r"^GRADREG_API\b([^;{]*);", text, re.M)]

    def find_enums(self, text):
        """(alias or None, prefix, [(constant, value)]) of each anonymous enum."""
        found = []
        for alias, body in re.findall(
                r"(?:^typedef int32_t (gradreg_\w+);\s*)?^enum \{(.*?)^\};", text, re.S | re.M):
            members = re.findall(r"(GRADREG_\w+)\s*=\s*(-?\d+)", body)
            prefix = members[0][0]
            while not all(name.startswith(prefix) for name, _ in members):
                prefix = prefix[:-1]
            found.append((alias or None, prefix[:prefix.rfind("_") + 1], members))
        return found

    def fields(self, body):
        return [self.declaration(" ".join(text.split())) for text in body.split(";") if text.strip()]

    def declaration(self, text):
        """(name, base type, expression for ctypes) of one declaration without its semicolon."""
        tokens = TOKEN.findall(text)
        base = self.specifiers(tokens)
        name, wrap = self.declarator(tokens)
        if tokens:
            sys.exit(f"not understood: {text}")
        return name, base, wrap((base, 0))

    @staticmethod
    def specifiers(tokens):
        base = None
        while tokens and tokens[0] not in ("*", "(", "["):
            if base is not None and tokens[0] != "const":
                break
            word = tokens.pop(0)
            if word not in ("const", "struct"):
                base = word
        return base

    def declarator(self, tokens):
        """The name and a function from the type on the left, (base, stars), to an expression."""
        stars = 0
        while tokens and tokens[0] in ("*", "const"):
            stars += tokens.pop(0) == "*"
        if tokens[:2] == ["(", "*"]:
            del tokens[:2]
            name = tokens.pop(0)
            self.expect(tokens, ")")
            arguments = self.arguments(tokens)
            return name, lambda left: self.callback(left[0], left[1] + stars, arguments)
        name = tokens.pop(0) if tokens and re.match(r"\w", tokens[0]) else ""
        if tokens and tokens[0] == "(":
            arguments = self.arguments(tokens)
            return name, lambda left: (self.spell(left[0], left[1] + stars), arguments)
        if tokens and tokens[0] == "[":
            length = tokens[1]
            del tokens[:3]
            return name, lambda left: f"{self.spell(left[0], left[1] + stars)} * {length}"
        return name, lambda left: self.spell(left[0], left[1] + stars)

    def arguments(self, tokens):
        self.expect(tokens, "(")
        found = []
        while tokens[0] != ")":
            base = self.specifiers(tokens)
            found.append(self.declarator(tokens)[1]((base, 0)))
            if tokens[0] == ",":
                tokens.pop(0)
        tokens.pop(0)
        return [] if found == ["None"] else found

    @staticmethod
    def expect(tokens, wanted):
        if tokens.pop(0) != wanted:
            sys.exit(f"expected {wanted} before {' '.join(tokens)}")

    def callback(self, base, stars, arguments):
        return f"c.CFUNCTYPE({', '.join([self.spell(base, stars), *arguments])})"

    def spell(self, base, stars):
        if stars == 0:
            return SCALARS.get(self.aliases.get(base, base), base)
        if stars == 1 and base in self.struct_names:
            return f"c.POINTER({base})"
        return "c.c_char_p" if (base, stars) == ("char", 1) else "c.c_void_p"


def class_name(words):
    return "".join(word.capitalize() for word in words.split("_"))


def enum_classes(header):
    """IntEnums of typedefs, IntFlags of the nameless groups of bits."""
    flags = {"GRADREG_ROLE_": "Role", "GRADREG_SEGMENT_": "SegmentFlag", "GRADREG_FLAG_": "Flag"}
    for alias, prefix, members in header.enums:
        name = flags.get(prefix) or (alias and class_name(alias[len("gradreg_"):]))
        if name and name != "Status":
            kind = "IntFlag" if prefix in flags else "IntEnum"
            yield alias, name, kind, [(full[len(prefix):], value) for full, value in members]


def wrapped(head, words, tail):
    """head word, word, ... tail, in lines of at most 100 characters."""
    return "\n".join(textwrap.wrap(f"{head}{', '.join(words)}{tail}", 100, break_long_words=False,
                                   break_on_hyphens=False, subsequent_indent=" " * 8))


def render(header):
    out = ['"""ctypes bindings of gradreg.h: written by generate_bindings.py, not by hand."""',
           "# pylint: skip-file", "import ctypes as c", "import enum", "",
           f"HEADER_VERSION = ({', '.join(header.version)})", ""]
    for _, _, members in header.enums:
        out += [f"{name} = {value}" for name, value in members]
    out += [f"{name} = {value}" for name, value in header.defines]
    classes = list(enum_classes(header))
    for _, name, kind, members in classes:
        out += ["", "", f"class {name}(enum.{kind}):"]
        out += [f"    {member} = {value}" for member, value in members]
    for name, fields in header.structs:
        out += ["", "", f"class {name}(c.Structure):"]
        pairs = [f'("{field}", {kind})' for field, _, kind in fields]
        out += [wrapped("    _fields_ = [", pairs, "]")]
    out += ["", "", "# Fields that are enumerations.", "FIELD_ENUMS: dict[str, dict[str, type[enum.IntEnum]]] = {"]
    of_alias = {alias: name for alias, name, _, _ in classes if alias}
    for name, fields in header.structs:
        pairs = [f'"{field}": {of_alias[base]}' for field, base, kind in fields
                 if base in of_alias and kind == "c.c_int32"]
        if pairs:
            out += [wrapped(f'    "{name}": {{', pairs, "},")]
    out += ["}", "", "# name: (result, arguments)", "FUNCTIONS = {"]
    for name, _, (result, arguments) in header.functions:
        out += [wrapped(f'    "{name}": (', [result, f"[{', '.join(arguments)}]"], "),")]
    return "\n".join([*out, "}", ""])


def main():
    mode, path = (sys.argv[1], sys.argv[2]) if len(sys.argv) == 3 else ("", sys.argv[1])
    text = render(Declarations(Path(path).read_text(encoding="utf-8")))
    if mode == "--write":
        OUTPUT.write_text(text, encoding="utf-8")
    elif mode == "--check":
        if text != OUTPUT.read_text(encoding="utf-8"):
            sys.exit(f"{OUTPUT.name} is not of this header: examples/python/generate_bindings.py "
                     "--write include/gradreg.h")
        print(f"{text.count('c.Structure')} structs, {text.count('enum.Int')} enumerations")
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
