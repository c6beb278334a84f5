//! Adam or `AdamW` over flat storage in its groups, section 7.

use tch::Tensor;

use crate::config::{AccumulateMode, OptimizerKind, TrainConfig};
use crate::ops::adam::{Decay, Slice, adam};
use crate::params::{Group, Params};

/// Moments of every weight, in the order of flat storage.
pub struct Optimizer {
    first: Tensor,
    second: Tensor,
    steps: i32,
}

impl Optimizer {
    pub fn new(params: &Params) -> Self {
        Self { first: params.flat.zeros_like(), second: params.flat.zeros_like(), steps: 0 }
    }

    /// One step on the gradients that `window` micro-batches accumulated, which it clears.
    pub fn step(&mut self, params: &mut Params, window: i64, config: &TrainConfig) {
        let _no_grad = tch::no_grad_guard();
        if config.accumulate_mode == AccumulateMode::Mean {
            let _ = params.grad.g_div_scalar_(window as f64);
        }
        let how = match config.optimizer {
            OptimizerKind::Adam => Decay::Coupled,
            OptimizerKind::Adamw => Decay::Decoupled,
        };
        self.steps += 1;
        for (group, start, length) in params.ranges() {
            let part = |flat: &Tensor| flat.narrow(0, start, length);
            let mut slice = Slice {
                weights: part(&params.flat),
                grad: part(&params.grad),
                first: part(&self.first),
                second: part(&self.second),
            };
            let (rate, decay) = rates(group, config);
            adam(&mut slice, self.steps, rate, decay, how);
        }
        let _ = params.grad.zero_();
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
    }
}
