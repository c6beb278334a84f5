//! The feed-forward part of a layer with its residual and normalisation, equations (12) and (23).

use std::ffi::CStr;

use tch::Tensor;

use super::autograd::{Call, Io, Op, Shapes, apply};
use super::gemm::{column_sums, parallel_multiply};
use super::linear::{Activation, activate, activate_backward};
use super::{LayerNorm, Linear, parallel};
use crate::numeric::norm::{affine, normalize, normalize_backward};
use crate::numeric::{LaidOut, Matrix, Real, Scratch, Shared, Start, kernel, multiply};
use crate::rng::Dropout;

/// Frames that are handled at once.
const BLOCK: usize = 64;

/// LN(Y + dropout(W2 relu(W1 Y + b1) + b2)).
pub struct FeedForwardNorm<'a> {
    /// Y, `(rows, d)`.
    pub y: &'a Tensor,
    pub linear1: &'a Linear,
    pub linear2: &'a Linear,
    pub norm: &'a LayerNorm,
    pub dropout: Dropout,
}

struct FeedForwardOp {
    rows: usize,
    width: usize,
    inner: usize,
    eps: f64,
    dropout: Dropout,
}

/// Several at once.
///
/// # Shapes
/// To `(rows, d)`.
pub fn feed_forward_norm(calls: &[FeedForwardNorm]) -> Vec<Tensor> {
    let calls = calls
        .iter()
        .map(|FeedForwardNorm { y, linear1, linear2, norm, dropout }| {
            let [rows, width] = super::shape2(y);
            let inner = super::shape2(&linear1.weight.value)[0];
            Call {
                op: FeedForwardOp { rows, width, inner, eps: norm.eps, dropout: *dropout },
                inputs: vec![
                    (*y).into(),
                    (&linear1.weight).into(),
                    (&linear1.bias).into(),
                    (&linear2.weight).into(),
                    (&linear2.bias).into(),
                    (&norm.weight).into(),
                    (&norm.bias).into(),
                ],
            }
        })
        .collect();
    apply(calls).into_iter().flatten().collect()
}

impl FeedForwardOp {
    /// Blocks of rows: the first, and how many.
    fn blocks(&self) -> Vec<(usize, usize)> {
        (0..self.rows).step_by(BLOCK).map(|first| (first, BLOCK.min(self.rows - first))).collect()
    }

    /// What dropout makes of `rows` rows from `first` on; empty where it is off.
    fn mask<T: Real>(&self, first: usize, rows: usize) -> Scratch<T> {
        let mut mask = Scratch::new(if self.dropout.is_off() { 0 } else { rows * self.width });
        if !self.dropout.is_off() {
            self.dropout.fill(0, first * self.width, &mut mask);
        }
        mask
    }
}

impl Op for FeedForwardOp {
    const NAME: &'static CStr = c"FeedForwardNorm";

    fn shapes(&self) -> Shapes {
        Shapes {
            results: vec![vec![self.rows as i64, self.width as i64]],
            // relu(W1 Y + b1), and what is normalised
            saved: vec![self.rows * self.inner, self.rows * self.width],
        }
    }

    fn forward<T: Real>(&self, x: &[&[T]], y: &mut [&mut [T]], saved: &mut [&mut [T]]) {
        let &[x, w1, b1, w2, b2, weight, bias] = x else { unreachable!("Y and six parameters") };
        let (w1, w2) = (Matrix::new(w1, self.inner, self.width), Matrix::new(w2, self.width, self.inner));
        let (w1, w2) = (LaidOut::of(w1.t()), LaidOut::of(w2.t()));
        let [hidden, sum] = saved else { unreachable!("two saved") };
        let (y, hidden, sum) = (Shared::new(y[0]), Shared::new(hidden), Shared::new(sum));
        let blocks = self.blocks();
        parallel::each(blocks.len(), |i| {
            let (first, rows) = blocks[i];
            let (narrow, wide) = (rows * self.width, rows * self.inner);
            let mut own = Scratch::new(if hidden.is_empty() { narrow + wide } else { 0 });
            let (own_sum, own_hidden) = own.split_at_mut(if hidden.is_empty() { narrow } else { 0 });
            // SAFETY: each block writes its own rows.
            let (y, hidden, sum) = unsafe {
                (
                    y.part(first * self.width, narrow),
                    if hidden.is_empty() { own_hidden } else { hidden.part(first * self.inner, wide) },
                    if sum.is_empty() { own_sum } else { sum.part(first * self.width, narrow) },
                )
            };
            let x = &x[first * self.width..][..narrow];
            multiply(Matrix::new(x, rows, self.width), w1.view(), hidden, self.inner, Start::Row(b1));
            activate(hidden, &mut [], Activation::Relu);
            multiply(Matrix::new(hidden, rows, self.inner), w2.view(), sum, self.width, Start::Row(b2));
            let mask = self.mask(first, rows);
            add_and_normalize(x, &mask, weight, bias, T::of(self.eps), sum, y);
        });
    }

