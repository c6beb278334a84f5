//! A fusion layer takes its streams from X^{i-1} to X^i: audio and vision through a GateTransformer each,
//! (7)-(12), text led by audio and text led by vision through a SAG-Transformer each, (13)-(23).
//!
//! ```text
//! GateTransformer(X)                         SAG-Transformer(X, A), A from the source's GateTransformer
//!   c    = c(X)                   (7)          H    = MHA(X, X, X)              (15)
//!   g_r  = sigmoid(W_r c + b_r)   (8)          c    = c(X)                      (16)
//!   g_c  = sigmoid(W_c c + b_c)   (9)          g_s  = sigmoid(W_s A + b_s)      (17)
//!   A    = MHA(X, X, X)           (10)         S    = g_s * A                   (18)
//!   Y    = LN(g_c * A + g_r * X)  (11)         g_r  = sigmoid(W_r c + b_r)      (19)
//!   X^i  = LN(Y + FFN(Y))         (12)         g_c  = sigmoid(W_c c + b_c)      (20)
//!                                              R    = MHA(H, S, S)              (21)
//!                                              Y    = LN(g_c * R + g_r * X)     (22)
//!                                              X^i  = LN(Y + FFN(Y))            (23)
//! ```
//!
//! Each step is one call of an operation for all streams, which run at the same time. The variant without
//! gates has neither c nor gates: every gate is 1.

use tch::Tensor;

use super::layers::{Gates, MultiHeadAttention, OpenGates, layer_norm, linear};
use super::streams::{Modality, Stream, Streams, together};
use crate::config::ModelConfig;
use crate::ops::feed_forward::{FeedForwardNorm, feed_forward_norm};
use crate::ops::gated_norm::{self, GatedNorm, gated_norm};
use crate::ops::source_gate::source_gate;
use crate::ops::{LayerNorm, Linear};
use crate::params::Scope;
use crate::ragged::Ragged;
use crate::rng::Noise;

/// The transformers of one layer; no two streams share weights.
#[derive(Default)]
pub struct FusionLayer {
    transformers: Streams<Transformer>,
    sags: Streams<Sag>,
}

/// The part that both transformers have.
struct Transformer {
    /// `None` in the variant without gates.
    gates: Option<Gates>,
    /// Computes A (10) or R (21).
    attention: MultiHeadAttention,
    norm1: LayerNorm,
    norm2: LayerNorm,
    linear1: Linear,
    linear2: Linear,
    residual_dropout: f64,
}

/// The part that only a SAG-Transformer has.
struct Sag {
    /// Computes H (15).
    self_attention: MultiHeadAttention,
    /// W_s and b_s (17); `None` in the variant without gates.
    source: Option<Linear>,
}

/// The result of a stream in one layer.
pub struct StreamOutput {
    /// X^i, `(sum T, d)`.
    pub output: Ragged,
    /// A (10) of audio and vision, R (21) of the text-led streams, `(sum T, d)`.
    pub attention: Ragged,
    /// `None` in the variant without gates.
    pub gates: Option<OpenGates>,
    /// g_s (17) of a text-led stream with gates, `(sum T, d)` over the frames of its source.
    pub source: Option<Ragged>,
}

impl FusionLayer {
    /// Declares the streams of a modality.
    pub fn add(&mut self, modality: Modality, scope: &Scope, config: &ModelConfig) {
        let (unimodal, text_led) = (Stream::Unimodal(modality), Stream::TextLed(modality));
        self.transformers.insert(unimodal, Transformer::new(&scope.at(unimodal.name()), config));
        if config.has_gate_fusion() {
            let scope = scope.at(text_led.name());
            self.sags.insert(text_led, Sag::new(&scope, config));
            self.transformers.insert(text_led, Transformer::new(&scope, config));
        }
    }

    /// X^i of each stream from X^{i-1} of all. Unless the `unimodal` streams are wanted, only their A (10) is
    /// computed, which the text-led streams read.
    pub fn forward(&self, x: &Streams<Ragged>, unimodal: bool, noise: &Noise) -> Streams<StreamOutput> {
        let is_wanted = |stream: &Stream| unimodal || stream.is_text_led();
        let wanted: Streams<&Ragged> = x.iter().filter(|(f, _)| is_wanted(f)).map(|(f, x)| (*f, x)).collect();

        let mut gates = self.gates(&wanted); // c = c(X), g_r, g_c: (7) (8) (9), (16) (19) (20)
        let (a, h) = self.self_attention(x, noise); // A = MHA(X, X, X): (10); H = MHA(X, X, X): (15)
        let (s, mut g_s) = self.gated_sources(&a); // S = g_s * A: (17) (18)
        let r = self.cross_attention(&h, &s, noise); // R = MHA(H, S, S): (21)
        let attended: Streams<Ragged> = a.into_iter().chain(r).filter(|(f, _)| is_wanted(f)).collect(); // A or R
        let y = self.gated_residual(&wanted, &attended, &gates, noise); // Y = LN(g_c * A + g_r * X): (11) (22)
        let output = self.feed_forward(&y, noise); // X^i = LN(Y + FFN(Y)): (12) (23)

        let named = output.into_iter().map(|(f, output)| {
            let (attention, gates, source) = (attended[&f].clone(), gates.remove(&f), g_s.remove(&f));
            (f, StreamOutput { output, attention, gates, source })
        });
        named.collect()
    }

