//! BERT's embedding of tokens: three embeddings, their normalised sum, dropout.

pub mod cuda;

use std::ffi::CStr;
use std::sync::{Arc, OnceLock};

use tch::{Device, Tensor};

use super::autograd::{Call, Io, Op, Shapes, apply};
use super::parallel;
use super::weights::{LayerNorm, Weight, shape2};
use crate::device::to_device;
use crate::numeric::norm::{affine, normalize, normalize_backward};
use crate::numeric::{Real, Scratch, Shared, kernel};
use crate::rng::Dropout;

/// Rows of three tables, and the norm of their sum.
pub struct Embedding<'a> {
    pub words: &'a Weight,
    pub positions: &'a Weight,
    pub segments: &'a Weight,
    pub norm: &'a LayerNorm,
    pub dropout: Dropout,
}

/// Rows of the word, position and segment tables that a token reads.
pub type Places = [usize; 3];

/// The rows of the tables that the tokens of a batch read.
#[derive(Debug)]
pub struct Tokens {
    pub places: Vec<Places>,
    /// Rows of packed tensors: the tokens, and possibly more, which nothing reads.
    rows: usize,
    device: OnceLock<Tensor>,
}

// SAFETY: as for `Layout`.
unsafe impl Sync for Tokens {}

impl Tokens {
    /// Tokens for packed tensors of `rows` rows, the first of which they fill.
    pub fn new(places: Vec<Places>, rows: usize) -> Self {
        assert!(places.len() <= rows, "{} tokens do not fit into {rows} rows", places.len());
        Self { places, rows, device: OnceLock::new() }
    }

    /// Rows of packed tensors.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The tokens as kernels on a device read them, `i32`, in sizes that depend on [`Self::rows`] alone: the places of
    /// each token; then for each table the rows that occur, the start of each of these in the list that follows and
    /// the end of the last, and the tokens sorted by row. Unused places hold -1.
    pub fn on(&self, device: Device) -> &Tensor {
        self.device.get_or_init(|| to_device(&Tensor::from_slice(&self.numbers()), device))
    }

    /// The same tokens, whose numbers are on a device already.
    pub fn with_numbers(&self, numbers: Tensor) -> Self {
        Self { places: self.places.clone(), rows: self.rows, device: OnceLock::from(numbers) }
    }

    fn numbers(&self) -> Vec<i32> {
        let rows = self.rows;
        let mut numbers: Vec<i32> = self.places.iter().flatten().map(|&place| place as i32).collect();
        for table in 0..3 {
            let end = 3 * rows + table * (3 * rows + 1);
            numbers.resize(end, -1);
            let row = |token: &usize| self.places[*token][table];
            let mut tokens: Vec<usize> = (0..self.places.len()).collect();
            tokens.sort_by_key(row);
            let groups = || tokens.chunk_by(|a, b| row(a) == row(b));
            numbers.extend(groups().map(|group| row(&group[0]) as i32));
            numbers.resize(end + rows, -1);
            numbers.push(0);
            numbers.extend(groups().scan(0, |end, group| {
                *end += group.len() as i32;
                Some(*end)
            }));
            numbers.resize(end + 2 * rows + 1, -1);
            numbers.extend(tokens.iter().map(|&token| token as i32));
        }
        numbers.resize(3 * rows + 3 * (3 * rows + 1), -1);
        numbers
    }
}

struct EmbeddingOp {
    tokens: Arc<Tokens>,
    width: usize,
    eps: f64,
    dropout: Dropout,
}

/// dropout(LN(word + position + segment)).
///
/// # Shapes
/// One row for each token, `(sum T, hidden)`. Callers check that places lie within the tables.
pub fn embedding(tokens: &Arc<Tokens>, weights: &Embedding) -> Tensor {
    let Embedding { words, positions, segments, norm, dropout } = weights;
    let op = EmbeddingOp {
        tokens: Arc::clone(tokens),
        width: shape2(&words.value)[1],
        eps: norm.eps,
        dropout: *dropout,
    };
    let inputs = [*words, positions, segments, &norm.weight, &norm.bias].map(Into::into).into();
    apply(vec![Call { op, inputs }]).remove(0).remove(0)
}

/// Columns of a table that a thread adds to at a time.
const COLUMNS: usize = 128;

/// Tokens that are handled at a time.
const BLOCK: usize = 32;

/// A block of tokens.
struct Block<'a, T> {
    places: &'a [Places],
    tables: [&'a [T]; 3],
    weight: &'a [T],
    bias: &'a [T],
    eps: T,
    /// 0 or 1 / (1 - p) for each element; empty without dropout.
    mask: &'a [T],
}

impl EmbeddingOp {
    fn blocks(&self) -> usize {
        self.tokens.places.len().div_ceil(BLOCK)
    }

