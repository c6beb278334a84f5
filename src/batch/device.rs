//! A batch on a device: all of its tensors in one buffer, which one copy fills.
//!
//! Packed rows are rounded up to a few sizes, so that batches of about the same length have the same shapes: a
//! graph of launches that was captured for one of them serves the others.

use tch::{Device, Kind, Tensor};

use crate::device::to_device;

/// Number of rows for `total` frames: an eighth more on average, a quarter more at most, and 16 at least.
pub fn rounded_rows(total: usize) -> usize {
    let step = (total.next_power_of_two() / 8).max(16);
    total.next_multiple_of(step)
}

/// Tensors one after the other in a single piece of memory.
#[derive(Debug)]
pub struct Buffer {
    bytes: Tensor,
    parts: Vec<Part>,
}

/// A tensor in the buffer.
#[derive(Clone, Debug)]
struct Part {
    /// Offset in bytes.
    start: i64,
    kind: Kind,
    shape: Vec<i64>,
}

/// Each part begins at a multiple of this many bytes.
const ALIGNMENT: i64 = 256;

impl Part {
    fn size(&self) -> i64 {
        self.shape.iter().product::<i64>() * self.kind.elt_size_in_bytes() as i64
    }

    fn of(&self, bytes: &Tensor) -> Tensor {
        bytes.narrow(0, self.start, self.size()).view_dtype(self.kind).view(&self.shape[..])
    }
}

impl Buffer {
    /// Copies of tensors of the CPU on a device, made without waiting for them.
    pub fn of(tensors: &[&Tensor], device: Device) -> Self {
        let mut end = 0;
        let parts: Vec<Part> = tensors
            .iter()
            .map(|tensor| {
                let part = Part { start: end, kind: tensor.kind(), shape: tensor.size() };
                end = (end + part.size() + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
                part
            })
            .collect();
        let host = Tensor::zeros([end], (Kind::Uint8, Device::Cpu));
        for (part, tensor) in parts.iter().zip(tensors) {
            part.of(&host).copy_(tensor);
        }
        Self { bytes: to_device(&host, device), parts }
    }

    /// A new buffer with the same parts and the same content.
    pub fn copy(&self) -> Self {
        Self { bytes: self.bytes.copy(), parts: self.parts.clone() }
    }

    /// Copies the content of another buffer with the same parts.
    pub fn copy_from(&mut self, other: &Self) {
        self.bytes.copy_(&other.bytes);
    }

    /// The memory of all parts.
    pub fn bytes(&self) -> &Tensor {
        &self.bytes
    }

    /// The tensors, in the order in which they were given.
    pub fn tensors(&self) -> Vec<Tensor> {
        self.parts.iter().map(|part| part.of(&self.bytes)).collect()
    }
}
