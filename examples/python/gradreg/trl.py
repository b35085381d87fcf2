"""Depth-scaled gradient regularization and directional noise for TRL's GRPOTrainer.

    from trl import GRPOConfig, GRPOTrainer
    from gradreg.trl import GradRegMixin

    class Trainer(GradRegMixin, GRPOTrainer):
        pass

    trainer = Trainer(model=..., reward_funcs=..., args=GRPOConfig(...), train_dataset=...,
                      gradreg={"strength": 1e-2, "step": "relative", "epsilon": 2**-7})

Every optimizer step takes its accumulation window twice: at the weights, and a step beside them.
Old log-probs are stored when completions are scored, also where TRL leaves them out as equal to the
current ones: without them the second pass would differentiate another function. Completions are
generated and scored at the clean weights, noise is in only while gradients are computed.
"""
from __future__ import annotations

import os
from collections import defaultdict
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Optional

import torch
from transformers import Trainer

from .errors import InvalidArgumentError, UnsupportedError
from .torch import Regularizer, _RandomState

_STATE_FILE = "gradreg.pt"
# What TRL's loss changes while it is computed; the second pass must find it as the first one did.
_LOSS_STATE = ("entropy_coef", "_last_world_entropy", "_entropy_window_stats")

if TYPE_CHECKING:
    class _GrpoTrainer:
        """What the mixin takes of GRPOTrainer, for type checkers."""
        model: Any
        args: Any
        accelerator: Any
        state: Any
        _metrics: dict[str, Any]
        def __init__(self, *args: Any, **kwargs: Any) -> None: ...
        def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]: ...
        def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> Any: ...
        def _prepare_inputs(self, generation_batch: Any) -> Any: ...
        def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any) -> torch.Tensor: ...
        def _save_checkpoint(self, model: Any, trial: Any) -> None: ...
        def _load_optimizer_and_scheduler(self, checkpoint: Optional[str]) -> None: ...
        def _get_output_dir(self, trial: Any) -> str: ...
else:
    _GrpoTrainer = object


