#!/usr/bin/env python3
"""The whole study in very small: runs of three arms, stopped on the way and gone on with, then the report.

usage: rehearsal.py STUDY BASE
"""
import importlib.util
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
SIZE = ["--steps", "3", "--prompts", "2", "--samples", "4", "--problems", "8",
        "--checkpoint-every", "1", "--measure-every", "2"]


def campaign(program, base, folder):
    return [sys.executable, HERE / "campaign.py", "--program", program, "--base", base, "--folder", folder,
            "--jobs", "2", "base:1", "grpo:1-2", "depth-noise:1-2", "--", *SIZE]


def expect(holds, sentence):
    if not holds:
        sys.exit(f"FAILED: {sentence}")
    print(f"ok: {sentence}")


def main():
    program, base = sys.argv[1:]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = campaign(program, base, folder)
        first = subprocess.Popen(command)
        while first.poll() is None and not list(folder.glob("*.ckpt")):
            time.sleep(0.02)
        first.send_signal(signal.SIGINT)
        expect(first.wait() in (0, 130), "a stopped campaign says so with its exit status")
        expect(subprocess.run(command, check=False).returncode == 0, "the same command goes on")
        expect(len(list(folder.glob("*.jsonl"))) == 5, "there is a file of records for each run")
        lines = (folder / "depth-noise-2.jsonl").read_text(encoding="utf-8").splitlines()
        expect(sum('"kind":"step"' in line for line in lines) == 3, "no step is there twice")
        expect(not list(folder.glob("*.new")), "nothing half written is left")
        report = [sys.executable, HERE / "report.py", folder, "--table"]
        if importlib.util.find_spec("matplotlib"):
            report += ["--html", folder / "report.html"]
        else:
            print("without matplotlib: no pictures")
        made = subprocess.run(report, check=True, capture_output=True, text=True).stdout
        print(made)
        expect("depth-scaled GR + noise" in made, "the table has a row for each arm")
        if importlib.util.find_spec("matplotlib"):
            page = (folder / "report.html").read_text(encoding="utf-8")
            expect(page.count("<svg") == 8, "the page holds all pictures")
        bad = [sys.executable, HERE / "campaign.py", "--program", program, "--base", base, "--folder",
               folder, "nonsense:1"]
        wrong = subprocess.run(bad, check=False, capture_output=True, text=True)
        expect(wrong.returncode == 1 and "no arm" in wrong.stderr, "a failing run ends the campaign")


main()
