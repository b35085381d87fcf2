"""Finding and opening the shared library; every call of it goes through `call`."""
from __future__ import annotations

import ctypes
import os
import threading
from pathlib import Path
from typing import Any, Optional

from . import _bindings as b
from .errors import OF_STATUS, Error, InvalidArgumentError, UnsupportedError

NAME = "libgradreg.so.0"
_lock = threading.Lock()
_opened: Optional["Library"] = None


class Library:
    """The loaded library with every function of the header declared; older ones may lack some."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.handle = ctypes.CDLL(path)
        self.missing = []
        for name, (result, arguments) in b.FUNCTIONS.items():
            function = getattr(self.handle, name, None)
            if function is None:
                self.missing.append(name)
                continue
            function.restype, function.argtypes = result, arguments
        self.version: str = self.handle.gradreg_version().decode()
        if int(self.version.split(".", maxsplit=1)[0]) != b.HEADER_VERSION[0]:
            raise ImportError(f"{path} is version {self.version}, this package is made for "
                              f"{'.'.join(map(str, b.HEADER_VERSION))}")

    def function(self, name: str) -> Any:
        if name in self.missing or name not in b.FUNCTIONS:
            raise UnsupportedError(f"{name}: not in the installed library {self.version}, {self.path}")
        return getattr(self.handle, name)


def _candidates() -> list[str]:
    """GRADREG_LIBRARY; the library that the wheel carries; wherever the system finds it."""
    chosen = os.environ.get("GRADREG_LIBRARY")
    if chosen:
        if not os.path.isabs(chosen):
            raise ImportError(f"GRADREG_LIBRARY must be an absolute path, not {chosen!r}")
        return [chosen]
    inside = Path(__file__).resolve().parent / "lib" / NAME
    return [str(inside)] if inside.exists() else [NAME]


def library() -> Library:
    """The library, opened once."""
    global _opened  # pylint: disable=global-statement
    with _lock:
        if _opened is None:
            path = _candidates()[0]
            try:
                _opened = Library(path)
            except OSError as error:
                raise ImportError(f"{path} could not be opened ({error}). Install libgradreg, or say "
                                  "where it is with GRADREG_LIBRARY=/absolute/path") from error
        return _opened


def last_error() -> str:
    sentence: bytes = library().function("gradreg_last_error")()
    return sentence.decode("utf-8", "replace")


def error_of(status: int) -> Error:
    """The exception for a failure that this thread has just had."""
    error = OF_STATUS.get(status, Error)(last_error())
    error.status = status
    return error


def call(name: str, *arguments: Any) -> None:
    """Call gradreg_NAME and raise what it reports."""
    function = library().function("gradreg_" + name)
    try:
        status = function(*arguments)
    except ctypes.ArgumentError as error:
        raise InvalidArgumentError(f"gradreg_{name}: {error}") from error
    if status != b.GRADREG_OK:
        raise error_of(status)


def initialised(kind: Any) -> Any:
    """A struct with the library's defaults."""
    struct = kind()
    call(kind.__name__[len("gradreg_"):] + "_init", ctypes.byref(struct), ctypes.sizeof(struct))
    return struct


def version() -> str:
    """Version of the library in use, e.g. "0.1.0"."""
    return library().version
