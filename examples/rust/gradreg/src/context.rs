//! A context: threads, and where remarks go.

use crate::error::check;
use crate::{sys, Result};
use std::ffi::CStr;
use std::mem::size_of;
use std::os::raw::{c_char, c_void};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::ptr;
use std::sync::Arc;

type Log = Box<dyn Fn(sys::gradreg_log_level, &str) + Send + Sync>;

/// How to open a context.
#[derive(Default)]
pub struct ContextOptions {
    threads: i32,
    level: sys::gradreg_log_level,
    log: Option<Log>,
}

impl ContextOptions {
    pub fn new() -> ContextOptions {
        ContextOptions::default()
    }

    /// That work, the caller's among them; 0 (default): what this process may use.
    pub fn threads(mut self, threads: i32) -> ContextOptions {
        self.threads = threads;
        self
    }

    /// Where remarks go, on the thread that made the call. `level`: the most talkative level wanted.
    pub fn log<F>(mut self, level: sys::gradreg_log_level, log: F) -> ContextOptions
    where
        F: Fn(sys::gradreg_log_level, &str) + Send + Sync + 'static,
    {
        self.level = level;
        self.log = Some(Box::new(log));
        self
    }

    pub fn open(self) -> Result<Context> {
        let mut shared = Shared { handle: ptr::null_mut(), _log: self.log.map(Box::new) };
        // SAFETY: plain numbers and pointers, all of which may be zero until _init fills them in.
        let mut params: sys::gradreg_context_params = unsafe { std::mem::zeroed() };
        // SAFETY: the struct is as long as it says. The log lives in a box that `shared` owns and
        // that outlives the handle.
        unsafe {
            check(sys::gradreg_context_params_init(&mut params, size_of_val(&params)))?;
            params.backend = sys::GRADREG_BACKEND_CPU;
            params.threads = self.threads;
            if let Some(log) = &shared._log {
                params.log.function = Some(say);
                params.log.level = self.level;
                params.log.user = &**log as *const Log as *mut c_void;
            }
            check(sys::gradreg_context_create(&mut shared.handle, &params))?;
        }
        Ok(Context { shared: Arc::new(shared) })
    }
}

fn size_of_val<T>(_: &T) -> usize {
    size_of::<T>()
}

unsafe extern "C" fn say(user: *mut c_void, level: sys::gradreg_log_level, message: *const c_char) {
    let log = &*(user as *const Log);
    let message = CStr::from_ptr(message).to_string_lossy();
    // A remark that cannot be taken is lost, as without a log.
    let _ = catch_unwind(AssertUnwindSafe(|| log(level, &message)));
}

/// The handle, held by the context and by everything made from it.
pub(crate) struct Shared {
    pub(crate) handle: *mut sys::gradreg_context,
    _log: Option<Box<Log>>,
}

// SAFETY: the library lets any thread use a handle, one at a time. Through `&Shared` only calls are
// made that any number of threads may make: gradreg_context_info, and destroy, by the last owner.
unsafe impl Send for Shared {}
unsafe impl Sync for Shared {}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: the last owner; children hold an Arc and so are gone.
        unsafe { sys::gradreg_context_destroy(self.handle) };
    }
}

/// Threads and memory of everything that is made from it. Opens on the CPU.
pub struct Context {
    pub(crate) shared: Arc<Shared>,
}

impl Context {
    /// With the defaults.
    pub fn new() -> Result<Context> {
        ContextOptions::new().open()
    }

    pub(crate) fn handle(&mut self) -> *mut sys::gradreg_context {
        self.shared.handle
    }

    /// Backend, vector path, threads, memory.
    pub fn info(&self) -> Result<sys::gradreg_context_info> {
        // SAFETY: as in open(). "Threads: any."
        unsafe {
            let mut out: sys::gradreg_context_info = std::mem::zeroed();
            check(sys::gradreg_context_info_init(&mut out, size_of_val(&out)))?;
            check(sys::gradreg_context_info(self.shared.handle, &mut out))?;
            Ok(out)
        }
    }

    /// Scratch memory ahead of time, so that no loss allocates.
    pub fn reserve(&mut self, bytes: usize) -> Result<()> {
        // SAFETY: &mut self is the only user.
        check(unsafe { sys::gradreg_context_reserve(self.handle(), bytes) })
    }
}
