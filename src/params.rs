//! Named parameters over flat storage.
//!
//! Each parameter is a leaf of the autograd graph and a view of one flat tensor, in which parameters
//! of one optimiser group lie side by side; gradients accumulate in a second one of the same order.

use std::cell::RefCell;
use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result};
use crate::rng;

/// Optimiser groups, in the order of flat storage (section 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    Text,
    /// Biases and `LayerNorm` of the text encoder: no decay.
    TextNoDecay,
    Audio,
    Vision,
    Other,
}

impl Group {
    pub const ALL: [Self; 5] = [Self::Text, Self::TextNoDecay, Self::Audio, Self::Vision, Self::Other];

    fn of(name: &str) -> Self {
        if name.starts_with("text.bert.") {
            let undecayed = name.contains("LayerNorm") || name.rsplit('.').next() == Some("bias");
            if undecayed { Self::TextNoDecay } else { Self::Text }
        } else if name.starts_with("audio.") {
            Self::Audio
        } else if name.starts_with("vision.") {
            Self::Vision
        } else {
            Self::Other
        }
    }
}

/// How a parameter starts, as `PyTorch` starts a layer of its kind.
#[derive(Clone, Copy)]
pub enum Init {
    Uniform(f64),
    Zeros,
    Ones,
}

impl Init {
    /// Linear and convolution, weight and bias: U(-1/sqrt(fan in), 1/sqrt(fan in)).
    pub fn fan_in(fan_in: i64) -> Self {
        Self::Uniform((fan_in as f64).sqrt().recip())
    }

    /// Xavier, as the attention's input projection: U(-b, b), b = sqrt(6 / (fan in + fan out)).
    pub fn xavier(fan_in: i64, fan_out: i64) -> Self {
        Self::Uniform((6.0 / (fan_in + fan_out) as f64).sqrt())
    }
}

/// One named parameter.
pub struct Param {
    pub name: String,
    /// The leaf that the graph uses; its storage is a part of [`Params::flat`].
    pub leaf: Tensor,
    pub group: Group,
    pub offset: i64,
}

/// Collects parameters while a model is built.
pub struct Builder {
    seed: u64,
    kind: Kind,
    device: Device,
    found: RefCell<Vec<(String, Tensor)>>,
}

impl Builder {
    pub fn new(seed: u64, kind: Kind, device: Device) -> Self {
        Self { seed, kind, device, found: RefCell::default() }
    }

    /// The outermost scope.
    pub fn root(&self) -> Scope<'_> {
        Scope { builder: self, path: String::new() }
    }

    /// Moves the collected parameters into flat storage, group by group.
    pub fn finish(self) -> Params {
        let mut found = self.found.into_inner();
        found.sort_by_key(|(name, _)| Group::of(name));
        let total = found.iter().map(|(_, leaf)| numel(leaf)).sum::<i64>();
        let flat = Tensor::zeros([total], (self.kind, self.device));
        let grad = flat.zeros_like();
        let mut offset = 0;
        let entries = found
            .into_iter()
            .map(|(name, mut leaf)| {
                let mut view = flat.narrow(0, offset, numel(&leaf)).view(&leaf.size()[..]);
                view.copy_(&leaf.detach());
                leaf.set_data(&view);
                let param = Param { group: Group::of(&name), name, leaf, offset };
                offset += numel(&param.leaf);
                param
            })
            .collect();
        Params { entries, flat, grad }
    }
}

/// A place in the tree of names.
pub struct Scope<'a> {
    builder: &'a Builder,
    path: String,
}

impl Scope<'_> {
    /// The scope `name` under this one.
    pub fn at(&self, name: impl std::fmt::Display) -> Self {
        Self { builder: self.builder, path: format!("{}{name}.", self.path) }
    }

    /// A new parameter `name` of this scope.
    pub fn param(&self, name: &str, shape: &[i64], init: Init) -> Tensor {
        let Builder { seed, kind, device, .. } = *self.builder;
        let name = format!("{}{name}", self.path);
        let leaf = match init {
            Init::Zeros => Tensor::zeros(shape, (kind, device)),
            Init::Ones => Tensor::ones(shape, (kind, device)),
            Init::Uniform(bound) => {
                let count = usize::try_from(shape.iter().product::<i64>()).unwrap_or(0);
                let values = rng::uniform(seed, &name, count, bound);
                Tensor::from_slice(&values).view(shape).to_kind(kind).to_device(device)
            }
        }
        .set_requires_grad(true);
        self.builder.found.borrow_mut().push((name, leaf.shallow_clone()));
        leaf
    }
}

