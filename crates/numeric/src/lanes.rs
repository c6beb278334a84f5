//! Vector registers with the operators of a single number, and loops over rows by registers.

use std::marker::PhantomData;
use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub};

use pulp::Simd;

use super::number::Number;

/// One register of the instruction set `S`, full of numbers.
#[derive(Clone, Copy)]
pub struct Lanes<S: Simd, T: Number> {
    pub simd: S,
    pub vector: T::Vector<S>,
}

impl<S: Simd, T: Number> Lanes<S, T> {
    #[inline(always)]
    pub fn new(simd: S, vector: T::Vector<S>) -> Self {
        Self { simd, vector }
    }

    /// The same number in every lane.
    #[inline(always)]
    pub fn splat(simd: S, x: T) -> Self {
        Self::new(simd, T::splat(simd, x))
    }

    /// The number `x`, the same in every lane.
    #[inline(always)]
    pub fn all(self, x: T) -> Self {
        Self::splat(self.simd, x)
    }

    /// self * b + c
    #[inline(always)]
    pub fn fma(self, b: Self, c: Self) -> Self {
        Self::new(self.simd, T::fma(self.simd, self.vector, b.vector, c.vector))
    }

    /// The larger number of each lane; `self` where either is NaN.
    #[inline(always)]
    pub fn max(self, other: Self) -> Self {
        self.where_less(other, other, self)
    }

    /// The smaller number of each lane; `self` where either is NaN.
    #[inline(always)]
    pub fn min(self, other: Self) -> Self {
        other.where_less(self, other, self)
    }

    /// `self` in lanes where `x` is larger than zero, else zero.
    #[inline(always)]
    pub fn where_positive(self, x: Self) -> Self {
        let zero = self.all(T::ZERO);
        zero.where_less(x, self, zero)
    }

    /// `yes` in lanes where `self` is less than `other`, else `no`.
    #[inline(always)]
    fn where_less(self, other: Self, yes: Self, no: Self) -> Self {
        Self::new(self.simd, T::where_less(self.simd, self.vector, other.vector, yes.vector, no.vector))
    }

    /// c[0] + x c[1] + x^2 c[2] ...
    #[inline(always)]
    pub fn polynomial<const N: usize>(self, coefficients: [T; N]) -> Self {
        let mut sum = self.all(coefficients[N - 1]);
        for i in (0..N - 1).rev() {
            sum = sum.fma(self, self.all(coefficients[i]));
        }
        sum
    }

    /// Limited to the bounds; a NaN stays NaN.
    #[inline(always)]
    pub fn clamp(self, low: T, high: T) -> Self {
        self.max(self.all(low)).min(self.all(high))
    }
}

macro_rules! operator {
    ($trait:ident, $method:ident, $lanes:ident) => {
        impl<S: Simd, T: Number> $trait for Lanes<S, T> {
            type Output = Self;
            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                Self::new(self.simd, T::$lanes(self.simd, self.vector, other.vector))
            }
        }
    };
}
operator!(Add, add, add_lanes);
operator!(Sub, sub, sub_lanes);
operator!(Mul, mul, mul_lanes);
operator!(Div, div, div_lanes);

impl<S: Simd, T: Number> Neg for Lanes<S, T> {
    type Output = Self;
    #[inline(always)]
    fn neg(self) -> Self {
        Self::new(self.simd, T::neg_lanes(self.simd, self.vector))
    }
}

impl<S: Simd, T: Number> AddAssign for Lanes<S, T> {
    #[inline(always)]
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

/// The places of a row that one register covers: lanes beyond the row's end are zero when read, and not written.
pub struct Window<S: Simd, T: Number> {
    simd: S,
    /// Elements of the whole row.
    width: usize,
    start: usize,
    end: usize,
    /// The mask of the last places, if they are fewer than a register's lanes.
    mask: Option<T::Mask<S>>,
}

impl<S: Simd, T: Number> Window<S, T> {
    /// The places of a row.
    #[inline(always)]
    pub fn read(&self, row: &[T]) -> Lanes<S, T> {
        assert!(self.end <= row.len());
        // SAFETY: all of `start..end`, which is what the mask has, lies within the row, as asserted.
        let vector = unsafe {
            let from = row.as_ptr().add(self.start);
            match self.mask {
                None => from.cast::<T::Vector<S>>().read_unaligned(),
                Some(mask) => T::load(self.simd, mask, from),
            }
        };
        Lanes::new(self.simd, vector)
    }

    #[inline(always)]
    pub fn write(&self, row: &mut [T], x: Lanes<S, T>) {
        assert!(self.end <= row.len());
        // SAFETY: as in `read`.
        unsafe {
            let to = row.as_mut_ptr().add(self.start);
            match self.mask {
                None => to.cast::<T::Vector<S>>().write_unaligned(x.vector),
                Some(mask) => T::store(self.simd, mask, to, x.vector),
            }
        }
    }

    /// The places of `N` rows that are one after the other in memory.
    #[inline(always)]
    pub fn read_rows<const N: usize>(&self, rows: &[T]) -> [Lanes<S, T>; N] {
        let mut lanes = [Lanes::splat(self.simd, T::ZERO); N];
        for (i, lanes) in lanes.iter_mut().enumerate() {
            *lanes = self.read(&rows[i * self.width..]);
        }
        lanes
    }

    #[inline(always)]
    pub fn write_rows<const N: usize>(&self, rows: &mut [T], lanes: [Lanes<S, T>; N]) {
        for (i, lanes) in lanes.into_iter().enumerate() {
            self.write(&mut rows[i * self.width..], lanes);
        }
    }
}

/// The windows of rows of `width` elements, one after the other.
///
/// Kernels loop over them rather than pass a closure: what a closure calls is not compiled for `S`.
#[inline(always)]
pub fn windows<S: Simd, T: Number>(simd: S, width: usize) -> Windows<S, T> {
    Windows { simd, width, start: 0, _of: PhantomData }
}

pub struct Windows<S, T> {
    simd: S,
    width: usize,
    start: usize,
    _of: PhantomData<T>,
}

impl<S: Simd, T: Number> Iterator for Windows<S, T> {
    type Item = Window<S, T>;

    #[inline(always)]
    fn next(&mut self) -> Option<Window<S, T>> {
        let Self { simd, width, start, .. } = *self;
        if start >= width {
            return None;
        }
        let whole = start + T::lanes::<S>();
        let mask = (whole > width).then(|| T::first(simd, width - start));
        self.start = whole;
        Some(Window { simd, width, start, end: whole.min(width), mask })
    }
}
