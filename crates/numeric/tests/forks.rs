//! In a child that is forked while other threads hold the crate's locks, the locks are free.
#![cfg(not(miri))] // which can't fork

use std::sync::atomic::{AtomicBool, Ordering};

use mmiln_numeric::parallel::{each, with_threads};
use mmiln_numeric::{Scratch, mind_forks};

unsafe extern "C" {
    fn fork() -> i32;
    fn alarm(seconds: u32) -> u32;
    fn waitpid(child: i32, status: *mut i32, options: i32) -> i32;
    fn _exit(status: i32) -> !;
}

/// Takes both locks: that of the teams and that of the pool.
fn work() {
    with_threads(3, || each(4, |i| Scratch::<f64>::new((1 << 14) + i).fill(1.0)));
}

#[test]
fn a_child_can_work_whatever_the_parent_was_doing() {
    mind_forks();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    work();
                }
            });
        }
        let mut statuses = vec![];
        for _ in 0..50 {
            // SAFETY: the child calls nothing that unwinds or returns here; a lock that stays taken ends it by SIGALRM.
            let child = unsafe { fork() };
            if child == 0 {
                // SAFETY: as above.
                unsafe {
                    alarm(20);
                    work();
                    _exit(0);
                }
            }
            let mut status = -1;
            // SAFETY: the pointer is good for the call.
            assert_eq!(unsafe { waitpid(child, &raw mut status, 0) }, child);
            statuses.push(status);
        }
        done.store(true, Ordering::Relaxed);
        assert!(statuses.iter().all(|&status| status == 0), "{statuses:?}");
    });
}
