//! Scaled dot-product attention between ragged sequences, equations (10), (15) and (21).
//!
//! Probabilities are never stored: backward computes them again from the logarithm of their sum, and draws
//! the same dropout again by address. Memory is linear in the frames.

pub mod cuda;

use std::ffi::CStr;
use std::ops::Range;
use std::sync::Arc;

use pulp::Simd;
use tch::Tensor;

use super::autograd::{Call, Io, Op, Shapes, apply};
use super::parallel;
use super::weights::shape2;
use crate::numeric::{Lanes, Matrix, Real, Scratch, Shared, Start, kernel, product, product_at, windows};
use crate::ragged::Layout;
use crate::rng::{Dropout, TILE, TILE_COLUMNS, TILE_ROWS};

/// Queries handled at a time, so that their scores stay in the cache.
const BLOCK: usize = 2 * TILE_COLUMNS;

/// An utterance with more scores than this makes each of its heads a piece of work of its own.
const LONG: usize = 1 << 14;

/// Projected queries, keys and values, packed.
pub enum Qkv<'a> {
    /// Side by side in one tensor, `(sum T, 3d)`: attention of a sequence over itself.
    Joined(&'a Tensor),
    /// Queries `(sum Tq, d)`; keys and values side by side `(sum Tk, 2d)`.
    OverSource(&'a Tensor, &'a Tensor),
    /// Each by itself, `(sum Tq, d)` and twice `(sum Tk, d)`.
    Separate(&'a Tensor, &'a Tensor, &'a Tensor),
}

/// One attention: each utterance's queries over its own true keys.
pub struct Attention<'a> {
    pub qkv: Qkv<'a>,
    pub queries: &'a Arc<Layout>,
    pub keys: &'a Arc<Layout>,
    pub heads: i64,
    /// Dropout of the attention probabilities.
    pub dropout: Dropout,
}

/// dropout(softmax(Q K^T / sqrt(d / heads))) V in each head's channels, (10) (15) (21), for several calls at once.
///
/// # Shapes
/// Each result is `(sum Tq, d)`.
pub fn attention(calls: &[Attention]) -> Vec<Tensor> {
    let calls = calls
        .iter()
        .map(|call| {
            let (inputs, q, k, v) = match call.qkv {
                Qkv::Joined(all) => {
                    let d = shape2(all)[1] / 3;
                    let at = |start| Columns { input: 0, start, stride: 3 * d };
                    (vec![all.into()], at(0), at(d), at(2 * d))
                }
                Qkv::OverSource(q, kv) => {
                    let d = shape2(q)[1];
                    let at = |start| Columns { input: 1, start, stride: 2 * d };
                    (vec![q.into(), kv.into()], Columns { input: 0, start: 0, stride: d }, at(0), at(d))
                }
                Qkv::Separate(q, k, v) => {
                    let d = shape2(q)[1];
                    let at = |input| Columns { input, start: 0, stride: d };
                    (vec![q.into(), k.into(), v.into()], at(0), at(1), at(2))
                }
            };
            let width = if let Qkv::Joined(_) = call.qkv { q.stride / 3 } else { q.stride };
            let op = AttentionOp {
                queries: Arc::clone(call.queries),
                keys: Arc::clone(call.keys),
                heads: call.heads as usize,
                width,
                dropout: call.dropout,
                q,
                k,
                v,
            };
            Call { op, inputs }
        })
        .collect();
    apply(calls).into_iter().flatten().collect()
}

/// The place of queries, keys or values: columns from `start` on of an input with rows of `stride`.
#[derive(Clone, Copy)]
struct Columns {
    input: usize,
    start: usize,
    stride: usize,
}

struct AttentionOp {
    queries: Arc<Layout>,
    keys: Arc<Layout>,
    heads: usize,
    width: usize,
    dropout: Dropout,
    q: Columns,
    k: Columns,
    v: Columns,
}

/// Some heads of one utterance. Matrices are `(T, d)`, all heads side by side.
struct Heads<'a, T> {
    q: Matrix<'a, T>,
    k: Matrix<'a, T>,
    v: Matrix<'a, T>,
    which: Range<usize>,
    depth: usize,
    scale: T,
    dropout: Dropout,
    /// Address of the first head's dropout.
    stream: u32,
}

