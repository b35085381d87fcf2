"""ctypes bindings of gradreg.h: written by generate_bindings.py, not by hand."""
# pylint: skip-file
import ctypes as c
import enum

HEADER_VERSION = (0, 1, 0)

GRADREG_OK = 0
GRADREG_ERROR_INVALID_ARGUMENT = -1
GRADREG_ERROR_UNSUPPORTED = -2
GRADREG_ERROR_STATE = -3
GRADREG_ERROR_OUT_OF_MEMORY = -20
GRADREG_ERROR_DEVICE = -21
GRADREG_ERROR_BLAS = -22
GRADREG_ERROR_COMMUNICATION = -23
GRADREG_ERROR_NON_FINITE = -40
GRADREG_BACKEND_AUTO = 0
GRADREG_BACKEND_CPU = 1
GRADREG_BACKEND_CUDA = 2
GRADREG_MEMORY_HOST = 1
GRADREG_MEMORY_BACKEND = 2
GRADREG_LOG_OFF = -1
GRADREG_LOG_ERROR = 1
GRADREG_LOG_WARNING = 2
GRADREG_LOG_INFO = 3
GRADREG_TYPE_F32 = 1
GRADREG_TYPE_BF16 = 2
GRADREG_TYPE_F16 = 3
GRADREG_ROLE_ATTENTION = 1
GRADREG_ROLE_MLP = 2
GRADREG_ROLE_NORM = 4
GRADREG_ROLE_EMBEDDING = 8
GRADREG_ROLE_HEAD = 16
GRADREG_ROLE_OTHER = 32
GRADREG_LAYER_NONE = -1
GRADREG_LAYER_STACKED = -2
GRADREG_SEGMENT_REPLICA = 1
GRADREG_SEGMENT_FROZEN = 2
GRADREG_CURVE_LINEAR = 1
GRADREG_CURVE_COSINE = 2
GRADREG_CURVE_POWER = 3
GRADREG_CURVE_STEP = 4
GRADREG_CURVE_TABLE = 5
GRADREG_STEP_RAW = 1
GRADREG_STEP_NORMALIZED = 2
GRADREG_STEP_RELATIVE = 3
GRADREG_DIFFERENCE_FORWARD = 1
GRADREG_DIFFERENCE_BACKWARD = 2
GRADREG_DIFFERENCE_CENTRAL = 3
GRADREG_PENALTY_SQUARED_NORM = 1
GRADREG_PENALTY_NORM = 2
GRADREG_DEPTH_ON_UPDATE = 1
GRADREG_DEPTH_ON_PENALTY = 2
GRADREG_DIRECTION_GRADIENT = 1
GRADREG_DIRECTION_CALLER = 2
GRADREG_DIRECTION_RADEMACHER = 3
GRADREG_DIRECTION_GAUSSIAN = 4
GRADREG_OUTPUT_REGULARIZED = 1
GRADREG_OUTPUT_PRODUCT = 2
GRADREG_OUTPUT_SECOND = 3
GRADREG_FIRST_GRADIENT_COPIED = 1
GRADREG_FIRST_GRADIENT_CALLER_KEEPS = 2
GRADREG_FIRST_GRADIENT_ACCUMULATED = 3
GRADREG_SECOND_GRADIENT_OVERWRITES = 1
GRADREG_SECOND_GRADIENT_ADDS = 2
GRADREG_SECOND_PASS_FULL = 1
GRADREG_SECOND_PASS_TRUNCATED = 2
GRADREG_PLACEMENT_IN_PLACE = 1
GRADREG_PLACEMENT_OUT_OF_PLACE = 2
GRADREG_RESTORE_COPY = 1
GRADREG_RESTORE_MASTER = 2
GRADREG_ROUNDING_NEAREST = 1
GRADREG_ROUNDING_STOCHASTIC = 2
GRADREG_NON_FINITE_ZERO = 1
GRADREG_NON_FINITE_PROPAGATE = 2
GRADREG_NON_FINITE_KEEP_FIRST = 3
GRADREG_WARMUP_ZERO = 1
GRADREG_WARMUP_LINEAR = 2
GRADREG_DECAY_CONSTANT = 1
GRADREG_DECAY_LINEAR = 2
GRADREG_DECAY_COSINE = 3
GRADREG_NOISE_OFF = 1
GRADREG_NOISE_RELATIVE = 2
GRADREG_NOISE_NEFTUNE = 3
GRADREG_NOISE_STEP = 4
GRADREG_FLAG_DROPPED = 1
GRADREG_FLAG_NON_FINITE_FIRST = 2
GRADREG_FLAG_NON_FINITE_SECOND = 4
GRADREG_FLAG_NO_DIRECTION = 8
GRADREG_FLAG_SATURATED = 16
GRADREG_FLAG_MASTER_MISMATCH = 32
GRADREG_FLAG_ABSENT_GRADIENT = 64
GRADREG_RATIO_TOKEN = 1
GRADREG_RATIO_SEQUENCE = 2
GRADREG_RATIO_SEQUENCE_TOKEN = 3
GRADREG_SURROGATE_CLIPPED = 1
GRADREG_SURROGATE_CLIPPED_WEIGHT = 2
GRADREG_SURROGATE_SOFT_GATE = 3
GRADREG_SURROGATE_GEOMETRIC_MEAN = 4
GRADREG_SURROGATE_PLAIN = 5
GRADREG_KL_NONE = 1
GRADREG_KL_K1 = 2
GRADREG_KL_K2 = 3
GRADREG_KL_K3 = 4
GRADREG_KL_ABS = 5
GRADREG_AGGREGATE_SEQUENCE_MEAN = 1
GRADREG_AGGREGATE_TOKEN_MEAN = 2
GRADREG_AGGREGATE_CONSTANT = 3
GRADREG_AGGREGATE_SEQUENCE_SUM = 4
GRADREG_AGGREGATE_LENGTH_WEIGHTED = 5
GRADREG_AGGREGATE_PROMPT_MEAN = 6
GRADREG_ROLLOUT_OFF = 1
GRADREG_ROLLOUT_TOKEN_TRUNCATE = 2
GRADREG_ROLLOUT_TOKEN_MASK = 3
GRADREG_ROLLOUT_SEQUENCE_TRUNCATE = 4
GRADREG_ROLLOUT_SEQUENCE_MASK = 5
GRADREG_BASELINE_GROUP_MEAN = 1
GRADREG_BASELINE_LEAVE_ONE_OUT = 2
GRADREG_BASELINE_NONE = 3
GRADREG_SCALE_NONE = 1
GRADREG_SCALE_GROUP_STD = 2
GRADREG_SCALE_BATCH_STD = 3
GRADREG_SINGLETON_ZERO = 1
GRADREG_SINGLETON_REWARD = 2
GRADREG_TERMS_COLUMNS = 28


