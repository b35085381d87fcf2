#!/usr/bin/env python3
"""Every claim of the pages and of the header has something that holds it.

usage: check_claims.py [--write] SOURCE_ROOT BUILD_ROOT

test/claims.txt lists them, page by page and section by section:

    page docs/faq.md
    ## Which strength?
    The paper uses 1e-3 to 1e-2
        source: arXiv:2602.18037
    no claim: advice

A line that is not indented quotes the page; what holds the claim stands below it, indented, a line each:

    PROGRAM: name name   tests by these names, in the sources of that test of the build
    PROGRAM "words"      these words, in the sources of that test: a message, an expectation
    PROGRAM              that test of the build as a whole
    PAGE "words"         these words, on a page that a program writes or compares (tools/..., docs/...)
    fault NAME           a seeded fault in test/mutants that must be noticed
    tools/NAME           a command of the project that a person runs
    source: TEXT         where others say so

Fails when the words are no longer in the section, when a test, page, fault or command is not there, and
when a section with text has neither a claim nor a line that begins with "no claim:". Quotes are compared
without *, `, | and line breaks. Last it damages what it has read in each of these ways, and fails unless
each is noticed. --write gives tests that have moved to another program that program's name.
"""
import json
import re
import shlex
import sys
from pathlib import Path

# What the library calls and can fail: a page of its own, a section for each call and file, which says how
# often; for lib/cuda one for the folder, which does not. A new one wants a test that lets it fail.
FALLIBLE = "calls that can fail"
CALL = re.compile(r"^[ \t].*?\b([cm]alloc|realloc|aligned_alloc|posix_memalign|realpath|dladdr|dlopen|dlsym|"
                  r"pthread_(?:create|mutex_init|cond_init|sigmask|atfork|once)|sched_getaffinity|sysconf|"
                  r"gradreg_i_allocate|gradreg_i_scratch|all_reduce\.function|allocator->allocate|"
                  r"cuda(?!GetLast|GetError|PeekAt)[A-Z]\w+|GR_LAUNCH|blas\.\w+)\(", re.M)
PAGES = ["README.md", "include/gradreg.h", "docs/*.md"]
# Written by a program as a whole: what they hold is what was measured.
GENERATED = {"docs/benchmarks.md": "tools/bench", "docs/reliability.md": "tools/reliability",
             "docs/gpu-report.md": "tools/gpu_check"}
TEST = r"(?:START_TEST\(\s*|^\s*def |^\s*(?:async )?fn ){}\b"


def plain(text):
    return " ".join(re.sub(r"[*`|]|^ *\*/?", " ", text, flags=re.M).split())


def sections(path, text):
    """{heading: its own text}; the part before the first heading is called "top"."""
    mark = r"^/\* =+ (.+?) \*/$" if path.endswith(".h") else r"^(#+ .+)$"
    found, heading, fenced = {"top": []}, "top", False
    for line in text.splitlines():
        fenced ^= line.startswith("```")
        match = None if fenced else re.match(mark, line)
        if match:
            heading = match[1] if match[1].startswith("#") else f"# {match[1]}"
            if heading in found:
                sys.exit(f"{path}: two sections are called {heading}")
            found[heading] = []
        else:
            found[heading].append(line)
    return {heading: plain("\n".join(lines)) for heading, lines in found.items()}


class Build:
    """Tests by name, and the sources of each."""

    def __init__(self, root, build):
        self.root = root
        read = lambda name: json.loads((build / "meson-info" / name).read_text(encoding="utf-8"))
        self.programs = {name: target for target in read("intro-targets.json")
                         for name in target["filename"]}
        self.tests = {}
        for test in read("intro-tests.json"):
            self.tests.setdefault(test["name"], []).extend(self.sources_of(test["cmd"]))
        self.meson = "\n".join(path.read_text(encoding="utf-8") for folder in ("test", "docs", "examples")
                               for path in sorted((root / folder).rglob("meson.build")))
        self.texts = {}

    def sources_of(self, command):
        for word in map(str, command):
            if word in self.programs:
                for group in self.programs[word]["target_sources"]:
                    yield from map(Path, group.get("sources", []))
            path = Path(word)
            if path.suffix == ".py" and not path.is_absolute():
                path = self.root / "test" / "python" / path
            if path.suffix in (".py", ".rs") and path.is_file():
                yield path
            if path.name == "check_rust.py":
                yield from (self.root / "examples/rust/gradreg/tests").glob("*.rs")

    def knows(self, name):
        """A test that this build leaves out for want of a tool is in a meson.build all the same, its name
        in one piece or put together of two."""
        pieces = [(name,)] + [(name[:i], name[i:]) for i in range(1, len(name))]
        return name in self.tests or any(all(f"'{piece}'" in self.meson for piece in parts)
                                         for parts in pieces)

    def text(self, name):
        """None where this build leaves the test out."""
        if name not in self.tests:
            return None
        if name not in self.texts:
            self.texts[name] = "\n".join(path.read_text(encoding="utf-8", errors="replace")
                                         for path in self.tests[name] if path.is_file())
        return self.texts[name]

    def having(self, test):
        return [name for name in self.tests
                if re.search(TEST.format(re.escape(test)), self.text(name), re.M)]


