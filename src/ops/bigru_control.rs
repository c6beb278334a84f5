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
    let (layout, d) = (&x.layout, forward.hidden());
    let directions = [(forward, &layout.time_major), (backward, &layout.time_major_reversed)];
    let both = |of: &dyn Fn(&Recurrent) -> Tensor| Tensor::stack(&directions.map(|(w, _)| of(w)), 0);
    let weight_hh = both(&|w| w.weight_hh.tr()); // (2, d, 3d)
    let bias_hh = both(&|w| w.bias_hh.unsqueeze(0)); // (2, 1, 3d)
    // All frames' input products at once, each direction in the order of its scan: (2, sum T, 3d).
    let input =
        directions.map(|(w, order)| x.frames.linear(&w.weight_ih, Some(&w.bias_ih)).index_select(0, order));

    let mut h = Tensor::zeros([2, layout.lengths.len() as i64, d], (x.kind(), x.frames.device()));
    let sequence: Vec<Tensor> = Tensor::stack(&input, 0)
        .split_with_sizes(&layout.running[..], 1)
        .into_iter()
        .zip(&layout.running)
        .map(|(input, &running)| {
            let before = h.narrow(1, 0, running);
            let own = bias_hh.baddbmm(&before, &weight_hh, 1, 1).split_with_sizes([2 * d, d], 2);
            let input = input.split_with_sizes([2 * d, d], 2);
            let gates = (&input[0] + &own[0]).sigmoid().chunk(2, 2); // r, z
            let n = (&input[1] + &gates[0] * &own[1]).tanh();
            h = &n + &gates[1] * (before - &n);
            h.shallow_clone()
        })
        .collect();
    // The order of time is no matter to a mean, so both directions go back to packed rows alike.
    let halves = Tensor::cat(&sequence, 1).mean_dim([0i64].as_slice(), false, None);
    x.with(halves.index_select(0, &layout.from_time_major)).mean()
}
