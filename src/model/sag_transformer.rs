//! SAG-Transformer: text reads one other modality through a gate on the source, equations (15) to (23).

use super::layers::{MultiHeadAttention, linear};
use super::transformer::{StreamOutput, Transformer};
use crate::config::ModelConfig;
use crate::ops::Linear;
use crate::ops::source_gate::source_gate;
use crate::params::Scope;
use crate::ragged::Ragged;
use crate::rng::Noise;

pub struct SagTransformer {
    self_attention: MultiHeadAttention,
    source: Option<Linear>,
    body: Transformer,
}

impl SagTransformer {
    pub fn new(scope: &Scope, config: &ModelConfig) -> Self {
        let (d, heads) = (config.d_model, config.num_heads);
        Self {
            self_attention: MultiHeadAttention::new(
                &scope.at("self_attention"),
                d,
                heads,
                config.attn_dropout,
            ),
            source: config.has_gates().then(|| linear(&scope.at("source"), d, d)),
            body: Transformer::new(scope, config),
        }
    }

    /// X_f^{i-1} `(sum T_t, d)` and A = X_mh,n^i `(sum T_n, d)` to X_f^i `(sum T_t, d)`.
    pub fn forward(&self, x: &Ragged, a: &Ragged, noise: &Noise) -> StreamOutput {
        let h = x.with(self.self_attention.over_itself(x, noise)); // (15)
        let (s, gate) = match &self.source {
            Some(source) => {
                let gated = source_gate(&a.frames, source); // (17) (18)
                (a.with(gated.source), Some(a.with(gated.gate)))
            }
            None => (a.clone(), None),
        };
        let r = self.body.attention.over_source(&h, &s, noise); // (21)
        self.body.finish(x, r, gate, noise)
    }
}
