"""A context: a backend, its threads, its stream."""
from __future__ import annotations

import ctypes
import logging
import threading
import weakref
from dataclasses import dataclass
from typing import Any, Callable, Optional, Union

from . import _bindings as b
from ._library import call, initialised, library
from ._values import EnumLike, as_enum
from .errors import Handle, InvalidArgumentError, StateError

logger = logging.getLogger("gradreg")
_LEVELS = {b.LogLevel.ERROR: logging.ERROR, b.LogLevel.WARNING: logging.WARNING,
           b.LogLevel.INFO: logging.INFO}
LogCallback = Callable[[b.LogLevel, str], None]


@dataclass(frozen=True)
class ContextInfo:
    """What a context turned out to be."""
    backend: b.Backend
    device: int
    threads: int
    bytes_held: int
    allocations: int
    device_name: str
    vector_path: str


def _to_logging(level: b.LogLevel, message: str) -> None:
    logger.log(_LEVELS.get(level, logging.INFO), "%s", message)


class Context(Handle):
    """Opens a backend: Context(), Context(threads=4), Context("cuda", device=1).

    Remarks of the library (a mode that does nothing useful, a dropped correction) go to the logger
    "gradreg", or to log(level, message). A context must outlive what is made from it; Python sees to
    that. Use it as a context manager or call close(); one thread at a time.
    """

    def __init__(self, backend: EnumLike = "auto", device: int = 0, threads: int = 0, *,
                 log: Optional[LogCallback] = None, log_level: EnumLike = "warning") -> None:
        params = initialised(b.gradreg_context_params)
        params.backend = as_enum(b.Backend, backend, "gradreg.Context: backend")
        params.device, params.threads = device, threads
        self._log = self._log_callback(log or _to_logging)
        params.log.function = self._log
        params.log.level = as_enum(b.LogLevel, log_level, "gradreg.Context: log_level")
        handle = ctypes.c_void_p()
        call("context_create", ctypes.byref(handle), ctypes.byref(params))
        self._handle: Optional[int] = handle.value
        self._finalizer = weakref.finalize(self, _destroy, "context", self._handle, self._log)
        info = self.info
        self.device: str = "cpu" if info.backend == b.Backend.CPU else f"cuda:{info.device}"

    @staticmethod
    def _log_callback(log: LogCallback) -> Any:
        def receive(_user: Any, level: int, message: bytes) -> None:
            log(b.LogLevel(level), message.decode("utf-8", "replace"))
        fields: Any = b.gradreg_log._fields_
        return dict(fields)["function"](receive)

    @property
    def handle(self) -> int:
        if self._handle is None:
            raise StateError("gradreg.Context: used after close()")
        return self._handle

    @property
    def closed(self) -> bool:
        return self._handle is None

    @property
    def info(self) -> ContextInfo:
        info = initialised(b.gradreg_context_info)
        call("context_info", self.handle, ctypes.byref(info))
        return ContextInfo(b.Backend(info.backend), info.device, info.threads, info.bytes_held,
                           info.allocations, info.device_name.decode(), info.vector_path.decode())

    def set_stream(self, stream: Any) -> None:
        """Queue later work there: a torch.cuda.Stream, a CuPy stream, an address, or None."""
        for name in ("cuda_stream", "ptr"):
            stream = getattr(stream, name, stream)
        call("context_set_stream", self.handle, stream)

    def synchronize(self) -> None:
        """Wait until everything queued has run."""
        call("context_synchronize", self.handle)

    def reserve(self, size: int) -> None:
        """Hold that many bytes of scratch for losses, so that the first large call does not allocate."""
        call("context_reserve", self.handle, size)

    def close(self) -> None:
        """Close; StateError while regularizers or probes of it are open."""
        if self._handle is not None:
            call("context_destroy", self._handle)
            self._finalizer.detach()
            self._handle = None

    def __enter__(self) -> "Context":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def __repr__(self) -> str:
        if self.closed:
            return "<gradreg.Context closed>"
        info = self.info
        return f"<gradreg.Context {self.device} {info.vector_path or info.device_name}>"


def _destroy(kind: str, handle: Optional[int], *_kept: Any) -> None:
    """What the garbage collector calls; a failure has nobody to hear it."""
    library().function(f"gradreg_{kind}_destroy")(handle)


class _Defaults(threading.local):
    def __init__(self) -> None:
        self.contexts: dict[str, Context] = {}


_defaults = _Defaults()


def default_context(device: Union[str, Any] = "cpu") -> Context:
    """This thread's own context for a device ("cpu", "cuda:0"), opened at the first use. On CUDA it
    follows PyTorch's current stream."""
    name = str(device)
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda"):
        raise InvalidArgumentError(f"gradreg: no backend for device {name}; expected cpu or cuda")
    name = "cpu" if kind == "cpu" else f"cuda:{int(index or 0)}"
    context = _defaults.contexts.get(name)
    if context is None or context.closed:
        context = Context(kind, int(index or 0) if kind == "cuda" else 0)
        _defaults.contexts[name] = context
    follow_stream(context)
    return context


def follow_stream(context: Context) -> None:
    """Queue on PyTorch's current stream of the context's device; nothing to do on the CPU."""
    if context.device != "cpu":
        import torch  # pylint: disable=import-outside-toplevel
        context.set_stream(torch.cuda.current_stream(torch.device(context.device)))


def backend_available(backend: EnumLike) -> bool:
    """Whether this build and machine can open such a context."""
    number = as_enum(b.Backend, backend, "gradreg.backend_available")
    return bool(library().function("gradreg_backend_available")(number))
