#!/usr/bin/env python3
"""What the pages show is computed: draws docs/pictures/*.svg, and puts the output of programs into
docs/*.md.

usage: refresh.py [--check] PROGRAM...

A block of plain text (```) or a table that follows a comment

    <!-- output: PROGRAM ARGUMENT... #N -->

is what that program prints; with #N only the N-th paragraph of it (1 is the first). PROGRAM is the
file name of one of the programs on the command line. --check writes nothing: it fails when a page
or a picture differs from what the programs say now by more than the last digit, or a pixel's half.
"""
import re
import subprocess
import sys
from pathlib import Path

sys.dont_write_bytecode = True
DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS / "pictures"))

BLOCK = re.compile(r"(?P<mark><!-- *output: *(?P<command>[^#>]+?)(?: +#(?P<part>\d+))? *-->\n\s*)"
                   r"(?:```\n(?P<text>.*?)^```|(?P<table>(?:^\|[^\n]*\n)+))", re.S | re.M)
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[-+]\d+)?")


class Programs:
    def __init__(self, paths):
        self.paths = {Path(path).stem: path for path in paths}
        self.outputs = {}

    def __call__(self, *command):
        if command[0] not in self.paths:
            sys.exit(f"no program named {command[0]} on the command line")
        if command not in self.outputs:
            run = subprocess.run([self.paths[command[0]], *command[1:]], capture_output=True,
                                 text=True, check=False, encoding="utf-8")
            if run.returncode != 0:
                sys.exit(f"{' '.join(command)}: exit status {run.returncode}: {run.stderr}")
            self.outputs[command] = run.stdout
        return self.outputs[command]


def tolerance(word, pixels):
    """A unit of the last digit that is shown, or half a pixel."""
    if pixels:
        return 0.5
    digits, _, exponent = word.partition("e")
    return 10.0 ** (int(exponent or 0) - len(digits.partition(".")[2])) * 1.01


def alike(old, new, pixels=False):
    """Equal but for the last digit of numbers and for the width of columns."""
    words = [NUMBER.sub("0", " ".join(text.split())) for text in (old, new)]
    return words[0] == words[1] and all(
        abs(float(a) - float(b)) <= max(tolerance(a, pixels), tolerance(b, pixels))
        for a, b in zip(NUMBER.findall(old), NUMBER.findall(new)))


def refreshed(text, programs):
    """The page with every block as the programs print it now, and how many there are."""
    def block(match):
        output = programs(*match["command"].split())
        if match["part"]:
            output = output.split("\n\n")[int(match["part"]) - 1]
        output = "\n".join(line.rstrip() for line in output.strip("\n").split("\n")) + "\n"
        return match["mark"] + (output if match["table"] else f"```\n{output}```")
    return BLOCK.subn(block, text)


def wanted(programs):
    """(file, its text as it ought to be, whether it is a picture)"""
    from draw import pictures
    for name, source in pictures(lambda figure: programs("figures", figure)):
        yield DOCS / "pictures" / f"{name}.svg", source, True
    for page in sorted(DOCS.glob("*.md")):
        text, blocks = refreshed(page.read_text(encoding="utf-8"), programs)
        if blocks:
            yield page, text, False


def main():
    arguments = sys.argv[1:]
    check = "--check" in arguments
    programs = Programs([a for a in arguments if a != "--check"])
    seen, changed = 0, 0
    for path, text, picture in wanted(programs):
        seen += 1
        old = path.read_text(encoding="utf-8") if path.exists() else ""
        if old == text or (check and alike(old, text, picture)):
            continue
        changed += 1
        print(f"docs/{path.relative_to(DOCS)}: " +
              ("differs from what the programs print: ninja pages" if check else "written"))
        if not check:
            path.write_text(text, encoding="utf-8")
    print(f"{seen} pages and pictures, {changed} {'wrong' if check else 'written'}")
    return check and (changed > 0 or seen == 0)


sys.exit(main())
