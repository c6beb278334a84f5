//! A batch: packed frames of text, audio and vision, targets and dataset indices.
//!
//! Built from padded arrays with lengths or from one array per utterance. Padding is never copied, whatever it
//! holds, NaN included.

mod device;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tch::kind::Element;
use tch::{Device, IndexOp, Kind, Tensor};

use crate::device::{runs_on, to_device};
use crate::error::{Error, Result};
use crate::numeric::{Number, Real};
use crate::ops::autograd::slice;
use crate::ops::embedding::Tokens;
use crate::ragged::{Layout, Ragged};
use device::{Buffer, rounded_rows};

/// Frames of one modality as a caller has them, on the CPU, of any type and strides.
pub enum Frames {
    /// `(B, width of the padding, width)` with each utterance's true length.
    Padded { array: Tensor, lengths: Vec<i64>, side: Side },
    /// One `(T, width)` array an utterance.
    List(Vec<Tensor>),
}

/// The end of a padded array at which the padding is.
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
    /// Packed tokens, for the text encoder.
    Tokens { tokens: Arc<Tokens>, layout: Arc<Layout>, largest_id: i64, largest_segment: i64 },
}

impl Text {
    pub fn layout(&self) -> &Arc<Layout> {
        match self {
            Self::Features(frames) => &frames.layout,
            Self::Tokens { layout, .. } => layout,
        }
    }
}

/// True labels or weights, `(B,)` on the device, and the largest magnitude, on the host.
#[derive(Debug)]
pub struct Labels {
    pub values: Tensor,
    pub largest: f64,
}

/// The data that one step reads.
#[derive(Debug)]
pub struct Batch {
    pub size: usize,
    pub text: Option<Text>,
    pub audio: Option<Ragged>,
    pub vision: Option<Ragged>,
    pub labels: Option<Labels>,
    /// Labels that people gave to audio or vision alone.
    pub unimodal_labels: BTreeMap<&'static str, Labels>,
    /// Weights of the utterances in the task loss, unless all are 1.
    pub weights: Option<Labels>,
    /// Position of each utterance in the training set.
    pub index: Option<Index>,
    /// On a device: the memory of all tensors.
    buffer: Option<Buffer>,
}

/// Positions in the training set.
#[derive(Debug)]
pub struct Index {
    pub values: Vec<i64>,
    /// On a device, `(2, B)`, `i32`: the positions; the same, with -1 for those that occur again later.
    pub on_device: Option<Tensor>,
}

// SAFETY: a batch's tensors are its own: `pack` copies what it is given and `parts` what it hands out. Only `copy_from`
// writes them, which has the batch to itself, and libtorch may read one tensor from any number of threads.
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
    pub unimodal_labels: BTreeMap<&'static str, Tensor>,
    pub weights: Option<Tensor>,
    pub index: Option<Tensor>,
}

