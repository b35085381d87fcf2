"""The regularizer over arrays. For PyTorch modules see gradreg.torch, which is made of this."""
from __future__ import annotations

import ctypes
import weakref
from dataclasses import asdict, dataclass, field
from typing import Any, Callable, Optional, Sequence, Union

from . import _bindings as b
from ._arrays import FLOATS, View, require
from ._library import call, initialised
from ._values import EnumLike, as_roles, assign
from .context import Context, _destroy, default_context
from .errors import (ArrayTypeError, CommunicationError, Handle, InvalidArgumentError, StateError,
                     UnsupportedError)
from .layers import Schedule, Segment

_FIELDS = ("strength effective_strength effective_epsilon penalty first_norm second_norm clip_first "
           "clip_second direction_norm hvp_norm curvature alignment correction_share update_norm "
           "perturbation_norm applied_norm applied_cosine changed_fraction difference_noise "
           "stored_share noise_norm noise_applied_cosine first_order_ratio non_finite_first "
           "non_finite_second absent step").split()


@dataclass
class Terms:
    """What the last combine or fallback did, in total or in one layer; NaN where undefined. See
    gradreg_terms in gradreg.h for each of them."""
    strength: float
    effective_strength: float
    effective_epsilon: float
    penalty: float
    first_norm: float
    second_norm: float
    clip_first: float
    clip_second: float
    direction_norm: float
    hvp_norm: float
    curvature: float
    alignment: float
    correction_share: float
    update_norm: float
    perturbation_norm: float
    applied_norm: float
    applied_cosine: float
    changed_fraction: float
    difference_noise: float
    stored_share: float
    noise_norm: float
    noise_applied_cosine: float
    first_order_ratio: float
    non_finite_first: int
    non_finite_second: int
    absent: int
    step: int
    flags: b.Flag
    layers: list["Terms"] = field(default_factory=list, repr=False)

    @classmethod
    def of(cls, struct: b.gradreg_terms) -> "Terms":
        return cls(**{name: getattr(struct, name) for name in _FIELDS}, flags=b.Flag(struct.flags))


@dataclass
class Noise:
    """Directional noise on early attention weights. scale 0: the rule's default."""
    rule: EnumLike = "relative"
    scale: float = 0.0
    first_layer: int = -1
    last_layer: int = -1
    roles: Any = b.Role.ATTENTION


@dataclass
class Adaptive:
    """Multipliers per layer from what observe_layers() is fed."""
    a_min: float = 0.0
    a_max: float = 0.0
    power: float = 1.0
    ema: float = 0.9


Arrays = Union[Any, Sequence[Any]]
AllReduce = Callable[[int, int, int], None]
_SETTINGS = {field[0] for field in b.gradreg_regularizer_params._fields_} - {"layer_count"}


class Fixed(Handle):
    """Settings are given when a regularizer is made: assigning to one afterwards would do nothing."""

    _instead = "save its state (state_dict(), save_state()) and load that into a new one"

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _SETTINGS:
            setter = f"call set_{name}()" if name in ("strength", "epsilon") else "make a new one"
            raise UnsupportedError(f"{type(self).__module__}.{type(self).__qualname__}: {name} cannot be "
                                   f"assigned; {setter}")
        super().__setattr__(name, value)


