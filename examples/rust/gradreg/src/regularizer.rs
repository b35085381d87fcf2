//! The regularizer, call by call or as whole steps.

use crate::context::Shared;
use crate::error::check;
use crate::table::with_table;
use crate::{sys, Buffers, Context, Error, Result, Segment};
use std::any::Any;
use std::mem::{size_of, zeroed};
use std::ops::{Deref, DerefMut};
use std::os::raw::c_void;
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::ptr;
use std::sync::Arc;

/// Sums `values` over all ranks, in place.
type AllReduce = Box<dyn FnMut(&mut [f64]) -> std::result::Result<(), String> + Send>;

/// How to regularize: the fields of `gradreg_regularizer_params`, reached through `Deref`. Pointers
/// among them are not used: see [`Params::table`] and [`Params::all_reduce`].
pub struct Params {
    raw: sys::gradreg_regularizer_params,
    table: Vec<f64>,
    all_reduce: Option<AllReduce>,
}

// SAFETY: the raw pointers inside are never followed.
unsafe impl Send for Params {}
unsafe impl Sync for Params {}

impl Params {
    /// The defaults for a model of that many layers.
    pub fn new(layer_count: i32) -> Params {
        // SAFETY: plain numbers and pointers; _init writes every default.
        let raw = unsafe {
            let mut raw: sys::gradreg_regularizer_params = zeroed();
            sys::gradreg_regularizer_params_init(&mut raw, size_of_val(&raw));
            raw.layer_count = layer_count;
            raw
        };
        Params { raw, table: Vec::new(), all_reduce: None }
    }

    /// Own multipliers, one a layer: `GRADREG_CURVE_TABLE`.
    pub fn table(mut self, multipliers: Vec<f64>) -> Params {
        self.raw.schedule.curve = sys::GRADREG_CURVE_TABLE;
        self.table = multipliers;
        self
    }

    /// The sum over ranks. An `Err` becomes GRADREG_ERROR_COMMUNICATION with these words.
    pub fn all_reduce<F>(mut self, function: F) -> Params
    where
        F: FnMut(&mut [f64]) -> std::result::Result<(), String> + Send + 'static,
    {
        self.all_reduce = Some(Box::new(function));
        self
    }

    /// What goes to C: no pointer in it that safe code could have set.
    fn checked(&self) -> Result<sys::gradreg_regularizer_params> {
        let mut raw = self.raw;
        raw.struct_size = size_of::<sys::gradreg_regularizer_params>() as u32;
        raw.schedule = with_table(raw.schedule, &self.table, raw.layer_count)?;
        raw.all_reduce.function = None;
        raw.all_reduce.user = ptr::null_mut();
        raw.all_reduce.reserved1 = ptr::null_mut();
        Ok(raw)
    }
}

fn size_of_val<T>(_: &T) -> usize {
    size_of::<T>()
}

impl Deref for Params {
    type Target = sys::gradreg_regularizer_params;
    fn deref(&self) -> &Self::Target {
        &self.raw
    }
}

impl DerefMut for Params {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.raw
    }
}

/// The callback's state; C holds its address, so it stays in its box.
struct Hook {
    function: AllReduce,
    said: Option<String>,
    panicked: Option<Box<dyn Any + Send>>,
}

unsafe extern "C" fn reduce(
    user: *mut c_void,
    values: *mut f64,
    count: usize,
    _stream: *mut c_void,
) -> i32 {
    let hook = &mut *(user as *mut Hook);
    let values: &mut [f64] =
        if count == 0 { &mut [] } else { std::slice::from_raw_parts_mut(values, count) };
    let function = &mut hook.function;
    match catch_unwind(AssertUnwindSafe(|| function(values))) {
        Ok(Ok(())) => 0,
        Ok(Err(words)) => {
            hook.said = Some(words);
            1
        }
        Err(panic) => {
            hook.panicked = Some(panic);
            1
        }
    }
}

pub type Terms = sys::gradreg_terms;

/// What the last combine or fallback did.
#[derive(Clone, Debug)]
pub struct Report {
    pub total: Terms,
    pub layers: Vec<Terms>,
}

fn no_terms() -> Terms {
    // SAFETY: plain numbers.
    let mut out: Terms = unsafe { zeroed() };
    out.struct_size = size_of::<Terms>() as u32;
    out
}

/// A model with its backward pass, for [`Regularizer::step`].
pub trait Trainer {
    type Error: From<Error>;

    /// Fill the gradients at the weights as they are now, and return the loss. Called up to three
    /// times a step, each time for the same function: same batch, same old log-probs.
    fn backward(&mut self) -> std::result::Result<f32, Self::Error>;

    /// The buffers of the next call.
    fn buffers(&mut self) -> Result<Buffers<'_>>;
}

/// One regularizer for one table of segments.
pub struct Regularizer {
    handle: *mut sys::gradreg_regularizer,
    // Dropped after the handle: fields go in this order, after drop() itself.
    hook: Option<*mut Hook>,
    segments: Vec<Segment>,
    types: (sys::gradreg_type, sys::gradreg_type),
    layer_count: usize,
    noise: bool,
    _context: Arc<Shared>,
}

