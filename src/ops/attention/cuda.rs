//! Launches of `cuda.cu`.

use tch::Tensor;

use super::{AttentionOp, Columns};
use crate::device::limits::{SHARED, SHARED_STATIC, WARP};
use crate::device::{GradientTo, Grid, Kernel, Pointer, Source, launch};
use crate::error::Fault;
use crate::ops::autograd::{BackOnDevice, DeviceOp, OnDevice};
use crate::ops::cuda::{DropoutOf, LayoutOf, source};
use crate::ragged::Layout;

pub const SOURCE: Source = source("attention", include_str!("cuda.cu"));

/// The kernels for a range of head widths and lengths.
struct Kernels {
    forward: Kernel,
    backward: Kernel,
    /// The columns of a lane, and the stride between those of two lanes in shared memory.
    columns: usize,
    pitch: usize,
    /// Rows of a lane.
    slots: usize,
}

const SHORT: Kernels = Kernels {
    forward: Kernel { source: SOURCE, name: "attention_short" },
    backward: Kernel { source: SOURCE, name: "attention_short_backward" },
    columns: 12,
    pitch: 12,
    slots: 1,
};
const LONG: Kernels = Kernels {
    forward: Kernel { source: SOURCE, name: "attention_long" },
    backward: Kernel { source: SOURCE, name: "attention_long_backward" },
    slots: 2,
    ..SHORT
};
const BROAD: Kernels = Kernels {
    forward: Kernel { source: SOURCE, name: "attention_broad" },
    backward: Kernel { source: SOURCE, name: "attention_broad_backward" },
    columns: 16,
    pitch: 20,
    slots: 1,
};

/// The mean length from which on utterances count as long.
const LONG_FROM: usize = 64;
/// Rows that a warp reads at a time.
const TURN: usize = 8;
/// The most warps of a block.
const WARPS: usize = 4;
/// The most blocks that divide the tiles of a head among them.
const BLOCKS: usize = 16;

#[repr(C)]
#[derive(Clone, Copy)]
struct Arguments {
    q: Pointer,
    k: Pointer,
    v: Pointer,
    y: Pointer,
    log_sums: Pointer,
    dy: Pointer,
    dq: GradientTo,
    dk: GradientTo,
    dv: GradientTo,
    queries: LayoutOf,
    keys: LayoutOf,
    dropout: DropoutOf,
    q_stride: i32,
    kv_stride: i32,
    heads: i32,
    depth: i32,
    log_lanes: i32,
    warp_shared: i32,
    blocks: i32,
}

impl Kernels {
    /// Lanes of a row.
    fn lanes(&self, op: &AttentionOp) -> usize {
        op.depth().div_ceil(self.columns).next_power_of_two()
    }

    /// Rows that a block handles at a time.
    fn tile(&self, op: &AttentionOp) -> usize {
        self.slots * (WARP / self.lanes(op)).max(1)
    }

    fn arguments(&self, call: &OnDevice<AttentionOp>) -> Arguments {
        let OnDevice { op, x, y, saved } = call;
        let beside = &x[0];
        let at = |columns: Columns| Pointer::to(&x[columns.input]).offset(columns.start, beside.kind());
        let lanes = self.lanes(op);
        // In a turn: three matrices, two numbers a row and the bits of dropout; afterwards two sums of each row.
        let turn = 3 * TURN * lanes * self.pitch + 2 * TURN + TURN * self.tile(op).div_ceil(TURN);
        let sums = self.tile(op) * (2 * lanes * self.columns + 3);
        Arguments {
            q: at(op.q),
            k: at(op.k),
            v: at(op.v),
            y: Pointer::to(&y[0]),
            log_sums: Pointer::to(&saved[0]),
            dy: Pointer::NULL,
            dq: GradientTo::NOWHERE,
            dk: GradientTo::NOWHERE,
            dv: GradientTo::NOWHERE,
            queries: LayoutOf::new(&op.queries, beside),
            keys: LayoutOf::new(&op.keys, beside),
            dropout: op.dropout.into(),
            q_stride: op.q.stride as i32,
            kv_stride: op.k.stride as i32,
            heads: op.heads as i32,
            depth: op.depth() as i32,
            log_lanes: lanes.ilog2() as i32,
            // Shared memory is read 16 bytes at a time.
            warp_shared: turn.max(sums).next_multiple_of(4) as i32,
            blocks: self.blocks(op, &op.queries),
        }
    }

    /// Blocks that divide the tiles of a head among them: enough for lengths of 1.5 times the mean. In longer
    /// utterances a block handles several tiles.
    fn blocks(&self, op: &AttentionOp, layout: &Layout) -> i32 {
        (mean(layout) * 3 / 2).div_ceil(self.tile(op)).clamp(1, BLOCKS) as i32
    }
}

/// The mean number of rows of an utterance.
fn mean(layout: &Layout) -> usize {
    layout.rows().div_ceil(layout.batch_size())
}

fn launch_all(kernel: Kernel, like: &Tensor, calls: &[Arguments]) {
    let most = calls.iter().map(|call| call.warp_shared as usize).max().unwrap_or(1);
    let warps = WARPS.min((SHARED - SHARED_STATIC) / like.kind().elt_size_in_bytes() / most);
    if warps == 0 {
        let most = "heads of 512 numbers at most fit into a device's shared memory, of 256 in float64";
        Fault::Device(most.into()).raise();
    }
    launch(kernel, like, calls, |call| Grid {
        x: call.queries.batch() * call.heads as usize + 1,
        y: call.blocks as usize,
        threads: warps * WARP,
        shared: warps * call.warp_shared as usize,
    });
}

/// Calls `work` twice, with kernels and the calls for them: those with narrow heads, then all others.
fn by_kernels<'a, C>(calls: &'a [C], op: impl Fn(&C) -> &AttentionOp, work: impl Fn(&Kernels, &[&'a C])) {
    let is_long = |op: &AttentionOp| mean(&op.queries).max(mean(&op.keys)) >= LONG_FROM;
    let (narrow, broad): (Vec<&C>, Vec<&C>) =
        calls.iter().partition(|call| op(call).depth() <= SHORT.columns);
    work(if narrow.iter().any(|call| is_long(op(call))) { &LONG } else { &SHORT }, &narrow);
    work(&BROAD, &broad);
}

impl DeviceOp for AttentionOp {
    fn forward_on_device(calls: &[OnDevice<Self>]) {
        by_kernels(
            calls,
            |call| call.op,
            |kernels, own| {
                let arguments: Vec<_> = own.iter().map(|call| kernels.arguments(call)).collect();
                launch_all(kernels.forward, &calls[0].x[0], &arguments);
            },
        );
    }

    fn backward_on_device(calls: &[BackOnDevice<Self>]) {
        let like = calls[0].any();
        by_kernels(
            calls,
            |call| call.call.op,
            |kernels, own| {
                let arguments = own.iter().map(|BackOnDevice { call, dy, dx }| {
                    let op = call.op;
                    let to = |columns: Columns| dx[columns.input].offset(columns.start, like.kind());
                    Arguments {
                        dy: Pointer::maybe(dy[0]),
                        dq: to(op.q),
                        dk: to(op.k),
                        dv: to(op.v),
                        // Half of them for queries, half for keys.
                        blocks: 2 * kernels.blocks(op, &op.queries).max(kernels.blocks(op, &op.keys)),
                        ..kernels.arguments(call)
                    }
                });
                launch_all(kernels.backward, like, &arguments.collect::<Vec<_>>());
            },
        );
    }
}
