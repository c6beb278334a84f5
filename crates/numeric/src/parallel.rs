//! Threads of the kernels.
//!
//! Work is always cut into the same pieces, whatever the number of threads, and partial sums are added in
//! the order of the pieces: one thread and many give the same bits.
//!
//! A step has some seventy operations of less than a millisecond, so waking a thread for each would cost much of
//! what that thread contributes. The caller works itself and does not wait for helpers that have not begun; helpers,
//! threads of a rayon pool, look for the next job for a moment before they go back to sleep.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rayon::ThreadPool;

use super::buffer::Shared;
use crate::lock;

/// How long a helper without work looks for more before it sleeps.
const LOOK_OUT: Duration = Duration::from_micros(200);

thread_local! {
    /// Whether a panic of this thread is caught at the entry point, so that it need not be printed.
    pub static PANIC_IS_CAUGHT: Cell<bool> = const { Cell::new(false) };
    /// The team that helps with this thread's jobs.
    static TEAM: RefCell<Option<Arc<Team>>> = const { RefCell::new(None) };
}

/// Threads that help with the jobs of any caller.
pub(crate) struct Team {
    pool: ThreadPool,
    helpers: usize,
    /// Helpers that are awake.
    awake: AtomicUsize,
    /// How many jobs there have been.
    published: AtomicUsize,
    jobs: Mutex<Vec<Arc<Job>>>,
}

pub(crate) type Teams = (u32, BTreeMap<usize, Arc<Team>>);

/// The teams by number of threads, and the process that made them: threads do not survive a fork.
pub(crate) static TEAMS: Mutex<Teams> = Mutex::new((0, BTreeMap::new()));

/// Pieces of work, each of which is done by the first thread that takes it.
struct Job {
    /// The caller's closure, good until [`Job::close`] has returned.
    work: *const (dyn Fn(usize) + Sync),
    count: usize,
    next: AtomicUsize,
    /// The number of helpers at work, plus [`CLOSED`] once no more may enter.
    helpers: AtomicUsize,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

const CLOSED: usize = 1 << (usize::BITS - 1);

// SAFETY: all but `work` may be sent and shared. What `work` points to is `Sync`, and the pointer is followed only
// where `Job::work` says.
unsafe impl Send for Job {}
// SAFETY: as above.
unsafe impl Sync for Job {}

impl Job {
    /// Does pieces until none is left.
    ///
    /// # Safety
    /// Call it from the thread that will close the job, before that, or from a helper between [`Job::enter`] and
    /// [`Job::leave`].
    unsafe fn work(&self) {
        loop {
            let piece = self.next.fetch_add(1, Ordering::Relaxed);
            if piece >= self.count {
                return;
            }
            // SAFETY: the job has not been closed, as the caller says.
            unsafe { (*self.work)(piece) };
        }
    }

    fn is_taken(&self) -> bool {
        self.next.load(Ordering::Relaxed) >= self.count
    }

    /// Lets one more helper in, unless the job is closed; returns whether it did.
    fn enter(&self) -> bool {
        let one_more = |helpers| (helpers & CLOSED == 0).then_some(helpers + 1);
        self.helpers.fetch_update(Ordering::Acquire, Ordering::Relaxed, one_more).is_ok()
    }

    fn leave(&self) {
        self.helpers.fetch_sub(1, Ordering::Release);
    }

    /// Lets no more helpers in, and waits until those inside have left.
    fn close(&self) {
        self.next.fetch_max(self.count, Ordering::Relaxed);
        self.helpers.fetch_or(CLOSED, Ordering::AcqRel);
        for turn in 0.. {
            match self.helpers.load(Ordering::Acquire) {
                CLOSED => return,
                _ if turn < 1000 => std::hint::spin_loop(),
                // There may be more threads than cores.
                _ => std::thread::yield_now(),
            }
        }
    }
}

impl Team {
    fn new(helpers: usize) -> Option<Self> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(helpers)
            .thread_name(|i| format!("mmiln-{i}"))
            .start_handler(|_| PANIC_IS_CAUGHT.set(true))
            .build()
            .ok()?;
        let (awake, published) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Some(Self { pool, helpers, awake, published, jobs: Mutex::new(vec![]) })
    }

    /// The team of so many threads, including the caller's.
    fn of(threads: usize) -> Option<Arc<Self>> {
        let mut teams = lock(&TEAMS);
        let process = std::process::id();
        if teams.0 != process {
            // In a forked child the parent's teams are forgotten, not dropped: their threads can't be joined.
            std::mem::forget(std::mem::take(&mut teams.1));
            teams.0 = process;
        }
        if let Some(team) = teams.1.get(&threads) {
            return Some(Arc::clone(team));
        }
        // If no thread can be started, the caller does all the work.
        let team = Arc::new(Self::new(threads - 1)?);
        teams.1.insert(threads, Arc::clone(&team));
        Some(team)
    }

