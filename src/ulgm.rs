//! State of unimodal label generation over the training samples, section 6; Yu et al. 2021.

use tch::{Kind, Tensor};

use crate::model::Modality;
use crate::numeric::Real;
use crate::ops::autograd::{slice, slice_mut};
use crate::ops::ulgm::{self as ops, Relabel, relabel};

/// Labels and features of every training sample for one of m, a, v, with the sums behind its centres.
struct Space {
    dim: usize,
    /// `(N,)`
    labels: Tensor,
    /// `(N, dim)`
    features: Tensor,
    /// Sum of the features of the positive and of the negative class, in double precision, and how many
    /// samples it holds.
    sums: [Vec<f64>; 2],
    counts: [usize; 2],
}

/// Pseudo-labels, features and class sums over N training samples.
pub struct Ulgm {
    pub samples: i64,
    kind: Kind,
    bound: f64,
    exclude_zero: bool,
    /// Samples with a label and a stored feature.
    stored: Vec<bool>,
    multimodal: Space,
    unimodal: Vec<(Modality, Space)>,
}

/// What one step hands over: train-mode features and labels of a batch, and which of its samples count.
pub struct Step<'a> {
    /// Places in the batch, and the samples' dataset indices, each once.
    pub places: &'a [usize],
    pub rows: &'a [usize],
    /// True labels, `(B,)`.
    pub y_m: &'a Tensor,
    /// F_m, `(B, dim)`.
    pub multimodal: &'a Tensor,
    /// F_a, F_v in the order of the model's modalities.
    pub unimodal: &'a [&'a Tensor],
}

/// What the state is made for.
pub struct Shape {
    pub samples: i64,
    pub multimodal: i64,
    pub unimodal: Vec<(Modality, i64)>,
    pub kind: Kind,
}

impl Ulgm {
    /// No sample has a feature yet; each pseudo-label starts as its sample's true label.
    pub fn new(shape: &Shape, bound: f64, exclude_zero: bool) -> Self {
        let space = |dim| Space::new(shape.samples, dim, shape.kind);
        Self {
            samples: shape.samples,
            kind: shape.kind,
            bound,
            exclude_zero,
            stored: vec![false; shape.samples as usize],
            multimodal: space(shape.multimodal),
            unimodal: shape.unimodal.iter().map(|&(modality, dim)| (modality, space(dim))).collect(),
        }
    }

    /// Current pseudo-labels of the samples `rows`, whose true labels are `y_m`, `(R,)` each.
    pub fn pseudo_labels(&self, rows: &[i64], y_m: &Tensor) -> Vec<(Modality, Tensor)> {
        let rows: Vec<usize> = rows.iter().map(|&row| row as usize).collect();
        let of = |space: &Space| match self.kind {
            Kind::Double => tensor(&self.current::<f64>(space, &rows, slice(y_m))),
            _ => tensor(&self.current::<f32>(space, &rows, slice(y_m))),
        };
        self.unimodal.iter().map(|(modality, space)| (*modality, of(space))).collect()
    }

    /// All pseudo-labels by dataset index, `(N,)` each; NaN for a sample that training has not seen.
    pub fn all_pseudo_labels(&self) -> Vec<(Modality, Tensor)> {
        let unseen = Tensor::from_slice(&self.stored).logical_not();
        let of = |space: &Space| space.labels.masked_fill(&unseen, f64::NAN);
        self.unimodal.iter().map(|(modality, space)| (*modality, of(space))).collect()
    }

    /// Updates labels (from epoch 2 on), then features, then centres.
    pub fn step(&mut self, epoch: i64, step: &Step) {
        match self.kind {
            Kind::Double => self.update::<f64>(epoch, step),
            _ => self.update::<f32>(epoch, step),
        }
    }

    fn current<T: Real>(&self, space: &Space, rows: &[usize], y_m: &[T]) -> Vec<T> {
        let labels = slice::<T>(&space.labels);
        rows.iter().zip(y_m).map(|(&row, &y_m)| if self.stored[row] { labels[row] } else { y_m }).collect()
    }

