//! Matrices of any strides, and their large products.

use super::real::Real;

/// A view of numbers as `(rows, columns)`.
#[derive(Clone, Copy)]
pub struct Matrix<'a, T> {
    pub data: &'a [T],
    pub rows: usize,
    pub columns: usize,
    pub row_stride: usize,
    pub column_stride: usize,
}

impl<'a, T> Matrix<'a, T> {
    /// Rows side by side in memory.
    pub fn new(data: &'a [T], rows: usize, columns: usize) -> Self {
        Self::strided(data, rows, columns, columns)
    }

    /// Rows of `columns` elements, `stride` apart.
    pub fn strided(data: &'a [T], rows: usize, columns: usize, stride: usize) -> Self {
        Self { data, rows, columns, row_stride: stride, column_stride: 1 }
    }

    /// The transpose.
    pub fn t(self) -> Self {
        Self {
            data: self.data,
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
        }
    }

    /// `rows` rows from `first` on.
    pub fn rows(self, first: usize, rows: usize) -> Self {
        assert!(first + rows <= self.rows, "rows {first} + {rows} of {}", self.rows);
        Self { data: &self.data[(first * self.row_stride).min(self.data.len())..], rows, ..self }
    }

    /// Panics where an element would lie outside the data.
    #[inline(always)]
    pub fn check(&self) {
        let empty = self.rows == 0 || self.columns == 0;
        let last = || (self.rows - 1) * self.row_stride + (self.columns - 1) * self.column_stride;
        assert!(empty || last() < self.data.len(), "a matrix reaches beyond its data");
    }
}

/// C = A B, or C += A B where `add`; `c` holds rows of `stride` elements. On the calling thread alone.
pub fn multiply<T: Real>(a: Matrix<T>, b: Matrix<T>, c: &mut [T], stride: usize, add: bool) {
    let (m, n) = (a.rows, b.columns);
    assert!(n <= stride || m == 1, "rows of the result do not overlap");
    assert!(m == 0 || n == 0 || c.len() >= (m - 1) * stride + n, "the result holds the product");
    // SAFETY: as asserted.
    unsafe { multiply_at(a, b, c.as_mut_ptr(), stride, add) }
}

/// The same at a pointer.
///
/// # Safety
/// `c` is good for `a.rows` rows of `b.columns` elements, `stride` apart, that nothing else uses meanwhile.
pub unsafe fn multiply_at<T: Real>(a: Matrix<T>, b: Matrix<T>, c: *mut T, stride: usize, add: bool) {
    let (m, n, k) = (a.rows, b.columns, a.columns);
    assert_eq!(k, b.rows, "inner sizes agree");
    if m == 0 || n == 0 {
        return;
    }
    a.check();
    b.check();
    // SAFETY: the checks cover the factors, the caller the result.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c,
            1,
            stride as isize,
            add,
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
