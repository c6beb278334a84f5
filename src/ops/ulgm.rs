//! The arithmetic of unimodal label generation, equations (29) to (34); the state is in `crate::ulgm`.

use tch::Tensor;

const EPS: f64 = 1e-8;

/// Mean features of the positive and of the negative class, `(dim,)` each.
pub struct Centres {
    pub positive: Tensor,
    pub negative: Tensor,
}

/// alpha = (D^n - D^p) / (D^p + eps), D the distance to a centre over sqrt(dim).
///
/// # Shapes
/// `features` `(R, dim)` to `(R,)`.
pub fn polarity(features: &Tensor, centres: &Centres) -> Tensor {
    let scale = (features.size()[1] as f64).sqrt();
    let distance = |centre: &Tensor| {
        (features - centre).square().sum_dim_intlist([1i64].as_slice(), false, None).sqrt() / scale
    };
    let (to_positive, to_negative) = (distance(&centres.positive), distance(&centres.negative));
    (to_negative - &to_positive) / (to_positive + EPS)
}

/// The pseudo-labels after epoch `n` (at least 2): momentum between the old ones and
/// y_m alpha_s / (2 (alpha_m + eps)) + (y_m + alpha_s - alpha_m) / 2, clamped to [-bound, bound].
///
/// # Shapes
/// All `(R,)`.
pub fn relabel(old: &Tensor, y_m: &Tensor, alpha_s: &Tensor, alpha_m: &Tensor, n: i64, bound: f64) -> Tensor {
    let new: Tensor = y_m * alpha_s / (2.0 * (alpha_m + EPS)) + (y_m + alpha_s - alpha_m) / 2.0;
    let n = n as f64;
    old * ((n - 1.0) / (n + 1.0)) + new.clamp(-bound, bound) * (2.0 / (n + 1.0))
}
