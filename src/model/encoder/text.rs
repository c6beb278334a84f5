//! The encoder of text: X_t^0 = Conv1d(M_t) (4), M_t = BERT(words) (3) or the features that a file holds.

use super::bert::{Bert, BertConfig};
use crate::batch::Text;
use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::model::layers::convolution;
use crate::ops::Linear;
use crate::ops::conv1d::conv1d;
use crate::ops::dropout::dropout;
use crate::params::Scope;
use crate::ragged::Ragged;
use crate::rng::Noise;

pub struct TextEncoder {
    bert: Option<Bert>,
    conv: Linear,
    width: i64,
    dropout: f64,
}

impl TextEncoder {
    pub fn new(scope: &Scope, config: &ModelConfig, bert: Option<BertConfig>) -> Self {
        Self {
            bert: bert.map(|bert| Bert::new(&scope.at("bert"), bert, config.freeze_text)),
            conv: convolution(&scope.at("conv"), config.text_dim, config.d_model, config.text_kernel),
            width: config.text_dim,
            dropout: config.embed_dropout,
        }
    }

    /// Checks that this text can be read.
    ///
    /// # Errors
    /// [`Error::Batch`] for features of another width or kind of text, or tokens without an embedding.
    pub fn check(&self, text: &Text) -> Result<()> {
        match (&self.bert, text) {
            (Some(bert), Text::Tokens { layout, largest_id, largest_segment, .. }) => {
                bert.check(layout, *largest_id, *largest_segment)
            }
            (None, Text::Features(frames)) if frames.frames.size()[1] == self.width => Ok(()),
            (None, Text::Features(frames)) => Err(Error::Batch(format!(
                "text must be {} wide (text_dim), got {}",
                self.width,
                frames.frames.size()[1]
            ))),
            (Some(_), Text::Features(_)) => Err(Error::Batch(
                "this model has a text encoder: give text_bert or raw_text, not text".into(),
            )),
            (None, Text::Tokens { .. }) => Err(Error::Batch(
                "this model has no text encoder: give text features, or build it with text_encoder=".into(),
            )),
        }
    }

    /// To be called where the weights of a frozen encoder may have changed.
    pub fn weights_changed(&self) {
        if let Some(bert) = &self.bert {
            bert.forget();
        }
    }

    /// X_t^0, `(sum T, d)`.
    pub fn forward(&self, text: &Text, noise: &Noise) -> Ragged {
        let m = match (&self.bert, text) {
            (Some(bert), Text::Tokens { tokens, layout, .. }) => bert.forward(tokens, layout, noise), // (3)
            (None, Text::Features(frames)) => frames.clone(),
            _ => unreachable!("check() admits neither"),
        };
        let x0 = conv1d(&m, &self.conv); // X_t^0 = Conv1d(M_t): (4)
        m.with(dropout(x0, noise.dropout(self.dropout)))
    }
}
