//! Uni-directional LSTM over packed frames, equations (1) and (2).

use std::ffi::CStr;
use std::sync::Arc;

use tch::Tensor;

use super::autograd::{Call, Io, Op, Shapes, apply};
use super::gemm::{column_sums, multiply_then, parallel_multiply};
use super::linear::{Activation, activate};
use super::recurrent::{Group, SIDE_BY_SIDE, as_panel, panel};
use super::{Recurrent, parallel};
use crate::numeric::{Matrix, Real, Scratch, Shared, kernel, pad, product};
use crate::ragged::{Layout, Ragged};

/// What a scan keeps of each frame for backward, rows of `pad(hidden)` each: i, f, g, o, the cell before,
/// tanh of the cell after, and the state before.
const KEPT: usize = 7;

struct Lstm {
    layout: Arc<Layout>,
    input: usize,
    hidden: usize,
}

/// The hidden sequence of a 1-layer LSTM, gates i, f, g, o, started from zero at each utterance's
/// first true frame. Several sequences at once.
///
/// # Shapes
/// `x` `(sum T, in)` to `(sum T, hidden)`.
pub fn lstm(sequences: &[(&Ragged, &Recurrent)]) -> Vec<Tensor> {
    let calls = sequences
        .iter()
        .map(|(x, w)| Call {
            op: Lstm {
                layout: Arc::clone(&x.layout),
                input: super::shape2(&x.frames)[1],
                hidden: super::shape2(&w.weight_hh.value)[1],
            },
            inputs: vec![
                (&x.frames).into(),
                (&w.weight_ih).into(),
                (&w.weight_hh).into(),
                (&w.bias_ih).into(),
                (&w.bias_hh).into(),
            ],
        })
        .collect();
    apply(calls).into_iter().flatten().collect()
}

struct Scan<'a, T> {
    group: Group<'a>,
    hidden: usize,
    /// W_ih x + b_ih + b_hh, `(sum T, 4 * hidden)` and a vector more.
    input: &'a [T],
    /// W_hh^T as a panel.
    weight: &'a [T],
    /// `(sum T, KEPT * pad(hidden))`, or nothing.
    kept: &'a Shared<'a, T>,
    /// The hidden sequence, `(sum T, hidden)`.
    y: &'a Shared<'a, T>,
}

struct ScanBack<'a, T> {
    group: Group<'a>,
    hidden: usize,
    kept: &'a [T],
    dy: &'a [T],
    /// W_hh as a panel.
    weight: &'a [T],
    /// Gradients of the gates' arguments, `(sum T, 4 * hidden)`.
    dgates: &'a Shared<'a, T>,
}

impl Lstm {
    fn rows(&self) -> usize {
        self.layout.total as usize
    }
}

impl Op for Lstm {
    const NAME: &'static CStr = c"Lstm";

    fn shapes(&self) -> Shapes {
        Shapes {
            results: vec![vec![self.layout.total, self.hidden as i64]],
            saved: vec![self.rows() * KEPT * pad(self.hidden)],
        }
    }

    fn forward<T: Real>(&self, x: &[&[T]], y: &mut [&mut [T]], saved: &mut [&mut [T]]) {
        let (hidden, rows) = (self.hidden, self.rows());
        let &[frames, w_ih, w_hh, b_ih, b_hh] = x else { unreachable!("x and four weights") };
        let mut input = Scratch::new(rows * 4 * hidden + pad(hidden));
        input[rows * 4 * hidden..].fill(T::ZERO);
        let bias: Vec<T> = b_ih.iter().zip(b_hh).map(|(&ih, &hh)| ih + hh).collect();
        let product = (Matrix::new(frames, rows, self.input), Matrix::new(w_ih, 4 * hidden, self.input).t());
        multiply_then(product, &mut input, 4 * hidden, false, |rows, columns, input| {
            for r in rows {
                // SAFETY: this piece's elements of row r.
                let row = unsafe { input.part(r * 4 * hidden + columns.start, columns.len()) };
                activate(row, &bias[columns.clone()], &mut [], Activation::None);
            }
        });
        let weight = panel(Matrix::new(w_hh, 4 * hidden, hidden).t());
        let (kept, y) = (Shared::new(saved[0]), Shared::new(y[0]));
        let groups: Vec<Group> = Group::all(&self.layout, false).collect();
        let (input, weight) = (&input[..], &weight[..]);
        parallel::each(groups.len(), |i| {
            scan(&Scan { group: groups[i], hidden, input, weight, kept: &kept, y: &y });
        });
    }

