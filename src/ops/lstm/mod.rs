//! Uni-directional LSTM over packed frames, equations (1) and (2).

pub mod cuda;

use std::ffi::CStr;
use std::sync::Arc;

use tch::Tensor;

use super::autograd::{Call, Io, Op, Shapes, apply};
use super::parallel;
use super::recurrent::{Group, SIDE_BY_SIDE};
use super::weights::{Recurrent, shape2};
use crate::numeric::gemm::{column_sums, parallel_multiply};
use crate::numeric::{LaidOut, Lanes, Matrix, Real, Scratch, Shared, Start, kernel, product, windows};
use crate::ragged::{Layout, Ragged};

/// Rows of `hidden` that a scan keeps of each frame for backward: i, f, g, o, the cell before, tanh of the cell
/// after, and the state before.
const KEPT: usize = 7;

struct Lstm {
    layout: Arc<Layout>,
    input: usize,
    hidden: usize,
}

/// M_n = LSTM(x_n), (1) (2): the hidden sequence of a 1-layer LSTM, gates i, f, g, o, started from zero at each utterance's
/// first true frame. Computes several sequences at once.
///
/// # Shapes
/// `x` `(sum T, in)` gives `(sum T, hidden)`.
pub fn lstm(sequences: &[(&Ragged, &Recurrent)]) -> Vec<Tensor> {
    let calls = sequences
        .iter()
        .map(|(x, w)| Call {
            op: Lstm {
                layout: Arc::clone(&x.layout),
                input: shape2(&x.frames)[1],
                hidden: shape2(&w.weight_hh.value)[1],
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
    /// W_ih x + b_ih + b_hh, `(sum T, 4 * hidden)`.
    input: &'a [T],
    /// W_hh^T, `(hidden, 4 * hidden)`.
    weight: Matrix<'a, T>,
    /// `(sum T, KEPT * hidden)`, or empty.
    kept: &'a Shared<'a, T>,
    /// The hidden sequence, `(sum T, hidden)`.
    y: &'a Shared<'a, T>,
}

struct ScanBack<'a, T> {
    group: Group<'a>,
    hidden: usize,
    kept: &'a [T],
    dy: &'a [T],
    /// W_hh, `(4 * hidden, hidden)`.
    weight: Matrix<'a, T>,
    /// Gradients of the gates' arguments, `(sum T, 4 * hidden)`.
    dgates: &'a Shared<'a, T>,
}

impl Lstm {
    fn rows(&self) -> usize {
        self.layout.rows()
    }
}

impl Op for Lstm {
    const NAME: &'static CStr = c"Lstm";

    fn shapes(&self) -> Shapes {
        Shapes {
            results: vec![vec![self.layout.rows() as i64, self.hidden as i64]],
            saved: vec![self.rows() * KEPT * self.hidden],
        }
    }

    fn forward<T: Real>(&self, x: &[&[T]], y: &mut [&mut [T]], saved: &mut [&mut [T]]) {
        let (hidden, rows) = (self.hidden, self.rows());
        let &[frames, w_ih, w_hh, b_ih, b_hh] = x else { unreachable!("x and four weights") };
        let mut input = Scratch::new(rows * 4 * hidden);
        let bias: Vec<T> = b_ih.iter().zip(b_hh).map(|(&ih, &hh)| ih + hh).collect();
        let (frames, w_ih) =
            (Matrix::new(frames, rows, self.input), Matrix::new(w_ih, 4 * hidden, self.input));
        parallel_multiply(frames, w_ih.t(), &mut input, Start::Row(&bias));
        let weight = LaidOut::of(Matrix::new(w_hh, 4 * hidden, hidden).t());
        let (kept, y) = (Shared::new(saved[0]), Shared::new(y[0]));
        let groups = Group::all(&self.layout);
        let (input, weight) = (&input[..], weight.view());
        parallel::each(groups.len(), |i| {
            scan(&Scan { group: groups[i], hidden, input, weight, kept: &kept, y: &y });
        });
    }

    fn backward<T: Real>(&self, io: &Io<T>, dy: &[Option<&[T]>], dx: &mut [Option<&mut [T]>]) {
        let Some(dy) = dy[0] else { return };
        let (hidden, rows) = (self.hidden, self.rows());
        let &[frames, w_ih, w_hh, ..] = io.x else { unreachable!("x and four weights") };
        let weight = LaidOut::of(Matrix::new(w_hh, 4 * hidden, hidden));
        let mut dgates = Scratch::new(rows * 4 * hidden);
        let groups = Group::all(&self.layout);
        {
            let dgates = Shared::new(&mut dgates);
            parallel::each(groups.len(), |i| {
                let (group, kept, weight) = (groups[i], io.saved[0], weight.view());
                scan_back(&ScanBack { group, hidden, kept, dy, weight, dgates: &dgates });
            });
        }
        let dgates = Matrix::new(&dgates, rows, 4 * hidden);
        let before = Matrix::strided(&io.saved[0][6 * hidden..], rows, hidden, KEPT * hidden);
        let [dx, dw_ih, dw_hh, db_ih, db_hh] = dx else { unreachable!("x and four weights") };
        if let Some(dx) = dx {
            let w_ih = Matrix::new(w_ih, 4 * hidden, self.input);
            parallel_multiply(dgates, w_ih, dx, Start::Itself);
        }
        if let Some(dw_ih) = dw_ih {
            let frames = Matrix::new(frames, rows, self.input);
            parallel_multiply(dgates.t(), frames, dw_ih, Start::Itself);
        }
        if let Some(dw_hh) = dw_hh {
            parallel_multiply(dgates.t(), before, dw_hh, Start::Itself);
        }
        for bias in [db_ih, db_hh].into_iter().flatten() {
            column_sums(&dgates, bias);
        }
    }
}

kernel! {
    fn scan<'a, T>(simd; scan: &'a Scan<'a, T>) {
        let Scan { group, hidden, input, weight, kept, y } = *scan;
        let mut h = Scratch::zeros(SIDE_BY_SIDE * hidden);
        let mut c = Scratch::zeros(SIDE_BY_SIDE * hidden);
        let mut own = Scratch::new(SIDE_BY_SIDE * 4 * hidden);
        for t in 0..group.steps() {
            let running = group.running(t);
            product(simd, Matrix::new(&h, running, hidden), weight, &mut own, 4 * hidden, Start::Zero);
            for m in 0..running {
                let frame = group.frames(m).start + t;
                let count = if kept.is_empty() { 0 } else { KEPT * hidden };
                // SAFETY: each frame is one member's at one step of one scan.
                let (row, y) = unsafe { (kept.part(frame * count, count), y.part(frame * hidden, hidden)) };
                let (input, own) = (&input[frame * 4 * hidden..], &own[m * 4 * hidden..]);
                let (h, c) = (&mut h[m * hidden..][..hidden], &mut c[m * hidden..][..hidden]);
                step(simd, input, own, (h, c), row);
                y.copy_from_slice(h);
            }
        }
    }
}

/// One frame of one utterance: replaces state and cell by the next; `row`, if not empty, receives what backward
/// needs.
#[inline(always)]
fn step<S: pulp::Simd, T: Real>(
    simd: S,
    input: &[T],
    own: &[T],
    (h, c): (&mut [T], &mut [T]),
    row: &mut [T],
) {
    for w in windows::<S, T>(simd, h.len()) {
        let ([x_i, x_f, x_g, x_o], [h_i, h_f, h_g, h_o]) = (w.read_rows(input), w.read_rows(own));
        let (i, f, o) = ((x_i + h_i).sigmoid(), (x_f + h_f).sigmoid(), (x_o + h_o).sigmoid());
        let g = (x_g + h_g).tanh();
        let (before, cell) = (w.read(h), w.read(c));
        let after = f.fma(cell, i * g);
        let tanh = after.tanh();
        w.write(c, after);
        w.write(h, o * tanh);
        if !row.is_empty() {
            w.write_rows(row, [i, f, g, o, cell, tanh, before]);
        }
    }
}

kernel! {
    fn scan_back<'a, T>(simd; scan: &'a ScanBack<'a, T>) {
        let ScanBack { group, hidden, kept, dy, weight, dgates } = *scan;
        let mut dh = Scratch::zeros(SIDE_BY_SIDE * hidden);
        let mut dc = Scratch::zeros(SIDE_BY_SIDE * hidden);
        let mut rows = Scratch::new(SIDE_BY_SIDE * 4 * hidden);
        for t in (0..group.steps()).rev() {
            let running = group.running(t);
            for m in 0..running {
                let frame = group.frames(m).start + t;
                let kept = &kept[frame * KEPT * hidden..][..KEPT * hidden];
                let dh = &mut dh[m * hidden..][..hidden];
                dh.iter_mut().zip(&dy[frame * hidden..][..hidden]).for_each(|(dh, &dy)| *dh += dy);
                let row = &mut rows[m * 4 * hidden..][..4 * hidden];
                // SAFETY: each frame is one member's at one step of one scan.
                let dgates = unsafe { dgates.part(frame * 4 * hidden, 4 * hidden) };
                step_back(simd, kept, dh, &mut dc[m * hidden..][..hidden], [row, dgates]);
            }
            let own = Matrix::new(&rows, running, 4 * hidden);
            product(simd, own, weight, &mut dh, hidden, Start::Zero);
        }
    }
}

/// One frame of one utterance: writes gradients of the gates' arguments to two places; `dc` becomes the gradient of
/// the cell before.
#[inline(always)]
fn step_back<S: pulp::Simd, T: Real>(simd: S, kept: &[T], dh: &[T], dc: &mut [T], mut dgates: [&mut [T]; 2]) {
    let one = Lanes::splat(simd, T::ONE);
    for w in windows::<S, T>(simd, dh.len()) {
        let [i, f, g, o, cell, tanh] = w.read_rows(kept);
        let dh = w.read(dh);
        let dcell = w.read(dc) + dh * o * (one - tanh * tanh);
        w.write(dc, dcell * f);
        let di = dcell * g * i * (one - i);
        let df = dcell * cell * f * (one - f);
        let dg = dcell * i * (one - g * g);
        let d_o = dh * tanh * o * (one - o);
        for place in &mut dgates {
            w.write_rows(place, [di, df, dg, d_o]);
        }
    }
}
