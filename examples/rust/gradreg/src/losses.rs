//! Policy losses and advantages.

use crate::error::{check, expect_length};
use crate::{sys, Context, Error, Result};
use std::ffi::CString;
use std::mem::{size_of, zeroed};
use std::ops::{Deref, DerefMut};
use std::ptr;

pub type Metrics = sys::gradreg_policy_metrics;

/// A policy loss: the fields of `gradreg_policy`, reached through `Deref`.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    raw: sys::gradreg_policy,
}

impl Policy {
    /// A loss of the literature by its name, e.g. "dr_grpo" or "grpo@trl".
    pub fn preset(name: &str) -> Result<Policy> {
        let name = CString::new(name)
            .map_err(|_| Error::usage(format!("Policy::preset: zero byte in {:?}", name)))?;
        // SAFETY: plain numbers; every field is written.
        unsafe {
            let mut raw: sys::gradreg_policy = zeroed();
            check(sys::gradreg_policy_init(&mut raw, size_of::<sys::gradreg_policy>()))?;
            check(sys::gradreg_policy_preset(&mut raw, name.as_ptr()))?;
            Ok(Policy { raw })
        }
    }

    /// What goes to C: as long as it says.
    pub(crate) fn checked(&self) -> sys::gradreg_policy {
        let mut raw = self.raw;
        raw.struct_size = size_of::<sys::gradreg_policy>() as u32;
        raw
    }
}

impl Deref for Policy {
    type Target = sys::gradreg_policy;
    fn deref(&self) -> &Self::Target {
        &self.raw
    }
}

impl DerefMut for Policy {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.raw
    }
}

/// What a loss is computed over. Slices that are not given stay `None`; all token slices have the same
/// layout: `sequences x length`, or packed with `row_offsets`.
#[derive(Clone, Copy, Default)]
pub struct PolicyBatch<'a> {
    pub sequences: usize,
    pub length: usize,
    pub row_offsets: Option<&'a [i64]>,
    pub logp: &'a [f32],
    pub old_logp: Option<&'a [f32]>,
    pub ref_logp: Option<&'a [f32]>,
    pub rollout_logp: Option<&'a [f32]>,
    pub token_weight: Option<&'a [f32]>,
    pub entropy: Option<&'a [f32]>,
    pub mask: Option<&'a [u8]>,
    /// One a sequence, or one a token with `advantages_per_token`.
    pub advantages: &'a [f32],
    pub advantages_per_token: bool,
    pub group: Option<&'a [i32]>,
}

fn pointer<T>(slice: Option<&[T]>) -> *const T {
    slice.map_or(ptr::null(), |s| s.as_ptr())
}

fn expect<T>(what: &str, slice: Option<&[T]>, want: usize) -> Result<()> {
    slice.map_or(Ok(()), |s| expect_length(what, s.len(), want))
}

impl PolicyBatch<'_> {
    fn tokens(&self) -> Result<usize> {
        let offsets = match self.row_offsets {
            None => {
                return self.sequences.checked_mul(self.length).ok_or_else(|| {
                    Error::usage("sequences x length is more than there can be".to_string())
                })
            }
            Some(offsets) => offsets,
        };
        expect_length("row_offsets", offsets.len(), self.sequences.saturating_add(1))?;
        Ok(offsets[self.sequences].max(0) as usize)
    }

    /// For losses that take their log-probs from logits.
    pub(crate) fn without_logp(&self, rows: usize) -> Result<sys::gradreg_policy_batch> {
        expect_length("logits", rows, self.tokens()?)?;
        if !self.logp.is_empty() || self.entropy.is_some() {
            return Err(Error::usage(
                "logp and entropy come from the logits and must not be given".to_string(),
            ));
        }
        let (mut raw, _) = self.others()?;
        raw.logp = ptr::null();
        Ok(raw)
    }

    fn checked(&self) -> Result<(sys::gradreg_policy_batch, usize)> {
        expect("logp", Some(self.logp), self.tokens()?)?;
        self.others()
    }

    /// All but logp.
    fn others(&self) -> Result<(sys::gradreg_policy_batch, usize)> {
        let tokens = self.tokens()?;
        expect("old_logp", self.old_logp, tokens)?;
        expect("ref_logp", self.ref_logp, tokens)?;
        expect("rollout_logp", self.rollout_logp, tokens)?;
        expect("token_weight", self.token_weight, tokens)?;
        expect("entropy", self.entropy, tokens)?;
        expect("mask", self.mask, tokens)?;
        expect("group", self.group, self.sequences)?;
        let advantages = if self.advantages_per_token { tokens } else { self.sequences };
        expect("advantages", Some(self.advantages), advantages)?;
        Ok((
            sys::gradreg_policy_batch {
                struct_size: size_of::<sys::gradreg_policy_batch>() as u32,
                advantages_per_token: self.advantages_per_token as i32,
                sequences: self.sequences,
                length: self.length,
                row_offsets: pointer(self.row_offsets),
                logp: self.logp.as_ptr(),
                old_logp: pointer(self.old_logp),
                ref_logp: pointer(self.ref_logp),
                rollout_logp: pointer(self.rollout_logp),
                token_weight: pointer(self.token_weight),
                entropy: pointer(self.entropy),
                mask: pointer(self.mask),
                advantages: self.advantages.as_ptr(),
                group: pointer(self.group),
            },
            tokens,
        ))
    }
}

