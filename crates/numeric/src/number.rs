//! float32 and float64 behind one trait: arithmetic on one number and on a register full of them.
//!
//! Kernels use these methods by way of [`super::Lanes`], which has the operators.

use std::fmt::Debug;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Div, DivAssign, Mul, MulAssign, Neg, Sub, SubAssign};

use pulp::bytemuck::Pod;
use pulp::{MemMask, Simd};

/// A floating-point number. Call methods generic over `S` only in kernels compiled for `S`.
pub trait Number:
    Pod
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
{
    const ZERO: Self;
    const ONE: Self;
    /// A register full of numbers; its layout in memory is that of an array.
    type Vector<S: Simd>: Pod;
    /// One bit for each number of a register.
    type Mask<S: Simd>: Copy;

    fn of(x: f64) -> Self;
    fn to_f64(self) -> f64;
    fn sqrt(self) -> Self;
    fn abs(self) -> Self;
    fn splat<S: Simd>(simd: S, x: Self) -> Self::Vector<S>;
    /// a * b + c
    fn fma<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>, c: Self::Vector<S>) -> Self::Vector<S>;
    fn add_lanes<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;
    fn sub_lanes<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;
    fn mul_lanes<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;
    fn div_lanes<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;
    fn neg_lanes<S: Simd>(simd: S, a: Self::Vector<S>) -> Self::Vector<S>;
    /// `yes` in lanes where a < b, else `no`, also where either is NaN.
    fn where_less<S: Simd>(
        simd: S,
        a: Self::Vector<S>,
        b: Self::Vector<S>,
        yes: Self::Vector<S>,
        no: Self::Vector<S>,
    ) -> Self::Vector<S>;
    /// The mask of the first `count` numbers of a register, or of all if `count` is larger.
    fn first<S: Simd>(simd: S, count: usize) -> Self::Mask<S>;
    /// Reads the numbers from `from` on that are in the mask, zeros elsewhere; one operation slower than reading all.
    ///
    /// # Safety
    /// The pointer is good for reading the numbers that are in the mask.
    unsafe fn load<S: Simd>(simd: S, mask: Self::Mask<S>, from: *const Self) -> Self::Vector<S>;
    /// Writes the numbers that are in the mask.
    ///
    /// # Safety
    /// The pointer is good for writing the numbers that are in the mask.
    unsafe fn store<S: Simd>(simd: S, mask: Self::Mask<S>, to: *mut Self, x: Self::Vector<S>);

    /// How many numbers a register holds.
    #[inline(always)]
    fn lanes<S: Simd>() -> usize {
        size_of::<Self::Vector<S>>() / size_of::<Self>()
    }
}

/// Implements [`Number`] for a type, by `pulp`'s names for its vectors, masks and instructions.
macro_rules! number {
    ($number:ident, $vector:ident, $mask:ident, $count:ident; $splat:ident, $fma:ident, $add:ident, $sub:ident,
     $mul:ident, $div:ident, $neg:ident, $less:ident, $select:ident, $between:ident, $load:ident, $store:ident) => {
        impl Number for $number {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            type Vector<S: Simd> = S::$vector;
            type Mask<S: Simd> = S::$mask;

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
            fn splat<S: Simd>(simd: S, x: Self) -> S::$vector {
                simd.$splat(x)
            }

            #[inline(always)]
            fn fma<S: Simd>(simd: S, a: S::$vector, b: S::$vector, c: S::$vector) -> S::$vector {
                simd.$fma(a, b, c)
            }

            #[inline(always)]
            fn add_lanes<S: Simd>(simd: S, a: S::$vector, b: S::$vector) -> S::$vector {
                simd.$add(a, b)
            }

            #[inline(always)]
            fn sub_lanes<S: Simd>(simd: S, a: S::$vector, b: S::$vector) -> S::$vector {
                simd.$sub(a, b)
            }

            #[inline(always)]
            fn mul_lanes<S: Simd>(simd: S, a: S::$vector, b: S::$vector) -> S::$vector {
                simd.$mul(a, b)
            }

            #[inline(always)]
            fn div_lanes<S: Simd>(simd: S, a: S::$vector, b: S::$vector) -> S::$vector {
                simd.$div(a, b)
            }

            #[inline(always)]
            fn neg_lanes<S: Simd>(simd: S, a: S::$vector) -> S::$vector {
                simd.$neg(a)
            }

            #[inline(always)]
            fn where_less<S: Simd>(
                simd: S,
                a: S::$vector,
                b: S::$vector,
                yes: S::$vector,
                no: S::$vector,
            ) -> S::$vector {
                simd.$select(simd.$less(a, b), yes, no)
            }

            #[inline(always)]
            fn first<S: Simd>(simd: S, count: usize) -> S::$mask {
                simd.$between(0, count.min(Self::lanes::<S>()) as $count).mask()
            }

            #[inline(always)]
            unsafe fn load<S: Simd>(simd: S, mask: S::$mask, from: *const Self) -> S::$vector {
                // SAFETY: as the caller's.
                unsafe { simd.$load(MemMask::new(mask), from) }
            }

            #[inline(always)]
            unsafe fn store<S: Simd>(simd: S, mask: S::$mask, to: *mut Self, x: S::$vector) {
                // SAFETY: as the caller's.
                unsafe { simd.$store(MemMask::new(mask), to, x) }
            }
        }
    };
}

number! {
    f32, f32s, m32s, u32;
    splat_f32s, mul_add_e_f32s, add_f32s, sub_f32s, mul_f32s, div_f32s, neg_f32s, less_than_f32s, select_f32s,
    mask_between_m32s, mask_load_ptr_f32s, mask_store_ptr_f32s
}
number! {
    f64, f64s, m64s, u64;
    splat_f64s, mul_add_e_f64s, add_f64s, sub_f64s, mul_f64s, div_f64s, neg_f64s, less_than_f64s, select_f64s,
    mask_between_m64s, mask_load_ptr_f64s, mask_store_ptr_f64s
}
