"""For PyTorch: modules regularized in place, and losses as autograd functions.

    regularizer = gradreg.torch.Regularizer(model, optimizer, strength=1e-2, epsilon=1e-2)

    def closure():                     # once more at the perturbed weights: same data, same old_logp
        loss = loss_of(model)
        loss.backward()
        return loss

    regularizer.step(closure)          # gradients regularized, weights restored, optimizer stepped

Needs nothing of PyTorch beyond tensors: 1.13 and newer, CPU and CUDA.
"""
from __future__ import annotations

import ctypes
from typing import Any, Callable, Iterable, NamedTuple, Optional, Union

import torch

from . import _bindings as b
from . import losses as _losses
from . import token_logprobs as _logprobs
from ._arrays import dense
from .context import Context, follow_stream, logger
from ._values import as_roles
from .errors import ArrayTypeError, Error, InvalidArgumentError, StateError, UnsupportedError
from .layers import Segment
from .layers import classify as _classify
from .losses import MetricsBuffer, Policy, PolicyMetrics
from .regularizer import Fixed, Terms
from .regularizer import Regularizer as _Core

TORCH_TYPES = {torch.float32: b.Type.F32, torch.bfloat16: b.Type.BF16, torch.float16: b.Type.F16}
Named = Union[torch.nn.Module, Iterable[tuple[str, torch.Tensor]]]
Classify = Callable[[str], tuple[int, Union[b.Role, str]]]


