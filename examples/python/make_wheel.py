#!/usr/bin/env python3
"""Put the package and an installed library into a wheel that needs no compiler where it is used.

usage: make_wheel.py LIBRARY_FOLDER OUTPUT_FOLDER

LIBRARY_FOLDER is where `meson install` put libgradreg.so.0; the CUDA module beside it goes along if
there is one. The wheel is for every Python 3 of this processor and this or a newer C library. Equal
inputs give equal bytes. tools/wheel builds the library and calls this. Prints the wheel's path.
"""
import base64
import hashlib
import platform
import re
import sys
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
METADATA = """\
Metadata-Version: 2.1
Name: gradreg
Version: {version}
Summary: Depth-scaled gradient regularization and policy losses for reinforcement learning
License: MIT
Requires-Python: >=3.9
Provides-Extra: numpy
Requires-Dist: numpy ; extra == 'numpy'
Provides-Extra: torch
Requires-Dist: torch >=1.13 ; extra == 'torch'
Provides-Extra: trl
Requires-Dist: trl >=1.16 ; extra == 'trl'
Description-Content-Type: text/markdown

{text}"""


def project_version():
    header = (ROOT / "include" / "gradreg.h").read_text(encoding="utf-8")
    return ".".join(re.search(rf"VERSION_{part} (\d+)", header)[1]
                    for part in ("MAJOR", "MINOR", "PATCH"))


def libraries(folder):
    """The file behind libgradreg.so.0 under that name, and the CUDA module."""
    core = folder / "libgradreg.so.0"
    if not core.exists():
        sys.exit(f"{core} does not exist: give the folder that meson install put it into")
    found = [(core.name, core.read_bytes())]
    for module in sorted(folder.glob("libgradreg[-_]cuda.so*")):
        if not module.is_symlink():
            name = re.sub(r"(\.so(?:\.\d+)?).*", r"\1", module.name)
            found.append((name, module.read_bytes()))
    return found


def platform_tag(contents):
    """manylinux for the newest symbol of the C library that is needed."""
    needed = [tuple(map(int, pair)) for content in contents
              for pair in re.findall(rb"\0GLIBC_(\d+)\.(\d+)", content)]
    machine = platform.machine()
    return "manylinux_{}_{}_{}".format(*max(needed), machine) if needed else f"linux_{machine}"


def needed(content):
    """Shared libraries that a library asks for, beyond the C library."""
    own = rb"lib(?:c|m|dl|rt|pthread|gcc_s|stdc\+\+)\.so|ld-linux"
    names = set(re.findall(rb"\0(lib[\w+.-]+\.so(?:\.\d+)*)(?=\0)", content))
    return sorted(name.decode() for name in names if not re.match(own + rb"|libgradreg", name))


def package_files():
    for path in sorted((HERE / "gradreg").rglob("*")):
        if path.suffix in (".py", ".typed") or path.name == "py.typed":
            yield f"gradreg/{path.relative_to(HERE / 'gradreg')}", path.read_bytes()


def write(path, files):
    def add(archive, name, content):
        entry = zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0))
        entry.external_attr = (0o755 if ".so" in name else 0o644) << 16
        archive.writestr(entry, content, zipfile.ZIP_DEFLATED)

    info = next(name for name, _ in files if name.endswith("/WHEEL")).rsplit("/", 1)[0]
    record = []
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files:
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            record.append(f"{name},sha256={digest},{len(content)}\n")
            add(archive, name, content)
        add(archive, f"{info}/RECORD", "".join([*record, f"{info}/RECORD,,\n"]))


def main():
    folder, output = Path(sys.argv[1]), Path(sys.argv[2])
    version = project_version()
    found = libraries(folder)
    for name, content in found:
        if needed(content):
            print(f"{name} needs {', '.join(needed(content))} where the wheel is used", file=sys.stderr)
    tag = f"py3-none-{platform_tag([content for _, content in found])}"
    info = f"gradreg-{version}.dist-info"
    text = (HERE / "README.md").read_text(encoding="utf-8")
    wheel = f"Wheel-Version: 1.0\nGenerator: make_wheel.py\nRoot-Is-Purelib: false\nTag: {tag}\n"
    files = [*package_files(), *((f"gradreg/lib/{name}", content) for name, content in found),
             (f"{info}/METADATA", METADATA.format(version=version, text=text).encode()),
             (f"{info}/WHEEL", wheel.encode()),
             (f"{info}/LICENSE", (ROOT / "LICENSE").read_bytes())]
    output.mkdir(parents=True, exist_ok=True)
    path = output / f"gradreg-{version}-{tag}.whl"
    write(path, files)
    print(path)


main()
