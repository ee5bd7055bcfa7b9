//! Keeps panics inside the module: none may cross the library boundary.

use std::{
    any::Any,
    cell::RefCell,
    panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook},
    sync::Once,
};

use crate::{Error, ErrorKind, Result};

thread_local! {
    /// Place of the last panic on this thread, for the error that reports it.
    static PLACE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Installs a hook that records the place of a panic instead of printing it: the host reports it.
/// On a thread that is not the module's, such as a test's, the previous hook runs as well.
fn note_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |info| {
            let place = info.location().map(ToString::to_string).unwrap_or_default();
            // An error means that the thread is ending, where nobody would read the place.
            let _ = PLACE.try_with(|noted| *noted.borrow_mut() = place.clone());
            match std::thread::current().name() {
                // Guarded: the error reports it.
                Some(name) if name.starts_with("m:") || name.starts_with("job:") => {}
                // A thread that the module started itself has no guard around it.
                Some(name) if name.starts_with("rt:") => unguarded(&place, info.payload()),
                None => unguarded(&place, info.payload()),
                Some(_) => before(info),
            }
        }));
    });
}

fn unguarded(place: &str, payload: &(dyn Any + Send)) {
    tracing::error!(place, panic = text(payload), "a thread of the module panicked");
}

/// Runs `work`; a panic becomes an error that names the place.
pub(super) fn guard<T>(place: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    note_panics();
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|error| error.at(place)),
        Err(payload) => {
            let at = PLACE.try_with(RefCell::take).unwrap_or_default();
            let message = format!("panicked at {at}: {}", text(&*payload));
            forget(payload);
            Err(Error::of(ErrorKind::Panic, message).at(place))
        }
    }
}

/// Runs a small piece of work that must not let a panic out and has nobody to report it to.
pub(crate) fn contained(work: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(work)) {
        forget(payload);
    }
}

fn text(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

/// Drops the payload of a panic, whose destructor may panic as well.
fn forget(payload: Box<dyn Any + Send>) {
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(again);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error_with_its_place() {
        let error =
            guard("summary", || -> Result<()> { panic!("no {}", "way") }).expect_err("it panicked");
        assert_eq!(error.kind(), ErrorKind::Panic);
        assert!(error.to_string().contains("guard.rs"), "{error}");
        assert!(error.to_string().ends_with("no way"), "{error}");
    }

    #[test]
    fn a_payload_that_panics_when_dropped_is_contained() {
        struct Trap;
        impl Drop for Trap {
            fn drop(&mut self) {
                panic!("in drop");
            }
        }
        let result = guard("trap", || -> Result<()> { std::panic::panic_any(Trap) });
        assert!(result.expect_err("it panicked").to_string().ends_with("no message"));
    }
}
