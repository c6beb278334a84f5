//! `_core.Core`: the trainer behind one lock.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use pyo3_tch::PyTensor;
use tch::Tensor;

use super::batch::{PyBatch, parse_device, parse_kind};
use super::entry;
use crate::config::Precision;
use crate::error::{Error, Result};
use crate::loss::NAMES;
use crate::model::fusion::StreamOutput;
use crate::model::{Forward, Wanted};
use crate::train::Trainer;
use crate::train::round::Others;

/// A model with its weights and its training run. Calls from several threads take turns.
#[pyclass(module = "mmiln._core", frozen)]
pub struct Core {
    trainer: Mutex<Trainer>,
    /// The process that took the lock last.
    holder: AtomicU32,
}

/// How long a thread may take to note itself as the holder after it has taken the lock.
const PATIENCE: Duration = Duration::from_millis(100);

/// A tensor, or one tensor an utterance.
enum Value {
    Dense(Tensor),
    Ragged(Vec<Tensor>),
}

#[pymethods]
impl Core {
    #[new]
    #[pyo3(signature = (model, text_encoder, *, seed, device, dtype, precision="float32"))]
    fn new(
        py: Python<'_>,
        model: &str,
        text_encoder: Option<&str>,
        seed: u64,
        device: &str,
        dtype: &str,
        precision: &str,
    ) -> PyResult<Self> {
        entry::run(py, || {
            let bert = text_encoder.map(entry::from_json).transpose()?;
            let trainer = Trainer::new(
                entry::from_json(model)?,
                bert,
                seed,
                parse_kind(dtype)?,
                parse_device(device)?,
                parse_precision(precision)?,
            )?;
            Ok(Self { trainer: Mutex::new(trainer), holder: AtomicU32::new(std::process::id()) })
        })
    }

    /// Scores, `(B,)`.
    fn scores(&self, py: Python<'_>, batch: &PyBatch) -> PyResult<PyTensor> {
        entry::run(py, || {
            Ok(PyTensor(self.lock()?.forward(&batch.0, Wanted::Score)?.score().shallow_clone()))
        })
    }

