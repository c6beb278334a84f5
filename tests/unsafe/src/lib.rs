//! The sources of the core, and in place of its C++ the same in Rust, which miri can look into.

#![allow(dead_code, unused_imports)] // the core uses more of them

use std::alloc::{Layout, alloc, dealloc};
use std::ffi::c_void;

#[path = "../../../src/numeric/mod.rs"]
pub mod numeric;

#[path = "."]
pub mod ops {
    #[path = "../../../src/ops/parallel.rs"]
    pub mod parallel;
}

#[cfg(test)]
mod numbers;
#[cfg(test)]
mod threads;

const LINE: usize = 64;

/// In place of `csrc/pool.cpp`: a block with its size in front, freed at once, so that use after it is noticed.
///
/// # Safety
/// `data` is good for a pointer.
#[unsafe(no_mangle)]
unsafe extern "C" fn mmiln_borrow(bytes: usize, data: *mut *mut c_void) -> *mut c_void {
    // SAFETY: the size is not zero, and the line in front is there.
    unsafe {
        let block = alloc(Layout::from_size_align_unchecked(bytes + LINE, LINE));
        block.cast::<usize>().write(bytes);
        data.write(block.add(LINE).cast());
        block.cast()
    }
}

/// # Safety
/// `block` is of [`mmiln_borrow`], and given back once.
#[unsafe(no_mangle)]
unsafe extern "C" fn mmiln_give_back(block: *mut c_void) {
    // SAFETY: as the caller's.
    unsafe {
        let bytes = block.cast::<usize>().read();
        dealloc(block.cast(), Layout::from_size_align_unchecked(bytes + LINE, LINE));
    }
}

#[unsafe(no_mangle)]
extern "C" fn mmiln_set_own_threads(_count: i32) -> i32 {
    3
}
