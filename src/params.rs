//! Named parameters over flat storage.
//!
//! Each parameter is a view of one flat tensor, in which parameters of one optimiser group lie side by
//! side. Operations add its gradients to a view of a second flat tensor of the same order; a frozen
//! parameter has none and stands last.

use std::cell::RefCell;
use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

use crate::config::Precision;
use crate::error::{Error, Result};
use crate::ops::Weight;
use crate::rng;

/// Optimiser groups, each with a learning rate and decay of its own, in the order of flat storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    Text,
    /// Biases and `LayerNorm` of the text encoder: no decay.
    TextNoDecay,
    Audio,
    Vision,
    Other,
    /// Not trained.
    Frozen,
}

impl Group {
    pub const TRAINED: [Self; 5] = [Self::Text, Self::TextNoDecay, Self::Audio, Self::Vision, Self::Other];

    fn of(name: &str, frozen: bool) -> Self {
        if frozen {
            Self::Frozen
        } else if name.starts_with("text.bert.") {
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
    /// A part of [`Params::flat`].
    pub value: Tensor,
    /// The same part of [`Params::grad`].
    pub grad: Option<Tensor>,
    pub group: Group,
    pub offset: i64,
}

/// Collects parameters while a model is built.
pub struct Builder {
    seed: u64,
    kind: Kind,
    device: Device,
    precision: Precision,
    found: RefCell<Vec<(String, Weight)>>,
}

impl Builder {
    pub fn new(seed: u64, kind: Kind, device: Device, precision: Precision) -> Self {
        Self { seed, kind, device, precision, found: RefCell::default() }
    }

    /// The outermost scope.
    pub fn root(&self) -> Scope<'_> {
        Scope { builder: self, path: String::new(), frozen: false }
    }

    /// Moves the collected parameters into flat storage, group by group.
    pub fn finish(self) -> Params {
        let group = |(name, weight): &(String, Weight)| Group::of(name, weight.grad.is_none());
        let mut found = self.found.into_inner();
        found.sort_by_key(group);
        let size = |weights: &[(String, Weight)]| weights.iter().map(|(_, w)| numel(&w.value)).sum::<i64>();
        let trained = found.partition_point(|weight| group(weight) < Group::Frozen);
        let zeros = |count| Tensor::zeros([count], (self.kind, self.device));
        let (flat, grad) = (zeros(size(&found)), zeros(size(&found[..trained])));
        let half = (self.precision == Precision::Bf16).then(|| flat.to_kind(Kind::BFloat16));
        let mut offset = 0;
        let entries = found
            .into_iter()
            .map(|(name, weight)| {
                let group = Group::of(&name, weight.grad.is_none());
                let Weight { mut value, grad: mut own, half: copy } = weight;
                let part = |whole: &Tensor| whole.narrow(0, offset, numel(&value)).view(&value.size()[..]);
                let mut place = part(&flat);
                place.copy_(&value);
                // The handles that the model holds now point there, too.
                if let Some(own) = &mut own {
                    own.set_data(&part(&grad));
                }
                if let (Some(mut copy), Some(half)) = (copy, &half) {
                    copy.set_data(&part(half));
                }
                value.set_data(&place);
                offset += numel(&value);
                Param { name, offset: offset - numel(&value), value, grad: own, group }
            })
            .collect();
        Params { entries, flat, grad, half }
    }
}

/// A place in the tree of names.
pub struct Scope<'a> {
    builder: &'a Builder,
    path: String,
    frozen: bool,
}

impl Scope<'_> {
    /// The scope `name` under this one.
    pub fn at(&self, name: impl std::fmt::Display) -> Self {
        Self { builder: self.builder, path: format!("{}{name}.", self.path), frozen: self.frozen }
    }

    /// The same scope; parameters declared in the new one are not trained if `frozen`.
    pub fn frozen(&self, frozen: bool) -> Self {
        Self { builder: self.builder, path: self.path.clone(), frozen: self.frozen || frozen }
    }

    /// A new parameter `name` of this scope.
    pub fn param(&self, name: &str, shape: &[i64], init: Init) -> Weight {
        let Builder { seed, kind, device, .. } = *self.builder;
        let name = format!("{}{name}", self.path);
        let value = match init {
            Init::Zeros => Tensor::zeros(shape, (kind, device)),
            Init::Ones => Tensor::ones(shape, (kind, device)),
            Init::Uniform(bound) => {
                let count = usize::try_from(shape.iter().product::<i64>()).unwrap_or(0);
                let values = rng::uniform(seed, &name, count, bound);
                Tensor::from_slice(&values).view(shape).to_kind(kind).to_device(device)
            }
        };
        let grad = (!self.frozen).then(|| Tensor::empty([0], (kind, device)));
        // Only the text encoder has maps wide enough to gain from bfloat16.
        let halved = self.builder.precision == Precision::Bf16 && name.starts_with("text.bert.");
        let half = halved.then(|| Tensor::empty([0], (Kind::BFloat16, device)));
        let handle = |tensor: &Tensor| tensor.shallow_clone();
        let weight = Weight {
            value: handle(&value),
            grad: grad.as_ref().map(handle),
            half: half.as_ref().map(handle),
        };
        self.builder.found.borrow_mut().push((name, weight));
        Weight { value, grad, half }
    }
}

