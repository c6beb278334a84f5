//! The parameters of operations.

use tch::Tensor;

use super::autograd::Input;

/// A parameter and the tensor in which its gradients are summed up; `None` for one that is not trained, and for a
/// user's tensor, whose gradient is returned.
#[derive(Debug)]
pub struct Weight {
    pub value: Tensor,
    pub grad: Option<Tensor>,
    /// A copy in bfloat16, if wide maps are to be computed in that.
    pub half: Option<Tensor>,
}

impl Weight {
    /// A user's tensor.
    pub fn of(value: Tensor) -> Self {
        Self { value, grad: None, half: None }
    }

    /// `count` rows from `first` on.
    pub fn rows(&self, first: i64, count: i64) -> Self {
        let part = |whole: &Tensor| whole.narrow(0, first, count);
        Self {
            value: part(&self.value),
            grad: self.grad.as_ref().map(part),
            half: self.half.as_ref().map(part),
        }
    }
}

impl<'a> From<&'a Weight> for Input<'a> {
    fn from(weight: &'a Weight) -> Self {
        Self { tensor: &weight.value, grad: weight.grad.as_ref() }
    }
}

/// Weights of `x W^T + b`, `weight` `(out, in)`, `bias` `(out,)`; of a convolution `(out, in, kernel)`.
#[derive(Debug)]
pub struct Linear {
    pub weight: Weight,
    pub bias: Weight,
}

impl Linear {
    /// The map to outputs `first` to `first + count`.
    pub fn rows(&self, first: i64, count: i64) -> Self {
        Self { weight: self.weight.rows(first, count), bias: self.bias.rows(first, count) }
    }
}

/// Scale and shift after normalising each row, `(width,)` each.
#[derive(Debug)]
pub struct LayerNorm {
    pub weight: Weight,
    pub bias: Weight,
    pub eps: f64,
}

/// Weights of one direction of a recurrent layer in `PyTorch`'s layout:
/// `weight_ih` `(gates * hidden, in)`, `weight_hh` `(gates * hidden, hidden)`, two biases `(gates * hidden,)`.
#[derive(Debug)]
pub struct Recurrent {
    pub weight_ih: Weight,
    pub weight_hh: Weight,
    pub bias_ih: Weight,
    pub bias_hh: Weight,
}

/// Sizes of a tensor of two axes.
pub fn shape2(tensor: &Tensor) -> [usize; 2] {
    let [rows, columns] = tensor.size()[..] else { unreachable!("checked to have two axes") };
    [rows as usize, columns as usize]
}
