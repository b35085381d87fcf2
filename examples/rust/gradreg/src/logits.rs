//! From logits to log-probs and entropies, and back.

use crate::error::{check, expect_length};
use crate::{sys, Context, Element, Error, Metrics, Policy, PolicyBatch, Result};
use std::mem::{size_of, zeroed};
use std::os::raw::c_void;
use std::ptr;

/// A matrix of logits: `rows` tokens of `vocabulary` logits, `row_stride` elements apart.
#[derive(Clone, Copy, Debug)]
pub struct LogitsShape {
    pub rows: usize,
    pub vocabulary: usize,
    /// 0: `vocabulary`.
    pub row_stride: usize,
    /// The logits are divided by it.
    pub temperature: f32,
}

impl LogitsShape {
    pub fn new(rows: usize, vocabulary: usize) -> LogitsShape {
        LogitsShape { rows, vocabulary, row_stride: 0, temperature: 1.0 }
    }

    fn raw(&self, kind: sys::gradreg_type) -> sys::gradreg_logits_params {
        sys::gradreg_logits_params {
            struct_size: size_of::<sys::gradreg_logits_params>() as u32,
            r#type: kind,
            rows: self.rows,
            vocabulary: self.vocabulary,
            row_stride: self.row_stride,
            temperature: self.temperature,
            reserved0: 0,
        }
    }
}

/// A matrix with rows apart must lie inside its slice: the last row needs no stride behind it.
pub(crate) fn expect_matrix(
    what: &str,
    have: usize,
    rows: usize,
    columns: usize,
    row_stride: usize,
) -> Result<()> {
    let stride = if row_stride == 0 { columns } else { row_stride };
    let need = match rows {
        0 => Some(0),
        _ => (rows - 1).checked_mul(stride).and_then(|n| n.checked_add(columns)),
    };
    match need {
        Some(need) if have >= need => Ok(()),
        _ => Err(Error::usage(format!(
            "{} has {} elements, too few for {} rows of {} that are {} apart",
            what, have, rows, columns, stride
        ))),
    }
}

/// One number a row each.
#[derive(Clone, Debug, PartialEq)]
pub struct LogProbs {
    pub logp: Vec<f32>,
    pub entropy: Vec<f32>,
    pub log_sum_exp: Vec<f32>,
}

/// Log-prob of each row's target, entropy, and log of the sum of exponentials. Target -1: padding.
pub fn logprobs_forward<T: Element>(
    context: &mut Context,
    logits: &[T],
    targets: &[i32],
    shape: &LogitsShape,
) -> Result<LogProbs> {
    expect_matrix("logits", logits.len(), shape.rows, shape.vocabulary, shape.row_stride)?;
    expect_length("targets", targets.len(), shape.rows)?;
    let zeros = vec![0.0; shape.rows];
    let mut out =
        LogProbs { logp: zeros.clone(), entropy: zeros.clone(), log_sum_exp: zeros };
    // SAFETY: every slice is as long as shape says; &mut Context is the only user.
    check(unsafe {
        sys::gradreg_logprobs_forward(
            context.handle(),
            out.logp.as_mut_ptr(),
            out.entropy.as_mut_ptr(),
            out.log_sum_exp.as_mut_ptr(),
            logits.as_ptr() as *const c_void,
            targets.as_ptr(),
            &shape.raw(T::TYPE),
        )
    })?;
    Ok(out)
}

/// The gradient with respect to the logits. `logits` is `None` when `dlogits` holds them: they are
/// then replaced.
#[allow(clippy::too_many_arguments)]
pub fn logprobs_backward<T: Element>(
    context: &mut Context,
    dlogits: &mut [T],
    logits: Option<&[T]>,
    targets: &[i32],
    forward: &LogProbs,
    dlogp: &[f32],
    dentropy: Option<&[f32]>,
    shape: &LogitsShape,
) -> Result<()> {
    let rows = shape.rows;
    let stride = shape.row_stride;
    expect_matrix("dlogits", dlogits.len(), rows, shape.vocabulary, stride)?;
    if let Some(logits) = logits {
        expect_matrix("logits", logits.len(), rows, shape.vocabulary, stride)?;
    }
    expect_length("targets", targets.len(), rows)?;
    expect_length("forward.log_sum_exp", forward.log_sum_exp.len(), rows)?;
    expect_length("forward.entropy", forward.entropy.len(), rows)?;
    expect_length("dlogp", dlogp.len(), rows)?;
    if let Some(dentropy) = dentropy {
        expect_length("dentropy", dentropy.len(), rows)?;
    }
    let out = dlogits.as_mut_ptr() as *mut c_void;
    // SAFETY: as above; dlogits may be the logits, says the header.
    check(unsafe {
        sys::gradreg_logprobs_backward(
            context.handle(),
            out,
            logits.map_or(out as *const c_void, |l| l.as_ptr() as *const c_void),
            targets.as_ptr(),
            forward.log_sum_exp.as_ptr(),
            forward.entropy.as_ptr(),
            dlogp.as_ptr(),
            dentropy.map_or(ptr::null(), |d| d.as_ptr()),
            &shape.raw(T::TYPE),
        )
    })
}

