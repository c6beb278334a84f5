//! Unimodal label generation (ULGM): pseudo-labels y_s, s in {a, v}, of every training sample, (29) to (34);
//! Yu et al. 2021.
//!
//! In epoch n >= 2 a step moves the labels of its samples; `ops/ulgm` has the arithmetic:
//!
//! ```text
//! D_u^p   = ||F_u - C_u^p||_2 / sqrt(d_u)          (29)   u in {m, a, v}
//! D_u^n   = ||F_u - C_u^n||_2 / sqrt(d_u)          (30)
//! alpha_u = (D_u^n - D_u^p) / (D_u^p + eps)        (31)
//! y_s     = y_m alpha_s / alpha_m                  (32)   by the ratio
//! y_s     = y_m + alpha_s - alpha_m                (33)   by the difference
//! new_s   = (32) / 2 + (33) / 2                    (34)   clamped to [-bound, bound]
//! y_s    <- (n - 1) / (n + 1) y_s + 2 / (n + 1) new_s     momentum
//! ```
//!
//! Then it stores their features F_u, and moves the centres: C_u^p and C_u^n are the mean features of the samples
//! with a positive and with a negative label, which is y_m for u = m, else y_u.

use std::collections::BTreeMap;

use tch::kind::Element;
use tch::{Device, Kind, Tensor};

use crate::batch::Index;
use crate::device::Pointer;
use crate::model::{Modality, Target};
use crate::numeric::{Number, Real};
use crate::ops::autograd::{slice, slice_mut};
use crate::ops::ulgm::cuda;
use crate::ops::ulgm::{self as ops, relabel};

/// Labels and features F_u of every training sample for one u, with the sums behind its centres.
struct Space {
    /// `(N,)`
    labels: Tensor,
    /// `(N, dim)`
    features: Tensor,
    /// Sum of the features of the positive and of the negative class, in double precision, `(2, dim)`, and how
    /// many samples it holds, `(2,)`.
    sums: Tensor,
    counts: Tensor,
}

/// Pseudo-labels, features and class sums over N training samples.
pub struct Ulgm {
    pub samples: i64,
    kind: Kind,
    bound: f64,
    exclude_zero: bool,
    /// Whether a sample has a label and a stored feature, `(N,)`.
    stored: Tensor,
    spaces: BTreeMap<Target, Space>,
}

/// The input of one step: positions, labels and train-mode features of a batch, and the epoch.
pub struct Step<'a> {
    pub index: &'a Index,
    /// True labels, `(B,)`.
    pub y_m: &'a Tensor,
    /// The pseudo-labels that [`Ulgm::pseudo_labels`] gave for them.
    pub pseudo: &'a BTreeMap<Modality, Tensor>,
    /// F_u, `(B, dim)` each.
    pub features: BTreeMap<Target, &'a Tensor>,
    /// From 1.
    pub epoch: i64,
    /// On a device: the address of the epoch's number.
    pub epoch_at: Pointer,
    /// On a device: the address of a number; the step does nothing unless that is zero.
    pub unless: Pointer,
}

/// The sizes and place of the state.
pub struct Shape {
    pub samples: i64,
    /// Widths of F_u.
    pub widths: BTreeMap<Target, i64>,
    pub kind: Kind,
    pub device: Device,
}

impl Ulgm {
    /// No sample has a feature yet; each pseudo-label starts as its sample's true label.
    pub fn new(shape: &Shape, bound: f64, exclude_zero: bool) -> Self {
        Self {
            samples: shape.samples,
            kind: shape.kind,
            bound,
            exclude_zero,
            stored: Tensor::zeros([shape.samples], (cuda::STORED, shape.device)),
            spaces: shape.widths.iter().map(|(u, dim)| (*u, Space::new(shape, *dim))).collect(),
        }
    }

    /// Current pseudo-labels of the samples of a batch, whose true labels are `y_m`, `(B,)` each.
    pub fn pseudo_labels(&self, index: &Index, y_m: &Tensor) -> BTreeMap<Modality, Tensor> {
        let labels: Vec<Tensor> = match &index.on_device {
            Some(index) => {
                let spaces: Vec<_> = self.unimodal().map(|(_, space)| space.on_device()).collect();
                cuda::current(&index.get(0), &self.stored, y_m, &spaces)
            }
            None if self.kind == Kind::Double => self.current::<f64>(&index.values, y_m),
            None => self.current::<f32>(&index.values, y_m),
        };
        self.unimodal().map(|(modality, _)| modality).zip(labels).collect()
    }

