//! M_t = BERT(words), (3), on packed tokens; Devlin et al. 2019, or RoBERTa's family, Liu et al. 2019; Hugging Face's
//! names, no pooler.
//!
//! Linear layers see true tokens only, attention stays within an utterance, positions count from an
//! utterance's first true token.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use serde::Deserialize;
use tch::Tensor;

use crate::config::{FreezeText, require_possible};
use crate::error::{Error, Result};
use crate::model::layers::linear;
use crate::ops::attention::{Attention, Qkv, attention};
use crate::ops::embedding::{Embedding, Places, Tokens, embedding};
use crate::ops::gated_norm::{GatedNorm, gated_norm};
use crate::ops::linear::{Activation, linear as apply_linear, linears};
use crate::ops::{LayerNorm, Linear, Weight};
use crate::params::{Init, Scope};
use crate::ragged::{Layout, Ragged};
use crate::rng::Noise;

/// Encoders that differ in the position of the first token.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    #[default]
    Bert,
    #[serde(alias = "xlm-roberta", alias = "camembert")]
    Roberta,
}

/// The fields of a `BertModel`'s or `RobertaModel`'s `config.json` that matter here.
#[derive(Clone, Debug, Deserialize)]
pub struct BertConfig {
    #[serde(default, rename = "model_type")]
    pub family: Family,
    pub pad_token_id: Option<i64>,
    pub vocab_size: i64,
    pub hidden_size: i64,
    pub num_hidden_layers: i64,
    pub num_attention_heads: i64,
    pub intermediate_size: i64,
    pub max_position_embeddings: i64,
    pub type_vocab_size: i64,
    pub hidden_act: HiddenAct,
    pub layer_norm_eps: f64,
    pub hidden_dropout_prob: f64,
    pub attention_probs_dropout_prob: f64,
}

/// Activations of the intermediate layer, under Hugging Face's names.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HiddenAct {
    Gelu,
    #[serde(alias = "gelu_pytorch_tanh")]
    GeluNew,
    Relu,
}

impl From<HiddenAct> for Activation {
    fn from(act: HiddenAct) -> Self {
        match act {
            HiddenAct::Gelu => Self::Gelu,
            HiddenAct::GeluNew => Self::GeluTanh,
            HiddenAct::Relu => Self::Relu,
        }
    }
}

impl BertConfig {
    /// The row of the table of positions that an utterance's first token reads: in RoBERTa's family the one after the
    /// padding's.
    fn first_position(&self) -> i64 {
        match self.family {
            Family::Bert => 0,
            Family::Roberta => self.pad_token_id.unwrap_or(1).saturating_add(1),
        }
    }

    /// Checks that the sizes make a model.
    ///
    /// # Errors
    /// [`Error::Config`] that names the field.
    pub fn validate(&self) -> Result<()> {
        for (name, size) in [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("intermediate_size", self.intermediate_size),
            ("max_position_embeddings", self.max_position_embeddings),
            ("type_vocab_size", self.type_vocab_size),
        ] {
            if size < 1 {
                return Err(Error::Config(format!("text encoder: {name} must be at least 1, got {size}")));
            }
            require_possible(name, size)?;
        }
        if !(0..self.max_position_embeddings).contains(&self.first_position()) {
            return Err(Error::Config(format!(
                "text encoder: pad_token_id + 1, the first position, must be below max_position_embeddings, got {} and {}",
                self.first_position(),
                self.max_position_embeddings
            )));
        }
        if self.hidden_size % self.num_attention_heads != 0 {
            return Err(Error::Config(format!(
                "text encoder: hidden_size must be a multiple of num_attention_heads, got {} and {}",
                self.hidden_size, self.num_attention_heads
            )));
        }
        for (name, p) in [
            ("hidden_dropout_prob", self.hidden_dropout_prob),
            ("attention_probs_dropout_prob", self.attention_probs_dropout_prob),
        ] {
            if !(0.0..1.0).contains(&p) {
                return Err(Error::Config(format!("text encoder: {name} must be in [0, 1), got {p}")));
            }
        }
        Ok(())
    }
}

/// Elements of frozen features that are kept at most: 2 GiB of float32.
const KEPT: usize = 1 << 29;

