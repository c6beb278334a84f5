//! The elementary functions that the model needs, for every lane of a register.
//!
//! In float32 these are polynomials without branches; in float64, which is for checking, the library's functions are
//! called for each lane.

use pulp::Simd;

use super::lanes::Lanes;
use super::number::Number;

/// A [`Number`] with elementary functions, which kernels call as methods of [`Lanes`].
pub trait Real: Number {
    fn exp<S: Simd>(x: Lanes<S, Self>) -> Lanes<S, Self>;
    fn tanh<S: Simd>(x: Lanes<S, Self>) -> Lanes<S, Self>;
    fn erf<S: Simd>(x: Lanes<S, Self>) -> Lanes<S, Self>;
}

impl<S: Simd, T: Real> Lanes<S, T> {
    #[inline(always)]
    pub fn exp(self) -> Self {
        T::exp(self)
    }

    #[inline(always)]
    pub fn tanh(self) -> Self {
        T::tanh(self)
    }

    #[inline(always)]
    pub fn erf(self) -> Self {
        T::erf(self)
    }

    /// 1 / (1 + exp(-x))
    #[inline(always)]
    pub fn sigmoid(self) -> Self {
        let one = self.all(T::ONE);
        one / (one + (-self).exp())
    }
}

impl Real for f32 {
    /// exp(x), within 2 units in the last place, of x limited to [-87, 88].
    #[inline(always)]
    fn exp<S: Simd>(x: Lanes<S, f32>) -> Lanes<S, f32> {
        // Adding 1.5 * 2^23 rounds to a whole number, which is then in the low bits; subtracting it gives that number.
        const ROUND: f32 = 12_582_912.0;
        let (simd, x) = (x.simd, x.clamp(-87.0, 88.0));
        let shifted = x.fma(x.all(std::f32::consts::LOG2_E), x.all(ROUND));
        let n = shifted - x.all(ROUND);
        let r = n.fma(x.all(-0.693_359_4), x);
        let r = n.fma(x.all(2.121_944_4e-4), r); // ln 2 in two parts
        let tail =
            r.polynomial([0.5, 1.666_666_5e-1, 4.166_579_6e-2, 8.333_452e-3, 1.398_2e-3, 1.987_569_1e-4]);
        let mantissa = tail.fma(r * r, r) + x.all(1.0);
        // Times 2^n: n is added to the exponent; the other high bits of `shifted` are shifted out.
        let exponent = simd.wrapping_dyn_shl_u32s(
            simd.transmute_u32s_f32s(shifted.vector),
            simd.splat_u32s(f32::MANTISSA_DIGITS - 1),
        );
        let bits = simd.add_u32s(simd.transmute_u32s_f32s(mantissa.vector), exponent);
        Lanes::new(simd, simd.transmute_f32s_u32s(bits))
    }

    /// tanh by a rational function, as in Eigen; within 4 units in the last place.
    #[inline(always)]
    fn tanh<S: Simd>(x: Lanes<S, f32>) -> Lanes<S, f32> {
        let x = x.clamp(-7.905, 7.905);
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
        x * above / below
    }

    /// erf by a rational function, as in Eigen; within a relative error of 3e-7.
    #[inline(always)]
    fn erf<S: Simd>(x: Lanes<S, f32>) -> Lanes<S, f32> {
        let x = x.clamp(-4.0, 4.0);
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
        x * above / below
    }
}

impl Real for f64 {
    #[inline(always)]
    fn exp<S: Simd>(x: Lanes<S, f64>) -> Lanes<S, f64> {
        lane_by_lane(x, f64::exp)
    }

    #[inline(always)]
    fn tanh<S: Simd>(x: Lanes<S, f64>) -> Lanes<S, f64> {
        lane_by_lane(x, f64::tanh)
    }

    #[inline(always)]
    fn erf<S: Simd>(x: Lanes<S, f64>) -> Lanes<S, f64> {
        lane_by_lane(x, libm::erf)
    }
}

#[inline(always)]
fn lane_by_lane<S: Simd>(mut x: Lanes<S, f64>, f: impl Fn(f64) -> f64) -> Lanes<S, f64> {
    let lanes: &mut [f64] = pulp::bytemuck::cast_slice_mut(std::slice::from_mut(&mut x.vector));
    for x in lanes {
        *x = f(*x);
    }
    x
}
