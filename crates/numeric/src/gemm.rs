//! Matrix products outside kernels: on the calling thread alone, or cut into pieces that threads share.

use std::ops::Range;

use super::buffer::Shared;
use super::lanes::windows;
use super::matrix::{LaidOut, Matrix, Start};
use super::parallel;
use super::product::product_alone;
use super::real::Real;
use crate::kernel;

/// A product with fewer multiplications than this is not cut.
const PIECE: usize = 1 << 17;
/// The most pieces: enough for a balanced load on a few cores, but few, as each may have to pack its factors.
const PIECES: usize = 16;
const PIECES_PACKED: usize = 8;

/// C = A B on top of `start`, on the calling thread alone; `c` holds rows of `stride` elements.
pub fn multiply<T: Real>(a: Matrix<T>, b: Matrix<T>, c: &mut [T], stride: usize, start: Start<T>) {
    let (m, n) = (a.rows, b.columns);
    assert!(n <= stride || m == 1, "rows of the result do not overlap");
    assert!(m == 0 || n == 0 || c.len() >= (m - 1) * stride + n, "the result holds the product");
    // SAFETY: as asserted.
    unsafe { multiply_at(a, b, c.as_mut_ptr(), stride, start) }
}

/// [`multiply`] with a pointer to the result.
///
/// # Safety
/// `c` is good for `a.rows` rows of `b.columns` elements, `stride` apart, that nothing else uses meanwhile.
pub unsafe fn multiply_at<T: Real>(a: Matrix<T>, b: Matrix<T>, c: *mut T, stride: usize, start: Start<T>) {
    let (m, n, k) = (a.rows, b.columns, a.columns);
    assert_eq!(k, b.rows, "inner sizes agree");
    if m == 0 || n == 0 {
        return;
    }
    if b.is_narrow() && b.column_stride == 1 {
        // SAFETY: as the caller's.
        return unsafe { product_alone(a, b, c, stride, start) };
    }
    a.check();
    b.check();
    // SAFETY: the checks cover the factors, the caller the result.
    unsafe {
        if let Start::Row(row) = start {
            for r in 0..m {
                std::ptr::copy_nonoverlapping(row[..n].as_ptr(), c.add(r * stride), n);
            }
        }
        gemm::gemm(
            m,
            n,
            k,
            c,
            1,
            stride as isize,
            !matches!(start, Start::Zero),
            a.data.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            T::ONE,
            T::ONE,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// The pieces of a product: parts of its result's longer side.
fn pieces<T>(a: &Matrix<T>, b: &Matrix<T>) -> Vec<(Range<usize>, Range<usize>)> {
    let (m, n, k) = (a.rows, b.columns, a.columns);
    let most = if b.is_narrow() { PIECES } else { PIECES_PACKED };
    let cut = |length: usize| {
        let count = (m * n * k / PIECE).clamp(1, most).min(length.div_ceil(16)).max(1);
        let size = length.div_ceil(count).next_multiple_of(16);
        (0..length).step_by(size).map(move |start| start..(start + size).min(length))
    };
    if m >= n {
        cut(m).map(|rows| (rows, 0..n)).collect()
    } else {
        cut(n).map(|columns| (0..m, columns)).collect()
    }
}

/// C = A B on top of `start`, contiguous; then calls `finish(first, elements)` on runs of adjacent elements, from
/// place `first` on.
pub fn multiply_then<T: Real>(
    (a, b): (Matrix<T>, Matrix<T>),
    c: &mut [T],
    start: Start<T>,
    finish: impl Fn(usize, &mut [T]) + Sync,
) {
    // Every piece reads B, which is therefore laid out once, unless the result is too small for that to pay.
    let laid_out = (b.is_narrow() && (b.column_stride != 1 || a.rows > b.rows)).then(|| LaidOut::of(b));
    let b = laid_out.as_ref().map_or(b, LaidOut::view);
    let pieces = pieces(&a, &b);
    let (c, stride) = (Shared::new(c), b.columns);
    parallel::each(pieces.len(), |i| {
        let (rows, columns) = pieces[i].clone();
        let a = a.rows(rows.start, rows.len());
        let b = b.t().rows(columns.start, columns.len()).t();
        let span = (rows.len() - 1) * stride + columns.len();
        let place = c.pointer(rows.start * stride + columns.start, span);
        let start = if let Start::Row(row) = start { Start::Row(&row[columns.clone()]) } else { start };
        // SAFETY: the pointer is good for the span; pieces share no element.
        unsafe { multiply_at(a, b, place, stride, start) };
        let whole = columns.len() == stride;
        let (lines, length) = if whole { (1, span) } else { (rows.len(), columns.len()) };
        for line in 0..lines {
            let first = (rows.start + line) * stride + columns.start;
            // SAFETY: elements of this piece.
            finish(first, unsafe { c.part(first, length) });
        }
    });
}

/// C = A B on top of `start`, contiguous.
pub fn parallel_multiply<T: Real>(a: Matrix<T>, b: Matrix<T>, c: &mut [T], start: Start<T>) {
    multiply_then((a, b), c, start, |_, _| {});
}

/// Adds the sum of the rows of `x` `(rows, columns)` to `sums`.
pub fn column_sums<T: Real>(x: &Matrix<T>, sums: &mut [T]) {
    const WIDTH: usize = 128;
    let mut parts: Vec<_> = sums[..x.columns].chunks_mut(WIDTH).enumerate().collect();
    parallel::each_of(&mut parts, |(i, sums)| add_rows(x.columns(*i * WIDTH, sums.len()), sums));
}

kernel! {
    /// [`column_sums`] on the calling thread alone.
    pub fn add_rows<'a, T>(simd; x: Matrix<'a, T>, sums: &'a mut [T]) {
        for w in windows::<S, T>(simd, x.columns) {
            let mut sum = w.read(sums);
            for r in 0..x.rows {
                sum += w.read(x.row(r));
            }
            w.write(sums, sum);
        }
    }
}
