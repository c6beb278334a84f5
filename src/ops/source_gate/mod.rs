//! The gate on the frames of audio or vision that text attends to, equations (17) and (18).

pub mod cuda;

use std::ffi::CStr;
use std::sync::Arc;

use tch::Tensor;

use super::autograd::{Call, Io, Op, Shapes, apply};
use super::linear::{Activation, activate};
use super::parallel;
use super::pieces::chunked;
use super::weights::{Linear, shape2};
use crate::numeric::gemm::{column_sums, multiply_then, parallel_multiply};
use crate::numeric::{Matrix, Real, Scratch, Shared, Start};
use crate::ragged::{Layout, Ragged};

/// What [`source_gate`] returns.
pub struct Gated {
    /// S = g_s * A, `(sum T, d)`.
    pub source: Tensor,
    /// g_s, `(sum T, d)`, each entry in (0, 1).
    pub gate: Tensor,
}

struct SourceGate {
    layout: Arc<Layout>,
    width: usize,
}

/// g_s = sigmoid(W_s A + b_s) per frame and channel, (17), and S = g_s * A, (18), for several calls at once.
///
/// # Shapes
/// `a` `(sum T, d)`.
pub fn source_gate(calls: &[(&Ragged, &Linear)]) -> Vec<Gated> {
    let calls = calls
        .iter()
        .map(|(a, weights)| Call {
            op: SourceGate { layout: Arc::clone(&a.layout), width: shape2(&a.frames)[1] },
            inputs: vec![(&a.frames).into(), (&weights.weight).into(), (&weights.bias).into()],
        })
        .collect();
    apply(calls)
        .into_iter()
        .map(|results| {
            let [source, gate] = <[Tensor; 2]>::try_from(results).expect("two results");
            Gated { source, gate }
        })
        .collect()
}

impl SourceGate {
    fn rows(&self) -> usize {
        self.layout.rows()
    }
}

impl Op for SourceGate {
    const NAME: &'static CStr = c"SourceGate";

    fn shapes(&self) -> Shapes {
        Shapes { results: vec![vec![self.rows() as i64, self.width as i64]; 2], saved: vec![] }
    }

    fn forward<T: Real>(&self, x: &[&[T]], y: &mut [&mut [T]], _saved: &mut [&mut [T]]) {
        let width = self.width;
        let [source, gate] = y else { unreachable!("two results") };
        let (a, weight, source) = (x[0], Matrix::new(x[1], width, width), Shared::new(source));
        let product = (Matrix::new(a, self.rows(), width), weight.t());
        multiply_then(product, gate, Start::Row(x[2]), |first, gate| {
            activate(gate, &mut [], Activation::Sigmoid);
            // SAFETY: the places of this piece.
            let source = unsafe { source.part(first, gate.len()) };
            for ((source, &gate), &a) in source.iter_mut().zip(&*gate).zip(&a[first..]) {
                *source = gate * a;
            }
        });
    }

    fn backward<T: Real>(&self, io: &Io<T>, dy: &[Option<&[T]>], dx: &mut [Option<&mut [T]>]) {
        let (a, gate, n) = (io.x[0], io.y[1], self.rows() * self.width);
        let zeros = Scratch::zeros(if dy.iter().all(Option::is_some) { 0 } else { n });
        let (dsource, dgate) = (dy[0].unwrap_or(&zeros), dy[1].unwrap_or(&zeros));
        let mut before = Scratch::new(n);
        chunked(&mut before, |at, before| {
            let (a, gate) = (&a[at.clone()], &gate[at.clone()]);
            let (dsource, dgate) = (&dsource[at.clone()], &dgate[at]);
            for (j, before) in before.iter_mut().enumerate() {
                *before = (dsource[j] * a[j] + dgate[j]) * gate[j] * (T::ONE - gate[j]);
            }
        });
        let before = Matrix::new(&before, self.rows(), self.width);
        let [dx, dweight, dbias] = dx else { unreachable!("a, weight, bias") };
        parallel::both(
            || {
                let Some(dx) = dx else { return };
                chunked(dx, |at, dx| {
                    let (dsource, gate) = (&dsource[at.clone()], &gate[at]);
                    for (j, dx) in dx.iter_mut().enumerate() {
                        *dx += dsource[j] * gate[j];
                    }
                });
                parallel_multiply(before, Matrix::new(io.x[1], self.width, self.width), dx, Start::Itself);
            },
            || {
                if let Some(dweight) = dweight {
                    let a = Matrix::new(a, self.rows(), self.width);
                    parallel_multiply(before.t(), a, dweight, Start::Itself);
                }
                if let Some(dbias) = dbias {
                    column_sums(&before, dbias);
                }
            },
        );
    }
}
