//! The end of threads that work beside a test, also of one that fails.

use std::sync::atomic::{AtomicBool, Ordering};

/// A guard that sets a flag when it is dropped.
///
/// Threads in a scope that go on until a flag is set would keep a test that panics from ending.
#[derive(Debug)]
pub struct SetOnDrop<'a>(pub &'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
