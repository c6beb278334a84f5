//! What both transformers of a fusion layer share: gates, attention, the gated residual, the feed-forward.

use tch::Tensor;

use super::layers::{Gates, MultiHeadAttention, OpenGates, layer_norm, linear};
use crate::config::ModelConfig;
use crate::ops::feed_forward::{FeedForwardNorm, feed_forward_norm};
use crate::ops::gated_norm::{GatedNorm, Gates as GateValues, gated_norm};
use crate::ops::{LayerNorm, Linear};
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

/// The parameters of one stream in one layer.
pub struct Transformer {
    gates: Option<Gates>,
    pub attention: MultiHeadAttention,
    norm1: LayerNorm,
    norm2: LayerNorm,
    linear1: Linear,
    linear2: Linear,
    residual_dropout: f64,
}

/// What a stream brings to the second half of a layer.
pub struct Halfway<'a> {
    pub transformer: &'a Transformer,
    /// X^{i-1}, `(sum T, d)`.
    pub x: &'a Ragged,
    /// A or R, `(sum T, d)`.
    pub attended: Tensor,
    pub gates: Option<OpenGates>,
    pub source: Option<Ragged>,
}

impl Transformer {
    pub fn new(scope: &Scope, config: &ModelConfig) -> Self {
        let d = config.d_model;
        let ffn = scope.at("ffn");
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
            linear1: linear(&ffn.at("linear1"), d, 4 * d),
            linear2: linear(&ffn.at("linear2"), 4 * d, d),
            residual_dropout: config.residual_dropout,
        }
    }

    /// c, g_r and g_c of each stream, (7)-(9), (16), (19), (20); `None` in the variant without gates.
    pub fn open_gates(streams: &[(&Self, &Ragged)]) -> Vec<Option<OpenGates>> {
        let gated: Option<Vec<(&Gates, &Ragged)>> =
            streams.iter().map(|(transformer, x)| Some((transformer.gates.as_ref()?, *x))).collect();
        match gated {
            Some(gated) => Gates::open(&gated).into_iter().map(Some).collect(),
            None => streams.iter().map(|_| None).collect(),
        }
    }

    /// The gated residual (11) (22) and the feed-forward (12) (23): X^i of each stream.
    pub fn finish(streams: Vec<Halfway>, noise: &Noise) -> Vec<StreamOutput> {
        let residuals = streams.iter().map(|stream| GatedNorm {
            r: &stream.attended,
            x: stream.x,
            gates: stream
                .gates
                .as_ref()
                .map(|gates| GateValues { compound: &gates.compound, retain: &gates.retain }),
            norm: &stream.transformer.norm1,
            dropout: noise.dropout(stream.transformer.residual_dropout),
        });
        let y = gated_norm(&residuals.collect::<Vec<_>>());
        let y: Vec<Ragged> = streams.iter().zip(y).map(|(stream, y)| stream.x.with(y)).collect();
        let fed = streams.iter().zip(&y).map(|(Halfway { transformer, .. }, y)| FeedForwardNorm {
            y,
            linear1: &transformer.linear1,
            linear2: &transformer.linear2,
            norm: &transformer.norm2,
            dropout: noise.dropout(transformer.residual_dropout),
        });
        let outputs = feed_forward_norm(&fed.collect::<Vec<_>>());
        streams
            .into_iter()
            .zip(outputs)
            .map(|(stream, output)| StreamOutput {
                output: stream.x.with(output),
                attention: stream.attended,
                gates: stream.gates,
                source: stream.source,
            })
            .collect()
    }
}
