//! task + alpha * sim + beta * diff, equation (36).

pub mod cuda;

use std::ffi::CStr;

use tch::Tensor;

use super::autograd::{Call, Io, Op, Shapes, apply};
use crate::numeric::Real;

/// The parts of the loss, scalars, and what they count.
pub struct Parts<'a> {
    pub task: &'a Tensor,
    pub sim: Option<&'a Tensor>,
    /// To be added up.
    pub diff: &'a [Tensor],
    pub alpha: f64,
    pub beta: f64,
}

struct TotalLoss {
    /// What each input counts in the total, and which of task, sim and diff it belongs to.
    inputs: Vec<(f64, usize)>,
}

/// The total, a scalar, and beside it off the graph task, sim, diff and total, `(4,)`. A part that counts
/// nothing gets no gradient.
pub fn total_loss(parts: &Parts) -> (Tensor, Tensor) {
    let sim = parts.sim.map(|sim| (sim, parts.alpha, 1));
    let diff = parts.diff.iter().map(|diff| (diff, parts.beta, 2));
    let all: Vec<_> = std::iter::once((parts.task, 1.0, 0)).chain(sim).chain(diff).collect();
    let tensors: Vec<Tensor> = all
        .iter()
        .map(|(part, weight, _)| if *weight > 0.0 { part.shallow_clone() } else { part.detach() })
        .collect();
    let op = TotalLoss { inputs: all.iter().map(|(_, weight, part)| (*weight, *part)).collect() };
    let call = Call { op, inputs: tensors.iter().map(Into::into).collect() };
    let [total, values] = <[Tensor; 2]>::try_from(apply(vec![call]).remove(0)).expect("two results");
    (total, values.detach())
}

impl Op for TotalLoss {
    const NAME: &'static CStr = c"TotalLoss";

    fn shapes(&self) -> Shapes {
        Shapes { results: vec![vec![], vec![4]], saved: vec![] }
    }

    fn forward<T: Real>(&self, x: &[&[T]], y: &mut [&mut [T]], _saved: &mut [&mut [T]]) {
        let mut values = [T::ZERO; 4];
        for (x, &(weight, part)) in x.iter().zip(&self.inputs) {
            values[part] += x[0];
            if weight > 0.0 {
                values[3] += x[0] * T::of(weight);
            }
        }
        y[0][0] = values[3];
        y[1].copy_from_slice(&values);
    }

    fn backward<T: Real>(&self, _io: &Io<T>, dy: &[Option<&[T]>], dx: &mut [Option<&mut [T]>]) {
        let Some(dy) = dy[0] else { return };
        for (dx, (weight, _)) in dx.iter_mut().zip(&self.inputs) {
            if let Some(dx) = dx {
                dx[0] += dy[0] * T::of(*weight);
            }
        }
    }
}
