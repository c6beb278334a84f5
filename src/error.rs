//! The error type of the core. Each variant becomes the class of the same name in `mmiln.errors`.

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
