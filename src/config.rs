//! Plain data: what a model is made of and how it is trained, with presets and validation beside it.
//!
//! `docs/model.md` explains the fields of a model.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The type of numbers that the text encoder's products on a device read. Weights, sums and all else are float32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    Float32,
    Bf16,
}

/// How the text-led streams become one vector an utterance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    Mean,
    First,
}

/// The full model or one of the paper's ablations (Table 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Variant {
    Full,
    /// Without similarity and difference losses.
    NoMrm,
    /// Without any gate, hence without control vectors.
    NoMfm,
    /// Without the SAG stack: heads see the encoded text and the two unimodal streams.
    NoGateFusion,
}

/// How much of a text encoder is not trained: nothing, its embeddings, those and some of its first layers, or
/// all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "must be false, true, \"embeddings\" or a number of layers")]
pub enum FreezeText {
    Whole(bool),
    Layers(usize),
    Part(FrozenPart),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FrozenPart {
    Embeddings,
}

impl Default for FreezeText {
    fn default() -> Self {
        Self::Whole(false)
    }
}

impl FreezeText {
    /// How many layers are frozen together with the embeddings; `None` where nothing is.
    pub fn layers(self) -> Option<usize> {
        match self {
            Self::Whole(false) => None,
            Self::Whole(true) => Some(usize::MAX),
            Self::Layers(count) => Some(count),
            Self::Part(FrozenPart::Embeddings) => Some(0),
        }
    }
}

/// Shape and behaviour of the model.
#[allow(clippy::struct_excessive_bools)] // the fields of a configuration
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    pub text_dim: i64,
    pub audio_dim: i64,
    pub vision_dim: i64,
    pub d_model: i64,
    pub num_heads: i64,
    pub num_layers: i64,
    pub text_kernel: i64,
    pub audio_kernel: i64,
    pub vision_kernel: i64,
    pub audio_hidden: i64,
    pub vision_hidden: i64,
    pub multimodal_features: i64,
    pub audio_features: i64,
    pub vision_features: i64,
    pub multimodal_dropout: f64,
    pub audio_dropout: f64,
    pub vision_dropout: f64,
    pub attn_dropout: f64,
    pub residual_dropout: f64,
    pub embed_dropout: f64,
    pub pooling: Pooling,
    pub variant: Variant,
    pub alpha: f64,
    pub beta: f64,
    pub diff_normalize: bool,
    pub label_bound: f64,
    pub exclude_zero: bool,
    #[serde(default)]
    pub freeze_text: FreezeText,
    /// Whether LSTM and convolution of audio, and of vision, are not trained.
    #[serde(default)]
    pub freeze_audio: bool,
    #[serde(default)]
    pub freeze_vision: bool,
}

/// How the gradients of `accumulate` micro-batches become one optimiser step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccumulateMode {
    Sum,
    Mean,
}

/// Which utterances of a shuffled split share a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BatchOrder {
    /// Those that follow each other in the shuffled order.
    #[default]
    Faithful,
    /// Utterances of one optimiser step, sorted by length.
    Window,
    /// Utterances of many steps, sorted by length.
    Buckets,
}

/// What the unimodal heads are trained on: pseudo-labels, or the labels that people gave to each modality.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnimodalLabels {
    #[default]
    Generated,
    Human,
}

/// Adam with decay coupled into the gradient, or `AdamW` with decoupled decay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OptimizerKind {
    Adam,
    Adamw,
}

/// How the model is trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    pub batch_size: i64,
    pub accumulate: i64,
    #[serde(default)]
    pub order: BatchOrder,
    pub accumulate_mode: AccumulateMode,
    /// With several processes: whether similarity and difference losses are over the micro-batches of all.
    #[serde(default)]
    pub gather_losses: bool,
    #[serde(default)]
    pub unimodal_labels: UnimodalLabels,
    pub lr_text: f64,
    pub lr_audio: f64,
    pub lr_vision: f64,
    pub lr_other: f64,
    pub decay_text: f64,
    pub decay_audio: f64,
    pub decay_vision: f64,
    pub decay_other: f64,
    pub optimizer: OptimizerKind,
    pub patience: i64,
    pub seed: u64,
}

impl ModelConfig {
    /// Whether the model has text at its centre. A model without reads a single modality, for comparison.
    pub fn has_text(&self) -> bool {
        self.text_dim > 0
    }

    /// Whether the fusion layers carry gates, and with them control vectors.
    pub fn has_gates(&self) -> bool {
        self.variant != Variant::NoMfm
    }

