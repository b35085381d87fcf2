"""The pictures of docs/concepts.md.

pictures(figures) yields (name, SVG text). `figures` is a function from the name of a figure to what
docs/pictures/figures.c prints for it: every curve and every number in a picture comes from there.
"""
from math import cos, pi, sin

from svg import Axes, Picture


def rows(text):
    return [[float(word) for word in line.split()] for line in text.splitlines()]


# ---------------------------------------------------------------------- why flat

def minima(figures):
    marks, curves = figures("minima").split("\n\n")
    points = rows(curves.split("\n", 1)[1])
    p = Picture(680, 330, "The same shift of a weight costs much in a sharp minimum and little in "
                          "a flat one; the penalty on the gradient raises the sharp one's walls")
    axes = Axes(p, (40, 24, 620, 250), (-2.2, 3.3), (-0.08, 1.5))
    axes.bottom()
    p.text(652, 296, "weight", "soft", "end")
    p.upright(24, 149, "loss", "soft")
    axes.line([(w, penalized) for w, _, penalized in points], "orange", 2, "6 4")
    axes.line([(w, loss) for w, loss, _ in points], "blue", 2.2)
    for mark in marks.splitlines():
        words = mark.replace(",", "").replace(":", "").split()
        kind, center, away, loss = words[0], float(words[3]), float(words[4]), float(words[9])
        ground, there = axes.at(center, 0), axes.at(center + away, loss)
        corner = axes.at(center + away, 0)
        p.line([ground, corner], "ink", 1.5)
        p.arrow(corner, (there[0], min(there[1], corner[1] - 9)), "ink", 1.5, size=7)
        p.dot(*ground, "blue", 4.5)
        p.text(there[0] + (14 if kind == "sharp" else -6),
               (there[1] + corner[1]) / 2 - (4 if kind == "sharp" else 20), f"+{loss:.2g}",
               anchor="start" if kind == "sharp" else "end", bold=True)
        p.text(ground[0], 296, f"{kind} minimum", "ink", "middle")
        p.text(ground[0], 314, f"shift by {away:g}", "soft", "middle", 12)
    p.line([(392, 46), (422, 46)], "blue", 2.2)
    p.text(430, 50, "loss L")
    p.line([(392, 68), (422, 68)], "orange", 2, "6 4")
    p.text(430, 72, "loss and penalty, L + λ/2 ‖∇L‖²")
    return p


def valley(figures):
    sections, name = {}, None
    for line in figures("valley").splitlines():
        if line[0].isalpha():
            name = line
            sections[name] = []
        else:
            sections[name].append(tuple(float(word) for word in line.split()))
    p = Picture(680, 330, "Two runs of stochastic gradient descent along a valley whose walls get "
                          "gentler to the right: with the regularizer the path leaves the steep "
                          "part")
    axes = Axes(p, (24, 40, 632, 222), (-2.0, 2.8), (-1.35, 1.35))
    for name, points in sections.items():
        if name.startswith("contour"):
            for sign in (1, -1):
                axes.line([(x, sign * y) for x, y in points if -2 <= x <= 2.8], "grid", 1.2)
    p.line([axes.at(-2, 0), axes.at(2.8, 0)], "soft", 1, "2 4")
    axes.line(sections["regularized"], "orange", 1)
    axes.line(sections["plain"], "blue", 1)
    for name, colour in (("regularized", "orange"), ("plain", "blue")):
        end = axes.at(*sections[name][-1])
        p.dot(*end, "paper", 6.5)
        p.dot(*end, colour, 5)
    start = axes.at(*sections["plain"][0])
    p.dot(*start, "ink", 5)
    p.text(start[0] + 10, start[1] - 2, "start")
    p.text(24, 26, "steep walls: sharp", "soft")
    p.text(656, 26, "gentle walls: flat", "soft", "end")
    p.text(340, 26, "lines of equal loss", "soft", "middle")
    p.line([(24, 290), (52, 290)], "blue", 3)
    p.text(60, 294, "plain gradient descent")
    p.line([(240, 290), (268, 290)], "orange", 3)
    p.text(276, 294, "with the gradient-norm penalty: same steps, same batches")
    p.text(24, 314, "The dotted line is the floor: every point on it has the same loss.", "soft",
           size=12)
    return p


# ---------------------------------------------------------------------- finite difference

def vectors(text):
    found = {}
    for line in text.splitlines()[1:]:
        words = line.split()
        found[" ".join(words[:-2])] = (float(words[-2]), float(words[-1]))
    return found


