#!/usr/bin/env python3
"""The documentation as pages: README.md, docs/*.md and what they point to, with navigation, in one
folder that needs neither a server nor a network.

usage: site.py OUTPUT_FOLDER CMARK [API_REFERENCE_FOLDER]
       site.py --check CMARK        build into a temporary folder, and follow every link

CMARK is cmark-gfm, which reads the pages as code hosts do. Links between pages are kept, links to
sources lead to a copy of the source, pictures are copied. With Pygments, code is coloured.
"""
import html
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import unquote

try:
    import pygments
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import get_lexer_by_name, get_lexer_for_filename
    from pygments.util import ClassNotFound
except ImportError:
    pygments = None

ROOT = Path(__file__).resolve().parent.parent

# What the navigation shows, in reading order. A page of docs/ that is in no group is listed at the end.
NAVIGATION = [
    ("Start", ["README.md", "docs/install.md", "docs/faq.md"]),
    ("Guide", ["docs/concepts.md", "docs/numerics.md", "docs/layers.md", "docs/losses.md",
               "docs/monitors.md", "docs/threading.md"]),
    ("Cookbook", ["docs/c.md", "docs/cpp.md", "docs/llmc.md", "docs/rust.md", "docs/python.md",
                  "docs/trl.md", "docs/ranks.md"]),
    ("Evidence", ["docs/benchmarks.md", "docs/study/report.md", "docs/flatness.md", "docs/testing.md",
                  "docs/reliability.md", "docs/cuda.md", "docs/gpu-report.md"]),
    ("Reference", ["API", "docs/abi.md", "CHANGELOG.md"]),
    ("Working on it", ["CONTRIBUTING.md", "docs/maintaining.md", "lib/README.md",
                       "examples/README.md"]),
]
SHORT = {"README.md": "Overview", "API": "API reference", "lib/README.md": "A map of lib/",
         "CONTRIBUTING.md": "Contributing", "examples/README.md": "Examples",
         "docs/faq.md": "Questions", "docs/concepts.md": "The method", "docs/c.md": "C",
         "docs/cpp.md": "C++", "docs/llmc.md": "llm.c and its kind", "docs/rust.md": "Rust",
         "docs/python.md": "Python, PyTorch", "docs/trl.md": "TRL", "docs/ranks.md": "Many ranks",
         "docs/layers.md": "Layers and roles", "docs/abi.md": "What stays compatible",
         "docs/flatness.md": "Flatness, an experiment", "docs/study/report.md": "A study of GRPO"}

