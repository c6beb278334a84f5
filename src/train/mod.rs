//! A model with its weights, and a training run over it.

mod clock;
pub mod optimizer;
pub mod round;
pub mod state;
mod step;

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

use crate::batch::{Batch, Labels};
use crate::config::{ModelConfig, Precision, TrainConfig, UnimodalLabels};
use crate::device::runs_on;
use crate::error::{Error, Result};
use crate::loss::{Losses, Targets};
use crate::model::encoder::bert::BertConfig;
use crate::model::{Forward, Modality, Model, Streams, Wanted};
use crate::params::{Builder, Params};
use crate::rng::Noise;
use crate::ulgm::{Shape, Ulgm};
use clock::Clock;
use optimizer::Optimizer;

/// How far a label may lie outside the bound: more than rounding to float32 and back can move it.
const LABEL_SLACK: f64 = 1e-4;

/// A model, its weights, and the current or last training run.
pub struct Trainer {
    model: Model,
    params: Params,
    kind: Kind,
    device: Device,
    run: Option<Run>,
}

/// The state of a training run between steps.
pub struct Run {
    config: TrainConfig,
    optimizer: Optimizer,
    ulgm: Option<Ulgm>,
    /// From 1.
    epoch: i64,
    /// Micro-batches so far, the address of dropout.
    step: u32,
    /// Micro-batches whose gradients wait for the optimiser.
    pending: i64,
    best: Option<Tensor>,
    clock: Clock,
    /// In a round that several processes share: the place of this process's micro-batch, from 0, and that
    /// micro-batch.
    place: u32,
    share: Option<Share>,
}

/// A process's micro-batch of a round between forward and backward.
struct Share {
    forward: Forward,
    targets: Targets,
}

impl Trainer {
    /// A model with initial weights drawn from `seed`; a text encoder's weights are to be loaded.
    ///
    /// # Errors
    /// [`Error::Config`] for a field out of range.
    pub fn new(
        config: ModelConfig,
        bert: Option<BertConfig>,
        seed: u64,
        kind: Kind,
        device: Device,
        precision: Precision,
    ) -> Result<Self> {
        config.validate()?;
        if precision == Precision::Bf16 && (kind != Kind::Float || !runs_on(device)) {
            return Err(Error::Config(
                "precision=\"bf16\" needs device=\"cuda\" and dtype=\"float32\"".into(),
            ));
        }
        if let Some(bert) = &bert {
            bert.validate()?;
            if bert.hidden_size != config.text_dim {
                return Err(Error::Config(format!(
                    "text_dim must be the text encoder's width, {}, got {}",
                    bert.hidden_size, config.text_dim
                )));
            }
        }
        let builder = Builder::new(seed, kind, device, precision);
        let model = Model::new(&builder, config, bert);
        Ok(Self { model, params: builder.finish(), kind, device, run: None })
    }

    /// A forward pass without dropout or gradients.
    ///
    /// # Errors
    /// [`Error::Batch`] where the batch does not fit the model.
    pub fn forward(&self, batch: &Batch, wanted: Wanted) -> Result<Forward> {
        self.model.check(batch)?;
        let _no_grad = tch::no_grad_guard();
        Ok(self.model.forward(batch, wanted, &Noise::off()))
    }

    /// [`Model::attention_maps`].
    ///
    /// # Errors
    /// [`Error::Batch`] where the batch does not fit the model.
    pub fn attention_maps(&self, batch: &Batch) -> Result<Vec<Streams<Vec<Tensor>>>> {
        self.model.check(batch)?;
        let _no_grad = tch::no_grad_guard();
        Ok(self.model.attention_maps(batch))
    }

    /// [`Losses::values`] of a batch without dropout.
    ///
    /// # Errors
    /// [`Error::Batch`] where the batch does not fit the model or has no usable labels.
    pub fn losses(&self, batch: &Batch) -> Result<Tensor> {
        let targets = self.targets(batch)?;
        let forward = self.forward(batch, Wanted::Everything)?;
        let _no_grad = tch::no_grad_guard();
        Ok(Losses::of(&forward, &targets, &self.model.config).values)
    }

