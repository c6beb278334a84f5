//! The control vector of a stream, equations (7) and (16), as in BBFN (Han et al. 2021).

pub mod cuda;

use std::ffi::CStr;
use std::sync::Arc;

use tch::Tensor;

use super::autograd::{Call, Io, Op, Shapes, apply};
use super::parallel;
use super::pieces::add_parts;
use super::recurrent::{Group, SIDE_BY_SIDE, place};
use super::weights::{Recurrent, shape2};
use crate::numeric::gemm::add_rows;
use crate::numeric::{
    LaidOut, Lanes, Matrix, Real, Scratch, Shared, Start, kernel, multiply, product, windows,
};
use crate::ragged::{Layout, Ragged};

/// Rows of d that a scan keeps of each frame for backward: r, z, n, W_hn h + b_hn, and the state before the
/// frame.
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

/// c(X) = mean_t (forward GRU(X) + backward GRU(X)) / 2, (7) (16): the control vector, gates r, z, n;
/// both scans start from zero at the true ends. Each entry lies in (-1, 1). Computes several streams at once.
///
/// # Shapes
/// `x` `(sum T, in)` and two directions of hidden size `d` give `(B, d)`.
pub fn bigru_control(streams: &[Bigru]) -> Vec<Tensor> {
    let calls = streams
        .iter()
        .map(|Bigru { x, forward, backward }| {
            let [_, hidden] = shape2(&forward.weight_hh.value);
            let directions = [forward, backward];
            let weights =
                directions.iter().flat_map(|w| [&w.weight_ih, &w.weight_hh, &w.bias_ih, &w.bias_hh]);
            Call {
                op: BigruControl { layout: Arc::clone(&x.layout), input: shape2(&x.frames)[1], hidden },
                inputs: std::iter::once((&x.frames).into()).chain(weights.map(Into::into)).collect(),
            }
        })
        .collect();
    apply(calls).into_iter().flatten().collect()
}

/// The arguments of one scan of a group in one direction.
struct Scan<'a, T> {
    group: Group<'a>,
    reverse: bool,
    hidden: usize,
    /// W_ih x + b_ih of the group's frames, plus b_hh for r and z, `(total, 3d)`.
    input: &'a [T],
    /// W_hh^T, `(d, 3d)`.
    weight: Matrix<'a, T>,
    /// b_hn
    bias_n: &'a [T],
    /// `(sum T, KEPT * d)`, or empty.
    kept: &'a Shared<'a, T>,
    /// Sums to which the states at all steps are added, a row of d for each member.
    sums: &'a mut [T],
}

