//! The training step: forward, losses, backward, ULGM, and the optimiser once a window is full.

use tch::Tensor;

use super::{Run, Trainer, check_range, no_run};
use crate::batch::Batch;
use crate::device::runs_on;
use crate::error::{Error, Result};
use crate::loss::Losses;
use crate::model::Wanted;
use crate::ops::finite;
use crate::rng::{Key, Noise, step_key};
use crate::ulgm::Step;

impl Trainer {
    /// Begins epoch `n` of the run, from 1.
    ///
    /// # Errors
    /// [`Error::State`] where no run was started.
    pub fn begin_epoch(&mut self, n: i64) -> Result<()> {
        self.run_mut()?.epoch = n;
        Ok(())
    }

    /// Trains on one micro-batch; returns [`Losses::values`], on the device.
    ///
    /// # Errors
    /// [`Error::State`] before an epoch has begun, [`Error::Batch`] where the batch can't be used,
    /// [`Error::NonFinite`] for a loss or a gradient that is not finite: weights and pseudo-labels then do not
    /// change, nor, if it was the loss, do accumulated gradients. A device does not report this at once: call
    /// [`Trainer::undone_steps`] from time to time.
    pub fn train_step(&mut self, batch: &Batch) -> Result<Tensor> {
        self.prepare_step(batch)?;
        let losses = self.compute_step(batch)?;
        self.finish_step()?;
        Ok(losses)
    }

    /// The host's work before a step: it checks the batch and sets the clock that the device's kernels read.
    ///
    /// # Errors
    /// As [`Trainer::train_step`].
    pub fn prepare_step(&mut self, batch: &Batch) -> Result<()> {
        self.model.check(batch)?;
        self.check_labels(batch)?;
        self.human_labels(batch)?;
        let run = self.run_mut()?;
        if run.epoch < 1 {
            return Err(Error::State("no epoch has begun: call begin_epoch first".into()));
        }
        match (&run.ulgm, &batch.index) {
            (Some(_), None) => Err(Error::Batch(
                "the batch has no index: pseudo-labels are kept by position in the training set".into(),
            )),
            (Some(ulgm), Some(index)) => check_range(&index.values, ulgm.samples),
            (None, _) => Ok(()),
        }?;
        run.set_clock();
        Ok(())
    }

    /// The step itself. On a device it only launches kernels, which may be captured and repeated for batches of the
    /// same shapes, as long as [`Trainer::last_of_window`] returns the same.
    ///
    /// # Errors
    /// [`Error::NonFinite`] as [`Trainer::train_step`]; [`Error::State`] where no run was started.
    pub fn compute_step(&mut self, batch: &Batch) -> Result<Tensor> {
        let targets = self.targets(batch)?;
        let noise = Noise::keyed(self.key()?);
        let forward = self.model.forward(batch, Wanted::Everything, &noise);
        let losses = Losses::of(&forward, &targets, &self.model.config);
        self.descend(&losses, &losses.total)?;

        let _no_grad = tch::no_grad_guard();
        let run = self.run.as_mut().expect("checked above");
        if let (Some(ulgm), Some(index)) = (&mut run.ulgm, &batch.index) {
            // (29) to (34)
            ulgm.step(&Step {
                index,
                y_m: &targets.y_m,
                pseudo: &targets.y_n,
                features: forward.features(),
                epoch: run.epoch,
                epoch_at: run.clock.epoch(),
                unless: run.clock.fault(),
            });
        }
        if run.is_last_of_window() {
            run.optimizer.step(&mut self.params, run.config.accumulate, &run.config, &run.clock);
        }
        Ok(losses.values)
    }

    /// Dropout's key of the coming step.
    pub(super) fn key(&mut self) -> Result<Key> {
        let on_device = runs_on(self.device);
        let run = self.run_mut()?;
        Ok(if on_device { run.clock.key() } else { Key::Value(run.dropout_key()) })
    }

