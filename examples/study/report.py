#!/usr/bin/env python3
"""Tables and pictures of the runs in a folder.

usage: report.py FOLDER [--table] [--html FILE] [--page FILE] [--command TEXT]

--table   the main table to the terminal
--html    one page with everything in it, pictures too
--page    a Markdown page: what stands between <!-- table: NAME --> (or <!-- setup -->) and <!-- end -->
          is computed anew, and pictures are written as FIGURE.svg next to it. The rest, written by
          people, stays
"""
import argparse
import html
import io
import re
import statistics
import sys
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))
import results  # noqa: E402

CAPTIONS = {
    "learning": "Training reward and accuracy on the way. Bands: ± one standard deviation over seeds.",
    "accuracy": "Accuracy at the end. Ticks are single seeds.",
    "entropy": "How undecided the model is, token by token, when it answers held-out prompts.",
    "diversity": "Eight answers to each held-out prompt. Ticks are single seeds.",
    "trace": "Causal trace: noise of 0.5 RMS in what leaves one layer at the last token of a prompt.",
    "deltas": "Frobenius norm of the change of each projection since the base model.",
    "terms": "What the library reported per layer, first seed. Applied cosine 1 (white): every step reached "
             "the weights as it was meant. Dark: rounding swallowed it.",
    "cost": "Where the time of a step goes.",
}

NOTES = {
    "sampled": "Held-out problems, answers drawn at temperature 1. Rewarded totals: in the domain too, but "
               "totals that reinforcement learning rewards.",
    "greedy": "The same problems, always the likeliest token.",
    "behaviour": "Eight answers to each prompt. Distinct: different runs of two or three tokens among all of "
                 "theirs. With a zero: one of the two numbers is 0. Few carries, many zeros: easy sums.",
    "strength": "docs/concepts.md reads such a report. Applied cosine and first-order ratio should be "
                "near 1.",
    "trace": "Undisturbed, and with noise in what leaves one layer: mean and standard deviation over 30 "
             "trials, averaged over each third of the layers.",
    "cost": "Shares of the processor's time.",
}


def setup(arms, command):
    runs = [run for rows in arms.values() for run in rows]
    start = next((r.start for r in runs if r.start["strength"] > 0), runs[0].start)
    seeds = sorted({run.seed for run in runs if run.arm != "base"})
    lines = [
        f"- Model: {int(start['parameters'])} parameters, {len(start['multipliers'])} layers; multipliers "
        "of λ by depth: " + " ".join(f"{m:.2g}" for m in arms["depth-noise"][0].start["multipliers"])
        if "depth-noise" in arms else
        f"- Model: {int(start['parameters'])} parameters, {len(start['multipliers'])} layers",
        f"- Steps: {int(start['steps'])} of {int(start['prompts'])} prompts x {int(start['samples'])} "
        f"answers; AdamW, rate {start['rate']:g}, clip {start['clip']:g}",
        f"- λ = {start['strength']:g}, ε = {start['epsilon']:g} (raw step along the gradient, forward "
        "difference, full second pass, common clip)",
        f"- Seeds: {', '.join(map(str, seeds))}; libgradreg {start['version']}, vector path "
        f"{start['vector_path']}",
    ]
    if command:
        lines.append(f"- Command: `{command}`")
    return "\n".join(lines) + "\n"


def terminal_table(arms):
    lines = [f"{'':28}{'in domain':>18}{'complete':>18}{'add':>18}{'entropy':>9}{'trigrams':>10}",
             f"{'':28}" + f"{'greedy':>9}{'sampled':>9}" * 3 + f"{'nats':>9}{'distinct':>10}"]
    for arm, runs in arms.items():
        cells = ""
        for which in ("split", "complete", "add"):
            for how in ("greedy", "sampled"):
                cells += f"{100 * statistics.fmean(r.accuracy(which, how) for r in runs):8.1f}%"
        nats = statistics.fmean(v for r in runs for v in r.last("entropy")["mean"] if v is not None)
        trigrams = statistics.fmean(r.last("diversity")["trigrams"] for r in runs)
        lines.append(f"{results.ARMS[arm]:28}{cells}{nats:9.3f}{100 * trigrams:9.1f}%")
    lines += ["", "in domain: write two numbers whose sum is given, which is rewarded; complete: the second of "
              "them;", "add: the sum. Neither of these is rewarded: what they lose was forgotten. distinct: "
              "different", "trigrams among eight answers to a prompt."]
    if all(len(runs) == 1 for runs in arms.values()):
        lines[-1] += " One seed: another may say otherwise."
    return "\n".join(lines)


