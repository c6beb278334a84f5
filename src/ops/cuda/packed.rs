//! Layouts and dropout as kernels read them, laid out as in `ops.cuh`.

use tch::{Kind, Tensor};

use crate::device::Pointer;
use crate::ragged::Layout;
use crate::rng::{Dropout, Key};

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
    /// The layout on the device of `beside`.
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

    /// The address of the number of true rows, `i32`.
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
