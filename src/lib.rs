//! The Rust core of `mmiln`: MMILN (Xue et al., CCL 2023) in one direction of flow,
//! **ragged batch -> encoders -> fusion layers -> heads -> losses -> update**.
//!
//! The rooms from the lowest to the highest. A room imports from those above it in this table and never from those
//! below, and no files import each other in a circle: `tests/test_rooms.py` reads the order here.
//!
//! | room | what is in it |
//! |---|---|
//! | [`error`] | errors of a call, faults that stop an operation |
//! | [`config`] | shape of the model, settings of training, presets |
//! | [`metrics`] | the field's measures |
//! | [`numeric`] | the crate in `crates/numeric`: numbers, vector instructions, matrix products, memory, threads |
//! | [`device`] | what a card needs: kernels compiled, kept, launched |
//! | [`rng`] | counter-based random numbers for initial weights and dropout |
//! | [`ragged`] | packed frames with offsets |
//! | [`ops`] | the operations: contract, shapes, equation, kernels; automatic differentiation |
//! | [`batch`] | a batch and its checks |
//! | [`params`] | named parameters over flat storage, optimiser groups |
//! | [`model`] | the graph, read like the paper |
//! | [`loss`] | task + alpha sim + beta diff |
//! | [`ulgm`] | pseudo-labels |
//! | [`train`] | a training run: step, optimiser, clock, state for checkpoints |
//! | `python` | the bindings, thin |

pub mod batch;
pub mod config;
pub mod device;
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
