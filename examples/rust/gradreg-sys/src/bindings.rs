// Written by examples/rust/bindings.py from include/gradreg.h. Do not edit.

use std::os::raw::{c_char, c_void};

pub type gradreg_status = i32;
pub type gradreg_backend = i32;
pub type gradreg_memory = i32;
pub type gradreg_log_level = i32;
pub type gradreg_type = i32;
pub type gradreg_curve = i32;
pub type gradreg_step = i32;
pub type gradreg_difference = i32;
pub type gradreg_penalty = i32;
pub type gradreg_depth = i32;
pub type gradreg_direction = i32;
pub type gradreg_output = i32;
pub type gradreg_first_gradient = i32;
pub type gradreg_second_gradient = i32;
pub type gradreg_second_pass = i32;
pub type gradreg_placement = i32;
pub type gradreg_restore = i32;
pub type gradreg_rounding = i32;
pub type gradreg_non_finite = i32;
pub type gradreg_warmup = i32;
pub type gradreg_decay = i32;
pub type gradreg_noise_rule = i32;
pub type gradreg_ratio_level = i32;
pub type gradreg_surrogate = i32;
pub type gradreg_kl = i32;
pub type gradreg_aggregation = i32;
pub type gradreg_rollout_mode = i32;
pub type gradreg_baseline = i32;
pub type gradreg_scale = i32;
pub type gradreg_singleton = i32;

