//! Failures as values.

use crate::sys;
use std::ffi::CStr;
use std::fmt;
use std::os::raw::c_char;

/// A failed call: the library's status and its sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    status: sys::gradreg_status,
    sentence: String,
}

/// What a trainer should do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The calling code is wrong: fix it.
    Usage,
    /// Memory, device, communication: retry, fall back or stop.
    Machine,
    /// A value that must be finite is not: skip this step.
    Numbers,
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn usage(sentence: String) -> Error {
        Error { status: sys::GRADREG_ERROR_INVALID_ARGUMENT, sentence }
    }

    /// With the words of a callback that made the call fail.
    pub(crate) fn because(mut self, words: &str) -> Error {
        self.sentence = format!("{}: {}", self.sentence, words);
        self
    }

    /// One of `sys::GRADREG_ERROR_...`.
    pub fn status(&self) -> sys::gradreg_status {
        self.status
    }

    /// "GRADREG_ERROR_STATE" and so on.
    pub fn status_name(&self) -> &'static str {
        // SAFETY: a static string, never NULL.
        unsafe { text(sys::gradreg_status_name(self.status)) }
    }

    pub fn kind(&self) -> Kind {
        match self.status {
            s if s <= -40 => Kind::Numbers,
            s if s <= -20 => Kind::Machine,
            _ => Kind::Usage,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl std::error::Error for Error {}

/// The failure that a status of a call through [`sys`] is, with the sentence that this thread has of it.
pub fn check(status: sys::gradreg_status) -> Result<()> {
    if status == sys::GRADREG_OK {
        return Ok(());
    }
    // SAFETY: a string of this thread, valid until its next failing call.
    let sentence = unsafe { CStr::from_ptr(sys::gradreg_last_error()) };
    Err(Error { status, sentence: sentence.to_string_lossy().into_owned() })
}

/// SAFETY: `words` must be a zero-terminated string that is never freed.
pub(crate) unsafe fn text(words: *const c_char) -> &'static str {
    CStr::from_ptr(words).to_str().unwrap_or("?")
}

/// "name has 7 elements, expected 8"
pub(crate) fn expect_length(what: &str, have: usize, want: usize) -> Result<()> {
    if have == want {
        return Ok(());
    }
    Err(Error::usage(format!("{} has {} elements, expected {}", what, have, want)))
}
