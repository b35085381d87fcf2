//! The causal trace, and what to watch in a run.

use crate::context::Shared;
use crate::error::{check, expect_length};
use crate::logits::expect_matrix;
use crate::{sys, Context, Element, Error, Result, Segment};
use std::mem::{size_of, zeroed};
use std::os::raw::c_void;
use std::ptr;
use std::sync::Arc;

pub type ProbeLayer = sys::gradreg_probe_layer;

/// How firmly does each layer hold an answer? Noise goes into the final token's hidden state as it
/// leaves a layer, and the target's probability is read at the end.
pub struct Probe {
    handle: *mut sys::gradreg_probe,
    layer_count: usize,
    _context: Arc<Shared>,
}

// SAFETY: the library lets any thread use a handle, one at a time; `&Probe` reaches nothing.
unsafe impl Send for Probe {}
unsafe impl Sync for Probe {}

/// What is traced, and how often: the numbers of `gradreg_probe_params`.
#[derive(Clone, Copy, Debug)]
pub struct ProbeParams {
    pub layer_count: i32,
    pub trials: i32,
    pub noise_scale: f64,
    pub seed: u64,
}

impl ProbeParams {
    /// The defaults for a model of that many layers.
    pub fn new(layer_count: i32) -> ProbeParams {
        // SAFETY: plain numbers; _init writes every default.
        let raw = unsafe {
            let mut raw: sys::gradreg_probe_params = zeroed();
            sys::gradreg_probe_params_init(&mut raw, size_of::<sys::gradreg_probe_params>());
            raw
        };
        ProbeParams {
            layer_count,
            trials: raw.trials,
            noise_scale: raw.noise_scale,
            seed: raw.seed,
        }
    }
}

/// Rows of hidden states or logits, `stride` elements apart (0: `columns`).
#[derive(Clone, Copy, Debug)]
pub struct Rows {
    pub rows: usize,
    pub columns: usize,
    pub stride: usize,
}

impl Probe {
    pub fn new(context: &mut Context, params: &ProbeParams) -> Result<Probe> {
        let raw = sys::gradreg_probe_params {
            struct_size: size_of::<sys::gradreg_probe_params>() as u32,
            layer_count: params.layer_count,
            trials: params.trials,
            reserved0: 0,
            noise_scale: params.noise_scale,
            seed: params.seed,
        };
        let mut handle = ptr::null_mut();
        // SAFETY: the struct is as long as it says.
        check(unsafe { sys::gradreg_probe_create(&mut handle, context.handle(), &raw) })?;
        Ok(Probe {
            handle,
            layer_count: params.layer_count as usize,
            _context: Arc::clone(&context.shared),
        })
    }

    /// Forget all observations.
    pub fn reset(&mut self) -> Result<()> {
        // SAFETY: &mut self is the only user; so below.
        check(unsafe { sys::gradreg_probe_reset(self.handle) })
    }

    /// Add noise to hidden states; row r is trial `first_trial + r`.
    pub fn inject<T: Element>(
        &mut self,
        hidden: &mut [T],
        shape: Rows,
        layer: i32,
        first_trial: i32,
    ) -> Result<()> {
        expect_matrix("hidden", hidden.len(), shape.rows, shape.columns, shape.stride)?;
        // SAFETY: the rows lie inside the slice.
        check(unsafe {
            sys::gradreg_probe_inject(
                self.handle,
                hidden.as_mut_ptr() as *mut c_void,
                T::TYPE,
                shape.rows,
                shape.columns,
                shape.stride,
                layer,
                first_trial,
            )
        })
    }

    /// Read the target's probability; `sys::GRADREG_LAYER_NONE`: the clean baseline.
    pub fn observe<T: Element>(
        &mut self,
        logits: &[T],
        shape: Rows,
        target: i32,
        layer: i32,
        first_trial: i32,
    ) -> Result<()> {
        expect_matrix("logits", logits.len(), shape.rows, shape.columns, shape.stride)?;
        // SAFETY: the rows lie inside the slice.
        check(unsafe {
            sys::gradreg_probe_observe(
                self.handle,
                logits.as_ptr() as *const c_void,
                T::TYPE,
                shape.rows,
                shape.columns,
                shape.stride,
                target,
                layer,
                first_trial,
            )
        })
    }

    /// Mean, spread and extremes per layer, next to the clean probability.
    pub fn summary(&mut self) -> Result<Vec<ProbeLayer>> {
        // SAFETY: plain numbers; every row says its size, and there are as many as layers.
        unsafe {
            let mut row: ProbeLayer = zeroed();
            row.struct_size = size_of::<ProbeLayer>() as u32;
            let mut out = vec![row; self.layer_count];
            check(sys::gradreg_probe_summary(self.handle, out.as_mut_ptr(), out.len()))?;
            Ok(out)
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        // SAFETY: the only owner.
        unsafe { sys::gradreg_probe_destroy(self.handle) };
    }
}

/// The share of n-grams that are distinct; NaN where there is none.
pub fn distinct_ngrams(tokens: &[i32], order: i32) -> Result<f64> {
    let mut out = 0.0;
    // SAFETY: the slice's own length.
    check(unsafe {
        sys::gradreg_distinct_ngrams(&mut out, tokens.as_ptr(), tokens.len(), order)
    })?;
    Ok(out)
}

/// Trailing mean over `window` entries, fewer at the start; NaN entries are left out.
pub fn moving_average(values: &[f32], window: usize) -> Result<Vec<f64>> {
    let mut out = vec![0.0; values.len()];
    // SAFETY: out is as long as values.
    check(unsafe {
        sys::gradreg_moving_average(out.as_mut_ptr(), values.as_ptr(), values.len(), window)
    })?;
    Ok(out)
}

/// Jensen-Shannon divergence, row by row of `columns` weights, in nats.
pub fn js_divergence(
    context: &mut Context,
    p: &[f32],
    q: &[f32],
    columns: usize,
) -> Result<Vec<f32>> {
    expect_length("q", q.len(), p.len())?;
    if columns == 0 || p.len() % columns != 0 {
        return Err(Error::usage(format!("p has {} elements, no rows of {}", p.len(), columns)));
    }
    let rows = p.len() / columns;
    let mut out = vec![0.0; rows];
    // SAFETY: rows x columns lie in both slices.
    check(unsafe {
        sys::gradreg_js_divergence(
            context.handle(),
            out.as_mut_ptr(),
            p.as_ptr(),
            q.as_ptr(),
            rows,
            columns,
        )
    })?;
    Ok(out)
}

/// How far weights have moved: the Frobenius norm of each segment's difference.
pub fn weight_delta<T: Element>(
    context: &mut Context,
    before: &[T],
    after: &[T],
    segments: &[Segment],
) -> Result<Vec<f64>> {
    expect_length("after", after.len(), before.len())?;
    for (i, s) in segments.iter().enumerate() {
        let end = s.offset.checked_add(s.count);
        if end.map_or(true, |end| end > before.len() as u64) {
            return Err(Error::usage(format!(
                "segments[{}] ends past the {} elements of before",
                i,
                before.len()
            )));
        }
    }
    let mut out = vec![0.0; segments.len()];
    // SAFETY: every segment ends inside both slices, and has their type or is refused.
    check(unsafe {
        sys::gradreg_weight_delta(
            context.handle(),
            out.as_mut_ptr(),
            before.as_ptr() as *const c_void,
            after.as_ptr() as *const c_void,
            T::TYPE,
            segments.as_ptr(),
            segments.len(),
        )
    })?;
    Ok(out)
}
