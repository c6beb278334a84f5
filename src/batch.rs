//! A batch: packed frames of text, audio and vision, targets and dataset indices.
//!
//! Built from padded arrays with lengths or from one array an utterance; what padding holds, NaN
//! included, is never copied.

use std::collections::HashMap;
use std::sync::Arc;

use tch::{Device, IndexOp, Kind, Tensor};

use crate::error::{Error, Result};
use crate::numeric::Real;
use crate::ops::autograd::slice;
use crate::ops::embedding::Places;
use crate::ragged::{Layout, Ragged};

/// Frames of one modality as a caller has them, on the CPU, of any type and strides.
pub enum Frames {
    /// `(B, width of the padding, width)` with each utterance's true length.
    Padded { array: Tensor, lengths: Vec<i64>, side: Side },
    /// One `(T, width)` array an utterance.
    List(Vec<Tensor>),
}

/// At which end of a padded array the padding lies.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Right,
    Left,
}

/// Text as the model reads it.
#[derive(Debug)]
pub enum Text {
    /// Frozen features, `(sum T, text_dim)`.
    Features(Ragged),
    /// Word, position and segment of each packed token, for the text encoder.
    Tokens { places: Arc<Vec<Places>>, layout: Arc<Layout>, largest_id: i64, largest_segment: i64 },
}

impl Text {
    pub fn layout(&self) -> &Arc<Layout> {
        match self {
            Self::Features(frames) => &frames.layout,
            Self::Tokens { layout, .. } => layout,
        }
    }
}

/// True labels, `(B,)` on the device, and what the host knows of them.
#[derive(Debug)]
pub struct Labels {
    pub values: Tensor,
    pub largest: f64,
}

/// What one step reads.
#[derive(Debug)]
pub struct Batch {
    pub size: usize,
    pub text: Option<Text>,
    pub audio: Option<Ragged>,
    pub vision: Option<Ragged>,
    pub labels: Option<Labels>,
    /// Position of each utterance in the training set.
    pub index: Option<Vec<i64>>,
}

// Sound: a batch's tensors are never written after `pack`, and libtorch may read one tensor from any
// number of threads.
unsafe impl Sync for Batch {}

/// The parts of a batch before packing.
#[derive(Default)]
pub struct Parts {
    pub text: Option<Frames>,
    /// `(3, T)` ids, mask and segments an utterance, true tokens where the mask is not zero.
    pub tokens: Option<Vec<Tensor>>,
    pub audio: Option<Frames>,
    pub vision: Option<Frames>,
    pub labels: Option<Tensor>,
    pub index: Option<Tensor>,
}

impl Batch {
    /// Packs the parts on `device`, frames and labels as `kind`.
    ///
    /// # Errors
    /// [`Error::Batch`] for parts of different sizes, a wrong shape, an impossible length, a true frame
    /// that is not finite, a label that is not finite, a negative or fractional index.
    pub fn pack(parts: Parts, kind: Kind, device: Device) -> Result<Self> {
        let sizes: Vec<(&str, usize)> = [
            ("text", parts.text.as_ref().map(Frames::batch_size)),
            ("text_bert", parts.tokens.as_ref().map(Vec::len)),
            ("audio", parts.audio.as_ref().map(Frames::batch_size)),
            ("vision", parts.vision.as_ref().map(Frames::batch_size)),
            ("labels", parts.labels.as_ref().map(Tensor::numel)),
            ("index", parts.index.as_ref().map(Tensor::numel)),
        ]
        .into_iter()
        .filter_map(|(name, size)| size.map(|size| (name, size)))
        .collect();
        let size = sizes.first().map_or(0, |s| s.1);
        if sizes.iter().any(|s| s.1 != size) {
            let found: Vec<_> = sizes.iter().map(|(name, n)| format!("{name} {n}")).collect();
            return Err(Error::Batch(format!(
                "every part of a batch must hold the same number of utterances, got {}",
                found.join(", ")
            )));
        }
        if size == 0 {
            return Err(Error::Batch("a batch needs at least one utterance, got none".into()));
        }
        let frames = |name, part: Option<Frames>| {
            part.map(|frames| pack_frames(name, frames, kind, device)).transpose()
        };
        let text = match (parts.tokens, frames("text", parts.text)?) {
            (Some(tokens), _) => Some(pack_tokens(&tokens)?),
            (None, features) => features.map(Text::Features),
        };
        Ok(Self {
            size,
            text,
            audio: frames("audio", parts.audio)?,
            vision: frames("vision", parts.vision)?,
            labels: parts.labels.map(|l| check_labels(&l, kind, device)).transpose()?,
            index: parts.index.map(|i| check_index(&i)).transpose()?,
        })
    }