// SAFETY: the library lets any thread use a handle, one at a time; the hook is Send. Through
// `&Regularizer` only functions marked "Threads: any" are called.
unsafe impl Send for Regularizer {}
unsafe impl Sync for Regularizer {}

type Call = unsafe extern "C" fn(
    *mut sys::gradreg_regularizer,
    *mut sys::gradreg_buffers,
) -> sys::gradreg_status;

impl Regularizer {
    pub fn new(context: &mut Context, segments: &[Segment], params: Params) -> Result<Regularizer> {
        let mut raw = params.checked()?;
        let hook = params.all_reduce.map(|function| {
            Box::into_raw(Box::new(Hook { function, said: None, panicked: None }))
        });
        let mut out = Regularizer {
            handle: ptr::null_mut(),
            hook,
            segments: segments.to_vec(),
            types: (or_f32(raw.param_type), or_f32(raw.grad_type)),
            layer_count: raw.layer_count.max(0) as usize,
            noise: !matches!(raw.noise.rule, 0 | sys::GRADREG_NOISE_OFF),
            _context: Arc::clone(&context.shared),
        };
        // The schedule's table, of which C takes a copy.
        raw.schedule = with_table(raw.schedule, &params.table, raw.layer_count)?;
        if let Some(hook) = hook {
            raw.all_reduce.function = Some(reduce);
            raw.all_reduce.user = hook as *mut c_void;
        }
        // SAFETY: &mut Context is the context's only user; segments and params are copied.
        let status = unsafe {
            sys::gradreg_regularizer_create(
                &mut out.handle,
                context.handle(),
                out.segments.as_ptr(),
                out.segments.len(),
                &raw,
            )
        };
        out.result_of(status)?;
        Ok(out)
    }

    /// Bytes that `new` would hold for the same description.
    pub fn workspace_bytes(
        context: &Context,
        segments: &[Segment],
        params: &Params,
    ) -> Result<usize> {
        let mut out = 0;
        let mut raw = params.checked()?;
        if params.all_reduce.is_some() {
            raw.all_reduce.function = Some(reduce); // never called by this function
        }
        // SAFETY: "Threads: any"; everything outlives the call.
        check(unsafe {
            sys::gradreg_regularizer_workspace_bytes(
                &mut out,
                context.shared.handle,
                segments.as_ptr(),
                segments.len(),
                &raw,
            )
        })?;
        Ok(out)
    }

    /// A status as a result; what the hook said or panicked with comes first.
    fn result_of(&mut self, status: sys::gradreg_status) -> Result<()> {
        if let Some(hook) = self.hook {
            // SAFETY: the box lives as long as self, and no call is under way.
            let hook = unsafe { &mut *hook };
            if let Some(panic) = hook.panicked.take() {
                resume_unwind(panic);
            }
            if let (Some(words), Err(error)) = (hook.said.take(), check(status)) {
                return Err(error.because(&words));
            }
        }
        check(status)
    }

    fn call(&mut self, function: Call, buffers: &mut Buffers<'_>) -> Result<()> {
        buffers.fit(&self.segments, self.types)?;
        buffers.place();
        // SAFETY: fit() saw that every slice is as long and of the type that the table says; C
        // keeps no pointer after the call.
        let status = unsafe { function(self.handle, &mut buffers.raw) };
        self.result_of(status)
    }

    pub fn inject_noise(&mut self, buffers: &mut Buffers<'_>) -> Result<()> {
        self.call(sys::gradreg_regularizer_inject_noise, buffers)
    }
    pub fn remove_noise(&mut self, buffers: &mut Buffers<'_>) -> Result<()> {
        self.call(sys::gradreg_regularizer_remove_noise, buffers)
    }
    pub fn perturb(&mut self, buffers: &mut Buffers<'_>) -> Result<()> {
        self.call(sys::gradreg_regularizer_perturb, buffers)
    }
    pub fn mirror(&mut self, buffers: &mut Buffers<'_>) -> Result<()> {
        self.call(sys::gradreg_regularizer_mirror, buffers)
    }
    pub fn combine(&mut self, buffers: &mut Buffers<'_>) -> Result<()> {
        self.call(sys::gradreg_regularizer_combine, buffers)
    }
    pub fn fallback(&mut self, buffers: &mut Buffers<'_>) -> Result<()> {
        self.call(sys::gradreg_regularizer_fallback, buffers)
    }
    pub fn cancel(&mut self, buffers: &mut Buffers<'_>) -> Result<()> {
        self.call(sys::gradreg_regularizer_cancel, buffers)
    }

    /// A whole step: backward, perturb, backward, combine, with the noise and the third pass that the
    /// settings ask for. Returns the first loss. If `trainer` fails or panics, the step is cancelled:
    /// the weights are clean to the last bit.
    pub fn step<T: Trainer>(&mut self, trainer: &mut T) -> std::result::Result<f32, T::Error> {
        let mut open = Open { regularizer: self, trainer, done: false };
        if open.regularizer.noise {
            open.call(Regularizer::inject_noise)?;
        }
        let first = open.trainer.backward()?;
        let passes = open.regularizer.extra_passes()?;
        let mut second = first;
        if passes > 0 {
            open.call(Regularizer::perturb)?;
            second = open.trainer.backward()?;
        }
        if passes > 1 {
            open.call(Regularizer::mirror)?;
            open.trainer.backward()?;
        }
        open.call(Regularizer::combine)?;
        open.done = true;
        if passes > 0 {
            open.regularizer.observe_losses(first, second)?;
        }
        Ok(first)
    }

