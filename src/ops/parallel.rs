//! How many threads kernels use: as many as torch is set to. What the threads do is in [`crate::numeric::parallel`].

use std::cell::Cell;

use crate::numeric::parallel::with_threads;
pub use crate::numeric::parallel::{PANIC_IS_CAUGHT, both, each, each_of};

/// Elements below which an operation is not worth waking another thread for.
const SMALL: usize = 1 << 14;

thread_local! {
    /// Threads of the kernels that this thread calls, where libtorch itself is held to one.
    static THREADS: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Runs `f`, all of whose heavy work is in kernels, with libtorch on one thread: its own threads, once woken,
/// keep their cores busy waiting for more, which the kernels' threads would have to share.
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
