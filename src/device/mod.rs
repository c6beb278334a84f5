//! What a card needs: kernels compiled for the card present when they are first needed, launched on libtorch's
//! current stream, in libtorch's memory. Nothing here knows what the kernels compute.
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