class Backend(enum.IntEnum):
    AUTO = 0
    CPU = 1
    CUDA = 2


class Memory(enum.IntEnum):
    HOST = 1
    BACKEND = 2


class LogLevel(enum.IntEnum):
    OFF = -1
    ERROR = 1
    WARNING = 2
    INFO = 3


class Type(enum.IntEnum):
    F32 = 1
    BF16 = 2
    F16 = 3


class Role(enum.IntFlag):
    ATTENTION = 1
    MLP = 2
    NORM = 4
    EMBEDDING = 8
    HEAD = 16
    OTHER = 32


class SegmentFlag(enum.IntFlag):
    REPLICA = 1
    FROZEN = 2


class Curve(enum.IntEnum):
    LINEAR = 1
    COSINE = 2
    POWER = 3
    STEP = 4
    TABLE = 5


class Step(enum.IntEnum):
    RAW = 1
    NORMALIZED = 2
    RELATIVE = 3


class Difference(enum.IntEnum):
    FORWARD = 1
    BACKWARD = 2
    CENTRAL = 3


class Penalty(enum.IntEnum):
    SQUARED_NORM = 1
    NORM = 2


class Depth(enum.IntEnum):
    UPDATE = 1
    PENALTY = 2


class Direction(enum.IntEnum):
    GRADIENT = 1
    CALLER = 2
    RADEMACHER = 3
    GAUSSIAN = 4


class Output(enum.IntEnum):
    REGULARIZED = 1
    PRODUCT = 2
    SECOND = 3


class FirstGradient(enum.IntEnum):
    COPIED = 1
    CALLER_KEEPS = 2
    ACCUMULATED = 3


class SecondGradient(enum.IntEnum):
    OVERWRITES = 1
    ADDS = 2


class SecondPass(enum.IntEnum):
    FULL = 1
    TRUNCATED = 2


class Placement(enum.IntEnum):
    IN_PLACE = 1
    OUT_OF_PLACE = 2


class Restore(enum.IntEnum):
    COPY = 1
    MASTER = 2


class Rounding(enum.IntEnum):
    NEAREST = 1
    STOCHASTIC = 2


