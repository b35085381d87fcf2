#!/usr/bin/env python3
"""One version everywhere.  usage: check_version.py ROOT

Compares what meson.build says with the header, the bindings, the packages and the changelog, in which
only the first version may be without a date."""
import re
import sys
from pathlib import Path

# file, pattern whose groups, joined by dots, are the version
PLACES = [
    ("include/gradreg.h", r"VERSION_MAJOR (\d+)\n#define GRADREG_VERSION_MINOR (\d+)\n"
                         r"#define GRADREG_VERSION_PATCH (\d+)"),
    ("examples/python/gradreg/__init__.py", r'^__version__ = "([^"]+)"'),
    ("examples/rust/gradreg/Cargo.toml", r'^version = "([^"]+)"'),
    ("examples/rust/gradreg-sys/Cargo.toml", r'^version = "([^"]+)"'),
    ("examples/rust/Cargo.lock", r'^name = "gradreg"\nversion = "([^"]+)"'),
    ("examples/rust/Cargo.lock", r'^name = "gradreg-sys"\nversion = "([^"]+)"'),
    ("tools/debian/changelog", r"\Agradreg \(([^)]+)-[^-)]+\)"),
    ("CHANGELOG.md", r"^## \[(\d[^]]*)\]"),
]


def main():
    root = Path(sys.argv[1])
    meson = (root / "meson.build").read_text(encoding="utf-8")
    version = re.search(r"^  version: '([^']+)'", meson, re.M)[1]
    problems = []
    for name, pattern in PLACES:
        found = re.search(pattern, (root / name).read_text(encoding="utf-8"), re.M)
        said = ".".join(found.groups()) if found else "nothing that looks like a version"
        if said != version:
            problems.append(f"{name}: {said}, meson.build: {version}")
    changelog = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    for heading in re.findall(r"^## (\[.*)$", changelog, re.M)[1:]:
        if not re.fullmatch(r"\[\S+\] - \d{4}-\d\d-\d\d", heading):
            problems.append(f"CHANGELOG.md: {heading}: what is not the newest has been released on a date")
    snapshot = root / "test" / "abi" / "gradreg_{}_{}.c".format(*version.split("."))
    if not snapshot.exists():
        problems.append(f"no ABI snapshot {snapshot.relative_to(root)}")
    print("\n".join(problems) or f"{version} in {len(PLACES) + 1} files")
    return bool(problems)


sys.exit(main())
