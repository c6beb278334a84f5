//! Scaled dot-product attention between ragged sequences, equations (10), (15) and (21).
//!
//! Probabilities are never stored: backward computes them again from the logarithm of their sum, and draws
//! the same dropout again by address. Memory is linear in the frames.

use std::ffi::CStr;
use std::sync::Arc;

use tch::Tensor;

use super::autograd::{Call, Io, Op, Shapes, apply};
use super::parallel;
use crate::numeric::norm::{dot, each_vector, max, sum};
use crate::numeric::{Matrix, Panel, Real, Scratch, Shared, kernel, pad, product};
use crate::ragged::Layout;
use crate::rng::Dropout;

/// Queries that are handled at once: their scores stay in the cache.
const BLOCK: usize = 32;

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
    /// On the attention probabilities.
    pub dropout: Dropout,
}

/// softmax(Q K^T / sqrt(d / heads)) V. Several at once.
///
/// # Shapes
/// To `(sum Tq, d)`.
pub fn attention(calls: &[Attention]) -> Vec<Tensor> {
    let calls = calls
        .iter()
        .map(|call| {
            let (inputs, q, k, v) = match call.qkv {
                Qkv::Joined(all) => {
                    let d = super::shape2(all)[1] / 3;
                    let at = |start| Columns { input: 0, start, stride: 3 * d };
                    (vec![all.into()], at(0), at(d), at(2 * d))
                }
                Qkv::OverSource(q, kv) => {
                    let d = super::shape2(q)[1];
                    let at = |start| Columns { input: 1, start, stride: 2 * d };
                    (vec![q.into(), kv.into()], Columns { input: 0, start: 0, stride: d }, at(0), at(d))
                }
                Qkv::Separate(q, k, v) => {
                    let d = super::shape2(q)[1];
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

/// Where queries, keys or values stand: columns from `start` on of an input with rows of `stride`.
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

/// One head of one utterance. Matrices are `(T, width of a head)`.
struct Head<'a, T> {
    q: Matrix<'a, T>,
    k: Matrix<'a, T>,
    v: Matrix<'a, T>,
    scale: T,
    dropout: Dropout,
    /// Address of this head's dropout.
    stream: u32,
}

struct HeadForward<'a, T> {
    head: Head<'a, T>,
    /// Each query's row of the result.
    y: &'a (dyn Fn(usize) -> &'a mut [T] + Sync),
    /// Logarithm of the sum of exponentials of each query's scores, or empty.
    log_sum: &'a mut [T],
}

struct HeadBackward<'a, T> {
    head: Head<'a, T>,
    dy: Matrix<'a, T>,
    log_sum: &'a [T],
    /// Adds to a query's, a key's or a value's gradient; which one is 0, 1 or 2.
    add: &'a (dyn Fn(usize, usize, &[T]) + Sync),
}

impl AttentionOp {
    fn depth(&self) -> usize {
        self.width / self.heads
    }

    /// Calls `work` with the utterance, the head and their inputs.
    fn each_head<'a, T: Real>(&self, x: &[&'a [T]], work: impl Fn(usize, usize, Head<'a, T>) + Sync) {
        let depth = self.depth();
        let scale = T::of((depth as f64).sqrt().recip());
        // Longest first, for an even load.
        let order = &self.queries.longest_first;
        parallel::each(order.len() * self.heads, |i| {
            let (b, h) = (order[i / self.heads], i % self.heads);
            let part = |columns: Columns, layout: &Layout| {
                let (first, length) = layout.span(b);
                let start = first * columns.stride + columns.start + h * depth;
                Matrix::strided(&x[columns.input][start..], length, depth, columns.stride)
            };
            let head = Head {
                q: part(self.q, &self.queries),
                k: part(self.k, &self.keys),
                v: part(self.v, &self.keys),
                scale,
                dropout: self.dropout,
                stream: (b * self.heads + h) as u32,
            };
            work(b, h, head);
        });
    }
}

impl Op for AttentionOp {
    const NAME: &'static CStr = c"Attention";

    fn shapes(&self) -> Shapes {
        Shapes {
            results: vec![vec![self.queries.total, self.width as i64]],
            saved: vec![self.heads * self.queries.total as usize],
        }
    }

