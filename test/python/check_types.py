#!/usr/bin/env python3
"""mypy --strict over the package.

usage: check_types.py [--without-torch]

--without-torch: PyTorch's own declarations are not read, which takes most of the time; what comes from
it then counts as anything. Exit status 77 (skipped), with a sentence, where there is no mypy.
"""
import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
SKIPPED = 77


def main():
    if importlib.util.find_spec("mypy") is None:
        print("LEFT OUT: there is no mypy (Debian: mypy), the type hints are NOT checked")
        return SKIPPED
    config = (HERE / "mypy.ini").read_text(encoding="utf-8")
    if sys.argv[1:] == ["--without-torch"]:
        config = config.replace("[mypy]\n", "[mypy]\ndisallow_subclassing_any = False\n") + \
            "[mypy-torch.*]\nfollow_imports = skip\nignore_missing_imports = True\n"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mypy.ini"
        path.write_text(config, encoding="utf-8")
        return subprocess.run([sys.executable, "-m", "mypy", "--config-file", path, "--cache-dir", folder,
                               HERE.parent.parent / "examples" / "python" / "gradreg"],
                              check=False).returncode


sys.exit(main())
