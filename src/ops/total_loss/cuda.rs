//! Launches of `cuda.cu`.

use super::TotalLoss;
use crate::device::{GradientTo, Grid, Kernel, Pointer, Source, launch, limits::WARP};
use crate::ops::autograd::{BackOnDevice, DeviceOp, OnDevice};
use crate::ops::cuda::source;

pub const SOURCE: Source = source("total_loss", include_str!("cuda.cu"));
const FORWARD: Kernel = Kernel { source: SOURCE, name: "total_loss" };
const BACKWARD: Kernel = Kernel { source: SOURCE, name: "total_loss_backward" };
/// task, sim, and diff over two pairs.
const INPUTS: usize = 4;

#[repr(C)]
#[derive(Clone, Copy)]
struct Arguments {
    x: [Pointer; INPUTS],
    weight: [f64; INPUTS],
    part: [i32; INPUTS],
    total: Pointer,
    values: Pointer,
    dy: Pointer,
    dx: [GradientTo; INPUTS],
    inputs: i32,
}

impl Arguments {
    fn of(call: &OnDevice<TotalLoss>) -> Self {
        let OnDevice { op, x, y, .. } = call;
        assert!(x.len() <= INPUTS, "task, sim and two of diff");
        let input = |i: usize| op.inputs.get(i).copied().unwrap_or_default();
        Self {
            x: std::array::from_fn(|i| Pointer::maybe(x.get(i))),
            weight: std::array::from_fn(|i| input(i).0),
            part: std::array::from_fn(|i| input(i).1 as i32),
            total: Pointer::to(&y[0]),
            values: Pointer::to(&y[1]),
            dy: Pointer::NULL,
            dx: [GradientTo::NOWHERE; INPUTS],
            inputs: x.len() as i32,
        }
    }
}

impl DeviceOp for TotalLoss {
    fn forward_on_device(calls: &[OnDevice<Self>]) {
        let arguments: Vec<Arguments> = calls.iter().map(Arguments::of).collect();
        launch(FORWARD, &calls[0].x[0], &arguments, |_| Grid::line(1, WARP));
    }

    fn backward_on_device(calls: &[BackOnDevice<Self>]) {
        let with_gradient = calls.iter().filter(|call| call.dy[0].is_some());
        let arguments: Vec<Arguments> = with_gradient
            .map(|BackOnDevice { call, dy, dx }| Arguments {
                dy: Pointer::maybe(dy[0]),
                dx: std::array::from_fn(|i| dx.get(i).copied().unwrap_or(GradientTo::NOWHERE)),
                ..Arguments::of(call)
            })
            .collect();
        launch(BACKWARD, calls[0].any(), &arguments, |_| Grid::line(1, WARP));
    }
}
