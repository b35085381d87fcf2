"""Log-probs, entropies and their gradients, from logits or from hidden states and an output head."""
from __future__ import annotations

import ctypes
from typing import Any, NamedTuple, Optional, Union

from . import _bindings as b
from ._arrays import FLOATS, View, empty_like, require, view
from ._library import call, initialised
from .context import Context, default_context
from .errors import ArrayTypeError, InvalidArgumentError
from .losses import Batch, MetricsBuffer, Policy, as_policy, loss_of


class LogProbs(NamedTuple):
    """Per row, in nats; entropy is None if it was not asked for. Padding rows are 0."""
    logp: Any
    entropy: Any
    log_sum_exp: Any


class PolicyLogits(NamedTuple):
    """What policy_logits() returns; metrics as in PolicyLoss."""
    dlogits: Any
    logp: Any
    entropy: Any
    metrics: Any

    @property
    def loss(self) -> float:
        return loss_of(self.metrics)


def _rows(where: str, array: Any, device: str) -> tuple[View, int, int, int]:
    """A matrix whose rows may lie apart: view, rows, columns, elements between rows."""
    seen = view(array, where)
    if len(seen.shape) < 2:
        raise InvalidArgumentError(f"{where}: shape {seen.shape}, expected (..., columns)")
    columns = seen.shape[-1]
    if seen.contiguous or len(seen.shape) != 2:
        seen = require(array, where, FLOATS, device)
        return seen, seen.count // columns if columns else 0, columns, columns
    if seen.dtype not in FLOATS:
        raise ArrayTypeError(f"{where}: elements are {seen.dtype}, expected {' or '.join(FLOATS)}")
    if seen.device != device:
        raise InvalidArgumentError(f"{where}: lies on {seen.device}, the context works on {device}")
    strides = _strides(array)
    if strides is None or strides[1] != 1 or strides[0] < columns:
        raise InvalidArgumentError(f"{where}: rows are not contiguous")
    return seen, seen.shape[0], columns, strides[0]


