//! The kernels' entries in `torch.profiler`.

use std::ffi::{CStr, c_char, c_void};

/// An entry that lasts as long as this.
pub struct Record(*mut c_void);

impl Record {
    pub fn forward(name: &CStr) -> Self {
        // SAFETY: the name is good for the call; C++ copies it.
        Self(unsafe { mmiln_record(name.as_ptr(), false) })
    }

    pub fn backward(name: &CStr) -> Self {
        // SAFETY: as above.
        Self(unsafe { mmiln_record(name.as_ptr(), true) })
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        // SAFETY: made by `mmiln_record`, ended once; null is none.
        unsafe { mmiln_record_end(self.0) };
    }
}

// csrc/profile.cpp
unsafe extern "C" {
    fn mmiln_record(name: *const c_char, backward: bool) -> *mut c_void;
    fn mmiln_record_end(record: *mut c_void);
}