class Regularizer(Fixed):
    """Depth-scaled gradient regularization of a module's trainable parameters, where they are.

    Layers and roles come from parameter names (Hugging Face models, LoRA adapters, DDP and
    torch.compile prefixes); a tied weight counts once, under its first name; parameters that do not
    require a gradient are left alone. Names that gradreg.classify does not know need a function of your
    own: classify(name) returns (layer or gradreg.LAYER_NONE, "attention", "mlp", "norm", ...).
    With an optimizer, step() and second_step() also step it.
    Other keywords as in gradreg.Regularizer: strength, epsilon, step="relative",
    difference="central", compute_type="bf16" (under autocast), noise="relative", min_fidelity, ...

    Three ways to use it:
        step(closure)                      everything in one call
        first_step(), second_step()        the shape of SAM implementations
        perturb(), mirror(), combine()     the library's own
    """

    def __init__(self, parameters: Named, optimizer: Optional[torch.optim.Optimizer] = None, *,
                 layer_count: Optional[int] = None, context: Optional[Context] = None,
                 classify: Optional[Classify] = None, **params: Any) -> None:
        named = _named(parameters)
        self.optimizer = optimizer
        self.names, self.parameters = _trainable(named)
        layers = {name: _place(name, classify) for name, _ in named}
        device = _common_device(self.names, self.parameters)
        self.context = context or Context(*_backend(device))
        if layer_count is None:
            layer_count = 1 + max(layer for layer, _ in layers.values())
            if layer_count < 1:
                raise InvalidArgumentError(
                    f"gradreg.torch.Regularizer: no parameter's name says which layer it is in "
                    f"({self.names[0]}, ...); give classify, a function from a name to (layer, role)")
        segments = [_segment(name, parameter, *layers[name])
                    for name, parameter in zip(self.names, self.parameters)]
        params.setdefault("second_gradient", "adds")
        self.core = _Core(segments, self.context, layer_count=layer_count, **params)
        if classify is None:
            _tell_unknown(segments)
        _tell_foreign(optimizer, self.parameters)
        self._told_absent = False
        self._versions: list[int] = []
        self._had_gradient: list[bool] = []
        self._kept: list[Any] = []
        self._scaler: Any = None

    @property
    def layer_count(self) -> int:
        return self.core.layer_count

    def __repr__(self) -> str:
        return repr(self.core).replace("gradreg.", "gradreg.torch.", 1).replace("segments", "parameters")

    @property
    def central(self) -> bool:
        return bool(self.core.params.difference == b.Difference.CENTRAL)

    @property
    def noisy(self) -> bool:
        """Whether directional noise is on."""
        return self.core.params.noise.rule not in (0, b.NoiseRule.OFF)

    # -------------------------------------------------------------- the step

    def step(self, closure: Callable[[], Any], *, scaler: Any = None, same_random: bool = True) -> Any:
        """One regularized step: closure() computes the loss, calls backward() (several times to
        accumulate) and returns the loss. It runs once at the weights and extra_passes times beside
        them. Gradients are cleared before; random numbers (dropout) are the same in every pass. If
        closure raises, the weights are put back. Returns the first loss."""
        self.zero_grad()
        random = _RandomState(self.context.device) if same_random else None
        beside: list[Any] = []
        try:
            if self.noisy:
                self.inject_noise()
            with torch.enable_grad():
                first = closure()
                passes = self.core.extra_passes
                after = _RandomState(self.context.device) if random and passes else None
                for i in range(passes):
                    (self.perturb if i == 0 else self.mirror)(scaler=scaler)
                    if random:
                        random.restore()
                    beside.append(closure())
                if after:
                    after.restore()
            self.combine(scaler=scaler)
        except BaseException:
            self._cancel_after_failure()
            raise
        if beside:
            self._observe(first, beside[0])  # the one on the step's own side
        self._step_optimizer(scaler)
        return first

    def first_step(self, zero_grad: bool = True, *, scaler: Any = None) -> None:
        """After the first backward pass. Gradients are zero afterwards either way, since PyTorch adds
        to them; zero_grad=True also frees them."""
        self.perturb(scaler=scaler)
        if zero_grad:
            self.zero_grad()

    def second_step(self, zero_grad: bool = False, *, scaler: Any = None) -> None:
        """After the second backward pass: weights back, gradients regularized, optimizer stepped."""
        self.combine(scaler=scaler)
        self._step_optimizer(scaler)
        if zero_grad:
            self.zero_grad()

    def _step_optimizer(self, scaler: Any) -> None:
        if self.optimizer is not None and scaler is not None:
            scaler.step(self.optimizer)
        elif self.optimizer is not None:
            self.optimizer.step()

    def _observe(self, first: Any, second: Any) -> None:
        """Both losses, if they are scalars of this device: the terms then say whether they fit."""
        losses = [loss.detach().float().reshape(()) if isinstance(loss, torch.Tensor) and loss.numel() == 1
                  else None for loss in (first, second)]
        if all(loss is not None and str(loss.device) == self.context.device for loss in losses):
            self._kept = losses
            self.core.observe_losses(*losses)

    # -------------------------------------------------------------- the library's own

    def perturb(self, *, scaler: Any = None, **more: Any) -> None:
        """Gradients are those of the loss: step away from the weights along them."""
        gradients = self._gradients("perturb")
        self._check_absent(gradients)
        self._call("perturb", gradients, scaler, more)
        self._had_gradient = [gradient is not None for gradient in gradients]
        self._versions = [parameter._version for parameter in self.parameters]

    def mirror(self, *, scaler: Any = None, **more: Any) -> None:
        """difference="central": from the weights plus the step to the weights minus the step."""
        self._check_untouched("mirror")
        self._allocate("mirror")
        self._call("mirror", self._gradients("mirror"), scaler, more)

    def combine(self, *, scaler: Any = None, **more: Any) -> None:
        """Gradients are those at the perturbed weights: they become the regularized ones."""
        self._check_untouched("combine")
        self._allocate("combine")
        self._call("combine", self._gradients("combine"), scaler, more)
        self._end(scaler)

    def fallback(self, *, scaler: Any = None, **more: Any) -> None:
        """Leave a perturbed step without its second pass: gradients become the clipped first ones."""
        self._allocate("fallback", quiet=True)
        self._call("fallback", self._gradients("fallback"), scaler, more)
        self._end(scaler)

    def cancel(self) -> None:
        """Leave any state; weights to the last bit. No gradient is written."""
        self._call("cancel", None, None, {})
        self._had_gradient, self._versions = [], []

    def _cancel_after_failure(self) -> None:
        """What made the step fail may make this fail too; the first is the one to hear about."""
        try:
            self.cancel()
        except Error as error:
            if not self._versions and not self.noisy:
                return  # nothing had moved
            logger.error("gradreg.torch.Regularizer: weights may not be where they were: %s", error)

    def inject_noise(self) -> None:
        """Add this step's noise; rollouts and old log-probs belong before it."""
        self._call("inject_noise", None, None, {})

    def remove_noise(self) -> None:
        """Take the noise back."""
        self._call("remove_noise", None, None, {})

    def suggest_epsilon(self, target_cosine: float = 0.95) -> float:
        """The smallest epsilon whose step arrives, for the gradients at hand; inf if none does."""
        follow_stream(self.context)
        return self.core.suggest_epsilon(self._weights("suggest_epsilon"), self._gradients("suggest_epsilon"),
                                         target_cosine)

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    def _call(self, name: str, gradients: Optional[list[Any]], scaler: Any,
              more: dict[str, Any]) -> None:
        follow_stream(self.context)
        if scaler is not None and scaler.is_enabled():
            more = {**more, **self._scale(name, scaler)}
        getattr(self.core, name)(self._weights(name), gradients, **more)

    def _weights(self, name: str) -> list[torch.Tensor]:
        for place, parameter, segment in zip(self.names, self.parameters, self.core.segments):
            if TORCH_TYPES.get(parameter.dtype) != segment.param_type:
                raise ArrayTypeError(
                    f"gradreg.torch.Regularizer.{name}: {place} has become {parameter.dtype} since this was "
                    "made; convert the model first, then make the regularizer")
        return [parameter.data for parameter in self.parameters]

    def _check_absent(self, gradients: list[Optional[torch.Tensor]]) -> None:
        """Parameters without a gradient are allowed, none with one is a step that does nothing."""
        absent = [name for name, gradient in zip(self.names, gradients) if gradient is None]
        params = self.core.params
        if len(absent) == len(gradients) and params.world <= 1 and \
                params.direction in (0, b.Direction.GRADIENT):
            raise StateError("gradreg.torch.Regularizer.perturb: no parameter has a gradient; call "
                             "loss.backward() first (in the closure of step()), and zero_grad() before it, "
                             "not after")
        if absent and not self._told_absent:
            self._told_absent = True
            logger.warning("gradreg.torch.Regularizer.perturb: %d of %d parameters, %s first, have no "
                           "gradient (unused by the loss, or frozen or replaced since this was made): they "
                           "are left out of this step. Said once", len(absent), len(gradients), absent[0])

    def _check_untouched(self, name: str) -> None:
        for place, parameter, version in zip(self.names, self.parameters, self._versions):
            if parameter._version != version:
                raise StateError(f"gradreg.torch.Regularizer.{name}: {place} was written to since perturb; "
                                 "what the step moved would lose it. Call optimizer.step() after combine, "
                                 "never in the closure; cancel() gives up this step")

    def _gradients(self, name: str) -> list[Optional[torch.Tensor]]:
        found = []
        for parameter_name, parameter in zip(self.names, self.parameters):
            gradient = parameter.grad
            if gradient is not None:
                _check_gradient(f"gradreg.torch.Regularizer.{name}: the gradient of {parameter_name}",
                                parameter, gradient)
            found.append(gradient)
        return found

    def _allocate(self, name: str, quiet: bool = False) -> None:
        """The library writes a result wherever there was a first gradient."""
        missing = [i for i, had in enumerate(self._had_gradient)
                   if had and self.parameters[i].grad is None]
        for i in missing:
            self.parameters[i].grad = torch.zeros_like(self.parameters[i])
        if missing and not quiet:
            logger.warning("gradreg.torch.Regularizer.%s: %d parameters, %s first, had a gradient in the "
                           "first pass and none in this one: it counts as zeros. Both passes must "
                           "compute the same function", name, len(missing), self.names[missing[0]])

    # -------------------------------------------------------------- loss scaling

    def _scale(self, name: str, scaler: Any) -> dict[str, Any]:
        """Gradients hold scale times g, and an overflow in either pass is the scaler's to know."""
        if name not in ("perturb", "combine", "fallback"):
            return {}
        scale = scaler._get_scale_async()  # pylint: disable=protected-access
        if scale is None:
            scale = torch.tensor(float(scaler.get_scale()))
        scale = scale.detach().to(self.context.device, torch.float32).reshape(1)
        if name == "perturb" or self._scaler is None:
            self._scaler = torch.zeros(1, device=self.context.device)
        self._kept = [scale]
        return {"grad_scale": scale, "found_inf": self._scaler}

    def _end(self, scaler: Any) -> None:
        """The scaler looks for overflow in the gradients themselves: show it there, without waiting."""
        self._had_gradient, self._versions = [], []
        if scaler is not None and scaler.is_enabled() and self._scaler is not None:
            for parameter in self.parameters:
                if parameter.grad is not None and parameter.grad.numel() > 0:
                    first = parameter.grad.as_strided((1,), (1,))
                    first.copy_(torch.where(self._scaler > 0, torch.full_like(first, float("inf")),
                                            first))
                    break
        self._scaler = None

    # -------------------------------------------------------------- reports and state

    @property
    def extra_passes(self) -> int:
        return self.core.extra_passes

    def set_strength(self, strength: float) -> None:
        """Change lambda for later steps."""
        self.core.set_strength(strength)

    def set_epsilon(self, epsilon: float) -> None:
        """Change epsilon for later steps."""
        self.core.set_epsilon(epsilon)

    def terms(self) -> Terms:
        """What the last step did; waits."""
        return self.core.terms()

    def metrics(self, prefix: str = "gradreg/", layers: bool = True) -> dict[str, float]:
        """The terms that a training log wants, as numbers by name; waits. NaN ones are left out."""
        terms = self.terms()
        found = {name: getattr(terms, name) for name in _LOGGED_TOTAL}
        found["fidelity"] = terms.applied_cosine
        found["dropped"] = float(bool(terms.flags & b.Flag.DROPPED))
        for i, layer in enumerate(terms.layers if layers else []):
            found.update({f"layer_{i:02}/lambda": layer.strength,
                          f"layer_{i:02}/fidelity": layer.applied_cosine,
                          f"layer_{i:02}/curvature": layer.curvature,
                          f"layer_{i:02}/correction_share": layer.correction_share})
        return {prefix + name: value for name, value in found.items() if value == value}

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to give the same bits; for torch.save."""
        state = torch.frombuffer(bytearray(self.core.save_state() or b"\0"), dtype=torch.uint8)
        return {"version": 1, "names": list(self.names), "state": state.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what state_dict() returned for the same parameters and settings."""
        if state.get("version") != 1:
            raise InvalidArgumentError("gradreg.torch.Regularizer.load_state_dict: version "
                                       f"{state.get('version')!r}, expected 1, from state_dict() of a "
                                       "regularizer")
        if list(state["names"]) != self.names:
            other = next((f"{a} instead of {mine}" for a, mine in zip(state["names"], self.names)
                          if a != mine), f"{len(state['names'])} instead of {len(self.names)}")
            raise InvalidArgumentError("gradreg.torch.Regularizer.load_state_dict: saved for other "
                                       f"parameters: {other}")
        saved = state["state"].cpu().contiguous()
        self.core.load_state(ctypes.string_at(saved.data_ptr(), saved.numel()))

    def close(self) -> None:
        """Release the library's memory. Weights stay as they are: cancel() first within a step."""
        self.core.close()

    def __enter__(self) -> "Regularizer":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


