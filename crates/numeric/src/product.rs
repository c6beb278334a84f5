//! The matrix product for sizes as the model's, whose right-hand side fits into the cache, so that nothing is
//! packed.

use pulp::{Simd, WithSimd};

use super::kernel::arch;
use super::matrix::{Matrix, Start};
use super::real::Real;

/// The depth handled at a time: that much of the right-hand side stays in the nearest cache.
const DEPTH: usize = 64;

/// C = A B on top of `start`: `a` `(m, k)` of any strides, `b` `(k, n)` and `c` `(m, n)` with adjacent
/// elements in rows of `stride`.
///
/// Each element is summed over k in order, whatever the shapes are.
#[inline(always)]
pub fn product<S: Simd, T: Real>(
    simd: S,
    a: Matrix<T>,
    b: Matrix<T>,
    c: &mut [T],
    stride: usize,
    start: Start<T>,
) {
    let (m, n) = (a.rows, b.columns);
    assert!(n <= stride || m == 1, "rows of the result do not overlap");
    assert!(m == 0 || n == 0 || c.len() >= (m - 1) * stride + n, "the result holds the product");
    // SAFETY: as asserted.
    unsafe { product_at(simd, a, b, c.as_mut_ptr(), stride, start) }
}

/// [`product`] with a pointer to the result.
///
/// # Safety
/// `c` is good for `a.rows` rows of `b.columns` elements, `stride` apart, that nothing else uses meanwhile.
#[inline(always)]
pub unsafe fn product_at<S: Simd, T: Real>(
    simd: S,
    a: Matrix<T>,
    b: Matrix<T>,
    c: *mut T,
    stride: usize,
    start: Start<T>,
) {
    // SAFETY: as the caller's.
    if let Some(product) = unsafe { Product::checked(a, b, c, stride, start) } {
        // All kernels call this one function, rather than each having a copy.
        simd.vectorize(product);
    }
}

/// [`product_at`] outside a kernel.
///
/// # Safety
/// As for [`product_at`].
pub unsafe fn product_alone<T: Real>(a: Matrix<T>, b: Matrix<T>, c: *mut T, stride: usize, start: Start<T>) {
    // SAFETY: as the caller's.
    if let Some(product) = unsafe { Product::checked(a, b, c, stride, start) } {
        arch().dispatch(product);
    }
}

/// A product whose factors lie within their data and whose result is good for writing.
struct Product<'a, T> {
    a: Matrix<'a, T>,
    b: Matrix<'a, T>,
    c: *mut T,
    stride: usize,
    /// The matrix from which sums start, and the stride of its rows.
    start: Option<(*const T, usize)>,
}

impl<'a, T: Real> Product<'a, T> {
    /// `None` where the result is empty.
    ///
    /// # Safety
    /// As for [`product_at`].
    #[inline(always)]
    unsafe fn checked(
        a: Matrix<'a, T>,
        b: Matrix<'a, T>,
        c: *mut T,
        stride: usize,
        start: Start<'a, T>,
    ) -> Option<Self> {
        assert!(b.column_stride == 1 && a.columns == b.rows, "a product of matrices laid out for it");
        if a.rows == 0 || b.columns == 0 {
            return None;
        }
        a.check();
        b.check();
        let start = match start {
            Start::Zero => None,
            Start::Itself => Some((c.cast_const(), stride)),
            Start::Row(row) => Some((row[..b.columns].as_ptr(), 0)),
        };
        Some(Self { a, b, c, stride, start })
    }
}

impl<T: Real> WithSimd for Product<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { a, b, c, stride, start } = self;
        let lanes = T::lanes::<S>();
        // A tile has as many sums as registers hold, and enough to keep the multipliers busy, so a narrower tile is
        // taller.
        let widest = if S::REGISTER_COUNT >= 32 { 4 } else { 2 };
        for first in (0..a.columns.max(1)).step_by(DEPTH) {
            let depth = DEPTH.min(a.columns - first);
            let start = if first > 0 { Some((c.cast_const(), stride)) } else { start };
            let mut column = 0;
            while column < b.columns {
                let left = b.columns - column;
                let vectors = left.div_ceil(lanes).min(widest);
                let mask = T::first(simd, left - (vectors - 1) * lanes);
                let tall = if vectors < widest { 8 } else { 4 };
                let mut row = 0;
                while row < a.rows {
                    let left = a.rows - row;
                    // Two tiles divide the last rows evenly.
                    let rows = if left > tall && left < 2 * tall { left.div_ceil(2) } else { tall.min(left) };
                    // SAFETY: within the rows and columns that `checked` has checked.
                    unsafe {
                        let tile = Tile {
                            a: a.data.as_ptr().wrapping_add(row * a.row_stride + first * a.column_stride),
                            a_row: a.row_stride,
                            a_column: a.column_stride,
                            depth,
                            // Wrapping, as this is out of bounds where the depth is 0.
                            b: b.data.as_ptr().wrapping_add(first * b.row_stride + column),
                            b_row: b.row_stride,
                            b_len: b.data.len().saturating_sub(first * b.row_stride + column),
                            c: c.add(row * stride + column),
                            c_row: stride,
                            start: start.map(|(from, apart)| (from.add(row * apart + column), apart)),
                            mask,
                        };
                        match vectors {
                            4 => tile.of_rows::<4>(simd, rows),
                            3 => tile.of_rows::<3>(simd, rows),
                            2 => tile.of_rows::<2>(simd, rows),
                            _ => tile.of_rows::<1>(simd, rows),
                        }
                    }
                    row += rows;
                }
                column += vectors * lanes;
            }
        }
    }
}