    fn backward<T: Real>(&self, io: &Io<T>, dy: &[Option<&[T]>], dx: &mut [Option<&mut [T]>]) {
        let Some(dy) = dy[0] else { return };
        let &[y, w1, _, w2, _, weight, _] = io.x else { unreachable!("Y and six parameters") };
        let (w1, w2) = (Matrix::new(w1, self.inner, self.width), Matrix::new(w2, self.width, self.inner));
        let blocks = self.blocks();
        let mut dout = Scratch::new(self.rows * self.width);
        let mut dhidden = Scratch::new(self.rows * self.inner);
        let mut sums = Scratch::zeros(2 * blocks.len() * self.width);
        let [dx, dw1, db1, dw2, db2, dweight, dbias] = dx else { unreachable!("Y and six parameters") };
        {
            let (dout, dhidden, sums) =
                (Shared::new(&mut dout), Shared::new(&mut dhidden), Shared::new(&mut sums));
            let dx = dx.as_mut().map(|dx| Shared::new(dx));
            parallel::each(blocks.len(), |i| {
                let (first, rows) = blocks[i];
                let (at, narrow) = (first * self.width, rows * self.width);
                // SAFETY: each block writes its own rows and sums.
                let (dout, dhidden, sums) = unsafe {
                    (
                        dout.part(at, narrow),
                        dhidden.part(first * self.inner, rows * self.inner),
                        sums.part(2 * i * self.width, 2 * self.width),
                    )
                };
                let mut dsum = Scratch::new(narrow);
                let mask = self.mask(first, rows);
                let (sum, dy) = (&io.saved[1][at..][..narrow], &dy[at..][..narrow]);
                normalize_rows_backward(dy, sum, &mask, weight, T::of(self.eps), &mut dsum, dout, sums);
                multiply(Matrix::new(dout, rows, self.width), w2, dhidden, self.inner, Start::Zero);
                let hidden = &io.saved[0][first * self.inner..][..rows * self.inner];
                let mut before = Scratch::new(dhidden.len());
                activate_backward(dhidden, hidden, &[], &mut before, Activation::Relu);
                dhidden.copy_from_slice(&before);
                if let Some(dx) = &dx {
                    // SAFETY: as above.
                    let dx = unsafe { dx.part(at, narrow) };
                    dx.iter_mut().zip(&*dsum).for_each(|(dx, &dsum)| *dx += dsum);
                    multiply(Matrix::new(dhidden, rows, self.inner), w1, dx, self.width, Start::Itself);
                }
            });
        }
        for (i, sum) in sums.chunks_exact(self.width).enumerate() {
            if let Some(parameter) = if i % 2 == 0 { &mut *dweight } else { &mut *dbias } {
                parameter.iter_mut().zip(sum).for_each(|(p, &sum)| *p += sum);
            }
        }
        let (y, hidden) =
            (Matrix::new(y, self.rows, self.width), Matrix::new(io.saved[0], self.rows, self.inner));
        let (dout, dhidden) =
            (Matrix::new(&dout, self.rows, self.width), Matrix::new(&dhidden, self.rows, self.inner));
        parallel::both(
            || parameters_backward(dhidden, y, dw1, db1),
            || parameters_backward(dout, hidden, dw2, db2),
        );
    }
}

/// Adds to the gradients of weight and bias of one linear map.
fn parameters_backward<T: Real>(
    dy: Matrix<T>,
    x: Matrix<T>,
    dweight: &mut Option<&mut [T]>,
    dbias: &mut Option<&mut [T]>,
) {
    if let Some(dweight) = dweight {
        parallel_multiply(dy.t(), x, dweight, Start::Itself);
    }
    if let Some(dbias) = dbias {
        column_sums(&dy, dbias);
    }
}

kernel! {
    /// `sum`, what W2 and b2 make, becomes what is normalised; `y` the result.
    fn add_and_normalize<'a, T>(
        simd; x: &'a [T], mask: &'a [T], weight: &'a [T], bias: &'a [T], eps: T,
        sum: &'a mut [T], y: &'a mut [T],
    ) {
        let width = weight.len();
        let mut normal = Scratch::new(width);
        for (r, (sum, y)) in sum.chunks_exact_mut(width).zip(y.chunks_exact_mut(width)).enumerate() {
            let x = &x[r * width..][..width];
            if !mask.is_empty() {
                let mask = &mask[r * width..][..width];
                for j in 0..width {
                    sum[j] *= mask[j];
                }
            }
            for j in 0..width {
                sum[j] += x[j];
            }
            normal.copy_from_slice(sum);
            normalize(simd, &mut normal, eps);
            affine(&normal, weight, bias, y);
        }
    }
}

kernel! {
    /// Gradients of what was normalised, and behind dropout; adds to those of scale and shift in `sums`.
    fn normalize_rows_backward<'a, T>(
        simd; dy: &'a [T], sum: &'a [T], mask: &'a [T], weight: &'a [T], eps: T,
        dsum: &'a mut [T], dout: &'a mut [T], sums: &'a mut [T],
    ) {
        let width = weight.len();
        let mut normal = Scratch::new(width);
        let (dweight, dbias) = sums.split_at_mut(width);
        for (r, dy) in dy.chunks_exact(width).enumerate() {
            let row = r * width..(r + 1) * width;
            normal.copy_from_slice(&sum[row.clone()]);
            let scale = normalize(simd, &mut normal, eps);
            let (ds, dout) = (&mut dsum[row.clone()], &mut dout[row.clone()]);
            normalize_backward(dy, &normal, scale, weight, ds, (dweight, dbias));
            if mask.is_empty() {
                dout.copy_from_slice(ds);
            } else {
                for (dout, (&ds, &keep)) in dout.iter_mut().zip(ds.iter().zip(&mask[row])) {
                    *dout = ds * keep;
                }
            }
        }
    }
}
