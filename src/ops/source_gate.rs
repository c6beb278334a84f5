//! The gate on what text reads of audio or vision, equations (17) and (18).

use tch::Tensor;

use super::Linear;

/// What [`source_gate`] returns.
pub struct Gated {
    /// g_s, `(sum T, d)`, each entry in (0, 1).
    pub gate: Tensor,
    /// S = g_s * A, `(sum T, d)`.
    pub source: Tensor,
}

/// g_s = sigmoid(W_s A + b_s) per frame and channel, and g_s * A.
pub fn source_gate(a: &Tensor, weights: &Linear) -> Gated {
    let gate = weights.forward(a).sigmoid();
    let source = &gate * a;
    Gated { gate, source }
}