/// The arguments of one scan for the gradient, from the last step to the first.
struct ScanBack<'a, T> {
    group: Group<'a>,
    reverse: bool,
    hidden: usize,
    kept: &'a [T],
    /// Gradient of the control vectors, `(B, d)`.
    dc: &'a [T],
    /// W_hh, `(3d, d)`.
    weight: Matrix<'a, T>,
    /// Gradients of the gates' arguments, `(total, 4d)`: n, r, z of the input's side, then n of the state's
    /// side. The three of either side are neighbours: r and z are the same for both.
    dgates: &'a mut [T],
    /// The states before each frame, `(total, d)`.
    before: &'a mut [T],
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
        let (d, inputs) = (self.hidden, self.input);
        let [kept_forward, kept_backward] = saved else { unreachable!("two directions") };
        let kept = [Shared::new(kept_forward), Shared::new(kept_backward)];
        let frames = Matrix::new(x[0], self.rows(), inputs);
        let prepared = [0, 1].map(|direction| {
            let [w_ih, w_hh, b_ih, b_hh] = weights(x, direction);
            // b_hn is not among these: r multiplies the state's side of n, bias included.
            let bias: Vec<T> =
                (0..3 * d).map(|j| if j < 2 * d { b_ih[j] + b_hh[j] } else { b_ih[j] }).collect();
            let w_ih = LaidOut::of(Matrix::new(w_ih, 3 * d, inputs).t());
            (w_ih, LaidOut::of(Matrix::new(w_hh, 3 * d, d).t()), bias, &b_hh[2 * d..])
        });
        let y = Shared::new(y[0]);
        let groups = Group::all(&self.layout);
        parallel::each(groups.len(), |i| {
            let group = groups[i];
            let mut input = Scratch::new(group.total() * 3 * d);
            let mut sums = Scratch::zeros(group.size() * d);
            for (direction, (w_ih, w_hh, bias, bias_n)) in prepared.iter().enumerate() {
                for m in 0..group.size() {
                    let own = &mut input[group.own(m) * 3 * d..];
                    let rows = group.frames(m);
                    let x = frames.rows(rows.start, rows.len());
                    multiply(x, w_ih.view(), own, 3 * d, Start::Row(bias));
                }
                scan(Scan {
                    group,
                    reverse: direction == 1,
                    hidden: d,
                    input: &input,
                    weight: w_hh.view(),
                    bias_n,
                    kept: &kept[direction],
                    sums: &mut sums,
                });
            }
            for (m, sum) in sums.chunks_exact(d).enumerate() {
                // SAFETY: each utterance is in one group.
                let c = unsafe { y.part(group.utterance(m) * d, d) };
                let share = T::of(0.5 / group.length(m) as f64);
                c.iter_mut().zip(sum).for_each(|(c, &sum)| *c = sum * share);
            }
        });
    }

    fn backward<T: Real>(&self, io: &Io<T>, dy: &[Option<&[T]>], dx: &mut [Option<&mut [T]>]) {
        let Some(dc) = dy[0] else { return };
        let (d, inputs) = (self.hidden, self.input);
        let x = Matrix::new(io.x[0], self.rows(), inputs);
        let prepared = [0, 1].map(|direction| {
            let [w_ih, w_hh, ..] = weights(io.x, direction);
            let w_ih = Matrix::new(w_ih, 3 * d, inputs);
            let [w_n, w_rz] = [w_ih.rows(2 * d, d), w_ih.rows(0, 2 * d)].map(LaidOut::of);
            (w_n, w_rz, LaidOut::of(Matrix::new(w_hh, 3 * d, d)))
        });
        let (dx, dweights) = dx.split_first_mut().expect("x and weights");
        let dx = dx.as_mut().map(|dx| Shared::new(dx));
        // Sizes of weight_ih, weight_hh, bias_ih, bias_hh of both directions.
        let sizes = [3 * d * inputs, 3 * d * d, 3 * d, 3 * d].repeat(2);
        let size = sizes.iter().sum();
        let parts = Group::parts(&self.layout);
        let mut sums = Scratch::new(parts.len() * size);
        {
            let sums = Shared::new(&mut sums);
            parallel::each(parts.len(), |i| {
                // SAFETY: each part has sums of its own.
                let sums = unsafe { sums.part(i * size, size) };
                for (n, &group) in parts[i].iter().enumerate() {
                    let so_far = if n == 0 { Start::Zero } else { Start::Itself };
                    let frames = gather(group, x);
                    let mut dgates = Scratch::new(group.total() * 4 * d);
                    let mut before = Scratch::new(group.total() * d);
                    for (direction, (sums, (w_n, w_rz, w_hh))) in
                        sums.chunks_exact_mut(size / 2).zip(&prepared).enumerate()
                    {
                        scan_back(ScanBack {
                            group,
                            reverse: direction == 1,
                            hidden: d,
                            kept: io.saved[direction],
                            dc,
                            weight: w_hh.view(),
                            dgates: &mut dgates,
                            before: &mut before,
                        });
                        let dgates = |start: usize, columns| {
                            Matrix::new(&dgates, group.total(), 4 * d).columns(start, columns)
                        };
                        for m in 0..if dx.is_some() { group.size() } else { 0 } {
                            let (own, rows) = (group.own(m), group.frames(m));
                            let dx = dx.as_ref().expect("checked");
                            // SAFETY: each utterance is in one group.
                            let dx = unsafe { dx.part(rows.start * inputs, rows.len() * inputs) };
                            for (start, weight) in [(0, w_n), (d, w_rz)] {
                                let weight = weight.view();
                                let dgates = dgates(start, weight.rows).rows(own, rows.len());
                                multiply(dgates, weight, dx, inputs, Start::Itself);
                            }
                        }
                        let frames = Matrix::new(&frames, group.total(), inputs);
                        let before = Matrix::new(&before, group.total(), d);
                        weights_backward(dgates, frames, before, so_far, sums);
                    }
                }
            });
        }
        add_parts(dweights, &sizes, &sums);
    }
}

impl BigruControl {
    fn rows(&self) -> usize {
        self.layout.rows()
    }
}

/// A copy of the group's frames, one member after the other.
fn gather<T: Real>(group: Group, x: Matrix<T>) -> Scratch<T> {
    let mut frames = Scratch::new(group.total() * x.columns);
    for m in 0..group.size() {
        let rows = group.frames(m);
        let from = &x.data[rows.start * x.columns..rows.end * x.columns];
        frames[group.own(m) * x.columns..][..from.len()].copy_from_slice(from);
    }
    frames
}

