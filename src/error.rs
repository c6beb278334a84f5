//! What goes wrong: errors of a call, which each become the class of the same name in `mmiln.errors`, and faults.

use std::any::Any;

/// What a caller did wrong, or what the core found wrong, in a sentence for the person who made the call.
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

/// What stops an operation half-way and is no defect: the payload of a panic. The entry point from Python catches it
/// and raises the exception that fits.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// Memory was asked for that is not there.
    #[error("{0}")]
    Memory(String),
    /// A device, or what it needs, refuses.
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

/// What a panic said, by a [`Fault`] or by a text.
pub fn message_of(panic: &(dyn Any + Send)) -> String {
    let fault = panic.downcast_ref::<Fault>().map(ToString::to_string);
    let text = || panic.downcast_ref::<String>().cloned();
    let constant = || panic.downcast_ref::<&str>().map(ToString::to_string);
    fault.or_else(text).or_else(constant).unwrap_or_else(|| "no message".into())
}
