//! The arguments of kernels, laid out as in `common.cuh`.

use tch::{Kind, Tensor};

/// The most calls in one launch, for most kernels.
pub const MANY: usize = 8;

/// The calls of one launch; places beyond them repeat the last.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Many<C, const N: usize = MANY>([C; N]);

impl<C: Copy, const N: usize> Many<C, N> {
    /// # Panics
    /// Without calls, or with more than `N`.
    pub fn of(calls: &[C]) -> Self {
        assert!(!calls.is_empty() && calls.len() <= N);
        Self(std::array::from_fn(|i| calls[i.min(calls.len() - 1)]))
    }
}

/// An address on the device, or null.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pointer(u64);

impl Pointer {
    pub const NULL: Self = Self(0);

    /// The first element of a contiguous tensor; null for one without elements.
    ///
    /// # Panics
    /// For a tensor that is not contiguous.
    pub fn to(tensor: &Tensor) -> Self {
        assert!(tensor.is_contiguous(), "kernels read contiguous tensors");
        if tensor.numel() == 0 { Self::NULL } else { Self(tensor.data_ptr() as u64) }
    }

    pub fn maybe(tensor: Option<&Tensor>) -> Self {
        tensor.map_or(Self::NULL, Self::to)
    }

    pub fn is_null(self) -> bool {
        self == Self::NULL
    }

    /// The place `count` elements of a kind further on.
    pub fn offset(self, count: usize, kind: Kind) -> Self {
        Self(if self.0 == 0 { 0 } else { self.0 + (count * kind.elt_size_in_bytes()) as u64 })
    }
}

/// The place to which a gradient is written or added.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct GradientTo {
    to: Pointer,
    add: i32,
}

impl GradientTo {
    pub const NOWHERE: Self = Self { to: Pointer::NULL, add: 0 };

    /// Overwrites `tensor`, or adds to it.
    pub fn new(tensor: &Tensor, add: bool) -> Self {
        Self { to: Pointer::to(tensor), add: add.into() }
    }

    pub fn is_nowhere(&self) -> bool {
        self.to.is_null()
    }

    /// Whether the gradient is added to the content of its place.
    pub fn adds(&self) -> bool {
        self.add != 0
    }

    /// The place as a tensor for libtorch to write, with the kind and device of `like`.
    ///
    /// # Safety
    /// It was made from a tensor of this shape, kind and device, which outlives the one returned.
    ///
    /// # Panics
    /// Where there is no place.
    pub unsafe fn tensor(&self, shape: &[i64], like: &Tensor) -> Tensor {
        assert!(!self.is_nowhere(), "a gradient that is wanted");
        // SAFETY: that tensor is contiguous, as `Pointer::to` requires; the rest is the caller's.
        unsafe { Tensor::from_blob(self.to.0 as *const u8, shape, &[], like.kind(), like.device()) }
    }

    /// The same place; the gradient is added to what was written there before.
    pub fn added(self) -> Self {
        Self { add: 1, ..self }
    }

    /// The place `count` elements of a kind further on.
    pub fn offset(self, count: usize, kind: Kind) -> Self {
        Self { to: self.to.offset(count, kind), ..self }
    }
}