class NonFinite(enum.IntEnum):
    ZERO = 1
    PROPAGATE = 2
    KEEP_FIRST = 3


class Warmup(enum.IntEnum):
    ZERO = 1
    LINEAR = 2


class Decay(enum.IntEnum):
    CONSTANT = 1
    LINEAR = 2
    COSINE = 3


class NoiseRule(enum.IntEnum):
    OFF = 1
    RELATIVE = 2
    NEFTUNE = 3
    STEP = 4


class Flag(enum.IntFlag):
    DROPPED = 1
    NON_FINITE_FIRST = 2
    NON_FINITE_SECOND = 4
    NO_DIRECTION = 8
    SATURATED = 16
    MASTER_MISMATCH = 32
    ABSENT_GRADIENT = 64


class RatioLevel(enum.IntEnum):
    TOKEN = 1
    SEQUENCE = 2
    SEQUENCE_TOKEN = 3


class Surrogate(enum.IntEnum):
    CLIPPED = 1
    CLIPPED_WEIGHT = 2
    SOFT_GATE = 3
    GEOMETRIC_MEAN = 4
    PLAIN = 5


class Kl(enum.IntEnum):
    NONE = 1
    K1 = 2
    K2 = 3
    K3 = 4
    ABS = 5


class Aggregation(enum.IntEnum):
    SEQUENCE_MEAN = 1
    TOKEN_MEAN = 2
    CONSTANT = 3
    SEQUENCE_SUM = 4
    LENGTH_WEIGHTED = 5
    PROMPT_MEAN = 6


class RolloutMode(enum.IntEnum):
    OFF = 1
    TOKEN_TRUNCATE = 2
    TOKEN_MASK = 3
    SEQUENCE_TRUNCATE = 4
    SEQUENCE_MASK = 5


class Baseline(enum.IntEnum):
    GROUP_MEAN = 1
    LEAVE_ONE_OUT = 2
    NONE = 3


class Scale(enum.IntEnum):
    NONE = 1
    GROUP_STD = 2
    BATCH_STD = 3


class Singleton(enum.IntEnum):
    ZERO = 1
    REWARD = 2


class gradreg_allocator(c.Structure):
    _fields_ = [("allocate", c.CFUNCTYPE(c.c_void_p, c.c_void_p, c.c_size_t, c.c_size_t,
        c.c_int32)), ("release", c.CFUNCTYPE(None, c.c_void_p, c.c_void_p, c.c_size_t, c.c_int32)),
        ("user", c.c_void_p), ("reserved", c.c_void_p)]


class gradreg_parallel_for(c.Structure):
    _fields_ = [("function", c.CFUNCTYPE(None, c.c_void_p, c.c_size_t, c.CFUNCTYPE(None, c.c_void_p,
        c.c_size_t), c.c_void_p)), ("user", c.c_void_p), ("reserved", c.c_void_p * 2)]


class gradreg_log(c.Structure):
    _fields_ = [("function", c.CFUNCTYPE(None, c.c_void_p, c.c_int32, c.c_char_p)), ("user",
        c.c_void_p), ("level", c.c_int32), ("reserved0", c.c_uint32), ("reserved1", c.c_void_p)]


class gradreg_context_params(c.Structure):
    _fields_ = [("struct_size", c.c_uint32), ("backend", c.c_int32), ("device", c.c_int32),
        ("threads", c.c_int32), ("allocator", gradreg_allocator), ("parallel_for",
        gradreg_parallel_for), ("log", gradreg_log)]


class gradreg_context_info(c.Structure):
    _fields_ = [("struct_size", c.c_uint32), ("backend", c.c_int32), ("device", c.c_int32),
        ("threads", c.c_int32), ("bytes_held", c.c_uint64), ("allocations", c.c_uint64),
        ("device_name", c.c_char * 64), ("vector_path", c.c_char * 16), ("reserved", c.c_uint64 *
        4)]


class gradreg_segment(c.Structure):
    _fields_ = [("offset", c.c_uint64), ("count", c.c_uint64), ("shard_begin", c.c_uint64),
        ("shard_count", c.c_uint64), ("layer", c.c_int32), ("role", c.c_uint32), ("param_type",
        c.c_int32), ("grad_type", c.c_int32), ("flags", c.c_uint32), ("reserved", c.c_uint32 * 3)]


class gradreg_schedule(c.Structure):
    _fields_ = [("curve", c.c_int32), ("first_layer", c.c_int32), ("full_layer", c.c_int32),
        ("reserved0", c.c_int32), ("power", c.c_double), ("outside_multiplier", c.c_double),
        ("table", c.c_void_p), ("reserved1", c.c_uint64 * 3)]


