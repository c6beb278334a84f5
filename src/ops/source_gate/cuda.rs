//! Launches of `cuda.cu` and the products beside them.

use tch::Tensor;

use super::SourceGate;
use crate::device::{GradientTo, Grid, Kernel, Pointer, Source, empty, launch};
use crate::ops::autograd::{BackOnDevice, DeviceOp, OnDevice};
use crate::ops::cuda::product::{MatrixAt, Product, products, products_in_parts};
use crate::ops::cuda::reduce::Parts;
use crate::ops::cuda::{LayoutOf, source};
use crate::ops::linear::Activation;

pub const SOURCE: Source = source("source_gate", include_str!("cuda.cu"));
const BACKWARD: Kernel = Kernel { source: SOURCE, name: "source_gate_backward" };
const THREADS: usize = 256;

#[repr(C)]
#[derive(Clone, Copy)]
struct Arguments {
    a: Pointer,
    gate: Pointer,
    dsource: Pointer,
    dgate: Pointer,
    dbefore: Pointer,
    da: GradientTo,
    count: usize,
}

impl SourceGate {
    fn frames(&self, like: &Tensor) -> MatrixAt {
        MatrixAt::new(Pointer::to(like), self.rows(), self.width)
    }

    fn weight(&self, like: &Tensor) -> MatrixAt {
        MatrixAt::new(Pointer::to(like), self.width, self.width)
    }
}

impl DeviceOp for SourceGate {
    fn forward_on_device(calls: &[OnDevice<Self>]) {
        let like = &calls[0].x[0];
        let multiplied = calls.iter().map(|OnDevice { op, x, y, .. }| {
            let gate = GradientTo::new(&y[1], false);
            Product {
                bias: Pointer::to(&x[2]),
                activation: Activation::Sigmoid,
                times: Some([Pointer::to(&x[0]), Pointer::to(&y[0])]),
                true_rows: LayoutOf::new(&op.layout, like).true_rows(),
                ..Product::new(op.frames(&x[0]), op.weight(&x[1]).t(), gate)
            }
        });
        products(like, &multiplied.collect::<Vec<_>>());
    }

    fn backward_on_device(calls: &[BackOnDevice<Self>]) {
        let like = calls[0].any();
        let dbefore: Vec<Tensor> =
            calls.iter().map(|call| empty(&call.call.x[0].size(), like.kind(), like.device())).collect();
        let elements = calls.iter().zip(&dbefore).map(|(BackOnDevice { call, dy, dx }, dbefore)| Arguments {
            a: Pointer::to(&call.x[0]),
            gate: Pointer::to(&call.y[1]),
            dsource: Pointer::maybe(dy[0]),
            dgate: Pointer::maybe(dy[1]),
            dbefore: Pointer::to(dbefore),
            da: dx[0],
            count: dbefore.numel(),
        });
        launch(BACKWARD, like, &elements.collect::<Vec<_>>(), |call| {
            Grid::line(call.count.div_ceil(THREADS), THREADS)
        });
        let multiplied = calls.iter().zip(&dbefore).flat_map(|(BackOnDevice { call, dx, .. }, dbefore)| {
            let OnDevice { op, x, .. } = call;
            let dbefore = op.frames(dbefore);
            [
                Product::of_weights(dbefore, op.frames(&x[0]), dx[1], dx[2]),
                Product::new(dbefore, op.weight(&x[1]), dx[0].added()),
            ]
        });
        let mut parts = Parts::default();
        products_in_parts(like, &multiplied.collect::<Vec<_>>(), &mut parts);
        parts.add_up(like);
    }
}
