"""Pictures of what the runs recorded. One colour, line style and marker an arm, in all of them, chosen
so that a print in grey can be read too."""
import math
import statistics

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

from results import ARMS, PARTS, SETS, bootstrap, spread  # noqa: E402

STYLES = {  # colour, line style, marker
    "base": ("#777777", (0, (1, 1)), "x"),
    "grpo": ("#000000", "-", "o"),
    "grpo-compute": ("#8a8a8a", "-", "s"),
    "even": ("#c8551b", "--", "^"),
    "even-mean": ("#e8a33d", (0, (5, 2, 1, 2)), "v"),
    "depth": ("#3f8fd2", "-.", "D"),
    "depth-noise": ("#0b3c6f", (0, (6, 1)), "*"),
    "even-strong": ("#7a2c05", (0, (5, 1, 1, 1)), "p"),
    "even-mean-strong": ("#b98a2f", (0, (3, 2, 1, 2, 1, 2)), "8"),
    "depth-strong": ("#1f5f5b", (0, (7, 2)), "d"),
    "depth-loud": ("#9c8412", (0, (8, 2, 1, 2)), "X"),
    "depth-interval": ("#67b7a1", (0, (3, 1, 1, 1, 1, 1)), "P"),
    "depth-shorthand": ("#7b4ea3", (0, (2, 2)), "<"),
    "depth-bf16": ("#b0578d", (0, (4, 3)), ">"),
    "grpo-bf16": ("#555555", (0, (1, 2)), "h"),
}
# Too many lines say nothing: these arms have theirs, the others are in tables and among the points.
MAIN = ("base", "grpo", "even", "depth", "depth-noise")
LINES = (*MAIN, "grpo-compute", "even-strong", "depth-strong")

plt.rcParams.update({
    "font.size": 9, "axes.titlesize": 9, "axes.labelsize": 9, "legend.fontsize": 8,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6, "svg.fonttype": "path", "savefig.bbox": "tight", "svg.hashsalt": "gradreg", "lines.linewidth": 1.6,
    "figure.constrained_layout.use": True,
})


def column_stats(rows):
    """Mean and standard deviation of each column; columns end where the shortest row does."""
    columns = [[v for v in column if v is not None] for column in zip(*rows)]
    mean = [statistics.fmean(c) if c else math.nan for c in columns]
    std = [spread(c) if len(c) > 1 else 0.0 for c in columns]
    return mean, std


def smooth(values, window):
    return [statistics.fmean(values[max(0, i - window + 1):i + 1]) for i in range(len(values))]


