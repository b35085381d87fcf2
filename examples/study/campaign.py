#!/usr/bin/env python3
"""Run many runs of the study, some at a time, and go on where an earlier call left off.

usage: campaign.py --program STUDY --base FILE --folder DIR --jobs N RUNS... [-- OPTION VALUE...]

RUNS are ARM:SEEDS, for instance grpo:1-5 or depth-noise:1,3. What comes after -- goes to `study run`.
Every run is a process of one thread that keeps its own checkpoint, so this may be stopped at any time
(Ctrl-C saves and leaves) and called again with the same arguments.
"""
import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

SECONDS_BETWEEN_LINES = 5.0


def seeds_of(text):
    for part in text.split(","):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


class Run:
    def __init__(self, arm, seed, options):
        self.arm, self.seed, self.options = arm, seed, options
        self.records = options.folder / f"{arm}-{seed}.jsonl"
        self.process, self.position, self.step, self.steps = None, 0, 0, None
        self.done = False
        # A regularized step has one more pass forward and back, which is 3 of 7 parts of the work.
        self.weight = 0.05 if arm == "base" else 1.75 if arm == "grpo-compute" else \
            1.0 if arm.startswith("grpo") else 1.2 if arm == "depth-interval" else 1.75

    def start(self):
        o = self.options
        command = [o.program, "run", "--base", o.base, "--folder", str(o.folder), "--arm", self.arm,
                   "--seed", str(self.seed), *o.more]
        environment = dict(os.environ, OPENBLAS_NUM_THREADS="1")
        # A session of its own: Ctrl-C reaches it once, from here.
        self.process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True,
                                        start_new_session=True)

    def look(self):
        """Read what the run has written since the last look."""
        if not self.records.exists():
            return
        with open(self.records, encoding="utf-8") as file:
            file.seek(self.position)
            for line in iter(file.readline, ""):
                if not line.endswith("\n"):
                    break
                self.position = file.tell()
                record = json.loads(line)
                self.steps = record.get("steps", self.steps) if record["kind"] == "start" \
                    else self.steps
                self.step = int(record["step"]) if record["kind"] == "step" else self.step
                self.done |= record["kind"] == "done"

    def share(self):
        if self.done:
            return 1.0
        return 0.97 * self.step / self.steps if self.steps else 0.0

    def __str__(self):
        where = f"step {self.step} of {int(self.steps)}" if self.steps else "starting"
        return f"{self.arm} seed {self.seed}, {where}"


class Campaign:
    def __init__(self, runs, jobs):
        self.runs, self.jobs, self.waiting = runs, jobs, [run for run in runs if not run.done]
        self.running, self.stopping, self.failed = [], False, None
        self.began, self.at_start, self.last_line = time.monotonic(), self.work_done(), 0.0

    def work_done(self):
        return sum(run.weight * run.share() for run in self.runs)

    def say(self, now):
        if now - self.last_line < SECONDS_BETWEEN_LINES or not self.running:
            return
        self.last_line = now
        total, done = sum(run.weight for run in self.runs), self.work_done()
        gained = done - self.at_start
        left = f"about {(now - self.began) * (total - done) / gained:.0f} s left" if gained > 0 \
            else "time left not known yet"
        print(f"{100 * done / total:3.0f} %, {left}: " + "; ".join(map(str, self.running)),
              flush=True)

    def stop(self, *_):
        if not self.stopping:
            print("stopping: every run saves where it is", flush=True)
        self.stopping = True
        for run in self.running:
            run.process.send_signal(signal.SIGINT)

    def collect(self, run):
        """A process has ended."""
        self.running.remove(run)
        message = run.process.stderr.read().strip()
        if run.process.returncode == 0:
            run.look()
            run.done = True
        elif not self.stopping or run.process.returncode != 130:
            self.failed = self.failed or f"{run}: {message or run.process.returncode}"
            self.stop()

    def go(self):
        signal.signal(signal.SIGINT, self.stop)
        signal.signal(signal.SIGTERM, self.stop)
        while self.running or (self.waiting and not self.stopping):
            while self.waiting and len(self.running) < self.jobs and not self.stopping:
                run = self.waiting.pop(0)
                run.start()
                self.running.append(run)
            time.sleep(0.2)
            for run in list(self.running):
                if run.process.poll() is not None:
                    self.collect(run)
                else:
                    run.look()
            self.say(time.monotonic())
        if self.failed:
            print(self.failed, file=sys.stderr)
            return 1
        if self.stopping:
            print("stopped; the same command goes on from here", file=sys.stderr)
            return 130
        return 0


def main():
    arguments = sys.argv[1:]
    more = arguments[arguments.index("--") + 1:] if "--" in arguments else []
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", required=True)
    parser.add_argument("--base", required=True)
    parser.add_argument("--folder", required=True, type=Path)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("runs", nargs="+", metavar="ARM:SEEDS")
    options = parser.parse_args(arguments[:len(arguments) - len(more) - bool("--" in arguments)])
    options.more = more
    try:
        pairs = [(arm, seed) for arm, _, seeds in (run.partition(":") for run in options.runs)
                 for seed in seeds_of(seeds)]
    except ValueError:
        parser.error("runs are ARM:SEEDS, for instance grpo:1-5")
    options.folder.mkdir(parents=True, exist_ok=True)
    # Seed by seed, so that what is there when it is stopped can be compared.
    runs = [Run(arm, seed, options) for arm, seed in sorted(pairs, key=lambda pair: pair[1])]
    for run in runs:
        run.look()
    return Campaign(runs, max(1, options.jobs)).go()


sys.exit(main())