/// Some rows and vectors of the result. Only the lanes in `mask` of the last vector exist.
struct Tile<S: Simd, T: Real> {
    a: *const T,
    a_row: usize,
    a_column: usize,
    depth: usize,
    b: *const T,
    b_row: usize,
    b_len: usize,
    c: *mut T,
    c_row: usize,
    start: Option<(*const T, usize)>,
    mask: T::Mask<S>,
}

impl<S: Simd, T: Real> Tile<S, T> {
    /// # Safety
    /// As [`Tile::run`], with `rows` at most 4 where there are 4 vectors, else 8.
    #[inline(always)]
    unsafe fn of_rows<const V: usize>(&self, simd: S, rows: usize) {
        // SAFETY: as the caller's.
        unsafe {
            match rows {
                1 => self.run::<1, V>(simd),
                2 => self.run::<2, V>(simd),
                3 => self.run::<3, V>(simd),
                4 => self.run::<4, V>(simd),
                5 if V < 4 => self.run::<5, V>(simd),
                6 if V < 4 => self.run::<6, V>(simd),
                7 if V < 4 => self.run::<7, V>(simd),
                8 if V < 4 => self.run::<8, V>(simd),
                _ => unreachable!("no tile is higher"),
            }
        }
    }

    /// # Safety
    /// The pointers are good for `R` rows of `V` vectors and for `depth`.
    #[inline(always)]
    unsafe fn run<const R: usize, const V: usize>(&self, simd: S) {
        let lanes = T::lanes::<S>();
        // SAFETY: as the caller's.
        unsafe {
            let mut sums = [[T::splat(simd, T::ZERO); V]; R];
            if let Some((from, apart)) = self.start {
                for (r, sums) in sums.iter_mut().enumerate() {
                    for (v, sum) in sums.iter_mut().enumerate() {
                        *sum = self.load::<V>(simd, v, from.add(r * apart + v * lanes));
                    }
                }
            }
            // The last vector of a row is read whole, which is faster, where enough elements follow it.
            let whole = match self.b_len.checked_sub(V * lanes) {
                None => 0,
                Some(_) if self.b_row == 0 => self.depth,
                Some(rest) => self.depth.min(rest / self.b_row + 1),
            };
            let (mut a, mut b) = (self.a, self.b);
            for _ in 0..whole {
                let mut right = [T::splat(simd, T::ZERO); V];
                for (v, right) in right.iter_mut().enumerate() {
                    *right = b.add(v * lanes).cast::<T::Vector<S>>().read_unaligned();
                }
                self.accumulate(simd, a, right, &mut sums);
                a = a.wrapping_add(self.a_column);
                b = b.wrapping_add(self.b_row);
            }
            for _ in whole..self.depth {
                let mut right = [T::splat(simd, T::ZERO); V];
                for (v, right) in right.iter_mut().enumerate() {
                    *right = self.load::<V>(simd, v, b.add(v * lanes));
                }
                self.accumulate(simd, a, right, &mut sums);
                a = a.wrapping_add(self.a_column);
                b = b.wrapping_add(self.b_row);
            }
            for (r, sums) in sums.iter().enumerate() {
                for (v, sum) in sums.iter().enumerate() {
                    let to = self.c.add(r * self.c_row + v * lanes);
                    if v + 1 < V {
                        to.cast::<T::Vector<S>>().write_unaligned(*sum);
                    } else {
                        T::store(simd, self.mask, to, *sum);
                    }
                }
            }
        }
    }

    /// Reads vector `v` of `V`, of the last one only the lanes in the mask.
    ///
    /// # Safety
    /// The pointer is good for reading those lanes.
    #[inline(always)]
    unsafe fn load<const V: usize>(&self, simd: S, v: usize, from: *const T) -> T::Vector<S> {
        // SAFETY: as the caller's.
        unsafe {
            if v + 1 < V {
                from.cast::<T::Vector<S>>().read_unaligned()
            } else {
                T::load(simd, self.mask, from)
            }
        }
    }

    /// # Safety
    /// `a` is good for the rows of a column.
    #[inline(always)]
    unsafe fn accumulate<const R: usize, const V: usize>(
        &self,
        simd: S,
        a: *const T,
        right: [T::Vector<S>; V],
        sums: &mut [[T::Vector<S>; V]; R],
    ) {
        for (r, sums) in sums.iter_mut().enumerate() {
            // SAFETY: as the caller's.
            let left = T::splat(simd, unsafe { *a.add(r * self.a_row) });
            for (sum, right) in sums.iter_mut().zip(right) {
                *sum = T::fma(simd, left, right, *sum);
            }
        }
    }
}
