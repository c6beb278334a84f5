//! Affine maps on a device: our own products, and for wide maps those of libtorch, which are cuBLAS's.

use tch::{Kind, Tensor};

use super::{Activation, LinearOp};
use crate::device::{GradientTo, Grid, Kernel, Pointer, Source, empty, launch};
use crate::ops::autograd::{BackOnDevice, DeviceOp, OnDevice};
use crate::ops::cuda::product::{
    ColumnSums, MatrixAt, Product, column_sums_in_parts, products, products_in_parts,
};
use crate::ops::cuda::reduce::Parts;
use crate::ops::cuda::source;

pub const SOURCE: Source = source("linear", include_str!("cuda.cu"));
const ACTIVATE: Kernel = Kernel { source: SOURCE, name: "activate_elements" };
const ACTIVATE_BACKWARD: Kernel = Kernel { source: SOURCE, name: "activate_backward" };
const THREADS: usize = 256;

/// A map with more inputs and more outputs than this is computed by cuBLAS.
const WIDE: usize = 128;

#[repr(C)]
#[derive(Clone, Copy)]
struct Activate {
    y: Pointer,
    before: Pointer,
    count: usize,
    activation: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct ActivateBackward {
    dy: Pointer,
    y: Pointer,
    before: Pointer,
    dbefore: Pointer,
    count: usize,
    activation: i32,
}

impl LinearOp {
    fn is_wide(&self) -> bool {
        self.input > WIDE && self.output > WIDE
    }

    fn matrix(&self, x: &Tensor) -> MatrixAt {
        MatrixAt::new(Pointer::to(x), self.rows, self.input)
    }

    fn weight_at(&self, weight: &Tensor) -> MatrixAt {
        MatrixAt::new(Pointer::to(weight), self.output, self.input)
    }
}

impl DeviceOp for LinearOp {
    fn forward_on_device(calls: &[OnDevice<Self>]) {
        let like = &calls[0].x[0];
        let (wide, narrow): (Vec<_>, Vec<_>) = calls.iter().partition(|call| call.op.is_wide());
        let narrow = narrow.iter().map(|OnDevice { op, x, y, saved }| Product {
            bias: Pointer::to(&x[2]),
            activation: op.activation,
            before: Pointer::to(&saved[0]),
            ..Product::new(op.matrix(&x[0]), op.weight_at(&x[1]).t(), GradientTo::new(&y[0], false))
        });
        products(like, &narrow.collect::<Vec<_>>());
        for OnDevice { op, x, y, .. } in &wide {
            if let Some(half) = &op.half {
                let mut y = y[0].shallow_clone();
                y.copy_(&in_half(&x[0]).mm(&half.tr()));
                y += &x[2];
            } else {
                let _ = x[2].addmm_out(&y[0], &x[0], &x[1].tr());
            }
        }
        let activated = wide.iter().filter(|call| call.op.activation != Activation::None);
        let activated = activated.map(|OnDevice { op, y, saved, .. }| Activate {
            y: Pointer::to(&y[0]),
            before: Pointer::to(&saved[0]),
            count: y[0].numel(),
            activation: op.activation as i32,
        });
        launch(ACTIVATE, like, &activated.collect::<Vec<_>>(), |call| {
            Grid::line(call.count.div_ceil(THREADS), THREADS)
        });
    }

    fn backward_on_device(calls: &[BackOnDevice<Self>]) {
        let like = calls[0].any();
        let before = before_activation(like, calls);
        let (mut narrow, mut sums, mut parts) = (vec![], vec![], Parts::default());
        for (BackOnDevice { call: OnDevice { op, x, .. }, dx, .. }, dy) in calls.iter().zip(&before) {
            let at = MatrixAt::new(Pointer::to(dy), op.rows, op.output);
            if op.is_wide() {
                if let Some(half) = &op.half {
                    let dy = in_half(dy);
                    put(dx[0], || dy.mm(half), &x[0]);
                    put(dx[1], || dy.tr().mm(&in_half(&x[0])), &x[1]);
                } else {
                    put_product(dx[0], dy, &x[1]);
                    put_product(dx[1], &dy.tr(), &x[0]);
                }
                sums.push(ColumnSums { matrix: at, to: dx[2] });
            } else {
                narrow.push(Product::of_weights(at, op.matrix(&x[0]), dx[1], dx[2]));
                narrow.push(Product::new(at, op.weight_at(&x[1]), dx[0]));
            }
        }
        products_in_parts(like, &narrow, &mut parts);
        column_sums_in_parts(like, &sums, &mut parts);
        parts.add_up(like);
    }
}

/// The gradient of the argument of each call's activation; without an activation, that of its result.
fn before_activation(like: &Tensor, calls: &[BackOnDevice<LinearOp>]) -> Vec<Tensor> {
    let mut launched = vec![];
    let before = calls.iter().map(|BackOnDevice { call: OnDevice { op, y, saved, .. }, dy, .. }| {
        let dy = dy[0].expect("the one result has a gradient");
        if op.activation == Activation::None {
            return dy.shallow_clone();
        }
        let dbefore = empty(&dy.size(), like.kind(), like.device());
        launched.push(ActivateBackward {
            dy: Pointer::to(dy),
            y: Pointer::to(&y[0]),
            before: Pointer::to(&saved[0]),
            dbefore: Pointer::to(&dbefore),
            count: dy.numel(),
            activation: op.activation as i32,
        });
        dbefore
    });
    let before = before.collect();
    launch(ACTIVATE_BACKWARD, like, &launched, |call| Grid::line(call.count.div_ceil(THREADS), THREADS));
    before
}

fn in_half(x: &Tensor) -> Tensor {
    x.to_kind(Kind::BFloat16)
}

/// Writes or adds a gradient, which may be of another kind; it has the shape of `like`.
fn put(c: GradientTo, gradient: impl Fn() -> Tensor, like: &Tensor) {
    if c.is_nowhere() {
        return;
    }
    // SAFETY: a gradient has its input's shape, kind and device, and lives as long as the calls.
    let mut to = unsafe { c.tensor(&like.size(), like) };
    if c.adds() {
        to += gradient();
    } else {
        to.copy_(&gradient());
    }
}

/// Writes or adds A B.
fn put_product(c: GradientTo, a: &Tensor, b: &Tensor) {
    if c.is_nowhere() {
        return;
    }
    // SAFETY: as above; the product has the input's shape.
    let to = unsafe { c.tensor(&[a.size()[0], b.size()[1]], a) };
    let _ = if c.adds() { to.addmm_out(&to, a, b) } else { a.mm_out(&to, b) };
}
