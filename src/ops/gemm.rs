//! Large matrix products, cut into pieces that threads share.

use std::ops::Range;

use super::parallel;
use crate::numeric::{Matrix, Real, Shared, multiply_at};

/// Multiplications below which a product is not cut.
const PIECE: usize = 1 << 17;
/// Pieces at most: enough for a balanced load on a few cores.
const PIECES: usize = 16;

/// The pieces of an `(m, n)` result of depth `k`: parts of its longer side.
fn pieces(m: usize, n: usize, k: usize) -> Vec<(Range<usize>, Range<usize>)> {
    let cut = |length: usize| {
        let count = (m * n * k / PIECE).clamp(1, PIECES).min(length.div_ceil(16)).max(1);
        let size = length.div_ceil(count).next_multiple_of(16);
        (0..length).step_by(size).map(move |start| start..(start + size).min(length))
    };
    if m >= n {
        cut(m).map(|rows| (rows, 0..n)).collect()
    } else {
        cut(n).map(|columns| (0..m, columns)).collect()
    }
}

/// C = A B, or C += A B where `add`, in rows of `stride`; then `finish(rows, columns)` of each piece.
pub fn multiply_then<T: Real>(
    (a, b): (Matrix<T>, Matrix<T>),
    c: &mut [T],
    stride: usize,
    add: bool,
    finish: impl Fn(Range<usize>, Range<usize>, &Shared<T>) + Sync,
) {
    let pieces = pieces(a.rows, b.columns, a.columns);
    let c = Shared::new(c);
    parallel::each(pieces.len(), |i| {
        let (rows, columns) = pieces[i].clone();
        let a = a.rows(rows.start, rows.len());
        let b = b.t().rows(columns.start, columns.len()).t();
        let span = (rows.len() - 1) * stride + columns.len();
        let place = c.pointer(rows.start * stride + columns.start, span);
        // SAFETY: the pointer is good for the span; pieces share no element.
        unsafe { multiply_at(a, b, place, stride, add) };
        finish(rows, columns, &c);
    });
}

/// C = A B, or C += A B where `add`, in rows of `stride`.
pub fn parallel_multiply<T: Real>(a: Matrix<T>, b: Matrix<T>, c: &mut [T], stride: usize, add: bool) {
    multiply_then((a, b), c, stride, add, |_, _, _| {});
}

/// Adds the sum of the rows of `x` `(rows, columns)` to `sums`.
pub fn column_sums<T: Real>(x: &Matrix<T>, sums: &mut [T]) {
    const WIDTH: usize = 128;
    assert_eq!(x.column_stride, 1, "rows lie side by side");
    let mut parts: Vec<&mut [T]> = sums[..x.columns].chunks_mut(WIDTH).collect();
    parallel::each_of(&mut parts.iter_mut().enumerate().collect::<Vec<_>>(), |(i, sums)| {
        for r in 0..x.rows {
            let row = &x.data[r * x.row_stride + *i * WIDTH..][..sums.len()];
            for (sum, &x) in sums.iter_mut().zip(row) {
                *sum += x;
            }
        }
    });
}
