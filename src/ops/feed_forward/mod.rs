//! The feed-forward part of a layer with its residual and normalisation, equations (12) and (23).

pub mod cuda;

use std::ffi::CStr;
use std::sync::Arc;

use tch::Tensor;

use super::autograd::{Call, Io, Op, Shapes, apply};
use super::linear::{Activation, activate};
use super::parallel;
use super::pieces::add_parts;
use super::weights::{LayerNorm, Linear, shape2};
use crate::numeric::gemm::add_rows;
use crate::numeric::norm::{affine, normalize, normalize_backward};
use crate::numeric::{LaidOut, Matrix, Real, Scratch, Shared, Start, add, kernel, multiply, windows};
use crate::ragged::{Layout, Ragged};
use crate::rng::Dropout;

/// Frames that are handled at a time, so that intermediate results stay in the cache.
const BLOCK: usize = 64;

/// The most partial sums of gradients, each over the blocks of a part of the frames.
const PARTS: usize = 8;

/// X^i = LN(Y + FFN(Y)), (12) (23), FFN(Y) = dropout(W_2 relu(W_1 Y + b_1) + b_2).
pub struct FeedForwardNorm<'a> {
    /// Y, `(sum T, d)`.
    pub y: &'a Ragged,
    pub linear1: &'a Linear,
    pub linear2: &'a Linear,
    pub norm: &'a LayerNorm,
    pub dropout: Dropout,
}

struct FeedForwardOp {
    layout: Arc<Layout>,
    width: usize,
    inner: usize,
    eps: f64,
    dropout: Dropout,
}

