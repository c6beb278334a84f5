//! Launches of `cuda.cu`.

use tch::Tensor;

use crate::device::{Grid, Kernel, Pointer, Source, launch};
use crate::ops::cuda::source;

pub const SOURCE: Source = source("adam", include_str!("cuda.cu"));
const ADAM: Kernel = Kernel { source: SOURCE, name: "adam" };
const THREADS: usize = 256;
/// Elements that a thread handles at a time, and blocks of a slice at most: some for each multiprocessor.
const EACH: usize = 4;
const BLOCKS: usize = 2048;

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Arguments {
    pub weights: Pointer,
    pub grad: Pointer,
    pub first: Pointer,
    pub second: Pointer,
    pub copy: Pointer,
    pub t_at: Pointer,
    pub t: i64,
    pub unless: Pointer,
    pub rate: f64,
    pub decay: f64,
    pub scale: f64,
    pub count: i64,
    pub decoupled: i32,
    pub clear: i32,
}

/// All slices at the same time, on the device and of the kind of `of`.
pub fn adam(of: &Tensor, slices: &[Arguments]) {
    launch(ADAM, of, slices, |slice| {
        Grid::line((slice.count as usize).div_ceil(EACH * THREADS).min(BLOCKS), THREADS)
    });
}
