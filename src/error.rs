//! Errors of a call, each of which becomes the class of the same name in `mmiln.errors`, and faults.

use std::any::Any;

/// An error of the caller, or one that the core found, in a sentence for the person who made the call.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Config(String),
    #[error("{0}")]
    Batch(String),
    #[error("{0}")]
    Weights(String),
    #[error("{0}")]
    State(String),
    #[error("{0}")]
    Device(String),
    #[error("{0}")]
    NonFinite(String),
}

pub type Result<T> = std::result::Result<T, Error>;

/// A failure that stops an operation half-way but is not a defect: the payload of a panic. The entry point from Python
/// catches it and raises the exception that fits.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// There is not enough memory.
    #[error("{0}")]
    Memory(String),
    /// A device can not do what was asked: a kernel is missing, a limit is exceeded, or CUDA reports an error.
    #[error("{0}")]
    Device(String),
}

impl Fault {
    /// Stops the operation.
    ///
    /// # Panics
    /// Always, with the fault as its payload.
    pub fn raise(self) -> ! {
        std::panic::panic_any(self)
    }
}

/// The message of a panic, whose payload is a [`Fault`] or a text.
pub fn message_of(panic: &(dyn Any + Send)) -> String {
    let fault = panic.downcast_ref::<Fault>().map(ToString::to_string);
    let text = || panic.downcast_ref::<String>().cloned();
    let constant = || panic.downcast_ref::<&str>().map(ToString::to_string);
    fault.or_else(text).or_else(constant).unwrap_or_else(|| "no message".into())
}
