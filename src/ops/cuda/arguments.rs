//! What kernels are called with, laid out as in `common.cuh`.

use tch::{Kind, Tensor};

use crate::ragged::Layout;
use crate::rng::{Dropout, Key};

/// Calls of one launch at most, of most kernels.
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
    /// For a tensor whose elements do not lie side by side.
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

    /// `count` elements on, of a kind.
    pub fn offset(self, count: usize, kind: Kind) -> Self {
        Self(if self.0 == 0 { 0 } else { self.0 + (count * kind.elt_size_in_bytes()) as u64 })
    }
}

/// Where a gradient goes.
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

    /// Whether it is added to what is there.
    pub fn adds(&self) -> bool {
        self.add != 0
    }

    /// The gradient as a tensor that libtorch writes, of the kind and on the device of another.
    ///
    /// # Panics
    /// Where it goes nowhere.
    pub fn tensor(&self, shape: &[i64], like: &Tensor) -> Tensor {
        assert!(!self.is_nowhere(), "a gradient that is wanted");
        // SAFETY: made of a contiguous tensor of this shape, which whoever asks for the gradient keeps.
        unsafe { Tensor::from_blob(self.to.0 as *const u8, shape, &[], like.kind(), like.device()) }
    }

    /// The same, added to what is there by then.
    pub fn added(self) -> Self {
        Self { add: 1, ..self }
    }

    /// `count` elements on, of a kind.
    pub fn offset(self, count: usize, kind: Kind) -> Self {
        Self { to: self.to.offset(count, kind), ..self }
    }
}

/// A layout.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct LayoutOf {
    first: Pointer,
    order: Pointer,
    utterance: Pointer,
    batch: i32,
    rows: i32,
}

impl LayoutOf {
    /// On the device of `beside`.
    pub fn new(layout: &Layout, beside: &Tensor) -> Self {
        let batch = layout.batch_size();
        let first = Pointer::to(layout.on(beside.device()));
        Self {
            first,
            order: first.offset(batch + 1, Kind::Int),
            utterance: first.offset(2 * batch + 1, Kind::Int),
            batch: batch as i32,
            rows: layout.rows() as i32,
        }
    }

    pub fn batch(&self) -> usize {
        self.batch as usize
    }

    pub fn rows(&self) -> usize {
        self.rows as usize
    }

    /// Where the number of true rows stands, `i32`.
    pub fn true_rows(&self) -> Pointer {
        self.first.offset(self.batch(), Kind::Int)
    }
}

/// The dropout of an operation.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DropoutOf {
    key_at: Pointer,
    key: u64,
    kept: f64,
    site: u32,
    threshold: u32,
}

impl From<Dropout> for DropoutOf {
    fn from(dropout: Dropout) -> Self {
        let (key_at, key) = match dropout.key {
            Key::Value(key) => (Pointer::NULL, key),
            Key::At(pointer) => (pointer, 0),
        };
        let Dropout { p, site, .. } = dropout;
        Self { key_at, key, kept: 1.0 / (1.0 - p), site, threshold: dropout.threshold() }
    }
}
