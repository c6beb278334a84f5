//! Central moment discrepancy, equations (24) and (25); Zellinger et al. 2017.

use tch::Tensor;

use super::safe_norm;

const MOMENTS: i32 = 5;
/// |b - a| of the interval that control vectors lie in, [-1, 1].
const RANGE: f64 = 2.0;

/// CMD of order 5 between two samples of vectors in [-1, 1], a scalar; its gradient at equal inputs is 0.
///
/// # Shapes
/// `p` and `q` `(B, d)`.
pub fn cmd(p: &Tensor, q: &Tensor) -> Tensor {
    let mean = |x: &Tensor| x.mean_dim([0i64].as_slice(), true, None);
    let (mean_p, mean_q) = (mean(p), mean(q));
    let (p, q) = (p - &mean_p, q - &mean_q);
    (2..=MOMENTS).fold(safe_norm(&(mean_p - mean_q)) / RANGE, |sum, k| {
        let moment = |x: &Tensor| mean(&x.pow_tensor_scalar(i64::from(k)));
        sum + safe_norm(&(moment(&p) - moment(&q))) / RANGE.powi(k)
    })
}