class gradreg_noise(c.Structure):
    _fields_ = [("rule", c.c_int32), ("roles", c.c_uint32), ("first_layer", c.c_int32),
        ("last_layer", c.c_int32), ("scale", c.c_double), ("reserved", c.c_uint64 * 5)]


class gradreg_adaptive(c.Structure):
    _fields_ = [("a_min", c.c_double), ("a_max", c.c_double), ("power", c.c_double), ("ema",
        c.c_double)]


class gradreg_all_reduce(c.Structure):
    _fields_ = [("function", c.CFUNCTYPE(c.c_int32, c.c_void_p, c.c_void_p, c.c_size_t,
        c.c_void_p)), ("user", c.c_void_p), ("capturable", c.c_int32), ("reserved0", c.c_uint32),
        ("reserved1", c.c_void_p)]


class gradreg_regularizer_params(c.Structure):
    _fields_ = [("struct_size", c.c_uint32), ("param_type", c.c_int32), ("grad_type", c.c_int32),
        ("compute_type", c.c_int32), ("update_type", c.c_int32), ("layer_count", c.c_int32),
        ("schedule", gradreg_schedule), ("strength", c.c_double), ("epsilon", c.c_double), ("step",
        c.c_int32), ("difference", c.c_int32), ("penalty", c.c_int32), ("depth", c.c_int32),
        ("direction", c.c_int32), ("output", c.c_int32), ("regularized_roles", c.c_uint32),
        ("perturbed_roles", c.c_uint32), ("clip_first", c.c_double), ("clip_second", c.c_double),
        ("common_clip", c.c_int32), ("first_gradient", c.c_int32), ("second_gradient", c.c_int32),
        ("second_pass", c.c_int32), ("placement", c.c_int32), ("restore", c.c_int32),
        ("perturb_from_master", c.c_int32), ("rounding", c.c_int32), ("non_finite_first",
        c.c_int32), ("non_finite_second", c.c_int32), ("min_fidelity", c.c_double),
        ("realised_step", c.c_int32), ("interval", c.c_int32), ("warmup", c.c_int32), ("decay",
        c.c_int32), ("warmup_steps", c.c_uint64), ("decay_steps", c.c_uint64), ("strength_end",
        c.c_double), ("adaptive", gradreg_adaptive), ("seed", c.c_uint64), ("noise", gradreg_noise),
        ("rank", c.c_int32), ("world", c.c_int32), ("all_reduce", gradreg_all_reduce),
        ("parameter_count", c.c_uint64), ("slice_begin", c.c_uint64), ("slice_count", c.c_uint64)]


class gradreg_buffers(c.Structure):
    _fields_ = [("struct_size", c.c_uint32), ("verify_master", c.c_uint32), ("params", c.c_void_p),
        ("grads", c.c_void_p), ("count", c.c_size_t), ("slice_begin", c.c_uint64), ("first_grads",
        c.c_void_p), ("perturbed_params", c.c_void_p), ("master_params", c.c_void_p), ("direction",
        c.c_void_p), ("update", c.c_void_p), ("grad_scale", c.c_void_p), ("found_inf", c.c_void_p),
        ("first_norm", c.c_void_p), ("second_norm", c.c_void_p), ("param_pointers", c.c_void_p),
        ("grad_pointers", c.c_void_p), ("first_grad_pointers", c.c_void_p),
        ("perturbed_param_pointers", c.c_void_p), ("master_param_pointers", c.c_void_p),
        ("direction_pointers", c.c_void_p), ("update_pointers", c.c_void_p)]


class gradreg_terms(c.Structure):
    _fields_ = [("struct_size", c.c_uint32), ("reserved0", c.c_uint32), ("strength", c.c_double),
        ("effective_strength", c.c_double), ("effective_epsilon", c.c_double), ("penalty",
        c.c_double), ("first_norm", c.c_double), ("second_norm", c.c_double), ("clip_first",
        c.c_double), ("clip_second", c.c_double), ("direction_norm", c.c_double), ("hvp_norm",
        c.c_double), ("curvature", c.c_double), ("alignment", c.c_double), ("correction_share",
        c.c_double), ("update_norm", c.c_double), ("perturbation_norm", c.c_double),
        ("applied_norm", c.c_double), ("applied_cosine", c.c_double), ("changed_fraction",
        c.c_double), ("difference_noise", c.c_double), ("stored_share", c.c_double), ("noise_norm",
        c.c_double), ("noise_applied_cosine", c.c_double), ("first_order_ratio", c.c_double),
        ("non_finite_first", c.c_uint64), ("non_finite_second", c.c_uint64), ("absent", c.c_uint64),
        ("step", c.c_uint64), ("flags", c.c_uint32), ("reserved1", c.c_uint32), ("reserved2",
        c.c_uint64 * 3)]