    /// Gradients of the total loss of a batch without dropout, by parameter name.
    ///
    /// # Errors
    /// As [`Trainer::losses`].
    pub fn gradients(&mut self, batch: &Batch) -> Result<Vec<(String, Tensor)>> {
        self.model.check(batch)?;
        let targets = self.targets(batch)?;
        let forward = self.model.forward(batch, Wanted::Everything, &Noise::off());
        let losses = Losses::of(&forward, &targets, &self.model.config);
        Ok(self.params.gradients(&losses.total))
    }

    /// Starts a run over `samples` training utterances from the present weights. `samples` may be unknown
    /// where no pseudo-labels are kept.
    ///
    /// # Errors
    /// [`Error::Config`] for a field out of range, [`Error::State`] where ULGM needs the number of samples.
    pub fn begin_training(&mut self, samples: Option<i64>, config: TrainConfig) -> Result<()> {
        config.validate()?;
        let ulgm = if self.keeps_pseudo_labels() && config.unimodal_labels == UnimodalLabels::Generated {
            let samples = samples.filter(|n| *n > 0).ok_or_else(|| {
                Error::State("pseudo-labels need the number of training utterances, at least 1".into())
            })?;
            let ModelConfig { label_bound, exclude_zero, .. } = self.model.config;
            let widths = self.model.feature_widths();
            let shape = Shape { samples, widths, kind: self.kind, device: self.device };
            Some(Ulgm::new(&shape, label_bound, exclude_zero))
        } else {
            None
        };
        let _ = self.params.grad.zero_();
        self.run = Some(Run {
            optimizer: Optimizer::new(&self.params, &config),
            config,
            ulgm,
            epoch: 0,
            step: 0,
            pending: 0,
            best: None,
            clock: Clock::new(self.device),
            place: 0,
            share: None,
        });
        Ok(())
    }

    /// Changes learning rates and decays from the optimiser's next step on. The other fields of `config` must be those
    /// of the run.
    ///
    /// # Errors
    /// [`Error::Config`] for a field out of range, [`Error::State`] where no run was started.
    pub fn set_rates(&mut self, config: TrainConfig) -> Result<()> {
        config.validate()?;
        let run = self.run_mut()?;
        run.optimizer.set_rates(&config);
        run.config = config;
        Ok(())
    }

    /// Whether training this model on generated labels needs dataset indices.
    pub fn keeps_pseudo_labels(&self) -> bool {
        self.model.config.has_text() && self.model.modalities().next().is_some()
    }

    /// Pseudo-labels of the current or last run by dataset index.
    pub fn pseudo_labels(&self) -> Option<BTreeMap<Modality, Tensor>> {
        Some(self.run.as_ref()?.ulgm.as_ref()?.all_pseudo_labels())
    }

    /// Remembers the present weights as the best of the run.
    ///
    /// # Errors
    /// [`Error::State`] where no run was started.
    pub fn keep_best(&mut self) -> Result<()> {
        let copy = self.params.flat.copy();
        self.run_mut()?.best = Some(copy);
        Ok(())
    }

    /// Goes back to the weights that [`Trainer::keep_best`] remembered last, if any.
    ///
    /// # Errors
    /// [`Error::State`] where no run was started.
    pub fn restore_best(&mut self) -> Result<()> {
        if let Some(best) = self.run_mut()?.best.take() {
            self.params.flat.copy_(&best);
            self.params.weights_changed();
        }
        Ok(())
    }

    /// Names of the weights that are not trained.
    pub fn frozen(&self) -> Vec<String> {
        self.params.frozen().map(str::to_owned).collect()
    }

    /// A copy of every weight by name.
    pub fn state_dict(&self) -> Vec<(String, Tensor)> {
        self.params.state_dict()
    }

