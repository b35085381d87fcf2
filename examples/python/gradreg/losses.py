"""Policy losses and advantages over arrays."""
from __future__ import annotations

import copy
import ctypes
from dataclasses import dataclass
from typing import Any, NamedTuple, Optional, Sequence, Union

from . import _bindings as b
from ._arrays import as_input, empty_like, is_torch, require, view
from ._library import call, initialised, library
from ._values import EnumLike, as_enum, assign
from .context import Context, default_context
from .errors import ArrayTypeError, InvalidArgumentError


class Policy:
    """A loss by name, with changes: Policy("grpo"), Policy("dapo", clip_high=0.28, kl="k3",
    kl_coefficient=0.01). The fields of gradreg_policy are its attributes."""

    def __init__(self, preset: str = "grpo", **changes: Any) -> None:
        object.__setattr__(self, "struct", b.gradreg_policy())
        call("policy_preset", ctypes.byref(self.struct), preset.encode())
        assign(self.struct, changes, "gradreg.Policy")

    @staticmethod
    def names() -> list[str]:
        """Every preset, frameworks' variants ("grpo@trl") included."""
        name_at = library().function("gradreg_policy_preset_name")
        names: list[str] = []
        while (name := name_at(len(names))) is not None:
            names.append(name.decode())
        return names

    def __getattr__(self, name: str) -> Any:
        value = getattr(object.__getattribute__(self, "struct"), name)
        kind = b.FIELD_ENUMS["gradreg_policy"].get(name)
        return kind(value) if kind else value

    def __setattr__(self, name: str, value: Any) -> None:
        assign(self.struct, {name: value}, "gradreg.Policy")

    def __copy__(self) -> "Policy":
        return copy.deepcopy(self)

    def __repr__(self) -> str:
        hidden = ("struct_size", "reserved")
        fields = [name for name, _ in self.struct._fields_ if not name.startswith(hidden)]
        return f"Policy({', '.join(f'{name}={getattr(self, name)!r}' for name in fields)})"


def as_policy(policy: Union[Policy, str]) -> Policy:
    """A policy from its name; one whose KL has a coefficient and no kind is a mistake."""
    policy = Policy(policy) if isinstance(policy, str) else policy
    if policy.kl_coefficient != 0 and policy.kl in (0, b.Kl.NONE):
        raise InvalidArgumentError(f"gradreg.Policy: kl_coefficient = {policy.kl_coefficient:g} does "
                                   "nothing without a kl; give kl='k3', 'k1', 'k2' or 'abs' too")
    return policy


@dataclass
class PolicyMetrics:
    """What a loss saw; see gradreg_policy_metrics in gradreg.h."""
    loss: float
    policy_loss: float
    kl: float
    entropy: float
    ratio_mean: float
    ratio_min: float
    ratio_max: float
    clip_low_fraction: float
    clip_high_fraction: float
    limited_fraction: float
    effective_sample_size: float
    tokens: int
    sequences: int
    empty_sequences: int
    non_finite: int

    @classmethod
    def of(cls, struct: b.gradreg_policy_metrics) -> "PolicyMetrics":
        return cls(**{name: getattr(struct, name) for name in cls.__dataclass_fields__})


def loss_of(metrics: Any) -> float:
    """The loss among metrics, which may lie on a device."""
    read: PolicyMetrics = metrics if isinstance(metrics, PolicyMetrics) else metrics.read()
    return read.loss


class PolicyLoss(NamedTuple):
    """Gradients have the layout of logp; dentropy is None without entropy."""
    dlogp: Any
    dentropy: Any
    metrics: Any  # PolicyMetrics, or MetricsBuffer where they lie on a device

    @property
    def loss(self) -> float:
        return loss_of(self.metrics)


