"""Regularized reinforcement-learning losses: libgradreg for Python.

Plain ctypes over the C library; nothing is copied. `gradreg` works on NumPy arrays (and on PyTorch
tensors where it says so), `gradreg.torch` on modules, `gradreg.trl` on TRL's GRPOTrainer.
"""
from ._bindings import (Aggregation, Backend, Baseline, Curve, Decay, Depth, Difference, Direction,
                        FirstGradient, Flag, Kl, LogLevel, NoiseRule, NonFinite, Output, Penalty,
                        Placement, RatioLevel, Restore, Role, RolloutMode, Rounding, Scale,
                        SecondGradient, SecondPass, SegmentFlag, Singleton, Step, Surrogate, Type,
                        Warmup)
from ._library import version
from .context import Context, ContextInfo, backend_available, default_context
from .errors import (ArrayTypeError, BlasError, CommunicationError, DeviceError, Error,
                     InvalidArgumentError, NonFiniteError, OutOfMemoryError, StateError,
                     UnsupportedError)
from .layers import LAYER_NONE, LAYER_STACKED, Schedule, Segment, classify, flat_table
from .losses import Policy, PolicyLoss, PolicyMetrics, advantages, policy_loss
from .token_logprobs import (LogProbs, PolicyLogits, linear_logprobs, linear_logprobs_backward, logprobs,
                       logprobs_backward, policy_logits)
from .probe import (Probe, ProbeLayer, distinct_ngrams, js_divergence, moving_average, weight_delta)
from .regularizer import Adaptive, Noise, Regularizer, Terms, workspace_bytes

__all__ = [
    "Adaptive", "Aggregation", "ArrayTypeError", "Backend", "Baseline", "BlasError",
    "CommunicationError", "Context", "ContextInfo", "Curve", "Decay", "Depth", "DeviceError",
    "Difference", "Direction", "Error", "FirstGradient", "Flag", "InvalidArgumentError", "Kl",
    "LAYER_NONE", "LAYER_STACKED", "LogLevel", "LogProbs", "Noise", "NoiseRule", "NonFinite",
    "NonFiniteError", "OutOfMemoryError", "Output", "Penalty", "Placement", "Policy", "PolicyLogits",
    "PolicyLoss", "PolicyMetrics", "Probe", "ProbeLayer", "RatioLevel", "Regularizer", "Restore",
    "Role", "RolloutMode", "Rounding", "Scale", "Schedule", "SecondGradient", "SecondPass", "Segment",
    "SegmentFlag", "Singleton", "StateError", "Step", "Surrogate", "Terms", "Type", "UnsupportedError",
    "Warmup", "advantages", "backend_available", "classify", "default_context", "distinct_ngrams",
    "flat_table", "js_divergence", "linear_logprobs", "linear_logprobs_backward", "logprobs",
    "logprobs_backward", "moving_average", "policy_logits", "policy_loss", "version", "weight_delta",
    "workspace_bytes",
]
__version__ = "0.1.0"