/// Rows of a result, `stride` apart, of which each head writes its own columns.
#[derive(Clone, Copy)]
struct Rows<'a, T> {
    data: &'a Shared<'a, T>,
    start: usize,
    stride: usize,
}

struct HeadsForward<'a, T> {
    heads: Heads<'a, T>,
    y: Rows<'a, T>,
    /// Logarithm of the sum of exp(score) for each query, rows by head; `None` if not kept.
    log_sums: Option<Rows<'a, T>>,
}

struct HeadsBackward<'a, T> {
    heads: Heads<'a, T>,
    dy: Matrix<'a, T>,
    /// `(heads, Tq)`
    log_sums: Matrix<'a, T>,
    dq: Option<Rows<'a, T>>,
    dk: Option<Rows<'a, T>>,
    dv: Option<Rows<'a, T>>,
}

impl<'a, T: Real> Rows<'a, T> {
    /// # Safety
    /// As [`Shared::part`].
    #[inline(always)]
    unsafe fn part(self, row: usize, column: usize, len: usize) -> &'a mut [T] {
        // SAFETY: as the caller's.
        unsafe { self.data.part(self.start + row * self.stride + column, len) }
    }
}

impl AttentionOp {
    fn depth(&self) -> usize {
        self.width / self.heads
    }

    /// Calls `work` for each utterance, with all of its heads or one at a time, on their inputs.
    fn each_part<'a, T: Real>(&self, x: &[&'a [T]], work: impl Fn(usize, Heads<'a, T>) + Sync) {
        let count = |b: usize| self.heads * self.queries.span(b).1 * self.keys.span(b).1;
        let at_once = |b: usize| if count(b) > LONG { 1 } else { self.heads };
        let longest_first = self.queries.longest_first.iter();
        let parts: Vec<(usize, Range<usize>)> = longest_first
            .flat_map(|&b| (0..self.heads).step_by(at_once(b)).map(move |h| (b, h..h + at_once(b))))
            .collect();
        parallel::each(parts.len(), |i| {
            let (b, heads) = parts[i].clone();
            let part = |columns: Columns, layout: &Layout| {
                let (first, length) = layout.span(b);
                let start = first * columns.stride + columns.start;
                Matrix::strided(&x[columns.input][start..], length, self.width, columns.stride)
            };
            let heads = Heads {
                q: part(self.q, &self.queries),
                k: part(self.k, &self.keys),
                v: part(self.v, &self.keys),
                depth: self.depth(),
                scale: T::of((self.depth() as f64).sqrt().recip()),
                dropout: self.dropout,
                stream: (b * self.heads + heads.start) as u32,
                which: heads,
            };
            work(b, heads);
        });
    }
}

impl Op for AttentionOp {
    const NAME: &'static CStr = c"Attention";

    fn shapes(&self) -> Shapes {
        Shapes {
            results: vec![vec![self.queries.rows() as i64, self.width as i64]],
            saved: vec![self.heads * self.queries.rows()],
        }
    }

    fn forward<T: Real>(&self, x: &[&[T]], y: &mut [&mut [T]], saved: &mut [&mut [T]]) {
        let total = self.queries.rows();
        let (y, log_sums) = (Shared::new(y[0]), Shared::new(saved[0]));
        self.each_part(x, |b, heads| {
            let first = self.queries.span(b).0;
            let y = Rows { data: &y, start: first * self.width, stride: self.width };
            let log_sums = Rows { data: &log_sums, start: first, stride: total };
            let log_sums = (!log_sums.data.is_empty()).then_some(log_sums);
            attend(HeadsForward { heads, y, log_sums });
        });
    }

    fn backward<T: Real>(&self, io: &Io<T>, dy: &[Option<&[T]>], dx: &mut [Option<&mut [T]>]) {
        let Some(dy) = dy[0] else { return };
        let total = self.queries.rows();
        let dx: Vec<Option<Shared<T>>> =
            dx.iter_mut().map(|dx| dx.as_mut().map(|dx| Shared::new(dx))).collect();
        self.each_part(io.x, |b, heads| {
            let (first, length) = self.queries.span(b);
            let rows = |data| Matrix::new(data, total, self.width).rows(first, length);
            let gradient = |columns: Columns, layout: &Layout| {
                let start = layout.span(b).0 * columns.stride + columns.start;
                dx[columns.input].as_ref().map(|data| Rows { data, start, stride: columns.stride })
            };
            attend_backward(HeadsBackward {
                heads,
                dy: rows(dy),
                log_sums: Matrix::strided(&io.saved[0][first..], self.heads, length, total),
                dq: gradient(self.q, &self.queries),
                dk: gradient(self.k, &self.keys),
                dv: gradient(self.v, &self.keys),
            });
        });
    }
}