class Regularizer(Fixed):
    """Depth-scaled gradient regularization over a table of segments.

        with Regularizer(segments, layer_count=4, strength=1e-2) as regularizer:
            grads[:] = gradient(theta)
            regularizer.perturb(theta, grads)
            grads[:] = gradient(theta)             # of the same function
            regularizer.combine(theta, grads)      # grads: regularized; theta: as before, to the bit

    params and grads are flat arrays, or lists with one array per segment (None: no gradient). Other
    keywords are the fields of gradreg_regularizer_params; enumerations by name ("central").
    all_reduce(address, count, stream) sums doubles over ranks in place.
    """

    def __init__(self, segments: Sequence[Segment], context: Optional[Context] = None, *,
                 layer_count: int, schedule: Union[Schedule, dict[str, Any], None] = None,
                 noise: Union[Noise, dict[str, Any], str, None] = None,
                 adaptive: Union[Adaptive, dict[str, Any], None] = None,
                 all_reduce: Optional[AllReduce] = None, **params: Any) -> None:
        self.context = context or default_context()
        self.segments = list(segments)
        self.layer_count = layer_count
        self._all_reduce = None
        self._reduce_error: Optional[BaseException] = None
        self.params, self._kept = make_params(layer_count, schedule, noise, adaptive, params)
        if all_reduce is not None:
            self._all_reduce = self._reduce_callback(all_reduce)
            self.params.all_reduce.function = self._all_reduce
        table = (b.gradreg_segment * max(len(self.segments), 1))(*(s.struct() for s in self.segments))
        handle = ctypes.c_void_p()
        call("regularizer_create", ctypes.byref(handle), self.context.handle, table,
             len(self.segments), ctypes.byref(self.params))
        self._handle: Optional[int] = handle.value
        self._finalizer = weakref.finalize(self, _destroy, "regularizer", self._handle,
                                           self.context, self._all_reduce)

    def _reduce_callback(self, function: AllReduce) -> Any:
        # What the callback raises cannot pass through C: it is kept, and becomes the cause.
        cell = weakref.ref(self)

        def receive(_user: Any, values: int, count: int, stream: Optional[int]) -> int:
            try:
                function(values, count, stream or 0)
                return 0
            except BaseException as error:  # pylint: disable=broad-except
                owner = cell()
                if owner is not None:
                    owner._reduce_error = error
                return 1
        fields: Any = b.gradreg_all_reduce._fields_
        return dict(fields)["function"](receive)

    # -------------------------------------------------------------- the handle

    @property
    def handle(self) -> int:
        if self._handle is None:
            raise StateError("gradreg.Regularizer: used after close()")
        return self._handle

    @property
    def closed(self) -> bool:
        return self._handle is None

    def __repr__(self) -> str:
        if self.closed:
            return "<gradreg.Regularizer closed>"
        moved = sum(self.perturbs(segment) for segment in self.segments)
        return (f"<gradreg.Regularizer on {self.context.device}: {len(self.segments)} segments in "
                f"{self.layer_count} layers, {moved} perturbed; made with strength "
                f"{self.params.strength:g}, epsilon {self.params.epsilon:g}>")

    def perturbs(self, segment: Segment) -> bool:
        """Whether the step moves this segment."""
        roles = self.params.perturbed_roles or b.Role.ATTENTION | b.Role.MLP | b.Role.NORM
        inside = segment.layer >= 0 or self.params.schedule.outside_multiplier > 0
        frozen = segment.flags & b.SegmentFlag.FROZEN
        return inside and not frozen and bool(as_roles(segment.role, "role") & roles)

    def close(self) -> None:
        """Release it. A step in progress stays as it is: cancel() first."""
        if self._handle is not None:
            call("regularizer_destroy", self._handle)
            self._finalizer.detach()
            self._handle = None

    def __enter__(self) -> "Regularizer":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    # -------------------------------------------------------------- the step

    def perturb(self, params: Arrays, grads: Optional[Arrays] = None, **more: Any) -> None:
        """Step away from theta along the direction; grads (or first_grads) holds the gradient."""
        self._step("perturb", params, grads, more)

    def mirror(self, params: Arrays, grads: Optional[Arrays] = None, **more: Any) -> None:
        """Central differences: keep the gradient at theta + delta and go to theta - delta."""
        self._step("mirror", params, grads, more)

    def combine(self, params: Arrays, grads: Optional[Arrays] = None, **more: Any) -> None:
        """End the step: grads becomes the regularized gradient, theta is restored to the last bit."""
        self._step("combine", params, grads, more)

    def fallback(self, params: Arrays, grads: Optional[Arrays] = None, **more: Any) -> None:
        """End a perturbed step without its second gradient: grads becomes the clipped first one."""
        self._step("fallback", params, grads, more)

    def cancel(self, params: Arrays, grads: Optional[Arrays] = None, **more: Any) -> None:
        """Leave any state: theta to the last bit, noise out, no gradient written."""
        self._step("cancel", params, grads, more)

    def inject_noise(self, params: Arrays, grads: Optional[Arrays] = None, **more: Any) -> None:
        """Add this step's noise. Rollouts and old log-probs belong before this call."""
        self._step("inject_noise", params, grads, more)

    def remove_noise(self, params: Arrays, grads: Optional[Arrays] = None, **more: Any) -> None:
        """Take the noise back."""
        self._step("remove_noise", params, grads, more)

    def suggest_epsilon(self, params: Arrays, grads: Optional[Arrays] = None,
                        target_cosine: float = 0.95, **more: Any) -> float:
        """The smallest epsilon whose applied step has that cosine with the intended one; inf if none."""
        out = ctypes.c_double()
        self._step("suggest_epsilon", params, grads, more, ctypes.byref(out), target_cosine)
        return out.value

    def _step(self, name: str, params: Arrays, grads: Optional[Arrays], more: dict[str, Any],
              out: Any = None, value: Any = None) -> None:
        handle = self.handle
        where = f"gradreg.Regularizer.{name}"
        buffers, kept = self._buffers(where, {"params": params, "grads": grads, **more})
        arguments = [handle, *([out] if out is not None else []), ctypes.byref(buffers)]
        try:
            call("regularizer_" + name, *arguments, *([value] if value is not None else []))
        except CommunicationError as error:
            cause, self._reduce_error = self._reduce_error, None
            raise error from cause
        del kept

    _BASES = ("params", "grads", "first_grads", "perturbed_params", "master_params", "direction")
    _READ_ONLY = ("first_grads", "master_params", "direction")
    _SCALARS = ("grad_scale", "found_inf")
    _POINTERS = {"params": "param_pointers", "grads": "grad_pointers",
                 "first_grads": "first_grad_pointers",
                 "perturbed_params": "perturbed_param_pointers",
                 "master_params": "master_param_pointers", "direction": "direction_pointers"}

    def _buffers(self, where: str, arrays: dict[str, Any]) -> tuple[b.gradreg_buffers, list[Any]]:
        buffers, kept, counts = initialised(b.gradreg_buffers), [], {}
        for key, value in arrays.items():
            if key in self._SCALARS and value is not None:
                seen = require(value, f"{where}: {key}", ["float32"], self.context.device, 1,
                               key == "found_inf")
                setattr(buffers, key, seen.address)
                kept.append(seen.owner)
            elif key in self._BASES and isinstance(value, (list, tuple)):
                pointers = self._pointers(f"{where}: {key}", key, value)
                setattr(buffers, self._POINTERS[key], ctypes.addressof(pointers))
                kept.append((pointers, value))
            elif key in self._BASES and value is not None:
                seen = self._flat(f"{where}: {key}", key, value)
                setattr(buffers, key, seen.address)
                counts[key] = seen.count
                kept.append(seen.owner)
            elif key in ("slice_begin", "verify_master"):
                setattr(buffers, key, int(value))
            elif key not in self._BASES + self._SCALARS:
                known = ", ".join((*self._BASES, *self._SCALARS, "slice_begin", "verify_master"))
                raise ArrayTypeError(f"{where}: unexpected keyword {key!r}; known: {known}")
        if len(set(counts.values())) > 1:
            listed = ", ".join(f"{key} {count}" for key, count in counts.items())
            raise InvalidArgumentError(f"{where}: flat arrays differ in length: {listed}")
        buffers.count = next(iter(counts.values()), 0)
        return buffers, kept

    def _type_of(self, key: str, segment: Optional[Segment]) -> int:
        if key == "master_params":
            return int(b.Type.F32)
        name = "param_type" if "params" in key else "grad_type"
        own = getattr(segment.struct(), name) if segment else 0
        return own or getattr(self.params, name) or int(b.Type.F32)

    def _flat(self, where: str, key: str, value: Any) -> View:
        seen = require(value, where, FLOATS, self.context.device, write=key not in self._READ_ONLY)
        wanted = self._type_of(key, self.segments[0] if self.segments else None)
        if seen.type != wanted:
            raise ArrayTypeError(f"{where}: elements are {seen.dtype}, the regularizer was made for "
                                 f"{b.Type(wanted).name}")
        return seen

    def _pointers(self, where: str, key: str, arrays: Sequence[Any]) -> Any:
        if len(arrays) != len(self.segments):
            raise InvalidArgumentError(f"{where}: {len(arrays)} arrays for {len(self.segments)} "
                                       "segments")
        out = (ctypes.c_void_p * max(len(arrays), 1))()
        for i, (array, segment) in enumerate(zip(arrays, self.segments)):
            place = f"{where}[{i}]" + (f" ({segment.name})" if segment.name else "")
            if array is None:
                if "grads" not in key:
                    raise ArrayTypeError(f"{place}: None, expected an array")
                continue
            seen = require(array, place, FLOATS, self.context.device, segment.held,
                           key not in self._READ_ONLY, plain=False)
            wanted = self._type_of(key, segment)
            if seen.type != wanted:
                raise ArrayTypeError(f"{place}: elements are {seen.dtype}, its segment is "
                                     f"{b.Type(wanted).name}")
            out[i] = seen.address
        return out

    # -------------------------------------------------------------- between steps

    @property
    def extra_passes(self) -> int:
        """Backward passes wanted beyond the first in the current step."""
        out = ctypes.c_int32()
        call("regularizer_extra_passes", self.handle, ctypes.byref(out))
        return out.value

    @property
    def first_needed_layer(self) -> int:
        """second_pass="truncated": the lowest layer whose second gradient is read."""
        out = ctypes.c_int32()
        call("regularizer_first_needed_layer", self.handle, ctypes.byref(out))
        return out.value

    def set_strength(self, strength: float) -> None:
        """Change lambda for later steps."""
        call("regularizer_set_strength", self.handle, strength)

    def set_epsilon(self, epsilon: float) -> None:
        """Change epsilon for later steps."""
        call("regularizer_set_epsilon", self.handle, epsilon)

    def set_step(self, step: int) -> None:
        """Set the step counter, on which warm-up, decay and random numbers depend."""
        call("regularizer_set_step", self.handle, step)

    def observe_layers(self, signals: Sequence[float]) -> None:
        """Feed the adaptive multipliers with one signal per layer."""
        values = [float(signal) for signal in signals]
        call("regularizer_observe_layers", self.handle, (ctypes.c_double * max(len(values), 1))(*values),
             len(values))

    def observe_losses(self, first: Any, second: Any) -> None:
        """Losses of the step just combined, one float32 each (on the CPU numbers will do): terms then
        hold first_order_ratio."""
        seen = []
        for name, value in (("first", first), ("second", second)):
            if isinstance(value, (int, float)) and self.context.device == "cpu":
                value = (ctypes.c_float * 1)(value)
            seen.append(require(value, f"gradreg.Regularizer.observe_losses: {name}", ["float32"],
                                self.context.device, 1))
        call("regularizer_observe_losses", self.handle, seen[0].address, seen[1].address)

    def terms(self) -> Terms:
        """What the last combine or fallback did; waits. terms().layers has one entry per layer."""
        total = initialised(b.gradreg_terms)
        layers = (b.gradreg_terms * self.layer_count)()
        for layer in layers:
            layer.struct_size = ctypes.sizeof(b.gradreg_terms)
        call("regularizer_terms", self.handle, ctypes.byref(total), layers, self.layer_count)
        out = Terms.of(total)
        out.layers = [Terms.of(layer) for layer in layers]
        return out

    def terms_enqueue(self, out: Any) -> None:
        """The same numbers without waiting into an array of (1 + layers) x 28 float64."""
        rows = (1 + self.layer_count) * b.GRADREG_TERMS_COLUMNS
        seen = require(out, "gradreg.Regularizer.terms_enqueue: out", ["float64"],
                       self.context.device, rows, True)
        call("regularizer_terms_enqueue", self.handle, seen.address)

    def save_state(self) -> bytes:
        """What a resumed run needs to give the same bits."""
        size = ctypes.c_size_t()
        call("regularizer_state_bytes", self.handle, ctypes.byref(size))
        out = ctypes.create_string_buffer(max(size.value, 1))
        call("regularizer_state_save", self.handle, out, size.value)
        return out.raw[:size.value]

    def load_state(self, state: bytes) -> None:
        """Load what save_state() returned in a run with the same table and parameters."""
        state = bytes(state)
        call("regularizer_state_load", self.handle, ctypes.create_string_buffer(state, len(state) or 1),
             len(state))


