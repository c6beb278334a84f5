//! Central moment discrepancy, equations (24) and (25); Zellinger et al. 2017.

pub mod cuda;

use std::ffi::CStr;

use tch::Tensor;

use super::autograd::{Call, Io, Op, Shapes, apply};
use super::weights::shape2;
use crate::numeric::{Real, Scratch};

const MOMENTS: usize = 5;
/// |b - a| of the interval that control vectors lie in, [-1, 1].
const RANGE: f64 = 2.0;

struct Cmd {
    rows: usize,
    width: usize,
}

/// ||E(P) - E(Q)||_2 / |b - a| + sum_{k=2..5} ||C_k(P) - C_k(Q)||_2 / |b - a|^k, (24), a scalar: how far two samples
/// of vectors in [a, b] = [-1, 1] lie apart, by their means E and central moments C_k. Its gradient at equal inputs
/// is 0.
///
/// # Shapes
/// `p` and `q` `(B, d)`.
pub fn cmd(p: &Tensor, q: &Tensor) -> Tensor {
    let [rows, width] = shape2(p);
    apply(vec![Call { op: Cmd { rows, width }, inputs: vec![p.into(), q.into()] }]).remove(0).remove(0)
}

impl Cmd {
    /// The mean and the central moments 2 to 5 of each column, `(5, d)`.
    fn moments<T: Real>(&self, x: &[T]) -> Scratch<T> {
        let mut moments = Scratch::zeros(MOMENTS * self.width);
        let (mean, central) = moments.split_at_mut(self.width);
        let share = T::of(1.0 / self.rows as f64);
        for row in x.chunks_exact(self.width) {
            mean.iter_mut().zip(row).for_each(|(mean, &x)| *mean += x * share);
        }
        for row in x.chunks_exact(self.width) {
            for (j, (&x, &mean)) in row.iter().zip(&*mean).enumerate() {
                let from_mean = x - mean;
                let mut power = from_mean;
                for central in central.chunks_exact_mut(self.width) {
                    power *= from_mean;
                    central[j] += power * share;
                }
            }
        }
        moments
    }

    /// For each order the difference of the moments, and the length of that.
    fn differences<T: Real>(&self, p: &[T], q: &[T]) -> (Scratch<T>, [T; MOMENTS]) {
        let mut apart = self.moments(p);
        apart.iter_mut().zip(&*self.moments(q)).for_each(|(p, &q)| *p -= q);
        let mut lengths = [T::ZERO; MOMENTS];
        for (length, apart) in lengths.iter_mut().zip(apart.chunks_exact(self.width)) {
            *length = apart.iter().map(|&x| x * x).sum::<T>().sqrt();
        }
        (apart, lengths)
    }
}

/// The weight of order `k` (from 1): 1 / |b - a|^k.
fn weight<T: Real>(k: usize) -> T {
    T::of(RANGE.powi(-(k as i32)))
}

impl Op for Cmd {
    const NAME: &'static CStr = c"Cmd";

    fn shapes(&self) -> Shapes {
        Shapes { results: vec![vec![]], saved: vec![] }
    }

    fn forward<T: Real>(&self, x: &[&[T]], y: &mut [&mut [T]], _saved: &mut [&mut [T]]) {
        let (_, lengths) = self.differences(x[0], x[1]);
        y[0][0] = lengths.into_iter().zip(1..).map(|(length, k)| length * weight(k)).sum();
    }

    fn backward<T: Real>(&self, io: &Io<T>, dy: &[Option<&[T]>], dx: &mut [Option<&mut [T]>]) {
        let Some(dy) = dy[0] else { return };
        let (apart, lengths) = self.differences(io.x[0], io.x[1]);
        let share = dy[0] / T::of(self.rows as f64);
        for (side, dx) in dx.iter_mut().enumerate() {
            let Some(dx) = dx else { continue };
            let moments = self.moments(io.x[side]);
            let sign = if side == 0 { share } else { -share };
            for (dx, x) in dx.chunks_exact_mut(self.width).zip(io.x[side].chunks_exact(self.width)) {
                for j in 0..self.width {
                    // d(moment k) / dx = k (x - mean)^(k - 1), minus its mean, since the mean depends on x, too
                    let from_mean = x[j] - moments[j];
                    let mut power = T::ONE;
                    for k in 1..=MOMENTS {
                        let length = lengths[k - 1];
                        let mean_power = match k {
                            1 | 2 => T::ZERO,
                            _ => moments[(k - 2) * self.width + j],
                        };
                        if length > T::ZERO {
                            let toward = apart[(k - 1) * self.width + j] / length * weight(k);
                            dx[j] += sign * T::of(k as f64) * (power - mean_power) * toward;
                        }
                        power *= from_mean;
                    }
                }
            }
        }
    }
}
