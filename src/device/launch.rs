//! Launches of kernels over the calls of an operation.

use tch::{Device, Kind, Tensor};

use super::arguments::{MANY, Many};
use super::kernel::{Grid, Kernel, Launch, limits};
use super::{driver, shim};
use crate::error::Fault;

/// Launches a kernel over several calls, in as many launches as needed, for the kind and device of `like`; `grid`
/// returns the grid that a call needs.
///
/// # Panics
/// [`Fault::Device`] where a launch is beyond [`limits`] or CUDA refuses it.
pub fn launch<C: Copy>(kernel: Kernel, like: &Tensor, calls: &[C], grid: impl Fn(&C) -> Grid) {
    launch_by::<MANY, C>(kernel, like, calls, grid);
}

/// [`launch`] for a kernel that takes up to `N` calls, with the same panics.
pub fn launch_by<const N: usize, C: Copy>(
    kernel: Kernel,
    like: &Tensor,
    calls: &[C],
    grid: impl Fn(&C) -> Grid,
) {
    for calls in calls.chunks(N) {
        let grid = calls.iter().map(&grid).fold(Grid::default(), Grid::cover);
        launch_one(kernel, like, grid, calls.len(), &Many::<C, N>::of(calls));
    }
}

fn launch_one<A: Copy>(kernel: Kernel, like: &Tensor, grid: Grid, z: usize, arguments: &A) {
    if grid.x * grid.y == 0 {
        return;
    }
    let kind = like.kind();
    let shared = grid.shared * if kind == Kind::Double { 8 } else { 4 };
    let within = grid.x <= limits::X
        && grid.y <= limits::YZ
        && z <= limits::YZ
        && grid.threads <= limits::THREADS
        && grid.threads.is_multiple_of(limits::WARP)
        && shared <= limits::SHARED - limits::SHARED_STATIC
        && size_of::<A>() <= limits::PARAMETERS;
    if !within {
        Fault::Device(format!(
            "CUDA: {}: a launch of {grid:?}, {z} calls, {shared} bytes shared, {} of parameters is beyond what cards can do",
            kernel.name,
            size_of::<A>(),
        ))
        .raise();
    }
    let launch = Launch { kernel, kind, grid, z, shared };
    let arguments = std::ptr::from_ref(arguments).cast();
    // SAFETY: the struct is good for the call, and the tensors that it points to are on the device of `like`. That the
    // kernel declares the same struct is checked by size where the kernels run on the CPU.
    unsafe {
        match like.device() {
            Device::Cuda(index) => driver::launch(&launch, index, arguments, size_of::<A>()),
            _ => shim::launch(&launch, arguments, size_of::<A>()),
        }
    }
}
