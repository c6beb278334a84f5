//! What the kernels are written in: numbers of two widths, vectors of three instruction sets, products.

pub mod buffer;
pub mod kernel;
pub mod lanes;
pub mod matrix;
pub mod norm;
pub mod product;
pub mod real;

pub use buffer::{Scratch, Shared};
pub(crate) use kernel::kernel;
pub use lanes::{Lanes, Window, add, windows};
pub use matrix::{LaidOut, Matrix, Start, multiply, multiply_at};
pub use product::{product, product_at};
pub use real::Real;
