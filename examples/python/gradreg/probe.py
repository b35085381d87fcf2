"""The causal trace layer by layer, and monitors."""
from __future__ import annotations

import ctypes
import weakref
from dataclasses import dataclass
from typing import Any, Optional, Sequence

from . import _bindings as b
from ._arrays import FLOATS, as_input, empty_like, numpy, require, view
from ._library import call, initialised
from .context import Context, _destroy, default_context
from .errors import Handle, InvalidArgumentError, StateError
from .layers import Segment
from .token_logprobs import _rows


@dataclass
class ProbeLayer:
    """Probability of the target with noise behind one layer, over the trials; baseline without."""
    layer: int
    mean: float
    std: float
    min: float
    max: float
    baseline: float
    trials: int
    non_finite: int
    not_injected: int
    saturated: int


class Probe(Handle):
    """Noise on the final token's hidden state behind one layer at a time; what becomes of the target's
    probability. The caller runs the model:

        probe = Probe(layer_count=30, trials=30)
        probe.observe(logits, target)                          # layer None: the clean baseline
        for layer in range(30):
            probe.inject(hidden, layer)                        # rows are trials
            probe.observe(logits_behind_it, target, layer)
        for row in probe.summary(): print(row.layer, row.mean, row.std)
    """

    def __init__(self, layer_count: int, *, trials: int = 30, noise_scale: float = 0.5,
                 seed: int = 0, context: Optional[Context] = None) -> None:
        self.context = context or default_context()
        self.layer_count = layer_count
        params = initialised(b.gradreg_probe_params)
        params.layer_count, params.trials = layer_count, trials
        params.noise_scale, params.seed = noise_scale, seed
        handle = ctypes.c_void_p()
        call("probe_create", ctypes.byref(handle), self.context.handle, ctypes.byref(params))
        self._handle: Optional[int] = handle.value
        self._finalizer = weakref.finalize(self, _destroy, "probe", self._handle, self.context)

    @property
    def handle(self) -> int:
        if self._handle is None:
            raise StateError("gradreg.Probe: used after close()")
        return self._handle

    def close(self) -> None:
        """Release it."""
        if self._handle is not None:
            call("probe_destroy", self._handle)
            self._finalizer.detach()
            self._handle = None

    def __enter__(self) -> "Probe":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def reset(self) -> None:
        """Forget every observation."""
        call("probe_reset", self.handle)

    def inject(self, hidden: Any, layer: int, first_trial: int = 0) -> None:
        """Add noise to hidden, (rows, width), in place: row r is trial first_trial + r."""
        seen, rows, width, stride = _rows("gradreg.Probe.inject: hidden", hidden, self.context.device)
        call("probe_inject", self.handle, seen.address, seen.type, rows, width, stride, layer,
             first_trial)

    def observe(self, logits: Any, target: int, layer: Optional[int] = None,
                first_trial: int = 0) -> None:
        """Read the target's probability from logits, (rows, vocabulary). layer None: the baseline."""
        seen, rows, vocabulary, stride = _rows("gradreg.Probe.observe: logits", logits,
                                               self.context.device)
        call("probe_observe", self.handle, seen.address, seen.type, rows, vocabulary, stride,
             int(target), b.GRADREG_LAYER_NONE if layer is None else layer, first_trial)

    def summary(self) -> list[ProbeLayer]:
        """Statistics of every layer; waits."""
        out = (b.gradreg_probe_layer * self.layer_count)()
        for row in out:
            row.struct_size = ctypes.sizeof(b.gradreg_probe_layer)
        call("probe_summary", self.handle, out, self.layer_count)
        return [ProbeLayer(**{name: getattr(row, name) for name in ProbeLayer.__dataclass_fields__})
                for row in out]


def distinct_ngrams(tokens: Sequence[int], order: int) -> float:
    """Share of different ones among a sequence's n-grams: 1 is no repetition."""
    ids = tokens.tolist() if hasattr(tokens, "tolist") else list(tokens)
    values = (ctypes.c_int32 * max(len(ids), 1))(*ids)
    out = ctypes.c_double()
    call("distinct_ngrams", ctypes.byref(out), values, len(ids), order)
    return out.value


def moving_average(values: Any, window: int = 5) -> Any:
    """Trailing means of a float32 series, NaN entries left out; a float64 NumPy array."""
    values = as_input(values, "float32")
    seen = require(values, "gradreg.moving_average: values", ["float32"], "cpu")
    out = numpy().empty(seen.shape, dtype="float64")
    call("moving_average", view(out, "out").address, seen.address, seen.count, window)
    return out


def js_divergence(p: Any, q: Any, context: Optional[Context] = None) -> Any:
    """Jensen-Shannon divergence of each row of two batches of distributions, in nats."""
    where = "gradreg.js_divergence"
    context = context or default_context(view(p, f"{where}: p").device)
    first = require(p, f"{where}: p", ["float32"], context.device)
    second = require(q, f"{where}: q", ["float32"], context.device)
    if first.shape != second.shape or not first.shape:
        raise InvalidArgumentError(f"{where}: p has shape {first.shape}, q {second.shape}; expected "
                                   "two alike, (..., columns)")
    columns = first.shape[-1]
    out = empty_like(p, first.shape[:-1], "float32")
    call("js_divergence", context.handle, view(out, "out").address, first.address, second.address,
         first.count // columns if columns else 0, columns)
    return out


def weight_delta(before: Any, after: Any, segments: Sequence[Segment],
                 context: Optional[Context] = None) -> Any:
    """Frobenius norm of after - before for every segment of a flat buffer, float64."""
    where = "gradreg.weight_delta"
    context = context or default_context(view(before, f"{where}: before").device)
    first = require(before, f"{where}: before", FLOATS, context.device)
    second = require(after, f"{where}: after", [first.dtype], context.device, first.count)
    end = max((segment.offset + segment.count for segment in segments), default=0)
    if end > first.count:
        raise InvalidArgumentError(f"{where}: segments end at {end}, the arrays at {first.count}")
    table = (b.gradreg_segment * max(len(segments), 1))(*(s.struct() for s in segments))
    out = empty_like(before, (len(segments),), "float64")
    call("weight_delta", context.handle, view(out, "out").address, first.address, second.address,
         first.type, table, len(segments))
    return out
