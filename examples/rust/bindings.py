#!/usr/bin/env python3
"""Rust declarations of include/gradreg.h, and a test of their layout.

usage: bindings.py --write HEADER CC...    write gradreg-sys/src/bindings.rs and tests/layout.rs
       bindings.py --check HEADER CC...    are they what would be written now?

The header is C of a plain kind, which is all that is understood here: fixed-width typedefs, anonymous
enumerations, structs, functions, function pointers in structs. Sizes and offsets come from the C
compiler; the Rust test holds Rust's own against them.
"""
import difflib
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
NOTICE = "// Written by examples/rust/bindings.py from include/gradreg.h. Do not edit.\n"
SCALARS = {
    "int32_t": "i32", "uint32_t": "u32", "int64_t": "i64", "uint64_t": "u64", "uint8_t": "u8",
    "uint16_t": "u16", "size_t": "usize", "float": "f32", "double": "f64", "char": "c_char",
    "void": "c_void",
}
KEYWORDS = {"type", "where", "in", "ref", "self", "move", "match", "use", "loop", "box", "final"}


class Header:
    def __init__(self, path):
        text = re.sub(r"/\*.*?\*/", " ", Path(path).read_text(encoding="utf-8"), flags=re.S)
        self.aliases = re.findall(r"^typedef (u?int\d+_t|float|double) (gradreg_\w+);", text, re.M)
        self.opaque = re.findall(r"^typedef struct (gradreg_\w+) \1;", text, re.M)
        self.structs = [(match[1], self.fields(match[2])) for match in re.finditer(
            r"^(?:typedef )?struct (gradreg_\w+) \{(.*?)^\}", text, re.S | re.M)]
        self.constants = self.enumerations(text) + [
            (name, "i32" if "VERSION" in name else "usize", value) for name, value in
            re.findall(r"^#define (GRADREG_\w+) +(\d+)[ \t]*$", text, re.M)]
        self.functions = [self.function(" ".join(found.split())) for found in
                          re.findall(r"^GRADREG_API\b([^;{]*);", text, re.M)]
        if not (self.structs and self.constants and self.functions):
            sys.exit(f"{path}: nothing of the kind that is expected in it")

    @staticmethod
    def enumerations(text):
        """(name, Rust type, value) of every constant; a typedef just before names the type."""
        found = []
        pattern = r"(?:^typedef u?int32_t (gradreg_\w+);\s*)?^enum \{(.*?)\}"
        for alias, body in re.findall(pattern, text, re.S | re.M):
            values = [tuple(word.strip() for word in entry.split("="))
                      for entry in body.split(",") if entry.strip()]
            if any(len(entry) != 2 for entry in values):
                sys.exit(f"an enumeration with a constant without a written value: {values}")
            # Roles, flags: masks of u32 fields. Layers have a negative one.
            plain = "i32" if any(value.startswith("-") for _, value in values) else "u32"
            found += [(name, alias or plain, value) for name, value in values]
        return found

    @staticmethod
    def fields(body):
        """(name, Rust type) of every field; several may share a declaration."""
        found = []
        for declaration in (" ".join(d.split()) for d in body.split(";")):
            if not declaration:
                continue
            pointer = re.fullmatch(r"(.+?)\(\*(\w+)\)\((.*)\)", declaration)
            if pointer:
                arguments = ", ".join(argument(one) for one in split(pointer[3]))
                found.append((pointer[2], f'Option<unsafe extern "C" fn({arguments})'
                              f'{returned(pointer[1])}>'))
                continue
            first, *more = declaration.split(",")
            kind, stars, rest = re.fullmatch(r"(.*?[\w\s])([\s*]*(?:const\s*)?\**)\b(\w+(?:\[\w+\])?)",
                                             first).groups()
            found.append(field(kind, stars, rest))
            for other in more:
                stars, rest = re.fullmatch(r"\s*([\s*]*)(\w+(?:\[\w+\])?)", other).groups()
                found.append(field(kind, stars, rest))
        return found

    @staticmethod
    def function(text):
        kind, name, arguments = re.fullmatch(r"(.+?)\b(gradreg_\w+) ?\((.*)\)", text).groups()
        arguments = [] if arguments.strip() == "void" else split(arguments)
        return name, [argument(one) for one in arguments], returned(kind)


def split(arguments):
    return [one.strip() for one in arguments.split(",")] if "(" not in arguments else \
        split_nested(arguments)


def split_nested(arguments):
    """At commas outside parentheses: an argument may be a function pointer."""
    parts, depth = [""], 0
    for letter in arguments:
        depth += (letter == "(") - (letter == ")")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]


def rust_type(text):
    """void *const * -> *const *mut c_void: read from the right, as C is."""
    words = re.findall(r"\w+|\*", text.replace("struct ", " "))
    base, constant, at = None, False, 0
    while at < len(words) and words[at] != "*":
        if words[at] == "const":
            constant = True
        elif base is None:
            base = words[at]
        else:
            sys.exit(f"not understood: {text}")
        at += 1
    result = SCALARS.get(base, base)
    for word in words[at:]:
        if word == "*":
            result = ("*const " if constant else "*mut ") + result
            constant = False
        else:
            constant = True  # of this pointer: what points to it then points to a constant
    return result


def named(name):
    return f"r#{name}" if name in KEYWORDS - {"self"} else name


def field(kind, stars, rest):
    name, _, size = rest.partition("[")
    declared = rust_type(f"{kind} {stars}")
    return named(name), f"[{declared}; {size[:-1]}]" if size else declared