class MetricsBuffer:
    """Metrics in the context's memory: read() waits and copies."""

    def __init__(self, context: Context, like: Any) -> None:
        self.context = context
        size = ctypes.sizeof(b.gradreg_policy_metrics)
        self.array = empty_like(like, (size // 8,), "int64")
        if is_torch(self.array):
            self.array.zero_()
            self.array[0] = size
        else:
            self.array[:] = 0
            self.array[0] = size
        self.address = view(self.array, "metrics").address

    def read(self) -> PolicyMetrics:
        out = initialised(b.gradreg_policy_metrics)
        call("policy_metrics_read", self.context.handle, ctypes.byref(out),
             ctypes.cast(self.address, ctypes.POINTER(b.gradreg_policy_metrics)))
        return PolicyMetrics.of(out)


TOKEN_ARRAYS = ("old_logp", "ref_logp", "rollout_logp", "token_weight", "entropy")


class Batch:
    """gradreg_policy_batch from arrays, with everything it points to."""

    def __init__(self, where: str, context: Context, logp: Any, advantages: Any, *,
                 mask: Any = None, row_offsets: Any = None, group: Any = None, shape: Any = None,
                 **tokens: Any) -> None:
        self.struct = initialised(b.gradreg_policy_batch)
        self.kept: list[Any] = []
        self.where, self.context = where, context
        self.shape = tuple(view(logp, f"{where}: logp").shape if logp is not None else shape)
        self._rows(row_offsets)
        self.tokens = 1
        for size in self.shape:
            self.tokens *= size
        if logp is not None:
            self._point("logp", logp, self.tokens)
        for name, value in tokens.items():
            if name not in TOKEN_ARRAYS:
                raise ArrayTypeError(f"{where}: unexpected keyword {name!r}")
            if value is not None:
                self._point(name, value, self.tokens)
        if mask is not None:
            self._point("mask", self._bytes(mask), self.tokens, ("uint8", "bool"))
        self._advantages(advantages)
        if group is not None:
            self._group(group)

    def _rows(self, row_offsets: Any) -> None:
        if row_offsets is None:
            if len(self.shape) != 2:
                raise InvalidArgumentError(f"{self.where}: logp has shape {self.shape}, expected "
                                           "(sequences, length), or row_offsets for packed rows")
            self.struct.sequences, self.struct.length = self.shape
            return
        offsets = [int(offset) for offset in row_offsets]
        kept = (ctypes.c_int64 * max(len(offsets), 1))(*offsets)
        if not offsets or (len(self.shape) != 1) or offsets[-1] > self.shape[0]:
            raise InvalidArgumentError(f"{self.where}: row_offsets end at "
                                       f"{offsets[-1] if offsets else None}, logp has shape {self.shape}")
        self.struct.sequences = len(offsets) - 1
        self.struct.row_offsets = ctypes.addressof(kept)
        self.kept.append(kept)

    def _point(self, name: str, value: Any, count: int,
               dtypes: Sequence[str] = ("float32",)) -> None:
        seen = require(value, f"{self.where}: {name}", dtypes, self.context.device, count)
        setattr(self.struct, name, seen.address or None)
        self.kept.append(value)

    @staticmethod
    def _bytes(mask: Any) -> Any:
        """Masks come as bool, int64 or float; the library reads bytes."""
        dtype = "bool" if is_torch(mask) else "uint8"
        if view(mask, "mask").dtype in ("uint8", "bool"):
            return mask
        return as_input(mask != 0, dtype)

    def _advantages(self, advantages: Any) -> None:
        rows = self.struct.sequences
        count = view(advantages, f"{self.where}: advantages").count
        per_token = tuple(view(advantages, "advantages").shape) == self.shape and count != rows
        self.struct.advantages_per_token = int(per_token)
        self._point("advantages", advantages, self.tokens if per_token else rows)

    def _group(self, group: Any) -> None:
        ids = group.tolist() if hasattr(group, "tolist") else list(group)
        if len(ids) != self.struct.sequences:
            raise InvalidArgumentError(f"{self.where}: group has {len(ids)} entries for "
                                       f"{self.struct.sequences} sequences")
        kept = (ctypes.c_int32 * max(len(ids), 1))(*ids)
        self.struct.group = ctypes.addressof(kept)
        self.kept.append(kept)


def policy_loss(policy: Union[Policy, str], logp: Any, advantages: Any, *, old_logp: Any = None,
                ref_logp: Any = None, rollout_logp: Any = None, token_weight: Any = None,
                entropy: Any = None, mask: Any = None, row_offsets: Any = None, group: Any = None,
                context: Optional[Context] = None) -> PolicyLoss:
    """Loss, gradient and metrics of a batch: token arrays are float32, (sequences, length) or packed
    with row_offsets. old_logp: log-probs at the clean weights, a constant of both passes; None is the
    on-policy shorthand, which has the right gradient and another function's Hessian."""
    where = "gradreg.policy_loss"
    context = context or default_context(view(logp, f"{where}: logp").device)
    policy = as_policy(policy)
    batch = Batch(where, context, logp, advantages, old_logp=old_logp, ref_logp=ref_logp,
                  rollout_logp=rollout_logp, token_weight=token_weight, entropy=entropy, mask=mask,
                  row_offsets=row_offsets, group=group)
    out = initialised(b.gradreg_policy_gradient)
    dlogp = empty_like(logp, batch.shape, "float32")
    dentropy = empty_like(logp, batch.shape, "float32") if entropy is not None else None
    out.dlogp = view(dlogp, "dlogp").address
    out.dentropy = view(dentropy, "dentropy").address if dentropy is not None else None
    metrics = MetricsBuffer(context, logp)
    call("policy_loss", context.handle,
         ctypes.cast(metrics.address, ctypes.POINTER(b.gradreg_policy_metrics)), ctypes.byref(out),
         ctypes.byref(batch.struct), ctypes.byref(policy.struct))
    return PolicyLoss(dlogp, dentropy, metrics.read() if context.device == "cpu" else metrics)


def advantages(rewards: Any, group_size: Optional[int] = None, *, group: Any = None,
               baseline: EnumLike = "group_mean", scale: EnumLike = "none",
               singleton: EnumLike = "zero", epsilon: float = 1e-4,
               context: Optional[Context] = None) -> Any:
    """Advantages group by group, group_size rewards in a row or by ids in group: GRPO is scale="group_std", Dr. GRPO the default, RLOO
    baseline="leave_one_out". A reward that is NaN is left out and gets 0."""
    where = "gradreg.advantages"
    if group_size is None and group is None and \
            as_enum(b.Baseline, baseline, f"{where}: baseline") != b.Baseline.NONE:
        raise InvalidArgumentError(f"{where}: give group_size, the completions of a prompt, or group, the "
                                   "prompt of each; alone in its group every reward would get 0")
    if isinstance(rewards, (list, tuple)) or view(rewards, f"{where}: rewards").dtype != "float32":
        rewards = as_input(rewards, "float32")
    seen = view(rewards, f"{where}: rewards")
    context = context or default_context(seen.device)
    seen = require(rewards, f"{where}: rewards", ["float32"], context.device)
    params = initialised(b.gradreg_advantage_params)
    params.baseline = as_enum(b.Baseline, baseline, f"{where}: baseline")
    params.scale = as_enum(b.Scale, scale, f"{where}: scale")
    params.singleton = as_enum(b.Singleton, singleton, f"{where}: singleton")
    params.epsilon = epsilon
    kept = None
    if group is not None:
        ids = group.tolist() if hasattr(group, "tolist") else list(group)
        if len(ids) != seen.count:
            raise InvalidArgumentError(f"{where}: group has {len(ids)} entries for {seen.count} rewards")
        kept = (ctypes.c_int32 * max(len(ids), 1))(*ids)
        params.group = ctypes.addressof(kept)
    out = empty_like(rewards, seen.shape, "float32")
    call("advantages", context.handle, view(out, "out").address, seen.address, seen.count, group_size or 1,
         ctypes.byref(params))
    del kept
    return out
