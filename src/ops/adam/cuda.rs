//! Launches of `cuda.cu`.

use super::{After, Decay, Settings, Slice};
use crate::device::{Grid, Kernel, Pointer, Source, launch};
use crate::ops::cuda::source;

pub const SOURCE: Source = source("adam", include_str!("cuda.cu"));
const ADAM: Kernel = Kernel { source: SOURCE, name: "adam" };
const THREADS: usize = 256;
/// Elements that a thread handles at a time, and the most blocks of a slice: some for each multiprocessor.
const EACH: usize = 4;
const BLOCKS: usize = 2048;

#[repr(C)]
#[derive(Clone, Copy)]
struct Arguments {
    weights: Pointer,
    grad: Pointer,
    first: Pointer,
    second: Pointer,
    copy: Pointer,
    t_at: Pointer,
    t: i64,
    unless: Pointer,
    rate: f64,
    decay: f64,
    scale: f64,
    rates_at: Pointer,
    count: i64,
    decoupled: i32,
    clear: i32,
}

impl Slice {
    /// Takes the step of all slices at the same time.
    pub fn step_on_device(slices: &[(Self, Settings)]) {
        let Some((first, _)) = slices.first() else { return };
        let calls: Vec<Arguments> = slices
            .iter()
            .map(|(slice, settings)| Arguments {
                weights: Pointer::to(&slice.weights),
                grad: Pointer::to(&slice.grad),
                first: Pointer::to(&slice.first),
                second: Pointer::to(&slice.second),
                copy: Pointer::maybe(slice.copy.as_ref()),
                t_at: settings.t_at,
                unless: settings.unless,
                t: i64::from(settings.t),
                rate: settings.rate,
                decay: settings.decay,
                scale: settings.scale,
                rates_at: settings.rates_at,
                count: slice.weights.numel() as i64,
                decoupled: (settings.how == Decay::Decoupled).into(),
                clear: (settings.after == After::Clear).into(),
            })
            .collect();
        launch(ADAM, &first.weights, &calls, |call| {
            Grid::line((call.count as usize).div_ceil(EACH * THREADS).min(BLOCKS), THREADS)
        });
    }
}
