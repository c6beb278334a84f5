//! The CUDA kernels for tests: compiled for a card that need not be present, or run on the CPU.

use std::path::PathBuf;

use pyo3::prelude::*;

use super::batch::parse_kind;
use super::entry;
use crate::device::{self, Source, shim};
use crate::error::Error;
use crate::ops::SOURCES;

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(compile_kernels, module)?)?;
    module.add_function(wrap_pyfunction!(emulate_kernels, module)?)
}

/// The CUDA assembler's report on each file of kernels, compiled for a compute capability such as 90.
#[pyfunction]
fn compile_kernels(py: Python<'_>, capability: u32, dtype: &str) -> PyResult<Vec<(&'static str, String)>> {
    entry::run_as_is(py, || {
        let kind = parse_kind(dtype)?;
        let compile = |source: &Source| {
            let cubin = device::compile(*source, kind, capability).map_err(Error::Device)?;
            Ok((source.name, cubin.log))
        };
        SOURCES.iter().map(compile).collect()
    })
}

/// Sends every operation to the CUDA kernels that were compiled for the CPU into `folder`; `None` undoes it.
#[pyfunction]
fn emulate_kernels(py: Python<'_>, folder: Option<PathBuf>) -> PyResult<()> {
    entry::run_as_is(py, || {
        shim::load(folder.as_deref())
            .map_err(|error| Error::Device(format!("no kernels for the CPU in {folder:?}: {error}")))
    })
}