_LOGGED_TOTAL = ("strength", "effective_epsilon", "first_norm", "second_norm", "curvature", "alignment",
                 "correction_share", "changed_fraction", "first_order_ratio", "noise_norm")


def _named(parameters: Any) -> list[tuple[str, torch.Tensor]]:
    if isinstance(parameters, torch.nn.Module):
        return list(parameters.named_parameters())
    pairs = list(parameters) if hasattr(parameters, "__iter__") else [parameters]
    for pair in pairs:
        if not isinstance(pair, tuple) or len(pair) != 2 or not isinstance(pair[0], str):
            raise ArrayTypeError("gradreg.torch.Regularizer: expected a module or its named_parameters(), "
                                 f"not {type(pair).__name__}: names say layers and roles")
    return pairs


def _place(name: str, classify: Optional[Classify]) -> tuple[int, b.Role]:
    if classify is None:
        return _classify(name)
    layer, role = classify(name)
    return layer, b.Role(as_roles(role, f"gradreg.torch.Regularizer: classify({name!r})"))


def _tell_unknown(segments: list[Segment]) -> None:
    unknown = [s.name for s in segments if s.layer >= 0 and s.role == b.Role.OTHER]
    if unknown:
        logger.warning("gradreg.torch.Regularizer: the names of %d of %d parameters, %s first, do not say "
                       "what they are for: these are neither perturbed nor regularized. Give classify, a "
                       "function from a name to (layer, role)", len(unknown), len(segments), unknown[0])


