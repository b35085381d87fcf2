#!/usr/bin/env python3
"""A new constant of an enumeration is let in and walked through.  usage: check_choices.py SOURCE_ROOT

The last constant of each enumeration in the header is the end of its range in lib/options.c and
lib/policy.c, and of test/choices.h; both lists of types in lib/types.h, of which the rest of lib/ is
made, have all of them; a test's walk ends at a LAST_ of choices.h, not at a constant or a number of its
own; and examples/presets.c has a name for each constant of what it lists.
"""
import re
import sys
from pathlib import Path


class Header:
    """Enumerations by type and by constant; types of fields."""

    def __init__(self, text):
        text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
        self.constants, self.type_of = {}, {}
        for name, body in re.findall(r"typedef int32_t (\w+);\s*enum \{(.*?)\}", text, re.S):
            pairs = re.findall(r"(GRADREG_\w+) = (-?\d+)", body)
            self.constants[name] = {constant: int(value) for constant, value in pairs}
            self.type_of.update((constant, name) for constant, _ in pairs)
        self.fields = dict((field, kind) for kind, field in
                           re.findall(r"^\s+(gradreg_\w+) (\w+);", text, re.M)
                           if kind in self.constants)

    def last(self, kind):
        return max(self.constants[kind], key=self.constants[kind].get)


class Checker:
    def __init__(self, root):
        self.root, self.problems, self.checked = root, [], 0
        self.header = Header(self.read("include/gradreg.h"))
        self.types = [name.removeprefix("GRADREG_TYPE_")
                      for name in self.header.constants["gradreg_type"]]

    def read(self, path):
        return (self.root / path).read_text(encoding="utf-8")

    def expect(self, path, what, got, kind):
        """`got`: the number or the constant at which something ends."""
        self.checked += 1
        last = self.header.last(kind)
        value = self.header.constants[kind][last]
        if got not in (last, str(value)):
            self.problems.append(f"{path}: {what} ends at {got}, {kind} ends at {last} = {value}")

    def expect_list(self, path, what, got, wanted):
        """What is made of the list of types ends nowhere of its own."""
        self.checked += 1
        if got != wanted:
            self.problems.append(f"{path}: {what} ends at {got}, not by {wanted} of lib/types.h")

    def ranges(self):
        found = [("lib/options.c", field, last) for field, last in
                 re.findall(r"CHOICE\((?:\w+\.)?(\w+), \w+, \d+, (\d+|GR_TYPES - 1),",
                            self.read("lib/options.c"))]
        found += [("lib/policy.c", field, last) for field, last in
                  re.findall(r"read_choice\(&p->(\w+), \w+, (\w+),", self.read("lib/policy.c"))]
        for path, field, last in found:
            kind = {"rule": "gradreg_noise_rule"}.get(field, self.header.fields.get(field))
            if kind == "gradreg_type":
                self.expect_list(path, f"the range of {field}", last, "GR_TYPES - 1")
            elif kind is not None and field != "non_finite_first":
                self.expect(path, f"the range of {field}", last, kind)
        for path in sorted((self.root / "lib").rglob("*.[ch]*")):
            for last in re.findall(r"<= GRADREG_TYPE_\w+", path.read_text(encoding="utf-8")):
                self.expect_list(str(path.relative_to(self.root)), "a range of types", last,
                                 "gr_type_is_known()")

    def lists(self):
        """Every type is one of lib/ and of test/."""
        types = self.read("lib/types.h")
        self.same_types("lib/types.h", "GR_EACH_TYPE", re.findall(
            r"X\((\w+)\)", re.search(r"define GR_EACH_TYPE\(X\)((?:.*\\\n)*.*)", types)[1]))
        self.same_pairs("lib/types.h", "GR_EACH_PAIR", re.findall(
            r"X\((\w+), (\w+)\)", re.search(r"define GR_EACH_PAIR\(X\)((?:.*\\\n)*.*)", types)[1]))
        self.same_types("test/choices.h", "all_types",
                        re.findall(r"GRADREG_TYPE_(\w+)", re.search(
                            r"all_types\[.*?\};", self.read("test/choices.h"), re.S)[0]))
        self.same_pairs("test/choices.h", "type_pairs", re.findall(
            r"\{ GRADREG_TYPE_(\w+), GRADREG_TYPE_(\w+) \}", self.read("test/choices.h")))

    def same_types(self, path, what, listed):
        self.checked += 1
        self.problems += [f"{path}: {what} lacks {name}" for name in self.types if name not in listed]

    def same_pairs(self, path, what, listed):
        wanted = {(t, other) for t in self.types for other in (t, "F32")}
        self.checked += 1
        self.problems += [f"{path}: {what} lacks {param} with {grad} gradients"
                          for param, grad in sorted(wanted - set(listed))]

    def names(self):
        """An example prints what a preset is made of."""
        path = "examples/presets.c"
        named = re.findall(r"^    \[(GRADREG_\w+)\] = \"", self.read(path), re.M)
        for kind in sorted({self.header.type_of[constant] for constant in named}):
            self.checked += 1
            self.problems += [f"{path}: {kind} {constant} has no name"
                              for constant in self.header.constants[kind] if constant not in named]

    def last_constants(self):
        walked = re.findall(r"LAST_\w+ = (GRADREG_\w+)", self.read("test/choices.h"))
        for constant in walked:
            self.expect("test/choices.h", "a walk", constant, self.header.type_of[constant])
        return {self.header.type_of[constant] for constant in walked}

    def walks(self, kinds):
        """Loops and draws up to the last of what choices.h has."""
        ends = "|".join(rf"(?:<=|%|draw_of\(\w+,) {self.header.last(kind)}\b|"
                        rf"(?:{'|'.join(constants)}) \+ (?:static_cast<int32_t>\()?"
                        rf"(?:take\(&?\w+, |random->below\(|\w+(?: / \d+)? % ){len(constants)}\b"
                        for kind, constants in self.header.constants.items() if kind in kinds)
        sources = [path for path in (self.root / "test").rglob("*") if path.suffix in (".c", ".cpp")]
        for path in sorted(sources):
            text = path.read_text(encoding="utf-8")
            self.checked += 1
            for found in re.finditer(ends, text):
                line = text.count("\n", 0, found.start()) + 1
                self.problems.append(f"{path.relative_to(self.root)}:{line}: \"{found[0]}\": "
                                     "a walk ends at a LAST_ of test/choices.h")


def main():
    checker = Checker(Path(sys.argv[1]))
    checker.ranges()
    checker.lists()
    checker.names()
    checker.walks(checker.last_constants())
    for problem in checker.problems:
        print(problem)
    print(f"{checker.checked} ranges, lists and files, {len(checker.problems)} problems")
    return bool(checker.problems)


sys.exit(main())
