//! float32 and float64 behind one trait, with the elementary functions that the model needs.
//!
//! In float32 these are polynomials without branches, so that loops over them become vector code; in
//! float64, which is for checking, they are the library's.

use std::cell::RefCell;
use std::fmt::Debug;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Div, DivAssign, Mul, MulAssign, Neg, Sub, SubAssign};
use std::thread::LocalKey;

use pulp::Simd;
use tch::Kind;

/// Rows that are read or written in whole vectors are padded to a multiple of this many elements, the
/// widest vector of any instruction set.
const PADDING: usize = 16;

/// `width` rounded up to whole vectors.
pub const fn pad(width: usize) -> usize {
    width.div_ceil(PADDING) * PADDING
}

/// Buffers of one thread.
pub type Kept<T> = LocalKey<RefCell<Vec<Vec<T>>>>;

/// A floating-point number. Methods generic over `S` belong into kernels compiled for `S`.
pub trait Real:
    Copy
    + Default
    + Debug
    + PartialOrd
    + Send
    + Sync
    + Sum
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + SubAssign
    + MulAssign
    + DivAssign
    + 'static
{
    const KIND: Kind;
    const ZERO: Self;
    const ONE: Self;
    /// A register full of numbers.
    type Vector<S: Simd>: Copy;

    /// Working memory that the calling thread keeps for [`super::Scratch`].
    fn kept() -> &'static Kept<Self>;
    fn of(x: f64) -> Self;
    fn to_f64(self) -> f64;
    fn sqrt(self) -> Self;
    fn abs(self) -> Self;
    fn splat<S: Simd>(simd: S, x: Self) -> Self::Vector<S>;
    /// a * b + c
    fn fma<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>, c: Self::Vector<S>) -> Self::Vector<S>;
    fn exp<S: Simd>(self) -> Self;
    fn tanh<S: Simd>(self) -> Self;
    fn erf<S: Simd>(self) -> Self;

    #[inline(always)]
    fn sigmoid<S: Simd>(self) -> Self {
        Self::ONE / (Self::ONE + (-self).exp::<S>())
    }

    /// Numbers in a register.
    fn lanes<S: Simd>() -> usize {
        size_of::<Self::Vector<S>>() / size_of::<Self>()
    }
}

/// a * b + c, fused where the instruction set can.
#[inline(always)]
fn fma<S: Simd>(a: f32, b: f32, c: f32) -> f32 {
    if S::IS_SCALAR { a * b + c } else { a.mul_add(b, c) }
}

/// c[0] + x c[1] + x^2 c[2] ...
#[inline(always)]
fn polynomial<S: Simd, const N: usize>(x: f32, coefficients: [f32; N]) -> f32 {
    let mut sum = coefficients[N - 1];
    for c in coefficients.into_iter().rev().skip(1) {
        sum = fma::<S>(sum, x, c);
    }
    sum
}

/// `x` within the bounds; a NaN stays one.
#[inline(always)]
fn clamp(x: f32, low: f32, high: f32) -> f32 {
    let x = if x < low { low } else { x };
    if x > high { high } else { x }
}

impl Real for f32 {
    const KIND: Kind = Kind::Float;
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
    type Vector<S: Simd> = S::f32s;

