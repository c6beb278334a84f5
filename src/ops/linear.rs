//! x W^T + b and the function that follows it, in one pass.

use std::ffi::CStr;
use std::ops::Range;

use tch::Tensor;

use super::autograd::{Call, Io, Op, Shapes, apply};
use super::gemm::{column_sums, multiply_then, parallel_multiply};
use super::{Linear, parallel};
use crate::numeric::{Matrix, Real, Scratch, Shared, kernel};

/// What follows the affine map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    None,
    Relu,
    Sigmoid,
    /// x Phi(x), with the normal distribution's Phi by erf.
    Gelu,
    /// The same with Phi's approximation by tanh.
    GeluTanh,
}

struct LinearOp {
    rows: usize,
    input: usize,
    output: usize,
    activation: Activation,
}

/// act(x W^T + b).
///
/// # Shapes
/// `x` `(rows, in)` to `(rows, out)`.
pub fn linear(x: &Tensor, weights: &Linear, activation: Activation) -> Tensor {
    let [y] = <[Tensor; 1]>::try_from(linears(&[(x, weights, activation)])).expect("one result a call");
    y
}

/// Several at once.
pub fn linears(calls: &[(&Tensor, &Linear, Activation)]) -> Vec<Tensor> {
    let calls = calls
        .iter()
        .map(|(x, weights, activation)| {
            let [output, input] = super::shape2(&weights.weight.value);
            Call {
                op: LinearOp { rows: super::shape2(x)[0], input, output, activation: *activation },
                inputs: vec![(*x).into(), (&weights.weight).into(), (&weights.bias).into()],
            }
        })
        .collect();
    apply(calls).into_iter().flatten().collect()
}

impl Op for LinearOp {
    const NAME: &'static CStr = c"Linear";

    fn shapes(&self) -> Shapes {
        // GELU's gradient needs what went into it, the others' what came out.
        let gelu = matches!(self.activation, Activation::Gelu | Activation::GeluTanh);
        Shapes {
            results: vec![vec![self.rows as i64, self.output as i64]],
            saved: vec![if gelu { self.rows * self.output } else { 0 }],
        }
    }

    fn forward<T: Real>(&self, x: &[&[T]], y: &mut [&mut [T]], saved: &mut [&mut [T]]) {
        let (a, w, bias) = (self.x(x[0]), self.weight(x[1]), x[2]);
        let saved = Shared::new(saved[0]);
        multiply_then((a, w.t()), y[0], self.output, false, |rows, columns, y| {
            for r in rows {
                let at = r * self.output + columns.start;
                // SAFETY: this piece's elements of row r, which no other piece writes.
                let (y, saved) = unsafe {
                    let count = columns.len();
                    (y.part(at, count), if saved.is_empty() { &mut [] } else { saved.part(at, count) })
                };
                activate(y, &bias[columns.clone()], saved, self.activation);
            }
        });
    }

    fn backward<T: Real>(&self, io: &Io<T>, dy: &[Option<&[T]>], dx: &mut [Option<&mut [T]>]) {
        let Some(dy) = dy[0] else { return };
        let mut before = Scratch::new(if self.activation == Activation::None { 0 } else { dy.len() });
        let before: &[T] = if self.activation == Activation::None {
            dy
        } else {
            super::chunked(&mut before, |at: Range<usize>, before| {
                let inner = if io.saved[0].is_empty() { &[] } else { &io.saved[0][at.clone()] };
                activate_backward(&dy[at.clone()], &io.y[0][at], inner, before, self.activation);
            });
            &before
        };
        let (before, x, weight) =
            (Matrix::new(before, self.rows, self.output), self.x(io.x[0]), self.weight(io.x[1]));
        let [dx, dweight, dbias] = dx else { unreachable!("x, weight, bias") };
        parallel::both(
            || {
                if let Some(dx) = dx {
                    parallel_multiply(before, weight, dx, self.input, true);
                }
            },
            || {
                if let Some(dweight) = dweight {
                    parallel_multiply(before.t(), x, dweight, self.input, true);
                }
                if let Some(dbias) = dbias {
                    column_sums(&before, dbias);
                }
            },
        );
    }
}

impl LinearOp {
    fn x<'a, T>(&self, x: &'a [T]) -> Matrix<'a, T> {
        Matrix::new(x, self.rows, self.input)
    }

    fn weight<'a, T>(&self, weight: &'a [T]) -> Matrix<'a, T> {
        Matrix::new(weight, self.output, self.input)
    }
}

/// sqrt(2 / pi) and the cubic's coefficient of GELU's approximation.
const TANH: (f64, f64) = (0.797_884_560_802_865_4, 0.044_715);

kernel! {
    /// y <- act(y + bias); `inner`, where there is one, keeps y + bias.
    pub fn activate<'a, T>(_simd; y: &'a mut [T], bias: &'a [T], inner: &'a mut [T], activation: Activation) {
        for (y, &b) in y.iter_mut().zip(bias) {
            *y += b;
        }
        inner.copy_from_slice(&y[..inner.len()]);
        match activation {
            Activation::None => {}
            Activation::Relu => y.iter_mut().for_each(|y| *y = if *y < T::ZERO { T::ZERO } else { *y }),
            Activation::Sigmoid => y.iter_mut().for_each(|y| *y = y.sigmoid::<S>()),
            Activation::Gelu => {
                let (half, root) = (T::of(0.5), T::of(std::f64::consts::FRAC_1_SQRT_2));
                for y in y.iter_mut() {
                    *y = half * *y * (T::ONE + (*y * root).erf::<S>());
                }
            }
            Activation::GeluTanh => {
                let (half, a, b) = (T::of(0.5), T::of(TANH.0), T::of(TANH.1));
                for y in y.iter_mut() {
                    *y = half * *y * (T::ONE + (a * (*y + b * *y * *y * *y)).tanh::<S>());
                }
            }
        }
    }
}

kernel! {
    /// The gradient before the activation: `y` is what came out of it, `inner` what went into a GELU.
    pub fn activate_backward<'a, T>(
        _simd; dy: &'a [T], y: &'a [T], inner: &'a [T], before: &'a mut [T], activation: Activation,
    ) {
        let n = before.len();
        let (dy, y) = (&dy[..n], &y[..n]);
        match activation {
            Activation::None => before.copy_from_slice(dy),
            Activation::Relu => {
                for j in 0..n {
                    before[j] = if y[j] > T::ZERO { dy[j] } else { T::ZERO };
                }
            }
            Activation::Sigmoid => {
                for j in 0..n {
                    before[j] = dy[j] * y[j] * (T::ONE - y[j]);
                }
            }
            Activation::Gelu => {
                let (half, root) = (T::of(0.5), T::of(std::f64::consts::FRAC_1_SQRT_2));
                let density = T::of((2.0 * std::f64::consts::PI).sqrt().recip());
                let x = &inner[..n];
                for j in 0..n {
                    let below = half * (T::ONE + (x[j] * root).erf::<S>());
                    before[j] = dy[j] * (below + x[j] * density * (-half * x[j] * x[j]).exp::<S>());
                }
            }
            Activation::GeluTanh => {
                let (half, a, b) = (T::of(0.5), T::of(TANH.0), T::of(TANH.1));
                let x = &inner[..n];
                for j in 0..n {
                    let square = x[j] * x[j];
                    let t = (a * (x[j] + b * square * x[j])).tanh::<S>();
                    let slope = a * (T::ONE + T::of(3.0) * b * square);
                    before[j] = dy[j] * half * (T::ONE + t + x[j] * (T::ONE - t * t) * slope);
                }
            }
        }
    }
}
