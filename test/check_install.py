#!/usr/bin/env python3
"""Install the build into an empty folder, see that exactly the promised files are there, use them
from there in every way that docs/install.md names, and uninstall.

usage: check_install.py BUILD_ROOT PREFIX VERSION CONSUMER_SOURCE MESON CC [CXX]

MESON, CC and CXX are one argument each; words are separated by blanks.
"""
import ctypes
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

# Below the prefix, with {lib} for the library folder. `meson install` leaves these and no others.
FILES = """
    include/gradreg.h
    {lib}/cmake/gradreg/gradregConfig.cmake
    {lib}/cmake/gradreg/gradregConfigVersion.cmake
    {lib}/libgradreg.a
    {lib}/libgradreg.so -> libgradreg.so.0
    {lib}/libgradreg.so.0 -> libgradreg.so.{version}
    {lib}/libgradreg.so.{version}
    {lib}/pkgconfig/gradreg.pc
"""

CMAKE_USE = """\
cmake_minimum_required(VERSION 3.13)
project(consumer C)
foreach(unknown 99 %(major)s.99)
  find_package(gradreg ${unknown} CONFIG QUIET)
  if(gradreg_FOUND)
    message(FATAL_ERROR "asked for version ${unknown} and got ${gradreg_VERSION}")
  endif()
endforeach()
find_package(gradreg CONFIG QUIET COMPONENTS nonsense)
if(gradreg_FOUND OR TARGET gradreg::gradreg)
  message(FATAL_ERROR "there is no component of that name")
endif()
# [cmake]
find_package(gradreg 0.1 REQUIRED)
add_executable(with-shared main.c)
target_link_libraries(with-shared PRIVATE gradreg::gradreg)
add_executable(with-static main.c)
target_link_libraries(with-static PRIVATE gradreg::static)
# [end]
"""

MESON_USE = """\
project('consumer', 'c')
# [meson]
gradreg = dependency('gradreg', version: '>=0.1', fallback: 'gradreg')
executable('consumer', 'main.c', dependencies: gradreg)
# [end]
"""


