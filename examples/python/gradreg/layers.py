"""Layers, roles and the depth schedule."""
from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from typing import Any, Iterable, Optional, Sequence, Union

from . import _bindings as b
from ._library import call, initialised
from ._values import EnumLike, as_enum, as_roles, as_type
from .errors import InvalidArgumentError

LAYER_NONE = b.GRADREG_LAYER_NONE
LAYER_STACKED = b.GRADREG_LAYER_STACKED


def classify(name: str) -> tuple[int, b.Role]:
    """Layer and role of a parameter from its name, e.g. (3, Role.ATTENTION)."""
    layer, role = ctypes.c_int32(), ctypes.c_uint32()
    call("segment_classify", ctypes.byref(layer), ctypes.byref(role), name.encode())
    return layer.value, b.Role(role.value)


@dataclass
class Segment:
    """One tensor, or one layer's part of one. offset counts in the flat buffer; name is for errors."""
    count: int
    layer: int = LAYER_NONE
    role: Union[b.Role, str, int] = b.Role.OTHER
    offset: int = 0
    param_type: Any = None
    grad_type: Any = None
    flags: Union[b.SegmentFlag, int] = 0
    shard_begin: int = 0
    shard_count: int = 0
    name: str = ""

    @classmethod
    def from_name(cls, name: str, count: int, **more: Any) -> "Segment":
        """Layer and role as `classify` says."""
        layer, role = classify(name)
        return cls(count, layer, role, name=name, **more)

    @property
    def held(self) -> int:
        """Elements that lie here: all of them unless a shard was given."""
        whole = self.shard_begin == 0 and self.shard_count == 0
        return self.count if whole else self.shard_count

    def struct(self) -> b.gradreg_segment:
        where = f"gradreg.Segment({self.name!r})" if self.name else "gradreg.Segment"
        out: b.gradreg_segment = initialised(b.gradreg_segment)
        out.offset, out.count, out.layer = self.offset, self.count, self.layer
        out.role, out.flags = as_roles(self.role, f"{where}: role"), int(self.flags)
        out.param_type = as_type(self.param_type, f"{where}: param_type")
        out.grad_type = as_type(self.grad_type, f"{where}: grad_type")
        out.shard_begin, out.shard_count = self.shard_begin, self.shard_count
        return out


def flat_table(names_and_counts: Iterable[tuple[str, int]]) -> list[Segment]:
    """Segments of a flat buffer in which the named tensors lie one after the other."""
    table, offset = [], 0
    for name, count in names_and_counts:
        table.append(Segment.from_name(name, count, offset=offset))
        offset += count
    return table


@dataclass
class Schedule:
    """How strongly each layer is regularized: nothing before first_layer, all from full_layer on, and
    curve between. -1, -1: as for_depth() fills them in. table: the multipliers themselves."""
    curve: EnumLike = "linear"
    first_layer: int = -1
    full_layer: int = -1
    power: float = 1.0
    outside_multiplier: float = 0.0
    table: Optional[Sequence[float]] = field(default=None)

    @classmethod
    def for_depth(cls, layer_count: int) -> "Schedule":
        """The default for a model of that many layers; 36 gives 6 and 22, the article's."""
        out = initialised(b.gradreg_schedule)
        call("schedule_for_depth", ctypes.byref(out), layer_count)
        return cls(b.Curve(out.curve), out.first_layer, out.full_layer, out.power,
                   out.outside_multiplier)

    @classmethod
    def even(cls) -> "Schedule":
        """Every layer alike."""
        return cls(first_layer=0, full_layer=0)

    def fill(self, out: b.gradreg_schedule, layer_count: int) -> Any:
        """Write a struct; the result must live as long as the struct is in use."""
        curve = "table" if self.table is not None else self.curve
        out.curve = as_enum(b.Curve, curve, "gradreg.Schedule: curve")
        out.first_layer, out.full_layer = self.first_layer, self.full_layer
        out.power, out.outside_multiplier = self.power, self.outside_multiplier
        if self.table is None:
            return None
        if len(self.table) != layer_count:
            raise InvalidArgumentError(f"gradreg.Schedule: table has {len(self.table)} multipliers, "
                                       f"the model {layer_count} layers")
        kept = (ctypes.c_double * layer_count)(*self.table)
        out.table = ctypes.addressof(kept)
        return kept

    def multipliers(self, layer_count: int) -> list[float]:
        """m(l) for every layer."""
        struct = initialised(b.gradreg_schedule)
        kept = self.fill(struct, layer_count)
        out = (ctypes.c_double * max(layer_count, 1))()
        call("schedule_multipliers", out, ctypes.byref(struct), layer_count)
        del kept
        return list(out)
