//! What the scans of LSTM and GRU share.
//!
//! A scan runs a few utterances of similar length side by side, so that each recurrent weight that is read
//! serves all of them. The products with the inputs are made for all frames beforehand.

use crate::ragged::Layout;

/// Utterances that one scan runs side by side.
pub const SIDE_BY_SIDE: usize = 4;

/// The utterances of one scan, longest first.
#[derive(Clone, Copy)]
pub struct Group<'a> {
    layout: &'a Layout,
    members: &'a [usize],
    reverse: bool,
}

impl<'a> Group<'a> {
    /// All groups of a layout, for scans from the first true frame on, or from the last back.
    pub fn all(layout: &'a Layout, reverse: bool) -> impl Iterator<Item = Self> {
        layout.longest_first.chunks(SIDE_BY_SIDE).map(move |members| Self { layout, members, reverse })
    }

    pub fn steps(&self) -> usize {
        self.length(0)
    }

    pub fn length(&self, member: usize) -> usize {
        self.layout.span(self.members[member]).1
    }

    /// How many utterances have a frame at step `t`: the first ones.
    pub fn running(&self, t: usize) -> usize {
        (0..self.members.len()).take_while(|&m| self.length(m) > t).count()
    }

    /// Index of an utterance in the batch.
    pub fn utterance(&self, member: usize) -> usize {
        self.members[member]
    }

    pub fn size(&self) -> usize {
        self.members.len()
    }

    /// The packed row that a member reads at step `t`.
    pub fn frame(&self, member: usize, t: usize) -> usize {
        let (first, length) = self.layout.span(self.members[member]);
        first + if self.reverse { length - 1 - t } else { t }
    }
}
