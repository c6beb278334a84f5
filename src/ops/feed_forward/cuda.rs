//! The feed-forward on a device: two products, then the residual and its normalisation.

use tch::Tensor;

use super::FeedForwardOp;
use crate::device::{GradientTo, Pointer, empty};
use crate::ops::autograd::{BackOnDevice, DeviceOp, OnDevice};
use crate::ops::cuda::product::{MatrixAt, Product, products, products_in_parts};
use crate::ops::cuda::reduce::Parts;
use crate::ops::gated_norm::cuda::{Gradients, Residual, backward, forward};
use crate::ops::linear::Activation;

impl FeedForwardOp {
    fn narrow(&self, rows: &Tensor) -> MatrixAt {
        MatrixAt::new(Pointer::to(rows), self.rows(), self.width)
    }

    fn wide(&self, rows: &Tensor) -> MatrixAt {
        MatrixAt::new(Pointer::to(rows), self.rows(), self.inner)
    }

    fn w1(&self, weight: &Tensor) -> MatrixAt {
        MatrixAt::new(Pointer::to(weight), self.inner, self.width)
    }

    fn w2(&self, weight: &Tensor) -> MatrixAt {
        MatrixAt::new(Pointer::to(weight), self.width, self.inner)
    }

    /// LN(Y + dropout(out)).
    fn residual(&self, x: &[Tensor], out: &Tensor, result: &Tensor) -> Residual {
        Residual::new([out, &x[0]], [&x[5], &x[6]], result, &self.layout, self.eps, self.dropout)
    }
}

impl DeviceOp for FeedForwardOp {
    const WORKS_IN_SAVED: bool = true;

    /// relu(W1 Y + b1), and W2 times that plus b2.
    fn saved_on_device(&self) -> Vec<usize> {
        vec![self.rows() * self.inner, self.rows() * self.width]
    }

    fn forward_on_device(calls: &[OnDevice<Self>]) {
        let like = &calls[0].x[0];
        let (mut first, mut second, mut residuals) = (vec![], vec![], vec![]);
        for OnDevice { op, x, y, saved } in calls {
            let (hidden, out) = (&saved[0], &saved[1]);
            first.push(Product {
                bias: Pointer::to(&x[2]),
                activation: Activation::Relu,
                ..Product::new(op.narrow(&x[0]), op.w1(&x[1]).t(), GradientTo::new(hidden, false))
            });
            second.push(Product {
                bias: Pointer::to(&x[4]),
                ..Product::new(op.wide(hidden), op.w2(&x[3]).t(), GradientTo::new(out, false))
            });
            residuals.push(op.residual(x, out, &y[0]));
        }
        products(like, &first);
        products(like, &second);
        forward(like, &residuals);
    }

    fn backward_on_device(calls: &[BackOnDevice<Self>]) {
        let like = calls[0].any();
        let (mut residuals, mut first, mut second, mut memory) = (vec![], vec![], vec![], vec![]);
        for BackOnDevice { call: OnDevice { op, x, y, saved }, dy, dx } in calls {
            let dout = empty(&x[0].size(), like.kind(), like.device());
            let dhidden = empty(&[saved[0].numel() as i64], like.kind(), like.device());
            let gradients = Gradients {
                y: dy[0].expect("the one result has a gradient"),
                r: GradientTo::new(&dout, false),
                x: dx[0],
                weight: dx[5],
                bias: dx[6],
                gates: [GradientTo::NOWHERE; 2],
            };
            residuals.push((op.residual(x, &saved[1], &y[0]), gradients));
            let (dout_at, dhidden_at) = (op.narrow(&dout), op.wide(&dhidden));
            second.push(Product::of_weights(dout_at, op.wide(&saved[0]), dx[3], dx[4]));
            second.push(Product {
                positive: Pointer::to(&saved[0]),
                ..Product::new(dout_at, op.w2(&x[3]), GradientTo::new(&dhidden, false))
            });
            first.push(Product::of_weights(dhidden_at, op.narrow(&x[0]), dx[1], dx[2]));
            first.push(Product::new(dhidden_at, op.w1(&x[1]), dx[0].added()));
            memory.extend([dout, dhidden]);
        }
        let mut parts = Parts::default();
        backward(like, &residuals, &mut parts);
        products_in_parts(like, &second, &mut parts);
        products_in_parts(like, &first, &mut parts);
        parts.add_up(like);
    }
}
