//! Utterances of different lengths, packed: all frames of a batch in one (sum T, width) tensor.
//!
//! Padding has no representation here, so nothing downstream can read it.

use std::sync::Arc;

use tch::Tensor;

/// Where each utterance lies in a packed tensor.
///
/// Computed once a batch and modality, shared by every layer.
#[derive(Debug, PartialEq, Eq)]
pub struct Layout {
    /// True lengths `T`, each at least 1.
    pub lengths: Vec<i64>,
    /// Row of the first frame of each utterance.
    first: Vec<usize>,
    /// The utterances, longest first.
    pub longest_first: Vec<usize>,
    /// Frames in all.
    pub total: i64,
}

impl Layout {
    /// The layout of utterances of these lengths, each at least 1.
    pub fn new(lengths: Vec<i64>) -> Self {
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
        Self { lengths, first, longest_first, total }
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
    frames.split_with_sizes(&layout.lengths[..], 0)
}