    /// The rows to update by dataset index: where an index stands twice, its last place alone.
    ///
    /// Returns (places in the batch, dataset indices).
    pub fn distinct(index: &[i64]) -> (Vec<usize>, Vec<usize>) {
        let last: HashMap<i64, usize> = index.iter().enumerate().map(|(place, &i)| (i, place)).collect();
        (0..index.len()).filter(|&p| last[&index[p]] == p).map(|p| (p, index[p] as usize)).unzip()
    }
}

impl Frames {
    fn batch_size(&self) -> usize {
        match self {
            Self::Padded { array, lengths, .. } => {
                array.size().first().map_or(lengths.len(), |b| *b as usize)
            }
            Self::List(utterances) => utterances.len(),
        }
    }
}

fn pack_frames(name: &str, frames: Frames, kind: Kind, device: Device) -> Result<Ragged> {
    let (packed, lengths) = match frames {
        Frames::Padded { array, lengths, side } => (gather(name, &array, &lengths, side)?, lengths),
        Frames::List(utterances) => concatenate(name, &utterances)?,
    };
    let packed = packed.to_kind(kind).contiguous();
    let layout = Layout::new(lengths);
    let broken = match kind {
        Kind::Double => first_broken::<f64>(&packed),
        _ => first_broken::<f32>(&packed),
    };
    if let Some(row) = broken {
        let (utterance, frame) = layout.place(row);
        return Err(Error::Batch(format!(
            "{name}: utterance {utterance} of the batch holds a value that is not finite in its true frame \
             {frame} of {}; clean the data first, as mmiln.data.load does, or give the true length",
            layout.lengths[utterance],
        )));
    }
    Ok(Ragged { frames: packed.to_device(device), layout: Arc::new(layout) })
}

/// The first row with an element that is not finite.
fn first_broken<T: Real>(packed: &Tensor) -> Option<usize> {
    let (elements, width) = (slice::<T>(packed), packed.size()[1].max(1) as usize);
    // A finite number times zero is zero, any other NaN.
    let is_broken = |row: &[T]| row.iter().any(|&x| x * T::ZERO != T::ZERO);
    elements.chunks(width).position(is_broken)
}

/// The true frames of a padded array, in order, and nothing else of it.
fn gather(name: &str, array: &Tensor, lengths: &[i64], side: Side) -> Result<Tensor> {
    let shape = array.size();
    let [batch, width, dim] = shape[..] else {
        return Err(Error::Batch(format!(
            "{name} must be a padded array (batch, time, width) or a list of (time, width) arrays, got shape {shape:?}"
        )));
    };
    if usize::try_from(batch).ok() != Some(lengths.len()) {
        return Err(Error::Batch(format!(
            "{name}_lengths must hold one length an utterance: {name} has {batch}, {name}_lengths {}",
            lengths.len()
        )));
    }
    let mut rows = Vec::new();
    for (b, &length) in (0..).zip(lengths) {
        if length < 1 || length > width {
            return Err(Error::Batch(format!(
                "{name}: utterance {b} of the batch has length {length}, expected 1 to {width} (the array's width)"
            )));
        }
        let start = b * width + if side == Side::Left { width - length } else { 0 };
        rows.extend(start..start + length);
    }
    Ok(array.reshape([batch * width, dim]).index_select(0, &Tensor::from_slice(&rows)))
}