pub struct Bert {
    config: BertConfig,
    /// How many layers are frozen together with the embeddings; `None` where nothing is.
    frozen: Option<usize>,
    /// The frozen part's output for an utterance's tokens, `(T, hidden)`.
    kept: RefCell<HashMap<Vec<Places>, Tensor>>,
    word_embeddings: Weight,
    position_embeddings: Weight,
    token_type_embeddings: Weight,
    norm: LayerNorm,
    layers: Vec<BertLayer>,
}

impl Bert {
    pub fn new(scope: &Scope, config: BertConfig, freeze: FreezeText) -> Self {
        let frozen = freeze.layers();
        let embeddings = scope.at("embeddings").frozen(frozen.is_some());
        let layer = |i: i64| {
            let frozen = frozen.is_some_and(|count| (i as usize) < count);
            BertLayer::new(&scope.at("encoder").at("layer").at(i).frozen(frozen), &config)
        };
        let table =
            |name: &str, rows| embeddings.at(name).param("weight", &[rows, config.hidden_size], Init::Zeros);
        Self {
            word_embeddings: table("word_embeddings", config.vocab_size),
            position_embeddings: table("position_embeddings", config.max_position_embeddings),
            token_type_embeddings: table("token_type_embeddings", config.type_vocab_size),
            norm: norm(&embeddings.at("LayerNorm"), &config),
            layers: (0..config.num_hidden_layers).map(layer).collect(),
            frozen,
            kept: RefCell::default(),
            config,
        }
    }

    /// Checks that these tokens have embeddings.
    ///
    /// # Errors
    /// [`Error::Batch`] for an id, a segment or a position beyond the tables.
    pub fn check(&self, layout: &Layout, largest_id: i64, largest_segment: i64) -> Result<()> {
        let longest = layout.lengths.iter().max().copied().unwrap_or(0);
        for (what, got, bound) in [
            ("token id", largest_id, self.config.vocab_size - 1),
            ("segment", largest_segment, self.config.type_vocab_size - 1),
            ("number of tokens", longest, self.config.max_position_embeddings - self.config.first_position()),
        ] {
            if got > bound {
                return Err(Error::Batch(format!(
                    "text_bert: the largest {what} is {got}, the text encoder knows up to {bound}: \
                     these tokens are another tokenizer's; without text_bert, raw_text is tokenized as the encoder \
                     reads it"
                )));
            }
        }
        Ok(())
    }

    /// Packed tokens to `(sum T, hidden)`.
    ///
    /// The frozen part runs as in evaluation, without dropout, and once for each utterance.
    pub fn forward(&self, tokens: &Arc<Tokens>, layout: &Arc<Layout>, noise: &Noise) -> Ragged {
        let Some(frozen) = self.frozen else { return self.run(0, self.embed(tokens, layout, noise), noise) };
        let frozen = frozen.min(self.layers.len());
        self.run(frozen, self.features(frozen, &tokens.places, layout), noise)
    }

    /// Forgets the features of utterances: the frozen part's weights have changed.
    pub fn forget(&self) {
        self.kept.borrow_mut().clear();
    }

    fn embed(&self, tokens: &Arc<Tokens>, layout: &Arc<Layout>, noise: &Noise) -> Ragged {
        let first = self.config.first_position();
        let weights = Embedding {
            words: &self.word_embeddings,
            positions: &self.position_embeddings.rows(first, self.config.max_position_embeddings - first),
            segments: &self.token_type_embeddings,
            norm: &self.norm,
            dropout: noise.dropout(self.config.hidden_dropout_prob),
        };
        Ragged { frames: embedding(tokens, &weights), layout: Arc::clone(layout) }
    }

    /// The layers from `first` on.
    fn run(&self, first: usize, x: Ragged, noise: &Noise) -> Ragged {
        self.layers[first..].iter().fold(x, |x, layer| layer.forward(&x, noise))
    }