class Claims:
    def __init__(self, root, build):
        self.root, self.build = root, build
        self.pages = {}
        for pattern in PAGES:
            for path in sorted(root.glob(pattern)):
                name = str(path.relative_to(root))
                if name not in GENERATED:
                    self.pages[name] = sections(name, path.read_text(encoding="utf-8"))
        self.pages[FALLIBLE] = self.fallible()
        self.held = set()

    def fallible(self):
        found = {}
        for path in sorted((self.root / "lib").rglob("*.c*")):
            text = re.sub(r"/\*.*?\*/|^#define.*?(?<!\\)$", "", path.read_text(encoding="utf-8"),
                          flags=re.M | re.S)
            place = path.relative_to(self.root)
            place = place.parent if place.parent.name == "cuda" else place
            for call in CALL.findall(text):
                found.setdefault(f"## {place} {call}", []).append(call)
        return {heading: "called" if "/cuda " in heading else f"calls: {len(calls)}"
                for heading, calls in found.items()}

    def holds(self, evidence):
        """None, or what is wrong with it."""
        root, build = self.root, self.build
        if evidence.startswith("source: "):
            return None
        if evidence.startswith("fault "):
            found = (root / "test/mutants" / f"{evidence[6:]}.patch").is_file()
            return None if found else "no such seeded fault"
        quoted = re.fullmatch(r'(\S+) "(.+)"', evidence)
        name = quoted[1] if quoted else evidence.split(":")[0]
        if "/" in name:
            path = root / name
            if not path.is_file():
                return "no such file"
            if quoted and plain(quoted[2]) not in plain(path.read_text(encoding="utf-8")):
                return "the words are not there"
            return None
        if not build.knows(name):
            return "no such test"
        text = build.text(name)
        self.held.add(name)
        if text is None:
            return None
        if quoted:
            return None if plain(quoted[2]) in plain(text) else "the words are not in its sources"
        for test in evidence.partition(":")[2].split():
            if not re.search(TEST.format(re.escape(test)), text, re.M):
                return f"no test {test} in it, but in: {' '.join(build.having(test)) or 'none'}"
            self.held.add((name, test))
        return None

    def check(self, lines):
        """[what is wrong], number of claims"""
        wrong, claims, page, heading = [], 0, None, None
        seen, waiting = set(), None
        for number, line in enumerate([*lines, "page -"], 1):
            say = lambda what, at=number: wrong.append(f"claims.txt:{at}: {what}")
            if not line.strip() or line.startswith("//"):
                continue
            if line[0] != " " and waiting:
                say(f"nothing holds the line above: {waiting}")
                waiting = None
            if line.startswith("page "):
                page, heading = line[5:], "top"
                if page not in self.pages and page != "-":
                    say(f"no page {page}")
            elif line.startswith("#"):
                heading = line
                if heading not in self.pages.get(page, {}):
                    say(f"{page} has no section {heading}")
            elif line[0] == " ":
                problem = self.holds(line.strip())
                waiting = None
                if problem:
                    say(f"{line.strip()}: {problem}")
            else:
                seen.add((page, heading))
                if line.startswith("no claim: "):
                    continue
                claims += 1
                waiting = line
                if plain(line) not in self.pages.get(page, {}).get(heading, ""):
                    say(f"no longer on {page}, {heading}: {line}")
        for page, parts in self.pages.items():
            for heading, text in parts.items():
                if text and (page, heading) not in seen:
                    wrong.append(f"{page}: nothing is said about {heading}")
        return wrong, claims


def damages(lines, build):
    """(what was done, the lines after it)"""
    claim = next(i for i, line in enumerate(lines) if line[:1].isalpha() and "page " not in line[:5]
                 and not line.startswith("no claim"))
    test = next((i for i, line in enumerate(lines) if re.match(r" +[\w-]+: \w+$", line) and
                 build.text(line.partition(":")[0].strip()) is not None), None)
    heading = next(i for i, line in enumerate(lines) if line.startswith("##"))
    after = next(i for i in range(heading + 1, len(lines)) if lines[i].startswith(("#", "page ")))
    yield "words changed", [*lines[:claim], lines[claim] + " not", *lines[claim + 1:]]
    if test is not None: # this build has programs at all
        yield "a test renamed", [*lines[:test], lines[test] + "_no_more", *lines[test + 1:]]
    yield "what holds a claim gone", [*lines[:claim + 1], *lines[after:]]
    yield "a section left out", [*lines[:heading], *lines[after:]]
    yield "a seeded fault that is none", [*lines, *lines[claim:claim + 1], "    fault of_nobody"]
    yield "a page that is none", [*lines, "page docs/of_nobody.md"]


def moved(build, line):
    """The line, or lines, with each test in a program that has it."""
    match = re.fullmatch(r"( +)([\w-]+): ([\w ]+)", line)
    if not match or match[2] == "source" or build.text(match[2]) is None:
        return [line]
    homes = {}
    for test in match[3].split():
        having = build.having(test)
        home = match[2] if match[2] in having or len(having) != 1 else having[0]
        homes.setdefault(home, []).append(test)
    return [f"{match[1]}{home}: {' '.join(tests)}" for home, tests in homes.items()]


def main():
    root, build = map(Path, sys.argv[-2:])
    claims = Claims(root, Build(root, build))
    path = root / "test" / "claims.txt"
    lines = path.read_text(encoding="utf-8").splitlines()
    if sys.argv[1] == "--write":
        lines = [new for line in lines for new in moved(claims.build, line)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    wrong, count = claims.check(lines)
    print("\n".join(wrong))
    tests = sum(isinstance(one, tuple) for one in claims.held)
    programs = sum(isinstance(one, str) for one in claims.held)
    print(f"{count} claims on {len(claims.pages)} pages, traced to {tests} tests by name in "
          f"{programs} programs, {len(wrong)} wrong")
    if wrong:
        return 1
    for what, damaged in damages(lines, claims.build):
        if not claims.check(damaged)[0]:
            print(f"not noticed: {what}")
            wrong.append(what)
    return bool(wrong)


sys.exit(main())
