//! The pool of [`crate::numeric::pool`] for libtorch: `csrc/pool.cpp` makes tensors in its blocks.

use std::ffi::c_void;
use std::ptr::null_mut;

use crate::numeric::pool::{Line, borrow, give_back};

/// Memory of at least so many bytes: returns the block, which [`mmiln_give_back`] takes back, and writes its address to
/// `data`; null if there is no memory.
///
/// # Safety
/// `data` is good for writing a pointer.
#[unsafe(no_mangle)]
unsafe extern "C" fn mmiln_borrow(bytes: usize, data: *mut *mut c_void) -> *mut c_void {
    let Some(mut block) = borrow(bytes) else { return null_mut() };
    // SAFETY: as the caller's.
    unsafe { data.write(block.as_mut_ptr().cast()) };
    Box::into_raw(Box::new(block)).cast()
}

/// # Safety
/// `block` comes from [`mmiln_borrow`] and is given back once; nothing uses its memory any more.
#[unsafe(no_mangle)]
unsafe extern "C" fn mmiln_give_back(block: *mut c_void) {
    // SAFETY: made by `mmiln_borrow`, as the caller says.
    give_back(*unsafe { Box::from_raw(block.cast::<Vec<Line>>()) });
}
