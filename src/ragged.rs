//! Utterances of different lengths, packed: all frames of a batch in one (sum T, width) tensor.
//!
//! Padding has no representation here, so nothing downstream can read it.

use std::sync::Arc;

use tch::{Device, Kind, Tensor};

/// Where each utterance lies in a packed tensor, with the index tensors that ops need of it.
///
/// Computed once a batch and modality, shared by every layer.
#[derive(Debug)]
pub struct Layout {
    /// True lengths `T`, each at least 1.
    pub lengths: Vec<i64>,
    /// The same on the device, `(B,)`.
    pub device_lengths: Tensor,
    /// Row of the first frame of each utterance, `(B,)`.
    pub first: Tensor,
    /// Which utterance each frame belongs to, `(sum T,)`.
    pub utterance: Tensor,
    /// The packed rows in time-major order, longest utterance first, as recurrent scans read them,
    /// `(sum T,)`.
    pub time_major: Tensor,
    /// The same for a scan from each utterance's last true frame to its first, `(sum T,)`.
    pub time_major_reversed: Tensor,
    /// For each packed row its place in `time_major`, `(sum T,)`.
    pub from_time_major: Tensor,
    /// How many utterances are still running at each time, `max T` numbers that do not grow.
    pub running: Vec<i64>,
    /// Frames in all.
    pub total: i64,
}

// Sound: a layout's tensors are never written after `new`, and libtorch may read one tensor from any
// number of threads.
unsafe impl Sync for Layout {}

impl Layout {
    /// The layout of utterances of these lengths (each at least 1) on `device`.
    pub fn new(lengths: Vec<i64>, device: Device) -> Self {
        let first: Vec<i64> = lengths
            .iter()
            .scan(0, |end, length| {
                *end += length;
                Some(*end - length)
            })
            .collect();
        let total: i64 = lengths.iter().sum();
        let utterance: Vec<i64> =
            (0..lengths.len()).flat_map(|b| std::iter::repeat_n(b as i64, lengths[b] as usize)).collect();

        let mut longest_first: Vec<usize> = (0..lengths.len()).collect();
        longest_first.sort_by_key(|&b| std::cmp::Reverse(lengths[b]));
        let mut time_major = Vec::with_capacity(total as usize);
        let mut time_major_reversed = Vec::with_capacity(total as usize);
        let mut from_time_major = vec![0; total as usize];
        let mut running = Vec::new();
        for t in 0..lengths[longest_first[0]] {
            let alive = longest_first.partition_point(|&b| lengths[b] > t);
            running.push(alive as i64);
            for &b in &longest_first[..alive] {
                from_time_major[(first[b] + t) as usize] = time_major.len() as i64;
                time_major.push(first[b] + t);
                time_major_reversed.push(first[b] + lengths[b] - 1 - t);
            }
        }
        let on_device = |values: &[i64]| Tensor::from_slice(values).to_device(device);
        Self {
            device_lengths: on_device(&lengths),
            first: on_device(&first),
            utterance: on_device(&utterance),
            time_major: on_device(&time_major),
            time_major_reversed: on_device(&time_major_reversed),
            from_time_major: on_device(&from_time_major),
            running,
            total,
            lengths,
        }
    }

    /// Number of utterances.
    pub fn batch_size(&self) -> usize {
        self.lengths.len()
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

    /// A per-utterance value, `(B, d)`, repeated for each frame: `(sum T, d)`.
    pub fn spread(&self, per_utterance: &Tensor) -> Tensor {
        per_utterance.index_select(0, &self.layout.utterance)
    }

    /// The mean over each utterance's true frames, `(B, width)`.
    pub fn mean(&self) -> Tensor {
        let lengths = Some(&self.layout.device_lengths);
        Tensor::segment_reduce(&self.frames, "sum", lengths, None, None, 0, true, 0.0)
            / self.layout.device_lengths.to_kind(self.frames.kind()).unsqueeze(1)
    }

    /// Each utterance's first frame, `(B, width)`.
    pub fn first(&self) -> Tensor {
        self.frames.index_select(0, &self.layout.first)
    }

    /// Kind of the frames.
    pub fn kind(&self) -> Kind {
        self.frames.kind()
    }
}

/// Splits packed rows of any width by a layout.
pub fn split(frames: &Tensor, layout: &Layout) -> Vec<Tensor> {
    frames.split_with_sizes(&layout.lengths[..], 0)
}
