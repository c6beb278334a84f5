//! Adam or `AdamW` over flat storage, with a rate and a decay for each group; `ops/adam` has the arithmetic.

use tch::{Kind, Tensor};

use super::clock::Clock;
use crate::config::{AccumulateMode, OptimizerKind, TrainConfig};
use crate::device::{Pointer, to_device};
use crate::ops::adam::{After, Decay, Settings, Slice, adam};
use crate::params::{Group, Params};

/// Moments of every trained weight, in the order of flat storage, and the rates.
pub struct Optimizer {
    pub first: Tensor,
    pub second: Tensor,
    /// Steps so far.
    pub steps: i32,
    /// Learning rate and decay of each trained group, `(5, 2)`, where kernels on a device read them: a captured step
    /// then follows a change.
    rates: Tensor,
}

impl Optimizer {
    pub fn new(params: &Params, config: &TrainConfig) -> Self {
        let groups = Group::TRAINED.len() as i64;
        let mut optimizer = Self {
            first: params.grad.zeros_like(),
            second: params.grad.zeros_like(),
            steps: 0,
            rates: Tensor::zeros([groups, 2], (Kind::Double, params.grad.device())),
        };
        optimizer.set_rates(config);
        optimizer
    }

    /// Sets the rates and decays that steps on a device use from now on.
    pub fn set_rates(&mut self, config: &TrainConfig) {
        let pair = |group| <[f64; 2]>::from(rates(group, config));
        let now = Tensor::from_slice(Group::TRAINED.map(pair).as_flattened());
        self.rates.copy_(&to_device(&now, self.rates.device()).view_as(&self.rates));
    }

    /// Takes the next step, on the gradients that `window` micro-batches accumulated, and clears them. On a device
    /// the number of the step is read from the clock, and rates are those of [`Optimizer::set_rates`].
    pub fn step(&self, params: &mut Params, window: i64, config: &TrainConfig, clock: &Clock) {
        let scale = match config.accumulate_mode {
            AccumulateMode::Sum => 1.0,
            AccumulateMode::Mean => 1.0 / window as f64,
        };
        let how = match config.optimizer {
            OptimizerKind::Adam => Decay::Coupled,
            OptimizerKind::Adamw => Decay::Decoupled,
        };
        let t = self.steps + 1;
        let slices = params.ranges().into_iter().map(|(group, start, length)| {
            let part = |flat: &Tensor| flat.narrow(0, start, length);
            let slice = Slice {
                weights: part(&params.flat),
                grad: part(&params.grad),
                first: part(&self.first),
                second: part(&self.second),
                copy: params.half.as_ref().map(part),
            };
            let (rate, decay) = rates(group, config);
            let (t_at, unless) = (clock.optimizer_step(), clock.fault());
            let rates_at = Pointer::to(&self.rates).offset(2 * group as usize, Kind::Double);
            (slice, Settings { t, t_at, unless, rate, decay, rates_at, how, scale, after: After::Clear })
        });
        adam(slices.collect());
    }
}

/// Learning rate and decay of a group.
fn rates(group: Group, config: &TrainConfig) -> (f64, f64) {
    match group {
        Group::Text => (config.lr_text, config.decay_text),
        Group::TextNoDecay => (config.lr_text, 0.0),
        Group::Audio => (config.lr_audio, config.decay_audio),
        Group::Vision => (config.lr_vision, config.decay_vision),
        Group::Other => (config.lr_other, config.decay_other),
        Group::Frozen => (0.0, 0.0),
    }
}
