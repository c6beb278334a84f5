//! Convolution over time, equation (4).

pub mod cuda;

use std::ffi::CStr;
use std::sync::Arc;

use tch::Tensor;

use super::autograd::{Call, Io, Op, Shapes, apply};
use super::parallel;
use super::weights::Linear;
use crate::numeric::gemm::{column_sums, parallel_multiply};
use crate::numeric::{Matrix, Real, Scratch, Shared, Start};
use crate::ragged::{Layout, Ragged};

struct Conv1d {
    layout: Arc<Layout>,
    input: usize,
    output: usize,
    kernel: usize,
}

/// X_m^0 = Conv1d(M_m), (4), with an odd kernel, "same" length and a bias; zeros precede and follow each utterance.
///
/// # Shapes
/// `x` `(sum T, in)`, `weights.weight` `(out, in, kernel)` to `(sum T, out)`.
pub fn conv1d(x: &Ragged, weights: &Linear) -> Tensor {
    let [y] = <[Tensor; 1]>::try_from(conv1ds(&[(x, weights)])).expect("one result a call");
    y
}

/// [`conv1d`] for several calls at once.
pub fn conv1ds(calls: &[(&Ragged, &Linear)]) -> Vec<Tensor> {
    let calls = calls
        .iter()
        .map(|(x, weights)| {
            let [output, input, kernel] = weights.weight.value.size()[..] else {
                unreachable!("convolutions have three axes")
            };
            Call {
                op: Conv1d {
                    layout: Arc::clone(&x.layout),
                    input: input as usize,
                    output: output as usize,
                    kernel: kernel as usize,
                },
                inputs: vec![(&x.frames).into(), (&weights.weight).into(), (&weights.bias).into()],
            }
        })
        .collect();
    apply(calls).into_iter().flatten().collect()
}

impl Conv1d {
    fn rows(&self) -> usize {
        self.layout.rows()
    }

    /// Number of values under the kernel, `kernel * in`.
    fn depth(&self) -> usize {
        self.kernel * self.input
    }

    /// For frame `t` of `length`, the places of the kernel that lie within the utterance: (place in the kernel,
    /// frame).
    fn under(&self, t: usize, length: usize) -> impl Iterator<Item = (usize, usize)> {
        let half = self.kernel / 2;
        let first = half.saturating_sub(t);
        (first..self.kernel.min(length + half - t)).map(move |j| (j, t + j - half))
    }

    /// Each frame beside its neighbours, `(sum T, kernel * in)`; the frames themselves for a kernel of 1.
    fn columns<T: Real>(&self, x: &[T]) -> Option<Scratch<T>> {
        if self.kernel == 1 {
            return None;
        }
        let (width, depth) = (self.input, self.depth());
        let mut columns = Scratch::zeros(self.rows() * depth);
        let shared = Shared::new(&mut columns);
        parallel::each(self.layout.batch_size(), |b| {
            let (first, length) = self.layout.span(b);
            // SAFETY: each utterance's rows are its own.
            let rows = unsafe { shared.part(first * depth, length * depth) };
            for (t, row) in rows.chunks_exact_mut(depth).enumerate() {
                for (j, s) in self.under(t, length) {
                    row[j * width..][..width].copy_from_slice(&x[(first + s) * width..][..width]);
                }
            }
        });
        Some(columns)
    }

    /// The weight as `(out, kernel * in)`.
    fn flat<T: Real>(&self, weight: &[T]) -> Scratch<T> {
        let mut flat = Scratch::new(weight.len());
        self.reorder(|here, there| flat[there] = weight[here]);
        flat
    }

    /// Calls `visit` with the places of each element in `(out, in, kernel)` and in `(out, kernel * in)`.
    fn reorder(&self, mut visit: impl FnMut(usize, usize)) {
        for (o, i, j) in (0..self.output)
            .flat_map(|o| (0..self.input).flat_map(move |i| (0..self.kernel).map(move |j| (o, i, j))))
        {
            visit((o * self.input + i) * self.kernel + j, (o * self.kernel + j) * self.input + i);
        }
    }
}

impl Op for Conv1d {
    const NAME: &'static CStr = c"Conv1d";

    fn shapes(&self) -> Shapes {
        Shapes { results: vec![vec![self.layout.rows() as i64, self.output as i64]], saved: vec![] }
    }

    fn forward<T: Real>(&self, x: &[&[T]], y: &mut [&mut [T]], _saved: &mut [&mut [T]]) {
        let (columns, weight) = (self.columns(x[0]), self.flat(x[1]));
        let columns = Matrix::new(columns.as_deref().unwrap_or(x[0]), self.rows(), self.depth());
        let weight = Matrix::new(&weight, self.output, self.depth());
        parallel_multiply(columns, weight.t(), y[0], Start::Row(x[2]));
    }

    fn backward<T: Real>(&self, io: &Io<T>, dy: &[Option<&[T]>], dx: &mut [Option<&mut [T]>]) {
        let Some(dy) = dy[0] else { return };
        let dy = Matrix::new(dy, self.rows(), self.output);
        let [dx, dweight, dbias] = dx else { unreachable!("x, weight, bias") };
        if let Some(dx) = dx {
            let flat = self.flat(io.x[1]);
            let weight = Matrix::new(&flat, self.output, self.depth());
            if self.kernel == 1 {
                parallel_multiply(dy, weight, dx, Start::Itself);
            } else {
                let (width, depth) = (self.input, self.depth());
                let mut dcolumns = Scratch::new(self.rows() * depth);
                parallel_multiply(dy, weight, &mut dcolumns, Start::Zero);
                let (dx, dcolumns) = (Shared::new(dx), &dcolumns[..]);
                parallel::each(self.layout.batch_size(), |b| {
                    let (first, length) = self.layout.span(b);
                    // SAFETY: each utterance's rows are its own.
                    let dx = unsafe { dx.part(first * width, length * width) };
                    for t in 0..length {
                        for (j, s) in self.under(t, length) {
                            let from = &dcolumns[(first + t) * depth + j * width..][..width];
                            for (dx, &d) in dx[s * width..][..width].iter_mut().zip(from) {
                                *dx += d;
                            }
                        }
                    }
                });
            }
        }
        if let Some(dweight) = dweight {
            let columns = self.columns(io.x[0]);
            let columns = Matrix::new(columns.as_deref().unwrap_or(io.x[0]), self.rows(), self.depth());
            let mut flat = Scratch::new(dweight.len());
            parallel_multiply(dy.t(), columns, &mut flat, Start::Zero);
            self.reorder(|here, there| dweight[here] += flat[there]);
        }
        if let Some(dbias) = dbias {
            column_sums(&dy, dbias);
        }
    }
}
