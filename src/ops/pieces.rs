//! Helpers for operations whose work is cut into pieces.

use std::ops::Range;

use super::parallel;
use crate::numeric::{Real, add};

/// Calls `work` on pieces of a slice, with the range of each, at the same time. The length alone decides the pieces.
pub fn chunked<T: Real>(x: &mut [T], work: impl Fn(Range<usize>, &mut [T]) + Sync) {
    const SIZE: usize = 1 << 14;
    let mut pieces: Vec<(usize, &mut [T])> = x.chunks_mut(SIZE).enumerate().collect();
    parallel::each_of(&mut pieces, |(i, piece)| {
        let start = *i * SIZE;
        work(start..start + piece.len(), piece);
    });
}

/// Adds sums that were made in parts to the gradients of parameters, one part after the other. Each part has the sums
/// of all parameters one after the other, which have these `sizes`.
pub fn add_parts<T: Real>(gradients: &mut [Option<&mut [T]>], sizes: &[usize], sums: &[T]) {
    let starts = sizes.iter().scan(0, |next, size| Some(std::mem::replace(next, *next + size)));
    let mut gradients: Vec<_> = gradients.iter_mut().zip(starts).collect();
    parallel::each_of(&mut gradients, |(gradient, start)| {
        let Some(gradient) = gradient else { return };
        sums.chunks_exact(sizes.iter().sum()).for_each(|part| add(gradient, &part[*start..]));
    });
}