def workspace_bytes(segments: Sequence[Segment], context: Optional[Context] = None, *,
                    layer_count: int, schedule: Union[Schedule, dict[str, Any], None] = None,
                    noise: Union[Noise, dict[str, Any], str, None] = None,
                    adaptive: Union[Adaptive, dict[str, Any], None] = None, **params: Any) -> int:
    """Bytes that such a Regularizer would hold."""
    struct, kept = make_params(layer_count, schedule, noise, adaptive, params)
    table = (b.gradreg_segment * max(len(segments), 1))(*(s.struct() for s in segments))
    out = ctypes.c_size_t()
    call("regularizer_workspace_bytes", ctypes.byref(out), (context or default_context()).handle,
         table, len(segments), ctypes.byref(struct))
    del kept
    return out.value


def make_params(layer_count: int, schedule: Any, noise: Any, adaptive: Any,
                params: dict[str, Any]) -> tuple[b.gradreg_regularizer_params, Any]:
    """The struct, and what it points to."""
    owner = "gradreg.Regularizer"
    out = initialised(b.gradreg_regularizer_params)
    out.layer_count = layer_count
    own = {"schedule", "noise", "adaptive", "all_reduce", "layer_count"} & set(params)
    if own:
        raise ArrayTypeError(f"{owner}: {', '.join(sorted(own))} given twice")
    assign(out, params, owner)
    schedule = Schedule(**schedule) if isinstance(schedule, dict) else schedule
    kept = (schedule or Schedule()).fill(out.schedule, layer_count)
    if noise is not None:
        noise = Noise(rule=noise) if isinstance(noise, str) else noise
        values = asdict(noise) if isinstance(noise, Noise) else {"rule": "relative", **noise}
        values["roles"] = as_roles(values.get("roles", b.Role.ATTENTION), f"{owner}: noise.roles")
        assign(out.noise, values, f"{owner}: noise")
    if adaptive is not None:
        assign(out.adaptive, asdict(adaptive) if isinstance(adaptive, Adaptive) else adaptive,
               f"{owner}: adaptive")
    return out, kept