/// Writes the gradients of weight_ih, weight_hh, bias_ih and bias_hh of one direction to `sums`, or adds them, as
/// `so_far` says. `dgates(first, count)` returns some columns of the gates' gradients.
fn weights_backward<'a, T: Real>(
    dgates: impl Fn(usize, usize) -> Matrix<'a, T>,
    x: Matrix<T>,
    before: Matrix<T>,
    so_far: Start<T>,
    sums: &mut [T],
) {
    let (d, input) = (before.columns, x.columns);
    let (w_ih, sums) = sums.split_at_mut(3 * d * input);
    let (w_hh, sums) = sums.split_at_mut(3 * d * d);
    if let Start::Zero = so_far {
        sums.fill(T::ZERO);
    }
    let (b_ih, b_hh) = sums.split_at_mut(3 * d);
    let (n, rz, own) = (dgates(0, d), dgates(d, 2 * d), dgates(d, 3 * d));
    multiply(rz.t(), x, w_ih, input, so_far);
    multiply(n.t(), x, &mut w_ih[2 * d * input..], input, so_far);
    multiply(own.t(), before, w_hh, d, so_far);
    add_rows(rz, &mut b_ih[..2 * d]);
    add_rows(n, &mut b_ih[2 * d..]);
    add_rows(own, b_hh);
}

/// weight_ih, weight_hh, bias_ih, bias_hh of a direction.
fn weights<'a, T>(x: &[&'a [T]], direction: usize) -> [&'a [T]; 4] {
    let start = 1 + 4 * direction;
    [x[start], x[start + 1], x[start + 2], x[start + 3]]
}

kernel! {
    fn scan<'a, T>(simd; scan: Scan<'a, T>) {
        let Scan { group, reverse, hidden: d, input, weight, bias_n, kept, sums } = scan;
        let mut h = Scratch::zeros(SIDE_BY_SIDE * d);
        let mut own = Scratch::new(SIDE_BY_SIDE * 3 * d);
        for t in 0..group.steps() {
            let running = group.running(t);
            product(simd, Matrix::new(&h, running, d), weight, &mut own, 3 * d, Start::Zero);
            for m in 0..running {
                let frame = place(group.length(m), t, reverse);
                let count = if kept.is_empty() { 0 } else { KEPT * d };
                // SAFETY: each frame is one member's at one step of one scan.
                let row = unsafe { kept.part((group.frames(m).start + frame) * count, count) };
                let input = &input[(group.own(m) + frame) * 3 * d..][..3 * d];
                let (own, h, sum) = (&own[m * 3 * d..], &mut h[m * d..][..d], &mut sums[m * d..][..d]);
                step(simd, input, own, bias_n, (h, sum), row);
            }
        }
    }
}

/// One frame of one utterance: replaces the state `h` by the next and adds that to the sum; `row`, if not empty,
/// receives what backward needs.
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
    fn scan_back<'a, T>(simd; scan: ScanBack<'a, T>) {
        let ScanBack { group, reverse, hidden: d, kept, dc, weight, dgates, before } = scan;
        let mut dh = Scratch::zeros(SIDE_BY_SIDE * d);
        let mut share = Scratch::new(SIDE_BY_SIDE * d);
        for m in 0..group.size() {
            let part = T::of(0.5 / group.length(m) as f64);
            let dc = &dc[group.utterance(m) * d..][..d];
            share[m * d..].iter_mut().zip(dc).for_each(|(share, &dc)| *share = dc * part);
        }
        // The gradients of one step; the product reads those of the state's side.
        let mut rows = Scratch::new(SIDE_BY_SIDE * 4 * d);
        for t in (0..group.steps()).rev() {
            let running = group.running(t);
            for m in 0..running {
                let frame = place(group.length(m), t, reverse);
                let kept = &kept[(group.frames(m).start + frame) * KEPT * d..][..KEPT * d];
                let own = group.own(m) + frame;
                let to = [&mut rows[m * 4 * d..], &mut dgates[own * 4 * d..]];
                let (share, dh, before) = (&share[m * d..], &mut dh[m * d..][..d], &mut before[own * d..]);
                step_back(simd, kept, share, dh, to, before);
            }
            let own = Matrix::strided(&rows[d..], running, 3 * d, 4 * d);
            product(simd, own, weight, &mut dh, d, Start::Itself);
        }
    }
}

/// One frame of one utterance: writes gradients of the gates' arguments (n, r, z, and n on the state's side) to two
/// places. `dh` becomes the gradient that reaches the state before directly, not through the gates. The state
/// before is copied from `kept` to `before_frame`.
#[inline(always)]
fn step_back<S: pulp::Simd, T: Real>(
    simd: S,
    kept: &[T],
    share: &[T],
    dh: &mut [T],
    mut dgates: [&mut [T]; 2],
    before_frame: &mut [T],
) {
    let one = Lanes::splat(simd, T::ONE);
    for w in windows::<S, T>(simd, dh.len()) {
        let [r, z, n, own_n, before] = w.read_rows(kept);
        let dafter = w.read(dh) + w.read(share);
        w.write(dh, dafter * z);
        w.write(before_frame, before);
        let dz = dafter * (before - n) * z * (one - z);
        let dn = dafter * (one - z) * (one - n * n);
        let dr = dn * own_n * r * (one - r);
        for place in &mut dgates {
            w.write_rows(place, [dn, dr, dz, dn * r]);
        }
    }
}