impl Batch {
    /// Packs the parts on `device`, frames and labels as `kind`.
    ///
    /// # Errors
    /// [`Error::Batch`] for parts of different sizes, a wrong shape, an impossible length, a true frame
    /// that is not finite, a label that is not finite, a weight that is negative or not finite, a negative or
    /// fractional index.
    pub fn pack(parts: Parts, kind: Kind, device: Device) -> Result<Self> {
        let sizes: Vec<(&str, usize)> = [
            ("text", parts.text.as_ref().map(Frames::batch_size)),
            ("text_bert", parts.tokens.as_ref().map(Vec::len)),
            ("audio", parts.audio.as_ref().map(Frames::batch_size)),
            ("vision", parts.vision.as_ref().map(Frames::batch_size)),
            ("labels", parts.labels.as_ref().map(Tensor::numel)),
            ("labels_audio", parts.unimodal_labels.get("audio").map(Tensor::numel)),
            ("labels_vision", parts.unimodal_labels.get("vision").map(Tensor::numel)),
            ("weights", parts.weights.as_ref().map(Tensor::numel)),
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
        let on_device = runs_on(device);
        let frames = |name, part: Option<Frames>| {
            part.map(|frames| pack_frames(name, frames, kind, on_device)).transpose()
        };
        let text = match (parts.tokens, frames("text", parts.text)?) {
            (Some(tokens), _) => Some(pack_tokens(&tokens, on_device)?),
            (None, features) => features.map(Text::Features),
        };
        let batch = Self {
            size,
            text,
            audio: frames("audio", parts.audio)?,
            vision: frames("vision", parts.vision)?,
            labels: parts.labels.map(|l| check_labels("labels", &l, kind)).transpose()?,
            unimodal_labels: parts
                .unimodal_labels
                .into_iter()
                .map(|(name, l)| Ok((name, check_labels(&format!("labels of {name}"), &l, kind)?)))
                .collect::<Result<_>>()?,
            weights: parts.weights.map(|w| check_weights(&w, kind)).transpose()?.flatten(),
            index: parts.index.map(|i| check_index(&i)).transpose()?,
            buffer: None,
        };
        Ok(if on_device { batch.moved_to(device) } else { batch })
    }

    /// The same batch in a buffer on a device.
    fn moved_to(self, device: Device) -> Self {
        let index = self.index.as_ref().map(Index::numbers);
        let mut tensors = Vec::new();
        for ragged in self.ragged() {
            tensors.extend([&ragged.frames, ragged.layout.on(Device::Cpu)]);
        }
        if let Some(Text::Tokens { tokens, layout, .. }) = &self.text {
            tensors.extend([tokens.on(Device::Cpu), layout.on(Device::Cpu)]);
        }
        let numbers = self.labels.iter().chain(self.unimodal_labels.values()).chain(&self.weights);
        tensors.extend(numbers.map(|labels| &labels.values));
        tensors.extend(index.as_ref());
        self.with(Buffer::of(&tensors, device))
    }

    /// The same batch with the tensors of a buffer, in the order of [`Batch::moved_to`].
    fn with(&self, buffer: Buffer) -> Self {
        let mut tensors = buffer.tensors().into_iter();
        let mut next = || tensors.next().expect("as many tensors as there were");
        let layout = |layout: &Layout, numbers| Arc::new(layout.with_numbers(numbers));
        let mut ragged = |ragged: &Ragged| {
            let frames = next();
            Ragged { frames, layout: layout(&ragged.layout, next()) }
        };
        let features = match &self.text {
            Some(Text::Features(frames)) => Some(Text::Features(ragged(frames))),
            _ => None,
        };
        let (audio, vision) = (self.audio.as_ref().map(&mut ragged), self.vision.as_ref().map(&mut ragged));
        let tokens = match &self.text {
            Some(Text::Tokens { tokens, layout: own, largest_id, largest_segment }) => Some(Text::Tokens {
                tokens: Arc::new(tokens.with_numbers(next())),
                layout: layout(own, next()),
                largest_id: *largest_id,
                largest_segment: *largest_segment,
            }),
            _ => None,
        };
        let mut own = |labels: &Labels| Labels { values: next(), largest: labels.largest };
        let labels = self.labels.as_ref().map(&mut own);
        let unimodal_labels = self.unimodal_labels.iter().map(|(name, l)| (*name, own(l))).collect();
        let weights = self.weights.as_ref().map(&mut own);
        let index = self.index.as_ref().map(|i| Index { values: i.values.clone(), on_device: Some(next()) });
        Self {
            size: self.size,
            text: features.or(tokens),
            audio,
            vision,
            labels,
            unimodal_labels,
            weights,
            index,
            buffer: Some(buffer),
        }
    }

    /// Packed frames: text features, audio, vision.
    fn ragged(&self) -> impl Iterator<Item = &Ragged> {
        let text = match &self.text {
            Some(Text::Features(frames)) => Some(frames),
            _ => None,
        };
        [text, self.audio.as_ref(), self.vision.as_ref()].into_iter().flatten()
    }

    /// On a device: a copy with its own memory, which [`Batch::copy_from`] overwrites; on the CPU `None`.
    pub fn copy(&self) -> Option<Self> {
        self.buffer.as_ref().map(|buffer| self.with(buffer.copy()))
    }

    /// On a device: copies the tensors of a batch of the same shapes, but nothing that the host keeps.
    pub fn copy_from(&mut self, other: &Self) {
        if let (Some(own), Some(other)) = (&mut self.buffer, &other.buffer) {
            own.copy_from(other);
        }
    }

    /// On a device: the memory of all tensors.
    pub fn bytes(&self) -> Option<&Tensor> {
        self.buffer.as_ref().map(Buffer::bytes)
    }

    /// The number of utterances, and the kind, rows and width of each part: equal for two batches whose tensors
    /// have the same shapes.
    pub fn shapes(&self) -> Vec<i64> {
        let part = |frames: Option<&Ragged>| frames.map_or_else(|| vec![0, 0], |f| f.frames.size());
        let text = match &self.text {
            None => vec![0, 0, 0],
            Some(Text::Features(frames)) => [vec![1], frames.frames.size()].concat(),
            Some(Text::Tokens { layout, .. }) => vec![2, layout.rows() as i64, 1],
        };
        let unimodal = ["audio", "vision"].map(|name| self.unimodal_labels.contains_key(name));
        let (labels, weights, index) = (self.labels.is_some(), self.weights.is_some(), self.index.is_some());
        let given = [labels, weights, index, unimodal[0], unimodal[1]].map(i64::from);
        [&[self.size as i64], &text[..], &part(self.audio.as_ref()), &part(self.vision.as_ref()), &given]
            .concat()
    }

    /// Copies of the packed tensors by name: frames, tokens `(sum T, 2)` (word, segment), `*_lengths`, `labels`,
    /// `labels_*`, `weights`, `index`.
    pub fn parts(&self) -> Vec<(String, Tensor)> {
        let mut parts = Vec::new();
        let mut push = |name: &str, packed: Tensor, layout: &Layout| {
            parts.push((format!("{name}_lengths"), Tensor::from_slice(&layout.lengths)));
            parts.push((name.to_owned(), packed.narrow(0, 0, layout.total).copy()));
        };
        match &self.text {
            Some(Text::Tokens { tokens, layout, .. }) => {
                let read = tokens.places.iter().flat_map(|&[word, _, segment]| [word as i64, segment as i64]);
                push("tokens", Tensor::from_slice(&read.collect::<Vec<_>>()).view([-1, 2]), layout);
            }
            Some(Text::Features(frames)) => push("text", frames.frames.shallow_clone(), &frames.layout),
            None => {}
        }
        for (name, frames) in [("audio", &self.audio), ("vision", &self.vision)] {
            if let Some(frames) = frames {
                push(name, frames.frames.shallow_clone(), &frames.layout);
            }
        }
        parts.extend(self.labels.iter().map(|labels| ("labels".to_owned(), labels.values.copy())));
        let unimodal = self.unimodal_labels.iter();
        parts.extend(unimodal.map(|(name, labels)| (format!("labels_{name}"), labels.values.copy())));
        parts.extend(self.weights.iter().map(|weights| ("weights".to_owned(), weights.values.copy())));
        let index = self.index.iter().map(|index| Tensor::from_slice(&index.values));
        parts.extend(index.map(|index| ("index".to_owned(), index)));
        parts
    }
}

impl Index {
    /// Takes positions `(B,)`, and puts them on the device where kernels there read them.
    ///
    /// # Errors
    /// [`Error::Batch`] for a negative position.
    pub fn of(index: &Tensor, device: Device) -> Result<Self> {
        let index = check_index(index)?;
        let on_device = runs_on(device).then(|| to_device(&index.numbers(), device));
        Ok(Self { on_device, ..index })
    }

