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

/// The input from which new labels of one modality are computed.
#[derive(Clone, Copy)]
pub struct Relabel<'a, T> {
    pub own: Space<'a, T>,
    pub multimodal: Space<'a, T>,
    /// True labels, `(R,)`.
    pub y_m: &'a [T],
    /// The epoch n, at least 2.
    pub epoch: i64,
    pub bound: f64,
}

impl<T: Real> Space<'_, T> {
    /// alpha_u of a sample, (31).
    #[inline(always)]
    fn polarity(&self, sample: usize) -> T {
        let dim = self.positive.len();
        let features = &self.features[sample * dim..][..dim];
        let scale = T::of((dim as f64).sqrt());
        let to_positive = distance(features, self.positive) / scale; // D^p = ||F - C^p||_2 / sqrt(dim): (29)
        let to_negative = distance(features, self.negative) / scale; // D^n = ||F - C^n||_2 / sqrt(dim): (30)
        (to_negative - to_positive) / (to_positive + T::of(EPS)) // alpha = (D^n - D^p) / (D^p + eps): (31)
    }
}

kernel! {
    /// The pseudo-labels y_s after epoch `n` from the `labels` before.
    pub fn relabel<'a, T>(_simd; call: Relabel<'a, T>, labels: &'a mut [T]) {
        let (n, bound) = (call.epoch as f64, T::of(call.bound));
        let (keep, take) = (T::of((n - 1.0) / (n + 1.0)), T::of(2.0 / (n + 1.0)));
        let two = T::of(2.0);
        for (i, (label, &y_m)) in labels.iter_mut().zip(call.y_m).enumerate() {
            let (alpha_s, alpha_m) = (call.own.polarity(i), call.multimodal.polarity(i));
            let by_ratio = y_m * alpha_s / (alpha_m + T::of(EPS)); // y_m alpha_s / alpha_m: (32)
            let by_difference = y_m + alpha_s - alpha_m; // (33)
            let new = by_ratio / two + by_difference / two; // (34)
            let new = if new > bound { bound } else if new < -bound { -bound } else { new };
            *label = *label * keep + new * take; // momentum: (n - 1) / (n + 1) y_s + 2 / (n + 1) new
        }
    }
}
