//! The task loss, equation (35).

pub mod cuda;

use std::ffi::CStr;

use tch::Tensor;

use super::autograd::{Call, Input, Io, Op, Shapes, apply};
use crate::numeric::Real;

/// One modality's scores and its current pseudo-labels, `(B,)` each.
pub struct Unimodal<'a> {
    pub score: &'a Tensor,
    pub pseudo_label: &'a Tensor,
}

struct TaskLoss {
    batch: usize,
    /// The multimodal one and the others.
    scores: usize,
}

/// mean_i [ (yhat_m - y_m)^2 + sum_n tanh|y_n - y_m| * |yhat_n - y_n| ], a scalar. Labels are constants.
///
/// # Shapes
/// `score` and `label` `(B,)`.
pub fn task_loss(score: &Tensor, label: &Tensor, unimodal: &[Unimodal]) -> Tensor {
    let constants = [label.detach()];
    let pseudo: Vec<Tensor> = unimodal.iter().map(|u| u.pseudo_label.detach()).collect();
    let mut inputs: Vec<Input> = vec![score.into(), (&constants[0]).into()];
    for (unimodal, pseudo) in unimodal.iter().zip(&pseudo) {
        inputs.extend([Input::from(unimodal.score), pseudo.into()]);
    }
    let op = TaskLoss { batch: score.numel(), scores: 1 + unimodal.len() };
    apply(vec![Call { op, inputs }]).remove(0).remove(0)
}

/// tanh|y_n - y_m|: what a modality's error counts.
fn weight<T: Real>(y_n: T, y_m: T) -> T {
    T::of((y_n - y_m).to_f64().abs().tanh())
}

impl Op for TaskLoss {
    const NAME: &'static CStr = c"TaskLoss";

    fn shapes(&self) -> Shapes {
        Shapes { results: vec![vec![]], saved: vec![] }
    }

    fn forward<T: Real>(&self, x: &[&[T]], y: &mut [&mut [T]], _saved: &mut [&mut [T]]) {
        let (score, label) = (x[0], x[1]);
        let mut sum = T::ZERO;
        for i in 0..self.batch {
            sum += (score[i] - label[i]) * (score[i] - label[i]);
            for pair in x[2..].chunks_exact(2) {
                sum += weight(pair[1][i], label[i]) * (pair[0][i] - pair[1][i]).abs();
            }
        }
        y[0][0] = sum / T::of(self.batch as f64);
    }

    fn backward<T: Real>(&self, io: &Io<T>, dy: &[Option<&[T]>], dx: &mut [Option<&mut [T]>]) {
        let Some(dy) = dy[0] else { return };
        let share = dy[0] / T::of(self.batch as f64);
        let label = io.x[1];
        for (at, dx) in dx.iter_mut().enumerate().step_by(2) {
            let Some(dx) = dx else { continue };
            let (score, target) = (io.x[at], io.x[at + 1]);
            for i in 0..self.batch {
                let off = score[i] - target[i];
                dx[i] += share
                    * if at == 0 {
                        T::of(2.0) * off
                    } else if off > T::ZERO {
                        weight(target[i], label[i])
                    } else if off < T::ZERO {
                        -weight(target[i], label[i])
                    } else {
                        T::ZERO
                    };
            }
        }
    }
}
