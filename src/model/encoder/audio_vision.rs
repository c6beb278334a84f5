//! The encoder of audio and vision: LSTM (1)(2), then convolution (4).

use crate::model::layers::{convolution, recurrent};
use crate::ops::conv1d::conv1d;
use crate::ops::lstm::lstm;
use crate::ops::{Linear, Recurrent};
use crate::params::Scope;
use crate::ragged::Ragged;
use crate::rng::Noise;

/// Widths of one modality's encoder.
pub struct Shape {
    pub input: i64,
    pub hidden: i64,
    pub d_model: i64,
    pub kernel: i64,
}

pub struct SequenceEncoder {
    lstm: Recurrent,
    conv: Linear,
    dropout: f64,
}

impl SequenceEncoder {
    pub fn new(scope: &Scope, shape: &Shape, embed_dropout: f64) -> Self {
        Self {
            lstm: recurrent(&scope.at("lstm"), 4, shape.input, shape.hidden, ""),
            conv: convolution(&scope.at("conv"), shape.hidden, shape.d_model, shape.kernel),
            dropout: embed_dropout,
        }
    }

    /// `(sum T, input)` to X_n^0, `(sum T, d)`.
    pub fn forward(&self, x: &Ragged, noise: &Noise) -> Ragged {
        let m = x.with(lstm(x, &self.lstm)); // (1) (2)
        x.with(noise.dropout(conv1d(&m, &self.conv), self.dropout)) // (4)
    }
}
