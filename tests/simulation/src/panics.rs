//! Panics are seen even where tokio or the daemon catches them.

use std::cell::RefCell;
use std::panic;
use std::sync::Once;

thread_local! {
    /// Nothing where no run is under way. A runtime has one thread, so that a panic is where its
    /// run is.
    static WATCH: RefCell<Option<Watch>> = const { RefCell::new(None) };
}

/// One run.
#[derive(Debug, Default)]
struct Watch {
    first: Option<String>,
}

/// Runs it; panics of this thread meanwhile are kept and not printed.
pub fn watch<T>(run: impl FnOnce() -> T) -> T {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let is_kept = WATCH.with_borrow_mut(|watch| {
                let Some(watch) = watch else { return false };
                let place = info.location().map(ToString::to_string).unwrap_or_default();
                let what = info.payload_as_str().unwrap_or_default();
                watch.first.get_or_insert(format!("{place}: {what}"));
                true
            });
            if !is_kept {
                usual(info);
            }
        }));
    });
    WATCH.set(Some(Watch::default()));
    let result = run();
    WATCH.set(None);
    result
}

/// The first panic of this run, if there was one.
pub fn taken() -> Option<String> {
    WATCH.with_borrow(|watch| watch.as_ref()?.first.clone())
}
