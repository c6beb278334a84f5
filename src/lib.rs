//! The Rust core of `mmiln`: MMILN (Xue et al., CCL 2023) in one direction of flow,
//! **ragged batch -> encoders -> fusion layers -> heads -> losses -> update**.
//!
//! | room | what is in it |
//! |---|---|
//! | [`config`] | shape of the model, settings of training, presets |
//! | [`numeric`] | the crate in `crates/numeric`: numbers, vector instructions, matrix products, memory, threads |
//! | [`ragged`], [`batch`] | packed frames with offsets; a batch and its checks |
//! | [`rng`] | counter-based random numbers for initial weights and dropout |
//! | [`clock`] | what changes from step to step, where kernels on a device read it |
//! | [`params`] | named parameters over flat storage, optimiser groups |
//! | [`ops`] | one folder an operation: contract, shapes, equation, kernels; automatic differentiation |
//! | [`model`] | the graph, read like the paper |
//! | [`loss`], [`ulgm`] | task + alpha sim + beta diff; pseudo-labels |
//! | [`train`] | a training run: step, optimiser, state for checkpoints |
//! | [`metrics`] | the field's measures |
//! | `python` | the bindings, thin |
//!
//! A lower room never imports a higher one.

pub mod batch;
pub mod clock;
pub mod config;
pub mod error;
pub mod loss;
pub mod metrics;
pub mod model;
pub mod ops;
pub mod params;
mod python;
pub mod ragged;
pub mod rng;
pub mod train;
pub mod ulgm;

pub use mmiln_numeric as numeric;
use pyo3::prelude::*;

#[pymodule]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    numeric::mind_forks();
    python::register(module)
}
