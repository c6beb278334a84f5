//! The graph of MMILN, read as the paper: encoders, L fusion layers, heads.
//!
//! Audio and vision meet text in the SAG stack and each other only in the multimodal head. A model may have both,
//! one, or none of them. A model without text reads a single modality, for comparison.

pub mod encoder;
pub mod fusion;
pub mod head;
pub mod layers;
pub mod streams;

use std::collections::BTreeMap;

use tch::Tensor;

use crate::batch::Batch;
use crate::config::{ModelConfig, Pooling};
use crate::error::{Error, Result};
use crate::ops::pooling::{pool, pools};
use crate::params::Builder;
use crate::ragged::Ragged;
use crate::rng::Noise;
use encoder::audio_vision::{SequenceEncoder, Shape};
use encoder::bert::BertConfig;
use encoder::text::TextEncoder;
use fusion::{FusionLayer, StreamOutput};
use head::{Head, HeadOutput};
use streams::together;
pub use streams::{Modality, Stream, Streams, Target};

/// The model's graph. Its tensors are the leaves that [`crate::params::Params`] holds.
pub struct Model {
    pub config: ModelConfig,
    text: Option<TextEncoder>,
    encoders: BTreeMap<Modality, SequenceEncoder>,
    layers: Vec<FusionLayer>,
    heads: BTreeMap<Target, Head>,
}

/// Which results of a forward pass are wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// The model's score and what it depends on.
    Score,
    Everything,
}

/// The results of a forward pass.
pub struct Forward {
    /// y_u and F_u by head; only those of the multimodal head where just the score was wanted and it has that.
    pub heads: BTreeMap<Target, HeadOutput>,
    /// The results of each layer by stream, from the first layer on.
    pub layers: Vec<Streams<StreamOutput>>,
}

impl Forward {
    /// The model's score of each utterance, `(B,)`: y_m, or that of the only modality.
    ///
    /// # Panics
    /// Never: a model has a head.
    pub fn score(&self) -> &Tensor {
        &self.heads.values().next().expect("a model has a head").score
    }

    /// F_u, `(B, features)` each: what ULGM reads.
    pub fn features(&self) -> BTreeMap<Target, &Tensor> {
        self.heads.iter().map(|(u, head)| (*u, &head.features)).collect()
    }

    /// Control vectors of the last layer, `(B, d)` each; none in the variant without gates.
    pub fn controls(&self) -> Streams<&Tensor> {
        let last = self.layers.last().into_iter().flatten();
        last.filter_map(|(f, stream)| Some((*f, &stream.gates.as_ref()?.control))).collect()
    }
}

impl Model {
    /// Declares all parameters.
    pub fn new(builder: &Builder, config: ModelConfig, bert: Option<BertConfig>) -> Self {
        let root = builder.root();
        let (mut encoders, mut heads) = (BTreeMap::new(), BTreeMap::new());
        let mut layers: Vec<FusionLayer> = (0..config.num_layers).map(|_| FusionLayer::default()).collect();
        for modality in Modality::ALL {
            let (shape, features, dropout) = sizes(modality, &config);
            if shape.input == 0 {
                continue;
            }
            let frozen = match modality {
                Modality::Audio => config.freeze_audio,
                Modality::Vision => config.freeze_vision,
            };
            let scope = root.at(modality.name()).frozen(frozen);
            encoders.insert(modality, SequenceEncoder::new(&scope, &shape, config.embed_dropout));
            for (i, layer) in layers.iter_mut().enumerate() {
                layer.add(modality, &root.at("fusion").at(i), &config);
            }
            let scope = root.at("heads").at(modality.name());
            let head = Head::new(&scope, config.d_model, features, dropout);
            heads.insert(Target::Unimodal(modality), head);
        }
        let text = config.has_text().then(|| {
            // z_m has the width of its pooled streams, see `pool`.
            let pooled = if config.has_gate_fusion() { encoders.len().max(1) } else { 1 + encoders.len() };
            let width = config.d_model * i64::try_from(pooled).unwrap_or(i64::MAX);
            let text = TextEncoder::new(&root.at("text"), &config, bert);
            let scope = root.at("heads").at(Target::Multimodal.name());
            let head = Head::new(&scope, width, config.multimodal_features, config.multimodal_dropout);
            heads.insert(Target::Multimodal, head);
            text
        });
        Self { config, text, encoders, layers, heads }
    }

    /// The supplementary modalities that this model has.
    pub fn modalities(&self) -> impl Iterator<Item = Modality> {
        self.encoders.keys().copied()
    }

    /// Width of F_u of each head.
    pub fn feature_widths(&self) -> BTreeMap<Target, i64> {
        self.heads.iter().map(|(u, head)| (*u, head.features())).collect()
    }