    /// The output of the embeddings and the first `frozen` layers, computed only for utterances that are new.
    fn features(&self, frozen: usize, places: &[Places], layout: &Arc<Layout>) -> Ragged {
        let _no_grad = tch::no_grad_guard();
        let tokens = |b: usize| {
            let (first, length) = layout.span(b);
            places[first..first + length].to_vec()
        };
        let utterances: Vec<Vec<Places>> = (0..layout.batch_size()).map(tokens).collect();
        let mut kept = self.kept.borrow_mut();
        let mut new: Vec<&Vec<Places>> = utterances.iter().filter(|u| !kept.contains_key(*u)).collect();
        new.sort_unstable();
        new.dedup();
        let mut fresh = HashMap::new();
        if !new.is_empty() {
            let layout = Arc::new(Layout::new(new.iter().map(|u| u.len() as i64).collect()));
            let places = new.iter().flat_map(|u| u.iter().copied()).collect();
            let tokens = Arc::new(Tokens::new(places, layout.rows()));
            let mut x = self.embed(&tokens, &layout, &Noise::off());
            for layer in &self.layers[..frozen] {
                x = layer.forward(&x, &Noise::off());
            }
            // Copies, as a view would keep the memory of the whole batch.
            fresh = new.into_iter().cloned().zip(x.split().iter().map(Tensor::copy)).collect();
        }
        let frames = |u: &Vec<Places>| kept.get(u).or_else(|| fresh.get(u)).expect("kept or fresh");
        let frames = Tensor::cat(&utterances.iter().map(frames).collect::<Vec<_>>(), 0);
        if !fresh.is_empty() && kept.values().chain(fresh.values()).map(Tensor::numel).sum::<usize>() <= KEPT
        {
            kept.extend(fresh);
        }
        Ragged { frames, layout: Arc::clone(layout) }
    }
}

struct BertLayer {
    query: Linear,
    key: Linear,
    value: Linear,
    attention_output: Linear,
    attention_norm: LayerNorm,
    intermediate: Linear,
    output: Linear,
    output_norm: LayerNorm,
    config: BertConfig,
}

impl BertLayer {
    fn new(scope: &Scope, config: &BertConfig) -> Self {
        let (width, inner) = (config.hidden_size, config.intermediate_size);
        let (attention, output) = (scope.at("attention"), scope.at("output"));
        let projection = |name| linear(&attention.at("self").at(name), width, width);
        Self {
            query: projection("query"),
            key: projection("key"),
            value: projection("value"),
            attention_output: linear(&attention.at("output").at("dense"), width, width),
            attention_norm: norm(&attention.at("output").at("LayerNorm"), config),
            intermediate: linear(&scope.at("intermediate").at("dense"), width, inner),
            output: linear(&output.at("dense"), inner, width),
            output_norm: norm(&output.at("LayerNorm"), config),
            config: config.clone(),
        }
    }

    fn forward(&self, x: &Ragged, noise: &Noise) -> Ragged {
        let BertConfig { num_attention_heads, hidden_dropout_prob, attention_probs_dropout_prob, .. } =
            self.config;
        let projections = [&self.query, &self.key, &self.value];
        let qkv = linears(&projections.map(|weights| (&x.frames, weights, Activation::None)));
        let attended = attention(&[Attention {
            qkv: Qkv::Separate(&qkv[0], &qkv[1], &qkv[2]),
            queries: &x.layout,
            keys: &x.layout,
            heads: num_attention_heads,
            dropout: noise.dropout(attention_probs_dropout_prob),
        }]);
        let add_and_norm = |r: Tensor, x: &Ragged, norm| {
            let dropout = noise.dropout(hidden_dropout_prob);
            x.with(gated_norm(&[GatedNorm { r: &r, x, gates: None, norm, dropout }]).remove(0))
        };
        let attended = apply_linear(&attended[0], &self.attention_output, Activation::None);
        let y = add_and_norm(attended, x, &self.attention_norm);
        let inner = apply_linear(&y.frames, &self.intermediate, self.config.hidden_act.into());
        let out = apply_linear(&inner, &self.output, Activation::None);
        add_and_norm(out, &y, &self.output_norm)
    }
}

fn norm(scope: &Scope, config: &BertConfig) -> LayerNorm {
    LayerNorm {
        weight: scope.param("weight", &[config.hidden_size], Init::Ones),
        bias: scope.param("bias", &[config.hidden_size], Init::Zeros),
        eps: config.layer_norm_eps,
    }
}
