//! Layers as their parameters are named, declared in a [`Scope`] and started as `PyTorch` starts them.

use std::sync::Arc;

use tch::Tensor;

use crate::ops::attention::{Qkv, attention};
use crate::ops::bigru_control::bigru_control;
use crate::ops::{LayerNorm, Linear, Recurrent};
use crate::params::{Init, Scope};
use crate::ragged::{Layout, Ragged};
use crate::rng::Noise;

/// Declares `weight` `(out, in)` and `bias` `(out,)`.
pub fn linear(scope: &Scope, input: i64, output: i64) -> Linear {
    Linear {
        weight: scope.param("weight", &[output, input], Init::fan_in(input)),
        bias: scope.param("bias", &[output], Init::fan_in(input)),
    }
}

/// Declares `weight` `(out, in, kernel)` and `bias` `(out,)`.
pub fn convolution(scope: &Scope, input: i64, output: i64, kernel: i64) -> Linear {
    Linear {
        weight: scope.param("weight", &[output, input, kernel], Init::fan_in(input * kernel)),
        bias: scope.param("bias", &[output], Init::fan_in(input * kernel)),
    }
}

/// Declares `weight` and `bias` `(width,)` with `PyTorch`'s eps of 1e-5.
pub fn layer_norm(scope: &Scope, width: i64) -> LayerNorm {
    LayerNorm {
        weight: scope.param("weight", &[width], Init::Ones),
        bias: scope.param("bias", &[width], Init::Zeros),
        eps: 1e-5,
    }
}

/// Declares one direction of a recurrent layer with `gates` gates; `suffix` is empty or `_reverse`.
pub fn recurrent(scope: &Scope, gates: i64, input: i64, hidden: i64, suffix: &str) -> Recurrent {
    let init = Init::fan_in(hidden);
    let param = |name: &str, shape: &[i64]| scope.param(&format!("{name}_l0{suffix}"), shape, init);
    Recurrent {
        weight_ih: param("weight_ih", &[gates * hidden, input]),
        weight_hh: param("weight_hh", &[gates * hidden, hidden]),
        bias_ih: param("bias_ih", &[gates * hidden]),
        bias_hh: param("bias_hh", &[gates * hidden]),
    }
}

/// MHA(Q, K, V) of section 3: input projections W_q, W_k, W_v in one, heads, output projection.
pub struct MultiHeadAttention {
    in_proj: Linear,
    out_proj: Linear,
    heads: i64,
    dropout: f64,
}

impl MultiHeadAttention {
    pub fn new(scope: &Scope, width: i64, heads: i64, dropout: f64) -> Self {
        Self {
            in_proj: Linear {
                weight: scope.param("in_proj_weight", &[3 * width, width], Init::xavier(width, 3 * width)),
                bias: scope.param("in_proj_bias", &[3 * width], Init::Zeros),
            },
            out_proj: Linear {
                weight: scope.param("out_proj.weight", &[width, width], Init::fan_in(width)),
                bias: scope.param("out_proj.bias", &[width], Init::Zeros),
            },
            heads,
            dropout,
        }
    }

    /// MHA(X, X, X), `(sum T, d)`.
    pub fn over_itself(&self, x: &Ragged, noise: &Noise) -> Tensor {
        let projected = self.in_proj.forward(&x.frames).chunk(3, 1);
        self.finish(&projected[0], &projected[1], &projected[2], &x.layout, &x.layout, noise)
    }

    /// MHA(H, S, S): queries of one sequence, keys and values of another, `(sum Th, d)`.
    pub fn over_source(&self, h: &Ragged, s: &Ragged, noise: &Noise) -> Tensor {
        let width = h.frames.size()[1];
        let (weight, bias) = (&self.in_proj.weight, &self.in_proj.bias);
        let query = h.frames.linear(&weight.narrow(0, 0, width), Some(&bias.narrow(0, 0, width)));
        let both = s
            .frames
            .linear(&weight.narrow(0, width, 2 * width), Some(&bias.narrow(0, width, 2 * width)))
            .chunk(2, 1);
        self.finish(&query, &both[0], &both[1], &h.layout, &s.layout, noise)
    }

    fn finish(
        &self,
        query: &Tensor,
        key: &Tensor,
        value: &Tensor,
        queries: &Arc<Layout>,
        keys: &Arc<Layout>,
        noise: &Noise,
    ) -> Tensor {
        let qkv = Qkv { query, key, value };
        self.out_proj.forward(&attention(&qkv, queries, keys, self.heads, self.dropout, noise))
    }
}

/// FFN of equations (12) and (23): d -> 4d -> `ReLU` -> d.
pub struct FeedForward {
    linear1: Linear,
    linear2: Linear,
}

impl FeedForward {
    pub fn new(scope: &Scope, width: i64) -> Self {
        Self {
            linear1: linear(&scope.at("linear1"), width, 4 * width),
            linear2: linear(&scope.at("linear2"), 4 * width, width),
        }
    }

    pub fn forward(&self, y: &Tensor) -> Tensor {
        self.linear2.forward(&self.linear1.forward(y).relu())
    }
}

/// The control vector of a stream and the two gates that it opens, equations (7)-(9), (16), (19), (20).
pub struct Gates {
    forward: Recurrent,
    backward: Recurrent,
    retain: Linear,
    compound: Linear,
}

/// What [`Gates::open`] returns, `(B, d)` each.
pub struct OpenGates {
    pub control: Tensor,
    pub retain: Tensor,
    pub compound: Tensor,
}

impl Gates {
    pub fn new(scope: &Scope, width: i64) -> Self {
        let gru = scope.at("gru");
        Self {
            forward: recurrent(&gru, 3, width, width, ""),
            backward: recurrent(&gru, 3, width, width, "_reverse"),
            retain: linear(&scope.at("retain"), width, width),
            compound: linear(&scope.at("compound"), width, width),
        }
    }

    pub fn open(&self, x: &Ragged) -> OpenGates {
        let control = bigru_control(x, &self.forward, &self.backward);
        OpenGates {
            retain: self.retain.forward(&control).sigmoid(),
            compound: self.compound.forward(&control).sigmoid(),
            control,
        }
    }
}
