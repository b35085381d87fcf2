// Written by examples/rust/bindings.py from include/gradreg.h. Do not edit.

// The layout that a C compiler gives the structs, held against Rust's.
#![cfg(target_pointer_width = "64")]

use gradreg_sys::*;
use std::mem::{size_of, MaybeUninit};
use std::ptr::addr_of;

fn size_behind<T>(_: *const T) -> usize {
    size_of::<T>()
}

macro_rules! layout {
    ($name:ident, $size:expr, $(($field:ident, $offset:expr, $bytes:expr)),+) => {
        #[test]
        fn $name() {
            let made = MaybeUninit::<gradreg_sys::$name>::uninit();
            let base = made.as_ptr();
            assert_eq!(size_of::<gradreg_sys::$name>(), $size, "size");
            $(
                // SAFETY: only the address is taken, nothing is read.
                let field = unsafe { addr_of!((*base).$field) };
                assert_eq!(field as usize - base as usize, $offset,
                           "offset of {}", stringify!($field));
                assert_eq!(size_behind(field), $bytes, "size of {}", stringify!($field));
            )+
        }
    };
}

layout!(
    gradreg_allocator, 32,
    (allocate, 0, 8),
    (release, 8, 8),
    (user, 16, 8),
    (reserved, 24, 8)
);
layout!(
    gradreg_parallel_for, 32,
    (function, 0, 8),
    (user, 8, 8),
    (reserved, 16, 16)
);
layout!(
    gradreg_log, 32,
    (function, 0, 8),
    (user, 8, 8),
    (level, 16, 4),
    (reserved0, 20, 4),
    (reserved1, 24, 8)
);
layout!(
    gradreg_context_params, 112,
    (struct_size, 0, 4),
    (backend, 4, 4),
    (device, 8, 4),
    (threads, 12, 4),
    (allocator, 16, 32),
    (parallel_for, 48, 32),
    (log, 80, 32)
);
layout!(
    gradreg_context_info, 144,
    (struct_size, 0, 4),
    (backend, 4, 4),
    (device, 8, 4),
    (threads, 12, 4),
    (bytes_held, 16, 8),
    (allocations, 24, 8),
    (device_name, 32, 64),
    (vector_path, 96, 16),
    (reserved, 112, 32)
);
layout!(
    gradreg_segment, 64,
    (offset, 0, 8),
    (count, 8, 8),
    (shard_begin, 16, 8),
    (shard_count, 24, 8),
    (layer, 32, 4),
    (role, 36, 4),
    (param_type, 40, 4),
    (grad_type, 44, 4),
    (flags, 48, 4),
    (reserved, 52, 12)
);
layout!(
    gradreg_schedule, 64,
    (curve, 0, 4),
    (first_layer, 4, 4),
    (full_layer, 8, 4),
    (reserved0, 12, 4),
    (power, 16, 8),
    (outside_multiplier, 24, 8),
    (table, 32, 8),
    (reserved1, 40, 24)
);
layout!(
    gradreg_noise, 64,
    (rule, 0, 4),
    (roles, 4, 4),
    (first_layer, 8, 4),
    (last_layer, 12, 4),
    (scale, 16, 8),
    (reserved, 24, 40)
);
layout!(
    gradreg_adaptive, 32,
    (a_min, 0, 8),
    (a_max, 8, 8),
    (power, 16, 8),
    (ema, 24, 8)
);
layout!(
    gradreg_all_reduce, 32,
    (function, 0, 8),
    (user, 8, 8),
    (capturable, 16, 4),
    (reserved0, 20, 4),
    (reserved1, 24, 8)
);
layout!(
    gradreg_regularizer_params, 408,
    (struct_size, 0, 4),
    (param_type, 4, 4),
    (grad_type, 8, 4),
    (compute_type, 12, 4),
    (update_type, 16, 4),
    (layer_count, 20, 4),
    (schedule, 24, 64),
    (strength, 88, 8),
    (epsilon, 96, 8),
    (step, 104, 4),
    (difference, 108, 4),
    (penalty, 112, 4),
    (depth, 116, 4),
    (direction, 120, 4),
    (output, 124, 4),
    (regularized_roles, 128, 4),
    (perturbed_roles, 132, 4),
    (clip_first, 136, 8),
    (clip_second, 144, 8),
    (common_clip, 152, 4),
    (first_gradient, 156, 4),
    (second_gradient, 160, 4),
    (second_pass, 164, 4),
    (placement, 168, 4),
    (restore, 172, 4),
    (perturb_from_master, 176, 4),
    (rounding, 180, 4),
    (non_finite_first, 184, 4),
    (non_finite_second, 188, 4),
    (min_fidelity, 192, 8),
    (realised_step, 200, 4),
    (interval, 204, 4),
    (warmup, 208, 4),
    (decay, 212, 4),
    (warmup_steps, 216, 8),
    (decay_steps, 224, 8),
    (strength_end, 232, 8),
    (adaptive, 240, 32),
    (seed, 272, 8),
    (noise, 280, 64),
    (rank, 344, 4),
    (world, 348, 4),
    (all_reduce, 352, 32),
    (parameter_count, 384, 8),
    (slice_begin, 392, 8),
    (slice_count, 400, 8)
);
layout!(
    gradreg_buffers, 168,
    (struct_size, 0, 4),
    (verify_master, 4, 4),
    (params, 8, 8),
    (grads, 16, 8),
    (count, 24, 8),
    (slice_begin, 32, 8),
    (first_grads, 40, 8),
    (perturbed_params, 48, 8),
    (master_params, 56, 8),
    (direction, 64, 8),
    (update, 72, 8),
    (grad_scale, 80, 8),
    (found_inf, 88, 8),
    (first_norm, 96, 8),
    (second_norm, 104, 8),
    (param_pointers, 112, 8),
    (grad_pointers, 120, 8),
    (first_grad_pointers, 128, 8),
    (perturbed_param_pointers, 136, 8),
    (master_param_pointers, 144, 8),
    (direction_pointers, 152, 8),
    (update_pointers, 160, 8)
);
layout!(
    gradreg_terms, 256,
    (struct_size, 0, 4),
    (reserved0, 4, 4),
    (strength, 8, 8),
    (effective_strength, 16, 8),
    (effective_epsilon, 24, 8),
    (penalty, 32, 8),
    (first_norm, 40, 8),
    (second_norm, 48, 8),
    (clip_first, 56, 8),
    (clip_second, 64, 8),
    (direction_norm, 72, 8),
    (hvp_norm, 80, 8),
    (curvature, 88, 8),
    (alignment, 96, 8),
    (correction_share, 104, 8),
    (update_norm, 112, 8),
    (perturbation_norm, 120, 8),
    (applied_norm, 128, 8),
    (applied_cosine, 136, 8),
    (changed_fraction, 144, 8),
    (difference_noise, 152, 8),
    (stored_share, 160, 8),
    (noise_norm, 168, 8),
    (noise_applied_cosine, 176, 8),
    (first_order_ratio, 184, 8),
    (non_finite_first, 192, 8),
    (non_finite_second, 200, 8),
    (absent, 208, 8),
    (step, 216, 8),
    (flags, 224, 4),
    (reserved1, 228, 4),
    (reserved2, 232, 24)
);
layout!(
    gradreg_policy, 256,
    (struct_size, 0, 4),
    (ratio_level, 4, 4),
    (surrogate, 8, 4),
    (kl, 12, 4),
    (aggregation, 16, 4),
    (rollout_mode, 20, 4),
    (kl_ratio_weighted, 24, 4),
    (count_empty_rows, 28, 4),
    (clip_low, 32, 8),
    (clip_high, 40, 8),
    (cap, 48, 8),
    (dual_clip, 56, 8),
    (gate_positive, 64, 8),
    (gate_negative, 72, 8),
    (log_ratio_limit, 80, 8),
    (kl_coefficient, 88, 8),
    (kl_limit, 96, 8),
    (entropy_coefficient, 104, 8),
    (off_policy_threshold, 112, 8),
    (rollout_low, 120, 8),
    (rollout_high, 128, 8),
    (token_total, 136, 8),
    (sequence_total, 144, 8),
    (prompt_total, 152, 8),
    (max_length, 160, 8),
    (loss_scale, 168, 8),
    (reserved, 176, 80)
);
layout!(
    gradreg_policy_batch, 104,
    (struct_size, 0, 4),
    (advantages_per_token, 4, 4),
    (sequences, 8, 8),
    (length, 16, 8),
    (row_offsets, 24, 8),
    (logp, 32, 8),
    (old_logp, 40, 8),
    (ref_logp, 48, 8),
    (rollout_logp, 56, 8),
    (token_weight, 64, 8),
    (entropy, 72, 8),
    (mask, 80, 8),
    (advantages, 88, 8),
    (group, 96, 8)
);
layout!(
    gradreg_policy_gradient, 24,
    (struct_size, 0, 4),
    (reserved0, 4, 4),
    (dlogp, 8, 8),
    (dentropy, 16, 8)
);
layout!(
    gradreg_policy_metrics, 152,
    (struct_size, 0, 4),
    (reserved0, 4, 4),
    (loss, 8, 8),
    (policy_loss, 16, 8),
    (kl, 24, 8),
    (entropy, 32, 8),
    (ratio_mean, 40, 8),
    (ratio_min, 48, 8),
    (ratio_max, 56, 8),
    (clip_low_fraction, 64, 8),
    (clip_high_fraction, 72, 8),
    (limited_fraction, 80, 8),
    (effective_sample_size, 88, 8),
    (tokens, 96, 8),
    (sequences, 104, 8),
    (empty_sequences, 112, 8),
    (non_finite, 120, 8),
    (reserved1, 128, 24)
);
layout!(
    gradreg_advantage_params, 32,
    (struct_size, 0, 4),
    (baseline, 4, 4),
    (scale, 8, 4),
    (singleton, 12, 4),
    (epsilon, 16, 8),
    (group, 24, 8)
);
layout!(
    gradreg_logits_params, 40,
    (struct_size, 0, 4),
    (r#type, 4, 4),
    (rows, 8, 8),
    (vocabulary, 16, 8),
    (row_stride, 24, 8),
    (temperature, 32, 4),
    (reserved0, 36, 4)
);
layout!(
    gradreg_linear_params, 72,
    (struct_size, 0, 4),
    (r#type, 4, 4),
    (gradient_type, 8, 4),
    (add_weight_gradient, 12, 4),
    (rows, 16, 8),
    (width, 24, 8),
    (vocabulary, 32, 8),
    (hidden_stride, 40, 8),
    (weight_stride, 48, 8),
    (chunk_rows, 56, 8),
    (temperature, 64, 4),
    (reserved0, 68, 4)
);
layout!(
    gradreg_probe_params, 32,
    (struct_size, 0, 4),
    (layer_count, 4, 4),
    (trials, 8, 4),
    (reserved0, 12, 4),
    (noise_scale, 16, 8),
    (seed, 24, 8)
);
layout!(
    gradreg_probe_layer, 128,
    (struct_size, 0, 4),
    (layer, 4, 4),
    (mean, 8, 8),
    (std, 16, 8),
    (min, 24, 8),
    (max, 32, 8),
    (baseline, 40, 8),
    (trials, 48, 8),
    (non_finite, 56, 8),
    (not_injected, 64, 8),
    (saturated, 72, 8),
    (reserved, 80, 48)
);
#[test]
fn every_function_links() {
    let all = [
        gradreg_version as *const () as usize,
        gradreg_status_name as *const () as usize,
        gradreg_last_error as *const () as usize,
        gradreg_context_params_init as *const () as usize,
        gradreg_context_info_init as *const () as usize,
        gradreg_allocator_init as *const () as usize,
        gradreg_parallel_for_init as *const () as usize,
        gradreg_log_init as *const () as usize,
        gradreg_context_create as *const () as usize,
        gradreg_context_destroy as *const () as usize,
        gradreg_context_set_stream as *const () as usize,
        gradreg_context_synchronize as *const () as usize,
        gradreg_context_info as *const () as usize,
        gradreg_context_reserve as *const () as usize,
        gradreg_backend_available as *const () as usize,
        gradreg_segment_init as *const () as usize,
        gradreg_segment_classify as *const () as usize,
        gradreg_schedule_init as *const () as usize,
        gradreg_schedule_for_depth as *const () as usize,
        gradreg_schedule_multipliers as *const () as usize,
        gradreg_noise_init as *const () as usize,
        gradreg_adaptive_init as *const () as usize,
        gradreg_all_reduce_init as *const () as usize,
        gradreg_regularizer_params_init as *const () as usize,
        gradreg_buffers_init as *const () as usize,
        gradreg_terms_init as *const () as usize,
        gradreg_regularizer_create as *const () as usize,
        gradreg_regularizer_workspace_bytes as *const () as usize,
        gradreg_regularizer_destroy as *const () as usize,
        gradreg_regularizer_inject_noise as *const () as usize,
        gradreg_regularizer_remove_noise as *const () as usize,
        gradreg_regularizer_perturb as *const () as usize,
        gradreg_regularizer_mirror as *const () as usize,
        gradreg_regularizer_combine as *const () as usize,
        gradreg_regularizer_fallback as *const () as usize,
        gradreg_regularizer_cancel as *const () as usize,
        gradreg_regularizer_extra_passes as *const () as usize,
        gradreg_regularizer_first_needed_layer as *const () as usize,
        gradreg_regularizer_set_strength as *const () as usize,
        gradreg_regularizer_set_epsilon as *const () as usize,
        gradreg_regularizer_set_step as *const () as usize,
        gradreg_regularizer_observe_layers as *const () as usize,
        gradreg_regularizer_observe_losses as *const () as usize,
        gradreg_regularizer_suggest_epsilon as *const () as usize,
        gradreg_regularizer_terms as *const () as usize,
        gradreg_regularizer_terms_enqueue as *const () as usize,
        gradreg_regularizer_state_bytes as *const () as usize,
        gradreg_regularizer_state_save as *const () as usize,
        gradreg_regularizer_state_load as *const () as usize,
        gradreg_policy_init as *const () as usize,
        gradreg_policy_batch_init as *const () as usize,
        gradreg_policy_gradient_init as *const () as usize,
        gradreg_policy_metrics_init as *const () as usize,
        gradreg_policy_preset as *const () as usize,
        gradreg_policy_preset_name as *const () as usize,
        gradreg_policy_scratch_bytes as *const () as usize,
        gradreg_policy_loss as *const () as usize,
        gradreg_policy_metrics_read as *const () as usize,
        gradreg_advantage_params_init as *const () as usize,
        gradreg_advantages as *const () as usize,
        gradreg_logits_params_init as *const () as usize,
        gradreg_logprobs_forward as *const () as usize,
        gradreg_logprobs_backward as *const () as usize,
        gradreg_policy_logits_scratch_bytes as *const () as usize,
        gradreg_policy_logits as *const () as usize,
        gradreg_linear_params_init as *const () as usize,
        gradreg_linear_logprobs_forward as *const () as usize,
        gradreg_linear_logprobs_backward as *const () as usize,
        gradreg_linear_logprobs_scratch_bytes as *const () as usize,
        gradreg_probe_params_init as *const () as usize,
        gradreg_probe_layer_init as *const () as usize,
        gradreg_probe_create as *const () as usize,
        gradreg_probe_destroy as *const () as usize,
        gradreg_probe_reset as *const () as usize,
        gradreg_probe_inject as *const () as usize,
        gradreg_probe_observe as *const () as usize,
        gradreg_probe_summary as *const () as usize,
        gradreg_distinct_ngrams as *const () as usize,
        gradreg_moving_average as *const () as usize,
        gradreg_js_divergence as *const () as usize,
        gradreg_weight_delta as *const () as usize,
    ];
    assert!(all.iter().all(|&address| address != 0));
}
