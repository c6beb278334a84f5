//! Launches of `cuda.cu`.

use tch::Kind;

use super::EmbeddingOp;
use crate::device::{GradientTo, Grid, Kernel, Pointer, Source, empty, launch, limits::WARP};
use crate::ops::autograd::{BackOnDevice, DeviceOp, OnDevice};
use crate::ops::cuda::reduce::{AddParts, add_parts};
use crate::ops::cuda::{DropoutOf, source};
use crate::ops::weights::shape2;

pub const SOURCE: Source = source("embedding", include_str!("cuda.cu"));
const FORWARD: Kernel = Kernel { source: SOURCE, name: "embedding" };
const BACKWARD: Kernel = Kernel { source: SOURCE, name: "embedding_backward" };
const ROWS: Kernel = Kernel { source: SOURCE, name: "embedding_rows" };

/// The most warps of a block.
const WARPS: usize = 4;
/// Numbers in the shared memory of a block, so that blocks of wide rows have fewer warps.
const SHARED: usize = 4 * 3 * 768;
/// Tokens of a block, backward.
const TOKENS: usize = 16;
/// Threads of a block that adds up rows.
const THREADS: usize = 256;

#[repr(C)]
#[derive(Clone, Copy)]
struct Arguments {
    places: Pointer,
    words: Pointer,
    positions: Pointer,
    segments: Pointer,
    weight: Pointer,
    bias: Pointer,
    y: Pointer,
    dy: Pointer,
    dsum: Pointer,
    sums: Pointer,
    dropout: DropoutOf,
    eps: f64,
    rows: i32,
    width: i32,
}

/// The gradient of a table.
#[repr(C)]
#[derive(Clone, Copy)]
struct Table {
    dsum: Pointer,
    to: GradientTo,
    occur: Pointer,
    starts: Pointer,
    tokens: Pointer,
    most: i32,
    groups: i32,
    width: i32,
}

impl Arguments {
    fn of(call: &OnDevice<EmbeddingOp>) -> Self {
        let OnDevice { op, x, y, .. } = call;
        Self {
            places: Pointer::to(op.tokens.on(x[0].device())),
            words: Pointer::to(&x[0]),
            positions: Pointer::to(&x[1]),
            segments: Pointer::to(&x[2]),
            weight: Pointer::to(&x[3]),
            bias: Pointer::to(&x[4]),
            y: Pointer::to(&y[0]),
            dy: Pointer::NULL,
            dsum: Pointer::NULL,
            sums: Pointer::NULL,
            dropout: op.dropout.into(),
            eps: op.eps,
            rows: op.tokens.rows() as i32,
            width: op.width as i32,
        }
    }

    /// The tables whose gradient is wanted.
    fn tables<'a>(
        &'a self,
        BackOnDevice { call, dx, .. }: &'a BackOnDevice<EmbeddingOp>,
    ) -> impl Iterator<Item = Table> + 'a {
        let tokens = self.rows as usize;
        (0..3).filter(|&table| !dx[table].is_nowhere()).map(move |table| {
            assert!(dx[table].adds(), "tables are parameters: rows that do not occur are not written");
            // The layout of `Tokens::numbers`.
            let at =
                |count: usize| self.places.offset(3 * tokens + table * (3 * tokens + 1) + count, Kind::Int);
            let rows = shape2(&call.x[table])[0];
            Table {
                dsum: self.dsum,
                to: dx[table],
                occur: at(0),
                starts: at(tokens),
                tokens: at(2 * tokens + 1),
                most: rows.min(tokens) as i32,
                // In a table with few rows each has many tokens.
                groups: if rows * 64 < tokens { 8 } else { 1 },
                width: self.width,
            }
        })
    }
}

impl DeviceOp for EmbeddingOp {
    fn forward_on_device(calls: &[OnDevice<Self>]) {
        let arguments: Vec<Arguments> = calls.iter().map(Arguments::of).collect();
        let warps = warps(&arguments, 1);
        launch(FORWARD, &calls[0].x[0], &arguments, |call| {
            Grid::line((call.rows as usize).div_ceil(warps), warps * WARP)
                .with_shared(warps * call.width as usize)
        });
    }

    fn backward_on_device(calls: &[BackOnDevice<Self>]) {
        let any = calls[0].any();
        let work: Vec<_> = calls
            .iter()
            .map(|BackOnDevice { call, .. }| {
                let (rows, width) = (call.op.tokens.rows() as i64, call.op.width as i64);
                let blocks = (rows as usize).div_ceil(TOKENS) as i64;
                [vec![rows, width], vec![blocks, 2, width]]
                    .map(|shape| empty(&shape, any.kind(), any.device()))
            })
            .collect();
        let arguments: Vec<Arguments> = calls
            .iter()
            .zip(&work)
            .map(|(BackOnDevice { call, dy, .. }, [dsum, sums])| Arguments {
                dy: Pointer::maybe(dy[0]),
                dsum: Pointer::to(dsum),
                sums: Pointer::to(sums),
                ..Arguments::of(call)
            })
            .collect();
        let warps = warps(&arguments, 3);
        launch(BACKWARD, any, &arguments, |call| {
            Grid::line((call.rows as usize).div_ceil(TOKENS), warps * WARP)
                .with_shared(warps * 3 * call.width as usize)
        });
        let tables: Vec<Table> =
            calls.iter().zip(&arguments).flat_map(|(call, arguments)| arguments.tables(call)).collect();
        launch(ROWS, any, &tables, |table| {
            let columns = THREADS / table.groups as usize;
            Grid::line(table.most as usize * (table.width as usize).div_ceil(columns), THREADS)
        });
        let parts = calls.iter().zip(&arguments).flat_map(|(BackOnDevice { dx, .. }, call)| {
            [0, 1].map(|which: usize| AddParts {
                parts: call.sums.offset(which * call.width as usize, any.kind()),
                to: dx[3 + which],
                count: (call.rows as usize).div_ceil(TOKENS) as i32,
                size: call.width,
                stride: 2 * call.width,
            })
        });
        add_parts(any, &parts.collect::<Vec<_>>());
    }
}

/// The number of warps of a block, where each needs `rows` rows of shared memory.
fn warps(calls: &[Arguments], rows: usize) -> usize {
    let widest = calls.iter().map(|call| rows * call.width as usize).max().expect("a call at least");
    (SHARED / widest).clamp(1, WARPS)
}
