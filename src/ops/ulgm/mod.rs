//! The arithmetic of unimodal label generation, equations (29) to (34); the state is in `crate::ulgm`.

pub mod cuda;

use crate::numeric::norm::distance;
use crate::numeric::{Real, kernel};

const EPS: f64 = 1e-8;

/// Features of some samples, `(R, dim)`, and the mean features of the positive and of the negative class.
#[derive(Clone, Copy)]
pub struct Space<'a, T> {
    pub features: &'a [T],
    pub positive: &'a [T],
    pub negative: &'a [T],
}

/// What the labels of one modality are moved by.
#[derive(Clone, Copy)]
pub struct Relabel<'a, T> {
    pub own: Space<'a, T>,
    pub multimodal: Space<'a, T>,
    /// True labels, `(R,)`.
    pub y_m: &'a [T],
    /// At least 2.
    pub epoch: i64,
    pub bound: f64,
}

impl<T: Real> Space<'_, T> {
    /// alpha = (D^n - D^p) / (D^p + eps) of a sample, D the distance to a centre over sqrt(dim), (31).
    #[inline(always)]
    fn polarity(&self, sample: usize) -> T {
        let dim = self.positive.len();
        let features = &self.features[sample * dim..][..dim];
        let scale = T::of((dim as f64).sqrt());
        let to_positive = distance(features, self.positive) / scale;
        let to_negative = distance(features, self.negative) / scale;
        (to_negative - to_positive) / (to_positive + T::of(EPS))
    }
}

kernel! {
    /// The pseudo-labels after epoch `n`, (33) and (34): momentum between the `labels` given and
    /// y_m alpha_s / (2 (alpha_m + eps)) + (y_m + alpha_s - alpha_m) / 2, clamped to [-bound, bound].
    pub fn relabel<'a, T>(_simd; call: Relabel<'a, T>, labels: &'a mut [T]) {
        let (n, bound) = (call.epoch as f64, T::of(call.bound));
        let (keep, take) = (T::of((n - 1.0) / (n + 1.0)), T::of(2.0 / (n + 1.0)));
        let two = T::of(2.0);
        for (i, (label, &y_m)) in labels.iter_mut().zip(call.y_m).enumerate() {
            let (alpha_s, alpha_m) = (call.own.polarity(i), call.multimodal.polarity(i));
            let new = y_m * alpha_s / (two * (alpha_m + T::of(EPS))) + (y_m + alpha_s - alpha_m) / two;
            let new = if new > bound { bound } else if new < -bound { -bound } else { new };
            *label = *label * keep + new * take;
        }
    }
}