    /// Probabilities of the cross-attention (21) of each text-led stream from X^{i-1} of all, without dropout:
    /// one `(heads, T_t, T_n)` an utterance.
    pub fn attention_maps(&self, x: &Streams<Ragged>) -> Streams<Vec<Tensor>> {
        let (a, h) = self.self_attention(x, &Noise::off()); // (10), (15)
        let (s, _) = self.gated_sources(&a); // (17) (18)
        h.iter().map(|(f, h)| (*f, self.transformers[f].attention.probabilities(h, &s[f]))).collect()
    }

    /// c, g_r and g_c of each stream; empty in the variant without gates.
    fn gates(&self, x: &Streams<&Ragged>) -> Streams<OpenGates> {
        let calls = x.iter().filter_map(|(f, x)| Some((*f, (self.transformers[f].gates.as_ref()?, *x))));
        together(calls, Gates::open)
    }

    /// A of audio and vision (10), H of the text-led streams (15).
    fn self_attention(&self, x: &Streams<Ragged>, noise: &Noise) -> (Streams<Ragged>, Streams<Ragged>) {
        let mha = |f| self.sags.get(f).map_or(&self.transformers[f].attention, |sag| &sag.self_attention);
        let calls = x.iter().map(|(f, x)| (*f, (mha(f), x)));
        let attended = together(calls, |calls| MultiHeadAttention::over_themselves(calls, noise));
        attended.into_iter().partition(|(f, _)| !f.is_text_led())
    }

    /// S = g_s * A (18) and g_s = sigmoid(W_s A + b_s) (17) of each text-led stream, where A is that of its source.
    /// In the variant without gates S = A, and there is no g_s.
    fn gated_sources(&self, a: &Streams<Ragged>) -> (Streams<Ragged>, Streams<Ragged>) {
        let read: Streams<&Ragged> = self.sags.keys().filter_map(|f| Some((*f, &a[&f.source()?]))).collect();
        let calls = self.sags.iter().filter_map(|(f, sag)| Some((*f, (read[f], sag.source.as_ref()?))));
        let gated = together(calls, source_gate);
        let s = read.iter().map(|(f, a)| match gated.get(f) {
            Some(gated) => (*f, a.with(gated.source.shallow_clone())),
            None => (*f, (*a).clone()),
        });
        (s.collect(), gated.iter().map(|(f, gated)| (*f, read[f].with(gated.gate.shallow_clone()))).collect())
    }

    /// R = MHA(H, S, S) (21) of each text-led stream: queries from its own frames, keys and values from its source.
    fn cross_attention(&self, h: &Streams<Ragged>, s: &Streams<Ragged>, noise: &Noise) -> Streams<Ragged> {
        let calls = h.iter().map(|(f, h)| (*f, (&self.transformers[f].attention, h, &s[f])));
        together(calls, |calls| MultiHeadAttention::over_sources(calls, noise))
    }

    /// Y = LN(g_c * dropout(A) + g_r * X) (11), and with R in the place of A (22); without gates LN(dropout(A) + X).
    fn gated_residual(
        &self,
        x: &Streams<&Ragged>,
        attended: &Streams<Ragged>,
        gates: &Streams<OpenGates>,
        noise: &Noise,
    ) -> Streams<Ragged> {
        let calls = attended.iter().map(|(f, r)| {
            let Transformer { norm1: norm, residual_dropout, .. } = &self.transformers[f];
            let gates =
                gates.get(f).map(|OpenGates { compound, retain, .. }| gated_norm::Gates { compound, retain });
            (*f, GatedNorm { r: &r.frames, x: x[f], gates, norm, dropout: noise.dropout(*residual_dropout) })
        });
        together(calls, gated_norm).into_iter().map(|(f, y)| (f, x[&f].with(y))).collect()
    }

    /// X^i = LN(Y + dropout(W_2 relu(W_1 Y + b_1) + b_2)), (12) and (23).
    fn feed_forward(&self, y: &Streams<Ragged>, noise: &Noise) -> Streams<Ragged> {
        let calls = y.iter().map(|(f, y)| {
            let Transformer { linear1, linear2, norm2: norm, residual_dropout, .. } = &self.transformers[f];
            (*f, FeedForwardNorm { y, linear1, linear2, norm, dropout: noise.dropout(*residual_dropout) })
        });
        together(calls, feed_forward_norm).into_iter().map(|(f, x)| (f, y[&f].with(x))).collect()
    }
}

impl Transformer {
    fn new(scope: &Scope, config: &ModelConfig) -> Self {
        let ModelConfig { d_model: d, num_heads, attn_dropout, residual_dropout, .. } = *config;
        let ffn = scope.at("ffn");
        Self {
            gates: config.has_gates().then(|| Gates::new(scope, d)),
            attention: MultiHeadAttention::new(&scope.at("attention"), d, num_heads, attn_dropout),
            norm1: layer_norm(&scope.at("norm1"), d),
            norm2: layer_norm(&scope.at("norm2"), d),
            linear1: linear(&ffn.at("linear1"), d, 4 * d),
            linear2: linear(&ffn.at("linear2"), 4 * d, d),
            residual_dropout,
        }
    }
}

impl Sag {
    fn new(scope: &Scope, config: &ModelConfig) -> Self {
        let ModelConfig { d_model: d, num_heads, attn_dropout, .. } = *config;
        Self {
            self_attention: MultiHeadAttention::new(&scope.at("self_attention"), d, num_heads, attn_dropout),
            source: config.has_gates().then(|| linear(&scope.at("source"), d, d)),
        }
    }
}