def _tell_foreign(optimizer: Any, parameters: list[torch.Tensor]) -> None:
    groups = getattr(optimizer, "param_groups", None) or []
    held = {id(parameter) for group in groups for parameter in group["params"]}
    if held and not any(id(parameter) in held for parameter in parameters):
        logger.warning("gradreg.torch.Regularizer: the optimizer holds none of the model's parameters: "
                       "was it made for another model, or before this one's were replaced?")


def _trainable(named: list[tuple[str, torch.Tensor]]) -> tuple[list[str], list[torch.Tensor]]:
    names, parameters, seen = [], [], {}
    for name, parameter in named:
        where = f"gradreg.torch.Regularizer: {name}"
        if not isinstance(parameter, torch.Tensor):
            raise ArrayTypeError(f"{where}: expected a tensor, not {type(parameter).__name__}")
        if not parameter.requires_grad or id(parameter) in seen:
            continue
        if hasattr(parameter, "to_local"):
            raise UnsupportedError(f"{where}: a DTensor is spread over ranks; use gradreg.Regularizer "
                                   "with shards")
        if parameter.dtype not in TORCH_TYPES:
            raise ArrayTypeError(f"{where}: elements are {parameter.dtype}, expected float32, bfloat16 "
                                 "or float16")
        if not dense(parameter):
            raise InvalidArgumentError(f"{where}: not contiguous; the library works in place. Give it "
                                       "memory of its own: parameter.data = parameter.data.contiguous()")
        seen[id(parameter)] = name
        names.append(name)
        parameters.append(parameter)
    if not names:
        raise InvalidArgumentError("gradreg.torch.Regularizer: no parameter requires a gradient")
    return names, parameters


