//! Declarations of libgradreg's C interface, as they are. `gradreg.h` says what they mean; the crate
//! `gradreg` makes them safe.
#![allow(non_camel_case_types)]

mod bindings;

pub use bindings::*;
