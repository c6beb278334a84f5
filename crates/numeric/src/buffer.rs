//! The kernels' memory: slices that several threads fill, and working memory that is reused.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use pulp::bytemuck::{cast_slice, cast_slice_mut};

use super::number::Number;
use super::pool::{self, Line};

/// A slice in which several threads write, each to parts of its own.
///
/// It holds the only borrow of the slice, and checks that parts lie within it. The caller of [`Shared::part`]
/// promises that no two parts overlap, as does whoever writes to a [`Shared::pointer`]. Usually the part follows
/// from the number that [`super::parallel::each`] passes to its closure, as it passes each number once.
pub struct Shared<'a, T> {
    data: *mut T,
    len: usize,
    _borrowed: PhantomData<&'a mut [T]>,
}

// SAFETY: it stands for a `&mut [T]`, which may be sent where `T` may.
unsafe impl<T: Send> Send for Shared<'_, T> {}
// SAFETY: through a shared reference other threads get `&mut T` of elements that nobody else has, which is sending
// them; none gets a `&T` that another has too, so `T` need not be `Sync`.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub fn new(data: &'a mut [T]) -> Self {
        Self { data: data.as_mut_ptr(), len: data.len(), _borrowed: PhantomData }
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The address of element `start`, good for `len` elements as long as nobody else uses one of them.
    ///
    /// # Panics
    /// Where the slice ends before those.
    pub fn pointer(&self, start: usize, len: usize) -> *mut T {
        let fits = start <= self.len && len <= self.len - start;
        assert!(fits, "elements {start} + {len} of {}", self.len);
        self.data.wrapping_add(start)
    }

    /// `len` elements from `start` on.
    ///
    /// # Panics
    /// Where the slice ends before those.
    ///
    /// # Safety
    /// As long as the part lives, none of its elements may be in another part, or be used by a pointer.
    #[allow(clippy::mut_from_ref)] // the reason why this is `unsafe`
    pub unsafe fn part(&self, start: usize, len: usize) -> &mut [T] {
        // SAFETY: `pointer` checks that it's within the slice, whose borrow lasts longer than `self`; the caller keeps
        // parts apart.
        unsafe { std::slice::from_raw_parts_mut(self.pointer(start, len), len) }
    }
}

/// Working memory of this many bytes or more comes from the pool of the kernels' tensors: if each thread kept its
/// own, new memory would be needed whenever work moves from one thread to another.
const LARGE: usize = 1 << 16;

thread_local! {
    /// Smaller working memory that the thread keeps for its next operation.
    static KEPT: RefCell<Vec<Vec<Line>>> = const { RefCell::new(Vec::new()) };
}

/// Working memory that begins at a cache line, kept from one operation to the next.
pub struct Scratch<T: Number> {
    lines: Vec<Line>,
    len: usize,
    _of: PhantomData<T>,
}

impl<T: Number> Scratch<T> {
    /// `len` elements with values from earlier use.
    ///
    /// # Panics
    /// Where there is no memory.
    pub fn new(len: usize) -> Self {
        let bytes = len * size_of::<T>();
        let lines = if bytes < LARGE { kept(Line::count(bytes)) } else { pool::borrow(bytes) };
        let lines = lines.unwrap_or_else(|| panic!("out of memory for {bytes} bytes of working memory"));
        Self { lines, len, _of: PhantomData }
    }

    /// `len` zeros.
    pub fn zeros(len: usize) -> Self {
        let mut scratch = Self::new(len);
        scratch.fill(T::ZERO);
        scratch
    }
}

/// The smallest block with enough lines that this thread keeps, or a new one.
fn kept(lines: usize) -> Option<Vec<Line>> {
    KEPT.with_borrow_mut(|kept| {
        let fits = kept.iter().enumerate().filter(|(_, block)| block.len() >= lines);
        match fits.min_by_key(|(_, block)| block.len()) {
            Some((i, _)) => Some(kept.swap_remove(i)),
            None => pool::new(lines.next_power_of_two()),
        }
    })
}

impl<T: Number> Drop for Scratch<T> {
    fn drop(&mut self) {
        let lines = std::mem::take(&mut self.lines);
        if self.len * size_of::<T>() < LARGE {
            // This fails only where the thread is ending, which needs the memory no more.
            let _ = KEPT.try_with(|kept| kept.borrow_mut().push(lines));
        } else {
            pool::give_back(lines);
        }
    }
}

impl<T: Number> Deref for Scratch<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &cast_slice(&self.lines)[..self.len]
    }
}

impl<T: Number> DerefMut for Scratch<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut cast_slice_mut(&mut self.lines)[..self.len]
    }
}