def _common_device(names: list[str], parameters: list[torch.Tensor]) -> torch.device:
    for name, parameter in zip(names, parameters):
        if parameter.device != parameters[0].device:
            raise InvalidArgumentError(f"gradreg.torch.Regularizer: {name} lies on {parameter.device}, "
                                       f"{names[0]} on {parameters[0].device}; one regularizer a device")
    return parameters[0].device


def _backend(device: torch.device) -> tuple[str, int]:
    if device.type not in ("cpu", "cuda"):
        raise UnsupportedError(f"gradreg.torch.Regularizer: no backend for {device}; expected cpu or "
                               "cuda" + ("; load the model's weights first" if device.type == "meta"
                                         else ""))
    return device.type, device.index or 0


def _segment(name: str, parameter: torch.Tensor, layer: int, role: b.Role) -> Segment:
    kind = TORCH_TYPES[parameter.dtype]
    return Segment(parameter.numel(), layer, role, param_type=kind, grad_type=kind, name=name)


def _check_gradient(where: str, parameter: torch.Tensor, gradient: torch.Tensor) -> None:
    if gradient.shape != parameter.shape:
        raise InvalidArgumentError(f"{where}: shape {tuple(gradient.shape)}, the parameter has "
                                   f"{tuple(parameter.shape)}")
    if gradient.is_sparse:
        raise InvalidArgumentError(f"{where}: sparse, expected dense; make the module with sparse=False, or "
                                   "leave its parameters out")
    if gradient.dtype != parameter.dtype:
        raise ArrayTypeError(f"{where}: elements are {gradient.dtype}, the parameter's are "
                             f"{parameter.dtype}")
    if gradient.stride() != parameter.stride() and \
            not (gradient.is_contiguous() and parameter.is_contiguous()):
        raise InvalidArgumentError(f"{where}: not contiguous in the parameter's layout: strides "
                                   f"{gradient.stride()}, the parameter's are {parameter.stride()}")


