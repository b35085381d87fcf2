//! Regularized reinforcement-learning gradients over flat buffers: libgradreg, safely.
//!
//! ```text
//! Context ──► Regularizer ──► perturb, combine, ...   borrow their buffers for the call
//! Trainer                     Regularizer::step       a whole step; an error or a panic cancels it
//! logprobs_forward ──► policy_loss ──► logprobs_backward    the losses, and advantages
//! Probe, distinct_ngrams, weight_delta, ...            what to watch
//! ```
//!
//! What `gradreg.h` says about a function holds here, and settings and reports keep their C names, so
//! that its text applies: `params.second_gradient = GRADREG_SECOND_GRADIENT_ADDS`. Beyond it:
//!
//! * A failure is an [`Error`] with the library's status and sentence.
//! * Handles close themselves, in any order: a [`Regularizer`] keeps its context open.
//! * What C asks the caller to promise, types do: a call that wants to be its handle's only user
//!   takes `&mut self`; handles are `Send`, and `Sync` because nothing that `&self` reaches changes
//!   them. Slices carry lengths and element types, which are checked against the table.
//! * Buffers are borrowed for one call: libgradreg keeps no pointer afterwards.
//! * Callbacks are closures. A panic inside one does not cross into C: what `all_reduce` panicked
//!   with goes on after the call, a log that panics is ignored.
//!
//! This crate opens contexts of the CPU, whose buffers are slices. Device memory is not a slice: use
//! [`sys`] for it, and [`check`] for what its calls return (`tests/device.rs` takes a step that way).
//!
//! Two threads on one handle do not compile:
//!
//! ```compile_fail,E0499
//! fn both(regularizer: &mut gradreg::Regularizer) {
//!     std::thread::scope(|scope| {
//!         scope.spawn(|| regularizer.set_strength(0.1));
//!         scope.spawn(|| regularizer.set_strength(0.2));
//!     });
//! }
//! ```
//!
//! nor do buffers that overlap:
//!
//! ```compile_fail,E0499
//! let mut weights = vec![0.0f32; 8];
//! let buffers = gradreg::Buffers::flat(&mut weights, &mut weights);
//! # drop(buffers);
//! ```

mod buffers;
mod context;
mod error;
mod logits;
mod losses;
mod probe;
mod regularizer;
mod table;

pub use buffers::{Bf16, Buffers, Element, F16, Tensor};
pub use context::{Context, ContextOptions};
pub use error::{check, Error, Kind, Result};
pub use logits::{
    linear_logprobs_backward, linear_logprobs_forward, logprobs_backward, logprobs_forward,
    policy_logits, LinearShape, LogProbs, LogitsShape,
};
pub use losses::{advantages, policy_loss, Advantages, Metrics, Policy, PolicyBatch};
pub use probe::{
    distinct_ngrams, js_divergence, moving_average, weight_delta, Probe, ProbeLayer, ProbeParams,
    Rows,
};
pub use regularizer::{Params, Regularizer, Report, Terms, Trainer};
pub use table::{multipliers, schedule_for_depth, segment, Schedule, Segment};

/// The C interface. Its constants are what the fields of the settings take.
pub use gradreg_sys as sys;

/// The version of the library in use, e.g. "0.1.0".
pub fn version() -> &'static str {
    // SAFETY: a static string, never NULL.
    unsafe { error::text(sys::gradreg_version()) }
}
