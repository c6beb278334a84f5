//! The difference loss between two streams' control vectors, equation (26).

use tch::Tensor;

/// ||P^T Q||_F^2, a scalar.
///
/// With `normalize`: columns centred over the batch, rows divided by their detached L2 norm (+ 1e-6), and the
/// mean over the d * d entries instead of the sum.
///
/// # Shapes
/// `p` and `q` `(B, d)`.
pub fn orthogonality(p: &Tensor, q: &Tensor, normalize: bool) -> Tensor {
    if !normalize {
        return p.tr().matmul(q).square().sum(p.kind());
    }
    let rows = |x: &Tensor| {
        let x = x - x.mean_dim([0i64].as_slice(), true, None);
        let norm = x.detach().square().sum_dim_intlist([1i64].as_slice(), true, None).sqrt();
        x / (norm + 1e-6)
    };
    rows(p).tr().matmul(&rows(q)).square().mean(p.kind())
}