/// All parameters of a model.
pub struct Params {
    pub entries: Vec<Param>,
    /// Every weight, `(total,)`.
    pub flat: Tensor,
    /// Accumulated gradients in the same order, `(total,)`.
    pub grad: Tensor,
}

impl Params {
    /// Gradients of a scalar by parameter, in the order of `entries`; zero where it does not depend on one.
    pub fn gradients(&self, scalar: &Tensor) -> Vec<Tensor> {
        let leaves: Vec<&Tensor> = self.entries.iter().map(|p| &p.leaf).collect();
        Tensor::run_backward(&[scalar], &leaves, false, false)
            .into_iter()
            .zip(&self.entries)
            .map(|(g, p)| if g.defined() { g } else { p.leaf.detach().zeros_like() })
            .collect()
    }

    /// Adds gradients in the order of `entries` to the accumulated ones.
    pub fn accumulate(&mut self, gradients: &[Tensor]) {
        for (param, gradient) in self.entries.iter().zip(gradients) {
            let mut sum = self.grad.narrow(0, param.offset, numel(gradient));
            let _ = sum.g_add_(&gradient.reshape([-1]));
        }
    }

    /// First and length of each group's run in flat storage.
    pub fn ranges(&self) -> Vec<(Group, i64, i64)> {
        Group::ALL
            .iter()
            .filter_map(|&group| {
                let mut members = self.entries.iter().filter(|p| p.group == group).peekable();
                let start = members.peek()?.offset;
                Some((group, start, members.map(|p| numel(&p.leaf)).sum()))
            })
            .collect()
    }

    /// A copy of every weight by name.
    pub fn state_dict(&self) -> Vec<(String, Tensor)> {
        self.entries.iter().map(|p| (p.name.clone(), p.leaf.detach().copy())).collect()
    }

    /// Sets the weights whose names start with `prefix` from `state`, all or none of them.
    ///
    /// # Errors
    /// [`Error::Weights`] that lists every missing, unexpected, misshapen or not finite weight; nothing is
    /// changed then.
    pub fn load_state_dict(&mut self, state: &BTreeMap<String, Tensor>, prefix: &str) -> Result<()> {
        let own: BTreeMap<&str, &Param> =
            self.entries.iter().filter(|p| p.name.starts_with(prefix)).map(|p| (&p.name[..], p)).collect();
        let mut faults = Vec::new();
        for (name, param) in &own {
            match state.get(*name) {
                None => faults.push(format!("missing: {name} {:?}", param.leaf.size())),
                Some(given) if given.size() != param.leaf.size() => faults.push(format!(
                    "misshapen: {name} expected {:?}, got {:?}",
                    param.leaf.size(),
                    given.size()
                )),
                Some(given) if !given.is_floating_point() => {
                    faults.push(format!("not floating point: {name} is {:?}", given.kind()));
                }
                Some(given) if !all_finite(&given.to_kind(param.leaf.kind())) => {
                    faults.push(format!("not finite: {name} holds NaN, infinity or more than its type can"));
                }
                Some(_) => {}
            }
        }
        faults.extend(state.keys().filter(|k| !own.contains_key(&k[..])).map(|k| format!("unexpected: {k}")));
        if !faults.is_empty() {
            const SHOWN: usize = 20;
            let more = faults.len().saturating_sub(SHOWN);
            faults.truncate(SHOWN);
            if more > 0 {
                faults.push(format!("and {more} more"));
            }
            return Err(Error::Weights(format!(
                "these weights do not fit the model, which is left as it was:\n  {}",
                faults.join("\n  ")
            )));
        }
        for (name, param) in own {
            param.leaf.detach().copy_(&state[name]);
        }
        Ok(())
    }
}

fn all_finite(tensor: &Tensor) -> bool {
    bool::try_from(tensor.isfinite().all()).unwrap_or(false)
}

/// Number of elements as libtorch counts them.
fn numel(tensor: &Tensor) -> i64 {
    tensor.size().iter().product()
}
