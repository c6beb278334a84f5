//! The control vector of a stream, equations (7) and (16), as in BBFN (Han et al. 2021).

use std::ffi::CStr;
use std::sync::Arc;

use tch::Tensor;

use super::autograd::{Call, Io, Op, Shapes, apply};
use super::gemm::{column_sums, parallel_multiply};
use super::recurrent::{Group, SIDE_BY_SIDE};
use super::{Recurrent, parallel};
use crate::numeric::{
    LaidOut, Lanes, Matrix, Real, Scratch, Shared, Start, kernel, multiply, product, windows,
};
use crate::ragged::{Layout, Ragged};

/// What a scan keeps of each frame for backward, rows of d each: r, z, n, W_hn h + b_hn, and the state
/// before the frame.
const KEPT: usize = 5;

struct BigruControl {
    layout: Arc<Layout>,
    input: usize,
    hidden: usize,
}

/// The two directions of a bidirectional GRU.
pub struct Bigru<'a> {
    pub x: &'a Ragged,
    pub forward: &'a Recurrent,
    pub backward: &'a Recurrent,
}

/// c(X): the mean over time of a bidirectional GRU, the two directions' halves averaged; gates r, z, n;
/// both scans start from zero at the true ends. Each entry lies in (-1, 1). Several streams at once.
///
/// # Shapes
/// `x` `(sum T, in)`, two directions of hidden size `d`, to `(B, d)`.
pub fn bigru_control(streams: &[Bigru]) -> Vec<Tensor> {
    let calls = streams
        .iter()
        .map(|Bigru { x, forward, backward }| {
            let [_, hidden] = super::shape2(&forward.weight_hh.value);
            let directions = [forward, backward];
            let weights =
                directions.iter().flat_map(|w| [&w.weight_ih, &w.weight_hh, &w.bias_ih, &w.bias_hh]);
            Call {
                op: BigruControl {
                    layout: Arc::clone(&x.layout),
                    input: super::shape2(&x.frames)[1],
                    hidden,
                },
                inputs: std::iter::once((&x.frames).into()).chain(weights.map(Into::into)).collect(),
            }
        })
        .collect();
    apply(calls).into_iter().flatten().collect()
}

/// One scan of a few utterances in one direction.
struct Scan<'a, T> {
    group: Group<'a>,
    hidden: usize,
    /// W_ih x + b_ih, and b_hh where it is only added: `(sum T, 3d)`.
    input: &'a [T],
    /// W_hh^T, `(d, 3d)`.
    weight: Matrix<'a, T>,
    /// b_hn
    bias_n: &'a [T],
    /// `(sum T, KEPT * d)`, or nothing.
    kept: &'a Shared<'a, T>,
    /// Sums of the states over time, `(B, d)`.
    sums: &'a Shared<'a, T>,
}

/// One scan of the gradient, from the last step to the first.
struct ScanBack<'a, T> {
    group: Group<'a>,
    hidden: usize,
    kept: &'a [T],
    /// Gradient of the control vectors, `(B, d)`.
    dc: &'a [T],
    /// W_hh, `(3d, d)`.
    weight: Matrix<'a, T>,
    /// Gradients of the gates' arguments, `(sum T, 4d)`: n, r, z of the input's side, then n of the state's
    /// side, so that either side's three stand together.
    dgates: &'a Shared<'a, T>,
}

impl Op for BigruControl {
    const NAME: &'static CStr = c"BigruControl";

    fn shapes(&self) -> Shapes {
        Shapes {
            results: vec![vec![self.layout.batch_size() as i64, self.hidden as i64]],
            saved: vec![self.rows() * KEPT * self.hidden; 2],
        }
    }

    fn forward<T: Real>(&self, x: &[&[T]], y: &mut [&mut [T]], saved: &mut [&mut [T]]) {
        let d = self.hidden;
        let [kept_forward, kept_backward] = saved else { unreachable!("two directions") };
        let kept = [Shared::new(kept_forward), Shared::new(kept_backward)];
        let frames = Matrix::new(x[0], self.rows(), self.input);

        let prepared: Vec<(Scratch<T>, LaidOut<T>)> = parallel::map(2, |direction| {
            let [w_ih, w_hh, b_ih, b_hh] = weights(x, direction);
            let mut input = Scratch::new(self.rows() * 3 * d);
            // The state's side of n is added behind r, so its bias is too.
            let bias: Vec<T> =
                (0..3 * d).map(|j| if j < 2 * d { b_ih[j] + b_hh[j] } else { b_ih[j] }).collect();
            let w_ih = Matrix::new(w_ih, 3 * d, self.input);
            parallel_multiply(frames, w_ih.t(), &mut input, Start::Row(&bias));
            (input, LaidOut::of(Matrix::new(w_hh, 3 * d, d).t()))
        });

        let batch = self.layout.batch_size();
        let mut sums = Scratch::<T>::new(2 * batch * d);
        let (forward, backward) = sums.split_at_mut(batch * d);
        let by_direction = [Shared::new(forward), Shared::new(backward)];
        let groups = self.groups();
        parallel::each(groups.len(), |i| {
            let (direction, group) = groups[i];
            let (input, weight) = &prepared[direction];
            let (weight, bias_n) = (weight.view(), &weights(x, direction)[3][2 * d..]);
            let (kept, sums) = (&kept[direction], &by_direction[direction]);
            scan(&Scan { group, hidden: d, input, weight, bias_n, kept, sums });
        });
        for (b, c) in y[0].chunks_exact_mut(d).enumerate() {
            let share = T::of(0.5 / self.layout.lengths[b] as f64);
            for (j, c) in c.iter_mut().enumerate() {
                *c = (sums[b * d + j] + sums[(batch + b) * d + j]) * share;
            }
        }
    }

