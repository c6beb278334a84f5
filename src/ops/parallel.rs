//! How many threads kernels use: as many as torch is set to. The threads themselves are in [`crate::numeric::parallel`].

use std::cell::Cell;

use crate::numeric::parallel::with_threads;
pub use crate::numeric::parallel::{PANIC_IS_CAUGHT, both, each, each_of};

/// An operation on fewer elements than this runs on one thread: waking another costs more than it gains.
const SMALL: usize = 1 << 14;

thread_local! {
    /// Threads of the kernels that this thread calls, while libtorch itself is limited to one.
    static THREADS: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Runs `f`, whose heavy work is all in kernels, with libtorch on one thread: libtorch's own threads, once woken, wait
/// for more work in a busy loop and take cores from the kernels' threads.
pub fn kernels_alone<R>(f: impl FnOnce() -> R) -> R {
    struct Restore(i32, Option<usize>);
    impl Drop for Restore {
        fn drop(&mut self) {
            // SAFETY: takes and returns plain values.
            unsafe { mmiln_set_own_threads(self.0) };
            THREADS.set(self.1);
        }
    }
    // SAFETY: as above.
    let before = unsafe { mmiln_set_own_threads(1) };
    let outer = THREADS.get();
    let _restore = Restore(before, outer);
    THREADS.set(outer.or_else(|| usize::try_from(before).ok()));
    f()
}

/// How many threads kernels may use: as many as torch is set to.
fn threads() -> usize {
    THREADS.get().or_else(|| usize::try_from(tch::get_num_threads()).ok()).unwrap_or(1)
}

/// Runs `work`, which touches about `elements` numbers, where [`each`] and friends may use several threads.
pub fn install<R>(elements: usize, work: impl FnOnce() -> R) -> R {
    with_threads(if elements < SMALL { 1 } else { threads() }, work)
}

// csrc/autograd_node.cpp
unsafe extern "C" {
    fn mmiln_set_own_threads(count: i32) -> i32;
}
