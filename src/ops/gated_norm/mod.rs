//! The gated residual and its normalisation, equations (11) and (22).

pub mod cuda;

use std::ffi::CStr;
use std::sync::Arc;

use tch::Tensor;

use super::autograd::{Call, Io, Op, Shapes, apply};
use super::parallel;
use super::weights::{LayerNorm, shape2};
use crate::numeric::norm::{affine, normalize, normalize_backward};
use crate::numeric::{Real, Scratch, Shared, kernel};
use crate::ragged::{Layout, Ragged};
use crate::rng::Dropout;

/// The gates, `(B, d)` each: one value for each utterance and channel, the same at every frame.
#[derive(Clone, Copy)]
pub struct Gates<'a> {
    pub compound: &'a Tensor,
    pub retain: &'a Tensor,
}

/// Y = LN(g_c * dropout(R) + g_r * X), (11) (22); without gates, where every gate is 1, LN(dropout(R) + X).
pub struct GatedNorm<'a> {
    /// R, `(sum T, d)`.
    pub r: &'a Tensor,
    /// X, `(sum T, d)`.
    pub x: &'a Ragged,
    pub gates: Option<Gates<'a>>,
    pub norm: &'a LayerNorm,
    pub dropout: Dropout,
}

struct GatedNormOp {
    layout: Arc<Layout>,
    width: usize,
    gated: bool,
    eps: f64,
    dropout: Dropout,
}

/// Y for several calls at once.
///
/// # Shapes
/// Each result is `(sum T, d)`.
pub fn gated_norm(calls: &[GatedNorm]) -> Vec<Tensor> {
    let calls = calls
        .iter()
        .map(|GatedNorm { r, x, gates, norm, dropout }| {
            let mut inputs =
                vec![(*r).into(), (&x.frames).into(), (&norm.weight).into(), (&norm.bias).into()];
            if let Some(Gates { compound, retain }) = gates {
                inputs.extend([(*compound).into(), (*retain).into()]);
            }
            Call {
                op: GatedNormOp {
                    layout: Arc::clone(&x.layout),
                    width: shape2(r)[1],
                    gated: gates.is_some(),
                    eps: norm.eps,
                    dropout: *dropout,
                },
                inputs,
            }
        })
        .collect();
    apply(calls).into_iter().flatten().collect()
}

/// The frames of one utterance.
struct Frames<'a, T> {
    width: usize,
    eps: T,
    r: &'a [T],
    x: &'a [T],
    weight: &'a [T],
    bias: &'a [T],
    gates: Option<[&'a [T]; 2]>,
    /// 0 or 1 / (1 - p) for each element of R; empty without dropout.
    mask: &'a [T],
}

/// Gradients of one utterance; those of weight, bias and gates are overwritten, the others added to.
struct Gradients<'a, T> {
    r: Option<&'a mut [T]>,
    x: Option<&'a mut [T]>,
    weight: &'a mut [T],
    bias: &'a mut [T],
    gates: [&'a mut [T]; 2],
}

impl GatedNormOp {
    fn frames<'a, T: Real>(&self, x: &[&'a [T]], b: usize, mask: &'a mut [T]) -> Frames<'a, T> {
        let (first, length) = self.layout.span(b);
        let (start, len) = (first * self.width, length * self.width);
        if !self.dropout.is_off() {
            self.dropout.fill(0, start, mask);
        }
        let gate = |all: &'a [T]| &all[b * self.width..][..self.width];
        Frames {
            width: self.width,
            eps: T::of(self.eps),
            r: &x[0][start..][..len],
            x: &x[1][start..][..len],
            weight: x[2],
            bias: x[3],
            gates: self.gated.then(|| [gate(x[4]), gate(x[5])]),
            mask,
        }
    }

    fn mask<T: Real>(&self, b: usize) -> Scratch<T> {
        Scratch::new(if self.dropout.is_off() { 0 } else { self.layout.span(b).1 * self.width })
    }
}

impl Op for GatedNormOp {
    const NAME: &'static CStr = c"GatedNorm";

    fn shapes(&self) -> Shapes {
        Shapes { results: vec![vec![self.layout.rows() as i64, self.width as i64]], saved: vec![] }
    }

    fn forward<T: Real>(&self, x: &[&[T]], y: &mut [&mut [T]], _saved: &mut [&mut [T]]) {
        let y = Shared::new(y[0]);
        parallel::each(self.layout.batch_size(), |b| {
            let (first, length) = self.layout.span(b);
            // SAFETY: each utterance's rows are its own.
            let y = unsafe { y.part(first * self.width, length * self.width) };
            normalize_frames(&self.frames(x, b, &mut self.mask(b)), y);
        });
    }

