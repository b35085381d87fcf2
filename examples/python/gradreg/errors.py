"""Failures as exceptions: each carries the sentence that the library (or this package) has about it.

Every class is an `Error` and one of Python's own kinds, so that `except ValueError` works as well as
`except gradreg.Error`.
"""
from __future__ import annotations

from typing import Any

from . import _bindings as b


class Error(Exception):
    """A call failed. `status` is the library's number, `status_name` its name."""

    status: int = 0

    @property
    def status_name(self) -> str:
        return {value: name for name, value in vars(b).items()
                if name == "GRADREG_OK" or name.startswith("GRADREG_ERROR_")}[self.status]


class InvalidArgumentError(Error, ValueError):
    """A documented precondition does not hold: a shape, a value, a device, a layout."""
    status = b.GRADREG_ERROR_INVALID_ARGUMENT


class ArrayTypeError(Error, TypeError):
    """An array of the wrong element type, or something that is no array."""
    status = b.GRADREG_ERROR_INVALID_ARGUMENT


class UnsupportedError(Error, NotImplementedError):
    """Not in this version, in this build, or on this device."""
    status = b.GRADREG_ERROR_UNSUPPORTED


class StateError(Error, RuntimeError):
    """Calls out of order, use after close, or two threads on one handle."""
    status = b.GRADREG_ERROR_STATE


class OutOfMemoryError(Error, MemoryError):
    """An allocation failed."""
    status = b.GRADREG_ERROR_OUT_OF_MEMORY


class DeviceError(Error, RuntimeError):
    """The device or its driver reported an error."""
    status = b.GRADREG_ERROR_DEVICE


class BlasError(Error, RuntimeError):
    """The BLAS library reported an error."""
    status = b.GRADREG_ERROR_BLAS


class CommunicationError(Error, ConnectionError):
    """The all_reduce callback failed; what it raised is the __cause__."""
    status = b.GRADREG_ERROR_COMMUNICATION


class NonFiniteError(Error, FloatingPointError):
    """A value that must be finite is not."""
    status = b.GRADREG_ERROR_NON_FINITE


class Handle:
    """What holds memory of the C library: there is one of each, and no copy of it."""

    _instead = "make a new one where it is needed"

    def __reduce__(self) -> Any:
        raise UnsupportedError(f"{type(self).__module__}.{type(self).__qualname__}: holds memory of the "
                               "library and cannot be copied or pickled; " + self._instead)


OF_STATUS = {kind.status: kind for kind in (
    InvalidArgumentError, UnsupportedError, StateError, OutOfMemoryError, DeviceError, BlasError,
    CommunicationError, NonFiniteError)}
