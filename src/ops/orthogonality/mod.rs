//! The difference loss between two streams' control vectors, equation (26).

pub mod cuda;

use std::ffi::CStr;

use tch::Tensor;

use super::autograd::{Call, Io, Op, Shapes, apply};
use super::weights::shape2;
use crate::numeric::{Matrix, Real, Scratch, Start, multiply};

/// Added to a row's length before it is divided by it.
const EPS: f64 = 1e-6;

struct Orthogonality {
    rows: usize,
    width: usize,
    normalize: bool,
}

/// ||P^T Q||_F^2, a scalar.
///
/// With `normalize`: columns centred over the batch, rows divided by their detached L2 norm (+ 1e-6), and the
/// mean over the d * d entries instead of the sum.
///
/// # Shapes
/// `p` and `q` `(B, d)`.
pub fn orthogonality(p: &Tensor, q: &Tensor, normalize: bool) -> Tensor {
    orthogonalities(&[(p, q)], normalize).remove(0)
}

/// Several at once.
pub fn orthogonalities(pairs: &[(&Tensor, &Tensor)], normalize: bool) -> Vec<Tensor> {
    let calls = pairs.iter().map(|(p, q)| {
        let [rows, width] = shape2(p);
        Call { op: Orthogonality { rows, width, normalize }, inputs: vec![(*p).into(), (*q).into()] }
    });
    apply(calls.collect()).into_iter().flatten().collect()
}

impl Orthogonality {
    /// The vectors whose products count, and what each row was multiplied with.
    fn vectors<T: Real>(&self, x: &[T]) -> (Scratch<T>, Scratch<T>) {
        let mut vectors = Scratch::new(x.len());
        vectors.copy_from_slice(x);
        let mut scales = Scratch::new(self.rows);
        scales.fill(T::ONE);
        if self.normalize {
            self.centre(&mut vectors);
            for (row, scale) in vectors.chunks_exact_mut(self.width).zip(scales.iter_mut()) {
                *scale = T::ONE / (row.iter().map(|&x| x * x).sum::<T>().sqrt() + T::of(EPS));
                for x in row.iter_mut() {
                    *x *= *scale;
                }
            }
        }
        (vectors, scales)
    }

    /// Takes away the mean of each column.
    fn centre<T: Real>(&self, x: &mut [T]) {
        let mut mean = Scratch::<T>::zeros(self.width);
        for row in x.chunks_exact(self.width) {
            mean.iter_mut().zip(row).for_each(|(mean, &x)| *mean += x);
        }
        let share = T::of(1.0 / self.rows as f64);
        for row in x.chunks_exact_mut(self.width) {
            row.iter_mut().zip(&*mean).for_each(|(x, &mean)| *x -= mean * share);
        }
    }

    fn matrix<'a, T>(&self, x: &'a [T]) -> Matrix<'a, T> {
        Matrix::new(x, self.rows, self.width)
    }

    /// What the square of each entry of P^T Q counts.
    fn weight<T: Real>(&self) -> T {
        T::of(if self.normalize { 1.0 / (self.width * self.width) as f64 } else { 1.0 })
    }

    /// P^T Q
    fn products<T: Real>(&self, p: &[T], q: &[T]) -> Scratch<T> {
        let mut products = Scratch::new(self.width * self.width);
        multiply(self.matrix(p).t(), self.matrix(q), &mut products, self.width, Start::Zero);
        products
    }
}

impl Op for Orthogonality {
    const NAME: &'static CStr = c"Orthogonality";

    fn shapes(&self) -> Shapes {
        Shapes { results: vec![vec![]], saved: vec![] }
    }

    fn forward<T: Real>(&self, x: &[&[T]], y: &mut [&mut [T]], _saved: &mut [&mut [T]]) {
        let products = self.products(&self.vectors(x[0]).0, &self.vectors(x[1]).0);
        y[0][0] = products.iter().map(|&m| m * m).sum::<T>() * self.weight();
    }

    fn backward<T: Real>(&self, io: &Io<T>, dy: &[Option<&[T]>], dx: &mut [Option<&mut [T]>]) {
        let Some(dy) = dy[0] else { return };
        let sides = [self.vectors(io.x[0]), self.vectors(io.x[1])];
        let mut dproducts = self.products(&sides[0].0, &sides[1].0);
        let slope = T::of(2.0) * self.weight() * dy[0];
        dproducts.iter_mut().for_each(|m| *m *= slope);
        let dproducts = Matrix::new(&dproducts, self.width, self.width);
        for (side, dx) in dx.iter_mut().enumerate() {
            let Some(dx) = dx else { continue };
            let mut dvectors = Scratch::new(dx.len());
            let other = self.matrix(&sides[1 - side].0);
            let factor = if side == 0 { dproducts.t() } else { dproducts };
            multiply(other, factor, &mut dvectors, self.width, Start::Zero);
            if self.normalize {
                for (row, &scale) in dvectors.chunks_exact_mut(self.width).zip(&*sides[side].1) {
                    for d in row.iter_mut() {
                        *d *= scale;
                    }
                }
                self.centre(&mut dvectors);
            }
            dx.iter_mut().zip(&*dvectors).for_each(|(dx, &d)| *dx += d);
        }
    }
}