class _RandomState:
    """PyTorch's generators of the CPU and of one device."""

    def __init__(self, device: str) -> None:
        self.cpu = torch.get_rng_state()
        self.device = None if device == "cpu" else device
        self.other: Any = torch.cuda.get_rng_state(self.device) if self.device else None

    def restore(self) -> None:
        torch.set_rng_state(self.cpu)
        if self.device:
            torch.cuda.set_rng_state(self.other, self.device)


# ------------------------------------------------------------------ losses


class PolicyLoss(NamedTuple):
    """loss is a scalar to call backward() on; metrics is PolicyMetrics, or on CUDA a MetricsBuffer whose
    read() waits."""
    loss: torch.Tensor
    metrics: Union[PolicyMetrics, MetricsBuffer]


def _floats(value: Optional[torch.Tensor]) -> Optional[torch.Tensor]:
    return None if value is None else value.float().contiguous()


def _constants(arrays: dict[str, Any]) -> dict[str, Any]:
    """Inputs that no gradient flows into, as the library reads them."""
    return {name: value.detach().float().contiguous() if isinstance(value, torch.Tensor) and
            value.is_floating_point() and name not in ("mask", "group") else value
            for name, value in arrays.items()}


def _mask(mask: Optional[torch.Tensor]) -> Optional[torch.Tensor]:
    return None if mask is None else (mask != 0).contiguous()


def _loss_of(metrics: Union[PolicyMetrics, MetricsBuffer], like: torch.Tensor) -> torch.Tensor:
    if isinstance(metrics, PolicyMetrics):
        return torch.tensor(metrics.loss, dtype=torch.float32)
    offset = b.gradreg_policy_metrics.loss.offset // 8
    loss: torch.Tensor = metrics.array[offset:offset + 1].view(torch.float64)[0]
    return loss.to(like.device, torch.float32)


class _PolicyLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logp: Any, entropy: Any, policy: Any, advantages: Any, arrays: Any,
                holder: Any) -> Any:
        out = _losses.policy_loss(policy, logp.detach(), advantages,
                                  entropy=None if entropy is None else entropy.detach(), **arrays)
        ctx.save_for_backward(out.dlogp, out.dentropy)
        holder.append(out.metrics)
        return _loss_of(out.metrics, logp)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Any) -> Any:
        dlogp, dentropy = ctx.saved_tensors
        wanted = dentropy is not None and ctx.needs_input_grad[1]
        return (gradient * dlogp if ctx.needs_input_grad[0] else None,
                gradient * dentropy if wanted else None, None, None, None, None)


def policy_loss(policy: Union[Policy, str], logp: torch.Tensor, advantages: torch.Tensor, *,
                entropy: Optional[torch.Tensor] = None, mask: Optional[torch.Tensor] = None,
                context: Optional[Context] = None, **arrays: Any) -> PolicyLoss:
    """gradreg.policy_loss, differentiable in logp and entropy. arrays: old_logp, ref_logp,
    rollout_logp, token_weight, row_offsets, group."""
    holder: list[Any] = []
    loss = _PolicyLoss.apply(_floats(logp), _floats(entropy), policy, _floats(advantages.detach()),
                             {**_constants(arrays), "mask": _mask(mask), "context": context}, holder)
    return PolicyLoss(loss, holder[0])


