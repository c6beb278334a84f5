//! Launches of `cuda.cu` and the products between them.

use tch::Tensor;

use super::Conv1d;
use crate::device::{GradientTo, Grid, Kernel, Pointer, Source, empty, launch, limits::WARP};
use crate::ops::autograd::{BackOnDevice, DeviceOp, OnDevice};
use crate::ops::cuda::product::{MatrixAt, Product, products, products_in_parts};
use crate::ops::cuda::reduce::Parts;
use crate::ops::cuda::{LayoutOf, source};

pub const SOURCE: Source = source("conv1d", include_str!("cuda.cu"));
const COLUMNS: Kernel = Kernel { source: SOURCE, name: "conv1d_columns" };
const GATHER: Kernel = Kernel { source: SOURCE, name: "conv1d_gather" };

/// Warps of a block: as many rows.
const WARPS: usize = 8;

#[repr(C)]
#[derive(Clone, Copy)]
struct Columns {
    x: Pointer,
    to: Pointer,
    layout: LayoutOf,
    input: i32,
    kernel: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Gather {
    dcolumns: Pointer,
    dx: GradientTo,
    layout: LayoutOf,
    input: i32,
    kernel: i32,
}

fn grid(layout: &LayoutOf) -> Grid {
    Grid::line(layout.rows().div_ceil(WARPS), WARPS * WARP)
}

impl Conv1d {
    fn columns_at(&self, columns: &Tensor) -> MatrixAt {
        MatrixAt::new(Pointer::to(columns), self.rows(), self.depth())
    }

    /// The weight in its own layout, a row for each output.
    fn weight_at(&self, weight: &Tensor) -> MatrixAt {
        MatrixAt::new(Pointer::to(weight), self.output, self.depth())
    }

    /// The matrix that a product reads: for a kernel of 1 the frames themselves.
    fn columns_of<'a>(&self, x: &'a [Tensor], saved: &'a [Tensor]) -> &'a Tensor {
        if self.kernel == 1 { &x[0] } else { &saved[0] }
    }
}

impl DeviceOp for Conv1d {
    const WORKS_IN_SAVED: bool = true;

    /// The columns; a kernel of 1 reads the frames themselves.
    fn saved_on_device(&self) -> Vec<usize> {
        vec![if self.kernel == 1 { 0 } else { self.rows() * self.depth() }]
    }

    fn forward_on_device(calls: &[OnDevice<Self>]) {
        let like = &calls[0].x[0];
        let to_fill = calls.iter().filter(|call| call.op.kernel > 1);
        let to_fill = to_fill.map(|OnDevice { op, x, saved, .. }| Columns {
            x: Pointer::to(&x[0]),
            to: Pointer::to(&saved[0]),
            layout: LayoutOf::new(&op.layout, like),
            input: op.input as i32,
            kernel: op.kernel as i32,
        });
        launch(COLUMNS, like, &to_fill.collect::<Vec<_>>(), |call| grid(&call.layout));
        let multiplied = calls.iter().map(|OnDevice { op, x, y, saved }| {
            let (columns, weight) = (op.columns_at(op.columns_of(x, saved)), op.weight_at(&x[1]));
            Product {
                bias: Pointer::to(&x[2]),
                true_rows: LayoutOf::new(&op.layout, like).true_rows(),
                ..Product::new(columns, weight.t(), GradientTo::new(&y[0], false))
            }
        });
        products(like, &multiplied.collect::<Vec<_>>());
    }

    fn backward_on_device(calls: &[BackOnDevice<Self>]) {
        let like = calls[0].any();
        let (mut dcolumns, mut multiplied, mut gathered) = (vec![], vec![], vec![]);
        for BackOnDevice { call: OnDevice { op, x, saved, .. }, dy, dx } in calls {
            let dy = Pointer::to(dy[0].expect("the one result has a gradient"));
            let dy = MatrixAt::new(dy, op.rows(), op.output);
            let columns = op.columns_at(op.columns_of(x, saved));
            multiplied.push(Product::of_weights(dy, columns, dx[1], dx[2]));
            let mut to = dx[0];
            if op.kernel > 1 && !to.is_nowhere() {
                let own = empty(&[saved[0].numel() as i64], like.kind(), like.device());
                gathered.push(Gather {
                    dcolumns: Pointer::to(&own),
                    dx: to,
                    layout: LayoutOf::new(&op.layout, like),
                    input: op.input as i32,
                    kernel: op.kernel as i32,
                });
                to = GradientTo::new(&own, false);
                dcolumns.push(own);
            }
            multiplied.push(Product::new(dy, op.weight_at(&x[1]), to));
        }
        let mut parts = Parts::default();
        products_in_parts(like, &multiplied, &mut parts);
        launch(GATHER, like, &gathered, |call| grid(&call.layout));
        parts.add_up(like);
    }
}