class GradRegMixin(_GrpoTrainer):
    """Put it before GRPOTrainer. gradreg: keywords of gradreg.torch.Regularizer; None: its defaults.
    With bf16=True or fp16=True compute_type follows, unless given. Logged as gradreg/...: in total, and
    per layer lambda, fidelity, curvature and correction_share (gradreg_log_layers=False leaves those
    out). The regularizer is self.gradreg from the first step on."""

    def __init__(self, *args: Any, gradreg: Optional[dict[str, Any]] = None,
                 gradreg_log_layers: bool = True, **kwargs: Any) -> None:
        self.gradreg: Optional[Regularizer] = None
        self._gr_settings = dict(gradreg or {})
        self._gr_log_layers = gradreg_log_layers
        self._gr_saved: Optional[dict[str, Any]] = None
        self._gr_window: list[dict[str, Any]] = []
        self._gr_loss_state: dict[str, Any] = {}
        self._gr_replaying = self._gr_noise_is_in = False
        super().__init__(*args, **kwargs)
        if self._gr_settings.get("second_gradient", "adds") != "adds":
            raise InvalidArgumentError("gradreg.trl: PyTorch adds gradients; leave second_gradient alone")
        if getattr(self, "is_deepspeed_enabled", False) or getattr(self, "is_fsdp_enabled", False):
            raise UnsupportedError("gradreg.trl: DeepSpeed and FSDP keep parameters in pieces; this mixin "
                                   "regularizes whole parameters (one process, or DDP)")

    # ---------------------------------------------------------- the same function in both passes

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        output = super()._generate_and_score_completions(inputs)
        if self.model.training and "old_per_token_logps" not in output:
            output["old_per_token_logps"] = self._gr_old_logps(output)
        return output

    _MODEL_INPUTS = ("pixel_values", "image_grid_thw", "num_images", "pixel_attention_mask",
                     "spatial_shapes", "num_tiles", "image_sizes", "token_type_ids",
                     "mm_token_type_ids", "image_position_ids")

    @torch.no_grad()
    def _gr_old_logps(self, scored: dict[str, Any]) -> torch.Tensor:
        """Log-probs of all completions at the weights that they come from."""
        ids = torch.cat([scored["prompt_ids"], scored["completion_ids"]], dim=1)
        mask = torch.cat([scored["prompt_mask"], scored["completion_mask"]], dim=1)
        found: tuple[torch.Tensor, ...] = self._get_per_token_logps_and_entropies(
            self.model, ids, mask, scored["completion_ids"].size(1),
            batch_size=self.args.per_device_train_batch_size,
            **{name: scored[name] for name in self._MODEL_INPUTS if name in scored})
        return found[0]

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        if self._gr_replaying:
            return generation_batch
        if not self.model.training:
            return super()._prepare_inputs(generation_batch)
        regularizer = self._gr_regularizer()
        if self._gr_noise_is_in:  # the middle of a window: completions come from clean weights
            regularizer.remove_noise()
            self._gr_noise_is_in = False
        inputs = super()._prepare_inputs(generation_batch)
        if regularizer.noisy:
            regularizer.inject_noise()
            self._gr_noise_is_in = True
        if not self._gr_window:
            self._gr_loss_state = self._gr_read_loss_state()
        self._gr_window.append({"inputs": inputs, "random": _RandomState(regularizer.context.device)})
        return inputs

    def _gr_read_loss_state(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _LOSS_STATE if hasattr(self, name)}

    # ---------------------------------------------------------- the step

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        loss = super().training_step(model, inputs, num_items_in_batch)
        self._gr_window[-1]["count"] = num_items_in_batch
        if not self.accelerator.sync_gradients:
            return loss
        regularizer, window = self._gr_regularizer(), self._gr_window
        self._gr_window = []
        try:
            for index in range(regularizer.extra_passes):
                self._gr_pass(regularizer, model, window, index)
            regularizer.combine(scaler=self.accelerator.scaler)
        except BaseException:
            regularizer.cancel()
            raise
        finally:
            self._gr_noise_is_in = False
        for name, value in regularizer.metrics("gradreg/", self._gr_log_layers).items():
            self._metrics["train"][name].append(value)
        return loss

    def _gr_pass(self, regularizer: Regularizer, model: Any, window: list[dict[str, Any]],
                 index: int) -> None:
        """The window once more beside the weights, with the metrics and the loss's own state of the
        first pass kept."""
        move = regularizer.mirror if index else regularizer.perturb
        move(scaler=self.accelerator.scaler)
        metrics, after = self._metrics, self._gr_read_loss_state()
        random = _RandomState(regularizer.context.device)
        self._metrics = {mode: defaultdict(list) for mode in metrics}
        self._gr_write_loss_state(self._gr_loss_state)
        self._gr_replaying = True
        try:
            for part in window:
                part["random"].restore()
                last = part is window[-1]
                self.accelerator.gradient_state._set_sync_gradients(last)
                with nullcontext() if last else self.accelerator.no_sync(model):
                    whole: Any = Trainer  # without GRPOTrainer's own counting
                    whole.training_step(self, model, part["inputs"], part["count"])
        finally:
            self._gr_replaying = False
            self.accelerator.gradient_state._set_sync_gradients(True)
            self._metrics = metrics
            self._gr_write_loss_state(after)
            random.restore()

    def _gr_write_loss_state(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)

    # ---------------------------------------------------------- the regularizer and its state

    def _gr_regularizer(self) -> Regularizer:
        if self.gradreg is None:
            settings = self._gr_settings
            kind = "bf16" if self.args.bf16 else "f16" if self.args.fp16 else None
            if kind is not None:
                settings.setdefault("compute_type", kind)
            self.gradreg = Regularizer(self.accelerator.unwrap_model(self.model), **settings)
            if self._gr_saved is not None:
                self.gradreg.load_state_dict(self._gr_saved)
                self._gr_saved = None
        return self.gradreg

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        if self.gradreg is not None and self.args.should_save:
            folder = os.path.join(self._get_output_dir(trial=trial),
                                  f"checkpoint-{self.state.global_step}")
            torch.save(self.gradreg.state_dict(), os.path.join(folder, _STATE_FILE))

    def _load_optimizer_and_scheduler(self, checkpoint: Optional[str]) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        path = os.path.join(checkpoint, _STATE_FILE) if checkpoint else ""
        if os.path.exists(path):
            self._gr_saved = torch.load(path, weights_only=True)
