//! The control vector of a stream, equations (7) and (16), as in BBFN (Han et al. 2021).

use tch::Tensor;

use super::Recurrent;
use crate::ragged::Ragged;

/// c(X): the mean over time of a bidirectional GRU, the two directions' halves averaged; gates r, z, n;
/// both scans start from zero at the true ends. Each entry lies in (-1, 1).
///
/// # Shapes
/// `x` `(sum T, d)`, two directions of hidden size `d`, to `(B, d)`.
pub fn bigru_control(x: &Ragged, forward: &Recurrent, backward: &Recurrent) -> Tensor {
    let layout = &x.layout;
    let hidden = forward.hidden();
    let zero = Tensor::zeros(
        [2, layout.lengths.len().try_into().unwrap_or(i64::MAX), hidden],
        (x.kind(), x.frames.device()),
    );
    let directions: Vec<&Tensor> = forward.tensors().into_iter().chain(backward.tensors()).collect();
    let (sequence, _) = Tensor::gru_data(
        &x.frames.index_select(0, &layout.time_major),
        &layout.running,
        &zero,
        &directions,
        true,
        1,
        0.0,
        false,
        true,
    );
    let halves = (sequence.narrow(1, 0, hidden) + sequence.narrow(1, hidden, hidden)) / 2.0;
    x.with(halves.index_select(0, &layout.from_time_major)).mean()
}