def argument(text):
    pointer = re.fullmatch(r"(.+?)\(\*(\w+)\)\((.*)\)", text)
    if pointer:
        inner = ", ".join(argument(one) for one in split(pointer[3]))
        return (f'{named(pointer[2])}: Option<unsafe extern "C" fn({inner})'
                f'{returned(pointer[1])}>')
    kind, name = re.fullmatch(r"(.*?)(\w+)", text).groups()
    return f"{named(name)}: {rust_type(kind)}"


def returned(kind):
    return "" if kind.strip() == "void" else f" -> {rust_type(kind)}"


def bindings(header):
    lines = [NOTICE, "use std::os::raw::{c_char, c_void};", ""]
    lines += [f"pub type {name} = {SCALARS[kind]};" for kind, name in header.aliases]
    lines.append("")
    lines += [f"pub const {name}: {kind} = {value};" for name, kind, value in header.constants]
    for name in header.opaque:
        if name not in dict(header.structs):
            lines += ["", "#[repr(C)]", f"pub struct {name} {{", "    _opaque: [u8; 0],", "}"]
    for name, fields in header.structs:
        lines += ["", "#[repr(C)]", "#[derive(Clone, Copy, Debug)]", f"pub struct {name} {{"]
        lines += [f"    pub {one}: {kind}," for one, kind in fields]
        lines.append("}")
    lines += ["", 'extern "C" {']
    for name, arguments, result in header.functions:
        lines.append(f"    pub fn {name}({', '.join(arguments)}){result};")
    lines.append("}")
    return "\n".join(lines) + "\n"


def measured(header, path, compiler):
    """Per struct: (size, [(offset, size)]) as the C compiler has them."""
    prints = []
    text = Path(path).read_text(encoding="utf-8")
    for name, fields in header.structs:
        full = name if re.search(rf"^typedef struct {name} \{{", text, re.M) else f"struct {name}"
        prints.append(f"sizeof({full})")
        for one, _ in fields:
            one = one.replace("r#", "")
            prints += [f"offsetof({full}, {one})", f"sizeof((({full} *)0)->{one})"]
    body = "".join(f'    printf("%zu\\n", {expression});\n' for expression in prints)
    with tempfile.TemporaryDirectory() as folder:
        source, program = Path(folder) / "measure.c", Path(folder) / "measure"
        source.write_text(f'#include <stdio.h>\n#include "gradreg.h"\nint main(void)\n{{\n{body}'
                          "    return 0;\n}\n", encoding="utf-8")
        subprocess.run([*compiler, "-std=c11", f"-I{Path(path).parent}", str(source), "-o",
                        str(program)], check=True)
        numbers = iter(map(int, subprocess.run([str(program)], check=True, capture_output=True,
                                               text=True).stdout.split()))
    return [(name, next(numbers), [(one, next(numbers), next(numbers)) for one, _ in fields])
            for name, fields in header.structs]


LAYOUT_HEAD = """
// The layout that a C compiler gives the structs, held against Rust's.
#![cfg(target_pointer_width = "64")]

use gradreg_sys::*;
use std::mem::{size_of, MaybeUninit};
use std::ptr::addr_of;

fn size_behind<T>(_: *const T) -> usize {
    size_of::<T>()
}

macro_rules! layout {
    ($name:ident, $size:expr, $(($field:ident, $offset:expr, $bytes:expr)),+) => {
        #[test]
        fn $name() {
            let made = MaybeUninit::<gradreg_sys::$name>::uninit();
            let base = made.as_ptr();
            assert_eq!(size_of::<gradreg_sys::$name>(), $size, "size");
            $(
                // SAFETY: only the address is taken, nothing is read.
                let field = unsafe { addr_of!((*base).$field) };
                assert_eq!(field as usize - base as usize, $offset,
                           "offset of {}", stringify!($field));
                assert_eq!(size_behind(field), $bytes, "size of {}", stringify!($field));
            )+
        }
    };
}
"""


def layout(header, path, compiler):
    lines = [NOTICE + LAYOUT_HEAD]
    for name, size, fields in measured(header, path, compiler):
        rows = ",\n    ".join(f"({one}, {offset}, {bytes_})" for one, offset, bytes_ in fields)
        lines.append(f"layout!(\n    {name}, {size},\n    {rows}\n);")
    # A function that the library lacks fails at the link step here.
    names = ",\n        ".join(f"{name} as *const () as usize" for name, _, _ in header.functions)
    lines.append(f"#[test]\nfn every_function_links() {{\n    let all = [\n        {names},\n"
                 "    ];\n    assert!(all.iter().all(|&address| address != 0));\n}")
    return "\n".join(lines) + "\n"


def main():
    if len(sys.argv) < 4 or sys.argv[1] not in ("--write", "--check"):
        sys.exit(__doc__)
    mode, path, *compiler = sys.argv[1:]
    header = Header(path)
    wanted = {
        HERE / "gradreg-sys/src/bindings.rs": bindings(header),
        HERE / "gradreg-sys/tests/layout.rs": layout(header, path, compiler),
    }
    wrong = 0
    for place, text in wanted.items():
        if mode == "--write":
            place.write_text(text, encoding="utf-8")
            continue
        old = place.read_text(encoding="utf-8") if place.exists() else ""
        if old != text:
            wrong += 1
            print("\n".join(difflib.unified_diff(old.splitlines(), text.splitlines(), str(place),
                                                 "what the header says now", n=0, lineterm="")))
    print(f"{len(header.structs)} structs, {len(header.constants)} constants, "
          f"{len(header.functions)} functions")
    if wrong:
        print("out of date: python3 examples/rust/bindings.py --write include/gradreg.h cc")
    return bool(wrong)


sys.exit(main())
