"""What a call needs to know of an array: address, length, element type, device.

NumPy arrays, PyTorch tensors, anything with __cuda_array_interface__, and plain buffers
(array.array, ctypes arrays) are seen in place and never copied. uint16 arrays count as bf16, which
NumPy lacks; so do arrays of ml_dtypes.bfloat16.
"""
from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any, Optional, Sequence

from . import _bindings as b
from .errors import ArrayTypeError, InvalidArgumentError, UnsupportedError

ELEMENT_TYPES = {"float32": b.Type.F32, "bfloat16": b.Type.BF16, "uint16": b.Type.BF16,
                 "float16": b.Type.F16}
FLOATS = ("float32", "bfloat16", "uint16", "float16")
_FORMATS = {"f": "float32", "d": "float64", "e": "float16", "i": "int32", "l": "int64", "q": "int64",
            "H": "uint16", "B": "uint8", "b": "int8", "?": "bool"}
_TYPESTRS = {"f4": "float32", "f8": "float64", "f2": "float16", "i4": "int32", "i8": "int64",
             "u2": "uint16", "u1": "uint8", "b1": "bool"}


@dataclass
class View:
    """An array as the library sees it."""
    address: int
    count: int
    dtype: str
    device: str
    shape: tuple[int, ...]
    contiguous: bool
    writable: bool
    owner: Any

    @property
    def type(self) -> int:
        return int(ELEMENT_TYPES[self.dtype])


def is_torch(value: Any) -> bool:
    return type(value).__module__.split(".")[0] == "torch" and hasattr(value, "data_ptr") or \
        any(base.__module__.split(".")[0] == "torch" and base.__name__ == "Tensor"
            for base in type(value).__mro__)


def _torch_view(value: Any, where: str) -> View:
    if hasattr(value, "to_local"):
        raise UnsupportedError(f"{where}: a DTensor is spread over ranks; hand over to_local() with "
                               "a table of shards")
    if str(value.layout) != "torch.strided":
        raise InvalidArgumentError(f"{where}: layout {value.layout}, expected a strided tensor")
    return View(value.data_ptr(), value.numel(), str(value.dtype)[len("torch."):],
                str(value.device), tuple(value.shape), dense(value), True, value)


def dense(tensor: Any) -> bool:
    """Whether the elements fill one stretch of memory, in whatever order of dimensions."""
    if tensor.is_contiguous():
        return True
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape)):
        if size != 1:
            if stride != expected:
                return False
            expected *= size
    return True


def _row_major(shape: Sequence[int], strides: Optional[Sequence[int]], itemsize: int) -> bool:
    if strides is None or 0 in shape:
        return True
    expected = itemsize
    for size, stride in zip(reversed(shape), reversed(strides)):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True


def _interface_view(value: Any, interface: dict[str, Any], device: str, where: str) -> View:
    shape, typestr = tuple(interface["shape"]), interface["typestr"]
    name = getattr(getattr(value, "dtype", None), "name", _TYPESTRS.get(typestr[1:], typestr))
    if typestr[0] == ">" and int(typestr[2:]) > 1:
        raise ArrayTypeError(f"{where}: bytes in foreign order ({typestr})")
    count = 1
    for size in shape:
        count *= size
    address, read_only = interface["data"] if interface["data"] else (0, False)
    rows = _row_major(shape, interface.get("strides"), int(typestr[2:]))
    return View(address or 0, count, name, device, shape, rows, not read_only, value)


def _buffer_view(value: Any, where: str) -> View:
    try:
        memory = memoryview(value)
    except TypeError:
        raise ArrayTypeError(f"{where}: expected an array, not {type(value).__name__}") from None
    name = _FORMATS.get(memory.format.lstrip("<=@"), memory.format)
    shape = memory.shape or ()
    if memory.nbytes == 0:
        return View(0, 0, name, "cpu", shape, memory.c_contiguous, not memory.readonly, value)
    if memory.readonly:
        raise ArrayTypeError(f"{where}: a read-only {type(value).__name__}; make it a NumPy array")
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory.cast("B"))) if memory.c_contiguous else 0
    return View(start, memory.nbytes // memory.itemsize, name, "cpu", shape, memory.c_contiguous,
                True, value)


def view(value: Any, where: str) -> View:
    """Look at an array; where says in errors which one it is."""
    if is_torch(value):
        return _torch_view(value, where)
    interface = getattr(value, "__cuda_array_interface__", None)
    if interface is not None:
        device = getattr(getattr(value, "device", None), "id", 0)
        return _interface_view(value, interface, f"cuda:{device}", where)
    interface = getattr(value, "__array_interface__", None)
    if interface is not None:
        return _interface_view(value, interface, "cpu", where)
    return _buffer_view(value, where)


def require(value: Any, where: str, dtypes: Sequence[str], device: str,
            count: Optional[int] = None, write: bool = False, plain: bool = True) -> View:
    """A view of an array that must be of one of these types, on this device and, if count is given,
    of that many elements. plain: in C order, not just dense."""
    seen = view(value, where)
    if seen.dtype not in dtypes:
        raise ArrayTypeError(f"{where}: elements are {seen.dtype}, expected {' or '.join(dtypes)}")
    if seen.device != device:
        raise InvalidArgumentError(f"{where}: lies on {seen.device}, the context works on {device}")
    if not seen.contiguous or (plain and is_torch(value) and not value.is_contiguous()):
        raise InvalidArgumentError(f"{where}: not contiguous; the library works in place, so hand over "
                                   "a contiguous array")
    if count is not None and seen.count != count:
        raise InvalidArgumentError(f"{where}: {seen.count} elements, expected {count}")
    if write and not seen.writable:
        raise InvalidArgumentError(f"{where}: read-only")
    return seen


def numpy() -> Any:
    """NumPy, which only what makes arrays needs."""
    try:
        import numpy as module  # pylint: disable=import-outside-toplevel
    except ImportError as error:
        raise ImportError("gradreg makes NumPy arrays here: install numpy") from error
    return module


def empty_like(value: Any, shape: Sequence[int], dtype: str) -> Any:
    """A new array of the kind and on the device of value."""
    if is_torch(value):
        import torch  # pylint: disable=import-outside-toplevel
        return torch.empty(tuple(shape), dtype=getattr(torch, dtype), device=value.device)
    return numpy().empty(tuple(shape), dtype=dtype)


def as_input(value: Any, dtype: str, like: Any = None) -> Any:
    """value as it is if it is an array of that type; otherwise (a list, another type) a copy of the
    kind of like. For small inputs, whose type should not be the caller's worry."""
    if value is None:
        return None
    if is_torch(value):
        import torch  # pylint: disable=import-outside-toplevel
        return value.detach().to(getattr(torch, dtype)).contiguous()
    if like is not None and is_torch(like):
        import torch  # pylint: disable=import-outside-toplevel
        return torch.as_tensor(value).to(device=like.device, dtype=getattr(torch, dtype)).contiguous()
    return numpy().ascontiguousarray(value, dtype=dtype)