/// X^i for several calls at once.
///
/// # Shapes
/// Each result is `(sum T, d)`.
pub fn feed_forward_norm(calls: &[FeedForwardNorm]) -> Vec<Tensor> {
    let calls = calls
        .iter()
        .map(|FeedForwardNorm { y, linear1, linear2, norm, dropout }| {
            let [inner, width] = shape2(&linear1.weight.value);
            let layout = Arc::clone(&y.layout);
            Call {
                op: FeedForwardOp { layout, width, inner, eps: norm.eps, dropout: *dropout },
                inputs: vec![
                    (&y.frames).into(),
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
    fn rows(&self) -> usize {
        self.layout.rows()
    }

    /// Blocks of rows: (first, count) each.
    fn blocks(&self) -> Vec<(usize, usize)> {
        let rows = self.rows();
        (0..rows).step_by(BLOCK).map(|first| (first, BLOCK.min(rows - first))).collect()
    }

    /// Dropout's factors for `rows` rows from `first` on; empty where it is off.
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
            results: vec![vec![self.rows() as i64, self.width as i64]],
            // The argument of LN. It is faster to compute relu(W1 Y + b1) again than to write and read it.
            saved: vec![self.rows() * self.width],
        }
    }

    fn forward<T: Real>(&self, x: &[&[T]], y: &mut [&mut [T]], saved: &mut [&mut [T]]) {
        let &[x, w1, b1, w2, b2, weight, bias] = x else { unreachable!("Y and six parameters") };
        let (w1, w2) = (Matrix::new(w1, self.inner, self.width), Matrix::new(w2, self.width, self.inner));
        let (w1, w2) = (LaidOut::of(w1.t()), LaidOut::of(w2.t()));
        let (y, saved) = (Shared::new(y[0]), Shared::new(saved[0]));
        let blocks = self.blocks();
        parallel::each(blocks.len(), |i| {
            let (first, rows) = blocks[i];
            let (at, narrow) = (first * self.width, rows * self.width);
            let mut own = Scratch::new(if saved.is_empty() { narrow } else { 0 });
            // SAFETY: each block writes its own rows.
            let (y, sum) = unsafe {
                (y.part(at, narrow), if saved.is_empty() { &mut own[..] } else { saved.part(at, narrow) })
            };
            let x = &x[at..][..narrow];
            let hidden = self.hidden(x, w1.view(), b1);
            let hidden = Matrix::new(&hidden, rows, self.inner);
            multiply(hidden, w2.view(), sum, self.width, Start::Row(b2));
            add_and_normalize(x, &self.mask(first, rows), weight, bias, T::of(self.eps), sum, y);
        });
    }

    fn backward<T: Real>(&self, io: &Io<T>, dy: &[Option<&[T]>], dx: &mut [Option<&mut [T]>]) {
        let Some(dy) = dy[0] else { return };
        let &[x, w1, b1, w2, _, weight, _] = io.x else { unreachable!("Y and six parameters") };
        let (width, inner) = (self.width, self.inner);
        let (w1, w2) = (Matrix::new(w1, inner, width), Matrix::new(w2, width, inner));
        let (w1_t, w1, w2) = (LaidOut::of(w1.t()), LaidOut::of(w1), LaidOut::of(w2));
        let (dx, parameters) = dx.split_first_mut().expect("Y and six parameters");
        let dx = dx.as_mut().map(|dx| Shared::new(dx));
        // Sizes of w1, b1, w2, b2, and the norm's weight and bias.
        let sizes = [inner * width, inner, inner * width, width, width, width];
        let size = sizes.iter().sum();
        let blocks = self.blocks();
        let parts: Vec<&[(usize, usize)]> = blocks.chunks(blocks.len().div_ceil(PARTS).max(1)).collect();
        let mut sums = Scratch::new(parts.len() * size);
        {
            let sums = Shared::new(&mut sums);
            parallel::each(parts.len(), |i| {
                // SAFETY: each part has sums of its own.
                let mut sums = unsafe { sums.part(i * size, size) };
                let [dw1, db1, dw2, db2, dweight, dbias] =
                    sizes.map(|size| sums.split_off_mut(..size).expect("as many as there are sizes"));
                for sum in [&mut *db1, &mut *db2, &mut *dweight, &mut *dbias] {
                    sum.fill(T::ZERO);
                }
                for (n, &(first, rows)) in parts[i].iter().enumerate() {
                    let so_far = if n == 0 { Start::Zero } else { Start::Itself };
                    let (at, narrow) = (first * width, rows * width);
                    let (x, sum) = (&x[at..][..narrow], &io.saved[0][at..][..narrow]);
                    let mut dsum = Scratch::new(narrow);
                    let mut dout = Scratch::new(narrow);
                    normalize_rows_backward(
                        &dy[at..][..narrow],
                        sum,
                        &self.mask(first, rows),
                        weight,
                        T::of(self.eps),
                        &mut dsum,
                        &mut dout,
                        dweight,
                        dbias,
                    );
                    let hidden = self.hidden(x, w1_t.view(), b1);
                    let mut dhidden = Scratch::new(rows * inner);
                    let dout = Matrix::new(&dout, rows, width);
                    multiply(dout, w2.view(), &mut dhidden, inner, Start::Zero);
                    clear_inactive(&hidden, &mut dhidden);
                    let dhidden = Matrix::new(&dhidden, rows, inner);
                    if let Some(dx) = &dx {
                        // SAFETY: each block has its own rows.
                        let dx = unsafe { dx.part(at, narrow) };
                        multiply(dhidden, w1.view(), &mut dsum, width, Start::Itself);
                        add(dx, &dsum);
                    }
                    multiply(dout.t(), Matrix::new(&hidden, rows, inner), dw2, inner, so_far);
                    multiply(dhidden.t(), Matrix::new(x, rows, width), dw1, width, so_far);
                    add_rows(dout, db2);
                    add_rows(dhidden, db1);
                }
            });
        }
        add_parts(parameters, &sizes, &sums);
    }
}

impl FeedForwardOp {
    /// relu(W1 Y + b1) for some rows.
    fn hidden<T: Real>(&self, y: &[T], w1: Matrix<T>, b1: &[T]) -> Scratch<T> {
        let rows = y.len() / self.width;
        let mut hidden = Scratch::new(rows * self.inner);
        multiply(Matrix::new(y, rows, self.width), w1, &mut hidden, self.inner, Start::Row(b1));
        activate(&mut hidden, &mut [], Activation::Relu);
        hidden
    }
}

kernel! {
    /// Clears the gradient where the ReLU gave zero.
    fn clear_inactive<'a, T>(simd; hidden: &'a [T], dhidden: &'a mut [T]) {
        for w in windows::<S, T>(simd, hidden.len()) {
            w.write(dhidden, w.read(dhidden).where_positive(w.read(hidden)));
        }
    }
}

kernel! {
    /// `sum` is W2 hidden + b2 on entry, and becomes the argument of LN; `y` becomes the result.
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
    /// Writes the gradients of LN's argument and of dropout's; adds to those of scale and shift.
    fn normalize_rows_backward<'a, T>(
        simd; dy: &'a [T], sum: &'a [T], mask: &'a [T], weight: &'a [T], eps: T,
        dsum: &'a mut [T], dout: &'a mut [T], dweight: &'a mut [T], dbias: &'a mut [T],
    ) {
        let width = weight.len();
        let mut normal = Scratch::new(width);
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
