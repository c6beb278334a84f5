//! The numbers besides the batch that change from step to step, where kernels on a device read them, so that one
//! captured graph of launches serves all steps; and the first step that the kernels found not to be finite.

use tch::{Device, Kind, Tensor};

use crate::device::{Pointer, to_device};
use crate::rng::Key;

/// Holds, for one step, dropout's key, the epoch, the optimiser's step and the step, each from 1; then the step and
/// the optimiser's step of the first one that was not finite, zero while all were.
/// [`crate::ops::finite::cuda::note`] reads and writes them.
pub struct Clock(Tensor);

const PLACES: i64 = 6;
const EPOCH: usize = 1;
const OPTIMIZER_STEP: usize = 2;
const FAULT: usize = 4;

/// A step that was not finite.
pub struct NonFiniteStep {
    /// From 1.
    pub step: u32,
    /// From 1.
    pub optimizer_step: i32,
}

impl Clock {
    pub fn new(device: Device) -> Self {
        Self(Tensor::zeros([PLACES], (Kind::Int64, device)))
    }

    /// Sets the numbers for kernels that are launched from now on.
    pub fn set(&self, key: u64, epoch: i64, optimizer_step: i64, step: i64) {
        let now = Tensor::from_slice(&[key.cast_signed(), epoch, optimizer_step, step]);
        self.0.narrow(0, 0, FAULT as i64).copy_(&to_device(&now, self.0.device()));
    }

    /// Dropout's key.
    pub fn key(&self) -> Key {
        Key::At(self.at(0))
    }

    /// The epoch, from 1.
    pub fn epoch(&self) -> Pointer {
        self.at(EPOCH)
    }

    /// The optimiser's step, from 1.
    pub fn optimizer_step(&self) -> Pointer {
        self.at(OPTIMIZER_STEP)
    }

    /// All numbers, for the kernel that looks for losses and gradients that are not finite.
    pub fn all(&self) -> Pointer {
        self.at(0)
    }

    /// Not zero once a step was not finite: neither that step nor later ones may change the state.
    pub fn fault(&self) -> Pointer {
        self.at(FAULT)
    }

    /// The first step that was not finite since this was asked last; waits for the device.
    pub fn take_fault(&self) -> Option<NonFiniteStep> {
        let fault = self.0.narrow(0, FAULT as i64, 2);
        let [step, optimizer_step] = [0, 1].map(|place| fault.int64_value(&[place]));
        let _ = fault.shallow_clone().zero_();
        (step > 0).then_some(NonFiniteStep { step: step as u32, optimizer_step: optimizer_step as i32 })
    }

    fn at(&self, place: usize) -> Pointer {
        Pointer::to(&self.0).offset(place, Kind::Int64)
    }
}
