//! The mean over an utterance's true frames, or its first frame.

pub mod cuda;

use std::ffi::CStr;
use std::sync::Arc;

use tch::Tensor;

use super::autograd::{Call, Io, Op, Shapes, apply};
use super::weights::shape2;
use crate::config::Pooling;
use crate::numeric::Real;
use crate::ragged::{Layout, Ragged};

struct Pool {
    layout: Arc<Layout>,
    width: usize,
    how: Pooling,
}

/// One row for each utterance.
///
/// # Shapes
/// `(sum T, width)` to `(B, width)`.
pub fn pool(x: &Ragged, how: Pooling) -> Tensor {
    let [y] = <[Tensor; 1]>::try_from(pools(&[(x, how)])).expect("one result a call");
    y
}

/// [`pool`] for several calls at once.
pub fn pools(calls: &[(&Ragged, Pooling)]) -> Vec<Tensor> {
    let calls = calls
        .iter()
        .map(|(x, how)| Call {
            op: Pool { layout: Arc::clone(&x.layout), width: shape2(&x.frames)[1], how: *how },
            inputs: vec![(&x.frames).into()],
        })
        .collect();
    apply(calls).into_iter().flatten().collect()
}

impl Pool {
    /// The first of the rows that are read, their number, and the weight of each.
    fn rows<T: Real>(&self, b: usize) -> (usize, usize, T) {
        let (first, length) = self.layout.span(b);
        match self.how {
            Pooling::Mean => (first, length, T::of(1.0 / length as f64)),
            Pooling::First => (first, 1, T::ONE),
        }
    }
}

impl Op for Pool {
    const NAME: &'static CStr = c"Pool";

    fn shapes(&self) -> Shapes {
        Shapes { results: vec![vec![self.layout.batch_size() as i64, self.width as i64]], saved: vec![] }
    }

    fn forward<T: Real>(&self, x: &[&[T]], y: &mut [&mut [T]], _saved: &mut [&mut [T]]) {
        for (b, y) in y[0].chunks_exact_mut(self.width).enumerate() {
            let (first, count, weight) = self.rows(b);
            y.fill(T::ZERO);
            for x in x[0][first * self.width..][..count * self.width].chunks_exact(self.width) {
                y.iter_mut().zip(x).for_each(|(y, &x)| *y += x);
            }
            for y in y.iter_mut() {
                *y *= weight;
            }
        }
    }

    fn backward<T: Real>(&self, _io: &Io<T>, dy: &[Option<&[T]>], dx: &mut [Option<&mut [T]>]) {
        let (Some(dy), Some(dx)) = (dy[0], &mut dx[0]) else { return };
        for (b, dy) in dy.chunks_exact(self.width).enumerate() {
            let (first, count, weight) = self.rows(b);
            for dx in dx[first * self.width..][..count * self.width].chunks_exact_mut(self.width) {
                dx.iter_mut().zip(dy).for_each(|(dx, &dy)| *dx += dy * weight);
            }
        }
    }
}