    fn backward<T: Real>(&self, io: &Io<T>, dy: &[Option<&[T]>], dx: &mut [Option<&mut [T]>]) {
        let Some(dy) = dy[0] else { return };
        let (hidden, width, rows) = (self.hidden, pad(self.hidden), self.rows());
        let &[frames, w_ih, w_hh, ..] = io.x else { unreachable!("x and four weights") };
        let weight = panel(Matrix::new(w_hh, 4 * hidden, hidden));
        let mut dgates = Scratch::new(rows * 4 * hidden);
        let groups: Vec<Group> = Group::all(&self.layout, false).collect();
        {
            let (dgates, weight) = (Shared::new(&mut dgates), &weight[..]);
            parallel::each(groups.len(), |i| {
                let (group, kept) = (groups[i], io.saved[0]);
                scan_back(&ScanBack { group, hidden, kept, dy, weight, dgates: &dgates });
            });
        }
        let dgates = Matrix::new(&dgates, rows, 4 * hidden);
        let before = Matrix::strided(&io.saved[0][6 * width..], rows, hidden, KEPT * width);
        let [dx, dw_ih, dw_hh, db_ih, db_hh] = dx else { unreachable!("x and four weights") };
        if let Some(dx) = dx {
            let w_ih = Matrix::new(w_ih, 4 * hidden, self.input);
            parallel_multiply(dgates, w_ih, dx, self.input, true);
        }
        if let Some(dw_ih) = dw_ih {
            let frames = Matrix::new(frames, rows, self.input);
            parallel_multiply(dgates.t(), frames, dw_ih, self.input, true);
        }
        if let Some(dw_hh) = dw_hh {
            parallel_multiply(dgates.t(), before, dw_hh, hidden, true);
        }
        for bias in [db_ih, db_hh].into_iter().flatten() {
            column_sums(&dgates, bias);
        }
    }
}

kernel! {
    fn scan<'a, T>(simd; scan: &'a Scan<'a, T>) {
        let Scan { group, hidden, input, weight, kept, y } = *scan;
        let (width, gates) = (pad(hidden), pad(4 * hidden));
        let mut h = Scratch::zeros(SIDE_BY_SIDE * width);
        let mut c = Scratch::zeros(SIDE_BY_SIDE * width);
        // Rows are read a whole vector past the last gate.
        let mut own = Scratch::zeros(SIDE_BY_SIDE * gates + width);
        let mut row = Scratch::new(KEPT * width);
        for t in 0..group.steps() {
            let running = group.running(t);
            let states = Matrix::strided(&h, running, hidden, width);
            product(simd, &states, &as_panel(weight, 4 * hidden), 4 * hidden, &mut own, gates, false);
            for m in 0..running {
                let frame = group.frame(m, t);
                // SAFETY: each frame is one member's at one step of one scan.
                let (row, y) = unsafe {
                    let kept = if kept.is_empty() {
                        &mut row[..]
                    } else {
                        kept.part(frame * KEPT * width, KEPT * width)
                    };
                    (kept, y.part(frame * hidden, hidden))
                };
                let lane = m * width..(m + 1) * width;
                let (h, c) = (&mut h[lane.clone()], &mut c[lane]);
                step::<S, T>(&input[frame * 4 * hidden..], &own[m * gates..], hidden, (h, c), row);
                y.copy_from_slice(&h[..hidden]);
            }
        }
    }
}