    /// Checks that the model can read this batch.
    ///
    /// # Errors
    /// [`Error::Batch`] for a part that is missing or of another width, or tokens without an embedding.
    pub fn check(&self, batch: &Batch) -> Result<()> {
        if let Some(encoder) = &self.text {
            let Some(text) = &batch.text else {
                return Err(Error::Batch("the batch has no text, the model needs it".into()));
            };
            encoder.check(text)?;
        }
        for &modality in self.encoders.keys() {
            let (name, Shape { input: width, .. }) = (modality.name(), sizes(modality, &self.config).0);
            match frames(batch, modality) {
                None => {
                    return Err(Error::Batch(format!(
                        "the batch has no {name}, the model was built for {name} {width} wide ({name}_dim)"
                    )));
                }
                Some(frames) if frames.frames.size()[1] != width => {
                    return Err(Error::Batch(format!(
                        "{name} must be {width} wide ({name}_dim), got {}",
                        frames.frames.size()[1]
                    )));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Whether a forward pass looks up text features that were computed before.
    pub fn looks_up_features(&self) -> bool {
        self.config.freeze_text.layers().is_some()
    }

    /// To be called where weights were set from outside.
    pub fn weights_changed(&self) {
        if let Some(text) = &self.text {
            text.weights_changed();
        }
    }

    /// Scores, features and every stream of a batch that [`Model::check`] admits.
    pub fn forward(&self, batch: &Batch, wanted: Wanted, noise: &Noise) -> Forward {
        // The score is y_m, which with a SAG stack reads the text-led streams alone.
        let unimodal = wanted == Wanted::Everything || !self.config.has_gate_fusion();
        let last = self.layers.len() - 1;

        let text = self.encode_text(batch, noise); // X_t^0: (3) (4)
        let mut x = self.encode(batch, text.as_ref(), noise); // X_n^0 and X_f^0 = X_t^0: (1) (2) (4)
        let mut layers = vec![];
        for (i, layer) in self.layers.iter().enumerate() {
            let outputs = layer.forward(&x, unimodal || i < last, noise); // X^i from X^{i-1}: (7) to (23)
            x = outputs.iter().map(|(f, stream)| (*f, stream.output.clone())).collect();
            layers.push(outputs);
        }
        let z = self.pool(text.as_ref(), &x); // z_u
        let calls = z.into_iter().map(|(u, z)| (u, (&self.heads[&u], z)));
        let heads = together(calls, |calls| Head::forward(calls, noise)); // F_u, y_u: (27) (28)
        Forward { heads, layers }
    }

    /// Probabilities of the cross-attention (21) without dropout, by layer and text-led stream: one
    /// `(heads, T_t, T_n)` an utterance of a batch that [`Model::check`] admits; none without a SAG stack.
    pub fn attention_maps(&self, batch: &Batch) -> Vec<Streams<Vec<Tensor>>> {
        let noise = Noise::off();
        let mut x = self.encode(batch, self.encode_text(batch, &noise).as_ref(), &noise);
        let maps = self.layers.iter().map(|layer| {
            let outputs = layer.forward(&x, true, &noise);
            let before = std::mem::replace(&mut x, outputs.into_iter().map(|(f, s)| (f, s.output)).collect());
            layer.attention_maps(&before)
        });
        maps.collect()
    }

    /// X_t^0, where the model reads text.
    fn encode_text(&self, batch: &Batch, noise: &Noise) -> Option<Ragged> {
        Some(self.text.as_ref()?.forward(batch.text.as_ref()?, noise))
    }

    /// X_n^0 of audio and vision, and X_f^0 = X_t^0 of each text-led stream.
    fn encode(&self, batch: &Batch, text: Option<&Ragged>, noise: &Noise) -> Streams<Ragged> {
        let input = |n| frames(batch, n).expect("check() admits no batch without it");
        let calls = self.encoders.iter().map(|(n, encoder)| (Stream::Unimodal(*n), (encoder, input(*n))));
        let mut x = together(calls, |calls| SequenceEncoder::forward(calls, noise));
        if let (Some(text), true) = (text, self.config.has_gate_fusion()) {
            x.extend(self.modalities().map(|n| (Stream::TextLed(n), text.clone())));
        }
        x
    }

    /// z_u, the input of each head, `(B, width)`: z_n = pool(X_n^L), and z_m = concat(pool(X_ta^L), pool(X_tv^L)), or
    /// concat(pool(X_t^0), z_a, z_v) without a SAG stack.
    fn pool(&self, text: Option<&Ragged>, x: &Streams<Ragged>) -> BTreeMap<Target, Tensor> {
        let how = |f: Stream| if f.is_text_led() { self.config.pooling } else { Pooling::Mean };
        let pooled = together(x.iter().map(|(f, x)| (*f, (x, how(*f)))), pools);
        let (mut z, mut z_m) = (BTreeMap::new(), vec![]);
        for (f, pooled) in pooled {
            match f {
                Stream::Unimodal(n) => _ = z.insert(Target::Unimodal(n), pooled),
                Stream::TextLed(_) => z_m.push(pooled),
            }
        }
        if let (Some(text), true) = (text, z_m.is_empty()) {
            z_m = std::iter::once(pool(text, self.config.pooling))
                .chain(z.values().map(Tensor::shallow_clone))
                .collect();
        }
        if text.is_some() {
            z.insert(Target::Multimodal, Tensor::cat(&z_m, 1));
        }
        z
    }
}

/// The frames of a modality.
fn frames(batch: &Batch, modality: Modality) -> Option<&Ragged> {
    match modality {
        Modality::Audio => batch.audio.as_ref(),
        Modality::Vision => batch.vision.as_ref(),
    }
}

/// Widths of a modality's encoder, width of its head's features, and that head's dropout.
fn sizes(modality: Modality, config: &ModelConfig) -> (Shape, i64, f64) {
    let (input, hidden, kernel, features, dropout) = match modality {
        Modality::Audio => (
            config.audio_dim,
            config.audio_hidden,
            config.audio_kernel,
            config.audio_features,
            config.audio_dropout,
        ),
        Modality::Vision => (
            config.vision_dim,
            config.vision_hidden,
            config.vision_kernel,
            config.vision_features,
            config.vision_dropout,
        ),
    };
    (Shape { input, hidden, d_model: config.d_model, kernel }, features, dropout)
}
