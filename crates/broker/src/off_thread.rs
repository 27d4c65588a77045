//! What may wait for somebody else's sake, on threads of its own.
//!
//! Whatever a caller passes is shared with it: a file of a file system in user space may hang in any call, and
//! the last close of a socket waits for whoever does not read, if `SO_LINGER` was set on it. What closes has
//! threads of its own, so that nobody's descriptors keep others from being served.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::{io, mem, thread};

use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::lock::lock;

/// Threads that may work at one time.
const MOST: usize = 32;
/// Threads that may close at one time.
const MOST_CLOSING: usize = 8;
/// How much may wait to be closed for a long time before no more is taken, and what that is.
const MOST_WAITING: usize = 64;
const LONG: Duration = Duration::from_secs(1);
/// How often it is looked whether a reference is the last.
const MOMENT: Duration = Duration::from_millis(1);

static WORKING: AtomicUsize = AtomicUsize::new(0);

/// Counts a thread that works until it ends.
struct Busy;

impl Busy {
    fn begin() -> Option<Self> {
        let busy = Self;
        (WORKING.fetch_add(1, Ordering::Relaxed) < MOST).then_some(busy)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        WORKING.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Does something on a thread of its own. Whoever stops waiting for it does not stop it.
///
/// # Errors
///
/// `WouldBlock` when there is no thread for it: then it was not done.
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
    let mut closing = lock(&CLOSING);
    closing.waiting.push_back((Instant::now(), Box::new(what)));
    if closing.threads >= MOST_CLOSING {
        if closing.is_behind() && !mem::replace(&mut closing.is_told, true) {
            tracing::warn!("descriptors that were passed take long to close, and others wait");
        }
        return;
    }
    closing.threads += 1;
    drop(closing);
    let made = thread::Builder::new().name("closes".to_owned()).spawn(|| {
        while let Some(what) = next() {
            drop(what);
        }
    });
    if let Err(error) = made {
        lock(&CLOSING).threads -= 1;
        tracing::warn!(%error, "a descriptor that was passed is closed later");
    }
}

/// Closes descriptors that were passed, as [`release`] does and without waiting for whoever does not read.
pub(crate) fn close(passed: impl IntoIterator<Item = OwnedFd>) {
    release(passed.into_iter().map(Hasty).collect::<Vec<_>>());
}

/// Not within the loop: the lock would be held while that is dropped.
fn next() -> Option<Box<dyn Send>> {
    lock(&CLOSING).next()
}

/// Whether what was passed takes so long to close that nothing more should be taken.
pub(crate) fn is_behind() -> bool {
    lock(&CLOSING).is_behind()
}

/// What is to be dropped, and the threads that do it.
struct Closing {
    waiting: VecDeque<(Instant, Box<dyn Send>)>,
    threads: usize,
    /// Whether it has been told that much waits.
    is_told: bool,
}

static CLOSING: Mutex<Closing> = Mutex::new(Closing {
    waiting: VecDeque::new(),
    threads: 0,
    is_told: false,
});

impl Closing {
    /// The next for a thread, which ends when there is none.
    fn next(&mut self) -> Option<Box<dyn Send>> {
        let next = self.waiting.pop_front();
        if next.is_none() {
            self.threads -= 1;
            self.is_told = false;
        }
        next.map(|(_, what)| what)
    }

    /// Many at one moment are nothing unusual: a unit of many programs ends.
    fn is_behind(&self) -> bool {
        let first = self.waiting.front();
        self.waiting.len() > MOST_WAITING && first.is_some_and(|(since, _)| since.elapsed() > LONG)
    }
}

/// A descriptor whose close does not wait for whoever does not read.
#[derive(Debug)]
pub(crate) struct Hasty<T: AsFd>(pub(crate) T);

impl<T: AsFd> Drop for Hasty<T> {
    fn drop(&mut self) {
        linger_not(&self.0).unwrap_or_default();
    }
}

/// Has the last close of a socket wait for nobody. Who has the socket as well can set it again just before our close,
/// which is why that is on a thread of its own all the same.
pub(crate) fn linger_not(socket: &impl AsFd) -> nix::Result<()> {
    let off = libc::linger {
        l_onoff: 0,
        l_linger: 0,
    };
    setsockopt(socket, sockopt::Linger, &off)
}

/// A reference that is dropped only when it is the last, and then like [`Hasty`].
#[derive(Debug)]
pub(crate) struct Last<T: AsFd>(pub(crate) Arc<T>);

impl<T: AsFd> Drop for Last<T> {
    #[expect(
        clippy::disallowed_methods,
        reason = "it is not on the thread that serves everybody"
    )]
    fn drop(&mut self) {
        while Arc::strong_count(&self.0) > 1 {
            thread::sleep(MOMENT);
        }
        linger_not(&self.0).unwrap_or_default();
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
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

    #[tokio::test(start_paused = true)]
    async fn work_is_done_though_all_that_close_are_held_up() {
        struct Waits(mpsc::Receiver<()>);
        impl Drop for Waits {
            fn drop(&mut self) {
                self.0.recv().unwrap_or_default();
            }
        }
        let waiting: Vec<_> = (0..=MOST_CLOSING + MOST_WAITING)
            .map(|_| {
                let (end, until) = mpsc::channel::<()>();
                release(Waits(until));
                end
            })
            .collect();
        assert!(!is_behind(), "many at one moment");
        tokio::time::advance(2 * LONG).await;
        assert!(is_behind());
        run(|| ()).await.unwrap();
        drop(waiting);
        while is_behind() {
            thread::yield_now();
        }
    }

    /// A socket whose last close takes an hour, and the other end, which does not read.
    pub(crate) fn lingering() -> (OwnedFd, TcpStream) {
        let listening = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listening.local_addr().unwrap()).unwrap();
        let (deaf, _) = listening.accept().unwrap();
        let hour = libc::linger {
            l_onoff: 1,
            l_linger: 3600,
        };
        setsockopt(&client, sockopt::Linger, &hour).unwrap();
        client.set_nonblocking(true).unwrap();
        while client.write(&[0; 4096]).is_ok() {}
        (client.into(), deaf)
    }

    #[test]
    fn a_close_does_not_wait_for_whoever_does_not_read() {
        let (socket, _deaf) = lingering();
        // The test would take that hour.
        drop(Hasty(socket));
    }
}