/// `scale` times the transpose of `matrix`, in rows of `stride`.
#[inline(always)]
fn transpose<T: Real>(matrix: &Matrix<T>, scale: T, to: &mut [T], stride: usize) {
    matrix.check();
    for (c, row) in to.chunks_exact_mut(stride).take(matrix.columns).enumerate() {
        for (r, to) in row.iter_mut().take(matrix.rows).enumerate() {
            // SAFETY: checked.
            *to = scale * unsafe { *matrix.data.get_unchecked(r * matrix.row_stride + c) };
        }
    }
}

/// Dropout's factors for the probabilities of all keys and the queries from `column` on, `(keys, TILE_COLUMNS)`, in
/// whole tiles.
#[inline(always)]
fn draw<S: Simd, T: Real>(simd: S, dropout: &Dropout, stream: u32, column: usize, masks: &mut [T]) {
    if !dropout.is_off() {
        for (i, mask) in masks.chunks_exact_mut(TILE).enumerate() {
            dropout.tile(simd, stream, i * TILE_ROWS, column, mask);
        }
    }
}

/// Memory for [`draw`], filled with ones, which stay where dropout is off.
fn masks<T: Real>(keys: usize) -> Scratch<T> {
    let mut masks = Scratch::new(keys.next_multiple_of(TILE_ROWS) * TILE_COLUMNS);
    masks.fill(T::ONE);
    masks
}

// Scores are laid out as (keys, queries), so that a loop over the keys is vector code over the queries.

kernel! {
    fn attend<'a, T>(simd; call: HeadsForward<'a, T>) {
        let HeadsForward { heads: Heads { q, k, v, which, depth, scale, dropout, stream }, y, log_sums } = call;
        let (queries, keys) = (q.rows, k.rows);
        let wide = BLOCK.min(queries.next_multiple_of(TILE_COLUMNS));
        let mut queries_t = Scratch::zeros(depth * wide);
        let mut scores = Scratch::new(keys * wide);
        let mut masks = masks(keys);
        let mut sums = [T::ONE; BLOCK];
        let mut tops = [T::ZERO; BLOCK];
        for (stream, h) in (stream..).zip(which) {
            let [q, k, v] = [&q, &k, &v].map(|all| all.columns(h * depth, depth));
            for first in (0..queries).step_by(BLOCK) {
                let rows = BLOCK.min(queries - first);
                let columns = rows.next_multiple_of(TILE_COLUMNS);
                transpose(&q.rows(first, rows), scale, &mut queries_t, wide);
                let block = Matrix::strided(&queries_t, depth, columns, wide);
                product(simd, k, block, &mut scores, wide, Start::Zero);
                for column in (0..columns).step_by(TILE_COLUMNS) {
                    draw(simd, &dropout, stream, first + column, &mut masks);
                    for w in windows::<S, T>(simd, TILE_COLUMNS) {
                        let mut top = w.read(&scores[column..]);
                        for k in 1..keys {
                            top = top.max(w.read(&scores[k * wide + column..]));
                        }
                        let mut sum = Lanes::splat(simd, T::ZERO);
                        for k in 0..keys {
                            let score = &mut scores[k * wide + column..];
                            let share = (w.read(score) - top).exp();
                            w.write(score, share * w.read(&masks[k * TILE_COLUMNS..]));
                            sum += share;
                        }
                        w.write(&mut sums[column..], sum);
                        w.write(&mut tops[column..], top);
                    }
                }
                let shares = Matrix::strided(&scores, keys, rows, wide).t();
                let place = y.data.pointer(
                    y.start + first * y.stride + h * depth,
                    (rows - 1) * y.stride + depth,
                );
                // SAFETY: each head of each utterance writes its own columns and rows.
                unsafe { product_at(simd, shares, v, place, y.stride, Start::Zero) };
                for (r, sum) in sums[..rows].iter().enumerate() {
                    // SAFETY: as above.
                    let y = unsafe { y.part(first + r, h * depth, depth) };
                    let share = Lanes::splat(simd, T::ONE / *sum);
                    for w in windows::<S, T>(simd, depth) {
                        w.write(y, w.read(y) * share);
                    }
                }
                if let Some(log_sums) = log_sums {
                    // SAFETY: as above.
                    let log_sums = unsafe { log_sums.part(h, first, rows) };
                    for (to, (sum, top)) in log_sums.iter_mut().zip(sums.iter().zip(tops)) {
                        *to = top + T::of(sum.to_f64().ln());
                    }
                }
            }
        }
    }
}

