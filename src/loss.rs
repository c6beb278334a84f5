//! task + alpha * sim + beta * diff, equations (24) to (26), (35) and (36).

use tch::Tensor;

use crate::config::ModelConfig;
use crate::model::{BranchOutput, Forward, Modality};
use crate::ops::cmd::cmd;
use crate::ops::orthogonality::orthogonality;
use crate::ops::task_loss::{Unimodal, task_loss};

/// The parts of the loss and their weighted sum, scalars.
pub struct Losses {
    pub task: Tensor,
    pub sim: Tensor,
    pub diff: Tensor,
    pub total: Tensor,
}

impl Losses {
    /// Of a forward pass against the labels `y_m` and the pseudo-labels of each modality, `(B,)` each.
    pub fn of(forward: &Forward, y_m: &Tensor, pseudo: &[(Modality, Tensor)], config: &ModelConfig) -> Self {
        let task = task(forward, y_m, pseudo); // (35)
        let sim = similarity(&forward.branches).unwrap_or_else(|| task.detach().zeros_like()); // (24) (25)
        let diff = difference(&forward.branches, config.diff_normalize)
            .unwrap_or_else(|| task.detach().zeros_like()); // (26)
        let (alpha, beta) = config.loss_weights();
        let weighted = |total: Tensor, (weight, part): (f64, &Tensor)| {
            if weight > 0.0 { total + part * weight } else { total }
        };
        let total = [(alpha, &sim), (beta, &diff)].into_iter().fold(task.shallow_clone(), weighted); // (36)
        Self { task, sim, diff, total }
    }

    /// The same values, cut off the graph.
    pub fn detach(&self) -> Self {
        Self {
            task: self.task.detach(),
            sim: self.sim.detach(),
            diff: self.diff.detach(),
            total: self.total.detach(),
        }
    }
}

/// The squared error of the multimodal head, and what the pseudo-labels make of the others'.
fn task(forward: &Forward, y_m: &Tensor, pseudo: &[(Modality, Tensor)]) -> Tensor {
    // The control of one modality alone has no pseudo-labels: its score is what the first term judges.
    let branches = if forward.multimodal.is_some() { &forward.branches[..] } else { &[] };
    let unimodal = branches
        .iter()
        .zip(pseudo)
        .map(|(branch, (_, y_n))| Unimodal { score: &branch.head.score, pseudo_label: y_n });
    task_loss(forward.score(), y_m, &unimodal.collect::<Vec<_>>())
}

/// CMD between the two text-led streams, where there are two.
fn similarity(branches: &[BranchOutput]) -> Option<Tensor> {
    let [audio, vision] = branches else { return None };
    Some(cmd(audio.controls().1?, vision.controls().1?))
}

/// The sum over (ta, a), (tv, v), as many as there are.
fn difference(branches: &[BranchOutput], normalize: bool) -> Option<Tensor> {
    branches
        .iter()
        .filter_map(|branch| {
            let (own, text_led) = branch.controls();
            Some(orthogonality(text_led?, own?, normalize))
        })
        .reduce(|sum, part| sum + part)
}
