//! The operations that the model is made of, each one file: contract, shapes, source equation.
//!
//! Ops know tensors and layouts, never models. Here they run on libtorch; an op that gets its own
//! kernel keeps its signature.

pub mod adam;
pub mod attention;
pub mod bigru_control;
pub mod cmd;
pub mod conv1d;
pub mod gated_norm;
pub mod lstm;
pub mod orthogonality;
pub mod source_gate;
pub mod ulgm;

use tch::Tensor;

/// Weights of `x W^T + b`, `weight` `(out, in)`, `bias` `(out,)`.
#[derive(Debug)]
pub struct Linear {
    pub weight: Tensor,
    pub bias: Tensor,
}

impl Linear {
    /// `(rows, in)` to `(rows, out)`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        x.linear(&self.weight, Some(&self.bias))
    }
}

/// Scale and shift after normalising each row, `(width,)` each.
#[derive(Debug)]
pub struct LayerNorm {
    pub weight: Tensor,
    pub bias: Tensor,
    pub eps: f64,
}

impl LayerNorm {
    /// `(rows, width)` to the same.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        x.layer_norm(self.weight.size(), Some(&self.weight), Some(&self.bias), self.eps, false)
    }
}

/// Weights of one direction of a recurrent layer in `PyTorch`'s layout:
/// `weight_ih` `(gates * hidden, in)`, `weight_hh` `(gates * hidden, hidden)`, two biases `(gates * hidden,)`.
#[derive(Debug)]
pub struct Recurrent {
    pub weight_ih: Tensor,
    pub weight_hh: Tensor,
    pub bias_ih: Tensor,
    pub bias_hh: Tensor,
}

impl Recurrent {
    fn hidden(&self) -> i64 {
        self.weight_hh.size()[1]
    }
}

/// The square root of a sum of squares, whose gradient at zero is zero instead of NaN.
fn safe_norm(x: &Tensor) -> Tensor {
    let squares = x.square().sum(x.kind());
    let positive = squares.gt(0.0);
    squares.where_self(&positive, &squares.ones_like()).sqrt() * positive
}
