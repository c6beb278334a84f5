//! A step that several processes share. The micro-batches that they work on at a time are a round; each process
//! has one of them, or none at the end of an epoch. What goes from one to the others is handed out and taken in
//! here; `mmiln/training/parallel.py` carries it. All of them hold the same weights, moments and pseudo-labels.

use tch::Tensor;

use super::{Run, Trainer, check_range, no_run};
use crate::batch::{Batch, Index};
use crate::error::{Error, Result};
use crate::loss::{Controls, Losses};
use crate::model::{Forward, Modality, Wanted};
use crate::rng::Noise;
use crate::ulgm::Step;

/// This process's micro-batch between forward and backward.
pub struct Share {
    forward: Forward,
    /// True labels, and pseudo-labels by modality, `(B,)`.
    y_m: Tensor,
    pseudo: Vec<(Modality, Tensor)>,
}

/// What the other processes' losses read of a micro-batch.
pub struct Others<'a> {
    /// Control vectors of the whole round, `(N, n d)`.
    pub controls: &'a Tensor,
    /// The row at which this micro-batch's begin.
    pub start: i64,
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
        let (y_m, pseudo) = self.targets(batch)?;
        let noise = Noise::keyed(self.key()?);
        let forward = self.model.forward(batch, Wanted::Everything, &noise);
        let controls = Controls::of(&forward).beside();
        self.run_mut()?.share = Some(Share { forward, y_m, pseudo });
        Ok(controls)
    }

    /// Losses and gradients of the micro-batch of [`Trainer::round_forward`]. With the control vectors of the
    /// `others`, those of similarity and difference are of the whole round, and the task's counts by its
    /// utterances: the gradients of all processes add up to those of the round as one batch.
    ///
    /// Returns [`Losses::values`], and what [`Trainer::relabel`] needs: labels and features,
    /// `(B, 1 + dims)`, where pseudo-labels are kept.
    ///
    /// # Errors
    /// [`Error::NonFinite`] as [`Trainer::train_step`]; [`Error::State`] where there was no forward pass.
    pub fn round_backward(&mut self, others: Option<&Others>) -> Result<(Tensor, Option<Tensor>)> {
        let no_share = || Error::State("no forward pass of a round: call round_forward first".into());
        let Share { forward, y_m, pseudo } = self.run_mut()?.share.take().ok_or_else(no_share)?;
        let config = &self.model.config;
        let values = match others {
            None => {
                let losses = Losses::of(&forward, &y_m, &pseudo, config);
                self.descend(&losses, &losses.total)?;
                losses.values
            }
            Some(Others { controls, start }) => {
                let among = Controls::of(&forward).among(controls, *start);
                let part = y_m.size()[0] as f64 / controls.size()[0] as f64;
                let counted = Losses::shared(&forward, &among, &y_m, &pseudo, config, part);
                let total = &counted.total * part;
                self.descend(&counted, &total)?;
                counted.values
            }
        };
        self.heed_the_device()?;
        let _no_grad = tch::no_grad_guard();
        let rows = self.keeps_pseudo_labels().then(|| {
            let own = forward.multimodal.iter().map(|head| &head.features);
            let others = forward.branches.iter().map(|branch| &branch.head.features);
            let columns = std::iter::once(y_m.unsqueeze(1)).chain(own.chain(others).map(Tensor::detach));
            Tensor::cat(&columns.collect::<Vec<_>>(), 1)
        });
        Ok((values, rows))
    }

    /// On a device: waits to hear whether the gradients were finite, as the other processes must know.
    fn heed_the_device(&mut self) -> Result<()> {
        if crate::ops::cuda::runs_on(self.device) && self.run_mut()?.clock.take_fault().is_some() {
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
        let mut features = ulgm.widths().into_iter().map(|width| {
            column += width;
            rows.narrow(1, column - width, width).contiguous()
        });
        let multimodal = features.next().expect("the multimodal space is always there");
        let unimodal: Vec<Tensor> = features.collect();
        let y_m = rows.select(1, 0).contiguous();
        let pseudo = ulgm.pseudo_labels(&index, &y_m);
        let unimodal: Vec<&Tensor> = unimodal.iter().collect();
        let step =
            Step { index: &index, y_m: &y_m, pseudo: &pseudo, multimodal: &multimodal, unimodal: &unimodal };
        ulgm.step(*epoch, clock, &step);
        Ok(())
    }

    /// Counts the micro-batches of a round; whether the window is full of as many as `window`, of which the
    /// round was `worth` so many.
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
