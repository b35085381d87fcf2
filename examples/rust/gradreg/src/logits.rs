//! From logits to log-probs and entropies, and back.

use crate::error::{check, expect_length};
use crate::{sys, Context, Element, Error, Result};
use std::mem::size_of;
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
