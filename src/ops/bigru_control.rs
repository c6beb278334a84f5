//! The control vector of a stream, equations (7) and (16), as in BBFN (Han et al. 2021).

use std::ffi::CStr;
use std::sync::Arc;

use tch::Tensor;

use super::autograd::{Call, Io, Op, Shapes, apply};
use super::gemm::{column_sums, multiply_then, parallel_multiply};
use super::linear::{Activation, activate};
use super::recurrent::{Group, SIDE_BY_SIDE, as_panel, panel};
use super::{Recurrent, parallel};
use crate::numeric::{Matrix, Real, Scratch, Shared, kernel, multiply, pad, product};
use crate::ragged::{Layout, Ragged};

/// What a scan keeps of each frame for backward, rows of `pad(d)` each: r, z, n, W_hn h + b_hn, and the
/// state before the frame.
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
    /// W_ih x + b_ih, and b_hh where it is only added: `(sum T, 3d)` and a vector more.
    input: &'a [T],
    /// W_hh^T as a panel.
    weight: &'a [T],
    /// b_hn, padded.
    bias_n: &'a [T],
    /// `(sum T, KEPT * pad(d))`, or nothing.
    kept: &'a Shared<'a, T>,
    /// Sums of the states over time, `(B, pad(d))`.
    sums: &'a Shared<'a, T>,
}

/// One scan of the gradient, from the last step to the first.
struct ScanBack<'a, T> {
    group: Group<'a>,
    hidden: usize,
    kept: &'a [T],
    /// Gradient of the control vectors, `(B, d)`.
    dc: &'a [T],
    /// W_hh as a panel.
    weight: &'a [T],
    /// Gradients of the gates' arguments, `(sum T, 4d)`: n, r, z of the input's side, then n of the state's
    /// side, so that either side's three stand together.
    dgates: &'a Shared<'a, T>,
}

impl Op for BigruControl {
    const NAME: &'static CStr = c"BigruControl";

    fn shapes(&self) -> Shapes {
        Shapes {
            results: vec![vec![self.layout.batch_size() as i64, self.hidden as i64]],
            saved: vec![self.rows() * KEPT * pad(self.hidden); 2],
        }
    }

    fn forward<T: Real>(&self, x: &[&[T]], y: &mut [&mut [T]], saved: &mut [&mut [T]]) {
        let (d, width) = (self.hidden, pad(self.hidden));
        let [kept_forward, kept_backward] = saved else { unreachable!("two directions") };
        let kept = [Shared::new(kept_forward), Shared::new(kept_backward)];
        let frames = Matrix::new(x[0], self.rows(), self.input);

        let prepared: Vec<[Scratch<T>; 3]> = parallel::map(2, |direction| {
            let [w_ih, w_hh, b_ih, b_hh] = weights(x, direction);
            let mut input = Scratch::new(self.rows() * 3 * d + width);
            input[self.rows() * 3 * d..].fill(T::ZERO);
            // The state's side of n is added behind r, so its bias is too.
            let bias: Vec<T> =
                (0..3 * d).map(|j| if j < 2 * d { b_ih[j] + b_hh[j] } else { b_ih[j] }).collect();
            let product = (frames, Matrix::new(w_ih, 3 * d, self.input).t());
            multiply_then(product, &mut input, 3 * d, false, |rows, columns, input| {
                for r in rows {
                    // SAFETY: this piece's elements of row r.
                    let row = unsafe { input.part(r * 3 * d + columns.start, columns.len()) };
                    activate(row, &bias[columns.clone()], &mut [], Activation::None);
                }
            });
            let mut bias_n = Scratch::zeros(width);
            bias_n[..d].copy_from_slice(&b_hh[2 * d..]);
            [input, panel(Matrix::new(w_hh, 3 * d, d).t()), bias_n]
        });

        let batch = self.layout.batch_size();
        let mut sums = Scratch::<T>::new(2 * batch * width);
        let (forward, backward) = sums.split_at_mut(batch * width);
        let by_direction = [Shared::new(forward), Shared::new(backward)];
        let groups = self.groups();
        parallel::each(groups.len(), |i| {
            let (direction, group) = groups[i];
            let [input, weight, bias_n] = &prepared[direction];
            let (kept, sums) = (&kept[direction], &by_direction[direction]);
            scan(&Scan { group, hidden: d, input, weight, bias_n, kept, sums });
        });
        for (b, c) in y[0].chunks_exact_mut(d).enumerate() {
            let share = T::of(0.5 / self.layout.lengths[b] as f64);
            for (j, c) in c.iter_mut().enumerate() {
                *c = (sums[b * width + j] + sums[(batch + b) * width + j]) * share;
            }
        }
    }