    /// Everything a forward pass computes, by name.
    fn forward<'py>(
        &self,
        py: Python<'py>,
        batch: &PyBatch,
        intermediates: bool,
    ) -> PyResult<Bound<'py, PyDict>> {
        let values = entry::run(py, || {
            Ok(named(&self.lock()?.forward(&batch.0, Wanted::Everything)?, intermediates))
        })?;
        let dict = PyDict::new(py);
        for (name, value) in values {
            match value {
                Value::Dense(tensor) => dict.set_item(name, PyTensor(tensor))?,
                Value::Ragged(list) => dict.set_item(name, tensor_list(py, list)?)?,
            }
        }
        Ok(dict)
    }

    /// Probabilities of the text-led streams' cross attention, `fusion.{i}.{stream}`.
    fn attention_maps<'py>(&self, py: Python<'py>, batch: &PyBatch) -> PyResult<Bound<'py, PyDict>> {
        let maps = entry::run(py, || self.lock()?.attention_maps(&batch.0))?;
        let dict = PyDict::new(py);
        for (i, maps) in maps.into_iter().enumerate() {
            for (stream, list) in maps {
                dict.set_item(format!("fusion.{i}.{}", stream.name()), tensor_list(py, list)?)?;
            }
        }
        Ok(dict)
    }

    /// task, sim, diff, total without dropout, scalars.
    fn losses<'py>(&self, py: Python<'py>, batch: &PyBatch) -> PyResult<Bound<'py, PyDict>> {
        let losses = entry::run(py, || self.lock()?.losses(&batch.0))?;
        tensor_dict(py, NAMES.map(str::to_owned).into_iter().zip(losses.unbind(0)))
    }

    /// Gradients of the total loss without dropout, by parameter name.
    fn gradients<'py>(&self, py: Python<'py>, batch: &PyBatch) -> PyResult<Bound<'py, PyDict>> {
        let gradients = entry::run(py, || self.lock()?.gradients(&batch.0))?;
        tensor_dict(py, gradients)
    }

    /// Whether training needs dataset indices and the number of samples.
    fn keeps_pseudo_labels(&self, py: Python<'_>) -> PyResult<bool> {
        entry::run(py, || Ok(self.lock()?.keeps_pseudo_labels()))
    }

    fn begin_training(&self, py: Python<'_>, samples: Option<i64>, train: &str) -> PyResult<()> {
        entry::run(py, || self.lock()?.begin_training(samples, entry::from_json(train)?))
    }

    /// Other learning rates and decays in the settings of the run under way.
    fn set_rates(&self, py: Python<'_>, train: &str) -> PyResult<()> {
        entry::run(py, || self.lock()?.set_rates(entry::from_json(train)?))
    }

    fn begin_epoch(&self, py: Python<'_>, epoch: i64) -> PyResult<()> {
        entry::run(py, || self.lock()?.begin_epoch(epoch))
    }

    /// task, sim, diff, total of one micro-batch, `(4,)`, on the device.
    fn train_step(&self, py: Python<'_>, batch: &PyBatch) -> PyResult<PyTensor> {
        entry::run(py, || Ok(PyTensor(self.lock()?.train_step(&batch.0)?)))
    }

    /// The three parts of a step: the host's work before, the launches, the host's counting after.
    fn prepare_step(&self, py: Python<'_>, batch: &PyBatch) -> PyResult<()> {
        entry::run(py, || self.lock()?.prepare_step(&batch.0))
    }

    fn compute_step(&self, py: Python<'_>, batch: &PyBatch) -> PyResult<PyTensor> {
        entry::run(py, || Ok(PyTensor(self.lock()?.compute_step(&batch.0)?)))
    }

    fn finish_step(&self, py: Python<'_>) -> PyResult<()> {
        entry::run(py, || self.lock()?.finish_step())
    }

    /// The parts of a step that several processes share: see `train/round.rs`.
    fn round_forward(&self, py: Python<'_>, batch: &PyBatch, place: u32) -> PyResult<Option<PyTensor>> {
        entry::run(py, || Ok(self.lock()?.round_forward(&batch.0, place)?.map(PyTensor)))
    }

    #[pyo3(signature = (controls=None, start=0, part=1.0))]
    fn round_backward(
        &self,
        py: Python<'_>,
        controls: Option<PyTensor>,
        start: i64,
        part: f64,
    ) -> PyResult<(PyTensor, Option<PyTensor>)> {
        let controls = controls.map(|tensor| tensor.0);
        entry::run(py, move || {
            let others = controls.as_ref().map(|controls| Others { controls, start, part });
            let (losses, rows) = self.lock()?.round_backward(others.as_ref())?;
            Ok((PyTensor(losses), rows.map(PyTensor)))
        })
    }

    fn relabel(&self, py: Python<'_>, index: PyTensor, rows: PyTensor) -> PyResult<()> {
        let (index, rows) = (index.0, rows.0);
        entry::run(py, move || self.lock()?.relabel(&index, &rows))
    }

    fn count_round(&self, py: Python<'_>, micro_batches: u32, worth: i64, window: i64) -> PyResult<bool> {
        entry::run(py, || self.lock()?.count_round(micro_batches, worth, window))
    }

    fn step_window(&self, py: Python<'_>) -> PyResult<()> {
        entry::run(py, || self.lock()?.step_window())
    }

    fn drop_window(&self, py: Python<'_>) -> PyResult<()> {
        entry::run(py, || self.lock()?.drop_window())
    }

    /// Every weight, and the gradients of the trained ones, as they lie in memory.
    fn flat(&self, py: Python<'_>) -> PyResult<(PyTensor, PyTensor)> {
        let (weights, gradients) = entry::run(py, || Ok(self.lock()?.flat()))?;
        Ok((PyTensor(weights), PyTensor(gradients)))
    }

    /// To be called after weights were written to `flat`.
    fn weights_changed(&self, py: Python<'_>) -> PyResult<()> {
        entry::run(py, || {
            self.lock()?.weights_changed();
            Ok(())
        })
    }

    /// Whether the optimiser steps at the end of the coming step.
    fn step_is_last_of_window(&self, py: Python<'_>) -> PyResult<bool> {
        entry::run(py, || self.lock()?.last_of_window())
    }

    /// Why the launches of steps can't be captured and repeated; `None` where they can.
    fn not_capturable(&self, py: Python<'_>) -> PyResult<Option<&'static str>> {
        entry::run(py, || Ok(self.lock()?.not_capturable()))
    }

    /// On a device: how many of the last steps were not applied, as the first of them was not finite.
    fn undone_steps(&self, py: Python<'_>) -> PyResult<u32> {
        entry::run(py, || self.lock()?.undone_steps())
    }

    fn end_epoch(&self, py: Python<'_>) -> PyResult<()> {
        entry::run(py, || self.lock()?.end_epoch())
    }

    fn keep_best(&self, py: Python<'_>) -> PyResult<()> {
        entry::run(py, || self.lock()?.keep_best())
    }

    fn restore_best(&self, py: Python<'_>) -> PyResult<()> {
        entry::run(py, || self.lock()?.restore_best())
    }

    /// The whole state of the run: tensors by name, and its counters as JSON.
    fn training_state<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyDict>, String)> {
        let (state, counters) = entry::run(py, || {
            let (state, counters) = self.lock()?.training_state()?;
            Ok((state, entry::to_json(&counters)))
        })?;
        Ok((tensor_dict(py, state)?, counters))
    }

    /// Continues a run that was just started from where `training_state` was taken.
    fn load_training_state(
        &self,
        py: Python<'_>,
        state: BTreeMap<String, PyTensor>,
        counters: &str,
    ) -> PyResult<()> {
        let state = state.into_iter().map(|(name, tensor)| (name, tensor.0)).collect();
        entry::run(py, move || self.lock()?.load_training_state(&state, entry::from_json(counters)?))
    }

    /// Pseudo-labels by modality and dataset index; `None` where no run keeps any.
    fn pseudo_labels<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        let labels = entry::run(py, || Ok(self.lock()?.pseudo_labels()))?;
        labels.map(|all| tensor_dict(py, all.into_iter().map(|(m, t)| (m.name().to_owned(), t)))).transpose()
    }

    /// Names of the weights that are not trained.
    fn frozen(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        entry::run(py, || Ok(self.lock()?.frozen()))
    }

    /// A copy of every weight by name.
    fn state_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let state = entry::run(py, || Ok(self.lock()?.state_dict()))?;
        tensor_dict(py, state)
    }

    /// Sets the weights whose names start with `prefix`, all or none.
    fn load_state_dict(
        &self,
        py: Python<'_>,
        state: BTreeMap<String, PyTensor>,
        prefix: &str,
    ) -> PyResult<()> {
        let state = state.into_iter().map(|(name, tensor)| (name, tensor.0)).collect();
        entry::run(py, move || self.lock()?.load_state_dict(&state, prefix))
    }
}

