"""A drawing as SVG text: a few shapes, and colours for light and for dark pages.

Every picture paints its own paper, so that it can be read on any page, also where the page's theme
is not the browser's. Coordinates are pixels with the origin in the upper left corner.
"""
from xml.sax.saxutils import escape

DRAWN_BY = "docs/refresh.py; change docs/pictures/draw.py"
# name: (light, dark)
COLOURS = {
    "paper": ("#ffffff", "#161b22"),
    "ink": ("#1f2328", "#e6edf3"),
    "soft": ("#59636e", "#9ba5af"),
    "grid": ("#d1d9e0", "#3d444d"),
    "shade": ("#f1f4f7", "#212830"),
    "blue": ("#0969da", "#58a6ff"),
    "orange": ("#bc4c00", "#f0883e"),
    "green": ("#1a7f37", "#3fb950"),
    "purple": ("#8250df", "#bc8cff"),
    "pink": ("#bf3989", "#f778ba"),
    "bluish": ("#ddf0ff", "#132f4f"),
    "orangeish": ("#fff1e5", "#4a2a12"),
    "greenish": ("#dafbe1", "#12381f"),
    "purplish": ("#f3eaff", "#34204f"),
}


def number(x):
    """One decimal is enough for a pixel."""
    text = f"{x:.1f}"
    return text[:-2] if text.endswith(".0") else text


class Picture:
    def __init__(self, width, height, title):
        self.width, self.height, self.title = width, height, title
        self.shapes, self.colours = [], {"paper"}

    # ---- shapes

    def add(self, shape):
        self.shapes.append(shape)

    def fill(self, colour):
        self.colours.add(colour)
        return f"f-{colour}"

    def stroke(self, colour):
        self.colours.add(colour)
        return f"s-{colour}"

    def line(self, points, colour, width=1.5, dash=None, closed=False, fill=None):
        """points: [(x, y), ...]"""
        data = "M" + "L".join(f"{number(x)} {number(y)}" for x, y in points)
        classes = self.stroke(colour) + (" " + self.fill(fill) if fill else " none")
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        self.add(f'<path class="{classes}" stroke-width="{number(width)}"{dashes} '
                 f'd="{data}{"Z" if closed else ""}"/>')

    def curve(self, start, control_a, control_b, end, colour, width=1.5, dash=None):
        data = "M{} {}C{} {} {} {} {} {}".format(
            *(number(x) for point in (start, control_a, control_b, end) for x in point))
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        self.add(f'<path class="{self.stroke(colour)} none" stroke-width="{number(width)}"'
                 f'{dashes} d="{data}"/>')

    def box(self, x, y, width, height, colour=None, fill=None, radius=0):
        classes = " ".join([self.stroke(colour) if colour else "unstroked",
                            self.fill(fill) if fill else "none"])
        self.add(f'<rect class="{classes}" x="{number(x)}" y="{number(y)}" '
                 f'width="{number(width)}" height="{number(height)}" rx="{number(radius)}"/>')

    def dot(self, x, y, colour, radius=3.5):
        self.add(f'<circle class="{self.fill(colour)}" cx="{number(x)}" cy="{number(y)}" '
                 f'r="{number(radius)}"/>')

    def head(self, tip, towards, colour, size=9):
        """An arrow's head at `tip`, pointing along the vector `towards`."""
        length = (towards[0] ** 2 + towards[1] ** 2) ** 0.5
        ux, uy = towards[0] / length, towards[1] / length
        base = tip[0] - size * ux, tip[1] - size * uy
        half = size * 0.42
        points = [tip, (base[0] - half * uy, base[1] + half * ux),
                  (base[0] + half * uy, base[1] - half * ux)]
        data = "M" + "L".join(f"{number(x)} {number(y)}" for x, y in points) + "Z"
        self.add(f'<path class="{self.fill(colour)}" d="{data}"/>')

    def arrow(self, start, end, colour, width=1.8, dash=None, size=9):
        towards = end[0] - start[0], end[1] - start[1]
        length = (towards[0] ** 2 + towards[1] ** 2) ** 0.5
        stop = (end[0] - 0.8 * size * towards[0] / length,
                end[1] - 0.8 * size * towards[1] / length)
        self.line([start, stop], colour, width, dash)
        self.head(end, towards, colour, size)

    def bent_arrow(self, start, control_a, control_b, end, colour, width=1.8, dash=None, size=9):
        towards = end[0] - control_b[0], end[1] - control_b[1]
        length = (towards[0] ** 2 + towards[1] ** 2) ** 0.5
        stop = (end[0] - 0.8 * size * towards[0] / length,
                end[1] - 0.8 * size * towards[1] / length)
        self.curve(start, control_a, control_b, stop, colour, width, dash)
        self.head(end, towards, colour, size)

    def text(self, x, y, text, colour="ink", anchor="start", size=13, bold=False, mono=False):
        classes = self.fill(colour) + (" b" if bold else "") + (" m" if mono else "")
        attributes = "" if anchor == "start" else f' text-anchor="{anchor}"'
        if size != 13:
            attributes += f' font-size="{size}"'
        self.add(f'<text class="{classes}" x="{number(x)}" y="{number(y)}"{attributes}>'
                 f"{escape(text)}</text>")

    def upright(self, x, y, text, colour="ink", size=13):
        """Text that is read from below."""
        self.add(f'<text class="{self.fill(colour)}" text-anchor="middle" font-size="{size}" '
                 f'transform="translate({number(x)} {number(y)}) rotate(-90)">'
                 f"{escape(text)}</text>")

    # ---- the file

    def style(self, index):
        rules = []
        for name in sorted(self.colours):
            rules.append(f".f-{name}{{fill:{COLOURS[name][index]}}}")
            rules.append(f".s-{name}{{stroke:{COLOURS[name][index]}}}")
        return "".join(rules)

    def source(self):
        return "\n".join([
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{self.width}" '
            f'height="{self.height}" viewBox="0 0 {self.width} {self.height}" role="img" '
            f'font-family="Helvetica, Arial, sans-serif" font-size="13">',
            f"<title>{escape(self.title)}</title>",
            f"<!-- Drawn by {DRAWN_BY}. -->",
            "<style>.none{fill:none}.unstroked{stroke:none}.b{font-weight:bold}"
            ".m{font-family:monospace}path{stroke-linecap:round;stroke-linejoin:round}"
            f"{self.style(0)}",
            f"@media (prefers-color-scheme:dark){{{self.style(1)}}}</style>",
            f'<rect class="f-paper" width="{self.width}" height="{self.height}" rx="8"/>',
            *self.shapes, "</svg>", ""])


