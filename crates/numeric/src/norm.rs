//! Sums of slices, and layer normalisation of one row, forward and backward.

use pulp::Simd;

use super::lanes::windows;
use super::number::Number;
use crate::kernel;

/// Partial sums of a reduction: enough to fill the widest vectors.
const LANES: usize = 16;

/// The sum of `f` over the places below `count`, in [`LANES`] partial sums.
#[inline(always)]
fn reduce<T: Number>(count: usize, f: impl Fn(usize) -> T) -> T {
    let mut sums = [T::ZERO; LANES];
    let whole = count / LANES * LANES;
    let mut start = 0;
    while start < whole {
        for (lane, sum) in sums.iter_mut().enumerate() {
            *sum += f(start + lane);
        }
        start += LANES;
    }
    for (lane, sum) in sums.iter_mut().enumerate().take(count - whole) {
        *sum += f(whole + lane);
    }
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            sums[lane] += sums[lane + half];
        }
        half /= 2;
    }
    sums[0]
}

#[inline(always)]
pub fn sum<T: Number>(x: &[T]) -> T {
    reduce(x.len(), |i| x[i])
}

#[inline(always)]
pub fn dot<T: Number>(x: &[T], y: &[T]) -> T {
    let y = &y[..x.len()];
    reduce(x.len(), |i| x[i] * y[i])
}

/// The Euclidean distance.
#[inline(always)]
pub fn distance<T: Number>(x: &[T], y: &[T]) -> T {
    let y = &y[..x.len()];
    reduce(x.len(), |i| (x[i] - y[i]) * (x[i] - y[i])).sqrt()
}

kernel! {
    /// Adds to the elements of `to` those of `x`, which has as many or more.
    pub fn add<'a, T>(simd; to: &'a mut [T], x: &'a [T]) {
        for w in windows::<S, T>(simd, to.len()) {
            w.write(to, w.read(to) + w.read(x));
        }
    }
}

/// y <- (y - mean) / sqrt(variance + eps), the normalised row; returns 1 / sqrt(variance + eps).
#[inline(always)]
pub fn normalize<S: Simd, T: Number>(_simd: S, y: &mut [T], eps: T) -> T {
    let count = T::of(y.len() as f64);
    let mean = sum(y) / count;
    for y in y.iter_mut() {
        *y -= mean;
    }
    let scale = T::ONE / (dot(y, y) / count + eps).sqrt();
    for y in y.iter_mut() {
        *y *= scale;
    }
    scale
}

/// A row scaled and shifted after its normalisation.
#[inline(always)]
pub fn affine<T: Number>(normal: &[T], weight: &[T], bias: &[T], y: &mut [T]) {
    let n = y.len();
    let (normal, weight, bias) = (&normal[..n], &weight[..n], &bias[..n]);
    for j in 0..n {
        y[j] = normal[j] * weight[j] + bias[j];
    }
}

/// Writes the gradient of a row before normalisation, scale and shift to `ds`, from the gradient `dy` after those;
/// adds to the gradients of scale and shift. `normal` and `scale` are the results of [`normalize`].
#[inline(always)]
pub fn normalize_backward<T: Number>(
    dy: &[T],
    normal: &[T],
    scale: T,
    weight: &[T],
    ds: &mut [T],
    (dweight, dbias): (&mut [T], &mut [T]),
) {
    let n = dy.len();
    let (normal, weight, ds) = (&normal[..n], &weight[..n], &mut ds[..n]);
    let (dweight, dbias) = (&mut dweight[..n], &mut dbias[..n]);
    for j in 0..n {
        dweight[j] += dy[j] * normal[j];
        dbias[j] += dy[j];
        ds[j] = dy[j] * weight[j];
    }
    let count = T::of(n as f64);
    let (mean, slope) = (sum(ds) / count, dot(ds, normal) / count);
    for j in 0..n {
        ds[j] = (ds[j] - mean - normal[j] * slope) * scale;
    }
}
