//! Launches of `cuda.cu`.

use super::Orthogonality;
use crate::device::{GradientTo, Grid, Kernel, Pointer, Source, launch};
use crate::ops::autograd::{BackOnDevice, DeviceOp, OnDevice};
use crate::ops::cuda::reduce::{AddParts, Parts};
use crate::ops::cuda::source;

pub const SOURCE: Source = source("orthogonality", include_str!("cuda.cu"));
const FORWARD: Kernel = Kernel { source: SOURCE, name: "orthogonality" };
const BACKWARD: Kernel = Kernel { source: SOURCE, name: "orthogonality_backward" };
const THREADS: usize = 256;
/// As in `cuda.cu`.
const TILE: usize = 64;
const DEPTH: usize = 16;
const BACK_TILE: usize = 16;

#[repr(C)]
#[derive(Clone, Copy)]
struct Arguments {
    p: Pointer,
    q: Pointer,
    parts: Pointer,
    products: Pointer,
    norms: Pointer,
    weight: f64,
    rows: i32,
    width: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Back {
    other: Pointer,
    products: Pointer,
    mean: Pointer,
    drift: Pointer,
    scale: Pointer,
    dy: Pointer,
    dx: GradientTo,
    slope: f64,
    rows: i32,
    width: i32,
    own: i32,
}

impl Orthogonality {
    /// Of P^T Q.
    fn tiles(&self) -> usize {
        self.width.div_ceil(TILE).pow(2)
    }
}

impl DeviceOp for Orthogonality {
    const WORKS_IN_SAVED: bool = true;

    /// P^T Q, and what the vectors are normalised with.
    fn saved_on_device(&self) -> Vec<usize> {
        let norms = if self.normalize { self.tiles() * (4 * self.width + self.rows) } else { 0 };
        vec![self.width * self.width, norms]
    }

    fn forward_on_device(calls: &[OnDevice<Self>]) {
        let of = &calls[0].x[0];
        let mut sums = Parts::default();
        let arguments = calls.iter().map(|OnDevice { op, x, y, saved }| {
            let tiles = op.tiles();
            let parts = if tiles == 1 { Pointer::to(&y[0]) } else { sums.memory(tiles, of) };
            if tiles > 1 {
                let to = GradientTo::new(&y[0], false);
                sums.push(AddParts { parts, to, count: tiles as i32, size: 1, stride: 1 });
            }
            Arguments {
                p: Pointer::to(&x[0]),
                q: Pointer::to(&x[1]),
                parts,
                products: Pointer::to(&saved[0]),
                norms: Pointer::to(&saved[1]),
                weight: op.weight(),
                rows: op.rows as i32,
                width: op.width as i32,
            }
        });
        let arguments: Vec<Arguments> = arguments.collect();
        launch(FORWARD, of, &arguments, |call| {
            let tiles = (call.width as usize).div_ceil(TILE).pow(2);
            Grid::line(tiles, THREADS).with_shared(2 * DEPTH * TILE)
        });
        sums.add_up(of);
    }

    fn backward_on_device(calls: &[BackOnDevice<Self>]) {
        let of = calls[0].any();
        let sides = calls.iter().flat_map(|BackOnDevice { call, dy, dx }| {
            let OnDevice { op, x, saved, .. } = call;
            let norms = |count: usize| Pointer::to(&saved[1]).offset(count, of.kind());
            [0, 1].map(|side: usize| Back {
                other: Pointer::to(&x[1 - side]),
                products: Pointer::to(&saved[0]),
                mean: norms((1 - side) * op.width),
                drift: norms((3 - side) * op.width),
                scale: norms(4 * op.width),
                dy: Pointer::maybe(dy[0]),
                dx: dx[side],
                slope: 2.0 * op.weight::<f64>(),
                rows: op.rows as i32,
                width: op.width as i32,
                own: if side == 0 { op.width as i32 } else { 1 },
            })
        });
        let wanted: Vec<Back> = sides.filter(|side| !side.dx.is_nowhere()).collect();
        launch(BACKWARD, of, &wanted, |side| Grid {
            y: (side.width as usize).div_ceil(BACK_TILE),
            ..Grid::line((side.rows as usize).div_ceil(BACK_TILE), BACK_TILE * BACK_TILE)
        });
    }
}
