//! State of a thread of the module: whether it is the one that takes all calls of the module, and
//! the call that it answers.

use std::{cell::Cell, thread::LocalKey};

thread_local! {
    // Neither has a destructor, so that neither holds on to the library.
    static IN_MODULE: Cell<bool> = const { Cell::new(false) };
    static CALL: Cell<u64> = const { Cell::new(0) };
}

/// Runs `work`, which the host calls on the module's own thread.
pub(super) fn on_own_thread<T>(work: impl FnOnce() -> T) -> T {
    with(&IN_MODULE, true, work)
}

/// Runs `work`, which answers the call with this number.
pub(super) fn answering<T>(call: u64, work: impl FnOnce() -> T) -> T {
    with(&CALL, call, work)
}

/// Returns whether this thread is in a call of the module, which nothing else may hold up.
pub(crate) fn is_own_thread() -> bool {
    IN_MODULE.get()
}

/// Returns the number of the call that is answered on this thread, 0 for none.
pub(crate) fn answered_call() -> u64 {
    CALL.get()
}

fn with<V: Copy + 'static, T>(
    key: &'static LocalKey<Cell<V>>,
    value: V,
    work: impl FnOnce() -> T,
) -> T {
    let before = key.replace(value);
    // `work` is guarded: no panic comes out of it.
    let result = work();
    key.set(before);
    result
}
