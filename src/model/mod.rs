//! The graph of MMILN, read as the paper: encoders, L fusion layers, heads.
//!
//! Audio and vision are two branches that meet text in the SAG stack and each other only in the
//! multimodal head. A model may have both, one, or none of them; without text it is the control of one
//! modality alone (section 8).

pub mod encoder;
pub mod gate_transformer;
pub mod head;
pub mod layers;
pub mod sag_transformer;
pub mod transformer;

use tch::Tensor;

use crate::batch::Batch;
use crate::config::{ModelConfig, Pooling};
use crate::error::{Error, Result};
use crate::params::{Builder, Scope};
use crate::ragged::Ragged;
use crate::rng::Noise;
use encoder::audio_vision::{SequenceEncoder, Shape};
use encoder::bert::BertConfig;
use encoder::text::TextEncoder;
use gate_transformer::GateTransformer;
use head::{Head, HeadOutput};
use sag_transformer::SagTransformer;
use transformer::StreamOutput;

/// The modalities that supplement text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Modality {
    Audio,
    Vision,
}

impl Modality {
    pub const ALL: [Self; 2] = [Self::Audio, Self::Vision];
    pub fn name(self) -> &'static str {
        match self {
            Self::Audio => "audio",
            Self::Vision => "vision",
        }
    }

    /// Name of the text-led stream that reads this modality.
    pub fn text_led(self) -> &'static str {
        match self {
            Self::Audio => "text_audio",
            Self::Vision => "text_vision",
        }
    }

    fn of(self, batch: &Batch) -> Option<&Ragged> {
        match self {
            Self::Audio => batch.audio.as_ref(),
            Self::Vision => batch.vision.as_ref(),
        }
    }
}

/// The model's graph. Its tensors are the leaves that [`crate::params::Params`] holds.
pub struct Model {
    pub config: ModelConfig,
    text: Option<TextEncoder>,
    branches: Vec<Branch>,
    head: Option<Head>,
}

/// One supplementary modality: encoder, its two streams layer by layer, head.
struct Branch {
    modality: Modality,
    width: i64,
    encoder: SequenceEncoder,
    layers: Vec<FusionLayer>,
    head: Head,
}

struct FusionLayer {
    alone: GateTransformer,
    text_led: Option<SagTransformer>,
}

/// Everything that a forward pass computes.
pub struct Forward {
    /// y_m and F_m; `None` in the control of one modality alone.
    pub multimodal: Option<HeadOutput>,
    pub branches: Vec<BranchOutput>,
}

pub struct BranchOutput {
    pub modality: Modality,
    pub head: HeadOutput,
    pub layers: Vec<LayerOutput>,
}

pub struct LayerOutput {
    pub alone: StreamOutput,
    pub text_led: Option<StreamOutput>,
}

impl Forward {
    /// The model's score of each utterance, `(B,)`.
    pub fn score(&self) -> &Tensor {
        let head = self.multimodal.as_ref().unwrap_or_else(|| &self.branches[0].head);
        &head.score
    }
}

impl BranchOutput {
    /// Control vectors of the last layer, (the modality's own, the text-led stream's), `(B, d)` each.
    pub fn controls(&self) -> (Option<&Tensor>, Option<&Tensor>) {
        fn control(stream: &StreamOutput) -> Option<&Tensor> {
            stream.gates.as_ref().map(|g| &g.control)
        }
        let last = self.layers.last();
        (
            last.and_then(|layer| control(&layer.alone)),
            last.and_then(|layer| layer.text_led.as_ref()).and_then(control),
        )
    }
}

impl Model {
    /// Declares all parameters, names as in section 10.
    pub fn new(builder: &Builder, config: ModelConfig, bert: Option<BertConfig>) -> Self {
        let root = builder.root();
        let branches: Vec<Branch> = Modality::ALL
            .into_iter()
            .filter(|m| modality_width(*m, &config) > 0)
            .map(|modality| Branch::new(&root, modality, &config))
            .collect();
        let text = config.has_text().then(|| TextEncoder::new(&root.at("text"), &config, bert));
        let head = config.has_text().then(|| {
            // Concatenated: one text-led stream a branch; or X_t^0 and each branch's own stream.
            let pooled = if config.has_gate_fusion() { branches.len().max(1) } else { 1 + branches.len() };
            let width = config.d_model * i64::try_from(pooled).unwrap_or(i64::MAX);
            let scope = root.at("heads").at("multimodal");
            Head::new(&scope, width, config.multimodal_features, config.multimodal_dropout)
        });
        Self { config, text, branches, head }
    }

