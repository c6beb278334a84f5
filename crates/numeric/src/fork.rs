//! Makes forking safe while threads use the crate's locks.
//!
//! A forked child has only the thread that forked. A lock that another thread held at that moment would stay
//! locked in the child for ever, so the thread that forks takes the locks first, and gives them back after.

use std::cell::Cell;
use std::sync::{MutexGuard, Once};

use super::parallel::{TEAMS, Teams};
use super::pool::{POOL, Pool};
use crate::lock;

thread_local! {
    static HELD: Cell<Option<(MutexGuard<'static, Teams>, MutexGuard<'static, Pool>)>> = const { Cell::new(None) };
}

extern "C" fn before() {
    HELD.set(Some((lock(&TEAMS), lock(&POOL))));
}

extern "C" fn after() {
    HELD.take();
}

/// Makes every later fork of this process safe; may be called any number of times.
///
/// # Panics
/// Where the system has no memory to keep the handlers.
pub fn mind_forks() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the handlers are functions of this library, which unloading it takes off the system's list. They
        // don't unwind, and run on the one thread that forks.
        let error = unsafe { pthread_atfork(Some(before), Some(after), Some(after)) };
        assert_eq!(error, 0, "pthread_atfork takes the handlers");
    });
}

unsafe extern "C" {
    fn pthread_atfork(
        prepare: Option<extern "C" fn()>,
        parent: Option<extern "C" fn()>,
        child: Option<extern "C" fn()>,
    ) -> i32;
}