class Axes:
    """A rectangle of a picture with scales: maps (x, y) of the data to pixels."""

    def __init__(self, picture, frame, x_range, y_range):
        self.picture, self.frame = picture, frame
        self.x_range, self.y_range = x_range, y_range

    def at(self, x, y):
        left, top, width, height = self.frame
        (x0, x1), (y0, y1) = self.x_range, self.y_range
        return (left + width * (x - x0) / (x1 - x0), top + height * (y1 - y) / (y1 - y0))

    def inside(self, points):
        """The part of a curve that is within the frame, cut at its upper and lower edge."""
        low, high = self.y_range
        runs, run = [], []
        for previous, point in zip([None, *points], points):
            within = low <= point[1] <= high
            if previous and within != (low <= previous[1] <= high):
                edge = high if max(previous[1], point[1]) > high else low
                share = (edge - previous[1]) / (point[1] - previous[1])
                run.append((previous[0] + share * (point[0] - previous[0]), edge))
                if not within:
                    runs.append(run)
                    run = []
            if within:
                run.append(point)
        return [r for r in [*runs, run] if len(r) > 1]

    def line(self, points, colour, width=1.5, dash=None):
        for run in self.inside(points):
            self.picture.line([self.at(*point) for point in run], colour, width, dash)

    def ticks(self, xs, ys, grid=True, name=str):
        left, top, width, height = self.frame
        for x in xs:
            px, _ = self.at(x, self.y_range[0])
            self.picture.line([(px, top + height), (px, top + height + 4)], "soft", 1)
            self.picture.text(px, top + height + 18, name(x), "soft", "middle", 12)
        for y in ys:
            _, py = self.at(self.x_range[0], y)
            if grid:
                self.picture.line([(left, py), (left + width, py)], "grid", 1)
            self.picture.text(left - 8, py + 4, name(y), "soft", "end", 12)

    def bottom(self):
        left, top, width, height = self.frame
        self.picture.line([(left, top + height), (left + width, top + height)], "soft", 1)