STYLE = """
:root { color-scheme: light; --ink: #1f2328; --soft: #59636e; --line: #d1d9e0; --shade: #f6f8fa;
        --blue: #0759b8; }
* { box-sizing: border-box; }
html { font: 16.5px/1.6 "Source Sans 3", "Segoe UI", "Noto Sans", "DejaVu Sans", "Liberation Sans",
       sans-serif; color: var(--ink); background: #fff; scroll-padding-top: 1rem; }
body { margin: 0; display: grid; grid-template-columns: 16rem minmax(0, 1fr); min-height: 100vh; }
nav { border-right: 1px solid var(--line); background: var(--shade); padding: 1.5rem 1.25rem;
      position: sticky; top: 0; height: 100vh; overflow-y: auto; font-size: .92rem; }
nav .name { font-size: 1.2rem; font-weight: 700; color: var(--ink); display: block; }
nav .version { color: var(--soft); display: block; margin-bottom: 1rem; }
nav h2 { font-size: .78rem; letter-spacing: .06em; text-transform: uppercase; color: var(--soft);
         margin: 1.2rem 0 .3rem; border: 0; padding: 0; }
nav ul { list-style: none; margin: 0; padding: 0; }
nav li a { display: block; padding: .14rem .5rem; border-radius: 4px; color: var(--ink); }
nav li a:hover { background: #e7ecf1; text-decoration: none; }
nav li.here > a { background: #dbe9fb; color: var(--blue); font-weight: 600; }
nav li ul { margin: .1rem 0 .4rem .5rem; border-left: 2px solid var(--line); }
nav li li a { color: var(--soft); font-size: .87rem; padding: .08rem .6rem; }
main { padding: 2rem 2.5rem 5rem; max-width: 52rem; width: 100%; }
main.source { max-width: 66rem; }
h1, h2, h3, h4 { line-height: 1.25; margin: 2rem 0 .75rem; }
h1 { font-size: 2rem; margin-top: 0; }
h2 { font-size: 1.45rem; border-bottom: 1px solid var(--line); padding-bottom: .25rem; }
h3 { font-size: 1.15rem; }
a { color: var(--blue); text-decoration: none; }
a:hover { text-decoration: underline; }
h2 a.mark, h3 a.mark { color: var(--line); margin-left: .4rem; visibility: hidden; }
h2:hover a.mark, h3:hover a.mark { visibility: visible; }
code, pre { font-family: "JetBrains Mono", "DejaVu Sans Mono", "Liberation Mono", monospace; }
code { font-size: .86em; background: var(--shade); border-radius: 4px; padding: .12em .32em; }
pre { background: var(--shade); border: 1px solid var(--line); border-radius: 6px; overflow-x: auto;
      padding: .8rem 1rem; font-size: .8rem; line-height: 1.5; }
pre code { background: none; padding: 0; font-size: inherit; }
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .9rem; line-height: 1.45; }
th, td { border: 1px solid var(--line); padding: .35rem .65rem; text-align: left;
         vertical-align: top; }
th { background: var(--shade); }
td[align=right], th[align=right] { text-align: right; font-variant-numeric: tabular-nums; }
img { max-width: 100%; height: auto; display: block; margin: 1.2rem auto; }
blockquote { margin: 1rem 0; padding: .1rem 1rem; border-left: 4px solid var(--line);
             color: var(--soft); }
footer { margin-top: 3rem; padding-top: .8rem; border-top: 1px solid var(--line);
         color: var(--soft); font-size: .9rem; display: flex; justify-content: space-between; }
@media (max-width: 56rem) {
  body { display: flex; flex-direction: column; }
  nav { position: static; height: auto; width: auto; order: 2; border-right: 0;
        border-top: 1px solid var(--line); }
  main { padding: 1.5rem 1.25rem 4rem; }
}
"""

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} - libgradreg</title>
<link rel="stylesheet" href="{up}style.css">
</head>
<body>
<nav>
<a class="name" href="{up}index.html">libgradreg</a>
<span class="version">{version}</span>
{navigation}
</nav>
<main{kind}>
{body}
{footer}</main>
</body>
</html>
"""


def version():
    text = (ROOT / "meson.build").read_text(encoding="utf-8")
    return re.search(r"^  version: '([^']+)'", text, re.M)[1]


def anchor(title, seen):
    """The name that code hosts give a heading."""
    plain = html.unescape(re.sub(r"<[^>]+>", "", title)).strip().lower()
    name = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
    count = seen.setdefault(name, 0)
    seen[name] += 1
    return f"{name}-{count}" if count else name


class Site:
    def __init__(self, output, cmark, api=None):
        self.output, self.cmark, self.api = Path(output), cmark, api
        self.pages = self.find_pages()
        self.sources = set()
        self.titles = {page: self.title_of(page) for page in self.pages}

    @staticmethod
    def find_pages():
        listed = [page for _, group in NAVIGATION for page in group if page != "API"]
        more = [f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))]
        more += [str(path.relative_to(ROOT)) for path in sorted((ROOT / "examples").rglob("README.md"))
                 if "target" not in path.parts]
        return list(dict.fromkeys(page for page in listed + more if (ROOT / page).exists()))

    @staticmethod
    def title_of(page):
        found = re.search(r"^# +(.+)$", (ROOT / page).read_text(encoding="utf-8"), re.M)
        return found[1].replace("`", "") if found else page

    def address(self, page):
        """Where a page of the tree lies in the site."""
        if page == "API":
            return "api/index.html"
        if page == "README.md":
            return "index.html"
        return page.removeprefix("docs/").replace("/", "-").removesuffix(".md").lower() + ".html"

    def copy_reference(self):
        """Doxygen's pages, with a way back."""
        shutil.copytree(self.api, self.output / "api", dirs_exist_ok=True)
        for page in (self.output / "api").rglob("*.html"):
            text = page.read_text(encoding="utf-8")
            up = "../" * len(page.relative_to(self.output / "api").parts)
            page.write_text(text.replace(
                '<div id="projectname">libgradreg',
                f'<div id="projectname"><a href="{up}index.html">libgradreg</a>', 1),
                encoding="utf-8")

    # ---- text

    def convert(self, text):
        done = subprocess.run([self.cmark, "--unsafe", "-e", "table", "-e", "strikethrough"],
                              input=text, capture_output=True, text=True, check=True,
                              encoding="utf-8")
        return done.stdout

    def with_anchors(self, body):
        seen, found = {}, []

        def heading(match):
            level, title = match[1], match[2]
            name = anchor(title, seen)
            found.append((int(level), name, title))
            mark = f'<a class="mark" href="#{name}">#</a>' if level in "23" else ""
            return f'<h{level} id="{name}">{title}{mark}</h{level}>'
        return re.sub(r"<h([1-6])>(.*?)</h\1>", heading, body, flags=re.S), found

    def coloured(self, body):
        def block(match):
            if pygments is None:
                return match[0]
            text = html.unescape(match[2])
            try:
                lexer = get_lexer_by_name(match[1], stripnl=False)
            except ClassNotFound:
                return match[0]
            inner = pygments.highlight(text, lexer, HtmlFormatter(nowrap=True))
            return f'<pre class="code"><code>{inner}</code></pre>'
        return re.sub(r'<pre><code class="language-([\w+-]+)">(.*?)</code></pre>', block, body,
                      flags=re.S)

    def target(self, page, link):
        """A link of a page as the site has it; sources that are pointed to are noted."""
        path, _, fragment = link.partition("#")
        if re.match(r"[a-z]+:", link) or not path:
            return link
        place = (ROOT / page).parent / unquote(path)
        try:
            name = str(place.resolve().relative_to(ROOT))
        except ValueError:
            return link
        if place.is_dir():
            readme = f"{name}/README.md"
            if readme in self.pages:
                return self.address(readme)
            self.sources.add(name)
            return f"source/{name.replace('/', '-')}.html"
        end = f"#{fragment}" if fragment else ""
        if name in self.pages:
            return self.address(name) + end
        if name.startswith("docs/pictures/") and name.endswith(".svg"):
            return name.removeprefix("docs/")
        self.sources.add(name)
        return f"source/{name.replace('/', '-')}.html"

    def with_links(self, page, body):
        return re.sub(r'(?<= )(href|src)="([^"]+)"',
                      lambda m: f'{m[1]}="{self.target(page, html.unescape(m[2]))}"', body)

    # ---- pages

    def navigation(self, here, headings, up):
        groups = [(title, list(group)) for title, group in NAVIGATION]
        listed = {page for _, group in groups for page in group}
        rest = [page for page in self.pages if page not in listed and page.startswith("docs/")]
        if rest:
            groups.append(("More", rest))
        lines = []
        for title, group in groups:
            shown = [page for page in group
                     if page in self.pages or (page == "API" and self.api is not None)]
            if not shown:
                continue
            lines.append(f"<h2>{title}</h2>\n<ul>")
            for page in shown:
                name = SHORT.get(page) or re.split(r"[:,]", self.titles.get(page, page))[0]
                kind = ' class="here"' if page == here else ""
                lines.append(f'<li{kind}><a href="{up}{self.address(page)}">{html.escape(name)}</a>')
                inner = [(name, text) for level, name, text in headings if level == 2]
                if page == here and len(inner) > 1:
                    lines.append("<ul>" + "".join(
                        f'<li><a href="#{name}">{re.sub("<[^>]+>", "", text)}</a></li>'
                        for name, text in inner) + "</ul>")
                lines.append("</li>")
            lines.append("</ul>")
        return "\n".join(lines)

    def footer(self, page):
        order = [one for _, group in NAVIGATION for one in group if one in self.pages]
        if page not in order:
            return ""
        at, parts = order.index(page), []
        for step, sign in ((-1, "← {}"), (1, "{} →")):
            near = at + step
            if 0 <= near < len(order):
                name = SHORT.get(order[near]) or self.titles[order[near]]
                parts.append(f'<a href="{self.address(order[near])}">{html.escape(sign.format(name))}'
                             "</a>")
            else:
                parts.append("<span></span>")
        return f"<footer>{''.join(parts)}</footer>\n"

    def write(self, address, title, body, here=None, headings=(), kind="", footer=""):
        up = "../" * address.count("/")
        place = self.output / address
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(PAGE.format(
            title=html.escape(title), up=up, version=version(), body=body, kind=kind, footer=footer,
            navigation=self.navigation(here, headings, up)), encoding="utf-8")

    def write_page(self, page):
        body = self.convert((ROOT / page).read_text(encoding="utf-8"))
        body, headings = self.with_anchors(body)
        body = self.with_links(page, self.coloured(body))
        body = re.sub(r"<td.*?</td>", lambda cell: re.sub(r"(?<=\d) (?=%)", "\N{NO-BREAK SPACE}", cell[0]), body,
                      flags=re.S)
        body = body.replace("<table>", '<div class="scroll"><table>').replace(
            "</table>", "</table></div>")
        self.write(self.address(page), self.titles[page], body, page, headings,
                   footer=self.footer(page))

    def write_source(self, name):
        place = ROOT / name
        if place.is_dir():
            inner = sorted(path for path in place.iterdir() if path.is_file())
            self.sources.update(str(path.relative_to(ROOT)) for path in inner)
            body = "<ul>" + "".join(
                f'<li><a href="{str(path.relative_to(ROOT)).replace("/", "-")}.html">{path.name}</a></li>'
                for path in inner) + "</ul>"
        else:
            text = place.read_text(encoding="utf-8", errors="replace")
            body = html.escape(text)
            if pygments is not None:
                try:
                    lexer = get_lexer_for_filename(place.name, stripnl=False)
                    body = pygments.highlight(text, lexer, HtmlFormatter(nowrap=True))
                except ClassNotFound:
                    pass
            body = f'<pre class="code"><code>{body}</code></pre>'
        self.write(f"source/{name.replace('/', '-')}.html", name,
                   f"<h1>{html.escape(name)}</h1>\n{body}", kind=' class="source"')

    def build(self):
        self.output.mkdir(parents=True, exist_ok=True)
        colours = HtmlFormatter(style="default").get_style_defs("pre.code") if pygments else ""
        (self.output / "style.css").write_text(STYLE + colours, encoding="utf-8")
        shutil.copytree(ROOT / "docs/pictures", self.output / "pictures", dirs_exist_ok=True,
                        ignore=lambda _, names: [n for n in names if not n.endswith(".svg")])
        if self.api is not None:
            self.copy_reference()
        for page in self.pages:
            self.write_page(page)
        done = set()
        while self.sources - done:
            name = sorted(self.sources - done)[0]
            done.add(name)
            if (ROOT / name).exists():
                self.write_source(name)
        return len(self.pages), len(done)