    /// All pseudo-labels by dataset index, `(N,)` each; NaN for a sample that training has not seen.
    pub fn all_pseudo_labels(&self) -> BTreeMap<Modality, Tensor> {
        let unseen = self.stored.eq(0);
        self.unimodal().map(|(s, space)| (s, space.labels.masked_fill(&unseen, f64::NAN))).collect()
    }

    /// Widths of the features.
    pub fn widths(&self) -> impl Iterator<Item = (Target, i64)> {
        self.spaces.iter().map(|(u, space)| (*u, space.features.size()[1]))
    }

    /// The whole state by name: `ulgm.stored`, and of each space its labels, features, sums and counts.
    pub fn tensors(&self) -> Vec<(String, Tensor)> {
        let handle = |tensor: &Tensor| tensor.shallow_clone();
        let mut tensors = vec![("ulgm.stored".to_owned(), handle(&self.stored))];
        for (u, Space { labels, features, sums, counts }) in &self.spaces {
            for (what, tensor) in
                [("labels", labels), ("features", features), ("sums", sums), ("counts", counts)]
            {
                tensors.push((format!("ulgm.{}.{what}", u.name()), handle(tensor)));
            }
        }
        tensors
    }

    /// The spaces of audio and vision.
    fn unimodal(&self) -> impl Iterator<Item = (Modality, &Space)> {
        self.spaces.iter().filter_map(|(u, space)| match u {
            Target::Multimodal => None,
            Target::Unimodal(modality) => Some((*modality, space)),
        })
    }

    /// Updates labels (from epoch 2 on), then features, then centres.
    pub fn step(&mut self, step: &Step) {
        match (&step.index.on_device, self.kind) {
            (Some(index), _) => self.update_on_device(&index.get(1), step),
            (None, Kind::Double) => self.update::<f64>(step),
            (None, _) => self.update::<f32>(step),
        }
    }

    fn current<T: Real + Element>(&self, rows: &[i64], y_m: &Tensor) -> Vec<Tensor> {
        // SAFETY: the state is written by `update` alone, which has it to itself, and nobody writes labels of a batch.
        let (stored, y_m) = unsafe { (slice::<u8>(&self.stored), slice::<T>(y_m)) };
        let current = |labels: &[T]| -> Vec<T> {
            let label =
                |(&row, &y_m): (&i64, &T)| if stored[row as usize] == 0 { y_m } else { labels[row as usize] };
            rows.iter().zip(y_m).map(label).collect()
        };
        // SAFETY: as above.
        let labels = self.unimodal().map(|(_, space)| unsafe { slice(&space.labels) });
        labels.map(|labels| Tensor::from_slice(&current(labels))).collect()
    }

    fn update<T: Real + Element>(&mut self, step: &Step) {
        let (places, rows) = step.index.distinct();
        // SAFETY: labels and features of this step, which nobody writes.
        let pick = |x: &Tensor, width| pick::<T>(unsafe { slice(x) }, width, &places);
        let y_m = pick(step.y_m, 1);
        let features: BTreeMap<Target, Vec<T>> =
            self.spaces.iter().map(|(u, space)| (*u, pick(step.features[u], space.dim()))).collect();
        let multimodal = &features[&Target::Multimodal];
        let centres_m = self.spaces[&Target::Multimodal].centres::<T>();
        let mut labels = BTreeMap::from([(Target::Multimodal, y_m.clone())]);
        for (s, space) in self.unimodal() {
            let (target, mut y_s) = (Target::Unimodal(s), pick(&step.pseudo[&s], 1));
            // Labels do not change while a class has no sample yet.
            let centres = space.centres::<T>();
            if let (true, Some(own), Some(own_m)) = (step.epoch >= 2, &centres, &centres_m) {
                let call = ops::Relabel {
                    own: centred(&features[&target], own),
                    multimodal: centred(multimodal, own_m),
                    y_m: &y_m,
                    epoch: step.epoch,
                    bound: self.bound,
                };
                relabel(call, &mut y_s); // (29) to (34)
            }
            labels.insert(target, y_s);
        }
        // SAFETY: the state is this one's own, which `&mut self` lends.
        let stored = unsafe { slice_mut::<u8>(&mut self.stored) };
        for (u, space) in &mut self.spaces {
            space.replace(&rows, stored, (&labels[u], &features[u]), self.exclude_zero);
        }
        for row in rows {
            stored[row] = 1;
        }
    }

