//! Convolution over time, equation (4).

use tch::Tensor;

use super::Linear;
use crate::ragged::Ragged;

/// Conv1d of odd kernel and "same" length with bias; beyond both true ends of an utterance lie zeros.
///
/// # Shapes
/// `x` `(sum T, in)`, `weights.weight` `(out, in, kernel)` to `(sum T, out)`.
pub fn conv1d(x: &Ragged, weights: &Linear) -> Tensor {
    let [out, _, kernel] = weights.weight.size()[..] else { unreachable!("convolutions have three axes") };
    // One product over all frames: weight as (out, kernel * in), each frame beside its neighbours.
    let weight = weights.weight.transpose(1, 2).reshape([out, -1]);
    if kernel == 1 {
        return x.frames.linear(&weight, Some(&weights.bias));
    }
    let [total, width] = x.frames.size()[..] else { unreachable!("packed frames have two axes") };
    let with_zero = Tensor::cat(&[&x.frames, &Tensor::zeros([1, width], (x.kind(), x.frames.device()))], 0);
    let neighbours = Tensor::from_slice(&neighbours(&x.layout.lengths, kernel)).to_device(x.frames.device());
    with_zero.index_select(0, &neighbours).view([total, kernel * width]).linear(&weight, Some(&weights.bias))
}

/// For each packed frame the rows under the kernel; the row past the last stands for zeros.
fn neighbours(lengths: &[i64], kernel: i64) -> Vec<i64> {
    let zero = lengths.iter().sum();
    let half = kernel / 2;
    let mut rows = Vec::new();
    let mut first = 0;
    for &length in lengths {
        for t in 0..length {
            rows.extend(
                (t - half..=t + half).map(|s| if (0..length).contains(&s) { first + s } else { zero }),
            );
        }
        first += length;
    }
    rows
}
