//! Random numbers that depend on nothing but their address: Philox 4x32-10 (Salmon et al., SC 2011).
//!
//! Initial weights are addressed by (seed, parameter name, element), dropout by (seed, step, site,
//! element). No global generator is read or advanced, so the same seed gives the same bits whatever
//! else draws random numbers in the process, on any number of threads.

use std::cell::Cell;

use crate::numeric::{Real, kernel};

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
    key: u64,
    site: Cell<u32>,
}

impl Noise {
    /// Evaluation: dropout is the identity.
    pub fn off() -> Self {
        Self(None)
    }

    /// The stream of training step `step` of a run seeded with `seed`.
    pub fn training(seed: u64, step: u32) -> Self {
        // The step is folded into the key's high half: seeds are small numbers, steps are distinct.
        Self(Some(Stream { key: seed ^ u64::from(step).rotate_left(32), site: Cell::new(0) }))
    }

    /// The dropout with probability `p` at the next place in the graph.
    pub fn dropout(&self, p: f64) -> Dropout {
        match &self.0 {
            Some(stream) if p > 0.0 => {
                let site = stream.site.replace(stream.site.get() + 1);
                Dropout { p, key: stream.key, site }
            }
            _ => Dropout::off(),
        }
    }
}

/// Dropout of one operation in one step: each element has an address, so that the same mask can be made
/// again, by any thread, and never needs to be kept.
#[derive(Clone, Copy, Debug)]
pub struct Dropout {
    p: f64,
    key: u64,
    site: u32,
}

/// Words that one pass of the vectorised generator makes.
const GROUP: usize = 64;
const BLOCKS: usize = GROUP / 4;

impl Dropout {
    /// Keeps everything.
    pub fn off() -> Self {
        Self { p: 0.0, key: 0, site: 0 }
    }

    /// By itself, outside a model.
    pub fn seeded(p: f64, seed: u64) -> Self {
        Self { p, key: seed, site: 0 }
    }

    pub fn is_off(&self) -> bool {
        self.p == 0.0
    }

    /// What elements `start` and following of `stream` are multiplied with: 0 with probability p, else
    /// 1 / (1 - p).
    pub fn fill<T: Real>(&self, stream: u32, start: usize, mask: &mut [T]) {
        fill(*self, stream, start, mask);
    }
}

kernel! {
    fn fill<'a, T>(_simd; dropout: Dropout, stream: u32, start: usize, mask: &'a mut [T]) {
        let threshold = (dropout.p * f64::from(u32::MAX)) as u32;
        let kept = T::of(1.0 / (1.0 - dropout.p));
        let end = start + mask.len();
        let mut group = start / GROUP;
        while group * GROUP < end {
            let words = philox_group(dropout.key, [(group * BLOCKS) as u32, stream, dropout.site, u32::MAX]);
            let (from, to) = (start.max(group * GROUP), end.min((group + 1) * GROUP));
            let words = &words[from - group * GROUP..to - group * GROUP];
            for (mask, &word) in mask[from - start..to - start].iter_mut().zip(words) {
                *mask = if word >= threshold { kept } else { T::ZERO };
            }
            group += 1;
        }
    }
}

/// [`philox`] at counters `counter`, `counter + 1`, ... of the first word: all first words of the blocks,
/// then all second ones, and so on.
#[inline(always)]
fn philox_group(key: u64, counter: [u32; 4]) -> [u32; GROUP] {
    let mut key = [key as u32, (key >> 32) as u32];
    let mut c = counter.map(|word| [word; BLOCKS]);
    for (place, word) in (0..).zip(&mut c[0]) {
        *word = word.wrapping_add(place);
    }
    for _ in 0..10 {
        let mut next = [[0; BLOCKS]; 4];
        for i in 0..BLOCKS {
            let (a, b) = (MULTIPLIERS[0] * u64::from(c[0][i]), MULTIPLIERS[1] * u64::from(c[2][i]));
            next[0][i] = (b >> 32) as u32 ^ c[1][i] ^ key[0];
            next[1][i] = b as u32;
            next[2][i] = (a >> 32) as u32 ^ c[3][i] ^ key[1];
            next[3][i] = a as u32;
        }
        c = next;
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    let mut words = [0; GROUP];
    for (words, c) in words.chunks_exact_mut(BLOCKS).zip(c) {
        words.copy_from_slice(&c);
    }
    words
}
