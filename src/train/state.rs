//! The whole state of a training run by name, which a checkpoint holds: how it is copied out and put back.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::{Run, Trainer, no_run};
use crate::error::{Error, Result};
use crate::params::refused;
use crate::ulgm::Ulgm;

/// The counters of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counters {
    /// From 1; 0 before the first.
    pub epoch: i64,
    /// Micro-batches so far, the address of dropout.
    pub step: u32,
    /// Micro-batches whose gradients wait for the optimiser.
    pub pending: i64,
    /// Steps of the optimiser so far.
    pub optimizer_steps: i32,
}

impl Counters {
    fn check(&self, accumulate: i64) -> Result<()> {
        let Self { epoch, step, pending, optimizer_steps } = *self;
        let far = i32::MAX / 2; // so that later steps do not overflow
        if (0..far.into()).contains(&epoch)
            && step < far.cast_unsigned()
            && (0..accumulate).contains(&pending)
            && (0..far).contains(&optimizer_steps)
        {
            return Ok(());
        }
        Err(Error::State(format!("no run with accumulate={accumulate} reaches {self:?}")))
    }
}

/// Prefix of the weights that [`Trainer::keep_best`] remembered, which a run may lack.
const BEST: &str = "best.";

impl Trainer {
    /// Copies of every tensor that the run depends on, and its counters: `weights.*` and, of those that are
    /// trained, `gradients.*` (accumulated), `first.*`, `second.*` (moments) by parameter; `best.*`; `ulgm.*`.
    ///
    /// # Errors
    /// [`Error::State`] where no run was started.
    pub fn training_state(&self) -> Result<(Vec<(String, Tensor)>, Counters)> {
        let run = self.run.as_ref().ok_or_else(no_run)?;
        let mut state = self.places(run);
        for (_, place) in &mut state {
            *place = place.copy();
        }
        if let Some(best) = &run.best {
            state.extend(self.by_name(BEST, best).map(|(name, part)| (name, part.copy())));
        }
        let Run { epoch, step, pending, .. } = *run;
        Ok((state, Counters { epoch, step, pending, optimizer_steps: run.optimizer.steps }))
    }

    /// Continues a run that was just started from where [`Trainer::training_state`] was taken; on an error, nothing
    /// is changed.
    ///
    /// # Errors
    /// [`Error::State`] where no run was started or no run reaches these counters, [`Error::Weights`] that lists
    /// what does not fit.
    pub fn load_training_state(
        &mut self,
        state: &BTreeMap<String, Tensor>,
        counters: Counters,
    ) -> Result<()> {
        let run = self.run.as_ref().ok_or_else(no_run)?;
        let mut places = self.places(run);
        let best = state.keys().any(|name| name.starts_with(BEST)).then(|| self.params.flat.zeros_like());
        places.extend(best.iter().flat_map(|best| self.by_name(BEST, best)));
        check(&places, state)?;
        counters.check(run.config.accumulate)?;
        for (name, place) in &mut places {
            place.copy_(&state[name]);
        }
        self.params.weights_changed();
        self.model.weights_changed();
        let run = self.run.as_mut().expect("checked above");
        run.best = best;
        run.epoch = counters.epoch;
        run.step = counters.step;
        run.pending = counters.pending;
        run.optimizer.steps = counters.optimizer_steps;
        Ok(())
    }

    /// Views of every tensor that a run depends on, by name.
    fn places(&self, run: &Run) -> Vec<(String, Tensor)> {
        let mut places: Vec<_> = self.by_name("weights.", &self.params.flat).collect();
        let flat = [
            ("gradients.", &self.params.grad),
            ("first.", &run.optimizer.first),
            ("second.", &run.optimizer.second),
        ];
        places.extend(flat.into_iter().flat_map(|(prefix, flat)| self.by_name(prefix, flat)));
        places.extend(run.ulgm.iter().flat_map(Ulgm::tensors));
        places
    }

    /// Views of flat storage by parameter. Gradients and moments exist for the trained parameters only, which come
    /// first.
    fn by_name<'a>(
        &'a self,
        prefix: &'a str,
        flat: &'a Tensor,
    ) -> impl Iterator<Item = (String, Tensor)> + 'a {
        let end = flat.size()[0];
        self.params.entries.iter().filter(move |p| p.offset < end).map(move |p| {
            let size = p.value.size();
            let part = flat.narrow(0, p.offset, size.iter().product()).view(&size[..]);
            (format!("{prefix}{}", p.name), part)
        })
    }
}

fn check(places: &[(String, Tensor)], state: &BTreeMap<String, Tensor>) -> Result<()> {
    let mut faults = Vec::new();
    for (name, place) in places {
        match state.get(name) {
            None => faults.push(format!("missing: {name} {:?}", place.size())),
            Some(given) if given.size() != place.size() || given.kind() != place.kind() => {
                faults.push(format!(
                    "misshapen: {name} expected {:?} of {:?}, got {:?} of {:?}",
                    place.size(),
                    place.kind(),
                    given.size(),
                    given.kind()
                ));
            }
            Some(_) => {}
        }
    }
    let is_known = |name: &String| places.iter().any(|(place, _)| place == name);
    faults.extend(state.keys().filter(|name| !is_known(name)).map(|name| format!("unexpected: {name}")));
    if faults.is_empty() { Ok(()) } else { Err(refused("this state of training does", faults)) }
}
