//! What a call works on: slices with types and lengths, borrowed for the call.

use crate::error::expect_length;
use crate::{sys, Error, Result, Segment};
use std::marker::PhantomData;
use std::mem::{size_of, zeroed};
use std::os::raw::c_void;
use std::ptr;

/// An element of parameters or gradients.
///
/// # Safety
/// `TYPE` must describe the type's memory, every bit pattern of which must be a value.
pub unsafe trait Element: Copy {
    const TYPE: sys::gradreg_type;
}

/// 16-bit elements as bits. For a type of your own of the same layout, implement [`Element`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Bf16(pub u16);
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct F16(pub u16);

// SAFETY: what the names say; any bits are a value.
unsafe impl Element for f32 {
    const TYPE: sys::gradreg_type = sys::GRADREG_TYPE_F32;
}
unsafe impl Element for Bf16 {
    const TYPE: sys::gradreg_type = sys::GRADREG_TYPE_BF16;
}
unsafe impl Element for F16 {
    const TYPE: sys::gradreg_type = sys::GRADREG_TYPE_F16;
}

pub(crate) fn type_name(kind: sys::gradreg_type) -> &'static str {
    match kind {
        sys::GRADREG_TYPE_BF16 => "bf16",
        sys::GRADREG_TYPE_F16 => "f16",
        _ => "f32",
    }
}

/// One tensor where it lies, for trainers without one flat buffer.
pub struct Tensor<'a> {
    params: *mut c_void,
    grads: *mut c_void,
    count: usize,
    param_type: sys::gradreg_type,
    grad_type: sys::gradreg_type,
    borrowed: PhantomData<&'a mut [u8]>,
}

impl<'a> Tensor<'a> {
    /// `None`: this pass has no gradient for the tensor.
    pub fn new<P: Element, G: Element>(
        params: &'a mut [P],
        grads: Option<&'a mut [G]>,
    ) -> Result<Tensor<'a>> {
        let count = params.len();
        if let Some(grads) = &grads {
            expect_length("grads", grads.len(), count)?;
        }
        Ok(Tensor {
            params: params.as_mut_ptr() as *mut c_void,
            grads: grads.map_or(ptr::null_mut(), |g| g.as_mut_ptr() as *mut c_void),
            count,
            param_type: P::TYPE,
            grad_type: G::TYPE,
            borrowed: PhantomData,
        })
    }
}

/// The buffers of one call. Made anew for each, which costs nothing for flat ones.
pub struct Buffers<'a> {
    pub(crate) raw: sys::gradreg_buffers,
    flat: Option<(sys::gradreg_type, sys::gradreg_type)>,
    tensors: Vec<Tensor<'a>>,
    params: Vec<*mut c_void>,
    grads: Vec<*mut c_void>,
    scale: Option<f32>,
    watched: bool,
    found_inf: f32,
    first: Option<sys::gradreg_type>,
    direction: Option<sys::gradreg_type>,
    perturbed: Option<sys::gradreg_type>,
    borrowed: PhantomData<&'a mut [u8]>,
}