    /// Backward passes wanted beyond the first: 0, 1 or 2.
    pub fn extra_passes(&mut self) -> Result<i32> {
        let mut out = 0;
        // SAFETY: &mut self is the only user.
        check(unsafe { sys::gradreg_regularizer_extra_passes(self.handle, &mut out) })?;
        Ok(out)
    }

    pub fn first_needed_layer(&self) -> Result<i32> {
        let mut out = 0;
        // SAFETY: "Threads: any".
        check(unsafe { sys::gradreg_regularizer_first_needed_layer(self.handle, &mut out) })?;
        Ok(out)
    }

    pub fn set_strength(&mut self, strength: f64) -> Result<()> {
        // SAFETY: &mut self is the only user; so below.
        check(unsafe { sys::gradreg_regularizer_set_strength(self.handle, strength) })
    }
    pub fn set_epsilon(&mut self, epsilon: f64) -> Result<()> {
        check(unsafe { sys::gradreg_regularizer_set_epsilon(self.handle, epsilon) })
    }
    pub fn set_step(&mut self, step: u64) -> Result<()> {
        check(unsafe { sys::gradreg_regularizer_set_step(self.handle, step) })
    }
    pub fn observe_layers(&mut self, signals: &[f64]) -> Result<()> {
        check(unsafe {
            sys::gradreg_regularizer_observe_layers(self.handle, signals.as_ptr(), signals.len())
        })
    }
    /// Of the step just combined.
    pub fn observe_losses(&mut self, first: f32, second: f32) -> Result<()> {
        // SAFETY: on the CPU both are read before the call returns.
        check(unsafe { sys::gradreg_regularizer_observe_losses(self.handle, &first, &second) })
    }

    pub fn suggest_epsilon(&mut self, buffers: &mut Buffers<'_>, target_cosine: f64) -> Result<f64> {
        buffers.fit(&self.segments, self.types)?;
        buffers.place();
        let mut out = 0.0;
        // SAFETY: as in call().
        let status = unsafe {
            sys::gradreg_regularizer_suggest_epsilon(
                self.handle,
                &mut out,
                &mut buffers.raw,
                target_cosine,
            )
        };
        self.result_of(status)?;
        Ok(out)
    }

    pub fn terms(&mut self) -> Result<Report> {
        let mut out = Report { total: no_terms(), layers: vec![no_terms(); self.layer_count] };
        // SAFETY: layer_count rows, each of the size it says.
        check(unsafe {
            sys::gradreg_regularizer_terms(
                self.handle,
                &mut out.total,
                out.layers.as_mut_ptr(),
                out.layers.len(),
            )
        })?;
        Ok(out)
    }

    /// What a resumed run needs to give the same bits.
    pub fn state(&mut self) -> Result<Vec<u8>> {
        let mut bytes = 0;
        // SAFETY: the vector has the bytes that were asked for.
        unsafe {
            check(sys::gradreg_regularizer_state_bytes(self.handle, &mut bytes))?;
            let mut out = vec![0u8; bytes];
            let place = out.as_mut_ptr() as *mut c_void;
            check(sys::gradreg_regularizer_state_save(self.handle, place, bytes))?;
            Ok(out)
        }
    }

    pub fn load_state(&mut self, state: &[u8]) -> Result<()> {
        let place = state.as_ptr() as *const c_void;
        // SAFETY: that many bytes lie there.
        check(unsafe { sys::gradreg_regularizer_state_load(self.handle, place, state.len()) })
    }
}

fn or_f32(kind: sys::gradreg_type) -> sys::gradreg_type {
    if kind == 0 {
        sys::GRADREG_TYPE_F32
    } else {
        kind
    }
}

impl Drop for Regularizer {
    fn drop(&mut self) {
        // SAFETY: the only owner; the hook came from a box.
        unsafe {
            sys::gradreg_regularizer_destroy(self.handle);
            if let Some(hook) = self.hook {
                drop(Box::from_raw(hook));
            }
        }
    }
}

/// A step under way: cancelled when it is left, by an error or a panic, before combine.
struct Open<'a, T: Trainer> {
    regularizer: &'a mut Regularizer,
    trainer: &'a mut T,
    done: bool,
}

impl<T: Trainer> Open<'_, T> {
    fn call(
        &mut self,
        function: fn(&mut Regularizer, &mut Buffers<'_>) -> Result<()>,
    ) -> Result<()> {
        function(self.regularizer, &mut self.trainer.buffers()?)
    }
}

impl<T: Trainer> Drop for Open<'_, T> {
    fn drop(&mut self) {
        if !self.done {
            // There is already something to report; a failure here would hide it.
            let _ = self.call(Regularizer::cancel);
        }
    }
}