kernel! {
    fn attend_backward<'a, T>(simd; call: HeadsBackward<'a, T>) {
        let HeadsBackward {
            heads: Heads { q, k, v, which, depth, scale, dropout, stream }, dy, log_sums, dq, dk, dv,
        } = call;
        let (queries, keys) = (q.rows, k.rows);
        let wide = BLOCK.min(queries.next_multiple_of(TILE_COLUMNS));
        let mut block = Scratch::zeros(depth * wide);
        let mut shares = Scratch::new(keys * wide);
        let mut dscores = Scratch::new(keys * wide);
        let mut masks = masks(keys);
        let mut log_sum = [T::ZERO; BLOCK];
        let scale_all = Lanes::splat(simd, scale);
        for (stream, h) in (stream..).zip(which) {
            let [q, k, v, dy] = [&q, &k, &v, &dy].map(|all| all.columns(h * depth, depth));
            for first in (0..queries).step_by(BLOCK) {
                let rows = BLOCK.min(queries - first);
                let columns = rows.next_multiple_of(TILE_COLUMNS);
                let [q, dy] = [q, dy].map(|all| all.rows(first, rows));
                transpose(&q, scale, &mut block, wide);
                product(simd, k, Matrix::strided(&block, depth, columns, wide), &mut shares, wide, Start::Zero);
                transpose(&dy, T::ONE, &mut block, wide);
                product(simd, v, Matrix::strided(&block, depth, columns, wide), &mut dscores, wide, Start::Zero);
                log_sum[..rows].copy_from_slice(&log_sums.row(h)[first..first + rows]);
                for column in (0..columns).step_by(TILE_COLUMNS) {
                    draw(simd, &dropout, stream, first + column, &mut masks);
                    for w in windows::<S, T>(simd, TILE_COLUMNS) {
                        let log_sum = w.read(&log_sum[column..]);
                        let mut slope = Lanes::splat(simd, T::ZERO);
                        for k in 0..keys {
                            let at = k * wide + column;
                            let share = (w.read(&shares[at..]) - log_sum).exp();
                            let dshare = w.read(&dscores[at..]) * w.read(&masks[k * TILE_COLUMNS..]);
                            slope = share.fma(dshare, slope);
                            w.write(&mut shares[at..], share);
                            w.write(&mut dscores[at..], dshare);
                        }
                        for k in 0..keys {
                            let at = k * wide + column;
                            let (share, dshare) = (w.read(&shares[at..]), w.read(&dscores[at..]));
                            w.write(&mut dscores[at..], share * (dshare - slope) * scale_all);
                            w.write(&mut shares[at..], share * w.read(&masks[k * TILE_COLUMNS..]));
                        }
                    }
                }
                let dscores = Matrix::strided(&dscores, keys, rows, wide);
                let shares = Matrix::strided(&shares, keys, rows, wide);
                let products = [
                    (dq, first, dscores.t(), k), // dS K
                    (dk, 0, dscores, q),         // dS^T Q
                    (dv, 0, shares, dy),         // P^T dY
                ];
                for (to, row, a, b) in products {
                    let Some(to) = to else { continue };
                    let start = to.start + row * to.stride + h * depth;
                    let place = to.data.pointer(start, (a.rows - 1) * to.stride + depth);
                    // SAFETY: each head of each utterance has its own columns and rows.
                    unsafe { product_at(simd, a, b, place, to.stride, Start::Itself) };
                }
            }
        }
    }
}