def run(command, **more):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True,
                          check=False, **more)
    if done.returncode != 0:
        sys.exit(f"failed: {' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout.strip()


class Installed:
    """The tree that `meson install` left, seen through pkg-config moved to where it lies."""

    def __init__(self, destination, prefix):
        self.prefix = destination / prefix.lstrip("/")
        configs = list(destination.rglob("gradreg.pc"))
        if len(configs) != 1:
            sys.exit(f"expected one gradreg.pc, found {configs}")
        # Searched before the system's folders, where the library's own dependencies are.
        self.environment = {**os.environ, "PKG_CONFIG_PATH": str(configs[0].parent)}
        self.library_folder = Path(self.config("--variable=libdir"))

    def config(self, *arguments):
        return run(["pkg-config", f"--define-variable=prefix={self.prefix}", *arguments, "gradreg"],
                   env=self.environment)

    def flags(self, *arguments):
        return self.config(*arguments).split()


def check_files(installed, version, build):
    library_folder = installed.library_folder.relative_to(installed.prefix)
    want = {line.strip() for line in FILES.format(
        lib=library_folder, version=version).splitlines()}
    if (Path(build) / "lib" / "libgradreg-cuda.so").exists():
        want.add(f"{library_folder}/libgradreg-cuda.so")
    have = set()
    for path in installed.prefix.rglob("*"):
        if path.is_symlink():
            have.add(f"{path.relative_to(installed.prefix)} -> {os.readlink(path)}")
        elif path.is_file():
            have.add(str(path.relative_to(installed.prefix)))
            if path.stat().st_mode & 0o022:
                sys.exit(f"anybody may write {path.name}")
    want.discard("")
    if want != have:
        sys.exit(f"not installed: {sorted(want - have)}; unexpected: {sorted(have - want)}")
    full = installed.library_folder / f"libgradreg.so.{version}"
    dynamic = run(["readelf", "-d", full])
    soname = re.search(r"SONAME.*\[(.*)\]", dynamic)[1]
    if soname != "libgradreg.so.0":
        sys.exit(f"soname is {soname}")
    if re.search(r"R(UN)?PATH", dynamic):
        sys.exit("the library carries a path of the machine that built it")
    if installed.config("--modversion") != version:
        sys.exit("gradreg.pc has another version than the project")
    print(f"{len(have)} files: ok")


def check_hidden(installed):
    """The static archive must not claim names outside the project's own, and what is compiled for
    a vector path must be reached through data: code of a path would run on any processor."""
    listed = run(["nm", "-g", "--defined-only", "-A", installed.library_folder / "libgradreg.a"])
    names = {line.split()[-1]: line.split()[-2] for line in listed.splitlines() if " " in line}
    foreign = sorted(name for name in names if not name.startswith("gradreg_"))
    if foreign:
        sys.exit(f"global names without the prefix gradreg_: {foreign}")
    paths = {name: kind for name, kind in names.items() if re.search(r"_(scalar|v[2-4])$", name)}
    code = sorted(name for name, kind in paths.items() if kind not in "DR")
    if code or not paths:
        sys.exit(f"of a vector path, but no data: {code or 'no table was found'}")


def check_program(program, version, shared, environment=None):
    """It is linked with the library that it should be linked with, and runs."""
    if ("libgradreg" in run(["readelf", "-d", program])) != shared:
        sys.exit(f"{program.name} was linked with the other library")
    if run([program], env=environment) != version:
        sys.exit(f"{program.name} printed something else than {version}")


def check_consumer(installed, folder, title, compiler, source, version):
    # As a user with strict flags would; the header is found by pkg-config's -I and nothing else.
    strict = ["-Wall", "-Wextra", "-Werror", "-pedantic"]
    static = [flag for flag in installed.flags("--static", "--libs") if flag != "-lgradreg"]
    links = {
        "shared": [*installed.flags("--libs"), f"-Wl,-rpath,{installed.library_folder}"],
        "static": [installed.library_folder / "libgradreg.a", *static],
    }
    for kind, link in links.items():
        program = folder / f"consumer-{title}-{kind}"
        run([*compiler, *strict, *installed.flags("--cflags"), source, "-o", program, *link])
        check_program(program, version, kind == "shared")
        print(f"{title}, {kind}: ok")


EXAMPLES = {
    # what it prints if it went well: sources
    "4 + 0.1 / 2 * 16 = 4.800": ["first_step.c"],
    "corr/|g| per layer": ["llmc/gpt.c", "llmc/train.c"],
    "step as meant 1.000": ["cpp/bandit.cpp"],
}


def check_examples(installed, folder, compilers):
    """What users copy, built as they would build it."""
    examples = Path(__file__).resolve().parent.parent / "examples"
    for words, sources in EXAMPLES.items():
        plus = sources[0].endswith(".cpp")
        if plus and len(compilers) < 2:
            print("examples in C++: LEFT OUT, there is no C++ compiler here")
            continue
        program = folder / Path(sources[-1]).stem
        run([*compilers[plus].split(), "-std=c++17" if plus else "-std=c11", "-O1",
             *installed.flags("--cflags"), *(examples / source for source in sources),
             "-o", program, *installed.flags("--libs"), "-lm",
             f"-Wl,-rpath,{installed.library_folder}"])
        if words not in run([program, *(["10"] if "llmc/gpt.c" in sources else [])]):
            sys.exit(f"{program.name} did not print {words!r}")
        print(f"examples/{sources[-1]}: ok")


def check_python(installed, version):
    library = ctypes.CDLL(str(installed.library_folder / "libgradreg.so.0"))
    library.gradreg_version.restype = ctypes.c_char_p
    if library.gradreg_version().decode() != version:
        sys.exit("ctypes: another version")
    print("python, ctypes: ok")


def check_cmake(installed, folder, source, version):
    """find_package() and both targets, in a tree that was moved after its installation."""
    cmake = shutil.which("cmake")
    if cmake is None:
        print("cmake: LEFT OUT, there is no cmake here (Debian: apt install cmake)")
        return
    moved, project = folder / "moved away", folder / "with-cmake"
    shutil.copytree(installed.prefix, moved, symlinks=True)
    project.mkdir()
    major = version.split(".")[0]
    shutil.copy(source, project / "main.c")
    (project / "CMakeLists.txt").write_text(
        CMAKE_USE % {"major": major}, encoding="utf-8")
    run([cmake, "-G", "Ninja", "-S", project, "-B", project / "build",
         f"-DCMAKE_PREFIX_PATH={moved}", "-DCMAKE_FIND_USE_SYSTEM_PACKAGE_REGISTRY=OFF"])
    run([cmake, "--build", project / "build"])
    for kind in ("shared", "static"):
        program = project / "build" / f"with-{kind}"
        check_program(program, version, kind == "shared")
    used = run(["ldd", project / "build" / "with-shared"])
    if str(moved) not in used:
        sys.exit(f"cmake found another libgradreg than the one that was moved:\n{used}")
    print("cmake, shared and static, tree moved: ok")


def meson_project(folder, source):
    folder.mkdir()
    (folder / "meson.build").write_text(MESON_USE, encoding="utf-8")
    shutil.copy(source, folder / "main.c")
    return folder


def check_meson(installed, build, folder, source, version, meson):
    """dependency('gradreg') in somebody's meson.build: installed, and in a build folder that nobody
    installed."""
    where = {"installed": installed.library_folder / "pkgconfig",
             "uninstalled": Path(build) / "meson-uninstalled"}
    for kind, configs in where.items():
        environment = {**os.environ, "PKG_CONFIG_PATH": str(configs)}
        if kind == "installed":
            # A tree under a DESTDIR: pkg-config then adds it to every path of the file.
            environment["PKG_CONFIG_SYSROOT_DIR"] = str(folder / "root")
        project = meson_project(folder / f"meson-{kind}", source)
        run([*meson, "setup", project / "build", project, "--wrap-mode=nofallback"],
            env=environment)
        run(["ninja", "-C", project / "build"])
        library = installed.library_folder if kind == "installed" else Path(build) / "lib"
        check_program(project / "build" / "consumer", version, True,
                      {**os.environ, "LD_LIBRARY_PATH": str(library)})
        print(f"meson, {kind}: ok")


def check_subproject(source_root, folder, source, version, meson):
    """The sources as a subproject: the library alone is built, and installed with the parent."""
    project = meson_project(folder / "meson-subproject", source)
    (project / "subprojects").mkdir()
    (project / "subprojects" / "gradreg").symlink_to(source_root)
    environment = {**os.environ, "PKG_CONFIG_LIBDIR": str(folder / "no-such-folder")}
    # A parent with a test setup of its own is the one that a subproject's could collide with.
    (project / "meson.build").write_text(
        MESON_USE + "add_test_setup('mine', is_default: true)\n", encoding="utf-8")
    run([*meson, "setup", project / "build", project, "-Dbuildtype=debug"], env=environment)
    run(["ninja", "-C", project / "build"], env=environment)
    check_program(project / "build" / "consumer", version, True)
    targets = json.loads(run([*meson, "introspect", "--targets", project / "build"]))
    names = sorted({target["name"] for target in targets if target["type"] == "executable"})
    if names != ["consumer"]:
        sys.exit(f"as a subproject more than the library is built: {names}")
    print("meson, subproject: ok")


def check_uninstall(build, root):
    run(["ninja", "-C", build, "uninstall"])
    left = [path for path in root.rglob("*") if not path.is_dir() or path.is_symlink()]
    left += [path for path in root.rglob("*gradreg*") if path not in left]
    if left:
        sys.exit(f"left after uninstall: {sorted(map(str, left))}")
    print("uninstall: nothing left")


def main():
    build, prefix, version, source, meson, *compilers = sys.argv[1:]
    # meson test points it to the build's own library, which programs would find first.
    os.environ.pop("LD_LIBRARY_PATH", None)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        run([*meson.split(), "install", "-C", build, "--no-rebuild", "--destdir", folder / "root"])
        installed = Installed(folder / "root", prefix)
        check_files(installed, version, build)
        check_hidden(installed)
        for language, compiler in zip(("c", "c++"), compilers):
            text = folder / ("consumer.cpp" if language == "c++" else "consumer.c")
            text.write_text(Path(source).read_text(encoding="utf-8"), encoding="utf-8")
            check_consumer(installed, folder, language, compiler.split(), text, version)
        check_examples(installed, folder, compilers)
        check_python(installed, version)
        check_cmake(installed, folder, Path(source).resolve(), version)
        check_meson(installed, build, folder, source, version, meson.split())
        check_subproject(Path(__file__).resolve().parent.parent, folder, source, version,
                         meson.split())
        check_uninstall(build, folder / "root")


main()