def draw_band(axis, arm, x, rows, factor=1.0):
    colour, line, marker = STYLES[arm]
    mean, std = column_stats(rows)
    x = list(x)[:len(mean)]
    mean, std = [factor * m for m in mean], [factor * s for s in std]
    if len(rows) > 1:
        top = factor if factor == 100.0 else math.inf  # no share is above one
        axis.fill_between(x, [max(0.0, m - s) for m, s in zip(mean, std)],
                          [min(top, m + s) for m, s in zip(mean, std)], color=colour, alpha=0.13,
                          linewidth=0)
    axis.plot(x, mean, color=colour, linestyle=line, label=ARMS[arm],
              marker=marker, markersize=4, markevery=max(1, len(x) // 8))


def legend_below(figure, axis):
    figure.legend(*axis.get_legend_handles_labels(), loc="upper center", bbox_to_anchor=(0.5, 0.0),
                  ncol=4, frameon=False)


def seeds_note(arms):
    counts = sorted({len(runs) for arm, runs in arms.items() if arm != "base"})
    return f"{counts[0]} seed" + ("s" if counts[-1] > 1 else "") if len(counts) == 1 else \
        f"{counts[0]} to {counts[-1]} seeds"


def lines_of(arms):
    return {arm: runs for arm, runs in arms.items() if arm in LINES} or arms


def learning(arms):
    """Reward of the steps, and accuracy on the way, in and out of the domain."""
    arms = lines_of(arms)
    figure, axes = plt.subplots(2, 2, figsize=(8.2, 5.6), sharex=True)
    for arm, runs in arms.items():
        if arm == "base":
            continue
        rows = [smooth(run.steps("reward"), 5) for run in runs]
        draw_band(axes[0][0], arm, runs[0].steps("step"), rows, 100.0)
        for axis, which in zip(axes.flat[1:], ("split", "complete", "add")):
            def series(run, which=which):
                return [r for r in run.records["accuracy"] if r["set"] == which]
            start = [run.accuracy(which, "sampled") for run in arms.get("base", [])[:1]]
            steps = [0] * len(start) + [r["step"] for r in series(runs[0])]
            draw_band(axis, arm, steps,
                      [start + [r["sampled"] for r in series(run)] for run in runs], 100.0)
    axes[0][0].set(title="training reward, mean of 5 steps", ylabel="right answers, %")
    for axis, which in zip(axes.flat[1:], ("split", "complete", "add")):
        axis.set(title=f"sampled accuracy, {SETS[which]}", ylabel="right answers, %")
    for axis in axes[1]:
        axis.set_xlabel("step of reinforcement learning")
    legend_below(figure, axes[0][0])
    return figure


def accuracy(arms):
    """Accuracy at the end: seeds, means and bootstrap intervals. Loud noise would be far off."""
    arms = {arm: runs for arm, runs in arms.items() if arm != "depth-loud"} or arms
    figure, axes = plt.subplots(1, 3, figsize=(8.2, 0.9 + 0.34 * len(arms)), sharey=True)
    names = list(arms)
    for axis, which in zip(axes, ("split", "complete", "add")):
        for row, arm in enumerate(names):
            colour, _, marker = STYLES[arm]
            for how, shift, fill in (("sampled", -0.14, colour), ("greedy", 0.14, "white")):
                values = [100.0 * run.accuracy(which, how) for run in arms[arm]]
                low, high = bootstrap(values)
                if not math.isnan(low):
                    axis.plot([low, high], [row + shift] * 2, color=colour, linewidth=1.4)
                axis.plot(values, [row + shift] * len(values), "|", color=colour, markersize=5,
                          alpha=0.6)
                axis.plot([statistics.fmean(values)], [row + shift], marker=marker, color=colour,
                          markerfacecolor=fill, markersize=6, linestyle="none")
        axis.set(title=SETS[which], xlabel="right answers, %")
    axes[0].set_yticks(range(len(names)), [ARMS[arm] for arm in names])
    axes[0].invert_yaxis()
    figure.suptitle("filled: sampled, hollow: greedy; bar: 95 % bootstrap interval of the mean over "
                    f"seeds ({seeds_note(arms)})", fontsize=8)
    return figure


def entropy(arms):
    """Entropy along the answer."""
    arms = lines_of(arms)
    figure, axes = plt.subplots(1, 2, figsize=(8.2, 3.4), sharey=True)
    for axis, key in zip(axes, ("mean", "smooth")):
        for arm, runs in arms.items():
            rows = [run.last("entropy")[key] for run in runs]
            draw_band(axis, arm, range(1, len(rows[0]) + 1), rows)
        axis.set(xlabel="token of the answer", ylim=(0, None))
    axes[0].set(title="as it is (3 digits, +, 3 digits, end)", ylabel="entropy, nats")
    axes[1].set(title="trailing mean of 5 tokens")
    legend_below(figure, axes[0])
    return figure


def diversity(arms):
    """How different the eight answers to one prompt are, and how easy."""
    arms = {arm: runs for arm, runs in arms.items() if arm != "depth-loud"} or arms
    keys = (("bigrams", "distinct bigrams, %"), ("trigrams", "distinct trigrams, %"),
            ("answers", "different answers, %"), ("zero_terms", "right ones with a zero, %"))
    figure, axes = plt.subplots(1, 4, figsize=(8.2, 0.9 + 0.27 * len(arms)), sharey=True)
    names = list(arms)
    for axis, (key, label) in zip(axes, keys):
        for row, arm in enumerate(names):
            colour, _, marker = STYLES[arm]
            values = [100.0 * v for v in (run.last("diversity")[key] for run in arms[arm])
                      if v is not None]
            if not values:
                continue
            axis.plot(values, [row] * len(values), "|", color=colour, markersize=6, alpha=0.6)
            axis.plot([statistics.fmean(values)], [row], marker=marker, color=colour, markersize=6,
                      linestyle="none")
        axis.set_xlabel(label)
    axes[0].set_yticks(range(len(names)), [ARMS[arm] for arm in names])
    axes[0].invert_yaxis()
    return figure


def trace(arms):
    """The causal trace, an arm a picture."""
    shown = [arm for arm in arms if arm in MAIN] or list(arms)
    figure, axes = plt.subplots(1, len(shown), figsize=(1.3 + 1.75 * len(shown), 2.9), sharey=True,
                                squeeze=False)
    for axis, arm in zip(axes[0], shown):
        colour, line, marker = STYLES[arm]
        traces = [run.last("trace") for run in arms[arm]]
        mean, std = (column_stats([t[key] for t in traces])[0] for key in ("mean", "std"))
        low, high = (column_stats([t[key] for t in traces])[0] for key in ("min", "max"))
        layers = range(len(mean))
        axis.fill_between(layers, low, high, color=colour, alpha=0.10, linewidth=0)
        axis.fill_between(layers, [m - s for m, s in zip(mean, std)],
                          [m + s for m, s in zip(mean, std)], color=colour, alpha=0.25, linewidth=0)
        axis.plot(layers, mean, color=colour, linestyle=line, marker=marker, markersize=4)
        axis.axhline(statistics.fmean(t["baseline"] for t in traces), color="#444444", linewidth=0.8,
                     linestyle=":")
        axis.set(title=ARMS[arm], xlabel="noise in what leaves layer", ylim=(0, 1.02),
                 xticks=range(0, len(mean), max(1, len(mean) // 4)))
    axes[0][0].set_ylabel("probability of the right next digit")
    figure.suptitle("dotted: undisturbed; dark band: ± standard deviation over 30 trials, light: least to "
                    "most", fontsize=8)
    return figure


def deltas(arms):
    """How far the weights went, a projection a picture."""
    arms = lines_of(arms)
    names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    figure, axes = plt.subplots(2, 4, figsize=(8.2, 4.6), sharex=True)
    for axis, name in zip(axes.flat, names):
        for arm, runs in arms.items():
            if arm == "base":
                continue
            rows = [next(r["norms"] for r in run.records["delta"] if r["projection"] == name)
                    for run in runs]
            draw_band(axis, arm, range(len(rows[0])), rows)
        axis.set(title=name, ylim=(0, None))
    for axis in axes[:, 0]:
        axis.set_ylabel("norm of the change")
    for axis in axes[1]:
        axis.set_xlabel("layer")
    axes[0][3].set_xlabel("layer")
    axes[0][3].tick_params(labelbottom=True)  # nothing is below it
    axes[1][3].axis("off")
    axes[1][3].legend(*axes[0][0].get_legend_handles_labels(), loc="center", fontsize=7)
    return figure


def terms(arms):
    """What the library said, layer by layer, over training."""
    shown = [arm for arm in ("even", "depth", "depth-noise", "depth-bf16") if arm in arms]
    if not shown:
        return None
    rows = (("share", "correction / gradient", "Greys"),
            ("curvature", "curvature", "Greys"),
            ("cosine", "applied cosine", "Greys_r"))  # dark is what wants looking at
    figure, axes = plt.subplots(len(rows), len(shown), squeeze=False, sharex=True, sharey=True,
                                figsize=(1.6 + 2.2 * len(shown), 5.4))
    for row, (key, label, colours) in enumerate(rows):
        grids = {}
        for arm in shown:
            records = arms[arm][0].records["layers"]
            grids[arm] = [[math.nan if v is None else v for v in r[key]] for r in records]
        flat = sorted(v for grid in grids.values() for line in grid for v in line
                      if not math.isnan(v))
        low, high = (flat[len(flat) // 50], flat[-1 - len(flat) // 50]) if flat else (0, 1)
        low = min(low, 0.0) if key == "share" else low
        if key == "cosine":
            low, high = 0.0, 1.0
        for column, arm in enumerate(shown):
            steps = [r["step"] for r in arms[arm][0].records["layers"]]
            layers = len(grids[arm][0])
            image = axes[row][column].imshow(
                list(zip(*grids[arm])), aspect="auto", origin="lower", cmap=colours, vmin=low,
                vmax=high, interpolation="nearest",
                extent=(steps[0] - 0.5, steps[-1] + 0.5, -0.5, layers - 0.5))
            axes[row][column].grid(False)
            axes[row][column].spines[:].set_visible(True)  # else a picture all white is none
            axes[row][column].set_yticks(range(0, layers, max(1, layers // 4)))
            if row == 0:
                axes[row][column].set_title(ARMS[arm])
        beyond = ("min" if flat and flat[0] < low else "", "max" if flat and flat[-1] > high else "")
        figure.colorbar(image, ax=list(axes[row]), label=label, shrink=0.9,
                        extend="both" if all(beyond) else "".join(beyond) or "neither")
        axes[row][0].set_ylabel("layer")
    for axis in axes[-1]:
        axis.set_xlabel("step")
    return figure


def cost(arms):
    """Where the time went."""
    names = [arm for arm in arms if arm != "base"]
    figure, axis = plt.subplots(figsize=(8.2, 0.9 + 0.3 * len(names)))
    hatches = ("", "////", "", "....", "xxxx", "")
    greys = ("#d9d9d9", "#ffffff", "#9a9a9a", "#c4c4c4", "#000000", "#ececec")
    for row, arm in enumerate(names):
        left = 0.0
        runs = arms[arm]
        steps = sum(len(run.records["step"]) for run in runs)
        for p, part in enumerate(PARTS):
            width = 1e3 * sum(r["parts"][p] for run in runs for r in run.records["step"]) / steps
            axis.barh(row, width, left=left, color=greys[p], edgecolor="#333333", linewidth=0.5,
                      hatch=hatches[p], label=part if row == 0 else None)
            left += width
    axis.set_yticks(range(len(names)), [ARMS[arm] for arm in names])
    axis.invert_yaxis()
    axis.set_axisbelow(True)
    axis.grid(False, axis="y")
    axis.set_xlabel("processor time of a step, ms, mean over the run")
    figure.legend(*axis.get_legend_handles_labels(), loc="upper center", bbox_to_anchor=(0.5, 0.0),
                  ncol=6, frameon=False)
    return figure


FIGURES = {"learning": learning, "accuracy": accuracy, "entropy": entropy, "diversity": diversity,
           "trace": trace, "deltas": deltas, "terms": terms, "cost": cost}
