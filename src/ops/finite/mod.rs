//! Whether all numbers of a tensor are finite, as losses and gradients must be before a step is applied.

pub mod cuda;

use std::sync::atomic::{AtomicBool, Ordering};

use tch::{Kind, Tensor};

use super::autograd::slice;
use super::parallel;
use super::profile::Record;
use crate::numeric::{Real, kernel};

/// Numbers of a piece of work.
const PIECE: usize = 1 << 16;

/// Whether every number of a contiguous tensor on the CPU is finite.
pub fn all_finite(x: &Tensor) -> bool {
    let _record = Record::forward(c"Finite");
    // SAFETY: read for this call alone, during which no other thread writes it, as for any operation of libtorch's.
    unsafe { if x.kind() == Kind::Double { finite(slice::<f64>(x)) } else { finite(slice::<f32>(x)) } }
}

fn finite<T: Real>(x: &[T]) -> bool {
    let pieces: Vec<&[T]> = x.chunks(PIECE).collect();
    let all = AtomicBool::new(true);
    parallel::install(x.len(), || {
        parallel::each(pieces.len(), |i| {
            let mut sum = T::ZERO;
            zeros(pieces[i], &mut sum);
            if sum != T::ZERO {
                all.store(false, Ordering::Relaxed);
            }
        });
    });
    all.into_inner()
}

kernel! {
    /// Adds zero times each number to `sum`, which stays zero where all are finite, else becomes NaN.
    fn zeros<'a, 'b, T>(_simd; x: &'a [T], sum: &'b mut T) {
        const LANES: usize = 64;
        let mut sums = [T::ZERO; LANES];
        let chunks = x.chunks_exact(LANES);
        let rest = chunks.remainder();
        for chunk in chunks {
            for (sum, x) in sums.iter_mut().zip(chunk) {
                *sum += *x * T::ZERO;
            }
        }
        for (sum, x) in sums.iter_mut().zip(rest) {
            *sum += *x * T::ZERO;
        }
        for part in sums {
            *sum += part;
        }
    }
}
