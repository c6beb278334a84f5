//! How the scans of GRU and LSTM are launched, see `recurrent.cuh`.

use tch::{Kind, Tensor};

use crate::device::{Grid, Kernel, Pointer, Source, limits::WARP};

/// Units up to which there are kernels that hold the recurrent weights, those of double precision up to 64.
const HELD: [usize; 4] = [16, 32, 64, 128];
/// Threads of a block that read their weights at each step, at most.
const READING: usize = 512;

/// The kernels of a scan: for each of [`HELD`], then the one that reads its weights.
pub type Kernels = [Kernel; HELD.len() + 1];

/// The kernels of these names, in the order of [`Kernels`].
pub const fn kernels(source: Source, names: [&'static str; HELD.len() + 1]) -> Kernels {
    let [a, b, c, d, e] = names;
    [
        Kernel { source, name: a },
        Kernel { source, name: b },
        Kernel { source, name: c },
        Kernel { source, name: d },
        Kernel { source, name: e },
    ]
}

/// How the scans of one launch run, which have units up to the widest of them.
#[derive(Clone, Copy)]
pub struct Scans {
    widest: usize,
    double: bool,
    /// Which of [`HELD`].
    held: Option<usize>,
}

impl Scans {
    /// For calls of these widths, at least one.
    pub fn of(widths: impl Iterator<Item = usize>, kind: Kind) -> Self {
        let (widest, double) = (widths.max().expect("a call at least"), kind == Kind::Double);
        let held = HELD.iter().position(|&most| widest <= most && (most <= 64 || !double));
        Self { widest, double, held }
    }

    /// Which of the kernels runs them.
    pub fn kernel(self, kernels: Kernels) -> Kernel {
        kernels[self.held.unwrap_or(HELD.len())]
    }

    /// W_hh as the scan reads it; the tensor must live until the launch.
    pub fn weight(self, weight: &Tensor) -> Tensor {
        if self.held.is_some() { weight.shallow_clone() } else { weight.tr().contiguous() }
    }

    /// Blocks in one direction for a batch: those that hold weights take one utterance each, the others as many
    /// as 16 bytes have numbers.
    fn blocks(self, batch: usize) -> usize {
        if self.held.is_some() { batch } else { batch.div_ceil(self.members()) }
    }

    /// For a batch in some directions; `gates` weights a unit and unit before, and rows that a block keeps for
    /// each unit where it holds none.
    pub fn grid(self, batch: usize, directions: usize, gates: usize, rows: usize) -> Grid {
        let (threads, shared) = match self.held {
            Some(held) => {
                let (units, copies) = (HELD[held], if HELD[held] <= 64 { 2 } else { 4 });
                // The weights of a thread that its registers have no place for.
                let most = match units {
                    _ if self.double => 64,
                    128 => 84,
                    _ => 128,
                };
                let beyond = (gates * units / copies).saturating_sub(most);
                (copies * self.widest, beyond * copies * units)
            }
            None => (self.widest.min(READING), rows * self.members() * self.widest),
        };
        Grid { x: self.blocks(batch), y: directions, threads: threads.next_multiple_of(WARP), shared }
    }

    fn members(self) -> usize {
        if self.double { 2 } else { 4 }
    }
}

/// An address within a matrix, `count` columns on.
pub fn columns(matrix: &Tensor, count: usize) -> Pointer {
    Pointer::to(matrix).offset(count, matrix.kind())
}
