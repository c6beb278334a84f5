//! One optimiser step over flat storage, in one pass, with `PyTorch`'s arithmetic:
//!
//! ```text
//! g  = scale g + decay w  (Adam), scale g  (AdamW, which first shrinks w by 1 - rate decay)
//! m <- m + (1 - beta1) (g - m),  v <- v + (1 - beta2) (g^2 - v)
//! w <- w - rate / (1 - beta1^t) m / (sqrt(v / (1 - beta2^t)) + eps)
//! ```

pub mod cuda;

use tch::kind::Element;
use tch::{Kind, Tensor};

use super::autograd::{apart, slice_mut};
use super::parallel;
use super::profile::Record;
use crate::device::{Current, Pointer, takes};
use crate::numeric::{Real, kernel};

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.999;
const EPS: f64 = 1e-8;
/// Elements of a piece of work: four arrays of it stay in the cache.
const PIECE: usize = 1 << 14;

/// How weight decay is applied.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Decay {
    /// Added to the gradient (Adam).
    Coupled,
    /// Shrinks the weights (`AdamW`).
    Decoupled,
}

/// What happens to the gradient after the step.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum After {
    Keep,
    /// Set to zero for the next window.
    Clear,
}

/// A run of flat storage: weights, their gradients and both moments, `(n,)` each, contiguous.
pub struct Slice {
    pub weights: Tensor,
    pub grad: Tensor,
    pub first: Tensor,
    pub second: Tensor,
    /// Receives the new weights rounded to bfloat16, if any.
    pub copy: Option<Tensor>,
}

/// Settings of a step.
#[derive(Clone, Copy)]
pub struct Settings {
    /// Number of the step, from 1.
    pub t: i32,
    /// On a device: the address of that number; null for `t`.
    pub t_at: Pointer,
    /// On a device: the address of a number; nothing is done unless that is zero. Null for always.
    pub unless: Pointer,
    pub rate: f64,
    pub decay: f64,
    /// On a device: the address of rate and decay, two float64; null for `rate` and `decay`.
    pub rates_at: Pointer,
    pub how: Decay,
    /// The factor by which gradients are multiplied first.
    pub scale: f64,
    pub after: After,
}

impl Slice {
    /// The tensors that a step changes.
    pub fn changed(&self) -> [&Tensor; 4] {
        [&self.weights, &self.grad, &self.first, &self.second]
    }
}

/// Overwrites weights and moments of each slice with those after a step.
///
/// # Panics
/// Where tensors that it changes share memory.
pub fn adam(mut slices: Vec<(Slice, Settings)>) {
    let Some((Slice { weights, .. }, _)) = slices.first() else { return };
    assert!(
        apart(slices.iter().flat_map(|(slice, _)| slice.changed())),
        "weights, gradients and moments share no memory"
    );
    let _record = Record::forward(c"Adam");
    match weights.kind() {
        _ if takes(weights) => {
            let _current = Current::of(weights.device());
            Slice::step_on_device(&slices);
        }
        Kind::Float => run::<f32>(&mut slices),
        Kind::Double => run::<f64>(&mut slices),
        other => panic!("Adam computes in float32 or float64, not {other:?}"),
    }
}

/// A part of the four arrays.
struct Piece<'a, T> {
    weights: &'a mut [T],
    grad: &'a mut [T],
    first: &'a mut [T],
    second: &'a mut [T],
}

fn run<T: Real + Element>(slices: &mut [(Slice, Settings)]) {
    let mut pieces = Vec::new();
    for (Slice { weights, grad, first, second, .. }, settings) in &mut *slices {
        // SAFETY: no two of all these tensors share memory, as `adam` has seen, and no other thread uses them during
        // the call, as for any operation of libtorch's that works in place.
        let [weights, grad, first, second] =
            [weights, grad, first, second].map(|tensor| unsafe { slice_mut::<T>(tensor) }.chunks_mut(PIECE));
        for (((weights, grad), first), second) in weights.zip(grad).zip(first).zip(second) {
            pieces.push((Piece { weights, grad, first, second }, *settings));
        }
    }
    parallel::install(pieces.len() * PIECE, || {
        parallel::each_of(&mut pieces, |(piece, settings)| step(piece, *settings));
    });
    for (Slice { weights, copy, .. }, _) in slices {
        if let Some(copy) = copy {
            copy.copy_(weights);
        }
    }
}

kernel! {
    fn step<'a, 'b, T>(_simd; piece: &'a mut Piece<'b, T>, settings: Settings) {
        let Settings { t, rate, decay, how, scale, after, .. } = settings;
        let (near1, near2) = (T::of(1.0 - BETA1), T::of(1.0 - BETA2));
        let root = T::of(1.0 / (1.0 - BETA2.powi(t)).sqrt());
        let (rate1, eps) = (T::of(rate / (1.0 - BETA1.powi(t))), T::of(EPS));
        let shrink = T::of(if how == Decay::Decoupled { 1.0 - rate * decay } else { 1.0 });
        let (coupled, scale) = (T::of(if how == Decay::Coupled { decay } else { 0.0 }), T::of(scale));
        let n = piece.weights.len();
        let (w, g) = (&mut piece.weights[..n], &mut piece.grad[..n]);
        let (m, v) = (&mut piece.first[..n], &mut piece.second[..n]);
        for j in 0..n {
            let grad = g[j] * scale + w[j] * coupled;
            m[j] += near1 * (grad - m[j]);
            v[j] += near2 * (grad * grad - v[j]);
            w[j] = w[j] * shrink - m[j] / (v[j].sqrt() * root + eps) * rate1;
        }
        if after == After::Clear {
            g.fill(T::ZERO);
        }
    }
}
