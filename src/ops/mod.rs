//! The operations that the model is made of, each one folder: contract, shapes, source equation and the CPU's
//! kernels forward and backward in `mod.rs`; CUDA's kernels in `cuda.cu`, how they are launched in `cuda.rs`.
//!
//! Ops know packed frames and layouts, never models. Each takes several calls at once where the model has
//! streams that do not depend on each other.

pub mod adam;
pub mod attention;
pub mod autograd;
pub mod bigru_control;
pub mod cmd;
pub mod conv1d;
pub mod cuda;
pub mod dropout;
pub mod embedding;
pub mod feed_forward;
pub mod finite;
pub mod gated_norm;
pub mod gemm;
pub mod linear;
pub mod lstm;
pub mod parallel;
pub mod pooling;
pub mod profile;
pub mod recurrent;
pub mod source_gate;
pub mod ulgm;

use std::ops::Range;

use tch::Tensor;

use crate::numeric::{Real, add};
use autograd::Input;

/// A parameter, and where its gradients are summed up; `None` for one that is not trained, and for a user's
/// tensor, whose gradient is returned.
#[derive(Debug)]
pub struct Weight {
    pub value: Tensor,
    pub grad: Option<Tensor>,
    /// A copy in bfloat16, where products of wide maps are to be in bfloat16.
    pub half: Option<Tensor>,
}

impl Weight {
    /// A tensor of a user's.
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
fn shape2(tensor: &Tensor) -> [usize; 2] {
    let [rows, columns] = tensor.size()[..] else { unreachable!("checked to have two axes") };
    [rows as usize, columns as usize]
}

/// Calls `work` on fixed pieces of a slice and their places, at the same time.
fn chunked<T: Real>(x: &mut [T], work: impl Fn(Range<usize>, &mut [T]) + Sync) {
    const SIZE: usize = 1 << 14;
    let mut pieces: Vec<(usize, &mut [T])> = x.chunks_mut(SIZE).enumerate().collect();
    parallel::each_of(&mut pieces, |(i, piece)| {
        let start = *i * SIZE;
        work(start..start + piece.len(), piece);
    });
}

/// Adds sums that were made in parts to the gradients of parameters, one part after the other. Each part has
/// those of all parameters, whose `sizes` say where each begins.
fn add_parts<T: Real>(gradients: &mut [Option<&mut [T]>], sizes: &[usize], sums: &[T]) {
    let starts = sizes.iter().scan(0, |next, size| Some(std::mem::replace(next, *next + size)));
    let mut gradients: Vec<_> = gradients.iter_mut().zip(starts).collect();
    parallel::each_of(&mut gradients, |(gradient, start)| {
        let Some(gradient) = gradient else { return };
        sums.chunks_exact(sizes.iter().sum()).for_each(|part| add(gradient, &part[*start..]));
    });
}
