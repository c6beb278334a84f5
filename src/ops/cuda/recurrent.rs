//! How the scans of GRU and LSTM are launched, see `recurrent.cuh`.

use tch::{Kind, Tensor};

use crate::device::{Grid, Kernel, Pointer, Source, limits::WARP};

/// Each is the most units of a kernel that holds the recurrent weights; in double precision only up to 64.
const HELD: [usize; 4] = [16, 32, 64, 128];
/// The most threads of a block that reads the weights at each step.
const READING: usize = 512;

/// The kernels of a scan: one for each of [`HELD`], then the one that reads the weights at each step.
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

/// How the scans of one launch run: by the kernel for the widest of them.
#[derive(Clone, Copy)]
pub struct Scans {
    widest: usize,
    double: bool,
    /// The index in [`HELD`]; `None` where weights are read at each step.
    held: Option<usize>,
}

impl Scans {
    /// The choice for calls of these widths, at least one.
    pub fn of(widths: impl Iterator<Item = usize>, kind: Kind) -> Self {
        let (widest, double) = (widths.max().expect("a call at least"), kind == Kind::Double);
        let held = HELD.iter().position(|&most| widest <= most && (most <= 64 || !double));
        Self { widest, double, held }
    }

    /// The kernel that runs them.
    pub fn kernel(self, kernels: Kernels) -> Kernel {
        kernels[self.held.unwrap_or(HELD.len())]
    }

    /// W_hh in the layout that the scan reads; the tensor must live until the launch.
    pub fn weight(self, weight: &Tensor) -> Tensor {
        if self.held.is_some() { weight.shallow_clone() } else { weight.tr().contiguous() }
    }

    /// Blocks in one direction for a batch: a block that holds weights scans one utterance, another as many as 16
    /// bytes hold numbers.
    fn blocks(self, batch: usize) -> usize {
        if self.held.is_some() { batch } else { batch.div_ceil(self.members()) }
    }

    /// The grid for a batch and a number of directions. `gates` is the number of weights for each pair of units,
    /// `rows` that of rows of shared memory for each unit where a block does not hold the weights.
    pub fn grid(self, batch: usize, directions: usize, gates: usize, rows: usize) -> Grid {
        let (threads, shared) = match self.held {
            Some(held) => {
                let (units, copies) = (HELD[held], if HELD[held] <= 64 { 2 } else { 4 });
                // A thread's weights that do not fit into its registers.
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

/// The address of a matrix without its first `count` columns.
pub fn columns(matrix: &Tensor, count: usize) -> Pointer {
    Pointer::to(matrix).offset(count, matrix.kind())
}
