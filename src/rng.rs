//! Random numbers that depend on nothing but their address: Philox 4x32-10 (Salmon et al., SC 2011).
//!
//! Initial weights are addressed by (seed, parameter name, element), dropout by (seed, step, site,
//! element). No global generator is read or advanced, so the same seed gives the same bits whatever
//! else draws random numbers in the process, on any number of threads.

use std::cell::Cell;

use pulp::{Simd, WithSimd};

use crate::device::Pointer;
use crate::error::Fault;
use crate::numeric::{Real, kernel};

const MULTIPLIERS: [u64; 2] = [0xD251_1F53, 0xCD9E_8D57];
const ROUNDS: usize = 10;
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// One block of four words at a 128-bit counter, under a 64-bit key.
fn philox(key: u64, counter: [u32; 4]) -> [u32; 4] {
    let mut key = [key as u32, (key >> 32) as u32];
    let mut c = counter;
    for _ in 0..ROUNDS {
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
    let mut out = Vec::new();
    // An allocation that fails would end the process; a panic becomes Python's `MemoryError`.
    let reserved = out.try_reserve_exact(count + 1);
    if reserved.is_err() {
        Fault::Memory(format!("can't allocate memory: {count} numbers for {name}")).raise();
    }
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

/// The key of training step `step` of a run seeded with `seed`.
pub fn step_key(seed: u64, step: u32) -> u64 {
    // The step is folded into the high half: seeds are small numbers, steps are distinct.
    seed ^ u64::from(step).rotate_left(32)
}

/// Where a forward pass draws its dropout from: nowhere (evaluation), or one training step's stream.
pub struct Noise(Option<Stream>);

struct Stream {
    key: Key,
    site: Cell<u32>,
}

impl Noise {
    /// Evaluation: dropout is the identity.
    pub fn off() -> Self {
        Self(None)
    }

    /// The stream of training step `step` of a run seeded with `seed`.
    pub fn training(seed: u64, step: u32) -> Self {
        Self::keyed(Key::Value(step_key(seed, step)))
    }

    /// The stream of a step by its key.
    pub fn keyed(key: Key) -> Self {
        Self(Some(Stream { key, site: Cell::new(0) }))
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
    pub p: f64,
    pub key: Key,
    pub site: u32,
}

/// The key of a step's dropout.
#[derive(Clone, Copy, Debug)]
pub enum Key {
    Value(u64),
    /// Its address on a device, so that one graph of launches serves steps of different keys.
    At(Pointer),
}

impl Key {
    /// # Panics
    /// For a key on a device.
    fn value(self) -> u64 {
        match self {
            Self::Value(key) => key,
            Self::At(_) => panic!("a key on a device can't be read by the CPU's kernels"),
        }
    }
}

/// Dropout is drawn in tiles of rows and columns, two elements from each word of the generator.
pub const TILE_ROWS: usize = 8;
pub const TILE_COLUMNS: usize = 16;
pub const TILE: usize = TILE_ROWS * TILE_COLUMNS;
const WORDS: usize = TILE / 2;

impl Dropout {
    /// Keeps everything.
    pub fn off() -> Self {
        Self { p: 0.0, key: Key::Value(0), site: 0 }
    }

    /// Dropout outside a model.
    pub fn seeded(p: f64, seed: u64) -> Self {
        Self { p, key: Key::Value(seed), site: 0 }
    }

    pub fn is_off(&self) -> bool {
        self.p == 0.0
    }

    /// An element draws one of 2^16 values and is kept if that is not below the threshold.
    pub fn threshold(&self) -> u32 {
        (self.p * 65536.0).round() as u32
    }

    /// Fills `mask` with the factors of elements `start` and following of `stream`: 0 with probability p (to
    /// within 2^-17), else 1 / (1 - p).
    pub fn fill<T: Real>(&self, stream: u32, start: usize, mask: &mut [T]) {
        fill(*self, stream, start, mask);
    }

    /// The factors of one tile of a matrix, row after row: rows from `row` on, a multiple of [`TILE_ROWS`], and
    /// columns from `column` on, a multiple of [`TILE_COLUMNS`]; for use in a kernel.
    #[inline(always)]
    pub fn tile<S: Simd, T: Real>(&self, simd: S, stream: u32, row: usize, column: usize, mask: &mut [T]) {
        let mut words = [0; WORDS];
        let counter = [column as u32, (row / TILE_ROWS) as u32, stream, self.site];
        simd.vectorize(PhiloxTile { key: self.key.value(), counter, words: &mut words });
        let threshold = self.threshold();
        let kept = T::of(1.0 / (1.0 - self.p));
        let (low, high) = mask[..TILE].split_at_mut(WORDS);
        for i in 0..WORDS {
            low[i] = if words[i] & 0xFFFF >= threshold { kept } else { T::ZERO };
            high[i] = if words[i] >> 16 >= threshold { kept } else { T::ZERO };
        }
    }
}

kernel! {
    fn fill<'a, T>(simd; dropout: Dropout, stream: u32, start: usize, mask: &'a mut [T]) {
        // The elements of a stream are those of one row of tiles, tile after tile.
        let mut tile = [T::ZERO; TILE];
        let end = start + mask.len();
        for number in start / TILE..end.div_ceil(TILE) {
            dropout.tile(simd, stream, 0, number * TILE_COLUMNS, &mut tile);
            let (from, to) = (start.max(number * TILE), end.min((number + 1) * TILE));
            mask[from - start..to - start].copy_from_slice(&tile[from - number * TILE..to - number * TILE]);
        }
    }
}

/// [`philox`] at the 16 counters from `counter` on, by its first word: all first words of the blocks, then all
/// second ones, and so on.
struct PhiloxTile<'a> {
    key: u64,
    counter: [u32; 4],
    words: &'a mut [u32; WORDS],
}

impl WithSimd for PhiloxTile<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        const PLACES: [u32; TILE_COLUMNS] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
        let Self { key, counter, words } = self;
        let multipliers = MULTIPLIERS.map(|m| simd.splat_u32s(m as u32));
        for start in (0..TILE_COLUMNS).step_by(S::U32_LANES) {
            let mut c = counter.map(|word| simd.splat_u32s(word));
            c[0] = simd.add_u32s(c[0], simd.partial_load_u32s(&PLACES[start..]));
            let mut key = [key as u32, (key >> 32) as u32];
            for _ in 0..ROUNDS {
                let (a_low, a_high) = simd.widening_mul_u32s(multipliers[0], c[0]);
                let (b_low, b_high) = simd.widening_mul_u32s(multipliers[1], c[2]);
                let mix = |high, word, key| simd.xor_u32s(simd.xor_u32s(high, word), simd.splat_u32s(key));
                c = [mix(b_high, c[1], key[0]), b_low, mix(a_high, c[3], key[1]), a_low];
                key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
            }
            for (row, word) in words.chunks_exact_mut(TILE_COLUMNS).zip(c) {
                simd.partial_store_u32s(&mut row[start..], word);
            }
        }
    }
}
