//! float32 and float64 behind one trait, with the elementary functions that the model needs.
//!
//! In float32 these are polynomials without branches; in float64, which is for checking, they are the
//! library's. Kernels write them on [`Lanes`].

use std::cell::RefCell;
use std::fmt::Debug;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Div, DivAssign, Mul, MulAssign, Neg, Sub, SubAssign};
use std::thread::LocalKey;

use pulp::{MemMask, Simd};
use tch::Kind;

use super::lanes::Lanes;

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
    /// Which numbers of a register are read or written.
    type Mask<S: Simd>: Copy;

    /// Working memory that the calling thread keeps for [`super::Scratch`].
    fn kept() -> &'static Kept<Self>;
    fn of(x: f64) -> Self;
    fn to_f64(self) -> f64;
    fn sqrt(self) -> Self;
    fn abs(self) -> Self;
    fn splat<S: Simd>(simd: S, x: Self) -> Self::Vector<S>;
    /// a * b + c
    fn fma<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>, c: Self::Vector<S>) -> Self::Vector<S>;
    /// The first `count` numbers of a register, at most all.
    fn first<S: Simd>(simd: S, count: usize) -> Self::Mask<S>;
    /// Numbers from `from` on, zeros where the mask has none, which costs an operation more than reading all.
    ///
    /// # Safety
    /// The pointer is good for what the mask has.
    unsafe fn load<S: Simd>(simd: S, mask: Self::Mask<S>, from: *const Self) -> Self::Vector<S>;
    /// Writes what the mask has.
    ///
    /// # Safety
    /// As for [`Real::load`].
    unsafe fn store<S: Simd>(simd: S, mask: Self::Mask<S>, to: *mut Self, x: Self::Vector<S>);
    fn add_lanes<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;
    fn sub_lanes<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;
    fn mul_lanes<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;
    fn div_lanes<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;
    fn neg_lanes<S: Simd>(simd: S, a: Self::Vector<S>) -> Self::Vector<S>;
    /// The larger number of each lane; `a` where either is NaN.
    fn larger<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;
    /// The smaller one; `a` where either is NaN.
    fn smaller<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;
    /// `a` in lanes where `x` is larger than zero, else zero.
    fn where_positive<S: Simd>(simd: S, x: Self::Vector<S>, a: Self::Vector<S>) -> Self::Vector<S>;
    fn exp<S: Simd>(simd: S, x: Self::Vector<S>) -> Self::Vector<S>;
    fn tanh<S: Simd>(simd: S, x: Self::Vector<S>) -> Self::Vector<S>;
    fn erf<S: Simd>(simd: S, x: Self::Vector<S>) -> Self::Vector<S>;

    /// Numbers in a register.
    fn lanes<S: Simd>() -> usize {
        size_of::<Self::Vector<S>>() / size_of::<Self>()
    }
}

impl Real for f32 {
    const KIND: Kind = Kind::Float;
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
    type Vector<S: Simd> = S::f32s;
    type Mask<S: Simd> = S::m32s;

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

