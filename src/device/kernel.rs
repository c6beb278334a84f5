//! Kernels before they are compiled and launched: their sources, and the grid of a launch.

use tch::Kind;

/// A file that sources include: its name and its text.
pub type Header = (&'static str, &'static str);

/// Conventions and helpers of every kernel.
pub const COMMON: Header = ("common.cuh", include_str!("common.cuh"));

/// A file of kernels.
#[derive(Clone, Copy)]
pub struct Source {
    pub name: &'static str,
    pub text: &'static str,
    pub headers: &'static [Header],
}

/// A kernel by the name of its function, which no other source has.
#[derive(Clone, Copy)]
pub struct Kernel {
    pub source: Source,
    pub name: &'static str,
}

/// Machine code of a source for one architecture, and the assembler's report: registers, shared memory and spills
/// of each kernel.
pub struct Cubin {
    pub code: Vec<u8>,
    pub log: String,
}

/// Blocks of a launch along x and y, threads of a block along x, and a block's dynamic shared memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Grid {
    pub x: usize,
    pub y: usize,
    pub threads: usize,
    /// Numbers, not bytes.
    pub shared: usize,
}

impl Grid {
    /// Blocks along x alone.
    pub fn line(x: usize, threads: usize) -> Self {
        Self { x, y: 1, threads, shared: 0 }
    }

    pub fn with_shared(self, numbers: usize) -> Self {
        Self { shared: numbers, ..self }
    }

    /// The smallest grid that covers both.
    pub fn cover(self, other: Self) -> Self {
        assert!(self.threads == other.threads || self.threads == 0, "calls of one launch share a block size");
        Self {
            x: self.x.max(other.x),
            y: self.y.max(other.y),
            threads: other.threads,
            shared: self.shared.max(other.shared),
        }
    }
}

/// Limits that every card since compute capability 8.0 meets.
pub mod limits {
    pub const X: usize = (1 << 31) - 1;
    pub const YZ: usize = 65535;
    pub const THREADS: usize = 1024;
    /// Bytes of shared memory of a block.
    pub const SHARED: usize = 99 << 10;
    /// The part of those that kernels may declare statically.
    pub const SHARED_STATIC: usize = 8 << 10;
    /// Bytes of a kernel's parameters.
    pub const PARAMETERS: usize = 4096;
    pub const WARP: usize = 32;
}

/// A launch within the limits.
pub struct Launch {
    pub kernel: Kernel,
    pub kind: Kind,
    pub grid: Grid,
    pub z: usize,
    /// Bytes.
    pub shared: usize,
}
