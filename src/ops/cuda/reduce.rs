//! Sums that kernels make in parts.

use tch::Tensor;

use super::source;
use crate::device::limits::WARP;
use crate::device::{GradientTo, Grid, Kernel, Pointer, Source, empty, launch_by};

pub const SOURCE: Source = source("reduce", include_str!("reduce.cu"));
const ADD_PARTS: Kernel = Kernel { source: SOURCE, name: "add_parts" };
/// Calls of one launch, and warps of a block: as in `reduce.cu`.
const CALLS: usize = 64;
const SLICES: usize = 8;

/// A sum to be added up: `count` parts of `size` numbers, `stride` apart.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct AddParts {
    pub parts: Pointer,
    pub to: GradientTo,
    pub count: i32,
    pub size: i32,
    pub stride: i32,
}

/// Puts the sum over the parts of each call whose gradient is wanted.
pub fn add_parts(like: &Tensor, calls: &[AddParts]) {
    let calls: Vec<AddParts> = calls.iter().filter(|call| !call.to.is_nowhere()).copied().collect();
    launch_by::<CALLS, _>(ADD_PARTS, like, &calls, |call| {
        Grid::line((call.size as usize).div_ceil(WARP), SLICES * WARP)
    });
}

/// Sums that several launches make in parts and one launch adds up.
#[derive(Default)]
pub struct Parts {
    memory: Vec<Tensor>,
    calls: Vec<AddParts>,
}

impl Parts {
    /// Memory for `count` numbers of the kind and on the device of a tensor, kept until the sums are added up.
    pub fn memory(&mut self, count: usize, like: &Tensor) -> Pointer {
        if count == 0 {
            return Pointer::NULL;
        }
        let memory = empty(&[count as i64], like.kind(), like.device());
        let at = Pointer::to(&memory);
        self.memory.push(memory);
        at
    }

    pub fn push(&mut self, call: AddParts) {
        self.calls.push(call);
    }

    /// Adds up all sums.
    pub fn add_up(self, like: &Tensor) {
        add_parts(like, &self.calls);
    }
}
