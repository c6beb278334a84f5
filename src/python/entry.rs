//! The one way from Python into the core: it makes torch's state neutral, releases the GIL, stops panics and maps
//! errors.

use std::any::Any;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};

use pyo3::exceptions::{PyMemoryError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::types::PyType;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Fault, Result, message_of};
use crate::ops::parallel::{PANIC_IS_CAUGHT, kernels_alone};

/// Keeps a panic that [`run`] turns into an exception from also being printed.
pub fn silence_caught_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !PANIC_IS_CAUGHT.get() {
            before(info);
        }
    }));
}

/// Runs `f` without the GIL, in a neutral state of torch; its error, or a panic, becomes an exception of
/// `mmiln.errors`.
pub fn run<T: Send>(py: Python<'_>, f: impl FnOnce() -> Result<T> + Send) -> PyResult<T> {
    run_as_is(py, || {
        let _neutral = Neutral::enter();
        kernels_alone(f)
    })
}

/// While this lives, gradients are on, and inference mode and autocast are off, on this thread. Set in C++, as in
/// Python Ctrl-C could come in between.
struct Neutral(*mut c_void);

impl Neutral {
    fn enter() -> Self {
        // SAFETY: takes nothing; what it returns is given back once, below.
        Self(unsafe { mmiln_neutral_enter() })
    }
}

impl Drop for Neutral {
    fn drop(&mut self) {
        // SAFETY: made by `mmiln_neutral_enter` on this thread, as a raw pointer is not sent to another.
        unsafe { mmiln_neutral_leave(self.0) };
    }
}

// csrc/neutral.cpp
unsafe extern "C" {
    fn mmiln_neutral_enter() -> *mut c_void;
    fn mmiln_neutral_leave(neutral: *mut c_void);
}

/// [`run`] in the caller's own state of torch, whose gradient mode decides whether there is a graph.
pub fn run_as_is<T: Send>(py: Python<'_>, f: impl FnOnce() -> Result<T> + Send) -> PyResult<T> {
    let outcome = py.allow_threads(|| {
        let outer = PANIC_IS_CAUGHT.replace(true);
        let outcome = catch_unwind(AssertUnwindSafe(f));
        PANIC_IS_CAUGHT.set(outer);
        outcome
    });
    match outcome {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(raise(py, class_of(&error), &error.to_string())),
        Err(panic) => Err(explain(py, panic)),
    }
}

fn class_of(error: &Error) -> &'static str {
    match error {
        Error::Config(_) => "ConfigError",
        Error::Batch(_) => "BatchError",
        Error::Weights(_) => "WeightsError",
        Error::State(_) => "StateError",
        Error::Device(_) => "DeviceError",
        Error::NonFinite(_) => "NonFiniteError",
    }
}

/// An exception of `mmiln.errors` by class name.
fn raise(py: Python<'_>, class: &str, message: &str) -> PyErr {
    match py
        .import("mmiln.errors")
        .and_then(|m| m.getattr(class))
        .and_then(|c| Ok(c.downcast_into::<PyType>()?))
    {
        Ok(class) => PyErr::from_type(class, message.to_owned()),
        Err(_) => PyRuntimeError::new_err(message.to_owned()),
    }
}

/// The exception for a panic: a [`Fault`] says what it means, all else is a defect.
fn explain(py: Python<'_>, panic: Box<dyn Any + Send>) -> PyErr {
    let message = message_of(panic.as_ref());
    match panic.downcast().map_or_else(|_| fault_in(&message), |fault| Some(*fault)) {
        Some(Fault::Memory(message)) => {
            let first = message.lines().next().unwrap_or_default();
            PyMemoryError::new_err(format!(
                "not enough memory ({first}); use a smaller batch_size or a smaller model"
            ))
        }
        Some(Fault::Device(message)) => raise(py, "DeviceError", &message),
        None => raise(
            py,
            "InternalError",
            &format!("a defect of mmiln, please report it with this text: {message}"),
        ),
    }
}

/// The fault that a text describes. A C++ exception reaches Rust as a text: those that libtorch throws, and our own
/// faults in a backward pass, which libtorch's engine runs. `crates/numeric` panics with a text, too.
fn fault_in(text: &str) -> Option<Fault> {
    if text.contains("out of memory") || text.contains("can't allocate memory") {
        Some(Fault::Memory(text.to_owned()))
    } else if text.contains("CUDA error") || text.contains("CUDA: ") {
        Some(Fault::Device(text.to_owned()))
    } else {
        None
    }
}

/// A value of ours, as JSON.
pub fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain data always has a JSON form")
}

/// Plain data out of JSON, with the field's path in the message where it can't be read.
pub fn from_json<T: DeserializeOwned>(text: &str) -> Result<T> {
    serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_str(text)).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner().to_string();
        let inner = inner.split(" at line ").next().unwrap_or_default();
        Error::Config(if path == "." { inner.to_owned() } else { format!("{path}: {inner}") })
    })
}