pub const GRADREG_OK: gradreg_status = 0;
pub const GRADREG_ERROR_INVALID_ARGUMENT: gradreg_status = -1;
pub const GRADREG_ERROR_UNSUPPORTED: gradreg_status = -2;
pub const GRADREG_ERROR_STATE: gradreg_status = -3;
pub const GRADREG_ERROR_OUT_OF_MEMORY: gradreg_status = -20;
pub const GRADREG_ERROR_DEVICE: gradreg_status = -21;
pub const GRADREG_ERROR_BLAS: gradreg_status = -22;
pub const GRADREG_ERROR_COMMUNICATION: gradreg_status = -23;
pub const GRADREG_ERROR_NON_FINITE: gradreg_status = -40;
pub const GRADREG_BACKEND_AUTO: gradreg_backend = 0;
pub const GRADREG_BACKEND_CPU: gradreg_backend = 1;
pub const GRADREG_BACKEND_CUDA: gradreg_backend = 2;
pub const GRADREG_MEMORY_HOST: gradreg_memory = 1;
pub const GRADREG_MEMORY_BACKEND: gradreg_memory = 2;
pub const GRADREG_LOG_OFF: gradreg_log_level = -1;
pub const GRADREG_LOG_ERROR: gradreg_log_level = 1;
pub const GRADREG_LOG_WARNING: gradreg_log_level = 2;
pub const GRADREG_LOG_INFO: gradreg_log_level = 3;
pub const GRADREG_TYPE_F32: gradreg_type = 1;
pub const GRADREG_TYPE_BF16: gradreg_type = 2;
pub const GRADREG_TYPE_F16: gradreg_type = 3;
pub const GRADREG_ROLE_ATTENTION: u32 = 1;
pub const GRADREG_ROLE_MLP: u32 = 2;
pub const GRADREG_ROLE_NORM: u32 = 4;
pub const GRADREG_ROLE_EMBEDDING: u32 = 8;
pub const GRADREG_ROLE_HEAD: u32 = 16;
pub const GRADREG_ROLE_OTHER: u32 = 32;
pub const GRADREG_LAYER_NONE: i32 = -1;
pub const GRADREG_LAYER_STACKED: i32 = -2;
pub const GRADREG_SEGMENT_REPLICA: u32 = 1;
pub const GRADREG_SEGMENT_FROZEN: u32 = 2;
pub const GRADREG_CURVE_LINEAR: gradreg_curve = 1;
pub const GRADREG_CURVE_COSINE: gradreg_curve = 2;
pub const GRADREG_CURVE_POWER: gradreg_curve = 3;
pub const GRADREG_CURVE_STEP: gradreg_curve = 4;
pub const GRADREG_CURVE_TABLE: gradreg_curve = 5;
pub const GRADREG_STEP_RAW: gradreg_step = 1;
pub const GRADREG_STEP_NORMALIZED: gradreg_step = 2;
pub const GRADREG_STEP_RELATIVE: gradreg_step = 3;
pub const GRADREG_DIFFERENCE_FORWARD: gradreg_difference = 1;
pub const GRADREG_DIFFERENCE_BACKWARD: gradreg_difference = 2;
pub const GRADREG_DIFFERENCE_CENTRAL: gradreg_difference = 3;
pub const GRADREG_PENALTY_SQUARED_NORM: gradreg_penalty = 1;
pub const GRADREG_PENALTY_NORM: gradreg_penalty = 2;
pub const GRADREG_DEPTH_ON_UPDATE: gradreg_depth = 1;
pub const GRADREG_DEPTH_ON_PENALTY: gradreg_depth = 2;
pub const GRADREG_DIRECTION_GRADIENT: gradreg_direction = 1;
pub const GRADREG_DIRECTION_CALLER: gradreg_direction = 2;
pub const GRADREG_DIRECTION_RADEMACHER: gradreg_direction = 3;
pub const GRADREG_DIRECTION_GAUSSIAN: gradreg_direction = 4;
pub const GRADREG_OUTPUT_REGULARIZED: gradreg_output = 1;
pub const GRADREG_OUTPUT_PRODUCT: gradreg_output = 2;
pub const GRADREG_OUTPUT_SECOND: gradreg_output = 3;
pub const GRADREG_FIRST_GRADIENT_COPIED: gradreg_first_gradient = 1;
pub const GRADREG_FIRST_GRADIENT_CALLER_KEEPS: gradreg_first_gradient = 2;
pub const GRADREG_FIRST_GRADIENT_ACCUMULATED: gradreg_first_gradient = 3;
pub const GRADREG_SECOND_GRADIENT_OVERWRITES: gradreg_second_gradient = 1;
pub const GRADREG_SECOND_GRADIENT_ADDS: gradreg_second_gradient = 2;
pub const GRADREG_SECOND_PASS_FULL: gradreg_second_pass = 1;
pub const GRADREG_SECOND_PASS_TRUNCATED: gradreg_second_pass = 2;
pub const GRADREG_PLACEMENT_IN_PLACE: gradreg_placement = 1;
pub const GRADREG_PLACEMENT_OUT_OF_PLACE: gradreg_placement = 2;
pub const GRADREG_RESTORE_COPY: gradreg_restore = 1;
pub const GRADREG_RESTORE_MASTER: gradreg_restore = 2;
pub const GRADREG_ROUNDING_NEAREST: gradreg_rounding = 1;
pub const GRADREG_ROUNDING_STOCHASTIC: gradreg_rounding = 2;
pub const GRADREG_NON_FINITE_ZERO: gradreg_non_finite = 1;
pub const GRADREG_NON_FINITE_PROPAGATE: gradreg_non_finite = 2;
pub const GRADREG_NON_FINITE_KEEP_FIRST: gradreg_non_finite = 3;
pub const GRADREG_WARMUP_ZERO: gradreg_warmup = 1;
pub const GRADREG_WARMUP_LINEAR: gradreg_warmup = 2;
pub const GRADREG_DECAY_CONSTANT: gradreg_decay = 1;
pub const GRADREG_DECAY_LINEAR: gradreg_decay = 2;
pub const GRADREG_DECAY_COSINE: gradreg_decay = 3;
pub const GRADREG_NOISE_OFF: gradreg_noise_rule = 1;
pub const GRADREG_NOISE_RELATIVE: gradreg_noise_rule = 2;
pub const GRADREG_NOISE_NEFTUNE: gradreg_noise_rule = 3;
pub const GRADREG_NOISE_STEP: gradreg_noise_rule = 4;
pub const GRADREG_FLAG_DROPPED: u32 = 1;
pub const GRADREG_FLAG_NON_FINITE_FIRST: u32 = 2;
pub const GRADREG_FLAG_NON_FINITE_SECOND: u32 = 4;
pub const GRADREG_FLAG_NO_DIRECTION: u32 = 8;
pub const GRADREG_FLAG_SATURATED: u32 = 16;
pub const GRADREG_FLAG_MASTER_MISMATCH: u32 = 32;
pub const GRADREG_FLAG_ABSENT_GRADIENT: u32 = 64;
pub const GRADREG_RATIO_TOKEN: gradreg_ratio_level = 1;
pub const GRADREG_RATIO_SEQUENCE: gradreg_ratio_level = 2;
pub const GRADREG_RATIO_SEQUENCE_TOKEN: gradreg_ratio_level = 3;
pub const GRADREG_SURROGATE_CLIPPED: gradreg_surrogate = 1;
pub const GRADREG_SURROGATE_CLIPPED_WEIGHT: gradreg_surrogate = 2;
pub const GRADREG_SURROGATE_SOFT_GATE: gradreg_surrogate = 3;
pub const GRADREG_SURROGATE_GEOMETRIC_MEAN: gradreg_surrogate = 4;
pub const GRADREG_SURROGATE_PLAIN: gradreg_surrogate = 5;
pub const GRADREG_KL_NONE: gradreg_kl = 1;
pub const GRADREG_KL_K1: gradreg_kl = 2;
pub const GRADREG_KL_K2: gradreg_kl = 3;
pub const GRADREG_KL_K3: gradreg_kl = 4;
pub const GRADREG_KL_ABS: gradreg_kl = 5;
pub const GRADREG_AGGREGATE_SEQUENCE_MEAN: gradreg_aggregation = 1;
pub const GRADREG_AGGREGATE_TOKEN_MEAN: gradreg_aggregation = 2;
pub const GRADREG_AGGREGATE_CONSTANT: gradreg_aggregation = 3;
pub const GRADREG_AGGREGATE_SEQUENCE_SUM: gradreg_aggregation = 4;
pub const GRADREG_AGGREGATE_LENGTH_WEIGHTED: gradreg_aggregation = 5;
pub const GRADREG_AGGREGATE_PROMPT_MEAN: gradreg_aggregation = 6;
pub const GRADREG_ROLLOUT_OFF: gradreg_rollout_mode = 1;
pub const GRADREG_ROLLOUT_TOKEN_TRUNCATE: gradreg_rollout_mode = 2;
pub const GRADREG_ROLLOUT_TOKEN_MASK: gradreg_rollout_mode = 3;
pub const GRADREG_ROLLOUT_SEQUENCE_TRUNCATE: gradreg_rollout_mode = 4;
pub const GRADREG_ROLLOUT_SEQUENCE_MASK: gradreg_rollout_mode = 5;
pub const GRADREG_BASELINE_GROUP_MEAN: gradreg_baseline = 1;
pub const GRADREG_BASELINE_LEAVE_ONE_OUT: gradreg_baseline = 2;
pub const GRADREG_BASELINE_NONE: gradreg_baseline = 3;
pub const GRADREG_SCALE_NONE: gradreg_scale = 1;
pub const GRADREG_SCALE_GROUP_STD: gradreg_scale = 2;
pub const GRADREG_SCALE_BATCH_STD: gradreg_scale = 3;
pub const GRADREG_SINGLETON_ZERO: gradreg_singleton = 1;
pub const GRADREG_SINGLETON_REWARD: gradreg_singleton = 2;
pub const GRADREG_VERSION_MAJOR: i32 = 0;
pub const GRADREG_VERSION_MINOR: i32 = 1;
pub const GRADREG_VERSION_PATCH: i32 = 0;
pub const GRADREG_TERMS_COLUMNS: usize = 28;