class gradreg_policy(c.Structure):
    _fields_ = [("struct_size", c.c_uint32), ("ratio_level", c.c_int32), ("surrogate", c.c_int32),
        ("kl", c.c_int32), ("aggregation", c.c_int32), ("rollout_mode", c.c_int32),
        ("kl_ratio_weighted", c.c_int32), ("count_empty_rows", c.c_int32), ("clip_low", c.c_double),
        ("clip_high", c.c_double), ("cap", c.c_double), ("dual_clip", c.c_double), ("gate_positive",
        c.c_double), ("gate_negative", c.c_double), ("log_ratio_limit", c.c_double),
        ("kl_coefficient", c.c_double), ("kl_limit", c.c_double), ("entropy_coefficient",
        c.c_double), ("off_policy_threshold", c.c_double), ("rollout_low", c.c_double),
        ("rollout_high", c.c_double), ("token_total", c.c_double), ("sequence_total", c.c_double),
        ("prompt_total", c.c_double), ("max_length", c.c_double), ("loss_scale", c.c_double),
        ("reserved", c.c_uint64 * 10)]


class gradreg_policy_batch(c.Structure):
    _fields_ = [("struct_size", c.c_uint32), ("advantages_per_token", c.c_int32), ("sequences",
        c.c_size_t), ("length", c.c_size_t), ("row_offsets", c.c_void_p), ("logp", c.c_void_p),
        ("old_logp", c.c_void_p), ("ref_logp", c.c_void_p), ("rollout_logp", c.c_void_p),
        ("token_weight", c.c_void_p), ("entropy", c.c_void_p), ("mask", c.c_void_p), ("advantages",
        c.c_void_p), ("group", c.c_void_p)]


class gradreg_policy_gradient(c.Structure):
    _fields_ = [("struct_size", c.c_uint32), ("reserved0", c.c_uint32), ("dlogp", c.c_void_p),
        ("dentropy", c.c_void_p)]


class gradreg_policy_metrics(c.Structure):
    _fields_ = [("struct_size", c.c_uint32), ("reserved0", c.c_uint32), ("loss", c.c_double),
        ("policy_loss", c.c_double), ("kl", c.c_double), ("entropy", c.c_double), ("ratio_mean",
        c.c_double), ("ratio_min", c.c_double), ("ratio_max", c.c_double), ("clip_low_fraction",
        c.c_double), ("clip_high_fraction", c.c_double), ("limited_fraction", c.c_double),
        ("effective_sample_size", c.c_double), ("tokens", c.c_uint64), ("sequences", c.c_uint64),
        ("empty_sequences", c.c_uint64), ("non_finite", c.c_uint64), ("reserved1", c.c_uint64 * 3)]


class gradreg_advantage_params(c.Structure):
    _fields_ = [("struct_size", c.c_uint32), ("baseline", c.c_int32), ("scale", c.c_int32),
        ("singleton", c.c_int32), ("epsilon", c.c_double), ("group", c.c_void_p)]


class gradreg_logits_params(c.Structure):
    _fields_ = [("struct_size", c.c_uint32), ("type", c.c_int32), ("rows", c.c_size_t),
        ("vocabulary", c.c_size_t), ("row_stride", c.c_size_t), ("temperature", c.c_float),
        ("reserved0", c.c_uint32)]


class gradreg_linear_params(c.Structure):
    _fields_ = [("struct_size", c.c_uint32), ("type", c.c_int32), ("gradient_type", c.c_int32),
        ("add_weight_gradient", c.c_int32), ("rows", c.c_size_t), ("width", c.c_size_t),
        ("vocabulary", c.c_size_t), ("hidden_stride", c.c_size_t), ("weight_stride", c.c_size_t),
        ("chunk_rows", c.c_size_t), ("temperature", c.c_float), ("reserved0", c.c_uint32)]


class gradreg_probe_params(c.Structure):
    _fields_ = [("struct_size", c.c_uint32), ("layer_count", c.c_int32), ("trials", c.c_int32),
        ("reserved0", c.c_uint32), ("noise_scale", c.c_double), ("seed", c.c_uint64)]


