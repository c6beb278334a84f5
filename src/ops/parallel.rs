//! Threads of the kernels: rayon pools of as many threads as torch is set to use.
//!
//! Work is always cut into the same pieces, whatever the number of threads, and partial sums are added in
//! the order of the pieces: one thread and many give the same bits. Code that runs in a pool is pure Rust
//! on slices. It never calls libtorch or takes a lock, so it does not matter what a waiting thread picks up.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use rayon::ThreadPool;
use rayon::prelude::*;

/// Elements below which an operation is not worth waking another thread for.
const SMALL: usize = 1 << 14;

thread_local! {
    /// Whether the panic of a thread is caught at the entry point, so that it need not be printed.
    pub static PANIC_IS_CAUGHT: Cell<bool> = const { Cell::new(false) };
    /// Threads of the kernels that this thread calls, where libtorch itself is held to one.
    static THREADS: Cell<Option<usize>> = const { Cell::new(None) };
}

unsafe extern "C" {
    fn mmiln_set_own_threads(count: i32) -> i32;
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

/// Pools by number of threads, and the process that made them: threads do not survive a fork.
static POOLS: Mutex<(u32, BTreeMap<usize, Arc<ThreadPool>>)> = Mutex::new((0, BTreeMap::new()));

fn pool(threads: usize) -> Option<Arc<ThreadPool>> {
    let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    let process = std::process::id();
    if pools.0 != process {
        // In a forked child the parent's pools are forgotten, not dropped: their threads can't be joined.
        std::mem::forget(std::mem::take(&mut pools.1));
        pools.0 = process;
    }
    if let Some(pool) = pools.1.get(&threads) {
        return Some(Arc::clone(pool));
    }
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|i| format!("mmiln-{i}"))
        .start_handler(|_| PANIC_IS_CAUGHT.set(true))
        .build();
    // Where no thread can be had, one's own does the work.
    let pool = Arc::new(pool.ok()?);
    pools.1.insert(threads, Arc::clone(&pool));
    Some(pool)
}

/// Runs `work`, which touches about `elements` numbers, where [`each`] and friends may use several threads.
pub fn install<R: Send>(elements: usize, work: impl FnOnce() -> R + Send) -> R {
    let threads = threads();
    if threads < 2 || elements < SMALL || rayon::current_thread_index().is_some() {
        return work();
    }
    match pool(threads) {
        Some(pool) => pool.install(work),
        None => work(),
    }
}

/// Calls `work` on every number below `count`, in any order.
pub fn each(count: usize, work: impl Fn(usize) + Sync) {
    if count > 1 && rayon::current_thread_index().is_some() {
        (0..count).into_par_iter().with_max_len(1).for_each(&work);
    } else {
        (0..count).for_each(work);
    }
}

/// The results of `work` on every number below `count`, in order.
pub fn map<R: Send>(count: usize, work: impl Fn(usize) -> R + Sync) -> Vec<R> {
    if count > 1 && rayon::current_thread_index().is_some() {
        (0..count).into_par_iter().with_max_len(1).map(&work).collect()
    } else {
        (0..count).map(work).collect()
    }
}

/// Runs both, at the same time where threads are to be had.
pub fn both(a: impl FnOnce() + Send, b: impl FnOnce() + Send) {
    if rayon::current_thread_index().is_some() {
        rayon::join(a, b);
    } else {
        a();
        b();
    }
}

/// Calls `work` on every item, in any order.
pub fn each_of<I: Send>(items: &mut [I], work: impl Fn(&mut I) + Sync) {
    if items.len() > 1 && rayon::current_thread_index().is_some() {
        items.par_iter_mut().with_max_len(1).for_each(&work);
    } else {
        items.iter_mut().for_each(work);
    }
}
