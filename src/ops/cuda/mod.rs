//! CUDA kernels of the operations: sources in the crate, compiled for the card present when they are first
//! needed, launched on libtorch's current stream, in libtorch's memory.
//!
//! An operation's `cuda.cu` holds its kernels, its `cuda.rs` says how they are launched. Each kernel takes one
//! struct, declared in both. Tests run the same sources on the CPU ([`shim`]).

mod arguments;
mod cache;
mod compile;
mod driver;
pub mod product;
pub mod recurrent;
pub mod reduce;
pub mod shim;

use tch::{Device, Kind, Tensor};

pub use arguments::{DropoutOf, GradientTo, LayoutOf, MANY, Many, Pointer};
pub use compile::{Cubin, compile};
pub use driver::Current;

/// Files that sources include, by name.
const HEADERS: [(&str, &str); 2] =
    [("common.cuh", include_str!("common.cuh")), ("recurrent.cuh", include_str!("recurrent.cuh"))];

/// A file of kernels.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Source {
    pub name: &'static str,
    pub text: &'static str,
}

/// All files.
pub const SOURCES: &[Source] = &[
    product::SOURCE,
    reduce::SOURCE,
    super::adam::cuda::SOURCE,
    super::attention::cuda::SOURCE,
    super::bigru_control::cuda::SOURCE,
    super::cmd::cuda::SOURCE,
    super::conv1d::cuda::SOURCE,
    super::dropout::cuda::SOURCE,
    super::embedding::cuda::SOURCE,
    super::finite::cuda::SOURCE,
    super::gated_norm::cuda::SOURCE,
    super::linear::cuda::SOURCE,
    super::lstm::cuda::SOURCE,
    super::pooling::cuda::SOURCE,
    super::source_gate::cuda::SOURCE,
    super::ulgm::cuda::SOURCE,
];

/// A kernel by the name of its function.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Kernel {
    pub source: Source,
    pub name: &'static str,
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

    /// A grid that covers both.
    fn cover(self, other: Self) -> Self {
        assert!(self.threads == other.threads || self.threads == 0, "calls of one launch share a block size");
        Self {
            x: self.x.max(other.x),
            y: self.y.max(other.y),
            threads: other.threads,
            shared: self.shared.max(other.shared),
        }
    }
}

/// What every card since compute capability 8.0 can do.
pub mod limits {
    pub const X: usize = (1 << 31) - 1;
    pub const YZ: usize = 65535;
    pub const THREADS: usize = 1024;
    /// Bytes of shared memory of a block.
    pub const SHARED: usize = 99 << 10;
    /// Of those, what kernels may declare by themselves.
    pub const SHARED_STATIC: usize = 8 << 10;
    /// Bytes of a kernel's parameters.
    pub const PARAMETERS: usize = 4096;
    pub const WARP: usize = 32;
}

/// Whether operations on a device's tensors run as CUDA kernels.
pub fn runs_on(device: Device) -> bool {
    device.is_cuda() || shim::is_loaded()
}

/// Whether operations on this tensor do.
pub fn takes(tensor: &Tensor) -> bool {
    runs_on(tensor.device())
}

/// A new tensor whose elements are whatever was in its memory.
pub fn empty(shape: &[i64], kind: Kind, device: Device) -> Tensor {
    let tensor = Tensor::empty(shape, (kind, device));
    // What nobody may read shows where it is read.
    if shim::is_loaded() && tensor.is_floating_point() { tensor.fill(f64::NAN) } else { tensor }
}

/// A copy on a device, made without waiting for it: ready for what the current stream does next.
pub fn to_device(tensor: &Tensor, device: Device) -> Tensor {
    if device.is_cuda() {
        driver::pinned(tensor).to_device_(device, tensor.kind(), true, false)
    } else {
        tensor.shallow_clone()
    }
}

/// Launches a kernel over several calls, in as many launches as that takes; `grid` says what a call needs.
///
/// # Panics
/// Where a launch is beyond [`limits`] or CUDA refuses it.
pub fn launch<C: Copy>(kernel: Kernel, of: &Tensor, calls: &[C], grid: impl Fn(&C) -> Grid) {
    launch_by::<MANY, C>(kernel, of, calls, grid);
}

/// The same for a kernel that takes up to `N` calls.
fn launch_by<const N: usize, C: Copy>(kernel: Kernel, of: &Tensor, calls: &[C], grid: impl Fn(&C) -> Grid) {
    for calls in calls.chunks(N) {
        let grid = calls.iter().map(&grid).fold(Grid::default(), Grid::cover);
        launch_one(kernel, of, grid, calls.len(), &Many::<C, N>::of(calls));
    }
}

fn launch_one<A: Copy>(kernel: Kernel, of: &Tensor, grid: Grid, z: usize, arguments: &A) {
    if grid.x * grid.y == 0 {
        return;
    }
    let kind = of.kind();
    let shared = grid.shared * if kind == Kind::Double { 8 } else { 4 };
    assert!(
        grid.x <= limits::X
            && grid.y <= limits::YZ
            && z <= limits::YZ
            && grid.threads <= limits::THREADS
            && grid.threads.is_multiple_of(limits::WARP)
            && shared <= limits::SHARED - limits::SHARED_STATIC
            && size_of::<A>() <= limits::PARAMETERS,
        "CUDA: {}: a launch of {grid:?}, {z} calls, {shared} bytes shared, {} of parameters is beyond what cards can do",
        kernel.name,
        size_of::<A>(),
    );
    let launch = Launch { kernel, kind, grid, z, shared };
    let arguments = std::ptr::from_ref(arguments).cast();
    // SAFETY: the struct is good for the call.
    unsafe {
        match of.device() {
            Device::Cuda(index) => driver::launch(&launch, index, arguments, size_of::<A>()),
            _ => shim::launch(&launch, arguments, size_of::<A>()),
        }
    }
}

/// A launch within the limits.
pub struct Launch {
    kernel: Kernel,
    kind: Kind,
    grid: Grid,
    z: usize,
    /// Bytes.
    shared: usize,
}