impl Core {
    /// Waits for the lock. A call that panicked left the trainer whole: weights change only in the last stage of a
    /// step.
    ///
    /// # Errors
    /// [`Error::State`] in a process that was forked while another thread had the lock: that thread is not there to
    /// release it.
    fn lock(&self) -> Result<MutexGuard<'_, Trainer>> {
        let (process, started) = (std::process::id(), Instant::now());
        let guard = loop {
            match self.trainer.try_lock() {
                Ok(guard) => break guard,
                Err(TryLockError::Poisoned(error)) => break error.into_inner(),
                Err(TryLockError::WouldBlock) if self.holder.load(Ordering::Relaxed) == process => {
                    break self.trainer.lock().unwrap_or_else(PoisonError::into_inner);
                }
                // Either that, or a thread of this process has taken it just now and not noted it yet.
                Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(1)),
            }
            if started.elapsed() > PATIENCE {
                return Err(Error::State(
                    "this process was forked while another thread of its parent used the model: load or copy the \
                     model here, or start processes by \"spawn\""
                        .into(),
                ));
            }
        };
        self.holder.store(process, Ordering::Relaxed);
        Ok(guard)
    }
}

fn parse_precision(precision: &str) -> Result<Precision> {
    match precision {
        "float32" => Ok(Precision::Float32),
        "bf16" => Ok(Precision::Bf16),
        other => Err(Error::Config(format!("precision must be \"float32\" or \"bf16\", got {other:?}"))),
    }
}

fn tensor_list(py: Python<'_>, tensors: Vec<Tensor>) -> PyResult<PyObject> {
    tensors.into_iter().map(PyTensor).collect::<Vec<_>>().into_py_any(py)
}

fn tensor_dict(
    py: Python<'_>,
    tensors: impl IntoIterator<Item = (String, Tensor)>,
) -> PyResult<Bound<'_, PyDict>> {
    let dict = PyDict::new(py);
    for (name, tensor) in tensors {
        dict.set_item(name, PyTensor(tensor))?;
    }
    Ok(dict)
}

/// The results of a forward pass by name, as `Model.forward` in Python documents them.
fn named(forward: &Forward, intermediates: bool) -> Vec<(String, Value)> {
    let mut out = Vec::new();
    let mut dense = |name: String, tensor: &Tensor| out.push((name, Value::Dense(tensor.shallow_clone())));
    for (target, head) in &forward.heads {
        dense(format!("y_{}", target.name()), &head.score);
        dense(format!("F_{}", target.name()), &head.features);
    }
    if intermediates {
        for (stream, control) in forward.controls() {
            dense(format!("control.{}", stream.name()), control);
        }
        for (i, layer) in forward.layers.iter().enumerate() {
            for (stream, output) in layer {
                name_stream(&mut out, &format!("fusion.{i}.{}", stream.name()), output);
            }
        }
    }
    out
}

fn name_stream(out: &mut Vec<(String, Value)>, path: &str, stream: &StreamOutput) {
    out.push((format!("{path}.output"), Value::Ragged(stream.output.split())));
    out.push((format!("{path}.attention"), Value::Ragged(stream.attention.split())));
    if let Some(gates) = &stream.gates {
        out.push((format!("{path}.retain"), Value::Dense(gates.retain.shallow_clone())));
        out.push((format!("{path}.compound"), Value::Dense(gates.compound.shallow_clone())));
    }
    if let Some(source) = &stream.source {
        out.push((format!("{path}.source"), Value::Ragged(source.split())));
    }
}
