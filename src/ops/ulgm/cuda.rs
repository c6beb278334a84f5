//! Launches of `cuda.cu`.

use tch::{Kind, Tensor};

use crate::device::{Current, Grid, Kernel, Pointer, Source, empty, launch, limits::WARP};
use crate::ops::cuda::source;

pub const SOURCE: Source = source("ulgm", include_str!("cuda.cu"));
const CURRENT: Kernel = Kernel { source: SOURCE, name: "ulgm_current" };
const LABELS: Kernel = Kernel { source: SOURCE, name: "ulgm_labels" };
const STEP: Kernel = Kernel { source: SOURCE, name: "ulgm_step" };
const THREADS: usize = 128;
/// Threads of a step's one block.
const STEP_THREADS: usize = 512;
/// The most spaces, as in `cuda.cu`.
const SPACES: usize = 3;

/// The kinds of a space's sums and counts, and of the flags that say which samples are stored.
pub const SUMS: Kind = Kind::Double;
pub const STORED: Kind = Kind::Uint8;

/// State of one of m, a, v on a device: labels `(N,)`, features `(N, dim)`, and in double precision the sums of
/// both classes' features `(2, dim)` and how many samples each holds `(2,)`.
#[derive(Clone, Copy)]
pub struct Space<'a> {
    pub labels: &'a Tensor,
    pub features: &'a Tensor,
    pub sums: &'a Tensor,
    pub counts: &'a Tensor,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct CurrentAt {
    index: Pointer,
    stored: Pointer,
    labels: Pointer,
    y_m: Pointer,
    y: Pointer,
    batch: i32,
}

/// Current pseudo-labels of the samples `index`, whose true labels are `y_m`, for the state of each space.
pub fn current(index: &Tensor, stored: &Tensor, y_m: &Tensor, spaces: &[Space]) -> Vec<Tensor> {
    let _current = Current::of(y_m.device());
    let found: Vec<Tensor> = spaces.iter().map(|_| empty(&y_m.size(), y_m.kind(), y_m.device())).collect();
    let calls: Vec<CurrentAt> = spaces
        .iter()
        .zip(&found)
        .map(|(space, y)| CurrentAt {
            index: Pointer::to(index),
            stored: Pointer::to(stored),
            labels: Pointer::to(space.labels),
            y_m: Pointer::to(y_m),
            y: Pointer::to(y),
            batch: y_m.numel() as i32,
        })
        .collect();
    launch(CURRENT, y_m, &calls, |call| Grid::line((call.batch as usize).div_ceil(THREADS), THREADS));
    found
}

/// Features `(B, dim)`, positive and negative centre `(dim,)`.
pub type Centred = [Tensor; 3];

#[repr(C)]
#[derive(Clone, Copy)]
struct CentredAt {
    features: Pointer,
    positive: Pointer,
    negative: Pointer,
    dim: i32,
}

impl CentredAt {
    fn new([features, positive, negative]: &Centred) -> Self {
        Self {
            features: Pointer::to(features),
            positive: Pointer::to(positive),
            negative: Pointer::to(negative),
            dim: positive.numel() as i32,
        }
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
struct LabelsAt {
    old: Pointer,
    y_m: Pointer,
    own: CentredAt,
    multimodal: CentredAt,
    labels: Pointer,
    epoch: i64,
    bound: f64,
    batch: i32,
}

/// Overwrites the labels of one modality, `(B,)`, with those after epoch `epoch`, which is at least 2.
pub fn relabel(labels: &Tensor, y_m: &Tensor, own: &Centred, multimodal: &Centred, epoch: i64, bound: f64) {
    let _current = Current::of(y_m.device());
    let call = LabelsAt {
        old: Pointer::to(labels),
        y_m: Pointer::to(y_m),
        own: CentredAt::new(own),
        multimodal: CentredAt::new(multimodal),
        labels: Pointer::to(labels),
        epoch,
        bound,
        batch: y_m.numel() as i32,
    };
    launch(LABELS, y_m, &[call], |call| Grid::line((call.batch as usize).div_ceil(THREADS / WARP), THREADS));
}

/// The input of a step.
pub struct Step<'a> {
    /// The sample of each place of the batch, or -1 for a place to skip, `(B,)`, `i32`.
    pub rows: &'a Tensor,
    /// Whether a sample has a label and features, `(N,)`.
    pub stored: &'a Tensor,
    /// True labels, `(B,)`.
    pub y_m: &'a Tensor,
    /// The state of m, then of the others, each with features `(B, dim)`.
    pub spaces: &'a [(Space<'a>, &'a Tensor)],
    /// The address of the epoch's number.
    pub epoch: Pointer,
    /// The address of a number; nothing is done unless that is zero. Null for always.
    pub unless: Pointer,
    pub bound: f64,
    pub exclude_zero: bool,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct SpaceAt {
    labels: Pointer,
    kept: Pointer,
    sums: Pointer,
    counts: Pointer,
    features: Pointer,
    dim: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct StepAt {
    spaces: [SpaceAt; SPACES],
    stored: Pointer,
    rows: Pointer,
    y_m: Pointer,
    centres: Pointer,
    labels: Pointer,
    moves: Pointer,
    epoch: Pointer,
    unless: Pointer,
    bound: f64,
    batch: i32,
    count: i32,
    width: i32,
    exclude_zero: i32,
}

/// Updates labels (from epoch 2 on), then features and class sums, in which the new rows replace the old ones.
pub fn step(step: &Step) {
    let Step { rows, stored, y_m, spaces, .. } = *step;
    let _current = Current::of(y_m.device());
    let spaces_at: Vec<SpaceAt> = spaces
        .iter()
        .map(|(space, features)| SpaceAt {
            labels: Pointer::to(space.labels),
            kept: Pointer::to(space.features),
            sums: Pointer::to(space.sums),
            counts: Pointer::to(space.counts),
            features: Pointer::to(features),
            dim: space.features.size()[1] as i32,
        })
        .collect();
    let (batch, count) = (rows.numel() as i64, spaces.len() as i64);
    let width: i32 = spaces_at.iter().map(|space| space.dim).sum();
    let centres = empty(&[2, width.into()], y_m.kind(), y_m.device());
    let labels = empty(&[count, batch], y_m.kind(), y_m.device());
    let moves = empty(&[count, batch], Kind::Int, y_m.device());
    let call = StepAt {
        spaces: std::array::from_fn(|i| spaces_at[i.min(spaces_at.len() - 1)]),
        stored: Pointer::to(stored),
        rows: Pointer::to(rows),
        y_m: Pointer::to(y_m),
        centres: Pointer::to(&centres),
        labels: Pointer::to(&labels),
        moves: Pointer::to(&moves),
        epoch: step.epoch,
        unless: step.unless,
        bound: step.bound,
        batch: batch as i32,
        count: count as i32,
        width,
        exclude_zero: step.exclude_zero.into(),
    };
    launch(STEP, y_m, &[call], |_| Grid::line(1, STEP_THREADS));
}
