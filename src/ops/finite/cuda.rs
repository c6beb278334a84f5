//! Launches of `cuda.cu`.

use tch::Tensor;

use crate::device::{Current, Grid, Kernel, Pointer, Source, launch};
use crate::ops::cuda::source;
use crate::ops::profile::Record;

pub const SOURCE: Source = source("finite", include_str!("cuda.cu"));
const NOTE: Kernel = Kernel { source: SOURCE, name: "note_not_finite" };
const THREADS: usize = 256;
/// The fewest numbers that a thread checks, and the most blocks of a tensor: some for each multiprocessor.
const EACH: usize = 4;
const BLOCKS: usize = 1024;

#[repr(C)]
#[derive(Clone, Copy)]
struct Arguments {
    numbers: Pointer,
    clock: Pointer,
    count: i64,
}

/// Notes in a clock that its step is not finite if a number of these tensors is not, unless an earlier step was noted.
/// A clock is six numbers of 64 bits on the device: dropout's key, the epoch, the optimiser's step, the step; then the
/// step and the optimiser's step of the first one that was not finite, zero before there was one.
pub fn note(tensors: &[&Tensor], clock: Pointer) {
    let _current = Current::of(tensors[0].device());
    let _record = Record::forward(c"Finite");
    let calls: Vec<Arguments> = tensors
        .iter()
        .map(|x| Arguments { numbers: Pointer::to(x), clock, count: x.numel() as i64 })
        .collect();
    launch(NOTE, tensors[0], &calls, |call| {
        Grid::line((call.count as usize).div_ceil(EACH * THREADS).min(BLOCKS), THREADS)
    });
}
