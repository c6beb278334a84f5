//! task + alpha * sim + beta * diff, equations (24) to (26), (35) and (36).

use std::collections::BTreeMap;

use tch::Tensor;

use crate::config::ModelConfig;
use crate::model::{Forward, Modality, Stream, Streams, Target};
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
    pub fn of(
        forward: &Forward,
        y_m: &Tensor,
        pseudo: &BTreeMap<Modality, Tensor>,
        config: &ModelConfig,
    ) -> Self {
        Self::shared(forward, &Controls::of(forward), y_m, pseudo, config, 1.0)
    }

    /// Of a micro-batch that is a `part` in (0, 1] of a larger batch, whose control vectors are given: `part`
    /// times `total` has the gradients that come of this micro-batch.
    pub fn shared(
        forward: &Forward,
        controls: &Controls,
        y_m: &Tensor,
        pseudo: &BTreeMap<Modality, Tensor>,
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

/// Control vectors c of the last layer by stream, `(B, d)` each; none in the variant without gates.
pub struct Controls(Streams<Tensor>);

impl Controls {
    /// Those of a forward pass.
    pub fn of(forward: &Forward) -> Self {
        Self(forward.controls().into_iter().map(|(f, c)| (f, c.shallow_clone())).collect())
    }

    /// All of them side by side, off the graph, `(B, n d)`; `None` without any.
    pub fn beside(&self) -> Option<Tensor> {
        let all: Vec<Tensor> = self.0.values().map(Tensor::detach).collect();
        (!all.is_empty()).then(|| Tensor::cat(&all, 1))
    }

    /// The same among the rows of other micro-batches, `(N, n d)`, where this one's begin at row `start`.
    pub fn among(&self, rows: &Tensor, start: i64) -> Self {
        let mut column = 0;
        let widened = self.0.iter().map(|(f, own)| {
            let [count, width] = [0, 1].map(|axis| own.size()[axis]);
            let others = rows.narrow(1, column, width);
            let end = start + count;
            column += width;
            let after = others.narrow(0, end, others.size()[0] - end);
            (*f, Tensor::cat(&[&others.narrow(0, 0, start), own, &after], 0))
        });
        Self(widened.collect())
    }

    fn similarity(&self) -> Option<Tensor> {
        let [audio, vision] = Modality::ALL.map(|n| self.0.get(&Stream::TextLed(n)));
        Some(cmd(audio?, vision?))
    }

    /// Over (ta, a), (tv, v), as many as there are.
    fn differences(&self, normalize: bool) -> Vec<Tensor> {
        let pairs: Vec<_> = self.0.iter().filter_map(|(f, c)| Some((c, &self.0[&f.source()?]))).collect();
        if pairs.is_empty() { vec![] } else { orthogonalities(&pairs, normalize) }
    }
}

fn task(forward: &Forward, y_m: &Tensor, pseudo: &BTreeMap<Modality, Tensor>) -> Tensor {
    let unimodal = pseudo
        .iter()
        .filter(|_| forward.heads.contains_key(&Target::Multimodal))
        .map(|(n, y_n)| Unimodal { score: &forward.heads[&Target::Unimodal(*n)].score, pseudo_label: y_n });
    task_loss(forward.score(), y_m, &unimodal.collect::<Vec<_>>())
}
