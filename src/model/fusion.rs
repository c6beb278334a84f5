//! A fusion layer: GateTransformers (7)-(12) for audio and vision, SAG-Transformers (15)-(23) for the
//! text-led streams. Streams that do not depend on each other run at the same time.

use tch::Tensor;

use super::layers::{MultiHeadAttention, linear};
use super::transformer::{Halfway, StreamOutput, Transformer};
use crate::config::ModelConfig;
use crate::ops::Linear;
use crate::ops::source_gate::source_gate;
use crate::params::Scope;
use crate::ragged::Ragged;
use crate::rng::Noise;

/// One modality's share of a layer.
pub struct FusionLayer {
    alone: Transformer,
    text_led: Option<SagTransformer>,
}

/// The text-led stream that reads this modality.
struct SagTransformer {
    self_attention: MultiHeadAttention,
    /// `None` in the variant without gates.
    source: Option<Linear>,
    body: Transformer,
}

/// The two streams of one modality between layers.
pub struct Streams {
    /// X_n
    pub alone: Ragged,
    /// X_f, where there is a SAG stack.
    pub text_led: Option<Ragged>,
}

pub struct LayerOutput {
    /// `None` in a last layer of which nothing but the text-led streams is wanted.
    pub alone: Option<StreamOutput>,
    pub text_led: Option<StreamOutput>,
}

impl FusionLayer {
    /// `alone` and `text_led` are where the two streams' parameters are declared.
    pub fn new(alone: &Scope, text_led: &Scope, config: &ModelConfig) -> Self {
        Self {
            alone: Transformer::new(alone, config),
            text_led: config.has_gate_fusion().then(|| SagTransformer::new(text_led, config)),
        }
    }

    /// From X^{i-1} to X^i, the layers and streams of all modalities together; of the modalities' own streams
    /// no more than the text-led ones read, unless `own`.
    pub fn forward(layers: &[&Self], streams: &[Streams], own: bool, noise: &Noise) -> Vec<LayerOutput> {
        let sags: Vec<&SagTransformer> = layers.iter().filter_map(|layer| layer.text_led.as_ref()).collect();
        let texts: Vec<&Ragged> = streams.iter().filter_map(|stream| stream.text_led.as_ref()).collect();
        let own_count = if own { layers.len() } else { 0 };
        let bodies = layers.iter().map(|l| &l.alone).take(own_count).chain(sags.iter().map(|sag| &sag.body));
        let x: Vec<&Ragged> = streams.iter().map(|s| &s.alone).chain(texts.iter().copied()).collect();
        let wanted = &x[layers.len() - own_count..];
        let pairs: Vec<(&Transformer, &Ragged)> = bodies.zip(wanted.iter().copied()).collect();

        let mut gates = Transformer::open_gates(&pairs).into_iter(); // (7) (8) (9), (16) (19) (20)
        let alone = layers.iter().map(|layer| &layer.alone.attention);
        let over_text = sags.iter().map(|sag| &sag.self_attention);
        let queries: Vec<_> = alone.chain(over_text).zip(x.iter().copied()).collect();
        let mut attended = MultiHeadAttention::over_themselves(&queries, noise); // A (10), H (15)
        let h = attended.split_off(layers.len());

        let sources: Vec<Ragged> =
            streams.iter().zip(&attended).map(|(stream, a)| stream.alone.with(a.shallow_clone())).collect();
        let h: Vec<Ragged> = texts.iter().zip(h).map(|(text, h)| text.with(h)).collect();
        let gated = SagTransformer::gate(&sags, &sources); // S, g_s (17) (18)
        let crossings: Vec<_> = sags
            .iter()
            .zip(h.iter().zip(&gated))
            .map(|(sag, (h, (s, _)))| (&sag.body.attention, h, s))
            .collect();
        attended.truncate(own_count);
        if !crossings.is_empty() {
            attended.extend(MultiHeadAttention::over_sources(&crossings, noise)); // R (21)
        }

        let none = std::iter::repeat_with(|| None).take(own_count);
        let source = none.chain(gated.into_iter().map(|(_, gate)| gate));
        let halfway =
            pairs.into_iter().zip(attended).zip(source).map(|(((transformer, x), attended), source)| {
                Halfway { transformer, x, attended, gates: gates.next().flatten(), source }
            });
        let mut alone = Transformer::finish(halfway.collect(), noise); // (11) (12), (22) (23)
        let mut text_led = alone.split_off(own_count).into_iter();
        let mut alone = alone.into_iter();
        layers.iter().map(|_| LayerOutput { alone: alone.next(), text_led: text_led.next() }).collect()
    }

    /// Probabilities of the cross attention (21) without dropout, one `(heads, T_t, T_n)` an utterance, from
    /// the layer's inputs X_f^{i-1} and A; `None` without a SAG stack.
    pub fn attention_maps(&self, text_led: &Ragged, a: &Ragged) -> Option<Vec<Tensor>> {
        let sag = self.text_led.as_ref()?;
        let attended = MultiHeadAttention::over_themselves(&[(&sag.self_attention, text_led)], &Noise::off());
        let h = text_led.with(attended.into_iter().next()?); // H (15)
        let (s, _) = SagTransformer::gate(&[sag], std::slice::from_ref(a)).into_iter().next()?; // S (18)
        Some(sag.body.attention.probabilities(&h, &s))
    }
}

impl LayerOutput {
    /// What the next layer reads.
    ///
    /// # Panics
    /// Where there is no own stream.
    pub fn streams(&self) -> Streams {
        Streams {
            alone: self.alone.as_ref().expect("only a last layer has none").output.clone(),
            text_led: self.text_led.as_ref().map(|stream| stream.output.clone()),
        }
    }
}

impl SagTransformer {
    fn new(scope: &Scope, config: &ModelConfig) -> Self {
        let d = config.d_model;
        Self {
            self_attention: MultiHeadAttention::new(
                &scope.at("self_attention"),
                d,
                config.num_heads,
                config.attn_dropout,
            ),
            source: config.has_gates().then(|| linear(&scope.at("source"), d, d)),
            body: Transformer::new(scope, config),
        }
    }

    /// S and g_s of each source A; A itself in the variant without gates.
    fn gate(sags: &[&Self], sources: &[Ragged]) -> Vec<(Ragged, Option<Ragged>)> {
        let gates: Option<Vec<&Linear>> = sags.iter().map(|sag| sag.source.as_ref()).collect();
        match gates {
            Some(gates) if !gates.is_empty() => {
                let calls: Vec<_> = sources.iter().zip(gates).collect();
                let gated = source_gate(&calls);
                sources.iter().zip(gated).map(|(a, g)| (a.with(g.source), Some(a.with(g.gate)))).collect()
            }
            _ => sags.iter().zip(sources).map(|(_, a)| (a.clone(), None)).collect(),
        }
    }
}