    /// Whether the text-led SAG stack exists.
    pub fn has_gate_fusion(&self) -> bool {
        self.has_text() && self.variant != Variant::NoGateFusion
    }

    /// Weights alpha and beta of the similarity and difference losses: zero in every variant but the full model.
    pub fn loss_weights(&self) -> (f64, f64) {
        match self.variant {
            Variant::Full => (self.alpha, self.beta),
            _ => (0.0, 0.0),
        }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`Error::Config`] that names the field, what it may be and what it was.
    pub fn validate(&self) -> Result<()> {
        for (name, value) in
            [("text_dim", self.text_dim), ("audio_dim", self.audio_dim), ("vision_dim", self.vision_dim)]
        {
            require(value >= 0, name, "a width, or 0 to leave the modality out", value)?;
            require_possible(name, value)?;
        }
        for (name, value) in [
            ("d_model", self.d_model),
            ("num_heads", self.num_heads),
            ("num_layers", self.num_layers),
            ("audio_hidden", self.audio_hidden),
            ("vision_hidden", self.vision_hidden),
            ("multimodal_features", self.multimodal_features),
            ("audio_features", self.audio_features),
            ("vision_features", self.vision_features),
        ] {
            require(value >= 1, name, "at least 1", value)?;
            require_possible(name, value)?;
        }
        for (name, value) in [
            ("text_kernel", self.text_kernel),
            ("audio_kernel", self.audio_kernel),
            ("vision_kernel", self.vision_kernel),
        ] {
            require(value >= 1 && value % 2 == 1, name, "odd, so that the length stays the same", value)?;
            require_possible(name, value)?;
        }
        for (name, value) in [
            ("multimodal_dropout", self.multimodal_dropout),
            ("audio_dropout", self.audio_dropout),
            ("vision_dropout", self.vision_dropout),
            ("attn_dropout", self.attn_dropout),
            ("residual_dropout", self.residual_dropout),
            ("embed_dropout", self.embed_dropout),
        ] {
            require((0.0..1.0).contains(&value), name, "in [0, 1)", value)?;
        }
        for (name, value) in [("alpha", self.alpha), ("beta", self.beta)] {
            require(value.is_finite() && value >= 0.0, name, "finite and at least 0", value)?;
        }
        require(
            self.label_bound.is_finite() && self.label_bound > 0.0,
            "label_bound",
            "finite and above 0",
            self.label_bound,
        )?;
        if self.d_model % self.num_heads != 0 {
            return Err(Error::Config(format!(
                "d_model must be a multiple of num_heads, got d_model={} and num_heads={}",
                self.d_model, self.num_heads
            )));
        }
        if !self.has_text() && (self.audio_dim > 0) == (self.vision_dim > 0) {
            return Err(Error::Config(format!(
                "text is the centre of the model: text_dim=0 is the control of one modality alone and needs \
                 exactly one of audio_dim and vision_dim above 0, got audio_dim={} and vision_dim={}",
                self.audio_dim, self.vision_dim
            )));
        }
        Ok(())
    }
}

impl TrainConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// [`Error::Config`] that names the field, what it may be and what it was.
    pub fn validate(&self) -> Result<()> {
        for (name, value) in
            [("batch_size", self.batch_size), ("accumulate", self.accumulate), ("patience", self.patience)]
        {
            require(value >= 1, name, "at least 1", value)?;
        }
        for (name, value) in [
            ("lr_text", self.lr_text),
            ("lr_audio", self.lr_audio),
            ("lr_vision", self.lr_vision),
            ("lr_other", self.lr_other),
            ("decay_text", self.decay_text),
            ("decay_audio", self.decay_audio),
            ("decay_vision", self.decay_vision),
            ("decay_other", self.decay_other),
        ] {
            require(value.is_finite() && value >= 0.0, name, "finite and at least 0", value)?;
        }
        Ok(())
    }
}

/// Refuses a size so large that a weight with three such axes would have more elements than an `i64` counts.
///
/// # Errors
/// [`Error::Config`] that names the field.
pub fn require_possible(name: &str, size: i64) -> Result<()> {
    require(size <= 1_000_000, name, "at most a million", size)
}

fn require(ok: bool, name: &str, expected: &str, got: impl std::fmt::Display) -> Result<()> {
    if ok { Ok(()) } else { Err(Error::Config(format!("{name} must be {expected}, got {got}"))) }
}

/// Names that [`preset`] knows.
pub const PRESETS: [&str; 6] = ["mosi", "mosi-mmsa", "mosei", "mosei-mmsa", "sims", "simsv2"];

