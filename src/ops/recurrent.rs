//! Code that the scans of LSTM and GRU share.
//!
//! A scan runs a few utterances of similar length side by side, so that each recurrent weight that is read
//! serves all of them, and the products of their frames are used while they are in the cache.

use std::ops::Range;

use crate::ragged::Layout;

/// Utterances that one scan runs side by side.
pub const SIDE_BY_SIDE: usize = 4;

/// The most partial sums of the weights' gradients, each over the utterances of some groups.
const PARTS: usize = 4;

/// A few utterances, longest first.
#[derive(Clone, Copy)]
pub struct Group<'a> {
    layout: &'a Layout,
    members: &'a [usize],
}

impl<'a> Group<'a> {
    /// All groups of a layout, the longest ones first.
    pub fn all(layout: &'a Layout) -> Vec<Self> {
        layout.longest_first.chunks(SIDE_BY_SIDE).map(|members| Self { layout, members }).collect()
    }

    /// The groups in parts of about equal work.
    pub fn parts(layout: &'a Layout) -> Vec<Vec<Self>> {
        let all = Self::all(layout);
        let count = PARTS.min(all.len());
        (0..count).map(|part| all[part..].iter().step_by(count).copied().collect()).collect()
    }

    pub fn steps(&self) -> usize {
        self.length(0)
    }

    pub fn length(&self, member: usize) -> usize {
        self.frames(member).len()
    }

    /// Frames of all members.
    pub fn total(&self) -> usize {
        self.own(self.size())
    }

    /// How many utterances have a frame at step `t`; these are the first ones.
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

    /// The packed rows of a member.
    pub fn frames(&self, member: usize) -> Range<usize> {
        let (first, length) = self.layout.span(self.members[member]);
        first..first + length
    }

    /// The first row of a member in a buffer that has the group's members one after the other.
    pub fn own(&self, member: usize) -> usize {
        (0..member).map(|m| self.length(m)).sum()
    }
}

/// The frame of an utterance of `length` that a scan reads at step `t`.
pub fn place(length: usize, t: usize, reverse: bool) -> usize {
    if reverse { length - 1 - t } else { t }
}
