//! Matrices with any strides.

use super::buffer::Scratch;
use super::real::Real;

/// The most columns of a right-hand side that products read in place, without packing it.
const NARROW: usize = 256;

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
    /// A contiguous matrix.
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

    /// `columns` columns from `first` on, where the elements of a row are adjacent.
    pub fn columns(self, first: usize, columns: usize) -> Self {
        assert!(first + columns <= self.columns && self.column_stride == 1, "columns of a matrix");
        Self { data: &self.data[first.min(self.data.len())..], columns, ..self }
    }

    /// A row whose elements are adjacent.
    pub fn row(&self, row: usize) -> &'a [T] {
        assert!(row < self.rows && self.column_stride == 1, "a row of a matrix");
        &self.data[row * self.row_stride..][..self.columns]
    }

    /// Whether products need not pack this right-hand side, if the elements of its rows are adjacent.
    pub fn is_narrow(&self) -> bool {
        self.columns <= NARROW
    }

    /// Panics where an element would lie outside the data.
    #[inline(always)]
    pub fn check(&self) {
        let empty = self.rows == 0 || self.columns == 0;
        let last = || {
            let row = (self.rows - 1).saturating_mul(self.row_stride);
            row.saturating_add((self.columns - 1).saturating_mul(self.column_stride))
        };
        assert!(empty || last() < self.data.len(), "a matrix reaches beyond its data");
    }
}

/// A copy of a matrix whose rows begin at cache lines, which products read fastest.
pub struct LaidOut<T: Real> {
    data: Scratch<T>,
    rows: usize,
    columns: usize,
    stride: usize,
}

impl<T: Real> LaidOut<T> {
    pub fn of(matrix: Matrix<T>) -> Self {
        let Matrix { rows, columns, .. } = matrix;
        let stride = columns.next_multiple_of(16);
        let mut data = Scratch::new(rows * stride);
        if stride > 0 {
            matrix.check();
            for (r, row) in data.chunks_exact_mut(stride).enumerate() {
                for (c, to) in row[..columns].iter_mut().enumerate() {
                    // SAFETY: checked.
                    *to = unsafe {
                        *matrix.data.get_unchecked(r * matrix.row_stride + c * matrix.column_stride)
                    };
                }
            }
        }
        Self { data, rows, columns, stride }
    }

    pub fn view(&self) -> Matrix<'_, T> {
        Matrix::strided(&self.data, self.rows, self.columns, self.stride)
    }
}

/// The matrix to which a product is added.
#[derive(Clone, Copy)]
pub enum Start<'a, T> {
    Zero,
    /// The previous content of the result.
    Itself,
    /// The same row for every row of the result: a bias.
    Row(&'a [T]),
}
