//! Kernels on a CUDA card: they are compiled for it when they are first needed, and launched on libtorch's current
//! stream, in libtorch's memory. Nothing here depends on what the kernels compute.
//!
//! A kernel takes one struct, declared in its `.cu` file and in Rust. Tests run the same sources on the CPU
//! ([`shim`]).

mod arguments;
mod cache;
mod compile;
mod driver;
mod kernel;
mod launch;
pub mod shim;

use tch::{Device, Kind, Tensor};

pub use arguments::{GradientTo, Pointer};
pub use compile::compile;
pub use driver::Current;
pub use kernel::{COMMON, Grid, Header, Kernel, Source, limits};
pub use launch::{launch, launch_by};

/// Whether operations on a device's tensors run as CUDA kernels.
pub fn runs_on(device: Device) -> bool {
    device.is_cuda() || shim::is_loaded()
}

/// Whether operations on this tensor run as CUDA kernels.
pub fn takes(tensor: &Tensor) -> bool {
    runs_on(tensor.device())
}

/// A new tensor with arbitrary elements.
pub fn empty(shape: &[i64], kind: Kind, device: Device) -> Tensor {
    let tensor = Tensor::empty(shape, (kind, device));
    // NaN shows up in results if a kernel reads what was not written.
    if shim::is_loaded() && tensor.is_floating_point() { tensor.fill(f64::NAN) } else { tensor }
}

/// A copy on a device, made without waiting for it; later work on the current stream can use it.
pub fn to_device(tensor: &Tensor, device: Device) -> Tensor {
    if device.is_cuda() {
        driver::pinned(tensor).to_device_(device, tensor.kind(), true, false)
    } else {
        tensor.shallow_clone()
    }
}
