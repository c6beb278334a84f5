//! Functions compiled once for each instruction set; the machine's best is chosen when the program runs.

use std::sync::OnceLock;

use pulp::Arch;

/// The instruction set in use: the best that the machine has, or a lesser one by `MMILN_SIMD=avx2` or `scalar`.
#[inline]
pub fn arch() -> Arch {
    static ARCH: OnceLock<Arch> = OnceLock::new();
    *ARCH.get_or_init(|| match std::env::var("MMILN_SIMD").as_deref() {
        Ok("scalar") => Arch::Scalar,
        #[cfg(target_arch = "x86_64")]
        Ok("avx2") => pulp::x86::V3::try_new().map_or(Arch::Scalar, Arch::V3),
        _ => Arch::new(),
    })
}

/// `kernel! { pub fn name<'a, T>(simd; x: &'a [T]) { ... } }` defines `name`, whose body is compiled for
/// AVX-512, for AVX2 and for any machine. In the body `S` is the instruction set and `simd` its token. Functions that
/// the body calls are compiled for `S`, too, if they are `#[inline(always)]`.
#[macro_export]
macro_rules! kernel {
    ($(#[$meta:meta])* $vis:vis fn $name:ident<$($lifetime:lifetime,)* $t:ident>
        ($simd:ident; $($arg:ident: $ty:ty),* $(,)?) $body:block) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name<$($lifetime,)* $t: $crate::Real>($($arg: $ty),*) {
            struct Call<$($lifetime,)* $t: $crate::Real> {
                $($arg: $ty,)*
                _lives: std::marker::PhantomData<($(&$lifetime (),)* $t)>,
            }
            impl<$($lifetime,)* $t: $crate::Real> $crate::pulp::WithSimd for Call<$($lifetime,)* $t> {
                type Output = ();
                #[inline(always)]
                #[allow(clippy::inline_always)]
                fn with_simd<S: $crate::pulp::Simd>(self, $simd: S) {
                    let Self { $($arg,)* .. } = self;
                    $body
                }
            }
            $crate::kernel::arch().dispatch(Call { $($arg,)* _lives: std::marker::PhantomData });
        }
    };
}
