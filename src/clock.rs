//! What changes from one training step to the next beside the batch, where kernels on a device read it: a graph
//! of launches that was captured once serves all steps.

use tch::{Device, Kind, Tensor};

use crate::ops::cuda::{Pointer, to_device};
use crate::rng::Key;

/// Key of dropout, epoch and number of the optimiser's step, on a device.
pub struct Clock(Tensor);

impl Clock {
    pub fn new(device: Device) -> Self {
        Self(Tensor::zeros([3], (Kind::Int64, device)))
    }

    /// Sets all three for what is launched from now on.
    pub fn set(&self, key: u64, epoch: i64, optimizer_step: i64) {
        let now = Tensor::from_slice(&[key.cast_signed(), epoch, optimizer_step]);
        self.0.shallow_clone().copy_(&to_device(&now, self.0.device()));
    }

    /// Dropout's key.
    pub fn key(&self) -> Key {
        Key::At(self.at(0))
    }

    /// The epoch, from 1.
    pub fn epoch(&self) -> Pointer {
        self.at(1)
    }

    /// The optimiser's step, from 1.
    pub fn optimizer_step(&self) -> Pointer {
        self.at(2)
    }

    fn at(&self, place: usize) -> Pointer {
        Pointer::to(&self.0).offset(place, Kind::Int64)
    }
}
