//! Launches of `cuda.cu`.

use super::TaskLoss;
use crate::device::{GradientTo, Grid, Kernel, Pointer, Source, launch, limits::WARP};
use crate::ops::autograd::{BackOnDevice, DeviceOp, OnDevice};
use crate::ops::cuda::source;

pub const SOURCE: Source = source("task_loss", include_str!("cuda.cu"));
const FORWARD: Kernel = Kernel { source: SOURCE, name: "task_loss" };
const BACKWARD: Kernel = Kernel { source: SOURCE, name: "task_loss_backward" };
const THREADS: usize = 128;
/// Scores of one launch at most, as in `cuda.cu`.
const TERMS: usize = 8;

#[repr(C)]
#[derive(Clone, Copy)]
struct Term {
    score: Pointer,
    target: Pointer,
    slopes: Pointer,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Arguments {
    terms: [Term; TERMS],
    label: Pointer,
    y: GradientTo,
    batch: i32,
    count: i32,
    squared: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Back {
    slopes: Pointer,
    dy: Pointer,
    dx: GradientTo,
    batch: i32,
}

impl DeviceOp for TaskLoss {
    /// What each score's gradient is multiplied with.
    fn saved_on_device(&self) -> Vec<usize> {
        vec![self.batch; self.scores]
    }

    fn forward_on_device(calls: &[OnDevice<Self>]) {
        for OnDevice { op, x, y, saved } in calls {
            let terms = x.chunks_exact(2).zip(*saved).map(|(pair, slopes)| Term {
                score: Pointer::to(&pair[0]),
                target: Pointer::to(&pair[1]),
                slopes: Pointer::to(slopes),
            });
            for (n, terms) in terms.collect::<Vec<_>>().chunks(TERMS).enumerate() {
                let arguments = Arguments {
                    terms: std::array::from_fn(|i| terms[i.min(terms.len() - 1)]),
                    label: Pointer::to(&x[1]),
                    y: GradientTo::new(&y[0], n > 0),
                    batch: op.batch as i32,
                    count: terms.len() as i32,
                    squared: i32::from(n == 0),
                };
                launch(FORWARD, &x[0], &[arguments], |_| Grid::line(1, THREADS).with_shared(WARP));
            }
        }
    }

    fn backward_on_device(calls: &[BackOnDevice<Self>]) {
        let arguments = calls.iter().flat_map(|BackOnDevice { call, dy, dx }| {
            dx.iter().step_by(2).zip(call.saved).map(|(dx, slopes)| Back {
                slopes: Pointer::to(slopes),
                dy: Pointer::maybe(dy[0]),
                dx: *dx,
                batch: call.op.batch as i32,
            })
        });
        let wanted: Vec<Back> = arguments.filter(|back| !back.dx.is_nowhere()).collect();
        launch(BACKWARD, calls[0].any(), &wanted, |back| {
            Grid::line((back.batch as usize).div_ceil(THREADS), THREADS)
        });
    }
}
