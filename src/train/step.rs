//! The training step: forward, losses, backward, ULGM, and the optimiser once a window is full.

use tch::{Device, Tensor};

use super::{Trainer, check_range};
use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::loss::Losses;
use crate::model::Wanted;
use crate::rng::Noise;
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

    /// Trains on one micro-batch; returns its losses, on the device, cut off the graph.
    ///
    /// # Errors
    /// [`Error::State`] before an epoch has begun, [`Error::Batch`] where the batch can't be used,
    /// [`Error::NonFinite`] for a loss that is not finite (on the CPU, where looking costs nothing). Weights,
    /// pseudo-labels and accumulated gradients are as before then.
    pub fn train_step(&mut self, batch: &Batch) -> Result<Losses> {
        if self.run_mut()?.epoch < 1 {
            return Err(Error::State("no epoch has begun: call begin_epoch first".into()));
        }
        self.model.check(batch)?;
        let rows = self.rows(batch)?;
        let (y_m, pseudo) = self.targets(batch)?;

        let run = self.run_mut()?;
        let noise = Noise::training(run.config.seed, run.step);
        let forward = self.model.forward(batch, Wanted::Everything, &noise);
        let losses = Losses::of(&forward, &y_m, &pseudo, &self.model.config);
        if self.device == Device::Cpu && !losses.total.double_value(&[]).is_finite() {
            return Err(Error::NonFinite(format!(
                "the loss of this batch is not finite (task {}, sim {}, diff {}); the step was not applied. \
                 Check the scale of the inputs (mmiln.data.load(..., standardize=True)) and the learning rates.",
                losses.task.double_value(&[]),
                losses.sim.double_value(&[]),
                losses.diff.double_value(&[]),
            )));
        }
        if let Err(error) = losses.total.f_backward() {
            // Some gradients of this batch are added already, so the window begins anew.
            let _ = self.params.grad.zero_();
            self.run_mut()?.pending = 0;
            panic!("backward failed: {error}");
        }

        let _no_grad = tch::no_grad_guard();
        let run = self.run.as_mut().expect("checked on entry");
        if let (Some(ulgm), Some((places, rows)), Some(head)) = (&mut run.ulgm, rows, &forward.multimodal) {
            let unimodal: Vec<&Tensor> = forward.branches.iter().map(|b| &b.head.features).collect();
            let (places, rows) = (&places, &rows);
            let step = Step { places, rows, y_m: &y_m, multimodal: &head.features, unimodal: &unimodal };
            ulgm.step(run.epoch, &step);
        }
        run.step += 1;
        run.pending += 1;
        if run.pending == run.config.accumulate {
            self.flush()?;
        }
        Ok(losses.detach())
    }

    /// Ends an epoch: an incomplete window is stepped, not dropped.
    ///
    /// # Errors
    /// [`Error::State`] where no run was started.
    pub fn end_epoch(&mut self) -> Result<()> {
        self.flush()
    }

    fn flush(&mut self) -> Result<()> {
        let window = std::mem::take(&mut self.run_mut()?.pending);
        if window > 0 {
            let run = self.run.as_mut().expect("checked above");
            run.optimizer.step(&mut self.params, window, &run.config);
        }
        Ok(())
    }

    /// Places in the batch and dataset indices that ULGM updates.
    fn rows(&self, batch: &Batch) -> Result<Option<(Vec<usize>, Vec<usize>)>> {
        let Some(ulgm) = self.run.as_ref().and_then(|run| run.ulgm.as_ref()) else { return Ok(None) };
        let Some(index) = &batch.index else {
            return Err(Error::Batch(
                "the batch has no index: pseudo-labels are kept by position in the training set".into(),
            ));
        };
        check_range(index, ulgm.samples)?;
        Ok(Some(Batch::distinct(index)))
    }
}