    fn update<T: Real>(&mut self, epoch: i64, step: &Step) {
        let Step { places, rows, .. } = *step;
        let y_m: Vec<T> = pick(slice(step.y_m), 1, places);
        let multimodal: Vec<T> = pick(slice(step.multimodal), self.multimodal.dim, places);
        let centres_m = self.multimodal.centres::<T>();
        let updates: Vec<(Vec<T>, Vec<T>)> = self
            .unimodal
            .iter()
            .zip(step.unimodal)
            .map(|((_, space), features)| {
                let features: Vec<T> = pick(slice(features), space.dim, places);
                let mut labels = self.current(space, rows, &y_m);
                // Labels stay where a class has no sample yet.
                let centres = space.centres::<T>(); // (29) (30)
                if let (true, Some(own), Some(of_m)) = (epoch >= 2, &centres, &centres_m) {
                    let own = of(&features, own);
                    let call = Relabel {
                        own,
                        multimodal: of(&multimodal, of_m),
                        y_m: &y_m,
                        epoch,
                        bound: self.bound,
                    };
                    relabel(call, &mut labels);
                }
                (labels, features)
            })
            .collect();
        self.multimodal.replace(rows, &self.stored, (&y_m, &multimodal), self.exclude_zero);
        for ((labels, features), (_, space)) in updates.iter().zip(&mut self.unimodal) {
            space.replace(rows, &self.stored, (labels, features), self.exclude_zero);
        }
        for &row in rows {
            self.stored[row] = true;
        }
    }
}

impl Space {
    fn new(samples: i64, dim: i64, kind: Kind) -> Self {
        let zeros = |shape: &[i64]| Tensor::zeros(shape, (kind, tch::Device::Cpu));
        Self {
            dim: dim as usize,
            labels: zeros(&[samples]),
            features: zeros(&[samples, dim]),
            sums: [vec![0.0; dim as usize], vec![0.0; dim as usize]],
            counts: [0, 0],
        }
    }

    /// Mean features of the positive and of the negative class, where both have a sample.
    fn centres<T: Real>(&self) -> Option<[Vec<T>; 2]> {
        let mean = |class: usize| {
            let count = self.counts[class] as f64;
            self.sums[class].iter().map(|sum| T::of(sum / count)).collect()
        };
        self.counts.iter().all(|&count| count > 0).then(|| [mean(0), mean(1)])
    }

    /// Stores new labels and features of `rows` and moves the class sums: the old row out, the new one in.
    fn replace<T: Real>(
        &mut self,
        rows: &[usize],
        stored: &[bool],
        (labels, features): (&[T], &[T]),
        exclude_zero: bool,
    ) {
        let class = |label: T| match label {
            label if label < T::ZERO => Some(1),
            label if label > T::ZERO || !exclude_zero => Some(0),
            _ => None,
        };
        let (kept_labels, kept) = (slice_mut::<T>(&self.labels), slice_mut::<T>(&self.features));
        let given = labels.iter().zip(features.chunks_exact(self.dim));
        for (&row, (&label, features)) in rows.iter().zip(given) {
            let kept = &mut kept[row * self.dim..][..self.dim];
            if let (true, Some(class)) = (stored[row], class(kept_labels[row])) {
                self.sums[class].iter_mut().zip(&*kept).for_each(|(sum, x)| *sum -= x.to_f64());
                self.counts[class] -= 1;
            }
            if let Some(class) = class(label) {
                self.sums[class].iter_mut().zip(features).for_each(|(sum, x)| *sum += x.to_f64());
                self.counts[class] += 1;
            }
            kept.copy_from_slice(features);
            kept_labels[row] = label;
        }
    }
}

fn of<'a, T>(features: &'a [T], [positive, negative]: &'a [Vec<T>; 2]) -> ops::Space<'a, T> {
    ops::Space { features, positive, negative }
}

/// Some rows of a matrix.
fn pick<T: Real>(x: &[T], width: usize, rows: &[usize]) -> Vec<T> {
    rows.iter().flat_map(|row| &x[row * width..][..width]).copied().collect()
}

fn tensor<T: tch::kind::Element>(x: &[T]) -> Tensor {
    Tensor::from_slice(x)
}
