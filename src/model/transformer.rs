//! What both transformers of a fusion layer share: gates, the gated residual, the feed-forward.

use tch::Tensor;

use super::layers::{FeedForward, Gates, MultiHeadAttention, OpenGates, layer_norm};
use crate::config::ModelConfig;
use crate::ops::LayerNorm;
use crate::ops::gated_norm::{Gates as GateValues, gated_norm};
use crate::params::Scope;
use crate::ragged::Ragged;
use crate::rng::Noise;

/// Everything a stream computes in one layer.
pub struct StreamOutput {
    /// X^i, the stream after the layer.
    pub output: Ragged,
    /// A (10) for audio and vision, R (21) for the text-led streams, in the layout of `output`.
    pub attention: Tensor,
    /// `None` in the variant without gates.
    pub gates: Option<OpenGates>,
    /// g_s (17), in the layout of the source; text-led streams with gates only.
    pub source: Option<Ragged>,
}

/// The second half of equations (11)-(12) and (22)-(23), with the parameters that both share.
pub struct Transformer {
    gates: Option<Gates>,
    pub attention: MultiHeadAttention,
    norm1: LayerNorm,
    norm2: LayerNorm,
    ffn: FeedForward,
    residual_dropout: f64,
}

impl Transformer {
    pub fn new(scope: &Scope, config: &ModelConfig) -> Self {
        let d = config.d_model;
        Self {
            gates: config.has_gates().then(|| Gates::new(scope, d)),
            attention: MultiHeadAttention::new(
                &scope.at("attention"),
                d,
                config.num_heads,
                config.attn_dropout,
            ),
            norm1: layer_norm(&scope.at("norm1"), d),
            norm2: layer_norm(&scope.at("norm2"), d),
            ffn: FeedForward::new(&scope.at("ffn"), d),
            residual_dropout: config.residual_dropout,
        }
    }

    /// From the stream `x` = X^{i-1} and what it attended to, `attended`, both `(sum T, d)`, to X^i.
    pub fn finish(
        &self,
        x: &Ragged,
        attended: Tensor,
        source: Option<Ragged>,
        noise: &Noise,
    ) -> StreamOutput {
        let gates = self.gates.as_ref().map(|gates| gates.open(x));
        let values = gates.as_ref().map(|g| GateValues { compound: &g.compound, retain: &g.retain });
        let dropped = noise.dropout(attended.shallow_clone(), self.residual_dropout);
        let y = gated_norm(&dropped, x, values.as_ref(), &self.norm1);
        let ffn = noise.dropout(self.ffn.forward(&y), self.residual_dropout);
        let output = x.with(self.norm2.forward(&(y + ffn)));
        StreamOutput { output, attention: attended, gates, source }
    }
}
