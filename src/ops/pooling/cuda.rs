//! Launches of `cuda.cu`.

use super::Pool;
use crate::config::Pooling;
use crate::device::{GradientTo, Grid, Kernel, Pointer, Source, launch, limits::WARP};
use crate::ops::autograd::{BackOnDevice, DeviceOp, OnDevice};
use crate::ops::cuda::{LayoutOf, source};

pub const SOURCE: Source = source("pooling", include_str!("cuda.cu"));
const FORWARD: Kernel = Kernel { source: SOURCE, name: "pool" };
const BACKWARD: Kernel = Kernel { source: SOURCE, name: "pool_backward" };

/// Warps of a block: forward, they divide the frames of an utterance among them; backward, each handles a row.
const WARPS: usize = 8;

#[repr(C)]
#[derive(Clone, Copy)]
struct Arguments {
    x: Pointer,
    y: Pointer,
    dy: Pointer,
    dx: GradientTo,
    layout: LayoutOf,
    width: i32,
    mean: i32,
}

impl Arguments {
    fn of(call: &OnDevice<Pool>) -> Self {
        let OnDevice { op, x, y, .. } = call;
        Self {
            x: Pointer::to(&x[0]),
            y: Pointer::to(&y[0]),
            dy: Pointer::NULL,
            dx: GradientTo::NOWHERE,
            layout: LayoutOf::new(&op.layout, &x[0]),
            width: op.width as i32,
            mean: matches!(op.how, Pooling::Mean).into(),
        }
    }
}

impl DeviceOp for Pool {
    fn forward_on_device(calls: &[OnDevice<Self>]) {
        let arguments: Vec<Arguments> = calls.iter().map(Arguments::of).collect();
        launch(FORWARD, &calls[0].x[0], &arguments, |call| Grid {
            x: call.layout.batch(),
            y: (call.width as usize).div_ceil(WARP),
            threads: WARPS * WARP,
            shared: 0,
        });
    }

    fn backward_on_device(calls: &[BackOnDevice<Self>]) {
        let arguments: Vec<Arguments> = calls
            .iter()
            .filter(|BackOnDevice { dx, .. }| !dx[0].is_nowhere())
            .map(|BackOnDevice { call, dy, dx }| Arguments {
                dy: Pointer::maybe(dy[0]),
                dx: dx[0],
                ..Arguments::of(call)
            })
            .collect();
        launch(BACKWARD, calls[0].any(), &arguments, |call| {
            Grid::line(call.layout.rows().div_ceil(WARPS), WARPS * WARP)
        });
    }
}
