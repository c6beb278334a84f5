//! Launches of `cuda.cu`.

use tch::Tensor;

use super::{BigruControl, KEPT};
use crate::device::{GradientTo, Pointer, Source, empty, launch};
use crate::ops::autograd::{BackOnDevice, DeviceOp, OnDevice};
use crate::ops::cuda::product::{MatrixAt, Product, products};
use crate::ops::cuda::recurrent::{Kernels, Scans, columns, kernels};
use crate::ops::cuda::reduce::{AddParts, add_parts};
use crate::ops::cuda::{LayoutOf, source};

pub const SOURCE: Source = source("bigru_control", include_str!("cuda.cu"));
const FORWARD: Kernels = kernels(SOURCE, ["bigru_16", "bigru_32", "bigru_64", "bigru_128", "bigru"]);
const BACKWARD: Kernels = kernels(
    SOURCE,
    ["bigru_16_backward", "bigru_32_backward", "bigru_64_backward", "bigru_128_backward", "bigru_backward"],
);

const GATES: usize = 3;
/// Gradients of the gates' arguments of a frame, in rows of d: those of the input's side in both directions, then
/// those of the state's side.
const PARTS: usize = 4 * GATES;
/// The first of those of the state's side.
const OWN: usize = 2 * GATES;

#[repr(C)]
#[derive(Clone, Copy)]
struct Scan {
    input: [Pointer; 2],
    weight: [Pointer; 2],
    bias: [Pointer; 2],
    kept: [Pointer; 2],
    shares: Pointer,
    layout: LayoutOf,
    width: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct ScanBack {
    kept: [Pointer; 2],
    weight: [Pointer; 2],
    weight_ih: [Pointer; 2],
    dy: Pointer,
    dgates: Pointer,
    both_ih: Pointer,
    layout: LayoutOf,
    width: i32,
    input_width: i32,
}

/// Indices of weight_ih, weight_hh, bias_ih, bias_hh of a direction among the inputs.
fn inputs(direction: usize) -> [usize; 4] {
    [1, 2, 3, 4].map(|i| i + 4 * direction)
}

/// A new matrix of the kind and on the device of a tensor.
fn matrix(rows: usize, columns: usize, beside: &Tensor) -> Tensor {
    empty(&[rows, columns].map(|n| n as i64), beside.kind(), beside.device())
}

impl DeviceOp for BigruControl {
    fn forward_on_device(calls: &[OnDevice<Self>]) {
        let any = &calls[0].x[0];
        let scans = Scans::of(calls.iter().map(|call| call.op.hidden), any.kind());
        let projected: Vec<[Tensor; 2]> = calls
            .iter()
            .map(|OnDevice { op, .. }| [0, 1].map(|_| matrix(op.rows(), GATES * op.hidden, any)))
            .collect();
        let projections = calls.iter().zip(&projected).flat_map(|(OnDevice { op, x, .. }, projected)| {
            [0, 1].map(|direction: usize| {
                let [w_ih, _, b_ih, _] = inputs(direction);
                let frames = MatrixAt::new(Pointer::to(&x[0]), op.rows(), op.input);
                let weight = MatrixAt::new(Pointer::to(&x[w_ih]), GATES * op.hidden, op.input);
                let to = GradientTo::new(&projected[direction], false);
                Product { bias: Pointer::to(&x[b_ih]), ..Product::new(frames, weight.t(), to) }
            })
        });
        products(any, &projections.collect::<Vec<_>>());

        let weights: Vec<[Tensor; 2]> = calls
            .iter()
            .map(|OnDevice { x, .. }| [0, 1].map(|direction| scans.weight(&x[inputs(direction)[1]])))
            .collect();
        let shares: Vec<Tensor> = calls
            .iter()
            .map(|OnDevice { op, .. }| matrix(2 * op.layout.batch_size(), op.hidden, any))
            .collect();
        let arguments: Vec<Scan> = calls
            .iter()
            .enumerate()
            .map(|(i, OnDevice { op, x, saved, .. })| Scan {
                input: projected[i].each_ref().map(Pointer::to),
                weight: weights[i].each_ref().map(Pointer::to),
                bias: [0, 1].map(|direction| Pointer::to(&x[inputs(direction)[3]])),
                kept: [0, 1].map(|direction: usize| Pointer::to(&saved[direction])),
                shares: Pointer::to(&shares[i]),
                layout: LayoutOf::new(&op.layout, any),
                width: op.hidden as i32,
            })
            .collect();
        launch(scans.kernel(FORWARD), any, &arguments, |scan| scans.grid(scan.layout.batch(), 2, GATES, 3));

        let halves = calls.iter().zip(&shares).map(|(OnDevice { op, y, .. }, shares)| {
            let size = (op.layout.batch_size() * op.hidden) as i32;
            let to = GradientTo::new(&y[0], false);
            AddParts { parts: Pointer::to(shares), to, count: 2, size, stride: size }
        });
        add_parts(any, &halves.collect::<Vec<_>>());
    }