class gradreg_probe_layer(c.Structure):
    _fields_ = [("struct_size", c.c_uint32), ("layer", c.c_int32), ("mean", c.c_double), ("std",
        c.c_double), ("min", c.c_double), ("max", c.c_double), ("baseline", c.c_double), ("trials",
        c.c_uint64), ("non_finite", c.c_uint64), ("not_injected", c.c_uint64), ("saturated",
        c.c_uint64), ("reserved", c.c_uint64 * 6)]


# Fields that are enumerations.
FIELD_ENUMS: dict[str, dict[str, type[enum.IntEnum]]] = {
    "gradreg_log": {"level": LogLevel},
    "gradreg_context_params": {"backend": Backend},
    "gradreg_context_info": {"backend": Backend},
    "gradreg_segment": {"param_type": Type, "grad_type": Type},
    "gradreg_schedule": {"curve": Curve},
    "gradreg_noise": {"rule": NoiseRule},
    "gradreg_regularizer_params": {"param_type": Type, "grad_type": Type, "compute_type": Type,
        "update_type": Type, "step": Step, "difference": Difference, "penalty": Penalty, "depth":
        Depth, "direction": Direction, "output": Output, "first_gradient": FirstGradient,
        "second_gradient": SecondGradient, "second_pass": SecondPass, "placement": Placement,
        "restore": Restore, "rounding": Rounding, "non_finite_first": NonFinite,
        "non_finite_second": NonFinite, "warmup": Warmup, "decay": Decay},
    "gradreg_policy": {"ratio_level": RatioLevel, "surrogate": Surrogate, "kl": Kl, "aggregation":
        Aggregation, "rollout_mode": RolloutMode},
    "gradreg_advantage_params": {"baseline": Baseline, "scale": Scale, "singleton": Singleton},
    "gradreg_logits_params": {"type": Type},
    "gradreg_linear_params": {"type": Type, "gradient_type": Type},
}

