//! `_core.Batch`: takes torch tensors and keeps packed frames.

use pyo3::prelude::*;
use pyo3::types::PyDict;
use pyo3_tch::PyTensor;
use tch::{Device, Kind, Tensor};

use super::entry;
use crate::batch::{Batch, Frames, Parts, Side};
use crate::error::{Error, Result};

/// A packed batch on a device. Build it once, use it for any number of steps.
#[pyclass(name = "Batch", module = "mmiln._core")]
pub struct PyBatch(pub Batch);

/// Frames as Python hands them over: one padded tensor, or one tensor an utterance.
#[derive(FromPyObject)]
enum Given {
    Padded(PyTensor),
    List(Vec<PyTensor>),
}

#[pymethods]
impl PyBatch {
    #[new]
    #[pyo3(signature = (*, device, dtype, padding_side="right", text=None, text_lengths=None, text_bert=None,
        audio=None, audio_lengths=None, vision=None, vision_lengths=None, labels=None, labels_audio=None, labels_vision=None,
        weights=None, index=None))]
    #[allow(clippy::too_many_arguments)] // the keys of a batch
    fn new(
        py: Python<'_>,
        device: &str,
        dtype: &str,
        padding_side: &str,
        text: Option<Given>,
        text_lengths: Option<Vec<i64>>,
        text_bert: Option<Vec<PyTensor>>,
        audio: Option<Given>,
        audio_lengths: Option<Vec<i64>>,
        vision: Option<Given>,
        vision_lengths: Option<Vec<i64>>,
        labels: Option<PyTensor>,
        labels_audio: Option<PyTensor>,
        labels_vision: Option<PyTensor>,
        weights: Option<PyTensor>,
        index: Option<PyTensor>,
    ) -> PyResult<Self> {
        entry::run(py, move || {
            let side = match padding_side {
                "right" => Side::Right,
                "left" => Side::Left,
                other => {
                    return Err(Error::Batch(format!(
                        "padding_side must be \"right\" or \"left\", got {other:?}"
                    )));
                }
            };
            let frames = |name, given: Option<Given>, lengths| {
                given.map(|given| given.frames(name, lengths, side)).transpose()
            };
            let parts = Parts {
                text: frames("text", text, text_lengths)?,
                tokens: text_bert.map(tensors),
                audio: frames("audio", audio, audio_lengths)?,
                vision: frames("vision", vision, vision_lengths)?,
                labels: labels.map(|l| l.0),
                unimodal_labels: [("audio", labels_audio), ("vision", labels_vision)]
                    .into_iter()
                    .filter_map(|(name, labels)| Some((name, labels?.0)))
                    .collect(),
                weights: weights.map(|w| w.0),
                index: index.map(|i| i.0),
            };
            Batch::pack(parts, parse_kind(dtype)?, parse_device(device)?).map(Self)
        })
    }

    fn __len__(&self) -> usize {
        self.0.size
    }

    /// On the CPU: copies of the packed tensors by name.
    fn parts(&self, py: Python<'_>) -> PyResult<Py<PyDict>> {
        let parts = entry::run(py, || Ok(self.0.parts()))?;
        let dict = PyDict::new(py);
        for (name, tensor) in parts {
            dict.set_item(name, PyTensor(tensor))?;
        }
        Ok(dict.unbind())
    }

    /// Equal for two batches whose tensors have the same shapes.
    fn shapes(&self) -> Vec<i64> {
        self.0.shapes()
    }

    /// On a device: a copy in memory of its own.
    fn copy(&self, py: Python<'_>) -> PyResult<Self> {
        entry::run(py, || self.0.copy().map(Self).ok_or_else(on_the_cpu))
    }

    /// On a device: copies the tensors of a batch of the same shapes.
    fn copy_from(&mut self, py: Python<'_>, other: &Self) -> PyResult<()> {
        entry::run(py, || {
            if self.0.shapes() != other.0.shapes() {
                let (own, other) = (self.0.shapes(), other.0.shapes());
                return Err(Error::Batch(format!("shapes must be {own:?}, got {other:?}")));
            }
            self.0.copy_from(&other.0);
            Ok(())
        })
    }

    /// On a device: the memory that holds all tensors.
    fn bytes(&self, py: Python<'_>) -> PyResult<PyTensor> {
        entry::run(py, || self.0.bytes().map(|bytes| PyTensor(bytes.shallow_clone())).ok_or_else(on_the_cpu))
    }
}

fn on_the_cpu() -> Error {
    Error::State("this batch is on the CPU, not in a buffer on a device".into())
}

impl Given {
    fn frames(self, name: &str, lengths: Option<Vec<i64>>, side: Side) -> Result<Frames> {
        match (self, lengths) {
            (Self::List(list), _) => Ok(Frames::List(tensors(list))),
            (Self::Padded(array), Some(lengths)) => Ok(Frames::Padded { array: array.0, lengths, side }),
            (Self::Padded(_), None) => Err(Error::Batch(format!(
                "{name} is a padded array, so {name}_lengths is needed: the true length of each utterance"
            ))),
        }
    }
}

fn tensors(list: Vec<PyTensor>) -> Vec<Tensor> {
    list.into_iter().map(|t| t.0).collect()
}

pub fn parse_kind(dtype: &str) -> Result<Kind> {
    match dtype {
        "float32" => Ok(Kind::Float),
        "float64" => Ok(Kind::Double),
        other => Err(Error::Config(format!("dtype must be \"float32\" or \"float64\", got {other:?}"))),
    }
}

pub fn parse_device(device: &str) -> Result<Device> {
    let number = match device {
        "cpu" => return Ok(Device::Cpu),
        "cuda" => Some(0),
        other => other.strip_prefix("cuda:").and_then(|number| number.parse().ok()),
    };
    number.map(Device::Cuda).ok_or_else(|| {
        Error::Device(format!("device must be \"cpu\", \"cuda\" or \"cuda:<n>\", got {device:?}"))
    })
}
