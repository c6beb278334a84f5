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
    let batch = layout.lengths.len() as i64;
    let mut h = Tensor::zeros([batch, weights.hidden()], (x.kind(), x.frames.device()));
    let mut c = h.shallow_clone();
    let weight_hh = weights.weight_hh.tr();
    // All frames' input products at once; each time reads those of the utterances still running.
    let input = x.frames.linear(&weights.weight_ih, Some(&weights.bias_ih)) + &weights.bias_hh;
    let sequence: Vec<Tensor> = input
        .index_select(0, &layout.time_major)
        .split_with_sizes(&layout.running[..], 0)
        .into_iter()
        .zip(&layout.running)
        .map(|(input, &running)| {
            let gates = input.addmm(&h.narrow(0, 0, running), &weight_hh).chunk(4, 1);
            let [i, f, g, o] = &gates[..] else { unreachable!("an LSTM has four gates") };
            c = f.sigmoid() * c.narrow(0, 0, running) + i.sigmoid() * g.tanh();
            h = o.sigmoid() * c.tanh();
            h.shallow_clone()
        })
        .collect();
    Tensor::cat(&sequence, 0).index_select(0, &layout.from_time_major)
}