    fn forward<T: Real>(&self, x: &[&[T]], y: &mut [&mut [T]], saved: &mut [&mut [T]]) {
        let (depth, total) = (self.depth(), self.queries.total as usize);
        let (y, log_sums) = (Shared::new(y[0]), Shared::new(saved[0]));
        self.each_head(x, |b, h, head| {
            let (first, length) = self.queries.span(b);
            // SAFETY: each head of each utterance writes its own columns and rows.
            let row = |t: usize| unsafe { y.part((first + t) * self.width + h * depth, depth) };
            let log_sum = if log_sums.is_empty() {
                &mut []
            } else {
                // SAFETY: as above.
                unsafe { log_sums.part(h * total + first, length) }
            };
            attend(HeadForward { head, y: &row, log_sum });
        });
    }

    fn backward<T: Real>(&self, io: &Io<T>, dy: &[Option<&[T]>], dx: &mut [Option<&mut [T]>]) {
        let Some(dy) = dy[0] else { return };
        let (depth, total) = (self.depth(), self.queries.total as usize);
        let dx: Vec<Option<Shared<T>>> =
            dx.iter_mut().map(|dx| dx.as_mut().map(|dx| Shared::new(dx))).collect();
        self.each_head(io.x, |b, h, head| {
            let (first, length) = self.queries.span(b);
            let start = first * self.width + h * depth;
            let log_sum = &io.saved[0][h * total + first..][..length];
            let add = |which: usize, t: usize, from: &[T]| {
                let (columns, layout) =
                    [(self.q, &self.queries), (self.k, &self.keys), (self.v, &self.keys)][which];
                let Some(to) = &dx[columns.input] else { return };
                let place = (layout.span(b).0 + t) * columns.stride + columns.start + h * depth;
                // SAFETY: each head of each utterance has its own columns and rows.
                let to = unsafe { to.part(place, depth) };
                to.iter_mut().zip(from).for_each(|(to, &from)| *to += from);
            };
            let dy = Matrix::strided(&dy[start..], length, depth, self.width);
            attend_backward(HeadBackward { head, dy, log_sum, add: &add });
        });
    }
}

/// Rows of a matrix with rows side by side, as a panel.
#[inline(always)]
fn rows_panel<T: Real>(matrix: &Matrix<T>, scale: T, panel: &mut [T]) {
    let stride = pad(matrix.columns);
    for (r, row) in panel.chunks_exact_mut(stride).take(matrix.rows).enumerate() {
        let (row, rest) = row.split_at_mut(matrix.columns);
        rest.fill(T::ZERO);
        for (to, &from) in row.iter_mut().zip(&matrix.data[r * matrix.row_stride..]) {
            *to = from * scale;
        }
    }
}

/// Its transpose, as a panel.
#[inline(always)]
fn columns_panel<T: Real>(matrix: &Matrix<T>, scale: T, panel: &mut [T]) {
    let stride = pad(matrix.rows);
    for (c, row) in panel.chunks_exact_mut(stride).take(matrix.columns).enumerate() {
        let (row, rest) = row.split_at_mut(matrix.rows);
        rest.fill(T::ZERO);
        for (r, to) in row.iter_mut().enumerate() {
            *to = matrix.data[r * matrix.row_stride + c] * scale;
        }
    }
}

kernel! {
    fn attend<'a, T>(simd; call: HeadForward<'a, T>) {
        let HeadForward { head: Head { q, k, v, scale, dropout, stream }, y, log_sum } = call;
        let (queries, keys, depth) = (q.rows, k.rows, q.columns);
        let (wide, deep) = (pad(keys), pad(depth));
        let mut keys_t = Scratch::new(depth * wide);
        columns_panel(&k, scale, &mut keys_t);
        let mut values = Scratch::new(keys * deep);
        rows_panel(&v, T::ONE, &mut values);
        let mut scores = Scratch::new(BLOCK * wide);
        let mut mixed = Scratch::new(BLOCK * deep);
        let mut mask = Scratch::new(if dropout.is_off() { 0 } else { BLOCK * keys });
        for first in (0..queries).step_by(BLOCK) {
            let rows = BLOCK.min(queries - first);
            let block = q.rows(first, rows);
            let panel = Panel { data: &keys_t[..], stride: wide };
            product(simd, &block, &panel, keys, &mut scores, wide, false);
            if !dropout.is_off() {
                dropout.fill(stream, first * keys, &mut mask[..rows * keys]);
            }
            let mut sums = [T::ONE; BLOCK];
            for (r, row) in scores.chunks_exact_mut(wide).take(rows).enumerate() {
                // Whole vectors all along: what stands beyond the last key neither is a maximum nor counts.
                let last = row[keys - 1];
                row[keys..].fill(last);
                let top = max(row);
                each_vector(row, |score| (score - top).exp::<S>());
                row[keys..].fill(T::ZERO);
                sums[r] = sum(row);
                if let Some(log_sum) = log_sum.get_mut(first + r) {
                    *log_sum = top + T::of(sums[r].to_f64().ln());
                }
                if !dropout.is_off() {
                    let mask = &mask[r * keys..][..keys];
                    row.iter_mut().zip(mask).for_each(|(score, &keep)| *score *= keep);
                }
            }
            let probabilities = Matrix::strided(&scores, rows, keys, wide);
            let panel = Panel { data: &values[..], stride: deep };
            product(simd, &probabilities, &panel, depth, &mut mixed, deep, false);
            for (r, mixed) in mixed.chunks_exact(deep).take(rows).enumerate() {
                let share = T::ONE / sums[r];
                y(first + r).iter_mut().zip(mixed).for_each(|(y, &mixed)| *y = mixed * share);
            }
        }
    }
}