    /// The rows to update: of a position that occurs twice, only the last place.
    ///
    /// Returns (places in the batch, positions).
    pub fn distinct(&self) -> (Vec<usize>, Vec<usize>) {
        let index = &self.values;
        let last: HashMap<i64, usize> = index.iter().enumerate().map(|(place, &i)| (i, place)).collect();
        (0..index.len()).filter(|&p| last[&index[p]] == p).map(|p| (p, index[p] as usize)).unzip()
    }

    fn numbers(&self) -> Tensor {
        let all = self.values.iter().map(|&i| i as i32);
        let mut last = vec![-1; self.values.len()];
        for (place, row) in std::iter::zip(self.distinct().0, self.distinct().1) {
            last[place] = row as i32;
        }
        let numbers: Vec<i32> = all.chain(last).collect();
        Tensor::from_slice(&numbers).view([2, self.values.len() as i64])
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

fn pack_frames(name: &str, frames: Frames, kind: Kind, on_device: bool) -> Result<Ragged> {
    let (packed, lengths) = match frames {
        Frames::Padded { array, lengths, side } => (gather(name, &array, &lengths, side)?, lengths),
        Frames::List(utterances) => concatenate(name, &utterances)?,
    };
    let mut packed = packed.to_kind(kind).contiguous();
    let layout = layout(lengths, on_device);
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
    if layout.rows() > layout.total as usize {
        packed = packed.constant_pad_nd([0, 0, 0, layout.rows() as i64 - layout.total]);
    }
    Ok(Ragged { frames: packed, layout: Arc::new(layout) })
}

fn layout(lengths: Vec<i64>, on_device: bool) -> Layout {
    if !on_device {
        return Layout::new(lengths);
    }
    let rows = rounded_rows(lengths.iter().sum::<i64>() as usize);
    Layout::with_rows(lengths, rows)
}

/// The first row with an element that is not finite.
fn first_broken<T: Real + Element>(packed: &Tensor) -> Option<usize> {
    // SAFETY: `pack_frames` has just made it, and lends it for this call.
    let (elements, width) = (unsafe { slice::<T>(packed) }, packed.size()[1].max(1) as usize);
    // Zero times a finite number is zero; zero times any other is NaN.
    let zero = <T as Number>::ZERO;
    let is_broken = |row: &[T]| row.iter().any(|&x| x * zero != zero);
    elements.chunks(width).position(is_broken)
}

/// A copy of the true frames of a padded array, in order.
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

fn pack_tokens(utterances: &[Tensor], on_device: bool) -> Result<Text> {
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
    let layout = layout(lengths, on_device);
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
        tokens: Arc::new(Tokens::new(places, layout.rows())),
        layout: Arc::new(layout),
    })
}

fn check_labels(name: &str, labels: &Tensor, kind: Kind) -> Result<Labels> {
    let labels = labels.to_kind(kind).reshape([-1]).copy();
    let broken = labels.isfinite().logical_not().nonzero();
    if broken.numel() > 0 {
        return Err(Error::Batch(format!(
            "{name}: utterance {} of the batch has the label {}, expected a finite score",
            broken.int64_value(&[0, 0]),
            labels.double_value(&[broken.int64_value(&[0, 0])]),
        )));
    }
    Ok(Labels { largest: labels.abs().max().double_value(&[]), values: labels })
}

/// `None` where all weights are 1, as those of a batch without any: the same operations then give the same bits.
fn check_weights(weights: &Tensor, kind: Kind) -> Result<Option<Labels>> {
    let values = weights.to_kind(kind).reshape([-1]).copy();
    let broken = values.isfinite().logical_and(&values.ge(0.0)).logical_not().nonzero();
    if broken.numel() > 0 {
        return Err(Error::Batch(format!(
            "weights: utterance {} of the batch has the weight {}, expected a finite number of 0 or more",
            broken.int64_value(&[0, 0]),
            values.double_value(&[broken.int64_value(&[0, 0])]),
        )));
    }
    let [smallest, largest] = [values.min(), values.max()].map(|extreme| extreme.double_value(&[]));
    Ok((smallest != 1.0 || largest != 1.0).then_some(Labels { values, largest }))
}

fn check_index(index: &Tensor) -> Result<Index> {
    let index = index.reshape([-1]);
    let index = Vec::<i64>::try_from(index.to_kind(Kind::Int64).contiguous())
        .map_err(|e| Error::Batch(format!("index can't be read: {e}")))?;
    match index.iter().find(|i| **i < 0) {
        Some(negative) => Err(Error::Batch(format!("index must not be negative, got {negative}"))),
        None => Ok(Index { values: index, on_device: None }),
    }
}