    /// Adds the gradients of `total`, the scalar behind `losses`, to those of the window. On a device the clock notes
    /// whether all were finite.
    ///
    /// # Errors
    /// [`Error::NonFinite`] as [`Trainer::train_step`].
    pub(super) fn descend(&mut self, losses: &Losses, total: &Tensor) -> Result<()> {
        let on_device = runs_on(self.device);
        if !on_device && !losses.total.double_value(&[]).is_finite() {
            let [task, sim, diff] = [0, 1, 2].map(|part| losses.values.double_value(&[part]));
            return Err(Error::NonFinite(format!(
                "the loss of this batch is not finite (task {task}, sim {sim}, diff {diff}); the step was not \
                 applied. Check the scale of the inputs (mmiln.data.load(..., standardize=True)) and the \
                 learning rates.",
            )));
        }
        if let Err(error) = total.f_backward() {
            // Some gradients of this batch are added already, so the window begins anew.
            self.drop_window()?;
            panic!("backward failed: {error}");
        }
        if on_device {
            let clock = self.run.as_ref().ok_or_else(no_run)?.clock.all();
            finite::cuda::note(&[&self.params.grad, &losses.values], clock);
        } else if !finite::all_finite(&self.params.grad) {
            self.drop_window()?;
            return Err(Error::NonFinite(
                "a gradient of this batch is not finite; the step was not applied, and what its window of \
                 micro-batches had gathered is dropped."
                    .into(),
            ));
        }
        Ok(())
    }

    /// Forgets the gradients that wait for the optimiser.
    ///
    /// # Errors
    /// [`Error::State`] where no run was started.
    pub fn drop_window(&mut self) -> Result<()> {
        self.run_mut()?.pending = 0;
        let _ = self.params.grad.zero_();
        Ok(())
    }

    /// The host's work after a step: it counts.
    ///
    /// # Errors
    /// [`Error::State`] where no run was started.
    pub fn finish_step(&mut self) -> Result<()> {
        let run = self.run_mut()?;
        run.step += 1;
        if run.is_last_of_window() {
            run.pending = 0;
            run.optimizer.steps += 1;
        } else {
            run.pending += 1;
        }
        Ok(())
    }

    /// Whether the optimiser steps at the end of the coming step.
    ///
    /// # Errors
    /// [`Error::State`] where no run was started.
    pub fn last_of_window(&mut self) -> Result<bool> {
        Ok(self.run_mut()?.is_last_of_window())
    }

    /// Why steps can't be captured and repeated; `None` where they can.
    pub fn not_capturable(&self) -> Option<&'static str> {
        self.model.looks_up_features().then_some("a frozen text encoder looks its features up on the host")
    }

    /// On a device: how many of the last steps were not applied, as the loss or a gradient of the first of them was
    /// not finite. The run continues as before that step, except that the gradients of its window are dropped.
    ///
    /// # Errors
    /// [`Error::State`] where no run was started.
    pub fn undone_steps(&mut self) -> Result<u32> {
        let on_device = runs_on(self.device);
        let run = self.run_mut()?;
        let Some(fault) = on_device.then(|| run.clock.take_fault()).flatten() else { return Ok(0) };
        let undone = run.step - (fault.step - 1);
        run.step -= undone;
        run.optimizer.steps = fault.optimizer_step - 1;
        run.pending = 0;
        let _ = self.params.grad.zero_();
        Ok(undone)
    }

    /// Ends an epoch: an incomplete window is stepped, not dropped.
    ///
    /// # Errors
    /// [`Error::State`] where no run was started.
    pub fn end_epoch(&mut self) -> Result<()> {
        self.step_window()
    }

    /// The optimiser's step on what the window has gathered, if anything.
    ///
    /// # Errors
    /// [`Error::State`] where no run was started.
    pub fn step_window(&mut self) -> Result<()> {
        let run = self.run.as_mut().ok_or_else(no_run)?;
        let window = std::mem::take(&mut run.pending);
        if window > 0 {
            run.set_clock();
            run.optimizer.step(&mut self.params, window, &run.config, &run.clock);
            run.optimizer.steps += 1;
        }
        Ok(())
    }
}

impl Run {
    fn is_last_of_window(&self) -> bool {
        self.pending + 1 == self.config.accumulate
    }

    /// With several processes, each uses the key that a single process would use for its micro-batch.
    fn dropout_key(&self) -> u64 {
        step_key(self.config.seed, self.step + self.place)
    }

    fn set_clock(&self) {
        self.clock.set(
            self.dropout_key(),
            self.epoch,
            i64::from(self.optimizer.steps + 1),
            i64::from(self.step + 1),
        );
    }
}