    /// Sets the weights whose names start with `prefix`, all or none.
    ///
    /// # Errors
    /// [`Error::Weights`] that lists what does not fit.
    pub fn load_state_dict(&mut self, state: &BTreeMap<String, Tensor>, prefix: &str) -> Result<()> {
        self.params.load_state_dict(state, prefix)?;
        self.model.weights_changed();
        Ok(())
    }

    /// Labels of a batch and those that its unimodal heads are trained on: of people, or pseudo-labels of the run for
    /// samples that it has seen, else the labels.
    fn targets(&self, batch: &Batch) -> Result<Targets> {
        let y_m = self.check_labels(batch)?.values.shallow_clone();
        let weights = batch.weights.as_ref().map(|weights| weights.values.shallow_clone());
        if let Some(human) = self.human_labels(batch)? {
            return Ok(Targets { y_m, y_n: human, weights });
        }
        let ulgm = self.run.as_ref().and_then(|run| run.ulgm.as_ref());
        let y_n = match (&batch.index, ulgm) {
            (Some(index), Some(ulgm)) => {
                check_range(&index.values, ulgm.samples)?;
                ulgm.pseudo_labels(index, &y_m)
            }
            _ => self.model.modalities().map(|modality| (modality, y_m.shallow_clone())).collect(),
        };
        Ok(Targets { y_m, y_n, weights })
    }

    /// The labels of a batch, of which some have a weight.
    fn check_labels<'a>(&self, batch: &'a Batch) -> Result<&'a Labels> {
        if batch.weights.as_ref().is_some_and(|weights| weights.largest == 0.0) {
            return Err(Error::Batch(
                "the weights of all utterances of this batch are 0, so its loss has no mean: leave such utterances \
                 out, split.subset(...), or take larger batches"
                    .into(),
            ));
        }
        let Some(labels) = &batch.labels else {
            return Err(Error::Batch("the batch has no labels, the losses need them".into()));
        };
        self.check_bound(labels)
    }

    /// Labels that people gave to each modality, where the run trains unimodal heads on them.
    fn human_labels(&self, batch: &Batch) -> Result<Option<BTreeMap<Modality, Tensor>>> {
        let human = |run: &Run| run.config.unimodal_labels == UnimodalLabels::Human;
        if !self.model.config.has_text() || !self.run.as_ref().is_some_and(human) {
            return Ok(None);
        }
        let labels = self.model.modalities().map(|modality| {
            let name = modality.name();
            let labels = batch.unimodal_labels.get(name).ok_or_else(|| {
                Error::Batch(format!(
                    "unimodal_labels=\"human\" needs labels of {name} in every batch, beside the multimodal ones: \
                     train on data that has them, or with unimodal_labels=\"generated\""
                ))
            })?;
            Ok((modality, self.check_bound(labels)?.values.shallow_clone()))
        });
        labels.collect::<Result<_>>().map(Some)
    }

    fn check_bound<'a>(&self, labels: &'a Labels) -> Result<&'a Labels> {
        let bound = self.model.config.label_bound;
        if labels.largest > bound + LABEL_SLACK {
            return Err(Error::Batch(format!(
                "labels must lie in [-{bound}, {bound}] (label_bound), got one of magnitude {}: name the range of \
                 other labels by label_range=(low, high)",
                labels.largest
            )));
        }
        Ok(labels)
    }

    fn run_mut(&mut self) -> Result<&mut Run> {
        self.run.as_mut().ok_or_else(no_run)
    }
}

fn no_run() -> Error {
    Error::State("no training run: call begin_training first".into())
}

fn check_range(index: &[i64], samples: i64) -> Result<()> {
    match index.iter().find(|i| **i >= samples) {
        Some(i) => Err(Error::Batch(format!(
            "index {i} is out of range: the training set has {samples} utterances, 0 to {}",
            samples - 1
        ))),
        None => Ok(()),
    }
}
