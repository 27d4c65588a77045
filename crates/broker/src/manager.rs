//! The service manager: what it is told, and what it holds for the next daemon.
//!
//! `sd_notify(3)`, as a value. Without systemd, nobody is told and nothing is held.

use std::collections::HashMap;
use std::env;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use sd_notify::NotifyState;

type Tell = dyn Fn(&[NotifyState<'_>], &[BorrowedFd<'_>]) -> io::Result<()> + Send + Sync;

/// What it has held, by name.
pub type Kept = HashMap<String, Vec<OwnedFd>>;

/// The way to the service manager.
#[derive(Clone)]
pub struct Manager {
    /// `None` where there is none.
    tell: Option<Arc<Tell>>,
    /// Who is silent for this long is taken to hang, and is replaced.
    watchdog: Option<Duration>,
}

impl Manager {
    /// systemd, where the environment names it.
    pub fn systemd() -> Self {
        if env::var_os("NOTIFY_SOCKET").is_none() {
            return Self::none();
        }
        Self {
            watchdog: sd_notify::watchdog_enabled(),
            ..Self::from_fn(|state, descriptors| {
                if descriptors.is_empty() {
                    sd_notify::notify(state)
                } else {
                    sd_notify::notify_with_fds(state, descriptors)
                }
            })
        }
    }

    /// None.
    pub fn none() -> Self {
        Self {
            tell: None,
            watchdog: None,
        }
    }

    /// Whatever the function makes of it.
    pub fn from_fn(
        tell: impl Fn(&[NotifyState<'_>], &[BorrowedFd<'_>]) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self {
            tell: Some(Arc::new(tell)),
            watchdog: None,
        }
    }

    /// Whether there is one.
    pub fn is_there(&self) -> bool {
        self.tell.is_some()
    }

    /// How often it wants to hear that the daemon is alive, at the least.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Requests are answered; also after a reload.
    pub fn ready(&self, status: &str) {
        self.tell(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// The daemon takes up a new policy. It is [`ready`](Self::ready) afterwards.
    pub fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.tell(&[NotifyState::Reloading, now]),
            Err(error) => tracing::warn!(%error, "systemd could not be told of a reload"),
        }
    }

    /// No request is accepted any more.
    pub fn stopping(&self) {
        self.tell(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
    }

    /// One line about how the daemon is.
    pub fn status(&self, status: &str) {
        self.tell(&[NotifyState::Status(status)]);
    }

    /// The daemon does what it is for.
    pub fn alive(&self) {
        self.tell(&[NotifyState::Watchdog]);
    }

    /// Has it hold descriptors for the next daemon, beside those that it holds under this name.
    ///
    /// # Errors
    ///
    /// When that cannot be asked. That it was asked does not mean that it does: it tells nobody.
    pub fn hold(&self, name: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let state = [
            NotifyState::FdStore,
            NotifyState::FdName(name),
            // A process that has ended is no reason to let go of its descriptor: a unit may run on.
            NotifyState::Custom("FDPOLL=0"),
        ];
        self.send(&state, descriptors)
    }

    /// Has it let go of what it holds under this name.
    pub fn let_go(&self, name: &str) {
        self.tell(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)]);
    }

    /// What is closed once it has done all that it was told before; none where there is nothing to wait
    /// for.
    ///
    /// # Errors
    ///
    /// When it cannot be told.
    pub fn barrier(&self) -> io::Result<Option<OwnedFd>> {
        if !self.is_there() {
            return Ok(None);
        }
        let (ours, its_own) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        self.send(&[NotifyState::Custom("BARRIER=1")], &[its_own.as_fd()])?;
        Ok(Some(ours))
    }

    fn tell(&self, state: &[NotifyState<'_>]) {
        if let Err(error) = self.send(state, &[]) {
            let what = state.first().map(ToString::to_string).unwrap_or_default();
            tracing::warn!(what, %error, "systemd could not be told");
        }
    }

    fn send(&self, state: &[NotifyState<'_>], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        match &self.tell {
            Some(tell) => tell(state, descriptors),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manager")
            .field("watchdog", &self.watchdog)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    type Heard = Arc<Mutex<Vec<(String, usize)>>>;

    fn listening() -> (Manager, Heard) {
        let heard = Heard::default();
        let into = Arc::clone(&heard);
        let manager = Manager::from_fn(move |state, descriptors| {
            let lines: Vec<_> = state.iter().map(ToString::to_string).collect();
            into.lock()
                .unwrap()
                .push((lines.join(" "), descriptors.len()));
            Ok(())
        });
        (manager, heard)
    }

    #[test]
    fn it_is_told_in_the_words_of_sd_notify() {
        let (manager, heard) = listening();
        manager.reloading();
        manager.ready("healthy");
        manager.alive();
        manager.stopping();
        let (memory, _) = nix::unistd::pipe().unwrap();
        manager.hold("token.1", &[memory.as_fd()]).unwrap();
        manager.let_go("token.1");
        let heard = heard.lock().unwrap();
        let (reload, _) = heard.first().unwrap();
        assert!(
            reload.starts_with("RELOADING=1 MONOTONIC_USEC="),
            "{reload}"
        );
        let rest: Vec<_> = heard
            .iter()
            .skip(1)
            .map(|(line, count)| (line.as_str(), *count))
            .collect();
        assert_eq!(
            rest,
            [
                ("READY=1 STATUS=healthy", 0),
                ("WATCHDOG=1", 0),
                ("STOPPING=1 STATUS=stopping", 0),
                ("FDSTORE=1 FDNAME=token.1 FDPOLL=0", 1),
                ("FDSTOREREMOVE=1 FDNAME=token.1", 0),
            ]
        );
    }
}