    #[inline(always)]
    fn first<S: Simd>(simd: S, count: usize) -> Self::Mask<S> {
        simd.mask_between_m32s(0, count.min(Self::lanes::<S>()) as u32).mask()
    }

    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, mask: Self::Mask<S>, from: *const Self) -> S::f32s {
        // SAFETY: as the caller's.
        unsafe { simd.mask_load_ptr_f32s(MemMask::new(mask), from) }
    }

    #[inline(always)]
    unsafe fn store<S: Simd>(simd: S, mask: Self::Mask<S>, to: *mut Self, x: S::f32s) {
        // SAFETY: as the caller's.
        unsafe { simd.mask_store_ptr_f32s(MemMask::new(mask), to, x) }
    }

    #[inline(always)]
    fn add_lanes<S: Simd>(simd: S, a: S::f32s, b: S::f32s) -> S::f32s {
        simd.add_f32s(a, b)
    }

    #[inline(always)]
    fn sub_lanes<S: Simd>(simd: S, a: S::f32s, b: S::f32s) -> S::f32s {
        simd.sub_f32s(a, b)
    }

    #[inline(always)]
    fn mul_lanes<S: Simd>(simd: S, a: S::f32s, b: S::f32s) -> S::f32s {
        simd.mul_f32s(a, b)
    }

    #[inline(always)]
    fn div_lanes<S: Simd>(simd: S, a: S::f32s, b: S::f32s) -> S::f32s {
        simd.div_f32s(a, b)
    }

    #[inline(always)]
    fn neg_lanes<S: Simd>(simd: S, a: S::f32s) -> S::f32s {
        simd.neg_f32s(a)
    }

    #[inline(always)]
    fn larger<S: Simd>(simd: S, a: S::f32s, b: S::f32s) -> S::f32s {
        simd.select_f32s(simd.less_than_f32s(a, b), b, a)
    }

    #[inline(always)]
    fn smaller<S: Simd>(simd: S, a: S::f32s, b: S::f32s) -> S::f32s {
        simd.select_f32s(simd.less_than_f32s(b, a), b, a)
    }

    #[inline(always)]
    fn where_positive<S: Simd>(simd: S, x: S::f32s, a: S::f32s) -> S::f32s {
        let zero = simd.splat_f32s(0.0);
        simd.select_f32s(simd.less_than_f32s(zero, x), a, zero)
    }

    /// Within 2 units in the last place. Below -87 it is that of -87, above 88 that of 88.
    #[inline(always)]
    fn exp<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
        // Adding and taking away 1.5 * 2^23 rounds to a whole number, which then stands in the low bits.
        const ROUND: f32 = 12_582_912.0;
        let x = Lanes::<S, f32>::new(simd, x).clamp(-87.0, 88.0);
        let shifted = x.fma(x.all(std::f32::consts::LOG2_E), x.all(ROUND));
        let n = shifted - x.all(ROUND);
        let r = n.fma(x.all(-0.693_359_4), x);
        let r = n.fma(x.all(2.121_944_4e-4), r); // ln 2 in two parts
        let tail =
            r.polynomial([0.5, 1.666_666_5e-1, 4.166_579_6e-2, 8.333_452e-3, 1.398_2e-3, 1.987_569_1e-4]);
        let mantissa = tail.fma(r * r, r) + x.all(1.0);
        // Times 2^n: n is added to the exponent, and what else stands above it in `shifted` is shifted out.
        let exponent = simd.wrapping_dyn_shl_u32s(
            simd.transmute_u32s_f32s(shifted.vector),
            simd.splat_u32s(f32::MANTISSA_DIGITS - 1),
        );
        let bits = simd.add_u32s(simd.transmute_u32s_f32s(mantissa.vector), exponent);
        simd.transmute_f32s_u32s(bits)
    }

    /// A rational function, as Eigen's; within 4 units in the last place.
    #[inline(always)]
    fn tanh<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
        let x = Lanes::<S, f32>::new(simd, x).clamp(-7.905, 7.905);
        let square = x * x;
        let above = square.polynomial([
            4.893_524_6e-3,
            6.372_619e-4,
            1.485_722_4e-5,
            5.122_297e-8,
            -8.604_672e-11,
            2.000_188e-13,
            -2.760_768_5e-16,
        ]);
        let below = square.polynomial([4.893_525e-3, 2.268_434_6e-3, 1.185_347_1e-4, 1.198_258_4e-6]);
        (x * above / below).vector
    }

    /// A rational function, as Eigen's; within 3e-7 of its size.
    #[inline(always)]
    fn erf<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
        let x = Lanes::<S, f32>::new(simd, x).clamp(-4.0, 4.0);
        let square = x * x;
        let above = square.polynomial([
            -1.609_603_3e-2,
            -2.954_599_8e-3,
            -7.349_906e-4,
            -5.692_506_4e-5,
            -2.101_024e-6,
            2.770_681_5e-8,
            -2.726_142_3e-10,
        ]);
        let below = square.polynomial([
            -1.426_473_9e-2,
            -7.373_329e-3,
            -1.682_827e-3,
            -2.133_740_6e-4,
            -1.456_607_2e-5,
        ]);
        (x * above / below).vector
    }
}

