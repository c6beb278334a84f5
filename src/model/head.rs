//! Prediction heads, equations (27) and (28).

use tch::Tensor;

use super::layers::linear;
use crate::ops::Linear;
use crate::params::Scope;
use crate::rng::Noise;

pub struct Head {
    linear1: Linear,
    linear2: Linear,
    linear3: Linear,
    dropout: f64,
}

/// What a head says of each utterance.
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

    /// From pooled streams `z` `(B, input)`.
    pub fn forward(&self, z: Tensor, noise: &Noise) -> HeadOutput {
        let features = self.linear1.forward(&noise.dropout(z, self.dropout)).relu();
        let score = self.linear3.forward(&self.linear2.forward(&features).relu()).squeeze_dim(1);
        HeadOutput { features, score }
    }
}
