//! task + alpha * sim + beta * diff, equations (24) to (26), (35) and (36).

use tch::Tensor;

use crate::config::ModelConfig;
use crate::model::{BranchOutput, Forward, Modality};
use crate::ops::cmd::cmd;
use crate::ops::orthogonality::orthogonalities;
use crate::ops::task_loss::{Unimodal, task_loss};
use crate::ops::total_loss::{Parts, total_loss};

/// The loss of a batch.
pub struct Losses {
    /// What training descends on, a scalar.
    pub total: Tensor,
    /// task, sim, diff and total, `(4,)`, off the graph.
    pub values: Tensor,
}

/// Names of [`Losses::values`].
pub const NAMES: [&str; 4] = ["task", "sim", "diff", "total"];

impl Losses {
    /// Of a forward pass against the labels `y_m` and the pseudo-labels of each modality, `(B,)` each.
    pub fn of(forward: &Forward, y_m: &Tensor, pseudo: &[(Modality, Tensor)], config: &ModelConfig) -> Self {
        let task = task(forward, y_m, pseudo); // (35)
        let sim = similarity(&forward.branches); // (24) (25)
        let diff = differences(&forward.branches, config.diff_normalize); // (26)
        let (alpha, beta) = config.loss_weights();
        let parts = Parts { task: &task, sim: sim.as_ref(), diff: &diff, alpha, beta };
        let (total, values) = total_loss(&parts); // (36)
        Self { total, values }
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

/// Over (ta, a), (tv, v), as many as there are.
fn differences(branches: &[BranchOutput], normalize: bool) -> Vec<Tensor> {
    let pairs = branches.iter().filter_map(|branch| {
        let (own, text_led) = branch.controls();
        Some((text_led?, own?))
    });
    let pairs: Vec<_> = pairs.collect();
    if pairs.is_empty() { vec![] } else { orthogonalities(&pairs, normalize) }
}