kernel! {
    fn attend_backward<'a, T>(simd; call: HeadBackward<'a, T>) {
        let HeadBackward { head: Head { q, k, v, scale, dropout, stream }, dy, log_sum, add } = call;
        let (queries, keys, depth) = (q.rows, k.rows, q.columns);
        let (wide, deep) = (pad(keys), pad(depth));
        let mut keys_t = Scratch::new(depth * wide);
        columns_panel(&k, scale, &mut keys_t);
        let mut values_t = Scratch::new(depth * wide);
        columns_panel(&v, T::ONE, &mut values_t);
        let mut key_rows = Scratch::new(keys * deep);
        rows_panel(&k, scale, &mut key_rows);
        let mut query_rows = Scratch::new(BLOCK * deep);
        let mut dy_rows = Scratch::new(BLOCK * deep);
        let mut probabilities = Scratch::new(BLOCK * wide);
        let mut dscores = Scratch::new(BLOCK * wide);
        let mut dquery = Scratch::new(BLOCK * deep);
        let mut dkeys = Scratch::zeros(keys * deep);
        let mut dvalues = Scratch::zeros(keys * deep);
        let mut mask = Scratch::new(if dropout.is_off() { 0 } else { BLOCK * keys });
        for first in (0..queries).step_by(BLOCK) {
            let rows = BLOCK.min(queries - first);
            let (q, dy) = (q.rows(first, rows), dy.rows(first, rows));
            rows_panel(&q, scale, &mut query_rows);
            rows_panel(&dy, T::ONE, &mut dy_rows);
            let panel = Panel { data: &keys_t[..], stride: wide };
            product(simd, &q, &panel, keys, &mut probabilities, wide, false);
            let panel = Panel { data: &values_t[..], stride: wide };
            product(simd, &dy, &panel, keys, &mut dscores, wide, false);
            if !dropout.is_off() {
                dropout.fill(stream, first * keys, &mut mask[..rows * keys]);
            }
            for r in 0..rows {
                let row = &mut probabilities[r * wide..][..wide];
                let drow = &mut dscores[r * wide..][..wide];
                let log_sum = log_sum[first + r];
                each_vector(row, |score| (score - log_sum).exp::<S>());
                row[keys..].fill(T::ZERO);
                if dropout.is_off() {
                    let slope = dot(row, drow);
                    for j in 0..wide {
                        drow[j] = row[j] * (drow[j] - slope);
                    }
                } else {
                    let mask = &mask[r * keys..][..keys];
                    for j in 0..keys {
                        drow[j] *= mask[j];
                    }
                    let slope = dot(row, drow);
                    for j in 0..keys {
                        drow[j] = row[j] * (drow[j] - slope);
                        row[j] *= mask[j];
                    }
                }
            }
            let p = Matrix::strided(&probabilities, rows, keys, wide);
            let ds = Matrix::strided(&dscores, rows, keys, wide);
            let panel = Panel { data: &dy_rows[..], stride: deep };
            product(simd, &p.t(), &panel, depth, &mut dvalues, deep, true);
            let panel = Panel { data: &query_rows[..], stride: deep };
            product(simd, &ds.t(), &panel, depth, &mut dkeys, deep, true);
            let panel = Panel { data: &key_rows[..], stride: deep };
            product(simd, &ds, &panel, depth, &mut dquery, deep, false);
            for (r, dquery) in dquery.chunks_exact(deep).take(rows).enumerate() {
                add(0, first + r, &dquery[..depth]);
            }
        }
        for (t, (dkey, dvalue)) in dkeys.chunks_exact(deep).zip(dvalues.chunks_exact(deep)).enumerate() {
            add(1, t, &dkey[..depth]);
            add(2, t, &dvalue[..depth]);
        }
    }
}