    fn backward<T: Real>(&self, io: &Io<T>, dy: &[Option<&[T]>], dx: &mut [Option<&mut [T]>]) {
        let Some(dc) = dy[0] else { return };
        let (d, rows) = (self.hidden, self.rows());
        let panels: Vec<Scratch<T>> = parallel::map(2, |i| panel(Matrix::new(weights(io.x, i)[1], 3 * d, d)));
        let mut all = Scratch::new(2 * rows * 4 * d);
        let (forward, backward) = all.split_at_mut(rows * 4 * d);
        {
            let dgates = [Shared::new(forward), Shared::new(backward)];
            let groups = self.groups();
            parallel::each(groups.len(), |i| {
                let (direction, group) = groups[i];
                let (weight, dgates) = (&panels[direction], &dgates[direction]);
                let kept = io.saved[direction];
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
                    parallel_multiply(n, w_ih.rows(2 * d, d), dx, self.input, true);
                    parallel_multiply(rz, w_ih.rows(0, 2 * d), dx, self.input, true);
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
        let (d, width, rows) = (self.hidden, pad(self.hidden), self.rows());
        let part = |start: usize, columns: usize| Matrix::strided(&dgates[start..], rows, columns, 4 * d);
        let before = Matrix::strided(&kept[4 * width..], rows, d, KEPT * width);
        let [w_ih, w_hh, b_ih, b_hh] = dweights else { unreachable!("four weights a direction") };
        if let Some(w_ih) = w_ih {
            let (rz, n) = w_ih.split_at_mut(2 * d * self.input);
            multiply(part(d, 2 * d).t(), x, rz, self.input, true);
            multiply(part(0, d).t(), x, n, self.input, true);
        }
        if let Some(w_hh) = w_hh {
            multiply(part(d, 3 * d).t(), before, w_hh, d, true);
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
        let (width, gates) = (pad(d), pad(3 * d));
        let mut h = Scratch::zeros(SIDE_BY_SIDE * width);
        let mut sum = Scratch::zeros(SIDE_BY_SIDE * width);
        // Rows are read a whole vector past the last gate.
        let mut own = Scratch::zeros(SIDE_BY_SIDE * gates + width);
        let mut row = Scratch::new(KEPT * width);
        for t in 0..group.steps() {
            let running = group.running(t);
            let states = Matrix::strided(&h, running, d, width);
            product(simd, &states, &as_panel(weight, 3 * d), 3 * d, &mut own, gates, false);
            for m in 0..running {
                let frame = group.frame(m, t);
                let row = if kept.is_empty() {
                    &mut row[..]
                } else {
                    // SAFETY: each frame is one member's at one step of one scan.
                    unsafe { kept.part(frame * KEPT * width, KEPT * width) }
                };
                let lane = m * width..(m + 1) * width;
                let (h, sum) = (&mut h[lane.clone()], &mut sum[lane]);
                step::<S, T>(&input[frame * 3 * d..], &own[m * gates..], bias_n, d, h, row);
                sum.iter_mut().zip(h).for_each(|(sum, h)| *sum += *h);
            }
        }
        for (m, sum) in sum.chunks_exact(width).take(group.size()).enumerate() {
            // SAFETY: each utterance is in one scan of this direction.
            unsafe { sums.part(group.utterance(m) * width, width) }.copy_from_slice(sum);
        }
    }
}

/// One frame of one utterance: the state `h` becomes the next, `row` is what backward needs.
#[inline(always)]
fn step<S: pulp::Simd, T: Real>(input: &[T], own: &[T], bias_n: &[T], d: usize, h: &mut [T], row: &mut [T]) {
    let width = h.len();
    let (x_r, x_z, x_n) = (&input[..width], &input[d..][..width], &input[2 * d..][..width]);
    let (h_r, h_z, h_n) = (&own[..width], &own[d..][..width], &own[2 * d..][..width]);
    let bias_n = &bias_n[..width];
    let (r, row) = row.split_at_mut(width);
    let (z, row) = row.split_at_mut(width);
    let (n, row) = row.split_at_mut(width);
    let (own_n, before) = row.split_at_mut(width);
    let before = &mut before[..width];
    for j in 0..width {
        r[j] = (x_r[j] + h_r[j]).sigmoid::<S>();
    }
    for j in 0..width {
        z[j] = (x_z[j] + h_z[j]).sigmoid::<S>();
    }
    for j in 0..width {
        own_n[j] = h_n[j] + bias_n[j];
        n[j] = (x_n[j] + r[j] * own_n[j]).tanh::<S>();
    }
    for j in 0..width {
        before[j] = h[j];
        h[j] = n[j] + z[j] * (h[j] - n[j]);
    }
}

kernel! {
    fn scan_back<'a, T>(simd; scan: &'a ScanBack<'a, T>) {
        let ScanBack { group, hidden: d, kept, dc, weight, dgates } = *scan;
        let width = pad(d);
        let mut dh = Scratch::zeros(SIDE_BY_SIDE * width);
        let mut share = Scratch::zeros(SIDE_BY_SIDE * width);
        for m in 0..group.size() {
            let part = T::of(0.5 / group.length(m) as f64);
            let dc = &dc[group.utterance(m) * d..][..d];
            share[m * width..].iter_mut().zip(dc).for_each(|(share, &dc)| *share = dc * part);
        }
        let mut through = Scratch::new(SIDE_BY_SIDE * width);
        let mut rows = Scratch::new(SIDE_BY_SIDE * 4 * d);
        let mut wide = Scratch::new(4 * width);
        for t in (0..group.steps()).rev() {
            let running = group.running(t);
            for m in 0..running {
                let frame = group.frame(m, t);
                let lane = m * width..(m + 1) * width;
                let kept = &kept[frame * KEPT * width..][..KEPT * width];
                step_back(kept, &dh[lane.clone()], &share[lane.clone()], &mut through[lane], &mut wide);
                let row = &mut rows[m * 4 * d..][..4 * d];
                for (gate, row) in row.chunks_exact_mut(d).enumerate() {
                    row.copy_from_slice(&wide[gate * width..][..d]);
                }
                // SAFETY: each frame is one member's at one step of one scan.
                unsafe { dgates.part(frame * 4 * d, 4 * d) }.copy_from_slice(row);
            }
            let own = Matrix::strided(&rows[d..], running, 3 * d, 4 * d);
            product(simd, &own, &as_panel(weight, d), d, &mut dh, width, false);
            let lanes = running * width;
            dh[..lanes].iter_mut().zip(&through[..lanes]).for_each(|(dh, &through)| *dh += through);
        }
    }
}

/// One frame of one utterance: gradients of the gates' arguments (n, r, z, and n on the state's side) and
/// what passes `through` to the state before.
#[inline(always)]
fn step_back<T: Real>(kept: &[T], dh: &[T], share: &[T], through: &mut [T], dgates: &mut [T]) {
    let width = dh.len();
    let (r, kept) = kept.split_at(width);
    let (z, kept) = kept.split_at(width);
    let (n, kept) = kept.split_at(width);
    let (own_n, before) = kept.split_at(width);
    let (share, before, through) = (&share[..width], &before[..width], &mut through[..width]);
    let (dn, dgates) = dgates.split_at_mut(width);
    let (dr, dgates) = dgates.split_at_mut(width);
    let (dz, dgates) = dgates.split_at_mut(width);
    let dn_own = &mut dgates[..width];
    for j in 0..width {
        let dh = dh[j] + share[j];
        through[j] = dh * z[j];
        dz[j] = dh * (before[j] - n[j]) * z[j] * (T::ONE - z[j]);
        dn[j] = dh * (T::ONE - z[j]) * (T::ONE - n[j] * n[j]);
        dn_own[j] = dn[j] * r[j];
        dr[j] = dn[j] * own_n[j] * r[j] * (T::ONE - r[j]);
    }
}
