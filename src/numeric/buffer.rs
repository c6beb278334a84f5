//! Memory of the kernels: slices that several threads fill, scratch that a thread keeps.

use std::marker::PhantomData;

use super::real::Real;

/// One slice of which several threads write parts, each its own.
pub struct Shared<'a, T> {
    data: *mut T,
    len: usize,
    _borrowed: PhantomData<&'a mut [T]>,
}

// SAFETY: as a `&mut [T]`, which `part` hands out in parts that do not overlap.
unsafe impl<T: Send> Send for Shared<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub fn new(data: &'a mut [T]) -> Self {
        Self { data: data.as_mut_ptr(), len: data.len(), _borrowed: PhantomData }
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where element `start` stands, good for `len` elements.
    pub fn pointer(&self, start: usize, len: usize) -> *mut T {
        assert!(start + len <= self.len, "elements {start} + {len} of {}", self.len);
        self.data.wrapping_add(start)
    }

    /// `len` elements from `start` on.
    ///
    /// # Safety
    /// No element may be in two parts that live at the same time.
    #[allow(clippy::mut_from_ref)] // what `unsafe` is for here
    pub unsafe fn part(&self, start: usize, len: usize) -> &mut [T] {
        // SAFETY: within the slice; the caller keeps parts apart.
        unsafe { std::slice::from_raw_parts_mut(self.pointer(start, len), len) }
    }
}

/// Working memory that a thread keeps from one operation to the next.
pub struct Scratch<T: Real> {
    data: Vec<T>,
    len: usize,
}

impl<T: Real> Scratch<T> {
    /// `len` elements that hold whatever was left in them.
    pub fn new(len: usize) -> Self {
        let mut data = T::kept().with_borrow_mut(Vec::pop).unwrap_or_default();
        if data.len() < len {
            data.resize(len, T::ZERO);
        }
        Self { data, len }
    }

    /// `len` zeros.
    pub fn zeros(len: usize) -> Self {
        let mut scratch = Self::new(len);
        scratch.fill(T::ZERO);
        scratch
    }
}

impl<T: Real> Drop for Scratch<T> {
    fn drop(&mut self) {
        let data = std::mem::take(&mut self.data);
        // Where the thread is ending there is nothing to keep it for.
        let _ = T::kept().try_with(|kept| kept.borrow_mut().push(data));
    }
}

impl<T: Real> std::ops::Deref for Scratch<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.data[..self.len]
    }
}

impl<T: Real> std::ops::DerefMut for Scratch<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.data[..self.len]
    }
}