#[repr(C)]
pub struct gradreg_context {
    _opaque: [u8; 0],
}

#[repr(C)]
pub struct gradreg_regularizer {
    _opaque: [u8; 0],
}

#[repr(C)]
pub struct gradreg_probe {
    _opaque: [u8; 0],
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct gradreg_allocator {
    pub allocate: Option<unsafe extern "C" fn(user: *mut c_void, bytes: usize, alignment: usize, memory: gradreg_memory) -> *mut c_void>,
    pub release: Option<unsafe extern "C" fn(user: *mut c_void, pointer: *mut c_void, bytes: usize, memory: gradreg_memory)>,
    pub user: *mut c_void,
    pub reserved: *mut c_void,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct gradreg_parallel_for {
    pub function: Option<unsafe extern "C" fn(user: *mut c_void, count: usize, body: Option<unsafe extern "C" fn(task: *mut c_void, index: usize)>, task: *mut c_void)>,
    pub user: *mut c_void,
    pub reserved: [*mut c_void; 2],
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct gradreg_log {
    pub function: Option<unsafe extern "C" fn(user: *mut c_void, level: gradreg_log_level, message: *const c_char)>,
    pub user: *mut c_void,
    pub level: gradreg_log_level,
    pub reserved0: u32,
    pub reserved1: *mut c_void,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct gradreg_context_params {
    pub struct_size: u32,
    pub backend: gradreg_backend,
    pub device: i32,
    pub threads: i32,
    pub allocator: gradreg_allocator,
    pub parallel_for: gradreg_parallel_for,
    pub log: gradreg_log,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct gradreg_context_info {
    pub struct_size: u32,
    pub backend: gradreg_backend,
    pub device: i32,
    pub threads: i32,
    pub bytes_held: u64,
    pub allocations: u64,
    pub device_name: [c_char; 64],
    pub vector_path: [c_char; 16],
    pub reserved: [u64; 4],
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct gradreg_segment {
    pub offset: u64,
    pub count: u64,
    pub shard_begin: u64,
    pub shard_count: u64,
    pub layer: i32,
    pub role: u32,
    pub param_type: gradreg_type,
    pub grad_type: gradreg_type,
    pub flags: u32,
    pub reserved: [u32; 3],
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct gradreg_schedule {
    pub curve: gradreg_curve,
    pub first_layer: i32,
    pub full_layer: i32,
    pub reserved0: i32,
    pub power: f64,
    pub outside_multiplier: f64,
    pub table: *const f64,
    pub reserved1: [u64; 3],
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct gradreg_noise {
    pub rule: gradreg_noise_rule,
    pub roles: u32,
    pub first_layer: i32,
    pub last_layer: i32,
    pub scale: f64,
    pub reserved: [u64; 5],
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct gradreg_adaptive {
    pub a_min: f64,
    pub a_max: f64,
    pub power: f64,
    pub ema: f64,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct gradreg_all_reduce {
    pub function: Option<unsafe extern "C" fn(user: *mut c_void, values: *mut f64, count: usize, stream: *mut c_void) -> i32>,
    pub user: *mut c_void,
    pub capturable: i32,
    pub reserved0: u32,
    pub reserved1: *mut c_void,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct gradreg_regularizer_params {
    pub struct_size: u32,
    pub param_type: gradreg_type,
    pub grad_type: gradreg_type,
    pub compute_type: gradreg_type,
    pub update_type: gradreg_type,
    pub layer_count: i32,
    pub schedule: gradreg_schedule,
    pub strength: f64,
    pub epsilon: f64,
    pub step: gradreg_step,
    pub difference: gradreg_difference,
    pub penalty: gradreg_penalty,
    pub depth: gradreg_depth,
    pub direction: gradreg_direction,
    pub output: gradreg_output,
    pub regularized_roles: u32,
    pub perturbed_roles: u32,
    pub clip_first: f64,
    pub clip_second: f64,
    pub common_clip: i32,
    pub first_gradient: gradreg_first_gradient,
    pub second_gradient: gradreg_second_gradient,
    pub second_pass: gradreg_second_pass,
    pub placement: gradreg_placement,
    pub restore: gradreg_restore,
    pub perturb_from_master: i32,
    pub rounding: gradreg_rounding,
    pub non_finite_first: gradreg_non_finite,
    pub non_finite_second: gradreg_non_finite,
    pub min_fidelity: f64,
    pub realised_step: i32,
    pub interval: i32,
    pub warmup: gradreg_warmup,
    pub decay: gradreg_decay,
    pub warmup_steps: u64,
    pub decay_steps: u64,
    pub strength_end: f64,
    pub adaptive: gradreg_adaptive,
    pub seed: u64,
    pub noise: gradreg_noise,
    pub rank: i32,
    pub world: i32,
    pub all_reduce: gradreg_all_reduce,
    pub parameter_count: u64,
    pub slice_begin: u64,
    pub slice_count: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct gradreg_buffers {
    pub struct_size: u32,
    pub verify_master: u32,
    pub params: *mut c_void,
    pub grads: *mut c_void,
    pub count: usize,
    pub slice_begin: u64,
    pub first_grads: *mut c_void,
    pub perturbed_params: *mut c_void,
    pub master_params: *const c_void,
    pub direction: *const c_void,
    pub update: *mut c_void,
    pub grad_scale: *const f32,
    pub found_inf: *mut f32,
    pub first_norm: *const f64,
    pub second_norm: *const f64,
    pub param_pointers: *const *mut c_void,
    pub grad_pointers: *const *mut c_void,
    pub first_grad_pointers: *const *mut c_void,
    pub perturbed_param_pointers: *const *mut c_void,
    pub master_param_pointers: *const *const c_void,
    pub direction_pointers: *const *const c_void,
    pub update_pointers: *const *mut c_void,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct gradreg_terms {
    pub struct_size: u32,
    pub reserved0: u32,
    pub strength: f64,
    pub effective_strength: f64,
    pub effective_epsilon: f64,
    pub penalty: f64,
    pub first_norm: f64,
    pub second_norm: f64,
    pub clip_first: f64,
    pub clip_second: f64,
    pub direction_norm: f64,
    pub hvp_norm: f64,
    pub curvature: f64,
    pub alignment: f64,
    pub correction_share: f64,
    pub update_norm: f64,
    pub perturbation_norm: f64,
    pub applied_norm: f64,
    pub applied_cosine: f64,
    pub changed_fraction: f64,
    pub difference_noise: f64,
    pub stored_share: f64,
    pub noise_norm: f64,
    pub noise_applied_cosine: f64,
    pub first_order_ratio: f64,
    pub non_finite_first: u64,
    pub non_finite_second: u64,
    pub absent: u64,
    pub step: u64,
    pub flags: u32,
    pub reserved1: u32,
    pub reserved2: [u64; 3],
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct gradreg_policy {
    pub struct_size: u32,
    pub ratio_level: gradreg_ratio_level,
    pub surrogate: gradreg_surrogate,
    pub kl: gradreg_kl,
    pub aggregation: gradreg_aggregation,
    pub rollout_mode: gradreg_rollout_mode,
    pub kl_ratio_weighted: i32,
    pub count_empty_rows: i32,
    pub clip_low: f64,
    pub clip_high: f64,
    pub cap: f64,
    pub dual_clip: f64,
    pub gate_positive: f64,
    pub gate_negative: f64,
    pub log_ratio_limit: f64,
    pub kl_coefficient: f64,
    pub kl_limit: f64,
    pub entropy_coefficient: f64,
    pub off_policy_threshold: f64,
    pub rollout_low: f64,
    pub rollout_high: f64,
    pub token_total: f64,
    pub sequence_total: f64,
    pub prompt_total: f64,
    pub max_length: f64,
    pub loss_scale: f64,
    pub reserved: [u64; 10],
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct gradreg_policy_batch {
    pub struct_size: u32,
    pub advantages_per_token: i32,
    pub sequences: usize,
    pub length: usize,
    pub row_offsets: *const i64,
    pub logp: *const f32,
    pub old_logp: *const f32,
    pub ref_logp: *const f32,
    pub rollout_logp: *const f32,
    pub token_weight: *const f32,
    pub entropy: *const f32,
    pub mask: *const u8,
    pub advantages: *const f32,
    pub group: *const i32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct gradreg_policy_gradient {
    pub struct_size: u32,
    pub reserved0: u32,
    pub dlogp: *mut f32,
    pub dentropy: *mut f32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct gradreg_policy_metrics {
    pub struct_size: u32,
    pub reserved0: u32,
    pub loss: f64,
    pub policy_loss: f64,
    pub kl: f64,
    pub entropy: f64,
    pub ratio_mean: f64,
    pub ratio_min: f64,
    pub ratio_max: f64,
    pub clip_low_fraction: f64,
    pub clip_high_fraction: f64,
    pub limited_fraction: f64,
    pub effective_sample_size: f64,
    pub tokens: u64,
    pub sequences: u64,
    pub empty_sequences: u64,
    pub non_finite: u64,
    pub reserved1: [u64; 3],
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct gradreg_advantage_params {
    pub struct_size: u32,
    pub baseline: gradreg_baseline,
    pub scale: gradreg_scale,
    pub singleton: gradreg_singleton,
    pub epsilon: f64,
    pub group: *const i32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct gradreg_logits_params {
    pub struct_size: u32,
    pub r#type: gradreg_type,
    pub rows: usize,
    pub vocabulary: usize,
    pub row_stride: usize,
    pub temperature: f32,
    pub reserved0: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct gradreg_linear_params {
    pub struct_size: u32,
    pub r#type: gradreg_type,
    pub gradient_type: gradreg_type,
    pub add_weight_gradient: i32,
    pub rows: usize,
    pub width: usize,
    pub vocabulary: usize,
    pub hidden_stride: usize,
    pub weight_stride: usize,
    pub chunk_rows: usize,
    pub temperature: f32,
    pub reserved0: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct gradreg_probe_params {
    pub struct_size: u32,
    pub layer_count: i32,
    pub trials: i32,
    pub reserved0: u32,
    pub noise_scale: f64,
    pub seed: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct gradreg_probe_layer {
    pub struct_size: u32,
    pub layer: i32,
    pub mean: f64,
    pub std: f64,
    pub min: f64,
    pub max: f64,
    pub baseline: f64,
    pub trials: u64,
    pub non_finite: u64,
    pub not_injected: u64,
    pub saturated: u64,
    pub reserved: [u64; 6],
}

extern "C" {
    pub fn gradreg_version() -> *const c_char;
    pub fn gradreg_status_name(status: gradreg_status) -> *const c_char;
    pub fn gradreg_last_error() -> *const c_char;
    pub fn gradreg_context_params_init(out: *mut gradreg_context_params, struct_size: usize) -> gradreg_status;
    pub fn gradreg_context_info_init(out: *mut gradreg_context_info, struct_size: usize) -> gradreg_status;
    pub fn gradreg_allocator_init(out: *mut gradreg_allocator, struct_size: usize) -> gradreg_status;
    pub fn gradreg_parallel_for_init(out: *mut gradreg_parallel_for, struct_size: usize) -> gradreg_status;
    pub fn gradreg_log_init(out: *mut gradreg_log, struct_size: usize) -> gradreg_status;
    pub fn gradreg_context_create(out: *mut *mut gradreg_context, params: *const gradreg_context_params) -> gradreg_status;
    pub fn gradreg_context_destroy(context: *mut gradreg_context) -> gradreg_status;
    pub fn gradreg_context_set_stream(context: *mut gradreg_context, stream: *mut c_void) -> gradreg_status;
    pub fn gradreg_context_synchronize(context: *mut gradreg_context) -> gradreg_status;
    pub fn gradreg_context_info(context: *const gradreg_context, out: *mut gradreg_context_info) -> gradreg_status;
    pub fn gradreg_context_reserve(context: *mut gradreg_context, bytes: usize) -> gradreg_status;
    pub fn gradreg_backend_available(backend: gradreg_backend) -> i32;
    pub fn gradreg_segment_init(out: *mut gradreg_segment, struct_size: usize) -> gradreg_status;
    pub fn gradreg_segment_classify(layer: *mut i32, role: *mut u32, parameter_name: *const c_char) -> gradreg_status;
    pub fn gradreg_schedule_init(out: *mut gradreg_schedule, struct_size: usize) -> gradreg_status;
    pub fn gradreg_schedule_for_depth(out: *mut gradreg_schedule, layer_count: i32) -> gradreg_status;
    pub fn gradreg_schedule_multipliers(out: *mut f64, schedule: *const gradreg_schedule, layer_count: i32) -> gradreg_status;
    pub fn gradreg_noise_init(out: *mut gradreg_noise, struct_size: usize) -> gradreg_status;
    pub fn gradreg_adaptive_init(out: *mut gradreg_adaptive, struct_size: usize) -> gradreg_status;
    pub fn gradreg_all_reduce_init(out: *mut gradreg_all_reduce, struct_size: usize) -> gradreg_status;
    pub fn gradreg_regularizer_params_init(out: *mut gradreg_regularizer_params, struct_size: usize) -> gradreg_status;
    pub fn gradreg_buffers_init(out: *mut gradreg_buffers, struct_size: usize) -> gradreg_status;
    pub fn gradreg_terms_init(out: *mut gradreg_terms, struct_size: usize) -> gradreg_status;
    pub fn gradreg_regularizer_create(out: *mut *mut gradreg_regularizer, context: *mut gradreg_context, segments: *const gradreg_segment, segment_count: usize, params: *const gradreg_regularizer_params) -> gradreg_status;
    pub fn gradreg_regularizer_workspace_bytes(out: *mut usize, context: *mut gradreg_context, segments: *const gradreg_segment, segment_count: usize, params: *const gradreg_regularizer_params) -> gradreg_status;
    pub fn gradreg_regularizer_destroy(regularizer: *mut gradreg_regularizer) -> gradreg_status;
    pub fn gradreg_regularizer_inject_noise(regularizer: *mut gradreg_regularizer, buffers: *mut gradreg_buffers) -> gradreg_status;
    pub fn gradreg_regularizer_remove_noise(regularizer: *mut gradreg_regularizer, buffers: *mut gradreg_buffers) -> gradreg_status;
    pub fn gradreg_regularizer_perturb(regularizer: *mut gradreg_regularizer, buffers: *mut gradreg_buffers) -> gradreg_status;
    pub fn gradreg_regularizer_mirror(regularizer: *mut gradreg_regularizer, buffers: *mut gradreg_buffers) -> gradreg_status;
    pub fn gradreg_regularizer_combine(regularizer: *mut gradreg_regularizer, buffers: *mut gradreg_buffers) -> gradreg_status;
    pub fn gradreg_regularizer_fallback(regularizer: *mut gradreg_regularizer, buffers: *mut gradreg_buffers) -> gradreg_status;
    pub fn gradreg_regularizer_cancel(regularizer: *mut gradreg_regularizer, buffers: *mut gradreg_buffers) -> gradreg_status;
    pub fn gradreg_regularizer_extra_passes(regularizer: *mut gradreg_regularizer, out: *mut i32) -> gradreg_status;
    pub fn gradreg_regularizer_first_needed_layer(regularizer: *const gradreg_regularizer, out: *mut i32) -> gradreg_status;
    pub fn gradreg_regularizer_set_strength(regularizer: *mut gradreg_regularizer, strength: f64) -> gradreg_status;
    pub fn gradreg_regularizer_set_epsilon(regularizer: *mut gradreg_regularizer, epsilon: f64) -> gradreg_status;
    pub fn gradreg_regularizer_set_step(regularizer: *mut gradreg_regularizer, step: u64) -> gradreg_status;
    pub fn gradreg_regularizer_observe_layers(regularizer: *mut gradreg_regularizer, signals: *const f64, count: usize) -> gradreg_status;
    pub fn gradreg_regularizer_observe_losses(regularizer: *mut gradreg_regularizer, first: *const f32, second: *const f32) -> gradreg_status;
    pub fn gradreg_regularizer_suggest_epsilon(regularizer: *mut gradreg_regularizer, out: *mut f64, buffers: *mut gradreg_buffers, target_cosine: f64) -> gradreg_status;
    pub fn gradreg_regularizer_terms(regularizer: *mut gradreg_regularizer, total: *mut gradreg_terms, layers: *mut gradreg_terms, layer_count: usize) -> gradreg_status;
    pub fn gradreg_regularizer_terms_enqueue(regularizer: *mut gradreg_regularizer, out: *mut f64) -> gradreg_status;
    pub fn gradreg_regularizer_state_bytes(regularizer: *const gradreg_regularizer, out: *mut usize) -> gradreg_status;
    pub fn gradreg_regularizer_state_save(regularizer: *mut gradreg_regularizer, state: *mut c_void, bytes: usize) -> gradreg_status;
    pub fn gradreg_regularizer_state_load(regularizer: *mut gradreg_regularizer, state: *const c_void, bytes: usize) -> gradreg_status;
    pub fn gradreg_policy_init(out: *mut gradreg_policy, struct_size: usize) -> gradreg_status;
    pub fn gradreg_policy_batch_init(out: *mut gradreg_policy_batch, struct_size: usize) -> gradreg_status;
    pub fn gradreg_policy_gradient_init(out: *mut gradreg_policy_gradient, struct_size: usize) -> gradreg_status;
    pub fn gradreg_policy_metrics_init(out: *mut gradreg_policy_metrics, struct_size: usize) -> gradreg_status;
    pub fn gradreg_policy_preset(out: *mut gradreg_policy, name: *const c_char) -> gradreg_status;
    pub fn gradreg_policy_preset_name(index: usize) -> *const c_char;
    pub fn gradreg_policy_scratch_bytes(out: *mut usize, sequences: usize) -> gradreg_status;
    pub fn gradreg_policy_loss(context: *mut gradreg_context, metrics: *mut gradreg_policy_metrics, out: *mut gradreg_policy_gradient, batch: *const gradreg_policy_batch, policy: *const gradreg_policy) -> gradreg_status;
    pub fn gradreg_policy_metrics_read(context: *mut gradreg_context, out: *mut gradreg_policy_metrics, metrics: *const gradreg_policy_metrics) -> gradreg_status;
    pub fn gradreg_advantage_params_init(out: *mut gradreg_advantage_params, struct_size: usize) -> gradreg_status;
    pub fn gradreg_advantages(context: *mut gradreg_context, out: *mut f32, rewards: *const f32, count: usize, group_size: usize, params: *const gradreg_advantage_params) -> gradreg_status;
    pub fn gradreg_logits_params_init(out: *mut gradreg_logits_params, struct_size: usize) -> gradreg_status;
    pub fn gradreg_logprobs_forward(context: *mut gradreg_context, logp: *mut f32, entropy: *mut f32, log_sum_exp: *mut f32, logits: *const c_void, targets: *const i32, params: *const gradreg_logits_params) -> gradreg_status;
    pub fn gradreg_logprobs_backward(context: *mut gradreg_context, dlogits: *mut c_void, logits: *const c_void, targets: *const i32, log_sum_exp: *const f32, entropy: *const f32, dlogp: *const f32, dentropy: *const f32, params: *const gradreg_logits_params) -> gradreg_status;
    pub fn gradreg_policy_logits_scratch_bytes(out: *mut usize, sequences: usize, params: *const gradreg_logits_params) -> gradreg_status;
    pub fn gradreg_policy_logits(context: *mut gradreg_context, metrics: *mut gradreg_policy_metrics, dlogits: *mut c_void, logp: *mut f32, entropy: *mut f32, logits: *const c_void, targets: *const i32, batch: *const gradreg_policy_batch, policy: *const gradreg_policy, params: *const gradreg_logits_params) -> gradreg_status;
    pub fn gradreg_linear_params_init(out: *mut gradreg_linear_params, struct_size: usize) -> gradreg_status;
    pub fn gradreg_linear_logprobs_forward(context: *mut gradreg_context, logp: *mut f32, entropy: *mut f32, log_sum_exp: *mut f32, hidden: *const c_void, weight: *const c_void, targets: *const i32, params: *const gradreg_linear_params) -> gradreg_status;
    pub fn gradreg_linear_logprobs_backward(context: *mut gradreg_context, dhidden: *mut c_void, dweight: *mut f32, hidden: *const c_void, weight: *const c_void, targets: *const i32, log_sum_exp: *const f32, entropy: *const f32, dlogp: *const f32, dentropy: *const f32, params: *const gradreg_linear_params) -> gradreg_status;
    pub fn gradreg_linear_logprobs_scratch_bytes(out: *mut usize, params: *const gradreg_linear_params) -> gradreg_status;
    pub fn gradreg_probe_params_init(out: *mut gradreg_probe_params, struct_size: usize) -> gradreg_status;
    pub fn gradreg_probe_layer_init(out: *mut gradreg_probe_layer, struct_size: usize) -> gradreg_status;
    pub fn gradreg_probe_create(out: *mut *mut gradreg_probe, context: *mut gradreg_context, params: *const gradreg_probe_params) -> gradreg_status;
    pub fn gradreg_probe_destroy(probe: *mut gradreg_probe) -> gradreg_status;
    pub fn gradreg_probe_reset(probe: *mut gradreg_probe) -> gradreg_status;
    pub fn gradreg_probe_inject(probe: *mut gradreg_probe, hidden: *mut c_void, r#type: gradreg_type, rows: usize, width: usize, row_stride: usize, layer: i32, first_trial: i32) -> gradreg_status;
    pub fn gradreg_probe_observe(probe: *mut gradreg_probe, logits: *const c_void, r#type: gradreg_type, rows: usize, vocabulary: usize, row_stride: usize, target: i32, layer: i32, first_trial: i32) -> gradreg_status;
    pub fn gradreg_probe_summary(probe: *mut gradreg_probe, out: *mut gradreg_probe_layer, layer_count: usize) -> gradreg_status;
    pub fn gradreg_distinct_ngrams(out: *mut f64, tokens: *const i32, count: usize, order: i32) -> gradreg_status;
    pub fn gradreg_moving_average(out: *mut f64, values: *const f32, count: usize, window: usize) -> gradreg_status;
    pub fn gradreg_js_divergence(context: *mut gradreg_context, out: *mut f32, p: *const f32, q: *const f32, rows: usize, columns: usize) -> gradreg_status;
    pub fn gradreg_weight_delta(context: *mut gradreg_context, norms: *mut f64, before: *const c_void, after: *const c_void, r#type: gradreg_type, segments: *const gradreg_segment, segment_count: usize) -> gradreg_status;
}
