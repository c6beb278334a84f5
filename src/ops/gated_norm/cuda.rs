//! Launches of `cuda.cu`, also for operations that end in a residual and its normalisation.

use tch::Tensor;

use super::GatedNormOp;
use crate::device::{GradientTo, Grid, Kernel, Pointer, Source, launch, limits::WARP};
use crate::ops::autograd::{BackOnDevice, DeviceOp, OnDevice};
use crate::ops::cuda::reduce::{AddParts, Parts};
use crate::ops::cuda::{DropoutOf, LayoutOf, source};
use crate::ragged::Layout;
use crate::rng::Dropout;

pub const SOURCE: Source = source("gated_norm", include_str!("cuda.cu"));
const FORWARD: Kernel = Kernel { source: SOURCE, name: "gated_norm" };
const BACKWARD: Kernel = Kernel { source: SOURCE, name: "gated_norm_backward" };

/// The most warps of a block, each of which handles a row at a time.
const WARPS: usize = 4;
/// Numbers in the shared memory of a block, so that blocks of wide rows have fewer warps.
const SHARED: usize = 10 << 10;
/// Rows of an utterance that a block handles backward, the most parts of an utterance, and of all utterances.
const ROWS: usize = 32;
const PARTS: usize = 8;
const ALL_PARTS: usize = 512;
/// The rows of a block and the most parts without gates, where a block's rows may belong to several utterances.
const ROWS_UNGATED: usize = 16;
const PARTS_UNGATED: usize = 264;

/// The residual of R and X and its normalisation.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Residual {
    r: Pointer,
    x: Pointer,
    weight: Pointer,
    bias: Pointer,
    compound: Pointer,
    retain: Pointer,
    y: Pointer,
    dy: Pointer,
    dr: GradientTo,
    dx: GradientTo,
    sums: Pointer,
    gate_sums: Pointer,
    layout: LayoutOf,
    dropout: DropoutOf,
    eps: f64,
    width: i32,
    parts: i32,
}

/// The gradient of a residual's result, and the places for those of its inputs.
#[derive(Clone, Copy)]
pub struct Gradients<'a> {
    pub y: &'a Tensor,
    pub r: GradientTo,
    pub x: GradientTo,
    pub weight: GradientTo,
    pub bias: GradientTo,
    pub gates: [GradientTo; 2],
}

impl Residual {
    /// y = LN(dropout(R) + X); `norm` is weight and bias.
    pub fn new(
        [r, x]: [&Tensor; 2],
        norm: [&Tensor; 2],
        y: &Tensor,
        layout: &Layout,
        eps: f64,
        dropout: Dropout,
    ) -> Self {
        let width = norm[0].numel();
        Self {
            r: Pointer::to(r),
            x: Pointer::to(x),
            weight: Pointer::to(norm[0]),
            bias: Pointer::to(norm[1]),
            compound: Pointer::NULL,
            retain: Pointer::NULL,
            y: Pointer::to(y),
            dy: Pointer::NULL,
            dr: GradientTo::NOWHERE,
            dx: GradientTo::NOWHERE,
            sums: Pointer::NULL,
            gate_sums: Pointer::NULL,
            layout: LayoutOf::new(layout, x),
            dropout: dropout.into(),
            eps,
            width: width as i32,
            parts: 0,
        }
    }

    fn of(call: &OnDevice<GatedNormOp>) -> Self {
        let OnDevice { op, x, y, .. } = call;
        Self {
            compound: Pointer::maybe(x.get(4)),
            retain: Pointer::maybe(x.get(5)),
            ..Self::new([&x[0], &x[1]], [&x[2], &x[3]], &y[0], &op.layout, op.eps, op.dropout)
        }
    }

    fn gated(&self) -> bool {
        !self.compound.is_null()
    }

    fn width(&self) -> usize {
        self.width as usize
    }

    /// Blocks of the backward pass.
    fn blocks(&self) -> usize {
        self.parts as usize * if self.gated() { self.layout.batch() } else { 1 }
    }

    /// Numbers in shared memory for each warp of the backward pass.
    fn memory(&self) -> usize {
        self.width() * if self.gated() { 6 } else { 4 }
    }

    /// The arguments of the backward pass, with memory for sums, which `parts` will add up.
    fn backward(self, like: &Tensor, gradients: &Gradients, parts: &mut Parts) -> Self {
        let (batch, rows, width) = (self.layout.batch(), self.layout.rows(), self.width());
        let count = if self.gated() {
            (rows / batch).div_ceil(ROWS).min(ALL_PARTS / batch).clamp(1, PARTS)
        } else {
            rows.div_ceil(ROWS_UNGATED).clamp(1, PARTS_UNGATED)
        };
        let this = Self {
            dy: Pointer::to(gradients.y),
            dr: gradients.r,
            dx: gradients.x,
            parts: count as i32,
            ..self
        };
        let blocks = this.blocks();
        let gates = if this.gated() { count * 2 * batch * width } else { 0 };
        let sums = parts.memory(blocks * 2 * width + gates, like);
        let gate_sums = sums.offset(blocks * 2 * width, like.kind());
        let mut add = |parts_at: Pointer, which: usize, to, count: usize, size: usize| {
            let at = parts_at.offset(which * size, like.kind());
            let (count, size) = (count as i32, size as i32);
            parts.push(AddParts { parts: at, to, count, size, stride: 2 * size });
        };
        add(sums, 0, gradients.weight, blocks, width);
        add(sums, 1, gradients.bias, blocks, width);
        if this.gated() {
            add(gate_sums, 0, gradients.gates[0], count, batch * width);
            add(gate_sums, 1, gradients.gates[1], count, batch * width);
        }
        Self { sums, gate_sums, ..this }
    }
}

/// Computes the results of all calls.
pub fn forward(like: &Tensor, calls: &[Residual]) {
    launch(FORWARD, like, calls, |call| {
        Grid::line(call.layout.rows().div_ceil(WARPS), WARPS * WARP).with_shared(WARPS * call.width())
    });
}

/// Computes the gradients of all calls; `parts` adds up those of parameters and gates.
pub fn backward(like: &Tensor, calls: &[(Residual, Gradients)], parts: &mut Parts) {
    let calls: Vec<Residual> =
        calls.iter().map(|(call, gradients)| call.backward(like, gradients, parts)).collect();
    let most = calls.iter().map(Residual::memory).max().expect("a call at least");
    let warps = (SHARED / most).clamp(1, WARPS);
    launch(BACKWARD, like, &calls, |call| {
        Grid::line(call.blocks(), warps * WARP).with_shared(warps * call.memory())
    });
}

impl DeviceOp for GatedNormOp {
    fn forward_on_device(calls: &[OnDevice<Self>]) {
        forward(&calls[0].x[0], &calls.iter().map(Residual::of).collect::<Vec<_>>());
    }

    fn backward_on_device(calls: &[BackOnDevice<Self>]) {
        let with_gradients = calls.iter().map(|BackOnDevice { call, dy, dx }| {
            let gate = |which: usize| dx.get(which).copied().unwrap_or(GradientTo::NOWHERE);
            let gradients = Gradients {
                y: dy[0].expect("the one result has a gradient"),
                r: dx[0],
                x: dx[1],
                weight: dx[2],
                bias: dx[3],
                gates: [gate(4), gate(5)],
            };
            (Residual::of(call), gradients)
        });
        let mut parts = Parts::default();
        backward(calls[0].any(), &with_gradients.collect::<Vec<_>>(), &mut parts);
        parts.add_up(calls[0].any());
    }
}
