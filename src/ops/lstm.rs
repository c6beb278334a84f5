//! Uni-directional LSTM over packed frames, equations (1) and (2).

use tch::Tensor;

use super::Recurrent;
use crate::ragged::Ragged;

/// The hidden sequence of a 1-layer LSTM, gates i, f, g, o, started from zero at each utterance's
/// first true frame.
///
/// # Shapes
/// `x` `(sum T, in)` to `(sum T, hidden)`.
pub fn lstm(x: &Ragged, weights: &Recurrent) -> Tensor {
    let layout = &x.layout;
    let zero = Tensor::zeros(
        [1, layout.lengths.len().try_into().unwrap_or(i64::MAX), weights.hidden()],
        (x.kind(), x.frames.device()),
    );
    let (sequence, _, _) = Tensor::lstm_data(
        &x.frames.index_select(0, &layout.time_major),
        &layout.running,
        &[&zero, &zero],
        &weights.tensors(),
        true,
        1,
        0.0,
        false,
        false,
    );
    sequence.index_select(0, &layout.from_time_major)
}
