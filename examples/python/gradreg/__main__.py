"""python -m gradreg info: which library is in use, and what this machine offers."""
from __future__ import annotations

import argparse

from . import Context, Policy, Schedule, backend_available, classify
from ._library import library


def info() -> None:
    """Library, backends, processor, losses."""
    opened = library()
    print(f"library   {opened.version}, {opened.path}")
    if opened.missing:
        print(f"missing   {', '.join(opened.missing)}")
    for backend in ("cpu", "cuda"):
        print(f"{backend:<9} {'available' if backend_available(backend) else 'not available'}")
    with Context() as context:
        found = context.info
        print(f"processor {found.vector_path}, {found.threads} threads")
    print(f"losses    {' '.join(Policy.names())}")


def schedule(layer_count: int) -> None:
    """The default multipliers."""
    for layer, m in enumerate(Schedule.for_depth(layer_count).multipliers(layer_count)):
        print(f"{layer:>5}  {m:.4f}  {'#' * round(40 * m)}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m gradreg")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("info", help=info.__doc__)
    layers = commands.add_parser("schedule", help=schedule.__doc__)
    layers.add_argument("layers", type=int)
    names = commands.add_parser("classify", help="layer and role of parameter names")
    names.add_argument("names", nargs="+")
    options = parser.parse_args()
    if options.command == "info":
        info()
    elif options.command == "schedule":
        schedule(options.layers)
    else:
        for name in options.names:
            layer, role = classify(name)
            print(f"{name}  layer {layer}  {str(role.name).lower()}")


if __name__ == "__main__":
    main()
