//! Large blocks of memory, kept from one training step to the next.
//!
//! The C library returns large blocks to the system when they are freed, and the system clears each page again
//! before the next step uses it, which takes a considerable part of the step's time. Here freed blocks wait in
//! lists by size. The memory in use and waiting is never more than was in use at one time.

use std::collections::BTreeMap;
use std::sync::Mutex;

use pulp::bytemuck::{Pod, Zeroable};

use crate::lock;

/// A cache line. Memory is allocated in lines, as products read fastest from memory that begins at one.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Line([u64; 8]);

// SAFETY: eight plain numbers, all of which may be zero.
unsafe impl Zeroable for Line {}
// SAFETY: eight plain numbers fill the line, so there is no padding, and any bits are numbers.
unsafe impl Pod for Line {}

impl Line {
    pub const ZERO: Self = Self([0; 8]);

    /// How many lines hold so many bytes.
    pub fn count(bytes: usize) -> usize {
        bytes.div_ceil(size_of::<Self>())
    }
}

/// Sizes of blocks of more lines than this are rounded up; the C library handles smaller ones well.
const SMALL: usize = (1 << 16) / size_of::<Line>();

pub(crate) static POOL: Mutex<Pool> = Mutex::new(Pool::new());

/// All sizes are in lines.
pub(crate) struct Pool {
    waiting: BTreeMap<usize, Vec<Vec<Line>>>,
    used: usize,
    most_used: usize,
    /// The sum of the sizes of blocks that wait.
    kept: usize,
}

/// A block of at least so many bytes, with content from earlier use; `None` if there is no memory. Return it by
/// [`give_back`], on any thread.
pub fn borrow(bytes: usize) -> Option<Vec<Line>> {
    let lines = rounded(Line::count(bytes));
    let waiting = lock(&POOL).take(lines);
    if waiting.is_some() {
        return waiting;
    }
    // Without the lock, as clearing memory takes long.
    let block = new(lines).or_else(|| {
        lock(&POOL).release(0);
        new(lines)
    })?;
    lock(&POOL).lend(lines);
    Some(block)
}

/// Takes back a block that [`borrow`] gave.
pub fn give_back(block: Vec<Line>) {
    let mut pool = lock(&POOL);
    let lines = block.len();
    pool.used -= lines;
    pool.kept += lines;
    pool.waiting.entry(lines).or_default().push(block);
    let most = pool.most_used - pool.used;
    pool.release(most);
}

/// Rounds up to a multiple of an eighth of a power of two, so that batches of similar length use the same blocks.
fn rounded(lines: usize) -> usize {
    if lines <= SMALL { lines } else { lines.next_multiple_of(1 << (lines.ilog2() - 3)) }
}

/// New memory, cleared, as reading memory that was never written is undefined.
pub(crate) fn new(lines: usize) -> Option<Vec<Line>> {
    let mut block = Vec::new();
    block.try_reserve_exact(lines).ok()?;
    block.resize(lines, Line::ZERO);
    Some(block)
}

impl Pool {
    const fn new() -> Self {
        Self { waiting: BTreeMap::new(), used: 0, most_used: 0, kept: 0 }
    }

    /// A waiting block, which may be up to half larger than asked for, as batches differ in length.
    fn take(&mut self, lines: usize) -> Option<Vec<Line>> {
        let mut fitting = self.waiting.range_mut(lines..=lines + lines / 2);
        let block = fitting.find_map(|(_, blocks)| blocks.pop())?;
        self.kept -= block.len();
        self.lend(block.len());
        Some(block)
    }

    fn lend(&mut self, lines: usize) {
        self.used += lines;
        self.most_used = self.most_used.max(self.used);
    }

    /// Frees waiting blocks, the largest first, until at most so many lines wait.
    fn release(&mut self, lines: usize) {
        for blocks in self.waiting.values_mut().rev() {
            while self.kept > lines {
                let Some(block) = blocks.pop() else { break };
                self.kept -= block.len();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_waits_than_was_in_use_at_once() {
        let mut pool = Pool::new();
        pool.lend(30);
        pool.lend(40);
        assert_eq!((pool.used, pool.most_used), (70, 70));
        for lines in [30, 40] {
            pool.used -= lines;
            pool.kept += lines;
            pool.waiting.entry(lines).or_default().push(new(lines).expect("there is memory"));
        }
        assert!(
            pool.take(26).is_some_and(|block| block.len() == 30),
            "a block that is somewhat too large will do"
        );
        assert!(pool.take(26).is_none(), "40 lines are too many for 26");
        pool.release(39);
        assert_eq!((pool.used, pool.kept), (30, 0));
    }

    #[test]
    fn sizes_are_rounded_to_an_eighth_of_a_power_of_two() {
        for (lines, expected) in
            [(1, 1), (777, 777), (1024, 1024), (1025, 1152), (2047, 2048), (2048, 2048), (2049, 2304)]
        {
            assert_eq!(rounded(lines), expected);
        }
    }
}
