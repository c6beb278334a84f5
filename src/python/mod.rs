//! The bindings: they take owned inputs, release the GIL and map errors. No arithmetic.

mod batch;
mod core;
mod entry;
mod functional;
mod kernels;

use std::ffi::{CStr, c_char};

use numpy::PyReadonlyArray1;
use pyo3::prelude::*;

use crate::config::{ModelConfig, PRESETS, TrainConfig, preset};
use crate::metrics;

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    entry::silence_caught_panics();
    module.add("TORCH_VERSION", torch_version())?;
    module.add("PRESETS", PRESETS.to_vec())?;
    module.add_class::<batch::PyBatch>()?;
    module.add_class::<core::Core>()?;
    module.add_function(wrap_pyfunction!(preset_json, module)?)?;
    module.add_function(wrap_pyfunction!(check_config, module)?)?;
    module.add_function(wrap_pyfunction!(metrics_of, module)?)?;
    functional::register(module)?;
    kernels::register(module)
}

unsafe extern "C" {
    fn mmiln_torch_version() -> *const c_char;
}

/// The version of torch that this module was compiled against, such as `2.15.0`.
fn torch_version() -> &'static str {
    // SAFETY: the pointer is to a literal of ASCII characters.
    unsafe { CStr::from_ptr(mmiln_torch_version()) }.to_str().expect("a version is ASCII")
}

/// Model and training fields of a preset, as a JSON object each.
#[pyfunction]
fn preset_json(py: Python<'_>, name: &str) -> PyResult<(String, String)> {
    entry::run(py, || {
        let (model, train) = preset(name)?;
        Ok((entry::to_json(&model), entry::to_json(&train)))
    })
}

/// Refuses model or training fields that are unknown, of the wrong type or out of range.
#[pyfunction]
fn check_config(py: Python<'_>, model: &str, train: &str) -> PyResult<()> {
    entry::run(py, || {
        entry::from_json::<ModelConfig>(model)?.validate()?;
        entry::from_json::<TrainConfig>(train)?.validate()
    })
}

/// The measures of CH-SIMS or of CMU-MOSI by name, of two arrays of equal length, not empty.
#[pyfunction]
fn metrics_of(
    truth: PyReadonlyArray1<f64>,
    prediction: PyReadonlyArray1<f64>,
    sims: bool,
) -> PyResult<Vec<(&'static str, f64)>> {
    let measure = if sims { metrics::sims } else { metrics::mosi };
    Ok(measure(truth.as_slice()?, prediction.as_slice()?))
}