impl Real for f64 {
    const KIND: Kind = Kind::Double;
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
    type Vector<S: Simd> = S::f64s;
    type Mask<S: Simd> = S::m64s;

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
    fn first<S: Simd>(simd: S, count: usize) -> Self::Mask<S> {
        simd.mask_between_m64s(0, count.min(Self::lanes::<S>()) as u64).mask()
    }

    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, mask: Self::Mask<S>, from: *const Self) -> S::f64s {
        // SAFETY: as the caller's.
        unsafe { simd.mask_load_ptr_f64s(MemMask::new(mask), from) }
    }

    #[inline(always)]
    unsafe fn store<S: Simd>(simd: S, mask: Self::Mask<S>, to: *mut Self, x: S::f64s) {
        // SAFETY: as the caller's.
        unsafe { simd.mask_store_ptr_f64s(MemMask::new(mask), to, x) }
    }

    #[inline(always)]
    fn add_lanes<S: Simd>(simd: S, a: S::f64s, b: S::f64s) -> S::f64s {
        simd.add_f64s(a, b)
    }

    #[inline(always)]
    fn sub_lanes<S: Simd>(simd: S, a: S::f64s, b: S::f64s) -> S::f64s {
        simd.sub_f64s(a, b)
    }

    #[inline(always)]
    fn mul_lanes<S: Simd>(simd: S, a: S::f64s, b: S::f64s) -> S::f64s {
        simd.mul_f64s(a, b)
    }

    #[inline(always)]
    fn div_lanes<S: Simd>(simd: S, a: S::f64s, b: S::f64s) -> S::f64s {
        simd.div_f64s(a, b)
    }

    #[inline(always)]
    fn neg_lanes<S: Simd>(simd: S, a: S::f64s) -> S::f64s {
        simd.neg_f64s(a)
    }

    #[inline(always)]
    fn larger<S: Simd>(simd: S, a: S::f64s, b: S::f64s) -> S::f64s {
        simd.select_f64s(simd.less_than_f64s(a, b), b, a)
    }

    #[inline(always)]
    fn smaller<S: Simd>(simd: S, a: S::f64s, b: S::f64s) -> S::f64s {
        simd.select_f64s(simd.less_than_f64s(b, a), b, a)
    }

    #[inline(always)]
    fn where_positive<S: Simd>(simd: S, x: S::f64s, a: S::f64s) -> S::f64s {
        let zero = simd.splat_f64s(0.0);
        simd.select_f64s(simd.less_than_f64s(zero, x), a, zero)
    }

    #[inline(always)]
    fn exp<S: Simd>(_simd: S, x: S::f64s) -> S::f64s {
        lane_by_lane::<S>(x, f64::exp)
    }

    #[inline(always)]
    fn tanh<S: Simd>(_simd: S, x: S::f64s) -> S::f64s {
        lane_by_lane::<S>(x, f64::tanh)
    }

    #[inline(always)]
    fn erf<S: Simd>(_simd: S, x: S::f64s) -> S::f64s {
        lane_by_lane::<S>(x, libm::erf)
    }
}

#[inline(always)]
fn lane_by_lane<S: Simd>(mut x: S::f64s, f: impl Fn(f64) -> f64) -> S::f64s {
    let lanes: &mut [f64] = pulp::bytemuck::cast_slice_mut(std::slice::from_mut(&mut x));
    for x in lanes {
        *x = f(*x);
    }
    x
}