def _targets(targets: torch.Tensor, ignore_index: int) -> torch.Tensor:
    return torch.where(targets == ignore_index, torch.full_like(targets, -1),
                       targets).to(torch.int32).contiguous()


def _given(gradient: Any) -> Any:
    return None if gradient is None else gradient.float().contiguous()


class _LogProbs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Any, targets: Any, temperature: Any, context: Any) -> Any:
        ctx.set_materialize_grads(False)
        out = _logprobs.logprobs(logits.detach(), targets, temperature=temperature, context=context)
        ctx.temperature, ctx.context = temperature, context
        ctx.save_for_backward(logits, targets, out.log_sum_exp, out.entropy)
        return out.logp, out.entropy

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dlogp: Any, dentropy: Any) -> Any:
        logits, targets, log_sum_exp, entropy = ctx.saved_tensors
        dlogp = torch.zeros_like(log_sum_exp) if dlogp is None else dlogp
        dlogits = _logprobs.logprobs_backward(
            logits, targets, _logprobs.LogProbs(None, entropy, log_sum_exp), _given(dlogp),
            _given(dentropy), temperature=ctx.temperature, context=ctx.context)
        return dlogits, None, None, None


def logprobs(logits: torch.Tensor, targets: torch.Tensor, *, temperature: float = 1.0,
             ignore_index: int = -100,
             context: Optional[Context] = None) -> tuple[torch.Tensor, torch.Tensor]:
    """(logp, entropy) of each row, differentiable in the logits (float32, bfloat16 or float16). Rows
    whose target is ignore_index or -1 are padding: 0, gradient 0, never read."""
    pair: tuple[torch.Tensor, torch.Tensor] = _LogProbs.apply(
        logits.contiguous(), _targets(targets, ignore_index), temperature, context)
    return pair


class _LinearLogProbs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Any, weight: Any, targets: Any, temperature: Any,
                chunk_rows: Any, context: Any) -> Any:
        ctx.set_materialize_grads(False)
        out = _logprobs.linear_logprobs(hidden.detach(), weight.detach(), targets,
                                        temperature=temperature, chunk_rows=chunk_rows,
                                        context=context)
        ctx.options = {"temperature": temperature, "chunk_rows": chunk_rows, "context": context}
        ctx.save_for_backward(hidden, weight, targets, out.log_sum_exp, out.entropy)
        return out.logp, out.entropy

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dlogp: Any, dentropy: Any) -> Any:
        hidden, weight, targets, log_sum_exp, entropy = ctx.saved_tensors
        dlogp = torch.zeros_like(log_sum_exp) if dlogp is None else dlogp
        dhidden, dweight = _logprobs.linear_logprobs_backward(
            hidden, weight, targets, _logprobs.LogProbs(None, entropy, log_sum_exp), _given(dlogp),
            _given(dentropy), want_hidden=ctx.needs_input_grad[0],
            want_weight=ctx.needs_input_grad[1], **ctx.options)
        return (dhidden, None if dweight is None else dweight.to(weight.dtype), None, None, None, None)