fn concatenate(name: &str, utterances: &[Tensor]) -> Result<(Tensor, Vec<i64>)> {
    let width = utterances.first().map_or(0, |u| u.size().last().copied().unwrap_or(0));
    for (b, utterance) in utterances.iter().enumerate() {
        match utterance.size()[..] {
            [length, w] if length >= 1 && w == width => {}
            [0, _] => {
                return Err(Error::Batch(format!(
                    "{name}: utterance {b} of the batch has length 0, expected at least 1 frame"
                )));
            }
            ref shape => {
                return Err(Error::Batch(format!(
                    "{name}: utterance {b} of the batch must have shape (time, {width}) like the first, got {shape:?}"
                )));
            }
        }
    }
    Ok((Tensor::cat(utterances, 0), utterances.iter().map(|u| u.size()[0]).collect()))
}

fn pack_tokens(utterances: &[Tensor]) -> Result<Text> {
    let mut lengths = Vec::with_capacity(utterances.len());
    let mut columns = Vec::with_capacity(utterances.len());
    for (b, utterance) in utterances.iter().enumerate() {
        let shape = utterance.size();
        if shape.len() != 2 || shape[0] != 3 {
            return Err(Error::Batch(format!(
                "text_bert: utterance {b} of the batch must have shape (3, tokens): ids, mask, segments; got {shape:?}"
            )));
        }
        let kept = utterance.index_select(1, &utterance.i(1).nonzero().view([-1]));
        if kept.is_floating_point() && !bool::try_from(kept.frac().eq(0).all()).unwrap_or(false) {
            return Err(Error::Batch(format!(
                "text_bert: utterance {b} of the batch must hold whole numbers: ids, mask, segments"
            )));
        }
        let kept = kept.to_kind(Kind::Int64);
        if kept.size()[1] == 0 {
            return Err(Error::Batch(format!(
                "text_bert: utterance {b} of the batch has length 0 (its mask is zero everywhere), expected at least 1 token"
            )));
        }
        lengths.push(kept.size()[1]);
        columns.push(kept);
    }
    let packed = Tensor::cat(&columns, 1);
    let (ids, segments) = (packed.i(0), packed.i(2));
    if packed.min().int64_value(&[]) < 0 {
        return Err(Error::Batch("text_bert must not hold negative numbers".into()));
    }
    let layout = Layout::new(lengths);
    let whole = |row: Tensor| Vec::<i64>::try_from(row.contiguous()).expect("one row of whole numbers");
    let places = whole(ids.shallow_clone())
        .into_iter()
        .zip(whole(segments.shallow_clone()))
        .enumerate()
        .map(|(row, (id, segment))| [id as usize, layout.place(row).1, segment as usize])
        .collect();
    Ok(Text::Tokens {
        largest_id: ids.max().int64_value(&[]),
        largest_segment: segments.max().int64_value(&[]),
        places: Arc::new(places),
        layout: Arc::new(layout),
    })
}

fn check_labels(labels: &Tensor, kind: Kind, device: Device) -> Result<Labels> {
    let labels = labels.to_kind(kind).reshape([-1]).contiguous();
    let broken = labels.isfinite().logical_not().nonzero();
    if broken.numel() > 0 {
        return Err(Error::Batch(format!(
            "labels: utterance {} of the batch has the label {}, expected a finite score",
            broken.int64_value(&[0, 0]),
            labels.double_value(&[broken.int64_value(&[0, 0])]),
        )));
    }
    Ok(Labels { largest: labels.abs().max().double_value(&[]), values: labels.to_device(device) })
}

fn check_index(index: &Tensor) -> Result<Vec<i64>> {
    let index = index.reshape([-1]);
    let index = Vec::<i64>::try_from(index.to_kind(Kind::Int64).contiguous())
        .map_err(|e| Error::Batch(format!("index can't be read: {e}")))?;
    match index.iter().find(|i| **i < 0) {
        Some(negative) => Err(Error::Batch(format!("index must not be negative, got {negative}"))),
        None => Ok(index),
    }
}
