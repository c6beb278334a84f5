//! Prediction heads of u in {m, a, v}, equations (27) and (28), which have one form:
//! F_u = relu(W_1 dropout(z_u) + b_1), y_u = W_3 relu(W_2 F_u + b_2) + b_3.

use tch::Tensor;

use super::layers::linear;
use crate::ops::Linear;
use crate::ops::dropout::dropout;
use crate::ops::linear::{Activation, linears};
use crate::params::Scope;
use crate::rng::Noise;

pub struct Head {
    linear1: Linear,
    linear2: Linear,
    linear3: Linear,
    dropout: f64,
}

/// The result of a head for each utterance.
pub struct HeadOutput {
    /// F_u, `(B, features)`: the representation that ULGM sees.
    pub features: Tensor,
    /// y_u, `(B,)`.
    pub score: Tensor,
}

impl Head {
    pub fn new(scope: &Scope, input: i64, features: i64, dropout: f64) -> Self {
        Self {
            linear1: linear(&scope.at("linear1"), input, features),
            linear2: linear(&scope.at("linear2"), features, features),
            linear3: linear(&scope.at("linear3"), features, 1),
            dropout,
        }
    }

    /// Width of F_u.
    pub fn features(&self) -> i64 {
        self.linear1.weight.value.size()[0]
    }

    /// Each head from its pooled streams `z` `(B, input)`.
    pub fn forward(heads: &[(&Self, Tensor)], noise: &Noise) -> Vec<HeadOutput> {
        let z: Vec<Tensor> =
            heads.iter().map(|(head, z)| dropout(z.shallow_clone(), noise.dropout(head.dropout))).collect();
        let map = |x: &[Tensor], layer: fn(&Self) -> &Linear, activation| {
            let calls = heads.iter().zip(x).map(|((head, _), x)| (x, layer(head), activation));
            linears(&calls.collect::<Vec<_>>())
        };
        let features = map(&z, |head| &head.linear1, Activation::Relu); // F_u
        let hidden = map(&features, |head| &head.linear2, Activation::Relu);
        let scores = map(&hidden, |head| &head.linear3, Activation::None); // y_u
        let both = features.into_iter().zip(scores);
        both.map(|(features, score)| HeadOutput { features, score: score.squeeze_dim(1) }).collect()
    }
}