# name: (result, arguments)
FUNCTIONS = {
    "gradreg_version": (c.c_char_p, []),
    "gradreg_status_name": (c.c_char_p, [c.c_int32]),
    "gradreg_last_error": (c.c_char_p, []),
    "gradreg_context_params_init": (c.c_int32, [c.POINTER(gradreg_context_params), c.c_size_t]),
    "gradreg_context_info_init": (c.c_int32, [c.POINTER(gradreg_context_info), c.c_size_t]),
    "gradreg_allocator_init": (c.c_int32, [c.POINTER(gradreg_allocator), c.c_size_t]),
    "gradreg_parallel_for_init": (c.c_int32, [c.POINTER(gradreg_parallel_for), c.c_size_t]),
    "gradreg_log_init": (c.c_int32, [c.POINTER(gradreg_log), c.c_size_t]),
    "gradreg_context_create": (c.c_int32, [c.c_void_p, c.POINTER(gradreg_context_params)]),
    "gradreg_context_destroy": (c.c_int32, [c.c_void_p]),
    "gradreg_context_set_stream": (c.c_int32, [c.c_void_p, c.c_void_p]),
    "gradreg_context_synchronize": (c.c_int32, [c.c_void_p]),
    "gradreg_context_info": (c.c_int32, [c.c_void_p, c.POINTER(gradreg_context_info)]),
    "gradreg_context_reserve": (c.c_int32, [c.c_void_p, c.c_size_t]),
    "gradreg_backend_available": (c.c_int32, [c.c_int32]),
    "gradreg_segment_init": (c.c_int32, [c.POINTER(gradreg_segment), c.c_size_t]),
    "gradreg_segment_classify": (c.c_int32, [c.c_void_p, c.c_void_p, c.c_char_p]),
    "gradreg_schedule_init": (c.c_int32, [c.POINTER(gradreg_schedule), c.c_size_t]),
    "gradreg_schedule_for_depth": (c.c_int32, [c.POINTER(gradreg_schedule), c.c_int32]),
    "gradreg_schedule_multipliers": (c.c_int32, [c.c_void_p, c.POINTER(gradreg_schedule),
        c.c_int32]),
    "gradreg_noise_init": (c.c_int32, [c.POINTER(gradreg_noise), c.c_size_t]),
    "gradreg_adaptive_init": (c.c_int32, [c.POINTER(gradreg_adaptive), c.c_size_t]),
    "gradreg_all_reduce_init": (c.c_int32, [c.POINTER(gradreg_all_reduce), c.c_size_t]),
    "gradreg_regularizer_params_init": (c.c_int32, [c.POINTER(gradreg_regularizer_params),
        c.c_size_t]),
    "gradreg_buffers_init": (c.c_int32, [c.POINTER(gradreg_buffers), c.c_size_t]),
    "gradreg_terms_init": (c.c_int32, [c.POINTER(gradreg_terms), c.c_size_t]),
    "gradreg_regularizer_create": (c.c_int32, [c.c_void_p, c.c_void_p, c.POINTER(gradreg_segment),
        c.c_size_t, c.POINTER(gradreg_regularizer_params)]),
    "gradreg_regularizer_workspace_bytes": (c.c_int32, [c.c_void_p, c.c_void_p,
        c.POINTER(gradreg_segment), c.c_size_t, c.POINTER(gradreg_regularizer_params)]),
    "gradreg_regularizer_destroy": (c.c_int32, [c.c_void_p]),
    "gradreg_regularizer_inject_noise": (c.c_int32, [c.c_void_p, c.POINTER(gradreg_buffers)]),
    "gradreg_regularizer_remove_noise": (c.c_int32, [c.c_void_p, c.POINTER(gradreg_buffers)]),
    "gradreg_regularizer_perturb": (c.c_int32, [c.c_void_p, c.POINTER(gradreg_buffers)]),
    "gradreg_regularizer_mirror": (c.c_int32, [c.c_void_p, c.POINTER(gradreg_buffers)]),
    "gradreg_regularizer_combine": (c.c_int32, [c.c_void_p, c.POINTER(gradreg_buffers)]),
    "gradreg_regularizer_fallback": (c.c_int32, [c.c_void_p, c.POINTER(gradreg_buffers)]),
    "gradreg_regularizer_cancel": (c.c_int32, [c.c_void_p, c.POINTER(gradreg_buffers)]),
    "gradreg_regularizer_extra_passes": (c.c_int32, [c.c_void_p, c.c_void_p]),
    "gradreg_regularizer_first_needed_layer": (c.c_int32, [c.c_void_p, c.c_void_p]),
    "gradreg_regularizer_set_strength": (c.c_int32, [c.c_void_p, c.c_double]),
    "gradreg_regularizer_set_epsilon": (c.c_int32, [c.c_void_p, c.c_double]),
    "gradreg_regularizer_set_step": (c.c_int32, [c.c_void_p, c.c_uint64]),
    "gradreg_regularizer_observe_layers": (c.c_int32, [c.c_void_p, c.c_void_p, c.c_size_t]),
    "gradreg_regularizer_observe_losses": (c.c_int32, [c.c_void_p, c.c_void_p, c.c_void_p]),
    "gradreg_regularizer_suggest_epsilon": (c.c_int32, [c.c_void_p, c.c_void_p,
        c.POINTER(gradreg_buffers), c.c_double]),
    "gradreg_regularizer_terms": (c.c_int32, [c.c_void_p, c.POINTER(gradreg_terms),
        c.POINTER(gradreg_terms), c.c_size_t]),
    "gradreg_regularizer_terms_enqueue": (c.c_int32, [c.c_void_p, c.c_void_p]),
    "gradreg_regularizer_state_bytes": (c.c_int32, [c.c_void_p, c.c_void_p]),
    "gradreg_regularizer_state_save": (c.c_int32, [c.c_void_p, c.c_void_p, c.c_size_t]),
    "gradreg_regularizer_state_load": (c.c_int32, [c.c_void_p, c.c_void_p, c.c_size_t]),
    "gradreg_policy_init": (c.c_int32, [c.POINTER(gradreg_policy), c.c_size_t]),
    "gradreg_policy_batch_init": (c.c_int32, [c.POINTER(gradreg_policy_batch), c.c_size_t]),
    "gradreg_policy_gradient_init": (c.c_int32, [c.POINTER(gradreg_policy_gradient), c.c_size_t]),
    "gradreg_policy_metrics_init": (c.c_int32, [c.POINTER(gradreg_policy_metrics), c.c_size_t]),
    "gradreg_policy_preset": (c.c_int32, [c.POINTER(gradreg_policy), c.c_char_p]),
    "gradreg_policy_preset_name": (c.c_char_p, [c.c_size_t]),
    "gradreg_policy_scratch_bytes": (c.c_int32, [c.c_void_p, c.c_size_t]),
    "gradreg_policy_loss": (c.c_int32, [c.c_void_p, c.POINTER(gradreg_policy_metrics),
        c.POINTER(gradreg_policy_gradient), c.POINTER(gradreg_policy_batch),
        c.POINTER(gradreg_policy)]),
    "gradreg_policy_metrics_read": (c.c_int32, [c.c_void_p, c.POINTER(gradreg_policy_metrics),
        c.POINTER(gradreg_policy_metrics)]),
    "gradreg_advantage_params_init": (c.c_int32, [c.POINTER(gradreg_advantage_params), c.c_size_t]),
    "gradreg_advantages": (c.c_int32, [c.c_void_p, c.c_void_p, c.c_void_p, c.c_size_t, c.c_size_t,
        c.POINTER(gradreg_advantage_params)]),
    "gradreg_logits_params_init": (c.c_int32, [c.POINTER(gradreg_logits_params), c.c_size_t]),
    "gradreg_logprobs_forward": (c.c_int32, [c.c_void_p, c.c_void_p, c.c_void_p, c.c_void_p,
        c.c_void_p, c.c_void_p, c.POINTER(gradreg_logits_params)]),
    "gradreg_logprobs_backward": (c.c_int32, [c.c_void_p, c.c_void_p, c.c_void_p, c.c_void_p,
        c.c_void_p, c.c_void_p, c.c_void_p, c.c_void_p, c.POINTER(gradreg_logits_params)]),
    "gradreg_policy_logits_scratch_bytes": (c.c_int32, [c.c_void_p, c.c_size_t,
        c.POINTER(gradreg_logits_params)]),
    "gradreg_policy_logits": (c.c_int32, [c.c_void_p, c.POINTER(gradreg_policy_metrics), c.c_void_p,
        c.c_void_p, c.c_void_p, c.c_void_p, c.c_void_p, c.POINTER(gradreg_policy_batch),
        c.POINTER(gradreg_policy), c.POINTER(gradreg_logits_params)]),
    "gradreg_linear_params_init": (c.c_int32, [c.POINTER(gradreg_linear_params), c.c_size_t]),
    "gradreg_linear_logprobs_forward": (c.c_int32, [c.c_void_p, c.c_void_p, c.c_void_p, c.c_void_p,
        c.c_void_p, c.c_void_p, c.c_void_p, c.POINTER(gradreg_linear_params)]),
    "gradreg_linear_logprobs_backward": (c.c_int32, [c.c_void_p, c.c_void_p, c.c_void_p, c.c_void_p,
        c.c_void_p, c.c_void_p, c.c_void_p, c.c_void_p, c.c_void_p, c.c_void_p,
        c.POINTER(gradreg_linear_params)]),
    "gradreg_linear_logprobs_scratch_bytes": (c.c_int32, [c.c_void_p,
        c.POINTER(gradreg_linear_params)]),
    "gradreg_probe_params_init": (c.c_int32, [c.POINTER(gradreg_probe_params), c.c_size_t]),
    "gradreg_probe_layer_init": (c.c_int32, [c.POINTER(gradreg_probe_layer), c.c_size_t]),
    "gradreg_probe_create": (c.c_int32, [c.c_void_p, c.c_void_p, c.POINTER(gradreg_probe_params)]),
    "gradreg_probe_destroy": (c.c_int32, [c.c_void_p]),
    "gradreg_probe_reset": (c.c_int32, [c.c_void_p]),
    "gradreg_probe_inject": (c.c_int32, [c.c_void_p, c.c_void_p, c.c_int32, c.c_size_t, c.c_size_t,
        c.c_size_t, c.c_int32, c.c_int32]),
    "gradreg_probe_observe": (c.c_int32, [c.c_void_p, c.c_void_p, c.c_int32, c.c_size_t, c.c_size_t,
        c.c_size_t, c.c_int32, c.c_int32, c.c_int32]),
    "gradreg_probe_summary": (c.c_int32, [c.c_void_p, c.POINTER(gradreg_probe_layer), c.c_size_t]),
    "gradreg_distinct_ngrams": (c.c_int32, [c.c_void_p, c.c_void_p, c.c_size_t, c.c_int32]),
    "gradreg_moving_average": (c.c_int32, [c.c_void_p, c.c_void_p, c.c_size_t, c.c_size_t]),
    "gradreg_js_divergence": (c.c_int32, [c.c_void_p, c.c_void_p, c.c_void_p, c.c_void_p,
        c.c_size_t, c.c_size_t]),
    "gradreg_weight_delta": (c.c_int32, [c.c_void_p, c.c_void_p, c.c_void_p, c.c_void_p, c.c_int32,
        c.POINTER(gradreg_segment), c.c_size_t]),
}
