//! What changes from one training step to the next beside the batch, where kernels on a device read it: a graph
//! of launches that was captured once serves all steps. And what they say back: which step was not finite.

use tch::{Device, Kind, Tensor};

use crate::device::{Pointer, to_device};
use crate::rng::Key;

/// Of one step: dropout's key, the epoch from 1, the optimiser's step from 1, the step itself from 1; and the last
/// two of the first step that was not finite, zero where all were. [`crate::ops::finite::cuda::note`] reads and
/// writes them.
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

    /// Sets them for what is launched from now on.
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

    /// All of them, for the kernel that looks for what is not finite.
    pub fn all(&self) -> Pointer {
        self.at(0)
    }

    /// Not zero once a step was not finite, whose and whose followers' changes are not to be made.
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