    fn block<'a, T: Real>(&'a self, x: &[&'a [T]], block: usize, mask: &'a mut Scratch<T>) -> Block<'a, T> {
        let first = block * BLOCK;
        let places = &self.tokens.places;
        let places = &places[first..(first + BLOCK).min(places.len())];
        if !self.dropout.is_off() {
            *mask = Scratch::new(places.len() * self.width);
            self.dropout.fill(0, first * self.width, mask);
        }
        let eps = T::of(self.eps);
        Block { places, tables: [x[0], x[1], x[2]], weight: x[3], bias: x[4], eps, mask }
    }
}

impl Op for EmbeddingOp {
    const NAME: &'static CStr = c"Embedding";

    fn shapes(&self) -> Shapes {
        Shapes { results: vec![vec![self.tokens.rows() as i64, self.width as i64]], saved: vec![] }
    }

    fn forward<T: Real>(&self, x: &[&[T]], y: &mut [&mut [T]], _saved: &mut [&mut [T]]) {
        let y = &mut y[0][..self.tokens.places.len() * self.width];
        let mut blocks: Vec<_> = y.chunks_mut(BLOCK * self.width).enumerate().collect();
        parallel::each_of(&mut blocks, |(block, y)| {
            embed(&self.block(x, *block, &mut Scratch::new(0)), y);
        });
    }

    fn backward<T: Real>(&self, io: &Io<T>, dy: &[Option<&[T]>], dx: &mut [Option<&mut [T]>]) {
        let Some(dy) = dy[0] else { return };
        let width = self.width;
        let mut dsum = Scratch::new(self.tokens.places.len() * width);
        let mut sums = Scratch::zeros(2 * self.blocks() * width);
        let mut blocks: Vec<_> =
            dsum.chunks_mut(BLOCK * width).zip(sums.chunks_mut(2 * width)).enumerate().collect();
        parallel::each_of(&mut blocks, |(block, (dsum, sums))| {
            let dy = &dy[*block * BLOCK * width..][..dsum.len()];
            embed_backward(&self.block(io.x, *block, &mut Scratch::new(0)), dy, dsum, sums);
        });
        let [tables @ .., dweight, dbias] = dx else { unreachable!("three tables and a norm") };
        for (i, sum) in sums.chunks_exact(width).enumerate() {
            if let Some(parameter) = if i % 2 == 0 { &mut *dweight } else { &mut *dbias } {
                parameter.iter_mut().zip(sum).for_each(|(p, &sum)| *p += sum);
            }
        }
        // Several tokens may read one row, so the columns are divided among threads, not the tokens.
        let tables: Vec<Option<Shared<T>>> =
            tables.iter_mut().map(|table| table.as_mut().map(|t| Shared::new(t))).collect();
        parallel::each(width.div_ceil(COLUMNS), |i| {
            let columns = i * COLUMNS..((i + 1) * COLUMNS).min(width);
            for (token, places) in self.tokens.places.iter().enumerate() {
                let dsum = &dsum[token * width..][columns.clone()];
                for (table, &row) in tables.iter().zip(places) {
                    let Some(table) = table else { continue };
                    // SAFETY: each piece has its own columns.
                    let to = unsafe { table.part(row * width + columns.start, columns.len()) };
                    to.iter_mut().zip(dsum).for_each(|(to, &d)| *to += d);
                }
            }
        });
    }
}

#[inline(always)]
fn look_up<T: Real>(block: &Block<T>, token: usize, sum: &mut [T]) {
    let width = sum.len();
    let [word, position, segment] = block.places[token];
    let row = |table: usize, row: usize| &block.tables[table][row * width..][..width];
    let (words, positions, segments) = (row(0, word), row(1, position), row(2, segment));
    for j in 0..width {
        sum[j] = words[j] + positions[j] + segments[j];
    }
}

kernel! {
    fn embed<'a, T>(simd; block: &'a Block<'a, T>, y: &'a mut [T]) {
        let width = block.weight.len();
        let mut sum = Scratch::new(width);
        for (token, y) in y.chunks_exact_mut(width).enumerate() {
            look_up(block, token, &mut sum);
            normalize(simd, &mut sum, block.eps);
            affine(&sum, block.weight, block.bias, y);
            if !block.mask.is_empty() {
                y.iter_mut().zip(&block.mask[token * width..]).for_each(|(y, &keep)| *y *= keep);
            }
        }
    }
}

kernel! {
    fn embed_backward<'a, T>(
        simd; block: &'a Block<'a, T>, dy: &'a [T], dsum: &'a mut [T], sums: &'a mut [T],
    ) {
        let width = block.weight.len();
        let (dweight, dbias) = sums.split_at_mut(width);
        let mut normal = Scratch::new(width);
        let mut kept = Scratch::new(width);
        for (token, (dy, ds)) in dy.chunks_exact(width).zip(dsum.chunks_exact_mut(width)).enumerate() {
            look_up(block, token, &mut normal);
            let scale = normalize(simd, &mut normal, block.eps);
            kept.copy_from_slice(dy);
            if !block.mask.is_empty() {
                kept.iter_mut().zip(&block.mask[token * width..]).for_each(|(d, &keep)| *d *= keep);
            }
            normalize_backward(&kept, &normal, scale, block.weight, ds, (dweight, dbias));
        }
    }
}
