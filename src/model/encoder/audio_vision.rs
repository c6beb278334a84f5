//! The encoder of audio and vision: X_n^0 = Conv1d(LSTM(x_n)), (1) (2) (4).

use crate::model::layers::{convolution, recurrent};
use crate::ops::conv1d::conv1ds;
use crate::ops::dropout::dropout;
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

    /// X_n^0, `(sum T, d)`, from x_n, `(sum T, input)`, for all modalities together.
    pub fn forward(encoders: &[(&Self, &Ragged)], noise: &Noise) -> Vec<Ragged> {
        let sequences: Vec<_> = encoders.iter().map(|(encoder, x)| (*x, &encoder.lstm)).collect();
        let m = lstm(&sequences); // M_n = LSTM(x_n): (1) (2)
        let m: Vec<Ragged> = encoders.iter().zip(m).map(|((_, x), m)| x.with(m)).collect();
        let sequences: Vec<_> = encoders.iter().zip(&m).map(|((encoder, _), m)| (m, &encoder.conv)).collect();
        let x0 = conv1ds(&sequences).into_iter().zip(encoders); // X_n^0 = Conv1d(M_n): (4)
        x0.map(|(x0, (encoder, x))| {
            // One node may hold both modalities: without the gradient of X_n^0 it skips the one that is frozen.
            let x0 = if encoder.is_frozen() { x0.detach() } else { x0 };
            x.with(dropout(x0, noise.dropout(encoder.dropout)))
        })
        .collect()
    }

    fn is_frozen(&self) -> bool {
        self.conv.bias.grad.is_none()
    }
}
