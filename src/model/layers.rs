//! Layers as their parameters are named, declared in a [`Scope`] and started as `PyTorch` starts them.

use tch::Tensor;

use crate::ops::attention::{Attention, Qkv, attention};
use crate::ops::bigru_control::{Bigru, bigru_control};
use crate::ops::linear::{Activation, linears};
use crate::ops::{LayerNorm, Linear, Recurrent};
use crate::params::{Init, Scope};
use crate::ragged::{Ragged, split};
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

/// MHA(Q, K, V) = concat_h(dropout(softmax(Q_h K_h^T / sqrt(d / heads))) V_h) W_o + b_o, where Q_h, K_h and V_h are
/// the channels of head h in Q W_q + b_q, K W_k + b_k and V W_v + b_v; (10), (15), (21).
///
/// The streams of a layer are given together: they do not depend on each other and run at the same time.
pub struct MultiHeadAttention {
    /// W_q, W_k and W_v one below the other.
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

    /// MHA(X, X, X) of each stream, `(sum T, d)`.
    pub fn over_themselves(streams: &[(&Self, &Ragged)], noise: &Noise) -> Vec<Ragged> {
        let qkv = affine(streams.iter().map(|(mha, x)| (&x.frames, &mha.in_proj))); // (sum T, 3 d)
        let calls = streams.iter().zip(&qkv).map(|((mha, x), qkv)| Attention {
            qkv: Qkv::Joined(qkv),
            queries: &x.layout,
            keys: &x.layout,
            heads: mha.heads,
            dropout: noise.dropout(mha.dropout),
        });
        let heads = attention(&calls.collect::<Vec<_>>()); // (sum T, d)
        let attended = affine(streams.iter().zip(&heads).map(|((mha, _), heads)| (heads, &mha.out_proj)));
        streams.iter().zip(attended).map(|((_, x), attended)| x.with(attended)).collect()
    }

    /// MHA(H, S, S) of each stream: queries of one sequence, keys and values of another, `(sum Th, d)`.
    pub fn over_sources(streams: &[(&Self, &Ragged, &Ragged)], noise: &Noise) -> Vec<Ragged> {
        let in_proj: Vec<[Linear; 2]> = streams
            .iter()
            .map(|(mha, ..)| {
                let d = mha.width();
                [mha.in_proj.rows(0, d), mha.in_proj.rows(d, 2 * d)]
            })
            .collect();
        let sides = streams.iter().zip(&in_proj);
        let projected = affine(sides.flat_map(|((_, h, s), [q, kv])| [(&h.frames, q), (&s.frames, kv)]));
        let calls = streams.iter().zip(projected.chunks_exact(2)).map(|((mha, h, s), sides)| Attention {
            qkv: Qkv::OverSource(&sides[0], &sides[1]), // (sum Th, d), (sum Ts, 2 d)
            queries: &h.layout,
            keys: &s.layout,
            heads: mha.heads,
            dropout: noise.dropout(mha.dropout),
        });
        let heads = attention(&calls.collect::<Vec<_>>()); // (sum Th, d)
        let attended = affine(streams.iter().zip(&heads).map(|((mha, ..), heads)| (heads, &mha.out_proj)));
        streams.iter().zip(attended).map(|((_, h, _), attended)| h.with(attended)).collect()
    }

    /// The probabilities softmax(Q_h K_h^T / sqrt(d / heads)) of [`Self::over_sources`] for one stream: one
    /// `(heads, Th, Ts)` an utterance. The op never stores them, so they are computed here.
    pub fn probabilities(&self, h: &Ragged, s: &Ragged) -> Vec<Tensor> {
        let d = self.width();
        let (q, k) = (self.in_proj.rows(0, d), self.in_proj.rows(d, d));
        let projected = affine([(&h.frames, &q), (&s.frames, &k)].into_iter());
        let by_head = |x: Tensor| x.view([-1, self.heads, d / self.heads]).transpose(0, 1);
        let queries = split(&projected[0], &h.layout).into_iter().map(by_head);
        let keys = split(&projected[1], &s.layout).into_iter().map(by_head);
        let scale = ((d / self.heads) as f64).sqrt();
        queries.zip(keys).map(|(q, k)| (q.matmul(&k.transpose(1, 2)) / scale).softmax(-1, None)).collect()
    }

    fn width(&self) -> i64 {
        self.out_proj.weight.value.size()[0]
    }
}

/// Several affine maps at once.
fn affine<'a>(maps: impl Iterator<Item = (&'a Tensor, &'a Linear)>) -> Vec<Tensor> {
    linears(&maps.map(|(x, weights)| (x, weights, Activation::None)).collect::<Vec<_>>())
}

/// The GRU of a stream's control vector and the maps from that to its two gates.
pub struct Gates {
    forward: Recurrent,
    backward: Recurrent,
    retain: Linear,
    compound: Linear,
}

/// c, g_r and g_c, `(B, d)` each.
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

    /// The gates of each stream.
    pub fn open(streams: &[(&Self, &Ragged)]) -> Vec<OpenGates> {
        let scans = streams.iter().map(|(Self { forward, backward, .. }, x)| Bigru { x, forward, backward });
        let c = bigru_control(&scans.collect::<Vec<_>>()); // c = mean_t BiGRU(X): (7) (16)
        let maps = streams.iter().zip(&c).flat_map(|((gates, _), c)| {
            [
                (c, &gates.retain, Activation::Sigmoid), // g_r = sigmoid(W_r c + b_r): (8) (19)
                (c, &gates.compound, Activation::Sigmoid), // g_c = sigmoid(W_c c + b_c): (9) (20)
            ]
        });
        let mut opened = linears(&maps.collect::<Vec<_>>()).into_iter();
        let mut next = || opened.next().expect("two gates a stream");
        c.into_iter().map(|control| OpenGates { retain: next(), compound: next(), control }).collect()
    }
}
