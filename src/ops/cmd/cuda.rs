//! Launches of `cuda.cu`.

use super::{Cmd, MOMENTS};
use crate::device::{GradientTo, Grid, Kernel, Pointer, Source, launch};
use crate::ops::autograd::{BackOnDevice, DeviceOp, OnDevice};
use crate::ops::cuda::source;

pub const SOURCE: Source = source("cmd", include_str!("cuda.cu"));
const FORWARD: Kernel = Kernel { source: SOURCE, name: "cmd" };
const BACKWARD: Kernel = Kernel { source: SOURCE, name: "cmd_backward" };
/// Threads of forward's one block, and of backward's blocks.
const THREADS: usize = 512;
const ELEMENTS: usize = 128;

#[repr(C)]
#[derive(Clone, Copy)]
struct Arguments {
    x: [Pointer; 2],
    y: Pointer,
    moments: Pointer,
    toward: Pointer,
    dy: Pointer,
    dx: [GradientTo; 2],
    rows: i32,
    width: i32,
}

impl Arguments {
    fn of(call: &OnDevice<Cmd>) -> Self {
        let OnDevice { op, x, y, saved } = call;
        Self {
            x: [Pointer::to(&x[0]), Pointer::to(&x[1])],
            y: Pointer::to(&y[0]),
            moments: Pointer::to(&saved[0]),
            toward: Pointer::to(&saved[1]),
            dy: Pointer::NULL,
            dx: [GradientTo::NOWHERE; 2],
            rows: op.rows as i32,
            width: op.width as i32,
        }
    }
}

impl DeviceOp for Cmd {
    const WORKS_IN_SAVED: bool = true;

    /// Moments of both sides except the last, and the weighted directions of their differences.
    fn saved_on_device(&self) -> Vec<usize> {
        vec![2 * (MOMENTS - 1) * self.width, MOMENTS * self.width]
    }

    fn forward_on_device(calls: &[OnDevice<Self>]) {
        let arguments: Vec<Arguments> = calls.iter().map(Arguments::of).collect();
        launch(FORWARD, &calls[0].x[0], &arguments, |_| {
            Grid::line(1, THREADS).with_shared(2 * (MOMENTS - 1) * THREADS)
        });
    }

    fn backward_on_device(calls: &[BackOnDevice<Self>]) {
        let arguments = calls.iter().map(|BackOnDevice { call, dy, dx }| Arguments {
            dy: Pointer::maybe(dy[0]),
            dx: [dx[0], dx[1]],
            ..Arguments::of(call)
        });
        launch(BACKWARD, calls[0].any(), &arguments.collect::<Vec<_>>(), |call| Grid {
            y: 2,
            ..Grid::line((call.rows as usize * call.width as usize).div_ceil(ELEMENTS), ELEMENTS)
        });
    }
}