impl<'a> Buffers<'a> {
    fn empty() -> Buffers<'a> {
        // SAFETY: plain numbers and pointers, all of which may be zero.
        let mut raw: sys::gradreg_buffers = unsafe { zeroed() };
        raw.struct_size = size_of::<sys::gradreg_buffers>() as u32;
        Buffers {
            raw,
            flat: None,
            tensors: Vec::new(),
            params: Vec::new(),
            grads: Vec::new(),
            scale: None,
            watched: false,
            found_inf: 0.0,
            first: None,
            direction: None,
            perturbed: None,
            borrowed: PhantomData,
        }
    }

    /// One array of parameters and one of gradients.
    pub fn flat<P: Element, G: Element>(
        params: &'a mut [P],
        grads: &'a mut [G],
    ) -> Result<Buffers<'a>> {
        expect_length("grads", grads.len(), params.len())?;
        let mut out = Buffers::empty();
        out.raw.params = params.as_mut_ptr() as *mut c_void;
        out.raw.grads = grads.as_mut_ptr() as *mut c_void;
        out.raw.count = params.len();
        out.flat = Some((P::TYPE, G::TYPE));
        Ok(out)
    }

    /// One tensor per segment, in the table's order.
    pub fn scattered(tensors: Vec<Tensor<'a>>) -> Buffers<'a> {
        let mut out = Buffers::empty();
        out.params = tensors.iter().map(|t| t.params).collect();
        out.grads = tensors.iter().map(|t| t.grads).collect();
        out.tensors = tensors;
        out
    }

    /// Addresses of what lies in self, now that it will not move before the call.
    pub(crate) fn place(&mut self) {
        if self.flat.is_none() {
            self.raw.param_pointers = self.params.as_ptr();
            self.raw.grad_pointers = self.grads.as_ptr();
        }
        self.raw.grad_scale = self.scale.as_ref().map_or(ptr::null(), |scale| scale);
        self.raw.found_inf =
            if self.watched { &mut self.found_inf } else { ptr::null_mut() };
    }

    fn same_length(&self, what: &str, have: usize) -> Result<()> {
        if self.flat.is_none() {
            return Err(Error::usage(format!("{} belongs to flat buffers", what)));
        }
        expect_length(what, have, self.raw.count)
    }

    /// Where element 0 lies in the flat buffer over all ranks.
    pub fn slice_begin(mut self, begin: u64) -> Buffers<'a> {
        self.raw.slice_begin = begin;
        self
    }

    /// The gradient buffers hold `scale` times the gradient.
    pub fn grad_scale(mut self, scale: f32) -> Buffers<'a> {
        self.scale = Some(scale);
        self
    }

    /// After a call: was a gradient not finite? Asked for by calling this before it.
    pub fn watch_infinities(mut self) -> Buffers<'a> {
        self.watched = true;
        self
    }

    pub fn found_inf(&self) -> bool {
        self.found_inf != 0.0
    }

    /// g1, for `GRADREG_FIRST_GRADIENT_CALLER_KEEPS`.
    pub fn first_grads<G: Element>(mut self, grads: &'a [G]) -> Result<Buffers<'a>> {
        self.same_length("first_grads", grads.len())?;
        // Never written, says the header.
        self.raw.first_grads = grads.as_ptr() as *mut c_void;
        self.first = Some(G::TYPE);
        Ok(self)
    }

    /// v, for `GRADREG_DIRECTION_CALLER`.
    pub fn direction<G: Element>(mut self, direction: &'a [G]) -> Result<Buffers<'a>> {
        self.same_length("direction", direction.len())?;
        self.raw.direction = direction.as_ptr() as *const c_void;
        self.direction = Some(G::TYPE);
        Ok(self)
    }

    /// Receives the moved parameters, for `GRADREG_PLACEMENT_OUT_OF_PLACE`.
    pub fn perturbed_params<P: Element>(mut self, moved: &'a mut [P]) -> Result<Buffers<'a>> {
        self.same_length("perturbed_params", moved.len())?;
        self.raw.perturbed_params = moved.as_mut_ptr() as *mut c_void;
        self.perturbed = Some(P::TYPE);
        Ok(self)
    }

    /// For `GRADREG_RESTORE_MASTER`; `verify` checks in this call that params = round(master).
    pub fn master_params(mut self, master: &'a [f32], verify: bool) -> Result<Buffers<'a>> {
        self.same_length("master_params", master.len())?;
        self.raw.master_params = master.as_ptr() as *const c_void;
        self.raw.verify_master = verify as u32;
        Ok(self)
    }

    /// Whether types and lengths are the table's. The library sees addresses only, so this is what
    /// keeps it inside the slices.
    pub(crate) fn fit(&self, segments: &[Segment], types: (i32, i32)) -> Result<()> {
        let param = |s: &Segment| if s.param_type != 0 { s.param_type } else { types.0 };
        let grad = |s: &Segment| if s.grad_type != 0 { s.grad_type } else { types.1 };
        if let Some((params, grads)) = self.flat {
            for s in segments {
                same("params", params, param(s))?;
                same("grads", grads, grad(s))?;
                self.first.map_or(Ok(()), |kind| same("first_grads", kind, grad(s)))?;
                self.direction.map_or(Ok(()), |kind| same("direction", kind, grad(s)))?;
                self.perturbed.map_or(Ok(()), |kind| same("perturbed_params", kind, param(s)))?;
            }
            return Ok(());
        }
        if self.tensors.len() != segments.len() {
            return Err(Error::usage(format!(
                "{} tensors, the table has {} segments",
                self.tensors.len(),
                segments.len()
            )));
        }
        for (i, (t, s)) in self.tensors.iter().zip(segments).enumerate() {
            let whole = s.shard_begin == 0 && s.shard_count == 0;
            let here = if whole { s.count } else { s.shard_count };
            expect_length(&format!("tensor {}", i), t.count, here as usize)?;
            same(&format!("tensor {}: params", i), t.param_type, param(s))?;
            same(&format!("tensor {}: grads", i), t.grad_type, grad(s))?;
        }
        Ok(())
    }
}

fn same(what: &str, have: sys::gradreg_type, want: sys::gradreg_type) -> Result<()> {
    if have == want {
        return Ok(());
    }
    Err(Error::usage(format!(
        "{} are {}, the table says {}",
        what,
        type_name(have),
        type_name(want)
    )))
}
