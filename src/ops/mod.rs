//! The operations of the model. One that runs on the CPU alone is a file: contract, shapes, source equation, forward
//! and backward. One with CUDA kernels is a folder: the same in `mod.rs`, the kernels in `cuda.cu`, their launches in
//! `cuda.rs`.
//!
//! Ops work on packed frames and layouts and know nothing of models. Those that the model runs on independent streams
//! take several calls at once.

pub mod adam;
pub mod attention;
pub mod autograd;
pub mod bigru_control;
pub mod cmd;
pub mod conv1d;
pub mod cuda;
pub mod dropout;
pub mod embedding;
pub mod feed_forward;
pub mod finite;
pub mod gated_norm;
pub mod linear;
pub mod lstm;
pub mod memory;
pub mod parallel;
mod pieces;
pub mod pooling;
pub mod profile;
pub mod recurrent;
pub mod source_gate;
pub mod ulgm;
mod weights;

pub use weights::{LayerNorm, Linear, Recurrent, Weight};

use crate::device::Source;

/// Every file of kernels.
pub const SOURCES: &[Source] = &[
    adam::cuda::SOURCE,
    attention::cuda::SOURCE,
    bigru_control::cuda::SOURCE,
    cmd::cuda::SOURCE,
    conv1d::cuda::SOURCE,
    cuda::product::SOURCE,
    cuda::reduce::SOURCE,
    dropout::cuda::SOURCE,
    embedding::cuda::SOURCE,
    finite::cuda::SOURCE,
    gated_norm::cuda::SOURCE,
    linear::cuda::SOURCE,
    lstm::cuda::SOURCE,
    pooling::cuda::SOURCE,
    source_gate::cuda::SOURCE,
    ulgm::cuda::SOURCE,
];
