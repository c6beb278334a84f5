//! Launches of `cuda.cu`.

use tch::Tensor;

use super::{KEPT, Lstm};
use crate::device::{GradientTo, Pointer, Source, empty, launch};
use crate::ops::autograd::{BackOnDevice, DeviceOp, OnDevice};
use crate::ops::cuda::product::{MatrixAt, Product, products};
use crate::ops::cuda::recurrent::{Kernels, Scans, columns, kernels};
use crate::ops::cuda::{LayoutOf, source};

pub const SOURCE: Source = source("lstm", include_str!("cuda.cu"));
const FORWARD: Kernels = kernels(SOURCE, ["lstm_16", "lstm_32", "lstm_64", "lstm_128", "lstm"]);
const BACKWARD: Kernels = kernels(
    SOURCE,
    ["lstm_16_backward", "lstm_32_backward", "lstm_64_backward", "lstm_128_backward", "lstm_backward"],
);

const GATES: usize = 4;

#[repr(C)]
#[derive(Clone, Copy)]
struct Scan {
    input: Pointer,
    weight: Pointer,
    bias: Pointer,
    kept: Pointer,
    y: Pointer,
    layout: LayoutOf,
    width: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct ScanBack {
    kept: Pointer,
    weight: Pointer,
    dy: Pointer,
    dgates: Pointer,
    layout: LayoutOf,
    width: i32,
}

/// A new matrix for the gates of each frame, of the kind and on the device of a tensor.
fn gates(op: &Lstm, beside: &Tensor) -> Tensor {
    empty(&[op.rows(), GATES * op.hidden].map(|n| n as i64), beside.kind(), beside.device())
}

impl DeviceOp for Lstm {
    fn forward_on_device(calls: &[OnDevice<Self>]) {
        let any = &calls[0].x[0];
        let scans = Scans::of(calls.iter().map(|call| call.op.hidden), any.kind());
        let projected: Vec<Tensor> = calls.iter().map(|call| gates(call.op, any)).collect();
        let projections = calls.iter().zip(&projected).map(|(OnDevice { op, x, .. }, projected)| {
            let frames = MatrixAt::new(Pointer::to(&x[0]), op.rows(), op.input);
            let weight = MatrixAt::new(Pointer::to(&x[1]), GATES * op.hidden, op.input);
            let to = GradientTo::new(projected, false);
            Product { bias: Pointer::to(&x[3]), ..Product::new(frames, weight.t(), to) }
        });
        products(any, &projections.collect::<Vec<_>>());

        let weights: Vec<Tensor> = calls.iter().map(|call| scans.weight(&call.x[2])).collect();
        let arguments: Vec<Scan> = calls
            .iter()
            .zip(projected.iter().zip(&weights))
            .map(|(OnDevice { op, x, y, saved }, (projected, weight))| Scan {
                input: Pointer::to(projected),
                weight: Pointer::to(weight),
                bias: Pointer::to(&x[4]),
                kept: Pointer::to(&saved[0]),
                y: Pointer::to(&y[0]),
                layout: LayoutOf::new(&op.layout, any),
                width: op.hidden as i32,
            })
            .collect();
        launch(scans.kernel(FORWARD), any, &arguments, |scan| scans.grid(scan.layout.batch(), 1, GATES, 3));
    }

    fn backward_on_device(calls: &[BackOnDevice<Self>]) {
        let any = calls[0].any();
        let scans = Scans::of(calls.iter().map(|back| back.call.op.hidden), any.kind());
        let dgates: Vec<Tensor> = calls.iter().map(|BackOnDevice { call, .. }| gates(call.op, any)).collect();
        let arguments: Vec<ScanBack> = calls
            .iter()
            .zip(&dgates)
            .map(|(BackOnDevice { call, dy, .. }, dgates)| ScanBack {
                kept: Pointer::to(&call.saved[0]),
                weight: Pointer::to(&call.x[2]),
                dy: Pointer::maybe(dy[0]),
                dgates: Pointer::to(dgates),
                layout: LayoutOf::new(&call.op.layout, any),
                width: call.op.hidden as i32,
            })
            .collect();
        launch(scans.kernel(BACKWARD), any, &arguments, |scan| scans.grid(scan.layout.batch(), 1, GATES, 6));

        let gradients = calls.iter().zip(&dgates).flat_map(|(back, dgates)| {
            let BackOnDevice { call: OnDevice { op, x, saved, .. }, dx, .. } = back;
            let (rows, hidden) = (op.rows(), op.hidden);
            let dgates = MatrixAt::new(Pointer::to(dgates), rows, GATES * hidden);
            let frames = MatrixAt::new(Pointer::to(&x[0]), rows, op.input);
            let weight = MatrixAt::new(Pointer::to(&x[1]), GATES * hidden, op.input);
            let before = columns(&saved[0], (KEPT - 1) * hidden);
            let before = MatrixAt::strided(before, rows, hidden, KEPT * hidden);
            [
                Product::new(dgates, weight, dx[0]),
                Product::of_weights(dgates, frames, dx[1], dx[3]),
                Product::of_weights(dgates, before, dx[2], dx[4]),
            ]
        });
        products(any, &gradients.collect::<Vec<_>>());
    }
}