def check_links(output):
    """Every link inside the site leads to a file and, with a fragment, to a place in it."""
    broken, count, ids = [], 0, {}

    def names(path):
        if path not in ids:
            ids[path] = set(re.findall(r'\bid="([^"]+)"', path.read_text(encoding="utf-8")))
        return ids[path]
    for page in sorted(output.rglob("*.html")):
        if (output / "api") in page.parents:
            continue
        text = page.read_text(encoding="utf-8")
        for link in re.findall(r' (?:href|src)="([^"]+)"', text):
            if re.match(r"(https?|mailto):", link):
                if re.search(rf'<(link|img|script)[^>]*"{re.escape(link)}"', text):
                    broken.append(f"{page.name}: loads {link} from the network")
                continue
            count += 1
            path, _, fragment = html.unescape(link).partition("#")
            place = (page.parent / unquote(path)).resolve() if path else page.resolve()
            if not place.exists():
                broken.append(f"{page.relative_to(output)}: no {link}")
            elif fragment and unquote(fragment) not in names(place):
                broken.append(f"{page.relative_to(output)}: no place {link}")
    return count, broken


def check(cmark):
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder).resolve()
        pages, sources = Site(folder, cmark).build()
        count, broken = check_links(folder)
    for line in broken:
        print(line)
    print(f"{pages} pages, {sources} sources, {count} links, {len(broken)} broken")
    return bool(broken) or count == 0


def main():
    if len(sys.argv) == 3 and sys.argv[1] == "--check":
        if not sys.argv[2]:
            print("LEFT OUT: there is no cmark-gfm (Debian: cmark-gfm), links are NOT checked")
            return 77
        return check(sys.argv[2])
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    output = Path(sys.argv[1])
    shutil.rmtree(output, ignore_errors=True)
    pages, sources = Site(*sys.argv[1:]).build()
    count, broken = check_links(output.resolve())
    print("\n".join(broken + [f"{output / 'index.html'}: {pages} pages, {sources} sources, {count} links"]))
    return bool(broken)


sys.exit(main())