    /// Does a job, together with the helpers that join before its pieces run out.
    fn each(self: &Arc<Self>, count: usize, work: &(dyn Fn(usize) + Sync)) {
        struct Close<'a>(&'a Team, &'a Arc<Job>);
        impl Drop for Close<'_> {
            fn drop(&mut self) {
                lock(&self.0.jobs).retain(|job| !Arc::ptr_eq(job, self.1));
                self.1.close();
            }
        }
        // SAFETY: only the lifetime changes. Helpers call `work` between `Job::enter` and `Job::leave` alone. `close`
        // is dropped before this function ends, be it by a panic of `work`, and returns when no helper is between
        // the two and none can enter any more. A helper may keep the `Job` longer, but not call its `work`.
        let work: &'static (dyn Fn(usize) + Sync) = unsafe { std::mem::transmute(work) };
        let job = Arc::new(Job {
            work: std::ptr::from_ref(work),
            count,
            next: AtomicUsize::new(0),
            helpers: AtomicUsize::new(0),
            panic: Mutex::new(None),
        });
        lock(&self.jobs).push(Arc::clone(&job));
        self.published.fetch_add(1, Ordering::Release);
        let close = Close(self, &job);
        self.wake();
        // SAFETY: it's closed below.
        unsafe { job.work() };
        drop(close);
        if let Some(panic) = lock(&job.panic).take() {
            resume_unwind(panic);
        }
    }

    /// Wakes the helpers that sleep.
    fn wake(self: &Arc<Self>) {
        let one_more = |awake| (awake < self.helpers).then_some(awake + 1);
        while self.awake.fetch_update(Ordering::AcqRel, Ordering::Relaxed, one_more).is_ok() {
            let team = Arc::clone(self);
            self.pool.spawn(move || team.help());
        }
    }

    /// The loop of a helper, which ends when there has been no work for a while.
    fn help(self: &Arc<Self>) {
        TEAM.set(Some(Arc::clone(self)));
        let mut since = Instant::now();
        while since.elapsed() < LOOK_OUT {
            let seen = self.published.load(Ordering::Acquire);
            while let Some(job) = self.find() {
                // SAFETY: `find` has entered.
                let outcome = catch_unwind(AssertUnwindSafe(|| unsafe { job.work() }));
                if let Err(panic) = outcome {
                    *lock(&job.panic) = Some(panic);
                }
                job.leave();
                since = Instant::now();
            }
            for _ in 0..16 {
                if self.published.load(Ordering::Acquire) != seen {
                    break;
                }
                std::hint::spin_loop();
            }
        }
        TEAM.set(None);
        self.awake.fetch_sub(1, Ordering::AcqRel);
    }

    /// A job with pieces left, which this helper has entered.
    fn find(&self) -> Option<Arc<Job>> {
        let jobs = lock(&self.jobs);
        jobs.iter().find(|job| !job.is_taken() && job.enter()).map(Arc::clone)
    }
}

/// Runs `work`, in which [`each`] and friends may use so many threads, including the calling one.
pub fn with_threads<R>(threads: usize, work: impl FnOnce() -> R) -> R {
    struct Restore(Option<Arc<Team>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            TEAM.set(self.0.take());
        }
    }
    if threads < 2 {
        return work();
    }
    let _restore = Restore(TEAM.replace(Team::of(threads)));
    work()
}

/// Calls `work` on every number below `count`, in any order.
pub fn each(count: usize, work: impl Fn(usize) + Sync) {
    let team = if count > 1 { TEAM.with_borrow(Clone::clone) } else { None };
    match team {
        Some(team) => team.each(count, &work),
        None => (0..count).for_each(work),
    }
}

/// Calls `work` on every item, in any order.
pub fn each_of<I: Send>(items: &mut [I], work: impl Fn(&mut I) + Sync) {
    let count = items.len();
    let items = Shared::new(items);
    // SAFETY: each number comes once.
    each(count, |i| work(&mut unsafe { items.part(i, 1) }[0]));
}

/// Runs both, at the same time if another thread is free.
pub fn both(a: impl FnOnce() + Send, b: impl FnOnce() + Send) {
    let (a, b) = (Mutex::new(Some(a)), Mutex::new(Some(b)));
    each(2, |i| {
        if i == 0 {
            let a = lock(&a).take();
            a.expect("each number comes once")();
        } else {
            let b = lock(&b).take();
            b.expect("each number comes once")();
        }
    });
}