    fn backward<T: Real>(&self, io: &Io<T>, dy: &[Option<&[T]>], dx: &mut [Option<&mut [T]>]) {
        let Some(dc) = dy[0] else { return };
        let (d, rows) = (self.hidden, self.rows());
        let w_hh = [0, 1].map(|direction| LaidOut::of(Matrix::new(weights(io.x, direction)[1], 3 * d, d)));
        let mut all = Scratch::new(2 * rows * 4 * d);
        let (forward, backward) = all.split_at_mut(rows * 4 * d);
        {
            let dgates = [Shared::new(forward), Shared::new(backward)];
            let groups = self.groups();
            parallel::each(groups.len(), |i| {
                let (direction, group) = groups[i];
                let weight = w_hh[direction].view();
                let (kept, dgates) = (io.saved[direction], &dgates[direction]);
                scan_back(&ScanBack { group, hidden: d, kept, dc, weight, dgates });
            });
        }

        let dgates = [&*forward, &*backward];
        let x = Matrix::new(io.x[0], rows, self.input);
        let (dx, dweights) = dx.split_first_mut().expect("x and weights");
        let mut dweights: Vec<_> = dweights.chunks_exact_mut(4).zip(dgates).enumerate().collect();
        parallel::both(
            || {
                let Some(dx) = dx else { return };
                for (direction, dgates) in dgates.into_iter().enumerate() {
                    let w_ih = Matrix::new(weights(io.x, direction)[0], 3 * d, self.input);
                    let n = Matrix::strided(dgates, rows, d, 4 * d);
                    let rz = Matrix::strided(&dgates[d..], rows, 2 * d, 4 * d);
                    parallel_multiply(n, w_ih.rows(2 * d, d), dx, Start::Itself);
                    parallel_multiply(rz, w_ih.rows(0, 2 * d), dx, Start::Itself);
                }
            },
            || {
                parallel::each_of(&mut dweights, |(direction, (dweights, dgates))| {
                    self.weights_backward(x, io.saved[*direction], dgates, dweights);
                });
            },
        );
    }
}

impl BigruControl {
    fn rows(&self) -> usize {
        self.layout.total as usize
    }

    /// All scans, the longest ones first.
    fn groups(&self) -> Vec<(usize, Group<'_>)> {
        let [forward, backward] = [false, true].map(|reverse| Group::all(&self.layout, reverse));
        forward.zip(backward).flat_map(|(a, b)| [(0, a), (1, b)]).collect()
    }

    fn weights_backward<T: Real>(
        &self,
        x: Matrix<T>,
        kept: &[T],
        dgates: &[T],
        dweights: &mut [Option<&mut [T]>],
    ) {
        let (d, rows) = (self.hidden, self.rows());
        let part = |start: usize, columns: usize| Matrix::strided(&dgates[start..], rows, columns, 4 * d);
        let before = Matrix::strided(&kept[4 * d..], rows, d, KEPT * d);
        let [w_ih, w_hh, b_ih, b_hh] = dweights else { unreachable!("four weights a direction") };
        if let Some(w_ih) = w_ih {
            let (rz, n) = w_ih.split_at_mut(2 * d * self.input);
            multiply(part(d, 2 * d).t(), x, rz, self.input, Start::Itself);
            multiply(part(0, d).t(), x, n, self.input, Start::Itself);
        }
        if let Some(w_hh) = w_hh {
            multiply(part(d, 3 * d).t(), before, w_hh, d, Start::Itself);
        }
        if let Some(b_ih) = b_ih {
            let (rz, n) = b_ih.split_at_mut(2 * d);
            column_sums(&part(d, 2 * d), rz);
            column_sums(&part(0, d), n);
        }
        if let Some(b_hh) = b_hh {
            column_sums(&part(d, 3 * d), b_hh);
        }
    }
}

/// weight_ih, weight_hh, bias_ih, bias_hh of a direction.
fn weights<'a, T>(x: &[&'a [T]], direction: usize) -> [&'a [T]; 4] {
    let start = 1 + 4 * direction;
    [x[start], x[start + 1], x[start + 2], x[start + 3]]
}

