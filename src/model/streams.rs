//! Names of modalities, streams and heads, and maps by these names.

use std::collections::BTreeMap;

/// n in {a, v}: the modalities that supplement text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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
}

/// The streams of a fusion layer: a, v, ta, tv.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stream {
    /// X_n: audio or vision by itself.
    Unimodal(Modality),
    /// X_f: text that attends to audio or vision, its source.
    TextLed(Modality),
}

impl Stream {
    /// The name in parameters and results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unimodal(modality) => modality.name(),
            Self::TextLed(Modality::Audio) => "text_audio",
            Self::TextLed(Modality::Vision) => "text_vision",
        }
    }

    /// The stream whose A (10) a text-led one reads; `None` for audio and vision.
    pub fn source(self) -> Option<Self> {
        match self {
            Self::Unimodal(_) => None,
            Self::TextLed(modality) => Some(Self::Unimodal(modality)),
        }
    }

    pub fn is_text_led(self) -> bool {
        self.source().is_some()
    }
}

/// u in {m, a, v}: what a head predicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    Multimodal,
    Unimodal(Modality),
}

impl Target {
    /// The name in parameters and results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Multimodal => "multimodal",
            Self::Unimodal(modality) => modality.name(),
        }
    }
}

/// A value for each stream that there is, in the order a, v, ta, tv.
pub type Streams<T> = BTreeMap<Stream, T>;

/// Calls an operation once for several streams, modalities or targets, which run at the same time; returns the
/// result of each.
pub fn together<K: Copy + Ord, C, R>(
    calls: impl IntoIterator<Item = (K, C)>,
    operation: impl FnOnce(&[C]) -> Vec<R>,
) -> BTreeMap<K, R> {
    let (names, calls): (Vec<K>, Vec<C>) = calls.into_iter().unzip();
    if calls.is_empty() { BTreeMap::new() } else { names.into_iter().zip(operation(&calls)).collect() }
}