    /// The supplementary modalities that this model has, with the width of their head's features.
    pub fn modalities(&self) -> impl Iterator<Item = (Modality, i64)> {
        self.branches.iter().map(|branch| {
            let features = match branch.modality {
                Modality::Audio => self.config.audio_features,
                Modality::Vision => self.config.vision_features,
            };
            (branch.modality, features)
        })
    }

    /// Whether the model can read this batch.
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
        for Branch { modality, width, .. } in &self.branches {
            let name = modality.name();
            match modality.of(batch) {
                None => {
                    return Err(Error::Batch(format!(
                        "the batch has no {name}, the model was built for {name} {width} wide ({name}_dim)"
                    )));
                }
                Some(frames) if frames.frames.size()[1] != *width => {
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

    /// Scores, features and every stream of a batch that [`Model::check`] admits.
    pub fn forward(&self, batch: &Batch, noise: &Noise) -> Forward {
        let text = self.text.as_ref().zip(batch.text.as_ref()).map(|(e, text)| e.forward(text, noise)); // X_t^0
        let branches: Vec<BranchOutput> =
            self.branches.iter().map(|b| b.forward(batch, text.as_ref(), noise)).collect();
        let multimodal = self.head.as_ref().zip(text.as_ref()).map(|(head, text)| {
            let z = Tensor::cat(&self.pool(text, &branches), 1);
            head.forward(z, noise) // (27)
        });
        Forward { multimodal, branches }
    }

    /// What the multimodal head reads, `(B, d)` each.
    fn pool(&self, text: &Ragged, branches: &[BranchOutput]) -> Vec<Tensor> {
        let text_led = |stream: &Ragged| match self.config.pooling {
            Pooling::Mean => stream.mean(),
            Pooling::First => stream.first(),
        };
        let last = |branch: &BranchOutput| branch.layers.len() - 1;
        if !self.config.has_gate_fusion() || branches.is_empty() {
            let own = branches.iter().map(|b| b.layers[last(b)].alone.output.mean());
            return std::iter::once(text_led(text)).chain(own).collect();
        }
        branches
            .iter()
            .filter_map(|b| b.layers[last(b)].text_led.as_ref())
            .map(|stream| text_led(&stream.output))
            .collect()
    }
}

fn modality_width(modality: Modality, config: &ModelConfig) -> i64 {
    match modality {
        Modality::Audio => config.audio_dim,
        Modality::Vision => config.vision_dim,
    }
}

impl Branch {
    fn new(root: &Scope, modality: Modality, config: &ModelConfig) -> Self {
        let (hidden, kernel, features, dropout) = match modality {
            Modality::Audio => {
                (config.audio_hidden, config.audio_kernel, config.audio_features, config.audio_dropout)
            }
            Modality::Vision => {
                (config.vision_hidden, config.vision_kernel, config.vision_features, config.vision_dropout)
            }
        };
        let width = modality_width(modality, config);
        let shape = Shape { input: width, hidden, d_model: config.d_model, kernel };
        let layer = |i| {
            let scope = root.at("fusion").at(i);
            FusionLayer {
                alone: GateTransformer::new(&scope.at(modality.name()), config),
                text_led: config
                    .has_gate_fusion()
                    .then(|| SagTransformer::new(&scope.at(modality.text_led()), config)),
            }
        };
        Self {
            modality,
            width,
            encoder: SequenceEncoder::new(&root.at(modality.name()), &shape, config.embed_dropout),
            layers: (0..config.num_layers).map(layer).collect(),
            head: Head::new(&root.at("heads").at(modality.name()), config.d_model, features, dropout),
        }
    }

    fn forward(&self, batch: &Batch, text: Option<&Ragged>, noise: &Noise) -> BranchOutput {
        let input = self.modality.of(batch).expect("check() admits no batch without it");
        let mut x = self.encoder.forward(input, noise); // X_n^0
        let mut fused = text.cloned(); // X_f^0 = X_t^0
        let mut layers = Vec::with_capacity(self.layers.len());
        for layer in &self.layers {
            let alone = layer.alone.forward(&x, noise); // X_n^i, A = X_mh,n^i
            let a = x.with(alone.attention.shallow_clone());
            let text_led = layer.text_led.as_ref().zip(fused).map(|(sag, f)| sag.forward(&f, &a, noise)); // X_f^i
            x = alone.output.clone();
            fused = text_led.as_ref().map(|stream| stream.output.clone());
            layers.push(LayerOutput { alone, text_led });
        }
        let head = self.head.forward(x.mean(), noise); // (28)
        BranchOutput { modality: self.modality, head, layers }
    }
}