/// All parameters of a model.
pub struct Params {
    pub entries: Vec<Param>,
    /// Every weight, `(total,)`.
    pub flat: Tensor,
    /// Accumulated gradients of the trained ones in the same order.
    pub grad: Tensor,
    /// Every weight in bfloat16, in the same order, where the text encoder computes in it.
    pub half: Option<Tensor>,
}

impl Params {
    /// Renews the copies in bfloat16; to be called where weights were set from outside.
    pub fn weights_changed(&self) {
        if let Some(half) = &self.half {
            half.shallow_clone().copy_(&self.flat);
        }
    }

    /// Gradients of a scalar by parameter name, zero for a frozen one; accumulated gradients do not change.
    pub fn gradients(&mut self, scalar: &Tensor) -> Vec<(String, Tensor)> {
        let before = self.grad.copy();
        let _ = self.grad.zero_();
        scalar.backward();
        let found = self.entries.iter().map(|p| {
            let gradient = p.grad.as_ref().map_or_else(|| p.value.zeros_like(), Tensor::copy);
            (p.name.clone(), gradient)
        });
        let found = found.collect();
        self.grad.copy_(&before);
        found
    }

    /// Start and length of each trained group's range in flat storage.
    pub fn ranges(&self) -> Vec<(Group, i64, i64)> {
        Group::TRAINED
            .iter()
            .filter_map(|&group| {
                let mut members = self.entries.iter().filter(|p| p.group == group).peekable();
                let start = members.peek()?.offset;
                Some((group, start, members.map(|p| numel(&p.value)).sum()))
            })
            .collect()
    }

    /// Names of the weights that are not trained.
    pub fn frozen(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().filter(|p| p.group == Group::Frozen).map(|p| &p.name[..])
    }

    /// A copy of every weight by name.
    pub fn state_dict(&self) -> Vec<(String, Tensor)> {
        self.entries.iter().map(|p| (p.name.clone(), p.value.copy())).collect()
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
                None => faults.push(format!("missing: {name} {:?}", param.value.size())),
                Some(given) if given.size() != param.value.size() => faults.push(format!(
                    "misshapen: {name} expected {:?}, got {:?}",
                    param.value.size(),
                    given.size()
                )),
                Some(given) if !given.is_floating_point() => {
                    faults.push(format!("not floating point: {name} is {:?}", given.kind()));
                }
                Some(given) if !all_finite(&given.to_kind(param.value.kind())) => {
                    faults.push(format!("not finite: {name} holds NaN, infinity or more than its type can"));
                }
                Some(_) => {}
            }
        }
        faults.extend(state.keys().filter(|k| !own.contains_key(&k[..])).map(|k| format!("unexpected: {k}")));
        if !faults.is_empty() {
            return Err(refused("these weights do", faults));
        }
        for (name, param) in own {
            param.value.shallow_clone().copy_(&state[name]);
        }
        self.weights_changed();
        Ok(())
    }
}

/// The error for named tensors that do not fit; `what` is the subject with "do" or "does".
pub fn refused(what: &str, mut faults: Vec<String>) -> Error {
    const SHOWN: usize = 20;
    let more = faults.len().saturating_sub(SHOWN);
    faults.truncate(SHOWN);
    if more > 0 {
        faults.push(format!("and {more} more"));
    }
    Error::Weights(format!("{what} not fit the model, which is left as it was:\n  {}", faults.join("\n  ")))
}

fn all_finite(tensor: &Tensor) -> bool {
    bool::try_from(tensor.isfinite().all()).unwrap_or(false)
}

/// Number of elements as libtorch counts them.
fn numel(tensor: &Tensor) -> i64 {
    tensor.size().iter().product()
}
