"""What the runs recorded, and tables of it."""
import json
import math
import random
import statistics
from collections import defaultdict
from pathlib import Path

# In the order of all tables and pictures.
ARMS = {
    "base": "base model",
    "grpo": "GRPO",
    "grpo-compute": "GRPO, equal compute",
    "even": "even GR",
    "even-mean": "even GR, mean strength",
    "depth": "depth-scaled GR",
    "depth-noise": "depth-scaled GR + noise",
    "even-strong": "even GR, 3 x strength",
    "even-mean-strong": "even GR, mean of 3 x strength",
    "depth-strong": "depth-scaled GR, 3 x strength",
    "depth-loud": "depth-scaled GR, loud noise",
    "depth-interval": "depth-scaled GR, interval 4",
    "depth-shorthand": "depth-scaled GR, shorthand",
    "depth-bf16": "depth-scaled GR, bf16 forward",
    "grpo-bf16": "GRPO, bf16 forward",
}
SETS = {"split": "in domain", "complete": "outside: complete", "add": "outside: add",
        "split-taught": "rewarded totals"}
PARTS = ("rollouts", "old log-probs", "first pass", "second pass", "regularizer", "optimizer")


class Run:
    def __init__(self, path):
        self.records = defaultdict(list)
        for line in path.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            self.records[record["kind"]].append(record)
        self.start = self.records["start"][0]
        self.arm, self.seed = self.start["arm"], int(self.start["seed"])
        self.complete = bool(self.records["done"])

    def last(self, kind):
        return self.records[kind][-1]

    def accuracy(self, which, how):
        return next(r[how] for r in reversed(self.records["accuracy"]) if r["set"] == which)

    def steps(self, key):
        return [r[key] for r in self.records["step"]]

    def mean(self, key):
        values = [v for v in self.steps(key) if v is not None]
        return statistics.fmean(values) if values else math.nan


def load(folder):
    """arm -> its complete runs, in the order of ARMS, then of seeds."""
    found = defaultdict(list)
    for path in sorted(Path(folder).glob("*-*.jsonl")):
        if path.stem.startswith("timing"):
            continue
        run = Run(path)
        if run.complete and run.arm in ARMS:
            found[run.arm].append(run)
    return {arm: sorted(found[arm], key=lambda run: run.seed) for arm in ARMS if arm in found}


def bootstrap(values, share=0.95, draws=4000):
    """Percentile interval of the mean over seeds."""
    if len(values) < 2:
        return math.nan, math.nan
    draw = random.Random(1)
    means = sorted(statistics.fmean(draw.choices(values, k=len(values))) for _ in range(draws))
    cut = int(draws * (1 - share) / 2)
    return means[cut], means[-1 - cut]


def spread(values):
    return statistics.stdev(values) if len(values) > 1 else math.nan