def picture(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue().decode("utf-8")


def markdown_table_to_html(text):
    rows = [[cell.strip() for cell in line.strip("|").split("|")]
            for line in text.strip().splitlines() if not line.startswith("|:")]
    cells = [["<th>" + html.escape(c) + "</th>" for c in rows[0]]] + \
            [["<td>" + html.escape(c) + "</td>" for c in row] for row in rows[1:]]
    return "<table>" + "".join("<tr>" + "".join(row) + "</tr>" for row in cells) + "</table>"


STYLE = """body{font:15px/1.5 sans-serif;max-width:62em;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse;margin:1em 0;font-size:13px}
th,td{border-bottom:1px solid #ddd;padding:.25em .6em;text-align:right}
th:first-child,td:first-child{text-align:left} svg{max-width:100%;height:auto}
code{background:#f4f4f4} figure{margin:1.5em 0} figcaption{font-size:13px;color:#555}"""

INTRODUCTION = """<p>A small transformer that was taught to write sums is trained on by reinforcement
learning (Dr. GRPO), through libgradreg. In the domain it gets a number and must write two that add up to
it: <code>321=</code> may be answered by <code>050+370.</code>, digits lowest first. Outside the
domain: the first of the two is given (complete), or the sum is asked for (add); neither is ever
rewarded. One seed says what happens, not whether it happens again: docs/study has the report of more
seeds.</p>"""


def write_html(path, arms, drawn, command):
    items = [re.sub("`(.*)`", r"<code>\1</code>", html.escape(line[2:]))
             for line in setup(arms, command).splitlines()]
    lists = "".join(f"<li>{item}</li>" for item in items)
    parts = ["<!doctype html><html lang='en'><meta charset='utf-8'><title>libgradreg: a run</title>",
             f"<style>{STYLE}</style><h1>libgradreg: reinforcement learning, regularized</h1>",
             INTRODUCTION, f"<ul>{lists}</ul>"]
    for name in ("sampled", "greedy", "behaviour", "strength", "trace", "cost"):
        parts.append(markdown_table_to_html(results.TABLES[name](arms)) +
                     f"<figcaption>{NOTES[name]}</figcaption>")
    for name, source in drawn.items():
        source = source[source.index("<svg"):]
        # Names inside a picture must differ from those of the other pictures on the page.
        source = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{name}-", source)
        parts.append(f"<figure>{source}<figcaption>{CAPTIONS[name]}</figcaption></figure>")
    path.write_text("\n".join(parts) + "\n", encoding="utf-8")


def timing_table(folder):
    path = folder / "timing.txt"
    return path.read_text(encoding="utf-8") if path.exists() else "not measured\n"


def write_page(path, folder, arms, drawn, command):
    def block(match):
        name = match["name"]
        text = setup(arms, command) if name == "setup" else timing_table(folder) \
            if name == "table: timing" else results.TABLES[name.removeprefix("table: ")](arms)
        return f"<!-- {name} -->\n\n{text}\n<!-- end -->"
    text = path.read_text(encoding="utf-8")
    text = re.sub(r"<!-- (?P<name>setup|table: \w+) -->.*?<!-- end -->", block, text, flags=re.S)
    path.write_text(text, encoding="utf-8")
    for name, source in drawn.items():
        (path.parent / f"{name}.svg").write_text(source, encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--html", type=Path)
    parser.add_argument("--page", type=Path)
    parser.add_argument("--command", default="")
    options = parser.parse_args()
    arms = results.load(options.folder)
    if not arms:
        sys.exit(f"{options.folder}: no complete run")
    if options.html or options.page:
        from figures import FIGURES
        figures = {name: draw(arms) for name, draw in FIGURES.items()}
        drawn = {name: picture(figure) for name, figure in figures.items() if figure}
    if options.page:
        write_page(options.page, options.folder, arms, drawn, options.command)
    if options.html:
        write_html(options.html, arms, drawn, options.command)
    if options.table:
        print(terminal_table(arms))


main()
