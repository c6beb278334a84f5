//! Utterances of different lengths, packed: all frames of a batch in one (sum T, width) tensor.
//!
//! Padding has no representation here, so nothing downstream can read it.

use std::sync::{Arc, OnceLock};

use tch::{Device, Tensor};

use crate::device::to_device;

/// Where each utterance lies in a packed tensor.
///
/// Computed once a batch and modality, shared by every layer.
#[derive(Debug)]
pub struct Layout {
    /// True lengths `T`, each at least 1.
    pub lengths: Vec<i64>,
    /// Row of the first frame of each utterance.
    first: Vec<usize>,
    /// The utterances, longest first.
    pub longest_first: Vec<usize>,
    /// Frames in all.
    pub total: i64,
    /// Rows of packed tensors: the frames, and possibly more, which nothing reads.
    rows: usize,
    device: OnceLock<Tensor>,
}

// SAFETY: libtorch may read one tensor from any number of threads, and nothing here writes it. Where it is part of a
// batch on a device (`with_numbers`), the batch has its layouts to itself while it writes.
unsafe impl Sync for Layout {}

impl Layout {
    /// The layout of utterances of these lengths, each at least 1.
    pub fn new(lengths: Vec<i64>) -> Self {
        let rows = lengths.iter().sum::<i64>() as usize;
        Self::with_rows(lengths, rows)
    }

    /// The same for packed tensors of `rows` rows, of which the first are the frames.
    pub fn with_rows(lengths: Vec<i64>, rows: usize) -> Self {
        let mut total = 0;
        let first = lengths
            .iter()
            .map(|length| {
                total += length;
                (total - length) as usize
            })
            .collect();
        let mut longest_first: Vec<usize> = (0..lengths.len()).collect();
        longest_first.sort_by_key(|&b| std::cmp::Reverse(lengths[b]));
        assert!(total as usize <= rows, "{total} frames do not fit into {rows} rows");
        Self { lengths, first, longest_first, total, rows, device: OnceLock::new() }
    }

    /// Rows of packed tensors in this layout.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The layout as kernels on a device read it, `i32`: the first row of each utterance and the number of
    /// frames; the utterances, longest first; for each row the utterance that it belongs to, or -1.
    pub fn on(&self, device: Device) -> &Tensor {
        self.device.get_or_init(|| to_device(&Tensor::from_slice(&self.numbers()), device))
    }

    /// The same layout, whose numbers are on a device already.
    pub fn with_numbers(&self, numbers: Tensor) -> Self {
        Self { device: OnceLock::from(numbers), ..Self::with_rows(self.lengths.clone(), self.rows) }
    }

    fn numbers(&self) -> Vec<i32> {
        let first = self.first.iter().map(|&row| row as i32).chain([self.total as i32]);
        let order = self.longest_first.iter().map(|&b| b as i32);
        let own = self.lengths.iter().enumerate();
        let utterance = own.flat_map(|(b, &length)| std::iter::repeat_n(b as i32, length as usize));
        let beyond = std::iter::repeat_n(-1, self.rows - self.total as usize);
        first.chain(order).chain(utterance).chain(beyond).collect()
    }

    /// Number of utterances.
    pub fn batch_size(&self) -> usize {
        self.lengths.len()
    }

    /// First row and length of an utterance.
    pub fn span(&self, utterance: usize) -> (usize, usize) {
        (self.first[utterance], self.lengths[utterance] as usize)
    }

    /// The utterance that a row belongs to, and its place there.
    pub fn place(&self, row: usize) -> (usize, usize) {
        let utterance = self.first.partition_point(|&first| first <= row) - 1;
        (utterance, row - self.first[utterance])
    }
}

/// Packed frames and where each utterance lies in them.
#[derive(Debug)]
pub struct Ragged {
    /// `(sum T, width)`
    pub frames: Tensor,
    pub layout: Arc<Layout>,
}

impl Clone for Ragged {
    fn clone(&self) -> Self {
        self.with(self.frames.shallow_clone())
    }
}

impl Ragged {
    /// Other frames in the same layout.
    pub fn with(&self, frames: Tensor) -> Self {
        Self { frames, layout: Arc::clone(&self.layout) }
    }

    /// One `(T, width)` tensor an utterance, in order.
    pub fn split(&self) -> Vec<Tensor> {
        split(&self.frames, &self.layout)
    }
}

/// Splits packed rows of any width by a layout.
pub fn split(frames: &Tensor, layout: &Layout) -> Vec<Tensor> {
    frames.narrow(0, 0, layout.total).split_with_sizes(&layout.lengths[..], 0)
}
