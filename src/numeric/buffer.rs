//! Memory of the kernels: slices that several threads fill, scratch that is used again.

use std::ffi::c_void;
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

/// Bytes from which on working memory comes from the pool that the kernels' tensors share: threads that each
/// kept their own would have to get new memory as often as work moves from one to another.
const LARGE: usize = 1 << 16;

/// Bytes of a cache line, which is where working memory begins.
const LINE: usize = 64;

/// Working memory, kept from one operation to the next.
pub struct Scratch<T: Real> {
    memory: Memory<T>,
    len: usize,
}

enum Memory<T> {
    /// The calling thread's own, and where in it a cache line begins.
    Kept(Vec<T>, usize),
    /// A block of the pool and where its memory begins.
    Pooled(*mut c_void, *mut T),
}

// SAFETY: memory of one owner.
unsafe impl<T: Real> Send for Scratch<T> {}
// SAFETY: as above.
unsafe impl<T: Real> Sync for Scratch<T> {}

impl<T: Real> Scratch<T> {
    /// `len` elements that hold whatever was left in them.
    pub fn new(len: usize) -> Self {
        let bytes = len * size_of::<T>();
        if bytes < LARGE {
            let data: Vec<T> = kept(len + LINE / size_of::<T>());
            let start = data.as_ptr().align_offset(LINE);
            return Self { memory: Memory::Kept(data, start), len };
        }
        let mut data = std::ptr::null_mut();
        // SAFETY: plain values; what comes back is ours until it is given back.
        let block = unsafe { mmiln_borrow(bytes, &raw mut data) };
        assert!(!block.is_null(), "out of memory for {bytes} bytes of working memory");
        Self { memory: Memory::Pooled(block, data.cast()), len }
    }

    /// `len` zeros.
    pub fn zeros(len: usize) -> Self {
        let mut scratch = Self::new(len);
        scratch.fill(T::ZERO);
        scratch
    }
}

/// The smallest buffer of this thread's that holds `len` elements, or a new one.
fn kept<T: Real>(len: usize) -> Vec<T> {
    T::kept().with_borrow_mut(|kept| {
        let fits = kept.iter().enumerate().filter(|(_, data)| data.len() >= len);
        match fits.min_by_key(|(_, data)| data.len()) {
            Some((i, _)) => kept.swap_remove(i),
            None => vec![T::ZERO; len.next_power_of_two()],
        }
    })
}

impl<T: Real> Drop for Scratch<T> {
    fn drop(&mut self) {
        match &mut self.memory {
            Memory::Kept(data, _) => {
                let data = std::mem::take(data);
                // Where the thread is ending there is nothing to keep it for.
                let _ = T::kept().try_with(|kept| kept.borrow_mut().push(data));
            }
            // SAFETY: borrowed in `new`, given back once.
            Memory::Pooled(block, _) => unsafe { mmiln_give_back(*block) },
        }
    }
}

impl<T: Real> std::ops::Deref for Scratch<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        match &self.memory {
            Memory::Kept(data, start) => &data[*start..][..self.len],
            // SAFETY: good for `len` elements, of which any bits are a number.
            Memory::Pooled(_, data) => unsafe { std::slice::from_raw_parts(*data, self.len) },
        }
    }
}

impl<T: Real> std::ops::DerefMut for Scratch<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        match &mut self.memory {
            Memory::Kept(data, start) => &mut data[*start..][..self.len],
            // SAFETY: as above, and this is the one owner.
            Memory::Pooled(_, data) => unsafe { std::slice::from_raw_parts_mut(*data, self.len) },
        }
    }
}

// csrc/pool.cpp
unsafe extern "C" {
    fn mmiln_borrow(bytes: usize, data: *mut *mut c_void) -> *mut c_void;
    fn mmiln_give_back(block: *mut c_void);
}