/// The published hyper-parameters by name: those of Self-MM's own repository (`mosi`, `mosei`), MMSA's set
/// (`mosi-mmsa`, `mosei-mmsa`, `simsv2`) and what both agree on (`sims`). Widths are those of MMSA's feature files.
///
/// # Errors
/// [`Error::Config`] that lists the names, where `name` is none of them.
pub fn preset(name: &str) -> Result<(ModelConfig, TrainConfig)> {
    let (mosi_model, mosi_train) = mosi();
    let mosei_model = ModelConfig {
        audio_dim: 74,
        vision_dim: 35,
        vision_kernel: 1,
        audio_hidden: 32,
        vision_hidden: 32,
        vision_features: 16,
        multimodal_dropout: 0.0,
        audio_dropout: 0.0,
        vision_dropout: 0.1,
        alpha: 0.8,
        beta: 0.3,
        ..mosi_model.clone()
    };
    let mosei_train = TrainConfig {
        lr_audio: 5e-3,
        lr_vision: 1e-4,
        decay_audio: 0.0,
        decay_vision: 0.0,
        decay_other: 1e-2,
        ..mosi_train.clone()
    };
    let sims_model = ModelConfig {
        audio_dim: 33,
        vision_dim: 709,
        audio_hidden: 16,
        multimodal_dropout: 0.0,
        vision_dropout: 0.0,
        label_bound: 1.0,
        ..mosi_model.clone()
    };
    match name {
        "mosi" => Ok((mosi_model, mosi_train)),
        "mosi-mmsa" => Ok((
            ModelConfig {
                audio_hidden: 16,
                vision_hidden: 32,
                multimodal_dropout: 0.0,
                audio_dropout: 0.1,
                vision_dropout: 0.0,
                ..mosi_model
            },
            TrainConfig { batch_size: 16, lr_audio: 5e-3, lr_vision: 5e-3, decay_audio: 1e-3, ..mosi_train },
        )),
        "mosei" => Ok((mosei_model, mosei_train)),
        "mosei-mmsa" => Ok((
            ModelConfig {
                audio_hidden: 16,
                vision_hidden: 32,
                vision_features: 32,
                multimodal_dropout: 0.1,
                audio_dropout: 0.0,
                vision_dropout: 0.0,
                ..mosei_model
            },
            mosei_train,
        )),
        "sims" => Ok((
            sims_model,
            TrainConfig { lr_audio: 5e-3, lr_vision: 5e-3, decay_vision: 1e-2, ..mosi_train },
        )),
        "simsv2" => Ok((
            ModelConfig { audio_dim: 25, vision_dim: 177, audio_features: 32, ..sims_model },
            TrainConfig {
                batch_size: 16,
                lr_vision: 1e-3,
                decay_text: 1e-2,
                decay_audio: 0.0,
                decay_vision: 0.0,
                ..mosi_train
            },
        )),
        _ => Err(Error::Config(format!("unknown preset {name:?}: expected one of {}", PRESETS.join(", ")))),
    }
}

/// The preset `mosi`, from which the others differ.
fn mosi() -> (ModelConfig, TrainConfig) {
    let model = ModelConfig {
        text_dim: 768,
        audio_dim: 5,
        vision_dim: 20,
        d_model: 50,
        num_heads: 5,
        num_layers: 3,
        text_kernel: 1,
        audio_kernel: 1,
        vision_kernel: 3,
        audio_hidden: 32,
        vision_hidden: 64,
        multimodal_features: 128,
        audio_features: 16,
        vision_features: 32,
        multimodal_dropout: 0.1,
        audio_dropout: 0.1,
        vision_dropout: 0.1,
        attn_dropout: 0.1,
        residual_dropout: 0.1,
        embed_dropout: 0.0,
        pooling: Pooling::Mean,
        variant: Variant::Full,
        alpha: 0.3,
        beta: 0.1,
        diff_normalize: true,
        label_bound: 3.0,
        exclude_zero: true,
        freeze_text: FreezeText::default(),
        freeze_audio: false,
        freeze_vision: false,
    };
    let train = TrainConfig {
        batch_size: 32,
        accumulate: 4,
        accumulate_mode: AccumulateMode::Sum,
        gather_losses: false,
        unimodal_labels: UnimodalLabels::Generated,
        order: BatchOrder::Faithful,
        lr_text: 5e-5,
        lr_audio: 1e-3,
        lr_vision: 1e-4,
        lr_other: 1e-3,
        decay_text: 1e-3,
        decay_audio: 1e-2,
        decay_vision: 1e-3,
        decay_other: 1e-3,
        optimizer: OptimizerKind::Adam,
        patience: 8,
        seed: 1111,
    };
    (model, train)
}