class _LinearInChunks(torch.autograd.Function):
    """The same with PyTorch's matrix products, for a library without one; products are float32."""

    @staticmethod
    def forward(ctx: Any, hidden: Any, weight: Any, targets: Any, temperature: Any,
                chunk_rows: Any, context: Any) -> Any:
        ctx.set_materialize_grads(False)
        rows = hidden.detach().reshape(-1, hidden.shape[-1])
        ctx.chunk = chunk_rows or max(2 ** 26 // max(weight.shape[0], 1), 1)
        ctx.options = {"temperature": temperature, "context": context}
        parts = [_logprobs.logprobs(_product(rows[i:i + ctx.chunk], weight.detach()),
                                    targets.flatten()[i:i + ctx.chunk], **ctx.options)
                 for i in range(0, rows.shape[0], ctx.chunk)]
        logp, entropy, log_sum_exp = (torch.cat(column).view(targets.shape) for column in zip(*parts)) \
            if parts else (torch.empty(targets.shape, device=hidden.device) for _ in range(3))
        ctx.save_for_backward(hidden, weight, targets, log_sum_exp, entropy)
        return logp, entropy

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dlogp: Any, dentropy: Any) -> Any:
        hidden, weight, targets, log_sum_exp, entropy = ctx.saved_tensors
        dlogp = _given(torch.zeros_like(log_sum_exp) if dlogp is None else dlogp).flatten()
        dentropy = None if dentropy is None else _given(dentropy).flatten()
        rows = hidden.reshape(-1, hidden.shape[-1])
        dhidden = torch.empty_like(rows)
        dweight = torch.zeros(weight.shape, device=weight.device)
        for i in range(0, rows.shape[0], ctx.chunk):
            part = slice(i, i + ctx.chunk)
            logits = _product(rows[part], weight)
            saved = _logprobs.LogProbs(None, entropy.flatten()[part], log_sum_exp.flatten()[part])
            _logprobs.logprobs_backward(logits, targets.flatten()[part], saved, dlogp[part],
                                        None if dentropy is None else dentropy[part], out=logits,
                                        **ctx.options)
            dhidden[part] = (logits @ weight.float()).to(dhidden.dtype)
            dweight.addmm_(logits.T, rows[part].float())
        return (dhidden.view(hidden.shape) if ctx.needs_input_grad[0] else None,
                dweight.to(weight.dtype) if ctx.needs_input_grad[1] else None, None, None, None, None)


def _product(rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return (rows.float() @ weight.float().T).contiguous()


def linear_logprobs(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, *,
                    temperature: float = 1.0, ignore_index: int = -100, chunk_rows: int = 0,
                    context: Optional[Context] = None) -> tuple[torch.Tensor, torch.Tensor]:
    """logprobs(hidden @ weight.T, targets) without the matrix of logits, differentiable in hidden and
    weight (the output head, vocabulary x width). A library that was built without a BLAS leaves the
    matrix products to PyTorch."""
    arguments = (hidden.contiguous(), weight.contiguous(), _targets(targets, ignore_index), temperature,
                 chunk_rows, context)
    pair: tuple[torch.Tensor, torch.Tensor]
    try:
        pair = _LinearLogProbs.apply(*arguments)
    except UnsupportedError:
        with torch.amp.autocast_mode.autocast(hidden.device.type, enabled=False):
            pair = _LinearInChunks.apply(*arguments)
    return pair


class _PolicyLogits(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Any, policy: Any, targets: Any, advantages: Any, arrays: Any,
                holder: Any) -> Any:
        out = _logprobs.policy_logits(policy, logits.detach(), targets, advantages, **arrays)
        ctx.save_for_backward(out.dlogits)
        holder.append(out)
        return _loss_of(out.metrics, logits)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Any) -> Any:
        (dlogits,) = ctx.saved_tensors
        return gradient.to(dlogits.dtype) * dlogits, None, None, None, None, None


def policy_logits(policy: Union[Policy, str], logits: torch.Tensor, targets: torch.Tensor,
                  advantages: torch.Tensor, *, mask: Optional[torch.Tensor] = None,
                  ignore_index: int = -100, context: Optional[Context] = None,
                  **arrays: Any) -> PolicyLoss:
    """A token-level loss from logits in one visit of each row, differentiable in the logits. arrays as
    in policy_loss, temperature too."""
    holder: list[Any] = []
    loss = _PolicyLogits.apply(
        logits.contiguous(), policy, _targets(targets, ignore_index), _floats(advantages.detach()),
        {**_constants(arrays), "mask": _mask(mask), "context": context}, holder)
    return PolicyLoss(loss, holder[0].metrics)


__all__ = ["Regularizer", "PolicyLoss", "policy_loss", "logprobs", "linear_logprobs", "policy_logits"]
