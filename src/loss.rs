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
        Self::shared(forward, &Controls::of(forward), y_m, pseudo, config, 1.0)
    }

    /// Of a micro-batch that is a `part` in (0, 1] of a larger batch, whose control vectors are given: `part`
    /// times `total` has the gradients that come of this micro-batch.
    pub fn shared(
        forward: &Forward,
        controls: &Controls,
        y_m: &Tensor,
        pseudo: &[(Modality, Tensor)],
        config: &ModelConfig,
        part: f64,
    ) -> Self {
        let task = task(forward, y_m, pseudo); // (35)
        let sim = controls.similarity(); // (24) (25)
        let diff = controls.differences(config.diff_normalize); // (26)
        let (alpha, beta) = config.loss_weights();
        let of = |part: f64| {
            let (alpha, beta) = (alpha / part, beta / part);
            total_loss(&Parts { task: &task, sim: sim.as_ref(), diff: &diff, alpha, beta }) // (36)
        };
        let (total, values) = of(1.0);
        Self { total: if part < 1.0 { of(part).0 } else { total }, values }
    }
}

/// Control vectors by branch: the modality's own and the text-led stream's, `(B, d)` each.
pub struct Controls(Vec<(Option<Tensor>, Option<Tensor>)>);

impl Controls {
    /// Those of a forward pass.
    pub fn of(forward: &Forward) -> Self {
        let handle = |control: Option<&Tensor>| control.map(Tensor::shallow_clone);
        let of = |branch: &BranchOutput| {
            let (own, text_led) = branch.controls();
            (handle(own), handle(text_led))
        };
        Self(forward.branches.iter().map(of).collect())
    }

    /// All of them side by side, off the graph, `(B, n d)`; `None` without any.
    pub fn beside(&self) -> Option<Tensor> {
        let all: Vec<Tensor> = self.all().map(Tensor::detach).collect();
        (!all.is_empty()).then(|| Tensor::cat(&all, 1))
    }

    /// The same among the rows of other micro-batches, `(N, n d)`, where this one's begin at row `start`.
    pub fn among(&self, rows: &Tensor, start: i64) -> Self {
        let mut column = 0;
        let mut widened = |own: &Option<Tensor>| {
            own.as_ref().map(|own| {
                let [count, width] = [0, 1].map(|axis| own.size()[axis]);
                let others = rows.narrow(1, column, width);
                let end = start + count;
                column += width;
                Tensor::cat(
                    &[&others.narrow(0, 0, start), own, &others.narrow(0, end, others.size()[0] - end)],
                    0,
                )
            })
        };
        Self(self.0.iter().map(|(own, text_led)| (widened(own), widened(text_led))).collect())
    }

    fn all(&self) -> impl Iterator<Item = &Tensor> {
        self.0.iter().flat_map(|(own, text_led)| [own, text_led]).flatten()
    }

    /// CMD between the two text-led streams, where there are two.
    fn similarity(&self) -> Option<Tensor> {
        let [(_, audio), (_, vision)] = &self.0[..] else { return None };
        Some(cmd(audio.as_ref()?, vision.as_ref()?))
    }

    /// Over (ta, a), (tv, v), as many as there are.
    fn differences(&self, normalize: bool) -> Vec<Tensor> {
        let pairs = self.0.iter().filter_map(|(own, text_led)| Some((text_led.as_ref()?, own.as_ref()?)));
        let pairs: Vec<_> = pairs.collect();
        if pairs.is_empty() { vec![] } else { orthogonalities(&pairs, normalize) }
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
