//! What may wait for somebody else's sake, on threads of its own.
//!
//! Whatever a caller passes is shared with it: a file of a file system in user space may hang in any call, and
//! the last close of a socket waits for whoever does not read, if `SO_LINGER` was set on it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::{io, thread};

use tokio::sync::oneshot;

use crate::lock::lock;

/// Threads that may be at it at one time.
const MOST: usize = 32;
/// How often it is looked whether a reference is the last.
const MOMENT: Duration = Duration::from_millis(1);

static BUSY: AtomicUsize = AtomicUsize::new(0);

/// Counts a thread until it ends.
struct Busy;

impl Busy {
    fn begin() -> Option<Self> {
        if BUSY.fetch_add(1, Ordering::Relaxed) < MOST {
            return Some(Self);
        }
        BUSY.fetch_sub(1, Ordering::Relaxed);
        None
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        BUSY.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Does something on a thread of its own. Whoever stops waiting for it does not stop it.
///
/// # Errors
///
/// When there is no thread for it: then it was not done.
pub(crate) async fn run<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let busy = Busy::begin().ok_or(io::ErrorKind::WouldBlock)?;
    let (done, result) = oneshot::channel();
    thread::Builder::new()
        .name("passed".to_owned())
        .spawn(move || {
            let _busy = busy;
            // Nobody may be there any more, and then it is dropped here.
            drop(done.send(work()));
        })?;
    result.await.map_err(io::Error::other)
}

/// Drops something on another thread: at once, unless all of them are held up.
pub(crate) fn release(what: impl Send + 'static) {
    lock(&RELEASED).push_back(Box::new(what));
    let Some(busy) = Busy::begin() else {
        return tracing::warn!("descriptors that were passed take long to close, and others wait");
    };
    let made = thread::Builder::new()
        .name("passed".to_owned())
        .spawn(move || {
            let _busy = busy;
            while let Some(what) = next() {
                drop(what);
            }
        });
    if let Err(error) = made {
        tracing::warn!(%error, "a descriptor that was passed is closed later");
    }
}

/// What waits to be dropped.
static RELEASED: Mutex<VecDeque<Box<dyn Send>>> = Mutex::new(VecDeque::new());

fn next() -> Option<Box<dyn Send>> {
    lock(&RELEASED).pop_front()
}

/// A reference that is dropped only when it is the last.
#[derive(Debug)]
pub(crate) struct Last<T>(pub(crate) Arc<T>);

impl<T> Drop for Last<T> {
    #[expect(
        clippy::disallowed_methods,
        reason = "it is not on the thread that serves everybody"
    )]
    fn drop(&mut self) {
        while Arc::strong_count(&self.0) > 1 {
            thread::sleep(MOMENT);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn work_is_done_elsewhere() {
        let here = thread::current().id();
        let there = run(move || thread::current().id()).await.unwrap();
        assert_ne!(here, there);
    }

    #[test]
    fn what_is_released_is_dropped_elsewhere() {
        struct Tells(mpsc::Sender<thread::ThreadId>);
        impl Drop for Tells {
            fn drop(&mut self) {
                self.0.send(thread::current().id()).unwrap();
            }
        }
        let (tell, told) = mpsc::channel();
        release(Tells(tell));
        assert_ne!(told.recv().unwrap(), thread::current().id());
    }
}