    fn backward_on_device(calls: &[BackOnDevice<Self>]) {
        let any = calls[0].any();
        let scans = Scans::of(calls.iter().map(|back| back.call.op.hidden), any.kind());
        // Gradients of the gates, and W_ih of both directions where the gradient of x is wanted.
        let made: Vec<[Tensor; 2]> = calls
            .iter()
            .map(|BackOnDevice { call: OnDevice { op, .. }, dx, .. }| {
                let weights = if dx[0].is_nowhere() { 0 } else { 2 * GATES * op.hidden };
                [matrix(op.rows(), PARTS * op.hidden, any), matrix(weights, op.input, any)]
            })
            .collect();
        let arguments: Vec<ScanBack> = calls
            .iter()
            .zip(&made)
            .map(|(BackOnDevice { call: OnDevice { op, x, saved, .. }, dy, .. }, made)| ScanBack {
                kept: [0, 1].map(|direction: usize| Pointer::to(&saved[direction])),
                weight: [0, 1].map(|direction| Pointer::to(&x[inputs(direction)[1]])),
                weight_ih: [0, 1].map(|direction| Pointer::to(&x[inputs(direction)[0]])),
                dy: Pointer::maybe(dy[0]),
                dgates: Pointer::to(&made[0]),
                both_ih: Pointer::to(&made[1]),
                layout: LayoutOf::new(&op.layout, any),
                width: op.hidden as i32,
                input_width: op.input as i32,
            })
            .collect();
        launch(scans.kernel(BACKWARD), any, &arguments, |scan| scans.grid(scan.layout.batch(), 2, GATES, 4));

        let gradients = calls.iter().zip(&made).flat_map(|(back, [all, both_ih])| {
            let BackOnDevice { call: OnDevice { op, x, saved, .. }, dx, .. } = back;
            let (rows, d) = (op.rows(), op.hidden);
            let dgates = move |first: usize, parts: usize| {
                MatrixAt::strided(columns(all, first * d), rows, parts * d, PARTS * d)
            };
            let frames = MatrixAt::new(Pointer::to(&x[0]), rows, op.input);
            let of_weights = [0, 1].into_iter().flat_map(move |direction: usize| {
                let [w_ih, w_hh, b_ih, b_hh] = inputs(direction);
                let before = columns(&saved[direction], (KEPT - 1) * d);
                let before = MatrixAt::strided(before, rows, d, KEPT * d);
                let [input_side, own_side] = [0, OWN].map(|side| dgates(side + direction * GATES, GATES));
                [
                    Product::of_weights(input_side, frames, dx[w_ih], dx[b_ih]),
                    Product::of_weights(own_side, before, dx[w_hh], dx[b_hh]),
                ]
            });
            let both_ih = MatrixAt::new(Pointer::to(both_ih), OWN * d, op.input);
            std::iter::once(Product::new(dgates(0, OWN), both_ih, dx[0])).chain(of_weights)
        });
        products(any, &gradients.collect::<Vec<_>>());
    }
}
