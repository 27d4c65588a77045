//! Panics are seen even where tokio or the daemon catches them.

use std::cell::RefCell;
use std::panic;

thread_local! {
    /// A runtime has one thread, so that a panic is where its run is.
    static TAKEN: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// From now on, panics are kept and not printed. To be called once, before anything is run.
pub fn watch() {
    panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let what = info.payload_as_str().unwrap_or_default();
        TAKEN.with_borrow_mut(|taken| {
            taken.get_or_insert(format!("{place}: {what}"));
        });
    }));
}

/// Forgets what was.
pub fn clear() {
    TAKEN.set(None);
}

/// The first panic since, if there was one.
pub fn taken() -> Option<String> {
    TAKEN.with_borrow(Clone::clone)
}
