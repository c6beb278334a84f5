//! x W^T + b and the activation after it, in one pass.

pub mod cuda;

use std::f64::consts::{FRAC_1_SQRT_2, PI};
use std::ffi::CStr;
use std::ops::Range;

use tch::Tensor;

use super::autograd::{Call, Io, Op, Shapes, apply};
use super::parallel;
use super::pieces::chunked;
use super::weights::{Linear, shape2};
use crate::numeric::gemm::{column_sums, multiply_then, parallel_multiply};
use crate::numeric::{Lanes, Matrix, Real, Scratch, Shared, Start, kernel, windows};

/// The function after the affine map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    None,
    Relu,
    Sigmoid,
    /// x Phi(x), where Phi is the normal distribution function, by erf.
    Gelu,
    /// x Phi(x) with the approximation of Phi by tanh.
    GeluTanh,
}

struct LinearOp {
    rows: usize,
    input: usize,
    output: usize,
    activation: Activation,
    /// The weight in bfloat16, where a wide map on a device is to be computed in it.
    half: Option<Tensor>,
}

// SAFETY: libtorch may read one tensor from any number of threads, and the op only reads its copy of the weight.
unsafe impl Sync for LinearOp {}

/// act(x W^T + b).
///
/// # Shapes
/// `x` `(rows, in)` gives `(rows, out)`.
pub fn linear(x: &Tensor, weights: &Linear, activation: Activation) -> Tensor {
    let [y] = <[Tensor; 1]>::try_from(linears(&[(x, weights, activation)])).expect("one result a call");
    y
}

/// [`linear`] for several calls at once.
pub fn linears(calls: &[(&Tensor, &Linear, Activation)]) -> Vec<Tensor> {
    let calls = calls
        .iter()
        .map(|(x, weights, activation)| {
            let [output, input] = shape2(&weights.weight.value);
            Call {
                op: LinearOp {
                    rows: shape2(x)[0],
                    input,
                    output,
                    activation: *activation,
                    half: weights.weight.half.as_ref().map(Tensor::shallow_clone),
                },
                inputs: vec![(*x).into(), (&weights.weight).into(), (&weights.bias).into()],
            }
        })
        .collect();
    apply(calls).into_iter().flatten().collect()
}

impl Op for LinearOp {
    const NAME: &'static CStr = c"Linear";

    fn shapes(&self) -> Shapes {
        // GELU's gradient is computed from its argument, that of the others from their result.
        let gelu = matches!(self.activation, Activation::Gelu | Activation::GeluTanh);
        Shapes {
            results: vec![vec![self.rows as i64, self.output as i64]],
            saved: vec![if gelu { self.rows * self.output } else { 0 }],
        }
    }

    fn forward<T: Real>(&self, x: &[&[T]], y: &mut [&mut [T]], saved: &mut [&mut [T]]) {
        let (a, w, bias) = (self.x(x[0]), self.weight(x[1]), x[2]);
        let saved = Shared::new(saved[0]);
        multiply_then((a, w.t()), y[0], Start::Row(bias), |first, y| {
            let count = if saved.is_empty() { 0 } else { y.len() };
            // SAFETY: the places of these elements, which no other piece writes.
            let saved = unsafe { saved.part(if count == 0 { 0 } else { first }, count) };
            activate(y, saved, self.activation);
        });
    }

    fn backward<T: Real>(&self, io: &Io<T>, dy: &[Option<&[T]>], dx: &mut [Option<&mut [T]>]) {
        let Some(dy) = dy[0] else { return };
        let mut before = Scratch::new(if self.activation == Activation::None { 0 } else { dy.len() });
        let before: &[T] = if self.activation == Activation::None {
            dy
        } else {
            chunked(&mut before, |at: Range<usize>, before| {
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
                    parallel_multiply(before, weight, dx, Start::Itself);
                }
            },
            || {
                if let Some(dweight) = dweight {
                    parallel_multiply(before.t(), x, dweight, Start::Itself);
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

/// sqrt(2 / pi) and the cubic coefficient in GELU's approximation.
const TANH: (f64, f64) = (0.797_884_560_802_865_4, 0.044_715);

kernel! {
    /// y <- act(y); `inner`, if not empty, receives y before that.
    pub fn activate<'a, T>(simd; y: &'a mut [T], inner: &'a mut [T], activation: Activation) {
        if activation == Activation::None {
            return;
        }
        let one = Lanes::splat(simd, T::ONE);
        for w in windows::<S, T>(simd, y.len()) {
            let x = w.read(y);
            if !inner.is_empty() {
                w.write(inner, x);
            }
            let act = match activation {
                Activation::None => x,
                Activation::Relu => x.max(one.all(T::ZERO)),
                Activation::Sigmoid => x.sigmoid(),
                Activation::Gelu => one.all(T::of(0.5)) * x * (one + (x * one.all(T::of(FRAC_1_SQRT_2))).erf()),
                Activation::GeluTanh => {
                    let (a, b) = (one.all(T::of(TANH.0)), one.all(T::of(TANH.1)));
                    one.all(T::of(0.5)) * x * (one + (a * (x + b * x * x * x)).tanh())
                }
            };
            w.write(y, act);
        }
    }
}

kernel! {
    /// The gradient before the activation: `y` is its result, `inner` the argument of a GELU.
    pub fn activate_backward<'a, T>(
        simd; dy: &'a [T], y: &'a [T], inner: &'a [T], before: &'a mut [T], activation: Activation,
    ) {
        let one = Lanes::splat(simd, T::ONE);
        for w in windows::<S, T>(simd, before.len()) {
            let dy = w.read(dy);
            let dx = match activation {
                Activation::None => dy,
                Activation::Relu => dy.where_positive(w.read(y)),
                Activation::Sigmoid => {
                    let y = w.read(y);
                    dy * y * (one - y)
                }
                Activation::Gelu => {
                    let x = w.read(inner);
                    let density = one.all(T::of((2.0 * PI).sqrt().recip()));
                    let below = one.all(T::of(0.5)) * (one + (x * one.all(T::of(FRAC_1_SQRT_2))).erf());
                    dy * (below + x * density * (-one.all(T::of(0.5)) * x * x).exp())
                }
                Activation::GeluTanh => {
                    let x = w.read(inner);
                    let (a, b) = (one.all(T::of(TANH.0)), one.all(T::of(TANH.1)));
                    let square = x * x;
                    let t = (a * (x + b * square * x)).tanh();
                    let slope = a * (one + one.all(T::of(3.0)) * b * square);
                    dy * one.all(T::of(0.5)) * (one + t + x * (one - t * t) * slope)
                }
            };
            w.write(before, dx);
        }
    }
}
