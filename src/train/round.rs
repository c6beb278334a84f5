//! A step that several processes share. The micro-batches that they compute at the same time are a round; each
//! process has one of them, or none at the end of an epoch. Methods here return the data that the others need and
//! take theirs; `mmiln/training/parallel.py` exchanges them. All hold the same weights, moments and pseudo-labels.

use std::collections::BTreeMap;

use tch::Tensor;

use super::{Run, Share, Trainer, check_range, no_run};
use crate::batch::{Batch, Index};
use crate::error::{Error, Result};
use crate::loss::{Controls, Losses};
use crate::model::{Target, Wanted};
use crate::rng::Noise;
use crate::ulgm::Step;

/// The data of all micro-batches of a round that the losses of one of them read.
pub struct Others<'a> {
    /// Control vectors of the whole round, `(N, n d)`.
    pub controls: &'a Tensor,
    /// The first row that is this micro-batch's.
    pub start: i64,
    /// The micro-batch's share of the round's task loss.
    pub part: f64,
}

impl Trainer {
    /// Forward pass of this process's micro-batch, the `place`-th of the round, from 0. Returns its control
    /// vectors side by side, `(B, n d)`, where the model has any.
    ///
    /// # Errors
    /// As [`Trainer::prepare_step`].
    pub fn round_forward(&mut self, batch: &Batch, place: u32) -> Result<Option<Tensor>> {
        self.run_mut()?.place = place;
        self.prepare_step(batch)?;
        let targets = self.targets(batch)?;
        let noise = Noise::keyed(self.key()?);
        let forward = self.model.forward(batch, Wanted::Everything, &noise);
        let controls = Controls::of(&forward).beside();
        self.run_mut()?.share = Some(Share { forward, targets });
        Ok(controls)
    }

    /// Losses and gradients of the micro-batch of [`Trainer::round_forward`]. With the control vectors of `others`,
    /// similarity and difference are those of the whole round, and the task loss is weighted by the micro-batch's
    /// share of it: the gradients of all processes add up to those of the round as one batch.
    ///
    /// Returns [`Losses::values`], and what [`Trainer::relabel`] needs: labels and features,
    /// `(B, 1 + dims)`, where pseudo-labels are kept.
    ///
    /// # Errors
    /// [`Error::NonFinite`] as [`Trainer::train_step`]; [`Error::State`] where there was no forward pass.
    pub fn round_backward(&mut self, others: Option<&Others>) -> Result<(Tensor, Option<Tensor>)> {
        let no_share = || Error::State("no forward pass of a round: call round_forward first".into());
        let Share { forward, targets } = self.run_mut()?.share.take().ok_or_else(no_share)?;
        let config = &self.model.config;
        let values = match others {
            None => {
                let losses = Losses::of(&forward, &targets, config);
                self.descend(&losses, &losses.total)?;
                losses.values
            }
            Some(Others { controls, start, part }) => {
                let round = Controls::of(&forward).among(controls, *start);
                let losses = Losses::shared(&forward, &round, &targets, config, *part);
                let total = &losses.total * *part;
                self.descend(&losses, &total)?;
                losses.values
            }
        };
        self.check_device()?;
        let _no_grad = tch::no_grad_guard();
        let keeps = self.run.as_ref().is_some_and(|run| run.ulgm.is_some());
        let rows = keeps.then(|| {
            let features = forward.features().into_values().map(Tensor::detach);
            let columns = std::iter::once(targets.y_m.unsqueeze(1)).chain(features);
            Tensor::cat(&columns.collect::<Vec<_>>(), 1)
        });
        Ok((values, rows))
    }

    /// On a device: waits for the gradients, to know whether they are finite: all processes must stop alike.
    fn check_device(&mut self) -> Result<()> {
        if crate::device::runs_on(self.device) && self.run_mut()?.clock.take_fault().is_some() {
            self.drop_window()?;
            return Err(Error::NonFinite("the loss or a gradient of this batch is not finite.".into()));
        }
        Ok(())
    }

    /// Updates pseudo-labels by a micro-batch of any process: dataset positions `(B,)`, and the labels and
    /// features that [`Trainer::round_backward`] gave.
    ///
    /// # Errors
    /// [`Error::Batch`] for a position outside the training set, [`Error::State`] where no run was started.
    pub fn relabel(&mut self, index: &Tensor, rows: &Tensor) -> Result<()> {
        let index = Index::of(index, self.device)?;
        let run = self.run.as_mut().ok_or_else(no_run)?;
        let Run { ulgm: Some(ulgm), epoch, clock, .. } = run else { return Ok(()) };
        check_range(&index.values, ulgm.samples)?;
        let _no_grad = tch::no_grad_guard();
        let mut column = 1;
        let features = ulgm.widths().map(|(u, width)| {
            column += width;
            (u, rows.narrow(1, column - width, width).contiguous())
        });
        let features: BTreeMap<Target, Tensor> = features.collect();
        let y_m = rows.select(1, 0).contiguous();
        let pseudo = ulgm.pseudo_labels(&index, &y_m);
        ulgm.step(&Step {
            index: &index,
            y_m: &y_m,
            pseudo: &pseudo,
            features: features.iter().map(|(u, features)| (*u, features)).collect(),
            epoch: *epoch,
            epoch_at: clock.epoch(),
            unless: clock.fault(),
        });
        Ok(())
    }

    /// Counts the micro-batches of a round, `worth` of the `window` that an optimiser step needs; returns whether
    /// the window is full.
    ///
    /// # Errors
    /// [`Error::State`] where no run was started.
    pub fn count_round(&mut self, micro_batches: u32, worth: i64, window: i64) -> Result<bool> {
        let run = self.run_mut()?;
        run.step += micro_batches;
        run.pending += worth;
        run.place = 0;
        run.share = None;
        Ok(run.pending >= window)
    }

    /// Every weight, and the gradients of the trained ones, as they lie in memory.
    pub fn flat(&self) -> (Tensor, Tensor) {
        (self.params.flat.shallow_clone(), self.params.grad.shallow_clone())
    }

    /// To be called after weights were written to [`Trainer::flat`].
    pub fn weights_changed(&mut self) {
        self.params.weights_changed();
        self.model.weights_changed();
    }
}