def ellipse(axes, level):
    """(w0^2 + 4 w1^2) / 2 = level, the loss of the figure."""
    a, b = (2 * level) ** 0.5, (level / 2) ** 0.5
    return [axes.at(a * cos(t * pi / 60), b * sin(t * pi / 60)) for t in range(-12, 42)]


def difference(figures):
    v = vectors(figures("difference"))
    p = Picture(680, 370, "Left: the gradient at the weights, a step along it, the gradient there. "
                          "Right: the two gradients from one origin; their difference, enlarged, "
                          "is the correction")
    p.text(24, 28, "1  where the gradients are taken", bold=True)
    p.text(372, 28, "2  what combine makes of them", bold=True)
    left = Axes(p, (24, 44, 300, 300), (0.9, 3.4), (-0.2, 2.3))
    for level in (0.7, 1.3, 2.2, 3.4, 4.9):
        inside = [(x, y) for x, y in ellipse(left, level) if 24 <= x <= 324 and 44 <= y <= 344]
        p.line(inside, "grid", 1.2)
    scale = 0.36  # gradients are drawn shorter than they are
    theta, moved = v["theta"], v["theta'"]

    def along(point, vector):
        return left.at(point[0] + scale * vector[0], point[1] + scale * vector[1])

    size = (v["g1"][0] ** 2 + v["g1"][1] ** 2) ** 0.5
    aside = 0.07 * v["g1"][1] / size, -0.07 * v["g1"][0] / size  # beside the step, not on it
    beside = theta[0] + aside[0], theta[1] + aside[1]
    p.arrow(left.at(*beside), along(beside, v["g1"]), "blue", 2.2)
    p.arrow(left.at(*moved), along(moved, v["g2"]), "purple", 2.2)
    p.line([left.at(*theta), left.at(*moved)], "ink", 4.5)
    p.dot(*left.at(*theta), "ink", 5)
    p.dot(*left.at(*moved), "ink", 5)
    tx, ty = left.at(*theta)
    p.text(tx - 10, ty + 5, "θ", anchor="end", bold=True, size=15)
    mx, my = left.at(*moved)
    p.text(mx - 12, my - 2, "θ′ = θ + ε g1", anchor="end", bold=True)
    gx, gy = along(beside, v["g1"])
    p.text(gx + 6, gy + 14, "g1", "blue", bold=True)
    hx, hy = along(moved, v["g2"])
    p.text(hx + 8, hy + 4, "g2", "purple", bold=True)
    p.text(24, 358, "lines of equal loss; gradients shortened", "soft", size=12)

    right = Axes(p, (372, 60, 284, 284), (-0.15, 3.4), (-0.15, 3.4))
    p.arrow(right.at(-0.15, 0), right.at(3.3, 0), "grid", 1.2)
    p.arrow(right.at(0, -0.15), right.at(0, 3.4), "grid", 1.2)
    origin = right.at(0, 0)
    p.arrow(origin, right.at(*v["g1"]), "blue", 2.2)
    p.arrow(origin, right.at(*v["g2"]), "purple", 2.2)
    p.arrow(right.at(*v["g1"]), right.at(*v["g2"]), "soft", 1.6, "4 3")
    p.arrow(right.at(*v["g1"]), right.at(*v["g_hat"]), "green", 4, size=12)
    p.arrow(origin, right.at(*v["g_hat"]), "orange", 2.6)
    x, y = right.at(*v["g1"])
    p.text(x + 10, y + 14, "g1", "blue", bold=True)
    x, y = right.at(*v["g2"])
    p.text(x + 8, y - 2, "g2", "purple", bold=True)
    p.text(x + 20, y + 28, "g2 − g1 = ε H g", "soft")
    x, y = right.at(*v["g_hat"])
    p.text(x - 22, y - 6, "ĝ", "orange", bold=True, size=15)
    x, y = right.at(v["g1"][0], (v["g1"][1] + v["g_hat"][1]) / 2)
    p.text(x + 22, y + 14, "λ/ε (g2 − g1)", "green", bold=True)
    p.text(372, 358, "the steep direction is turned up most", "soft", size=12)
    return p


# ---------------------------------------------------------------------- schedule