    fn update_on_device(&self, rows: &Tensor, step: &Step) {
        let spaces = self.spaces.iter().map(|(u, space)| (space.on_device(), step.features[u]));
        cuda::step(&cuda::Step {
            rows,
            stored: &self.stored,
            y_m: step.y_m,
            spaces: &spaces.collect::<Vec<_>>(), // m first
            epoch: step.epoch_at,
            unless: step.unless,
            bound: self.bound,
            exclude_zero: self.exclude_zero,
        });
    }
}

impl Space {
    fn new(shape: &Shape, dim: i64) -> Self {
        let zeros = |size: &[i64], kind| Tensor::zeros(size, (kind, shape.device));
        Self {
            labels: zeros(&[shape.samples], shape.kind),
            features: zeros(&[shape.samples, dim], shape.kind),
            sums: zeros(&[2, dim], cuda::SUMS),
            counts: zeros(&[2], cuda::SUMS),
        }
    }

    fn dim(&self) -> usize {
        self.features.size()[1] as usize
    }

    fn on_device(&self) -> cuda::Space<'_> {
        let Self { labels, features, sums, counts } = self;
        cuda::Space { labels, features, sums, counts }
    }

    /// C_u^p and C_u^n, where both classes have a sample.
    fn centres<T: Real>(&self) -> Option<[Vec<T>; 2]> {
        // SAFETY: written by `replace` alone, which has them to itself.
        let (sums, counts) = unsafe { (slice::<f64>(&self.sums), slice::<f64>(&self.counts)) };
        let mean = |class: usize| {
            let sums = &sums[class * self.dim()..][..self.dim()];
            sums.iter().map(|sum| T::of(sum / counts[class])).collect()
        };
        counts.iter().all(|&count| count > 0.0).then(|| [mean(0), mean(1)])
    }

    /// Stores new labels and features of `rows`; in the class sums, they take the place of the old ones.
    fn replace<T: Real + Element>(
        &mut self,
        rows: &[usize],
        stored: &[u8],
        (labels, features): (&[T], &[T]),
        exclude_zero: bool,
    ) {
        let zero = <T as Number>::ZERO;
        let class = |label: T| match label {
            label if label < zero => Some(1),
            label if label > zero || !exclude_zero => Some(0),
            _ => None,
        };
        let dim = self.dim();
        let Self { labels: kept_labels, features: kept, sums, counts } = self;
        // SAFETY: four tensors of memory of their own, made in `new`, which `&mut self` lends.
        let (kept_labels, kept, sums, counts) = unsafe {
            (
                slice_mut::<T>(kept_labels),
                slice_mut::<T>(kept),
                slice_mut::<f64>(sums),
                slice_mut::<f64>(counts),
            )
        };
        let given = labels.iter().zip(features.chunks_exact(dim));
        for (&row, (&label, features)) in rows.iter().zip(given) {
            let kept = &mut kept[row * dim..][..dim];
            if let (true, Some(class)) = (stored[row] != 0, class(kept_labels[row])) {
                let sums = &mut sums[class * dim..][..dim];
                sums.iter_mut().zip(&*kept).for_each(|(sum, x)| *sum -= x.to_f64());
                counts[class] -= 1.0;
            }
            if let Some(class) = class(label) {
                let sums = &mut sums[class * dim..][..dim];
                sums.iter_mut().zip(features).for_each(|(sum, x)| *sum += x.to_f64());
                counts[class] += 1.0;
            }
            kept.copy_from_slice(features);
            kept_labels[row] = label;
        }
    }
}

fn centred<'a, T>(features: &'a [T], [positive, negative]: &'a [Vec<T>; 2]) -> ops::Space<'a, T> {
    ops::Space { features, positive, negative }
}

/// Some rows of a matrix.
fn pick<T: Real>(x: &[T], width: usize, rows: &[usize]) -> Vec<T> {
    rows.iter().flat_map(|row| &x[row * width..][..width]).copied().collect()
}
