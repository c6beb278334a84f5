//! The product inside the small kernels: a few rows against a panel that stays in the cache.

use pulp::Simd;

use super::matrix::Matrix;
use super::real::Real;

/// The right-hand side of a [`product`] or its result: rows of `stride` elements, read and written in
/// whole vectors, so that rows must be padded (see [`super::pad`]); what stands in the padding is
/// arbitrary but harmless.
pub struct Panel<'a, T> {
    pub data: &'a [T],
    pub stride: usize,
}

/// C = A B, or C += A B where `add`: `a` `(m, k)` of any strides, `b` `(k, columns)`, `c` `(m, columns)`
/// in rows of `stride`. Columns are computed in whole vectors.
///
/// Each element is summed over k in order, whatever the shape of the rest.
#[inline(always)]
pub fn product<S: Simd, T: Real>(
    simd: S,
    a: &Matrix<T>,
    b: &Panel<T>,
    columns: usize,
    c: &mut [T],
    stride: usize,
    add: bool,
) {
    let lanes = T::lanes::<S>();
    let width = columns.div_ceil(lanes) * lanes;
    if a.rows == 0 || columns == 0 {
        return;
    }
    assert!(width <= stride || a.rows == 1, "rows of the result hold whole vectors");
    assert!(c.len() >= (a.rows - 1) * stride + width, "the result holds whole vectors");
    assert!(a.columns == 0 || b.data.len() >= (a.columns - 1) * b.stride + width, "so does the panel");
    a.check();

    // A tile of rows and vectors has as many sums as the registers hold, and enough to keep the multipliers
    // busy: the narrower, the taller.
    let many = S::REGISTER_COUNT >= 32;
    let mut column = 0;
    while column < width {
        let left = (width - column) / lanes;
        let vectors = if many && left >= 4 { 4 } else { left.min(2) };
        let tall = match vectors {
            1 => 8,
            2 if many => 8,
            _ => 4,
        };
        let mut row = 0;
        while row < a.rows {
            let mut rows = tall;
            while rows > a.rows - row {
                rows /= 2;
            }
            // SAFETY: the asserts above cover every row below `a.rows` and column below `width`.
            unsafe {
                let tile = Tile {
                    a: a.data.as_ptr().add(row * a.row_stride),
                    a_row: a.row_stride,
                    a_column: a.column_stride,
                    depth: a.columns,
                    b: b.data.as_ptr().add(column),
                    b_row: b.stride,
                    c: c.as_mut_ptr().add(row * stride + column),
                    c_row: stride,
                    add,
                };
                match (rows, vectors) {
                    (4, 4) => tile.run::<S, 4, 4>(simd),
                    (2, 4) => tile.run::<S, 2, 4>(simd),
                    (_, 4) => tile.run::<S, 1, 4>(simd),
                    (8, 2) => tile.run::<S, 8, 2>(simd),
                    (4, 2) => tile.run::<S, 4, 2>(simd),
                    (2, 2) => tile.run::<S, 2, 2>(simd),
                    (_, 2) => tile.run::<S, 1, 2>(simd),
                    (8, _) => tile.run::<S, 8, 1>(simd),
                    (4, _) => tile.run::<S, 4, 1>(simd),
                    (2, _) => tile.run::<S, 2, 1>(simd),
                    _ => tile.run::<S, 1, 1>(simd),
                }
            }
            row += rows;
        }
        column += vectors * lanes;
    }
}

struct Tile<T> {
    a: *const T,
    a_row: usize,
    a_column: usize,
    depth: usize,
    b: *const T,
    b_row: usize,
    c: *mut T,
    c_row: usize,
    add: bool,
}

impl<T: Real> Tile<T> {
    /// SAFETY: the pointers are good for `R` rows of `V` vectors and for `depth`.
    #[inline(always)]
    unsafe fn run<S: Simd, const R: usize, const V: usize>(&self, simd: S) {
        let lanes = T::lanes::<S>();
        // SAFETY: as the caller's.
        unsafe {
            let mut sums = [[T::splat(simd, T::ZERO); V]; R];
            if self.add {
                for (r, sums) in sums.iter_mut().enumerate() {
                    for (v, sum) in sums.iter_mut().enumerate() {
                        *sum = self.c.add(r * self.c_row + v * lanes).cast::<T::Vector<S>>().read_unaligned();
                    }
                }
            }
            let mut b = self.b;
            let mut a = self.a;
            for _ in 0..self.depth {
                let mut right = [T::splat(simd, T::ZERO); V];
                for (v, right) in right.iter_mut().enumerate() {
                    *right = b.add(v * lanes).cast::<T::Vector<S>>().read_unaligned();
                }
                for (r, sums) in sums.iter_mut().enumerate() {
                    let left = T::splat(simd, *a.add(r * self.a_row));
                    for (sum, right) in sums.iter_mut().zip(right) {
                        *sum = T::fma(simd, left, right, *sum);
                    }
                }
                a = a.wrapping_add(self.a_column);
                b = b.wrapping_add(self.b_row);
            }
            for (r, sums) in sums.iter().enumerate() {
                for (v, sum) in sums.iter().enumerate() {
                    self.c.add(r * self.c_row + v * lanes).cast::<T::Vector<S>>().write_unaligned(*sum);
                }
            }
        }
    }
}