kernel! {
    fn scan<'a, T>(simd; scan: &'a Scan<'a, T>) {
        let Scan { group, hidden: d, input, weight, bias_n, kept, sums } = *scan;
        let mut h = Scratch::zeros(SIDE_BY_SIDE * d);
        let mut sum = Scratch::zeros(SIDE_BY_SIDE * d);
        let mut own = Scratch::new(SIDE_BY_SIDE * 3 * d);
        for t in 0..group.steps() {
            let running = group.running(t);
            product(simd, Matrix::new(&h, running, d), weight, &mut own, 3 * d, Start::Zero);
            for m in 0..running {
                let frame = group.frame(m, t);
                let count = if kept.is_empty() { 0 } else { KEPT * d };
                // SAFETY: each frame is one member's at one step of one scan.
                let row = unsafe { kept.part(frame * count, count) };
                let (input, own) = (&input[frame * 3 * d..][..3 * d], &own[m * 3 * d..][..3 * d]);
                let (h, sum) = (&mut h[m * d..][..d], &mut sum[m * d..][..d]);
                step(simd, input, own, bias_n, (h, sum), row);
            }
        }
        for (m, sum) in sum.chunks_exact(d).take(group.size()).enumerate() {
            // SAFETY: each utterance is in one scan of this direction.
            unsafe { sums.part(group.utterance(m) * d, d) }.copy_from_slice(sum);
        }
    }
}

/// One frame of one utterance: the state `h` becomes the next and is added to the sum; `row`, where there is
/// one, is what backward needs.
#[inline(always)]
fn step<S: pulp::Simd, T: Real>(
    simd: S,
    input: &[T],
    own: &[T],
    bias_n: &[T],
    (h, sum): (&mut [T], &mut [T]),
    row: &mut [T],
) {
    for w in windows::<S, T>(simd, h.len()) {
        let ([x_r, x_z, x_n], [h_r, h_z, h_n]) = (w.read_rows(input), w.read_rows(own));
        let r = (x_r + h_r).sigmoid();
        let z = (x_z + h_z).sigmoid();
        let own_n = h_n + w.read(bias_n);
        let n = r.fma(own_n, x_n).tanh();
        let before = w.read(h);
        let after = z.fma(before - n, n);
        w.write(h, after);
        w.write(sum, w.read(sum) + after);
        if !row.is_empty() {
            w.write_rows(row, [r, z, n, own_n, before]);
        }
    }
}

kernel! {
    fn scan_back<'a, T>(simd; scan: &'a ScanBack<'a, T>) {
        let ScanBack { group, hidden: d, kept, dc, weight, dgates } = *scan;
        let mut dh = Scratch::zeros(SIDE_BY_SIDE * d);
        let mut share = Scratch::new(SIDE_BY_SIDE * d);
        for m in 0..group.size() {
            let part = T::of(0.5 / group.length(m) as f64);
            let dc = &dc[group.utterance(m) * d..][..d];
            share[m * d..].iter_mut().zip(dc).for_each(|(share, &dc)| *share = dc * part);
        }
        let mut rows = Scratch::new(SIDE_BY_SIDE * 4 * d);
        for t in (0..group.steps()).rev() {
            let running = group.running(t);
            for m in 0..running {
                let frame = group.frame(m, t);
                let kept = &kept[frame * KEPT * d..][..KEPT * d];
                let row = &mut rows[m * 4 * d..][..4 * d];
                // SAFETY: each frame is one member's at one step of one scan.
                let dgates = unsafe { dgates.part(frame * 4 * d, 4 * d) };
                step_back(simd, kept, &share[m * d..][..d], &mut dh[m * d..][..d], [row, dgates]);
            }
            let own = Matrix::strided(&rows[d..], running, 3 * d, 4 * d);
            product(simd, own, weight, &mut dh, d, Start::Itself);
        }
    }
}

/// One frame of one utterance: gradients of the gates' arguments (n, r, z, and n on the state's side), to two
/// places; `dh` becomes what passes to the state before past the gates.
#[inline(always)]
fn step_back<S: pulp::Simd, T: Real>(
    simd: S,
    kept: &[T],
    share: &[T],
    dh: &mut [T],
    mut dgates: [&mut [T]; 2],
) {
    let one = Lanes::splat(simd, T::ONE);
    for w in windows::<S, T>(simd, dh.len()) {
        let [r, z, n, own_n, before] = w.read_rows(kept);
        let dafter = w.read(dh) + w.read(share);
        w.write(dh, dafter * z);
        let dz = dafter * (before - n) * z * (one - z);
        let dn = dafter * (one - z) * (one - n * n);
        let dr = dn * own_n * r * (one - r);
        for place in &mut dgates {
            w.write_rows(place, [dn, dr, dz, dn * r]);
        }
    }
}
