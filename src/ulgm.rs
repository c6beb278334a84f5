//! State of unimodal label generation over the training samples, section 6; Yu et al. 2021.
//!
//! All of it lives on the model's device and is read there: a step never waits for the device.

use tch::{Device, Kind, Tensor};

use crate::model::Modality;
use crate::ops::ulgm::{Centres, polarity, relabel};

/// Labels and features of every training sample for one of m, a, v, with the sums behind its centres.
struct Space {
    /// `(N,)`
    labels: Tensor,
    /// `(N, dim)`
    features: Tensor,
    /// Sum of the features of the positive and of the negative class, `(2, dim)`, float64.
    sums: Tensor,
    /// How many samples they hold, `(2, 1)`, float64.
    counts: Tensor,
}

/// Pseudo-labels, features and class sums over N training samples.
pub struct Ulgm {
    pub samples: i64,
    bound: f64,
    exclude_zero: bool,
    /// Samples with a label and a stored feature, `(N,)`.
    stored: Tensor,
    multimodal: Space,
    unimodal: Vec<(Modality, Space)>,
}

/// What one step hands over: detached train-mode features of some samples.
pub struct Step<'a> {
    /// Dataset indices, each once, `(R,)`.
    pub rows: &'a Tensor,
    /// True labels, `(R,)`.
    pub y_m: &'a Tensor,
    /// F_m, `(R, dim)`.
    pub multimodal: &'a Tensor,
    /// F_a, F_v in the order of the model's modalities.
    pub unimodal: &'a [Tensor],
}

/// What the state is made for.
pub struct Shape {
    pub samples: i64,
    pub multimodal: i64,
    pub unimodal: Vec<(Modality, i64)>,
    pub kind: Kind,
    pub device: Device,
}

impl Ulgm {
    /// No sample has a feature yet; each pseudo-label starts as its sample's true label.
    pub fn new(shape: &Shape, bound: f64, exclude_zero: bool) -> Self {
        let space = |dim| Space::new(shape.samples, dim, shape.kind, shape.device);
        Self {
            samples: shape.samples,
            bound,
            exclude_zero,
            stored: Tensor::zeros([shape.samples], (Kind::Bool, shape.device)),
            multimodal: space(shape.multimodal),
            unimodal: shape.unimodal.iter().map(|&(modality, dim)| (modality, space(dim))).collect(),
        }
    }

    /// Current pseudo-labels of the samples `rows`, whose true labels are `y_m`, `(R,)` each.
    pub fn pseudo_labels(&self, rows: &Tensor, y_m: &Tensor) -> Vec<(Modality, Tensor)> {
        let stored = self.stored.index_select(0, rows);
        self.unimodal
            .iter()
            .map(|(modality, space)| (*modality, space.labels.index_select(0, rows).where_self(&stored, y_m)))
            .collect()
    }

    /// All pseudo-labels by dataset index, `(N,)` each; NaN for a sample that training has not seen.
    pub fn all_pseudo_labels(&self) -> Vec<(Modality, Tensor)> {
        self.unimodal
            .iter()
            .map(|(modality, space)| {
                let unseen = self.stored.logical_not();
                (*modality, space.labels.masked_fill(&unseen, f64::NAN))
            })
            .collect()
    }

    /// Updates labels (from epoch 2 on), then features, then centres.
    pub fn step(&mut self, epoch: i64, step: &Step) {
        let stored = self.stored.index_select(0, step.rows);
        let mut labels = self.pseudo_labels(step.rows, step.y_m);
        if epoch >= 2 {
            let (known_m, centres_m) = self.multimodal.centres();
            let alpha_m = polarity(step.multimodal, &centres_m); // (31)
            for ((_, old), ((_, space), features)) in
                labels.iter_mut().zip(self.unimodal.iter().zip(step.unimodal))
            {
                let (known, centres) = space.centres(); // (29) (30)
                let alpha = polarity(features, &centres);
                let new = relabel(old, step.y_m, &alpha, &alpha_m, epoch, self.bound); // (33) (34)
                *old = new.where_self(&known.logical_and(&known_m), old);
            }
        }
        let exclude_zero = self.exclude_zero;
        self.multimodal.replace(step.rows, &stored, step.y_m, step.multimodal, exclude_zero);
        for ((_, new), ((_, space), features)) in
            labels.iter().zip(self.unimodal.iter_mut().zip(step.unimodal))
        {
            space.replace(step.rows, &stored, new, features, exclude_zero);
        }
        let _ = self.stored.index_fill_(0, step.rows, 1);
    }
}

impl Space {
    fn new(samples: i64, dim: i64, kind: Kind, device: Device) -> Self {
        Self {
            labels: Tensor::zeros([samples], (kind, device)),
            features: Tensor::zeros([samples, dim], (kind, device)),
            sums: Tensor::zeros([2, dim], (Kind::Double, device)),
            counts: Tensor::zeros([2, 1], (Kind::Double, device)),
        }
    }

    /// Whether both classes have a sample (a scalar on the device), and their mean features.
    fn centres(&self) -> (Tensor, Centres) {
        let means = (&self.sums / self.counts.clamp_min(1)).to_kind(self.features.kind());
        let centres = Centres { positive: means.get(0), negative: means.get(1) };
        (self.counts.gt(0).all(), centres)
    }

    /// Stores new labels and features of `rows` and moves the class sums: the old row out, the new one in.
    fn replace(
        &mut self,
        rows: &Tensor,
        stored: &Tensor,
        labels: &Tensor,
        features: &Tensor,
        exclude_zero: bool,
    ) {
        // Which class each row belongs to, (2, R).
        let classes = |labels: &Tensor| {
            let positive = if exclude_zero { labels.gt(0) } else { labels.ge(0) };
            Tensor::stack(&[positive, labels.lt(0)], 0)
        };
        let double = |x: &Tensor| x.to_kind(Kind::Double);
        let out = double(&classes(&self.labels.index_select(0, rows)).logical_and(stored));
        let old = double(&self.features.index_select(0, rows));
        let r#in = double(&classes(labels));
        self.sums += r#in.matmul(&double(features)) - out.matmul(&old);
        self.counts += (r#in - out).sum_dim_intlist([1i64].as_slice(), true, None);
        let _ = self.labels.index_copy_(0, rows, labels);
        let _ = self.features.index_copy_(0, rows, features);
    }
}
