"""From Python values to fields of structs: enumerations by name, defaults from the library."""
from __future__ import annotations

import difflib
import enum
from typing import Any, Iterable, Type as TypeOf, Union

from . import _bindings as b
from .errors import ArrayTypeError, InvalidArgumentError

EnumLike = Union[enum.IntEnum, str, int]

TYPE_NAMES = {"float32": b.Type.F32, "f32": b.Type.F32, "bfloat16": b.Type.BF16,
              "bf16": b.Type.BF16, "float16": b.Type.F16, "f16": b.Type.F16, "half": b.Type.F16}


def as_enum(kind: TypeOf[Union[enum.IntEnum, enum.IntFlag]], value: Any, where: str) -> int:
    """A member of kind from itself, its name in any case, or its number (0: the default)."""
    if isinstance(value, str):
        if value.upper() in kind.__members__:
            return int(kind[value.upper()].value)
        known = ", ".join(repr(name.lower()) for name in kind.__members__)
        raise InvalidArgumentError(f"{where}: {value!r} is not one of {known}")
    if isinstance(value, int):
        return int(value)
    raise ArrayTypeError(f"{where}: expected a name or a {kind.__name__}, not "
                         f"{type(value).__name__}")


def as_type(value: Any, where: str) -> int:
    """An element type from "bf16", "bfloat16", torch.bfloat16, numpy.float32, Type.BF16, or None."""
    if value is None:
        return 0
    if isinstance(value, int):
        return int(value)
    name = value if isinstance(value, str) else getattr(value, "__name__", None) or str(value)
    name = name.rsplit(".", maxsplit=1)[-1].lower()
    if name not in TYPE_NAMES:
        raise ArrayTypeError(f"{where}: {value!r} is not one of float32, bfloat16, float16")
    return int(TYPE_NAMES[name])


def as_roles(value: Any, where: str) -> int:
    """Roles from Role.MLP | Role.NORM, "mlp", or a list of names."""
    if isinstance(value, str):
        return as_enum(b.Role, value, where)
    if not isinstance(value, int) and isinstance(value, Iterable):  # an IntFlag is both
        mask = 0
        for item in value:
            mask |= as_roles(item, where)
        return mask
    return int(value)


def as_field(kind: Any, field: str, value: Any, where: str) -> Any:
    chosen = b.FIELD_ENUMS.get(kind.__name__, {}).get(field)
    if chosen is b.Type:
        return as_type(value, where)
    if chosen is not None:
        return as_enum(chosen, value, where)
    if field.endswith("roles") or field == "role":
        return as_roles(value, where)
    return value


def assign(struct: Any, values: dict[str, Any], owner: str) -> None:
    """Set fields by name; a name that the struct lacks is a TypeError that lists those it has."""
    hidden = ("struct_size", "reserved")
    known = [field for field, _ in struct._fields_ if not field.startswith(hidden)]
    for field, value in values.items():
        if field not in known:
            near = difflib.get_close_matches(field, known, 1)
            raise ArrayTypeError(f"{owner}: unexpected keyword {field!r}; " +
                                 (f"did you mean {near[0]}? " if near else "") +
                                 f"known: {', '.join(known)}")
        try:
            setattr(struct, field, as_field(type(struct), field, value, f"{owner}: {field}"))
        except TypeError as error:
            if isinstance(error, ArrayTypeError):
                raise
            raise ArrayTypeError(f"{owner}: {field} = {value!r}: {error}") from error
