//! One optimiser step over flat storage, with `PyTorch`'s arithmetic.

use tch::Tensor;

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.999;
const EPS: f64 = 1e-8;

/// How the decay enters.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Decay {
    /// Added to the gradient (Adam).
    Coupled,
    /// Shrinks the weights (`AdamW`).
    Decoupled,
}

/// A run of flat storage: weights, their gradients and both moments, `(n,)` each.
pub struct Slice {
    pub weights: Tensor,
    pub grad: Tensor,
    pub first: Tensor,
    pub second: Tensor,
}

/// Overwrites weights and moments with those after step `t` (from 1).
pub fn adam(slice: &mut Slice, t: i32, rate: f64, decay: f64, how: Decay) {
    let grad = match how {
        Decay::Coupled if decay > 0.0 => &slice.grad + &slice.weights * decay,
        _ => slice.grad.shallow_clone(),
    };
    if how == Decay::Decoupled {
        let _ = slice.weights.g_mul_scalar_(1.0 - rate * decay);
    }
    let _ = slice.first.lerp_(&grad, 1.0 - BETA1);
    let _ = slice.second.lerp_(&grad.square(), 1.0 - BETA2);
    let denominator = slice.second.sqrt() / (1.0 - BETA2.powi(t)).sqrt() + EPS;
    let _ = slice.weights.g_sub_(&(&slice.first / denominator * (rate / (1.0 - BETA1.powi(t)))));
}
