//! Launches of `cuda.cu`.

use tch::Tensor;

use super::DropoutOp;
use crate::device::{GradientTo, Grid, Kernel, Pointer, Source, launch};
use crate::ops::autograd::{BackOnDevice, DeviceOp, OnDevice};
use crate::ops::cuda::{DropoutOf, source};

pub const SOURCE: Source = source("dropout", include_str!("cuda.cu"));
const DROPOUT: Kernel = Kernel { source: SOURCE, name: "dropout" };
const THREADS: usize = 128;

#[repr(C)]
#[derive(Clone, Copy)]
struct Arguments {
    x: Pointer,
    y: GradientTo,
    dropout: DropoutOf,
    count: i64,
}

impl Arguments {
    fn of(op: &DropoutOp, x: &Tensor, y: GradientTo) -> Self {
        Self { x: Pointer::to(x), y, dropout: op.dropout.into(), count: x.numel() as i64 }
    }
}

fn launch_all(like: &Tensor, calls: &[Arguments]) {
    // 16 threads for each tile of 128 elements.
    launch(DROPOUT, like, calls, |call| {
        Grid::line(((call.count as usize).div_ceil(128) * 16).div_ceil(THREADS), THREADS)
    });
}

impl DeviceOp for DropoutOp {
    fn forward_on_device(calls: &[OnDevice<Self>]) {
        let arguments =
            calls.iter().map(|call| Arguments::of(call.op, &call.x[0], GradientTo::new(&call.y[0], false)));
        launch_all(&calls[0].x[0], &arguments.collect::<Vec<_>>());
    }

    fn backward_on_device(calls: &[BackOnDevice<Self>]) {
        let arguments = calls.iter().filter_map(|BackOnDevice { call, dy, dx }| {
            let dy = dy[0].filter(|_| !dx[0].is_nowhere())?;
            Some(Arguments::of(call.op, dy, dx[0]))
        });
        launch_all(calls[0].any(), &arguments.collect::<Vec<_>>());
    }
}
