//! The gated residual and its normalisation, equations (11) and (22).

use tch::Tensor;

use super::LayerNorm;
use crate::ragged::Ragged;

/// One utterance's gates, `(B, d)` each, the same at every frame.
pub struct Gates<'a> {
    pub compound: &'a Tensor,
    pub retain: &'a Tensor,
}

/// LN(g_c * R + g_r * X); without gates, where every gate is 1, LN(R + X).
///
/// # Shapes
/// `r` and `x` `(sum T, d)` to `(sum T, d)`.
pub fn gated_norm(r: &Tensor, x: &Ragged, gates: Option<&Gates>, norm: &LayerNorm) -> Tensor {
    let sum = match gates {
        Some(gates) => x.spread(gates.compound) * r + x.spread(gates.retain) * &x.frames,
        None => r + &x.frames,
    };
    norm.forward(&sum)
}
