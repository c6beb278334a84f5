//! The numeric base of the CPU's kernels: numbers of two widths, vectors of three instruction sets, matrix products,
//! working memory and threads. It depends neither on Python nor on libtorch.
//!
//! Each file uses only those above it, which `tests/test_rooms.py` holds:
//!
//! | file | what is in it |
//! |---|---|
//! | [`number`] | float32 and float64: arithmetic on one number and on a register full of them |
//! | [`lanes`] | registers with the operators of numbers, and loops over rows by registers |
//! | [`real`] | exp, tanh, erf, sigmoid |
//! | [`kernel`] | functions compiled once for each instruction set |
//! | [`norm`] | sums, layer normalisation |
//! | [`pool`] | large blocks of memory that training steps reuse |
//! | [`buffer`] | working memory, slices that several threads fill |
//! | [`matrix`] | matrices with any strides |
//! | [`product`] | products of them within a kernel |
//! | [`parallel`] | the threads |
//! | [`gemm`] | products outside kernels, large ones on several threads |
//! | `fork` | [`mind_forks`]: makes forking safe while threads use these locks |

pub mod buffer;
mod fork;
pub mod gemm;
pub mod kernel;
pub mod lanes;
pub mod matrix;
pub mod norm;
pub mod number;
pub mod parallel;
pub mod pool;
pub mod product;
pub mod real;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use buffer::{Scratch, Shared};
pub use fork::mind_forks;
pub use gemm::{multiply, multiply_at};
pub use lanes::{Lanes, Window, windows};
pub use matrix::{LaidOut, Matrix, Start};
pub use norm::add;
pub use number::Number;
pub use product::{product, product_at};
pub use pulp;
pub use real::Real;

/// Locks a mutex whose value stays valid even if its holder panics.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
