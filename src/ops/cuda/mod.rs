//! Code for the kernels of several operations: layouts and dropout, products, sums made in parts, recurrent scans.

mod packed;
pub mod product;
pub mod recurrent;
pub mod reduce;

pub use packed::{DropoutOf, LayoutOf};

use crate::device::{COMMON, Header, Source};

/// Files that the sources of operations may include.
const HEADERS: &[Header] =
    &[COMMON, ("ops.cuh", include_str!("ops.cuh")), ("recurrent.cuh", include_str!("recurrent.cuh"))];

/// A file of an operation's kernels.
pub const fn source(name: &'static str, text: &'static str) -> Source {
    Source { name, text, headers: HEADERS }
}
