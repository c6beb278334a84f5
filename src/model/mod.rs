//! The graph of MMILN, read as the paper: encoders, L fusion layers, heads.
//!
//! Audio and vision are two branches that meet text in the SAG stack and each other only in the
//! multimodal head. A model may have both, one, or none of them; without text it is the control of one
//! modality alone (section 8).

pub mod encoder;
pub mod fusion;
pub mod head;
pub mod layers;
pub mod transformer;

use tch::Tensor;

use crate::batch::Batch;
use crate::config::{ModelConfig, Pooling};
use crate::error::{Error, Result};
use crate::ops::pooling::pools;
use crate::params::{Builder, Scope};
use crate::ragged::Ragged;
use crate::rng::Noise;
use encoder::audio_vision::{SequenceEncoder, Shape};
use encoder::bert::BertConfig;
use encoder::text::TextEncoder;
use fusion::{FusionLayer, LayerOutput, Streams};
use head::{Head, HeadOutput};
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

/// How much of a forward pass is wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// The model's score and what it depends on.
    Score,
    Everything,
}

/// What a forward pass computes.
pub struct Forward {
    /// y_m and F_m; `None` in the control of one modality alone.
    pub multimodal: Option<HeadOutput>,
    /// Empty where the score alone was wanted and does not come from one of them.
    pub branches: Vec<BranchOutput>,
}

pub struct BranchOutput {
    pub modality: Modality,
    pub head: HeadOutput,
    pub layers: Vec<LayerOutput>,
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
            last.and_then(|layer| layer.alone.as_ref()).and_then(control),
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

    /// Whether a forward pass looks features up that were computed before.
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
        let text = self.text.as_ref().zip(batch.text.as_ref()).map(|(e, text)| e.forward(text, noise)); // X_t^0
        // The score is the multimodal head's, which with a SAG stack reads the text-led streams alone.
        let own = wanted == Wanted::Everything || !self.config.has_gate_fusion();
        let layers = self.fuse(batch, text.as_ref(), own, noise);
        let outputs: Vec<&LayerOutput> = layers.iter().filter_map(|layers| layers.last()).collect();
        let (pooled, unimodal) = self.pool(text.as_ref(), &outputs);

        let multimodal = self.head.iter().map(|head| (head, Tensor::cat(&pooled, 1))); // (27)
        let branches = self.branches.iter().map(|branch| &branch.head).zip(unimodal); // (28)
        let mut heads = Head::forward(&multimodal.chain(branches).collect::<Vec<_>>(), noise).into_iter();
        let multimodal = self.head.as_ref().and_then(|_| heads.next());
        let branches = self.branches.iter().zip(layers).zip(heads);
        let branches =
            branches.map(|((b, layers), head)| BranchOutput { modality: b.modality, head, layers }).collect();
        Forward { multimodal, branches }
    }

    /// Probabilities of the cross attention (21) without dropout, by layer and modality, one
    /// `(heads, T_t, T_n)` an utterance of a batch that [`Model::check`] admits; none without a SAG stack.
    pub fn attention_maps(&self, batch: &Batch) -> Vec<(usize, Modality, Vec<Tensor>)> {
        let noise = Noise::off();
        let Some((encoder, text)) = self.text.as_ref().zip(batch.text.as_ref()) else { return vec![] };
        let x = encoder.forward(text, &noise); // X_t^0
        let mut maps = vec![];
        for (branch, outputs) in self.branches.iter().zip(self.fuse(batch, Some(&x), true, &noise)) {
            let mut x = &x;
            for (i, (layer, output)) in branch.layers.iter().zip(&outputs).enumerate() {
                let (Some(alone), Some(text_led)) = (&output.alone, &output.text_led) else { continue };
                let a = alone.output.with(alone.attention.shallow_clone());
                maps.extend(layer.attention_maps(x, &a).map(|maps| (i, branch.modality, maps)));
                x = &text_led.output; // X_f^i
            }
        }
        maps
    }

    /// The outputs of all layers, by branch.
    fn fuse(&self, batch: &Batch, text: Option<&Ragged>, own: bool, noise: &Noise) -> Vec<Vec<LayerOutput>> {
        if self.branches.is_empty() {
            return vec![];
        }
        let input = |b: &Branch| b.modality.of(batch).expect("check() admits no batch without it");
        let inputs: Vec<_> = self.branches.iter().map(|b| (&b.encoder, input(b))).collect();
        let text_led = text.filter(|_| self.config.has_gate_fusion()); // X_f^0 = X_t^0
        let mut streams: Vec<Streams> = SequenceEncoder::forward(&inputs, noise)
            .into_iter()
            .map(|alone| Streams { alone, text_led: text_led.cloned() }) // X_n^0
            .collect();
        let mut all: Vec<Vec<LayerOutput>> = self.branches.iter().map(|_| vec![]).collect();
        let last = self.config.num_layers as usize - 1;
        for i in 0..=last {
            let layers: Vec<&FusionLayer> = self.branches.iter().map(|b| &b.layers[i]).collect();
            let outputs = FusionLayer::forward(&layers, &streams, own || i < last, noise);
            if i < last {
                streams = outputs.iter().map(LayerOutput::streams).collect();
            }
            all.iter_mut().zip(outputs).for_each(|(all, output)| all.push(output));
        }
        all
    }

    /// What the multimodal head reads, to be put side by side, and what each branch's head reads, all `(B, d)`.
    fn pool(&self, text: Option<&Ragged>, outputs: &[&LayerOutput]) -> (Vec<Tensor>, Vec<Tensor>) {
        let own = outputs.iter().filter_map(|output| output.alone.as_ref());
        let own: Vec<_> = own.map(|stream| (&stream.output, Pooling::Mean)).collect();
        let text_led = outputs.iter().filter_map(|output| output.text_led.as_ref()).map(|s| &s.output);
        let mut text_led: Vec<_> = text_led.map(|stream| (stream, self.config.pooling)).collect();
        if text_led.is_empty() {
            // Without a SAG stack: the encoded text itself, beside each branch's own stream.
            text_led.extend(text.map(|text| (text, self.config.pooling)));
            let mut pooled = pools(&[text_led, own].concat());
            let unimodal = pooled[pooled.len() - outputs.len()..].iter().map(Tensor::shallow_clone).collect();
            if text.is_none() {
                pooled.clear();
            }
            return (pooled, unimodal);
        }
        let count = text_led.len();
        let mut pooled = pools(&[text_led, own].concat());
        let unimodal = pooled.split_off(count);
        (pooled, unimodal)
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
            FusionLayer::new(&scope.at(modality.name()), &scope.at(modality.text_led()), config)
        };
        Self {
            modality,
            width,
            encoder: SequenceEncoder::new(&root.at(modality.name()), &shape, config.embed_dropout),
            layers: (0..config.num_layers).map(layer).collect(),
            head: Head::new(&root.at("heads").at(modality.name()), config.d_model, features, dropout),
        }
    }
}
