//! Dropout by itself, where no other operation takes it along.

pub mod cuda;

use std::ffi::CStr;

use tch::Tensor;

use super::autograd::{Call, Io, Op, Shapes, apply};
use super::pieces::chunked;
use crate::numeric::{Real, Scratch};
use crate::rng::Dropout;

struct DropoutOp {
    shape: Vec<i64>,
    dropout: Dropout,
}

/// Zeroes each element of `x` with probability p and scales the others by 1 / (1 - p).
pub fn dropout(x: Tensor, dropout: Dropout) -> Tensor {
    if dropout.is_off() {
        return x;
    }
    let op = DropoutOp { shape: x.size(), dropout };
    apply(vec![Call { op, inputs: vec![(&x).into()] }]).remove(0).remove(0)
}

impl Op for DropoutOp {
    const NAME: &'static CStr = c"Dropout";

    fn shapes(&self) -> Shapes {
        Shapes { results: vec![self.shape.clone()], saved: vec![] }
    }

    fn forward<T: Real>(&self, x: &[&[T]], y: &mut [&mut [T]], _saved: &mut [&mut [T]]) {
        chunked(y[0], |at, y| {
            self.dropout.fill(0, at.start, y);
            y.iter_mut().zip(&x[0][at]).for_each(|(y, &x)| *y *= x);
        });
    }

    fn backward<T: Real>(&self, _io: &Io<T>, dy: &[Option<&[T]>], dx: &mut [Option<&mut [T]>]) {
        let (Some(dy), Some(dx)) = (dy[0], &mut dx[0]) else { return };
        chunked(dx, |at, dx| {
            let mut mask = Scratch::<T>::new(dx.len());
            self.dropout.fill(0, at.start, &mut mask);
            for ((dx, &keep), &dy) in dx.iter_mut().zip(&*mask).zip(&dy[at]) {
                *dx += keep * dy;
            }
        });
    }
}