    fn backward<T: Real>(&self, io: &Io<T>, dy: &[Option<&[T]>], dx: &mut [Option<&mut [T]>]) {
        let Some(dy) = dy[0] else { return };
        let (width, batch) = (self.width, self.layout.batch_size());
        let mut sums = Scratch::new(4 * batch * width);
        let (frames, parameters) = dx.split_at_mut(2);
        {
            let sums = Shared::new(&mut sums);
            let [dr, dx] = frames else { unreachable!("r and x") };
            let [dr, dx] = [dr, dx].map(|d| d.as_mut().map(|d| Shared::new(d)));
            parallel::each(batch, |b| {
                let (first, length) = self.layout.span(b);
                let (start, len) = (first * width, length * width);
                // SAFETY: each utterance's rows are its own, and so are its four sums.
                let gradients = unsafe {
                    let sum = |which: usize| sums.part((which * batch + b) * width, width);
                    Gradients {
                        r: dr.as_ref().map(|dr| dr.part(start, len)),
                        x: dx.as_ref().map(|dx| dx.part(start, len)),
                        weight: sum(0),
                        bias: sum(1),
                        gates: [sum(2), sum(3)],
                    }
                };
                let mut mask = self.mask(b);
                let frames = self.frames(io.x, b, &mut mask);
                normalize_frames_backward(&frames, &dy[start..][..len], gradients);
            });
        }
        for (which, parameter) in parameters.iter_mut().enumerate() {
            let Some(parameter) = parameter else { continue };
            let sums = &sums[which * batch * width..][..batch * width];
            if which < 2 {
                for sum in sums.chunks_exact(width) {
                    parameter.iter_mut().zip(sum).for_each(|(p, &sum)| *p += sum);
                }
            } else {
                parameter.iter_mut().zip(sums).for_each(|(p, &sum)| *p += sum);
            }
        }
    }
}

/// g_c * dropout(R) + g_r * X for frame `t`.
#[inline(always)]
fn residual<T: Real>(frames: &Frames<T>, t: usize, sum: &mut [T]) {
    let Frames { width, r, x, gates, mask, .. } = *frames;
    let (r, x, sum) = (&r[t * width..][..width], &x[t * width..][..width], &mut sum[..width]);
    match gates {
        Some([compound, retain]) => {
            let (compound, retain) = (&compound[..width], &retain[..width]);
            for j in 0..width {
                sum[j] = compound[j] * r[j];
            }
            if !mask.is_empty() {
                let mask = &mask[t * width..][..width];
                for j in 0..width {
                    sum[j] *= mask[j];
                }
            }
            for j in 0..width {
                sum[j] += retain[j] * x[j];
            }
        }
        None if mask.is_empty() => {
            for j in 0..width {
                sum[j] = r[j] + x[j];
            }
        }
        None => {
            let mask = &mask[t * width..][..width];
            for j in 0..width {
                sum[j] = mask[j] * r[j] + x[j];
            }
        }
    }
}

kernel! {
    fn normalize_frames<'a, T>(simd; frames: &'a Frames<'a, T>, y: &'a mut [T]) {
        let mut sum = Scratch::new(frames.width);
        for (t, y) in y.chunks_exact_mut(frames.width).enumerate() {
            residual(frames, t, &mut sum);
            normalize(simd, &mut sum, frames.eps);
            affine(&sum, frames.weight, frames.bias, y);
        }
    }
}

kernel! {
    fn normalize_frames_backward<'a, T>(
        simd; frames: &'a Frames<'a, T>, dy: &'a [T], gradients: Gradients<'a, T>,
    ) {
        let width = frames.width;
        let Gradients { r: mut dr, x: mut dx, weight: dweight, bias: dbias, gates: [dcompound, dretain] } =
            gradients;
        for sum in [&mut *dweight, &mut *dbias, &mut *dcompound, &mut *dretain] {
            sum.fill(T::ZERO);
        }
        let mut normal = Scratch::new(width);
        let mut ds = Scratch::new(width);
        let (dcompound, dretain) = (&mut dcompound[..width], &mut dretain[..width]);
        for (t, dy) in dy.chunks_exact(width).enumerate() {
            residual(frames, t, &mut normal);
            let scale = normalize(simd, &mut normal, frames.eps);
            normalize_backward(dy, &normal, scale, frames.weight, &mut ds, (dweight, dbias));
            let ds = &mut ds[..width];
            let (r, x) = (&frames.r[t * width..][..width], &frames.x[t * width..][..width]);
            if let Some([_, retain]) = frames.gates {
                let retain = &retain[..width];
                for j in 0..width {
                    dretain[j] += ds[j] * x[j];
                }
                if let Some(dx) = &mut dx {
                    let dx = &mut dx[t * width..][..width];
                    for j in 0..width {
                        dx[j] += ds[j] * retain[j];
                    }
                }
            } else if let Some(dx) = &mut dx {
                dx[t * width..][..width].iter_mut().zip(&*ds).for_each(|(dx, &ds)| *dx += ds);
            }
            if !frames.mask.is_empty() {
                let mask = &frames.mask[t * width..][..width];
                for j in 0..width {
                    ds[j] *= mask[j];
                }
            }
            if let Some([compound, _]) = frames.gates {
                let compound = &compound[..width];
                for j in 0..width {
                    dcompound[j] += ds[j] * r[j];
                    ds[j] *= compound[j];
                }
            }
            if let Some(dr) = &mut dr {
                dr[t * width..][..width].iter_mut().zip(&*ds).for_each(|(dr, &ds)| *dr += ds);
            }
        }
    }
}
