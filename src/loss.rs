//! The loss of a batch, equations (24) to (26), (35) and (36), by libtorch's operations, except that the moments of
//! (24) and the product P^T Q of (26) are computed by our own.

use std::collections::BTreeMap;

use tch::Tensor;

use crate::config::ModelConfig;
use crate::model::{Forward, Modality, Stream, Streams, Target};
use crate::ops::cmd::cmd;
use crate::ops::linear::{Activation, linear};
use crate::ops::{Linear, Weight};

/// The loss of a batch.
pub struct Losses {
    /// The scalar that training minimises.
    pub total: Tensor,
    /// task, sim, diff and total, `(4,)`, detached.
    pub values: Tensor,
}

/// What the scores of a batch are compared with, `(B,)` each.
pub struct Targets {
    /// True labels.
    pub y_m: Tensor,
    /// Pseudo-labels of each modality, or labels that people gave.
    pub y_n: BTreeMap<Modality, Tensor>,
    /// Weights w of the utterances, unless all are 1.
    pub weights: Option<Tensor>,
}

/// Names of [`Losses::values`].
pub const NAMES: [&str; 4] = ["task", "sim", "diff", "total"];

impl Losses {
    /// The losses of a forward pass.
    pub fn of(forward: &Forward, targets: &Targets, config: &ModelConfig) -> Self {
        Self::shared(forward, &Controls::of(forward), targets, config, 1.0)
    }

    /// The losses of a micro-batch that is the share `part` in (0, 1] of a larger batch, whose control vectors are
    /// given: `part` times `total` has the gradients that this micro-batch contributes.
    pub fn shared(
        forward: &Forward,
        controls: &Controls,
        targets: &Targets,
        config: &ModelConfig,
        part: f64,
    ) -> Self {
        let Targets { y_m, y_n, weights } = targets;
        // A model of a single modality has no pseudo-labels: its score is compared with y_m.
        let has_pseudo = forward.heads.contains_key(&Target::Multimodal);
        let unimodal = y_n.iter().filter(|_| has_pseudo);
        let unimodal = unimodal.map(|(n, y_n)| (&forward.heads[&Target::Unimodal(*n)].score, y_n));
        let task = task(forward.score(), y_m, unimodal, weights.as_ref()); // (35)
        let sim = controls.similarity(); // (25)
        let diff = controls.difference(config.diff_normalize); // (26)
        let (alpha, beta) = config.loss_weights();
        let total = |part: f64| total(&task, [(&sim, alpha / part), (&diff, beta / part)]); // (36)

        let whole = total(1.0);
        let [sim, diff] =
            [&sim, &diff].map(|part| part.as_ref().map_or_else(|| task.zeros_like(), Tensor::shallow_clone));
        let values = tch::no_grad(|| Tensor::stack(&[&task, &sim, &diff, &whole], 0));
        Self { total: if part < 1.0 { total(part) } else { whole }, values }
    }
}

/// mean_i [ (yhat_m - y_m)^2 + sum_n tanh|y_n - y_m| * |yhat_n - y_n| ], (35), a scalar: the task loss. Labels are
/// constants. With weights the mean is sum_i w_i [ ... ] / sum_i w_i.
///
/// # Shapes
/// `score` yhat_m, `y_m`, (yhat_n, y_n) for each other modality, and `weights`, `(B,)` each.
pub fn task<'a>(
    score: &Tensor,
    y_m: &Tensor,
    unimodal: impl Iterator<Item = (&'a Tensor, &'a Tensor)>,
    weights: Option<&Tensor>,
) -> Tensor {
    let y_m = y_m.detach();
    let mut error = (score - &y_m).square();
    for (score, y_n) in unimodal {
        let y_n = y_n.detach();
        let weight = (&y_n - &y_m).abs().tanh();
        error += weight * (score - &y_n).abs();
    }
    match weights {
        None => error.mean(error.kind()),
        Some(w) => (error * w).sum(w.kind()) / w.sum(w.kind()),
    }
}

/// ||P^T Q||_F^2, a scalar: a summand of the difference loss (26).
///
/// With `normalize`: columns centred over the batch, rows divided by their detached L2 norm (+ 1e-6), and the
/// mean over the d * d entries instead of the sum.
///
/// # Shapes
/// `p` and `q` `(B, d)`.
pub fn orthogonality(p: &Tensor, q: &Tensor, normalize: bool) -> Tensor {
    let [p, q] = [p, q].map(|x| if normalize { normalized(x) } else { x.shallow_clone() });
    // Our own kernels give the same bits on any number of threads, and need no cuBLAS in a captured step.
    let bias = p.new_zeros([q.size()[1]], (p.kind(), p.device()));
    let q = Linear { weight: Weight::of(q.tr()), bias: Weight::of(bias) };
    let squares = linear(&p.tr(), &q, Activation::None).square(); // (P^T Q)^2, (d, d)
    if normalize { squares.mean(squares.kind()) } else { squares.sum(squares.kind()) }
}

/// Columns centred over the batch, rows divided by their length + 1e-6, which is a constant.
fn normalized(x: &Tensor) -> Tensor {
    let x = x.contiguous();
    let x = &x - x.mean_dim(0, true, x.kind());
    let lengths = x.detach().square().sum_dim_intlist(1, true, x.kind()).sqrt(); // (B, 1)
    x / (lengths + 1e-6)
}

/// task + alpha * sim + beta * diff, (36), from the parts and their weights. A part of weight 0 gets no gradient.
fn total(task: &Tensor, parts: [(&Option<Tensor>, f64); 2]) -> Tensor {
    parts.into_iter().fold(task.shallow_clone(), |total, (part, weight)| match part {
        Some(part) if weight > 0.0 => total + part * weight,
        _ => total,
    })
}

/// Control vectors c of the last layer by stream, `(B, d)` each; none in the variant without gates.
pub struct Controls(Streams<Tensor>);

impl Controls {
    /// The control vectors of a forward pass.
    pub fn of(forward: &Forward) -> Self {
        Self(forward.controls().into_iter().map(|(f, c)| (f, c.shallow_clone())).collect())
    }

    /// All control vectors side by side, detached, `(B, n d)`; `None` where there are none.
    pub fn beside(&self) -> Option<Tensor> {
        let all: Vec<Tensor> = self.0.values().map(Tensor::detach).collect();
        (!all.is_empty()).then(|| Tensor::cat(&all, 1))
    }

    /// The control vectors of a larger batch, `rows` `(N, n d)`, with these in place of the rows from `start` on.
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

    /// CMD(c_ta, c_tv), (25), where there are both.
    fn similarity(&self) -> Option<Tensor> {
        let [c_ta, c_tv] = Modality::ALL.map(|n| self.0.get(&Stream::TextLed(n)));
        Some(cmd(c_ta?, c_tv?))
    }

    /// sum over (ta, a), (tv, v) of ||C_f^T C_n||_F^2, (26), over the pairs that exist.
    fn difference(&self, normalize: bool) -> Option<Tensor> {
        let pairs = self.0.iter().filter_map(|(f, c_f)| Some((c_f, self.0.get(&f.source()?)?)));
        pairs.map(|(c_f, c_n)| orthogonality(c_f, c_n, normalize)).reduce(|sum, next| sum + next)
    }
}