def _strides(array: Any) -> Optional[tuple[int, ...]]:
    if callable(getattr(array, "stride", None)):
        return tuple(array.stride())
    strides = getattr(array, "strides", None)
    return tuple(stride // array.itemsize for stride in strides) if strides else None


def _logits_params(seen: View, rows: int, vocabulary: int, stride: int, temperature: float) -> Any:
    params = initialised(b.gradreg_logits_params)
    params.type, params.rows, params.vocabulary = seen.type, rows, vocabulary
    params.row_stride, params.temperature = stride, temperature
    return params


def _outputs(like: Any, shape: tuple[int, ...], entropy: bool) -> LogProbs:
    return LogProbs(empty_like(like, shape, "float32"),
                    empty_like(like, shape, "float32") if entropy else None,
                    empty_like(like, shape, "float32"))


def _address(array: Any) -> Optional[int]:
    return None if array is None else view(array, "array").address or None


def _vector(where: str, array: Any, device: str, rows: int, dtype: str = "float32") -> Optional[int]:
    return None if array is None else require(array, where, [dtype], device, rows).address or None


def logprobs(logits: Any, targets: Any, *, temperature: float = 1.0, entropy: bool = True,
             context: Optional[Context] = None) -> LogProbs:
    """log softmax(logits / temperature) at targets (int32, -1: padding), in one read of the logits."""
    where = "gradreg.logprobs"
    context = context or default_context(view(logits, f"{where}: logits").device)
    seen, rows, vocabulary, stride = _rows(f"{where}: logits", logits, context.device)
    target = _vector(f"{where}: targets", targets, context.device, rows, "int32")
    params = _logits_params(seen, rows, vocabulary, stride, temperature)
    out = _outputs(logits, seen.shape[:-1], entropy)
    call("logprobs_forward", context.handle, *map(_address, out), seen.address, target,
         ctypes.byref(params))
    return out


def logprobs_backward(logits: Any, targets: Any, saved: LogProbs, dlogp: Any, dentropy: Any = None, *,
                      temperature: float = 1.0, out: Any = None,
                      context: Optional[Context] = None) -> Any:
    """Gradient into the logits, of their type; out may be logits themselves."""
    where = "gradreg.logprobs_backward"
    context = context or default_context(view(logits, f"{where}: logits").device)
    seen, rows, vocabulary, stride = _rows(f"{where}: logits", logits, context.device)
    target = _vector(f"{where}: targets", targets, context.device, rows, "int32")
    if out is None:
        if stride != vocabulary:
            raise InvalidArgumentError(f"{where}: logits with gaps between rows need an out of the "
                                       "same layout")
        out = empty_like(logits, seen.shape, seen.dtype)
    result, *layout = _rows(f"{where}: out", out, context.device)
    if layout != [rows, vocabulary, stride] or result.dtype != seen.dtype:
        raise InvalidArgumentError(f"{where}: out differs from logits in shape, strides or type")
    params = _logits_params(seen, rows, vocabulary, stride, temperature)
    call("logprobs_backward", context.handle, result.address, seen.address, target,
         _vector(f"{where}: log_sum_exp", saved.log_sum_exp, context.device, rows),
         _vector(f"{where}: entropy", saved.entropy, context.device, rows),
         _vector(f"{where}: dlogp", dlogp, context.device, rows),
         _vector(f"{where}: dentropy", dentropy, context.device, rows), ctypes.byref(params))
    return out


def policy_logits(policy: Union[Policy, str], logits: Any, targets: Any, advantages: Any, *,
                  old_logp: Any = None, ref_logp: Any = None, rollout_logp: Any = None,
                  token_weight: Any = None, mask: Any = None, row_offsets: Any = None,
                  group: Any = None, temperature: float = 1.0, out: Any = None,
                  context: Optional[Context] = None) -> PolicyLogits:
    """Log-probs, a token-level loss and its gradient into the logits in one visit of each row. logits:
    (sequences, length, vocabulary), or (tokens, vocabulary) with row_offsets."""
    where = "gradreg.policy_logits"
    context = context or default_context(view(logits, f"{where}: logits").device)
    policy = as_policy(policy)
    seen, rows, vocabulary, stride = _rows(f"{where}: logits", logits, context.device)
    target = _vector(f"{where}: targets", targets, context.device, rows, "int32")
    batch = Batch(where, context, None, advantages, shape=seen.shape[:-1], old_logp=old_logp,
                  ref_logp=ref_logp, rollout_logp=rollout_logp, token_weight=token_weight, mask=mask,
                  row_offsets=row_offsets, group=group)
    out = empty_like(logits, seen.shape, seen.dtype) if out is None else out
    result = require(out, f"{where}: out", [seen.dtype], context.device, seen.count, True)
    logp, entropy = (empty_like(logits, seen.shape[:-1], "float32") for _ in range(2))
    metrics = MetricsBuffer(context, logits)
    params = _logits_params(seen, rows, vocabulary, stride, temperature)
    call("policy_logits", context.handle,
         ctypes.cast(metrics.address, ctypes.POINTER(b.gradreg_policy_metrics)), result.address,
         _address(logp), _address(entropy), seen.address, target, ctypes.byref(batch.struct),
         ctypes.byref(policy.struct), ctypes.byref(params))
    return PolicyLogits(out, logp, entropy, metrics.read() if context.device == "cpu" else metrics)


class _Linear:
    """The parts that forward and backward share."""

    def __init__(self, where: str, hidden: Any, weight: Any, targets: Any, temperature: float,
                 chunk_rows: int, context: Optional[Context]) -> None:
        self.context = context or default_context(view(hidden, f"{where}: hidden").device)
        device = self.context.device
        self.hidden, rows, width, stride = _rows(f"{where}: hidden", hidden, device)
        self.weight, vocabulary, columns, weight_stride = _rows(f"{where}: weight", weight, device)
        if columns != width or self.weight.dtype != self.hidden.dtype:
            raise InvalidArgumentError(f"{where}: weight is {self.weight.shape} {self.weight.dtype}, "
                                       f"hidden {self.hidden.shape} {self.hidden.dtype}")
        self.rows = rows
        self.target = _vector(f"{where}: targets", targets, device, rows, "int32")
        self.params = initialised(b.gradreg_linear_params)
        self.params.type = self.hidden.type
        self.params.rows, self.params.width, self.params.vocabulary = rows, width, vocabulary
        self.params.hidden_stride, self.params.weight_stride = stride, weight_stride
        self.params.chunk_rows, self.params.temperature = chunk_rows, temperature


def linear_logprobs(hidden: Any, weight: Any, targets: Any, *, temperature: float = 1.0,
                    entropy: bool = True, chunk_rows: int = 0,
                    context: Optional[Context] = None) -> LogProbs:
    """logprobs(hidden @ weight.T, targets) in chunks: the logits never exist in full."""
    call_of = _Linear("gradreg.linear_logprobs", hidden, weight, targets, temperature, chunk_rows,
                      context)
    out = _outputs(hidden, call_of.hidden.shape[:-1], entropy)
    call("linear_logprobs_forward", call_of.context.handle, *map(_address, out),
         call_of.hidden.address, call_of.weight.address, call_of.target, ctypes.byref(call_of.params))
    return out


def linear_logprobs_backward(hidden: Any, weight: Any, targets: Any, saved: LogProbs, dlogp: Any,
                             dentropy: Any = None, *, temperature: float = 1.0,
                             want_hidden: bool = True, want_weight: bool = True,
                             chunk_rows: int = 0,
                             context: Optional[Context] = None) -> tuple[Any, Any]:
    """(dhidden of hidden's type, dweight in float32); None for what is not wanted."""
    where = "gradreg.linear_logprobs_backward"
    parts = _Linear(where, hidden, weight, targets, temperature, chunk_rows, context)
    device, rows = parts.context.device, parts.rows
    parts.params.hidden_stride = parts.params.hidden_stride if parts.hidden.contiguous else 0
    if want_hidden and not parts.hidden.contiguous:
        raise InvalidArgumentError(f"{where}: hidden: not contiguous")
    dhidden = empty_like(hidden, parts.hidden.shape, parts.hidden.dtype) if want_hidden else None
    dweight = empty_like(weight, parts.weight.shape, "float32") if want_weight else None
    parts.params.add_weight_gradient = 0
    call("linear_logprobs_backward", parts.context.handle, _address(dhidden), _address(dweight),
         parts.hidden.address, parts.weight.address, parts.target,
         _vector(f"{where}: log_sum_exp", saved.log_sum_exp, device, rows),
         _vector(f"{where}: entropy", saved.entropy, device, rows),
         _vector(f"{where}: dlogp", dlogp, device, rows),
         _vector(f"{where}: dentropy", dentropy, device, rows), ctypes.byref(parts.params))
    return dhidden, dweight