def schedule(figures):
    lines = figures("schedule").splitlines()
    names, values = lines[0].split(), rows("\n".join(lines[1:]))
    p = Picture(680, 350, "The multiplier of each of 36 layers under the five curves")
    axes = Axes(p, (56, 30, 604, 250), (-0.5, 35.5), (0, 1.08))
    axes.ticks(range(0, 36, 5), [0, 0.25, 0.5, 0.75, 1], name=lambda x: f"{x:g}")
    left, top, width, height = axes.frame
    linear = [row[names.index("linear")] for row in values]
    first = next(layer for layer, m in enumerate(linear) if m > 0)
    full = next(layer for layer, m in enumerate(linear) if m == 1)
    for layer, label in ((first, f"first_layer = {first}"), (full, f"full_layer = {full}")):
        x, _ = axes.at(layer - 0.5, 0)
        p.line([(x, top - 8), (x, top + height)], "soft", 1, "3 4")
        p.text(x + 5, top - 2, label, "soft", size=12)
    axes.bottom()
    styles = {"table": ("soft", None), "step": ("pink", "2 3"), "power2": ("green", None),
              "cosine": ("purple", None), "linear": ("blue", None)}
    for name, (colour, dash) in styles.items():
        column = names.index(name)
        points = [axes.at(row[0], row[column]) for row in values]
        p.line(points, colour, 1.4 if name != "linear" else 2, dash)
        for x, y in points:
            p.dot(x, y, colour, 2.6 if name != "linear" else 3.2)
    p.upright(18, 155, "m(layer)", "soft")
    p.text(358, 316, "layer", "soft", "middle")
    x = 56
    for name, label, colour, step in (("linear", "LINEAR (default)", "blue", 150),
                                      ("cosine", "COSINE", "purple", 96),
                                      ("power2", "POWER, 2", "green", 108),
                                      ("step", "STEP", "pink", 76),
                                      ("table", "TABLE, one's own", "soft", 0)):
        p.dot(x + 4, 335, colour, 4)
        p.text(x + 14, 339.5, label)
        x += step
    return p


# ---------------------------------------------------------------------- state machine

def state(p, x, y, name, note, fill):
    p.box(x, y, 124, 52, "soft", fill, 10)
    p.text(x + 62, y + 23, name, anchor="middle", bold=True)
    p.text(x + 62, y + 41, note, "soft", "middle", 12)


def states(_):
    p = Picture(680, 400, "The states of a regularizer and the calls between them")
    state(p, 30, 112, "idle", "weights clean", "greenish")
    state(p, 278, 28, "noisy", "θ + noise", "orangeish")
    state(p, 278, 196, "perturbed", "at θ + δ", "bluish")
    state(p, 526, 196, "mirrored", "at θ − δ", "purplish")
    p.bent_arrow((72, 112), (84, 66), (180, 42), (278, 42), "ink")
    p.text(64, 50, "inject_noise", mono=True, size=12)
    p.bent_arrow((278, 68), (216, 70), (154, 82), (128, 112), "ink")
    p.text(176, 98, "remove_noise", mono=True, size=12)
    p.arrow((340, 80), (340, 196), "blue")
    p.text(350, 132, "perturb", "blue", mono=True, size=12)
    p.arrow((154, 138), (296, 196), "blue")
    p.text(232, 160, "perturb", "blue", mono=True, size=12)
    p.arrow((402, 222), (526, 222), "purple")
    p.text(464, 213, "mirror", "purple", "middle", mono=True, size=12)
    p.text(464, 241, "CENTRAL only", "soft", "middle", 12)
    p.bent_arrow((278, 226), (190, 226), (116, 212), (88, 164), "green", 2.4)
    p.text(166, 209, "combine", "green", bold=True, mono=True, size=12)
    p.bent_arrow((588, 248), (560, 312), (96, 318), (64, 164), "green", 2.4)
    p.text(340, 282, "combine", "green", "middle", bold=True, mono=True, size=12)
    p.text(30, 322, "combine gives the clean weights back and counts a step.", size=12)
    notes = (("combine", "straight from idle or noisy, when extra_passes says 0 (interval)"),
             ("fallback", "from perturbed or mirrored: as combine, with the first gradient alone"),
             ("cancel", "from anywhere: clean weights, no gradient written, no step counted"))
    for i, (call, what) in enumerate(notes):
        p.text(30, 344 + 19 * i, call, mono=True, size=12)
        p.text(98, 344 + 19 * i, what, "soft", size=12)
    return p


# ---------------------------------------------------------------------- noise

