//! Random numbers that depend on nothing but their address: Philox 4x32-10 (Salmon et al., SC 2011).
//!
//! Initial weights are addressed by (seed, parameter name, element), dropout by (seed, step, site,
//! element). No global generator is read or advanced, so the same seed gives the same bits whatever
//! else draws random numbers in the process, on any number of threads.

use std::cell::Cell;

use tch::{Device, Kind, Tensor};

const MULTIPLIERS: [u64; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// One block of four words at a 128-bit counter, under a 64-bit key.
fn philox(key: u64, counter: [u32; 4]) -> [u32; 4] {
    let mut key = [key as u32, (key >> 32) as u32];
    let mut c = counter;
    for _ in 0..10 {
        let (a, b) = (MULTIPLIERS[0] * u64::from(c[0]), MULTIPLIERS[1] * u64::from(c[2]));
        c = [(b >> 32) as u32 ^ c[1] ^ key[0], b as u32, (a >> 32) as u32 ^ c[3] ^ key[1], a as u32];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    c
}

/// FNV-1a, to give each parameter name its own stream.
fn hash(name: &str) -> u64 {
    name.bytes().fold(0xCBF2_9CE4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01B3))
}

/// `count` numbers uniform in `[-bound, bound)` with 53 random bits each, for the parameter `name`.
pub fn uniform(seed: u64, name: &str, count: usize, bound: f64) -> Vec<f64> {
    let stream = hash(name);
    let mut out = Vec::with_capacity(count + 1);
    for block in 0..count.div_ceil(2) as u64 {
        let w = philox(seed, [block as u32, (block >> 32) as u32, stream as u32, (stream >> 32) as u32]);
        for pair in [[w[0], w[1]], [w[2], w[3]]] {
            let bits = (u64::from(pair[0]) << 32 | u64::from(pair[1])) >> 11;
            out.push((bits as f64 / (1u64 << 52) as f64 - 1.0) * bound);
        }
    }
    out.truncate(count);
    out
}

/// Where a forward pass draws its dropout from: nowhere (evaluation), or one training step's stream.
pub struct Noise(Option<Stream>);

struct Stream {
    seed: u64,
    step: u32,
    site: Cell<u32>,
}

impl Noise {
    /// Evaluation: dropout is the identity.
    pub fn off() -> Self {
        Self(None)
    }

    /// The stream of training step `step` of a run seeded with `seed`.
    pub fn training(seed: u64, step: u32) -> Self {
        Self(Some(Stream { seed, step, site: Cell::new(0) }))
    }

    /// Zeroes each element of `x` with probability `p` and scales the others by `1 / (1 - p)`.
    pub fn dropout(&self, x: Tensor, p: f64) -> Tensor {
        match &self.0 {
            Some(stream) if p > 0.0 => &x * stream.mask(&x.size(), p, x.kind(), x.device()),
            _ => x,
        }
    }
}

impl Stream {
    fn mask(&self, shape: &[i64], p: f64, kind: Kind, device: Device) -> Tensor {
        let site = self.site.replace(self.site.get() + 1);
        let count = shape.iter().product::<i64>() as usize;
        let threshold = (p * f64::from(u32::MAX)) as u32;
        let scale = (1.0 / (1.0 - p)) as f32;
        // The step is folded into the key's high half: seeds are small numbers, steps are distinct.
        let key = self.seed ^ u64::from(self.step).rotate_left(32);
        let mut mask = Vec::with_capacity(count + 3);
        for block in 0..count.div_ceil(4) as u64 {
            let words = philox(key, [block as u32, (block >> 32) as u32, site, u32::MAX]);
            mask.extend(words.map(|word| if word >= threshold { scale } else { 0.0 }));
        }
        mask.truncate(count);
        Tensor::from_slice(&mask).view(shape).to_device(device).to_kind(kind)
    }
}
