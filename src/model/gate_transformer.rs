//! GateTransformer: one modality alone, equations (7) to (12).

use super::transformer::{StreamOutput, Transformer};
use crate::config::ModelConfig;
use crate::params::Scope;
use crate::ragged::Ragged;
use crate::rng::Noise;

pub struct GateTransformer {
    body: Transformer,
}

impl GateTransformer {
    pub fn new(scope: &Scope, config: &ModelConfig) -> Self {
        Self { body: Transformer::new(scope, config) }
    }

    /// X_n^{i-1} to X_n^i, `(sum T_n, d)`.
    pub fn forward(&self, x: &Ragged, noise: &Noise) -> StreamOutput {
        let a = self.body.attention.over_itself(x, noise); // (10)
        self.body.finish(x, a, None, noise)
    }
}
