//! Jobs that several threads do together.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{current, sleep};
use std::time::Duration;

use mmiln_numeric::parallel::{both, each, each_of, with_threads};
use mmiln_numeric::{Scratch, Shared};

const THREADS: usize = 3;

#[test]
fn every_piece_is_done_once() {
    for count in [0, 1, 2, 3, 17] {
        let mut done = vec![0; count];
        with_threads(THREADS, || each_of(&mut done, |done| *done += 1));
        assert!(done.iter().all(|&done| done == 1));
    }
}

/// The caller runs out of pieces while a helper is still at its last one, and has to wait for it.
#[test]
fn what_a_late_helper_writes_is_seen() {
    let caller = current().id();
    for _ in 0..20 {
        let begun = AtomicBool::new(false);
        let mut done = [0; 8];
        with_threads(THREADS, || {
            each_of(&mut done, |done| {
                if current().id() != caller {
                    begun.store(true, Ordering::Relaxed);
                    sleep(Duration::from_millis(2));
                } else if !begun.load(Ordering::Relaxed) {
                    sleep(Duration::from_millis(1)); // for a helper to come
                }
                *done += 1;
            });
        });
        assert!(done.iter().all(|&done| done == 1));
    }
}

#[test]
fn parts_of_one_slice() {
    let mut data = vec![0; 30];
    let shared = Shared::new(&mut data);
    with_threads(THREADS, || {
        each(10, |i| {
            let mut scratch = Scratch::<f64>::zeros(5 + i);
            scratch[i] = 1.0;
            // SAFETY: parts of three, one after the other.
            unsafe { shared.part(3 * i, 3) }.fill(i);
        });
    });
    assert!(data.iter().enumerate().all(|(i, &x)| x == i / 3));
}

#[test]
fn jobs_within_jobs_and_beside_each_other() {
    let count = AtomicUsize::new(0);
    let more = || {
        with_threads(THREADS, || {
            each(4, |_| {
                both(
                    || each(2, |_| _ = count.fetch_add(1, Ordering::Relaxed)),
                    || _ = count.fetch_add(1, Ordering::Relaxed),
                );
            });
        });
    };
    std::thread::scope(|scope| {
        scope.spawn(more);
        more();
    });
    assert_eq!(count.into_inner(), 24);
}

#[test]
fn a_panic_comes_back_and_leaves_the_team_able_to_work() {
    for bad in [0, 3, 7] {
        let done = AtomicUsize::new(0);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            with_threads(THREADS, || {
                each(8, |i| {
                    assert_ne!(i, bad, "as wanted");
                    done.fetch_add(1, Ordering::Relaxed);
                });
            });
        }));
        assert!(outcome.is_err() && done.into_inner() < 8);
    }
    every_piece_is_done_once();
}