def noise(_):
    p = Picture(680, 300, "The order of calls in a step with directional noise, and where the "
                          "weights of the first attention layers are meanwhile")
    rows_at = {"clean": 206, "noisy": 144, "perturbed": 82}
    for name, label in (("clean", "θ"), ("noisy", "θ + noise"), ("perturbed", "θ + noise + δ")):
        y = rows_at[name]
        p.line([(112, y), (664, y)], "grid", 1, "2 4")
        p.text(104, y + 4, label, "soft", "end")
    low, middle, high = rows_at["clean"], rows_at["noisy"], rows_at["perturbed"]
    path = [(120, low), (250, low), (268, middle), (358, middle), (376, high), (478, high),
            (502, low), (656, low)]
    p.line(path, "blue", 2.6)
    work = [(185, low, "rollouts,", "old log-probs"), (313, middle, "backward", "g1"),
            (427, high, "backward", "g2"), (586, low, "optimizer", "step")]
    for x, y, first, second in work:
        p.dot(x, y, "blue", 4.5)
        p.text(x, y + 20, first, anchor="middle", size=12)
        p.text(x, y + 35, second, anchor="middle", size=12)
    p.text(270, 200, "inject_noise", "orange", mono=True, size=12)
    p.text(374, 136, "perturb", "orange", mono=True, size=12)
    p.text(498, 138, "combine", "orange", mono=True, size=12)
    p.bent_arrow((313, 132), (340, 18), (560, 10), (640, 30), "green", 1.6, "5 4")
    p.text(652, 48, "kept: the direction", "green", "end", size=12)
    p.text(652, 64, "of the next step's noise", "green", "end", size=12)
    p.bent_arrow((172, 52), (206, 76), (238, 108), (254, 162), "green", 1.6, "5 4")
    p.text(118, 44, "the last step's g1", "green", size=12)
    p.text(664, 288, "the first layers' attention weights; all others go from θ to θ + δ and back",
           "soft", "end", 12)
    return p


# ---------------------------------------------------------------------- slices

TENSORS = [("attn 0", 0, 70, "blue", "bluish"), ("mlp 0", 70, 110, "orange", "orangeish"),
           ("attn 1", 180, 70, "blue", "bluish"), ("mlp 1", 250, 110, "orange", "orangeish"),
           ("norm", 360, 24, "purple", "purplish")]
RANKS, SLICE = 3, 128


def slices(_):
    p = Picture(680, 282, "A table of five tensors over a flat buffer, cut into slices of three "
                          "ranks: borders fall inside tensors")
    scale, left = 1.55, 64

    def at(element):
        return left + scale * element

    p.text(24, 30,
           "the table, the same on every rank: layer, role, offset and count of each tensor",
           bold=True)
    for name, offset, count, colour, fill in TENSORS:
        p.box(at(offset), 46, scale * count, 38, colour, fill, 4)
        if count > 30:
            p.text(at(offset + count / 2), 63, name, anchor="middle", size=12)
            p.text(at(offset + count / 2), 78, f"{offset}, {count}", "soft", "middle", 11)
        else:
            p.text(at(offset + count / 2), 69, name, anchor="middle", size=11)
    p.text(24, 124, "the flat buffer of weights, gradients or masters, one slice per rank",
           bold=True)
    for rank in range(RANKS):
        begin = rank * SLICE
        y = 140 + 34 * rank
        for _, offset, count, colour, fill in TENSORS:
            low, high = max(offset, begin), min(offset + count, begin + SLICE)
            if low < high:
                p.box(at(low), y, scale * (high - low), 24, colour, fill, 3)
        label = f"rank {rank}: {begin} to {begin + SLICE - 1}"
        if rank < RANKS - 1:
            p.text(at(begin + SLICE) + 8, y + 17, label, "soft", size=12)
            p.line([(at(begin + SLICE), 88), (at(begin + SLICE), 108)], "soft", 1, "3 4")
            p.line([(at(begin + SLICE), 132), (at(begin + SLICE), 236)], "soft", 1, "3 4")
        else:
            p.text(at(begin) - 8, y + 17, label, "soft", "end", 12)
    p.text(24, 266, "Each rank sums its part of a tensor; all_reduce adds up a few numbers per "
                    "layer, never a gradient.", "soft", size=12)
    return p


PICTURES = [minima, valley, difference, schedule, states, noise, slices]


def pictures(figures):
    for draw in PICTURES:
        yield draw.__name__, draw(figures).source()