/// Loss and gradient straight from logits, in one visit of each row: row r is token r of the batch,
/// whose `logp`, `entropy` stay empty. `dlogits` holds the logits and is replaced by the gradient.
/// Losses that need a whole sequence first are refused with a sentence that names the three calls.
pub fn policy_logits<T: Element>(
    context: &mut Context,
    dlogits: &mut [T],
    targets: &[i32],
    batch: &PolicyBatch<'_>,
    policy: &Policy,
    shape: &LogitsShape,
) -> Result<Metrics> {
    let raw_batch = batch.without_logp(shape.rows)?;
    expect_matrix("dlogits", dlogits.len(), shape.rows, shape.vocabulary, shape.row_stride)?;
    expect_length("targets", targets.len(), shape.rows)?;
    let logits = dlogits.as_mut_ptr() as *mut c_void;
    // SAFETY: every slice has the length that batch and shape say; dlogits may be the logits.
    unsafe {
        let mut metrics: Metrics = zeroed();
        metrics.struct_size = size_of::<Metrics>() as u32;
        check(sys::gradreg_policy_logits(
            context.handle(),
            &mut metrics,
            logits,
            ptr::null_mut(),
            ptr::null_mut(),
            logits,
            targets.as_ptr(),
            &raw_batch,
            &policy.checked(),
            &shape.raw(T::TYPE),
        ))?;
        Ok(metrics)
    }
}

/// Hidden states `rows x width` and a head weight `vocabulary x width` in place of logits.
#[derive(Clone, Copy, Debug)]
pub struct LinearShape {
    pub rows: usize,
    pub width: usize,
    pub vocabulary: usize,
    /// Rows at a time; 0: chosen by the library.
    pub chunk_rows: usize,
    pub temperature: f32,
    /// Add to `dweight` instead of overwriting it.
    pub add_weight_gradient: bool,
}

impl LinearShape {
    pub fn new(rows: usize, width: usize, vocabulary: usize) -> LinearShape {
        LinearShape {
            rows,
            width,
            vocabulary,
            chunk_rows: 0,
            temperature: 1.0,
            add_weight_gradient: false,
        }
    }

    fn raw(&self, kind: sys::gradreg_type) -> sys::gradreg_linear_params {
        sys::gradreg_linear_params {
            struct_size: size_of::<sys::gradreg_linear_params>() as u32,
            r#type: kind,
            gradient_type: 0,
            add_weight_gradient: self.add_weight_gradient as i32,
            rows: self.rows,
            width: self.width,
            vocabulary: self.vocabulary,
            hidden_stride: 0,
            weight_stride: 0,
            chunk_rows: self.chunk_rows,
            temperature: self.temperature,
            reserved0: 0,
        }
    }

    fn expect<T>(&self, hidden: &[T], weight: &[T], targets: &[i32]) -> Result<()> {
        expect_matrix("hidden", hidden.len(), self.rows, self.width, 0)?;
        expect_matrix("weight", weight.len(), self.vocabulary, self.width, 0)?;
        expect_length("targets", targets.len(), self.rows)
    }
}

/// As [`logprobs_forward`], of `hidden weight^T`, which is never held as a whole. UNSUPPORTED where the
/// library was built without a BLAS.
pub fn linear_logprobs_forward<T: Element>(
    context: &mut Context,
    hidden: &[T],
    weight: &[T],
    targets: &[i32],
    shape: &LinearShape,
) -> Result<LogProbs> {
    shape.expect(hidden, weight, targets)?;
    let zeros = vec![0.0; shape.rows];
    let mut out =
        LogProbs { logp: zeros.clone(), entropy: zeros.clone(), log_sum_exp: zeros };
    // SAFETY: every slice is as long as shape says.
    check(unsafe {
        sys::gradreg_linear_logprobs_forward(
            context.handle(),
            out.logp.as_mut_ptr(),
            out.entropy.as_mut_ptr(),
            out.log_sum_exp.as_mut_ptr(),
            hidden.as_ptr() as *const c_void,
            weight.as_ptr() as *const c_void,
            targets.as_ptr(),
            &shape.raw(T::TYPE),
        )
    })?;
    Ok(out)
}

/// The gradient with respect to the hidden states and the weight (f32, `vocabulary x width`).
#[allow(clippy::too_many_arguments)]
pub fn linear_logprobs_backward<T: Element>(
    context: &mut Context,
    dhidden: &mut [T],
    dweight: &mut [f32],
    hidden: &[T],
    weight: &[T],
    targets: &[i32],
    forward: &LogProbs,
    dlogp: &[f32],
    dentropy: Option<&[f32]>,
    shape: &LinearShape,
) -> Result<()> {
    shape.expect(hidden, weight, targets)?;
    expect_matrix("dhidden", dhidden.len(), shape.rows, shape.width, 0)?;
    expect_matrix("dweight", dweight.len(), shape.vocabulary, shape.width, 0)?;
    expect_length("forward.log_sum_exp", forward.log_sum_exp.len(), shape.rows)?;
    expect_length("forward.entropy", forward.entropy.len(), shape.rows)?;
    expect_length("dlogp", dlogp.len(), shape.rows)?;
    if let Some(dentropy) = dentropy {
        expect_length("dentropy", dentropy.len(), shape.rows)?;
    }
    // SAFETY: every slice is as long as shape says.
    check(unsafe {
        sys::gradreg_linear_logprobs_backward(
            context.handle(),
            dhidden.as_mut_ptr() as *mut c_void,
            dweight.as_mut_ptr(),
            hidden.as_ptr() as *const c_void,
            weight.as_ptr() as *const c_void,
            targets.as_ptr(),
            forward.log_sum_exp.as_ptr(),
            forward.entropy.as_ptr(),
            dlogp.as_ptr(),
            dentropy.map_or(ptr::null(), |d| d.as_ptr()),
            &shape.raw(T::TYPE),
        )
    })
}