def table(titles, rows):
    lines = ["| " + " | ".join(titles) + " |", "|:--|" + "--:|" * (len(titles) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def plus_minus(values, decimals=1, factor=100.0):
    values = [factor * v for v in values if v is not None]
    if not values:
        return "-"
    mean = f"{statistics.fmean(values):.{decimals}f}"
    return mean if len(values) < 2 else f"{mean} ± {spread(values):.{decimals}f}"


def with_interval(values):
    low, high = bootstrap([100.0 * v for v in values])
    interval = "" if math.isnan(low) else f" [{low:.1f}, {high:.1f}]"
    return plus_minus(values) + interval


def accuracy_table(arms, how):
    rows = [[ARMS[arm], str(len(runs))] +
            [with_interval([run.accuracy(which, how) for run in runs]) for which in SETS]
            for arm, runs in arms.items()]
    return table(["accuracy in %, " + how, "seeds", *SETS.values()], rows)


def paired_table(arms, against="grpo"):
    """Differences of the same seed: prompts and random numbers are the same there."""
    others = {run.seed: run for run in arms.get(against, [])}
    rows = []
    for arm, runs in arms.items():
        pairs = [(run, others[run.seed]) for run in runs if run.seed in others]
        if arm in (against, "base") or not pairs:
            continue
        rows.append([ARMS[arm], str(len(pairs))] + [
            with_interval([mine.accuracy(which, "sampled") - other.accuracy(which, "sampled")
                           for mine, other in pairs]) for which in ("split", "complete", "add")])
    return table(["sampled accuracy minus that of GRPO, points", "pairs", "in domain",
                  "outside: complete", "outside: add"], rows)


def behaviour_table(arms):
    def of(runs, kind, key, **how):
        return plus_minus([run.last(kind)[key] for run in runs], **how)
    rows = []
    for arm, runs in arms.items():
        entropy = [statistics.fmean(v for v in run.last("entropy")["mean"] if v is not None)
                   for run in runs]
        rows.append([ARMS[arm], plus_minus(entropy, 3, 1.0),
                     of(runs, "diversity", "bigrams"), of(runs, "diversity", "trigrams"),
                     of(runs, "diversity", "answers"), of(runs, "diversity", "zero_terms"),
                     of(runs, "diversity", "carries", decimals=2, factor=1.0)])
    return table(["answers to held-out prompts", "entropy, nats a token", "distinct bigrams, %",
                  "distinct trigrams, %", "different answers, %", "right ones with a zero, %",
                  "carries in right ones"], rows)


def paired_behaviour_table(arms, against="grpo"):
    """As paired_table, of entropy and diversity."""
    def measures(run):
        entropy = statistics.fmean(v for v in run.last("entropy")["mean"] if v is not None)
        diversity = run.last("diversity")
        return 100.0 * entropy, diversity["bigrams"], diversity["trigrams"], diversity["answers"]
    others = {run.seed: measures(run) for run in arms.get(against, [])}
    rows = []
    for arm, runs in arms.items():
        pairs = [(measures(run), others[run.seed]) for run in runs if run.seed in others]
        if arm in (against, "base") or not pairs:
            continue
        columns = [[mine[c] - other[c] for mine, other in pairs] for c in range(4)]
        rows.append([ARMS[arm], str(len(pairs)), with_interval([v / 100.0 for v in columns[0]]),
                     *[with_interval(column) for column in columns[1:]]])
    return table(["minus that of GRPO", "pairs", "entropy, hundredths of a nat",
                  "distinct bigrams, points", "distinct trigrams, points",
                  "different answers, points"], rows)


def trace_table(arms):
    rows = []
    for arm, runs in arms.items():
        thirds = []
        for key in ("mean", "std"):
            for part in range(3):
                values = []
                for run in runs:
                    layers = run.last("trace")[key]
                    n = len(layers)
                    values.append(statistics.fmean(layers[part * n // 3:(part + 1) * n // 3]))
                thirds.append(plus_minus(values, 3, 1.0))
        rows.append([ARMS[arm], plus_minus([r.last("trace")["baseline"] for r in runs], 3, 1.0),
                     *thirds])
    return table(["probability of the right next digit", "undisturbed", "mean: early", "middle",
                  "late", "std: early", "middle", "late"], rows)


def attention_table(arms):
    rows = []
    for arm, runs in arms.items():
        if arm == "base":
            continue
        cells = []
        for part in range(3):
            values = []
            for run in runs:
                layers = run.last("attention")["divergence"]
                n = len(layers)
                values.append(statistics.fmean(layers[part * n // 3:(part + 1) * n // 3]))
            cells.append(plus_minus(values, 2, 1000.0))
        rows.append([ARMS[arm], *cells])
    return table(["Jensen-Shannon divergence of attention from the base model's, thousandths of a nat",
                  "early layers", "middle", "late"], rows)


def over_layers(runs, function):
    """The median over recorded steps of a figure of all layers."""
    values = [function(record) for run in runs for record in run.records["layers"]
              if sum(v or 0.0 for v in record["intended"]) > 0.0 and None not in record["curvature"]]
    return f"{statistics.median(values):.3g}" if values else "-"


def curvature_of(record):
    return statistics.fmean(record["curvature"])


def length_of(record):
    return math.hypot(*record["applied"]) / math.hypot(*record["intended"])


def strength_table(arms):
    rows = []
    for arm, runs in arms.items():
        if runs[0].start["strength"] == 0.0:
            continue
        rows.append([ARMS[arm], f"{runs[0].start['strength']:.3g}",
                     plus_minus([run.mean("share") for run in runs]),
                     plus_minus([run.mean("alignment") for run in runs], 4, 1.0),
                     plus_minus([run.mean("cosine") for run in runs], 4, 1.0),
                     over_layers(runs, length_of), over_layers(runs, curvature_of),
                     plus_minus([run.mean("first_order") for run in runs], 3, 1.0)])
    return table(["means over all steps", "λ", "correction, % of the gradient", "cos(g1, g2)",
                  "applied cosine", "applied / intended length, median", "curvature, median",
                  "first-order ratio"], rows)


def cost_table(arms):
    rows = []
    for arm, runs in arms.items():
        if arm == "base":
            continue
        seconds = [sum(run.steps("processor")) for run in runs]
        parts = [statistics.fmean(sum(r["parts"][p] for r in run.records["step"]) /
                                  sum(run.steps("processor")) for run in runs)
                 for p in range(len(PARTS))]
        rows.append([ARMS[arm], f"{int(runs[0].start['steps'])}",
                     f"{statistics.fmean(seconds):.0f}", *[f"{100 * p:.1f}" for p in parts]])
    return table(["of all steps", "steps", "processor seconds", *[f"{p}, %" for p in PARTS]], rows)


TABLES = {
    "greedy": lambda arms: accuracy_table(arms, "greedy"),
    "sampled": lambda arms: accuracy_table(arms, "sampled"),
    "paired": paired_table,
    "behaviour": behaviour_table,
    "behaviourpairs": paired_behaviour_table,
    "trace": trace_table,
    "attention": attention_table,
    "strength": strength_table,
    "cost": cost_table,
}