/// Loss, metrics and gradient: dL/dlogp into `dlogp`, and dL/dentropy into `dentropy` if given.
pub fn policy_loss(
    context: &mut Context,
    dlogp: &mut [f32],
    dentropy: Option<&mut [f32]>,
    batch: &PolicyBatch<'_>,
    policy: &Policy,
) -> Result<Metrics> {
    let (raw, tokens) = batch.checked()?;
    expect_length("dlogp", dlogp.len(), tokens)?;
    if let Some(slice) = &dentropy {
        expect_length("dentropy", slice.len(), tokens)?;
    }
    let policy = policy.checked();
    let mut gradient = sys::gradreg_policy_gradient {
        struct_size: size_of::<sys::gradreg_policy_gradient>() as u32,
        reserved0: 0,
        dlogp: dlogp.as_mut_ptr(),
        dentropy: dentropy.map_or(ptr::null_mut(), |slice| slice.as_mut_ptr()),
    };
    // SAFETY: every slice has the length that the layout says, seen above; the row offsets between
    // first and last are checked by the library before it follows them.
    unsafe {
        let mut metrics: Metrics = zeroed();
        metrics.struct_size = size_of::<Metrics>() as u32;
        check(sys::gradreg_policy_loss(
            context.handle(),
            &mut metrics,
            &mut gradient,
            &raw,
            &policy,
        ))?;
        Ok(metrics)
    }
}

/// How rewards become advantages: the fields of `gradreg_advantage_params`, reached through `Deref`.
pub struct Advantages<'a> {
    raw: sys::gradreg_advantage_params,
    group: Option<&'a [i32]>,
}

impl<'a> Advantages<'a> {
    pub fn new() -> Advantages<'a> {
        // SAFETY: plain numbers and a pointer; _init writes every default.
        unsafe {
            let mut raw: sys::gradreg_advantage_params = zeroed();
            sys::gradreg_advantage_params_init(
                &mut raw,
                size_of::<sys::gradreg_advantage_params>(),
            );
            Advantages { raw, group: None }
        }
    }

    /// A group id per reward, in any order, instead of consecutive groups.
    pub fn group(mut self, ids: &'a [i32]) -> Advantages<'a> {
        self.group = Some(ids);
        self
    }
}

impl Default for Advantages<'_> {
    fn default() -> Self {
        Advantages::new()
    }
}

impl Deref for Advantages<'_> {
    type Target = sys::gradreg_advantage_params;
    fn deref(&self) -> &Self::Target {
        &self.raw
    }
}

impl DerefMut for Advantages<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.raw
    }
}

/// Advantages of rewards, group by group. `group_size` is ignored with group ids.
pub fn advantages(
    context: &mut Context,
    rewards: &[f32],
    group_size: usize,
    how: &Advantages<'_>,
) -> Result<Vec<f32>> {
    expect("group", how.group, rewards.len())?;
    let mut raw = how.raw;
    raw.struct_size = size_of::<sys::gradreg_advantage_params>() as u32;
    raw.group = pointer(how.group);
    let mut out = vec![0.0; rewards.len()];
    // SAFETY: out and group are as long as rewards.
    check(unsafe {
        sys::gradreg_advantages(
            context.handle(),
            out.as_mut_ptr(),
            rewards.as_ptr(),
            rewards.len(),
            group_size,
            &raw,
        )
    })?;
    Ok(out)
}