    fn kept() -> &'static Kept<Self> {
        thread_local!(static KEPT: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) });
        &KEPT
    }

    #[inline(always)]
    fn of(x: f64) -> Self {
        x as Self
    }

    #[inline(always)]
    fn to_f64(self) -> f64 {
        self.into()
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        self.sqrt()
    }

    #[inline(always)]
    fn abs(self) -> Self {
        self.abs()
    }

    #[inline(always)]
    fn splat<S: Simd>(simd: S, x: Self) -> S::f32s {
        simd.splat_f32s(x)
    }

    #[inline(always)]
    fn fma<S: Simd>(simd: S, a: S::f32s, b: S::f32s, c: S::f32s) -> S::f32s {
        simd.mul_add_e_f32s(a, b, c)
    }

    /// Within 2 units in the last place. Below -87 it is that of -87, above 88 that of 88.
    #[inline(always)]
    fn exp<S: Simd>(self) -> Self {
        // Adding and taking away 1.5 * 2^23 rounds to a whole number, which then stands in the low bits.
        const ROUND: f32 = 12_582_912.0;
        let x = clamp(self, -87.0, 88.0);
        let shifted = fma::<S>(x, std::f32::consts::LOG2_E, ROUND);
        let n = shifted - ROUND;
        let r = fma::<S>(n, -0.693_359_4, x);
        let r = fma::<S>(n, 2.121_944_4e-4, r); // ln 2 in two parts
        let tail = polynomial::<S, 6>(
            r,
            [0.5, 1.666_666_5e-1, 4.166_579_6e-2, 8.333_452e-3, 1.398_2e-3, 1.987_569_1e-4],
        );
        let mantissa = fma::<S>(tail, r * r, r) + 1.0;
        let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
        mantissa * f32::from_bits(exponent)
    }

    /// A rational function, as Eigen's; within 4 units in the last place.
    #[inline(always)]
    fn tanh<S: Simd>(self) -> Self {
        let x = clamp(self, -7.905, 7.905);
        let square = x * x;
        let above = polynomial::<S, 7>(
            square,
            [
                4.893_524_6e-3,
                6.372_619e-4,
                1.485_722_4e-5,
                5.122_297e-8,
                -8.604_672e-11,
                2.000_188e-13,
                -2.760_768_5e-16,
            ],
        );
        let below =
            polynomial::<S, 4>(square, [4.893_525e-3, 2.268_434_6e-3, 1.185_347_1e-4, 1.198_258_4e-6]);
        x * above / below
    }

    /// A rational function, as Eigen's; within 3e-7 of its size.
    #[inline(always)]
    fn erf<S: Simd>(self) -> Self {
        let x = clamp(self, -4.0, 4.0);
        let square = x * x;
        let above = polynomial::<S, 7>(
            square,
            [
                -1.609_603_3e-2,
                -2.954_599_8e-3,
                -7.349_906e-4,
                -5.692_506_4e-5,
                -2.101_024e-6,
                2.770_681_5e-8,
                -2.726_142_3e-10,
            ],
        );
        let below = polynomial::<S, 5>(
            square,
            [-1.426_473_9e-2, -7.373_329e-3, -1.682_827e-3, -2.133_740_6e-4, -1.456_607_2e-5],
        );
        x * above / below
    }
}

impl Real for f64 {
    const KIND: Kind = Kind::Double;
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
    type Vector<S: Simd> = S::f64s;

    fn kept() -> &'static Kept<Self> {
        thread_local!(static KEPT: RefCell<Vec<Vec<f64>>> = const { RefCell::new(Vec::new()) });
        &KEPT
    }

    #[inline(always)]
    fn of(x: f64) -> Self {
        x
    }

    #[inline(always)]
    fn to_f64(self) -> f64 {
        self
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        self.sqrt()
    }

    #[inline(always)]
    fn abs(self) -> Self {
        self.abs()
    }

    #[inline(always)]
    fn splat<S: Simd>(simd: S, x: Self) -> S::f64s {
        simd.splat_f64s(x)
    }

    #[inline(always)]
    fn fma<S: Simd>(simd: S, a: S::f64s, b: S::f64s, c: S::f64s) -> S::f64s {
        simd.mul_add_e_f64s(a, b, c)
    }

    #[inline(always)]
    fn exp<S: Simd>(self) -> Self {
        self.exp()
    }

    #[inline(always)]
    fn tanh<S: Simd>(self) -> Self {
        self.tanh()
    }

    #[inline(always)]
    fn erf<S: Simd>(self) -> Self {
        libm::erf(self)
    }
}
