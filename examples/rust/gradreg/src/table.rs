//! Which slice of the parameters is which layer, and how strongly it is regularized.

use crate::error::{check, expect_length};
use crate::{sys, Error, Result};
use std::ffi::CString;
use std::mem::{size_of, zeroed};

pub type Segment = sys::gradreg_segment;
pub type Schedule = sys::gradreg_schedule;

/// A segment with layer and role from the parameter's name.
pub fn segment(parameter_name: &str, offset: u64, count: u64) -> Result<Segment> {
    let name = CString::new(parameter_name)
        .map_err(|_| Error::usage(format!("segment: zero byte in {:?}", parameter_name)))?;
    // SAFETY: plain numbers; the string is zero-terminated.
    unsafe {
        let mut out: Segment = zeroed();
        check(sys::gradreg_segment_init(&mut out, size_of::<Segment>()))?;
        check(sys::gradreg_segment_classify(&mut out.layer, &mut out.role, name.as_ptr()))?;
        out.offset = offset;
        out.count = count;
        Ok(out)
    }
}

/// The default schedule for a model of that depth.
pub fn schedule_for_depth(layer_count: i32) -> Result<Schedule> {
    // SAFETY: every field is written.
    unsafe {
        let mut out: Schedule = zeroed();
        check(sys::gradreg_schedule_for_depth(&mut out, layer_count))?;
        Ok(out)
    }
}

/// m(l) for every layer. `table` is read when the curve is `GRADREG_CURVE_TABLE`; whatever pointer
/// the schedule holds is not.
pub fn multipliers(schedule: &Schedule, table: &[f64], layer_count: i32) -> Result<Vec<f64>> {
    let wanted = with_table(*schedule, table, layer_count)?;
    let mut out = vec![0.0; layer_count.max(1) as usize];
    // SAFETY: out has layer_count entries, and the table too if it is read.
    check(unsafe {
        sys::gradreg_schedule_multipliers(out.as_mut_ptr(), &wanted, layer_count)
    })?;
    Ok(out)
}

/// The schedule with `table` instead of its own pointer, which safe code may have made up.
pub(crate) fn with_table(mut s: Schedule, table: &[f64], layer_count: i32) -> Result<Schedule> {
    s.table = std::ptr::null();
    if s.curve == sys::GRADREG_CURVE_TABLE {
        expect_length("the schedule's table", table.len(), layer_count.max(0) as usize)?;
        s.table = table.as_ptr();
    }
    Ok(s)
}
