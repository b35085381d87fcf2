#!/usr/bin/env python3
"""The bindings against the C side: sizes, offsets and values as test/abi/ pins them (a C compiler
holds that file to the header), every function in the library, every field in the classes above.

usage: check_layout.py SNAPSHOT
"""
import ctypes
import dataclasses
import re
import sys
from pathlib import Path

import gradreg
from gradreg import _bindings as b
from gradreg import _library
from support import Case, main

SNAPSHOT = Path(sys.argv.pop(1)).read_text(encoding="utf-8")


def fields(struct):
    return [name for name, _ in struct._fields_ if not re.match("struct_size|reserved", name)]


class Bindings(Case):
    def test_every_struct_has_the_size_of_the_c_side(self):
        sizes = dict(re.findall(r"^SIZE\((?:struct )?(gradreg_\w+), (\d+)\);", SNAPSHOT, re.M))
        structs = {name: kind for name, kind in vars(b).items()
                   if isinstance(kind, type) and issubclass(kind, ctypes.Structure)}
        self.assertGreater(len(structs), 15)
        for name, kind in structs.items():
            with self.subTest(name):
                self.assertEqual(ctypes.sizeof(kind), int(sizes[name]))

    def test_every_field_lies_where_the_c_side_has_it(self):
        found = re.findall(r"^FIELD\((?:struct )?(gradreg_\w+), (\w+), (\d+), (\d+),", SNAPSHOT, re.M)
        self.assertGreater(len(found), 200)
        for name, field, offset, size in found:
            with self.subTest(f"{name}.{field}"):
                where = getattr(getattr(b, name), field)
                self.assertEqual((where.offset, where.size), (int(offset), int(size)))

    def test_every_constant_has_its_value(self):
        found = re.findall(r"^VALUE\((GRADREG_\w+), (-?\d+)\);", SNAPSHOT, re.M)
        self.assertGreater(len(found), 100)
        for name, value in found:
            with self.subTest(name):
                self.assertEqual(getattr(b, name), int(value))

    def test_the_library_has_every_function_and_the_header_s_version(self):
        self.assertEqual(_library.library().missing, [])
        self.assertEqual(gradreg.version(), ".".join(map(str, b.HEADER_VERSION)))
        self.assertEqual(gradreg.__version__, gradreg.version())

    def test_classes_have_every_field_of_their_struct(self):
        for kind, struct in ((gradreg.Terms, b.gradreg_terms), (gradreg.Noise, b.gradreg_noise),
                             (gradreg.PolicyMetrics, b.gradreg_policy_metrics),
                             (gradreg.Adaptive, b.gradreg_adaptive),
                             (gradreg.Schedule, b.gradreg_schedule),
                             (gradreg.ContextInfo, b.gradreg_context_info),
                             (gradreg.ProbeLayer, getattr(b, "gradreg_probe_layer", None)),
                             (gradreg.Segment, b.gradreg_segment)):
            if struct is None:
                continue
            names = {field.name for field in dataclasses.fields(kind)} - {"layers", "name"}
            with self.subTest(kind.__name__):
                self.assertEqual(names, set(fields(struct)))

    def test_every_status_has_an_exception(self):
        statuses = {value for name, value in vars(b).items() if name.startswith("GRADREG_ERROR_")}
        self.assertEqual(statuses, set(gradreg.errors.OF_STATUS))


if __name__ == "__main__":
    main()