/// One frame of one utterance: state and cell become the next, `row` is what backward needs.
#[inline(always)]
fn step<S: pulp::Simd, T: Real>(
    input: &[T],
    own: &[T],
    hidden: usize,
    (h, c): (&mut [T], &mut [T]),
    row: &mut [T],
) {
    let width = h.len();
    let c = &mut c[..width];
    let mut gates = row.chunks_exact_mut(width);
    let mut next = || gates.next().expect("KEPT rows");
    let [i, f, g, o, cell, tanh, before] = [next(), next(), next(), next(), next(), next(), next()];
    for (at, gate) in [&mut *i, &mut *f, &mut *o].into_iter().zip([0, 1, 3]).map(|(gate, at)| (at, gate)) {
        let (x, own, gate) =
            (&input[at * hidden..][..width], &own[at * hidden..][..width], &mut gate[..width]);
        for j in 0..width {
            gate[j] = (x[j] + own[j]).sigmoid::<S>();
        }
    }
    let (x, own) = (&input[2 * hidden..][..width], &own[2 * hidden..][..width]);
    for j in 0..width {
        g[j] = (x[j] + own[j]).tanh::<S>();
    }
    for j in 0..width {
        cell[j] = c[j];
        before[j] = h[j];
        c[j] = f[j] * c[j] + i[j] * g[j];
        tanh[j] = c[j].tanh::<S>();
        h[j] = o[j] * tanh[j];
    }
}

kernel! {
    fn scan_back<'a, T>(simd; scan: &'a ScanBack<'a, T>) {
        let ScanBack { group, hidden, kept, dy, weight, dgates } = *scan;
        let width = pad(hidden);
        let mut dh = Scratch::zeros(SIDE_BY_SIDE * width);
        let mut dc = Scratch::zeros(SIDE_BY_SIDE * width);
        let mut rows = Scratch::new(SIDE_BY_SIDE * 4 * hidden);
        let mut wide = Scratch::new(4 * width);
        for t in (0..group.steps()).rev() {
            let running = group.running(t);
            for m in 0..running {
                let frame = group.frame(m, t);
                let lane = m * width..(m + 1) * width;
                let (dh, dc) = (&mut dh[lane.clone()], &mut dc[lane]);
                dh.iter_mut().zip(&dy[frame * hidden..][..hidden]).for_each(|(dh, &dy)| *dh += dy);
                step_back(&kept[frame * KEPT * width..][..KEPT * width], dh, dc, &mut wide);
                let row = &mut rows[m * 4 * hidden..][..4 * hidden];
                for (gate, row) in row.chunks_exact_mut(hidden).enumerate() {
                    row.copy_from_slice(&wide[gate * width..][..hidden]);
                }
                // SAFETY: each frame is one member's at one step of one scan.
                unsafe { dgates.part(frame * 4 * hidden, 4 * hidden) }.copy_from_slice(row);
            }
            let own = Matrix::strided(&rows, running, 4 * hidden, 4 * hidden);
            product(simd, &own, &as_panel(weight, hidden), hidden, &mut dh, width, false);
        }
    }
}

/// One frame of one utterance: gradients of the gates' arguments; `dc` becomes that of the cell before.
#[inline(always)]
fn step_back<T: Real>(kept: &[T], dh: &[T], dc: &mut [T], dgates: &mut [T]) {
    let width = dh.len();
    let dc = &mut dc[..width];
    let row = |at: usize| &kept[at * width..][..width];
    let [i, f, g, o, cell, tanh] = [row(0), row(1), row(2), row(3), row(4), row(5)];
    let (di, dgates) = dgates.split_at_mut(width);
    let (df, dgates) = dgates.split_at_mut(width);
    let (dg, dgates) = dgates.split_at_mut(width);
    let d_o = &mut dgates[..width];
    for j in 0..width {
        let dcell = dc[j] + dh[j] * o[j] * (T::ONE - tanh[j] * tanh[j]);
        d_o[j] = dh[j] * tanh[j] * o[j] * (T::ONE - o[j]);
        di[j] = dcell * g[j] * i[j] * (T::ONE - i[j]);
        df[j] = dcell * cell[j] * f[j] * (T::ONE - f[j]);
        dg[j] = dcell * i[j] * (T::ONE - g[j] * g[j]);
        dc[j] = dcell * f[j];
    }
}
