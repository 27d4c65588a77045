//! A process that cannot be mistaken for a later one with the same number.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use arcbroker_peer_sys::{pidfd_info, pidfd_open};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt};
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;

/// How well this kernel lets a peer's process be held on to; each can do what those before it can.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pinning {
    /// Not at all: only numbers, which another process may have by now.
    None,
    /// By its number right after the accept (`pidfd_open`, Linux 5.3): the process may have been
    /// replaced between the connect and the accept, so its user is compared.
    ByNumber,
    /// By the socket (`SO_PEERPIDFD`, Linux 6.5): the very process that connected.
    BySocket,
    /// The same, and the kernel says in which control group it is (`PIDFD_GET_INFO`, Linux 6.13).
    WithControlGroup,
}

/// A process, held on to by its descriptor.
#[derive(Debug)]
pub struct Pinned {
    fd: OwnedFd,
    pinning: Pinning,
}

impl Pinning {
    /// What this kernel can do, tried on a socket of our own.
    pub fn probe() -> Self {
        let by_number = || match pidfd_open(std::process::id().cast_signed()) {
            Ok(_) => Self::ByNumber,
            Err(_) => Self::None,
        };
        let Ok((ours, _theirs)) = std::os::unix::net::UnixStream::pair() else {
            return by_number();
        };
        match getsockopt(&ours, sockopt::PeerPidfd) {
            Ok(fd) if pidfd_info(fd.as_fd()).is_ok() => Self::WithControlGroup,
            Ok(_) => Self::BySocket,
            Err(_) => by_number(),
        }
    }
}

impl fmt::Display for Pinning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::ByNumber => "pidfd_open",
            Self::BySocket => "SO_PEERPIDFD",
            Self::WithControlGroup => "PIDFD_GET_INFO",
        })
    }
}

/// The broker itself is out of something that it needs to look at a process. That says nothing about
/// the process, and may be over soon.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("there are no file descriptors or no memory left to look at a caller")]
pub struct Exhausted;

impl Exhausted {
    /// Whether this error says so.
    pub fn is(errno: Errno) -> bool {
        matches!(
            errno,
            Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ENOBUFS
        )
    }

    /// Whether this error has it for a cause.
    pub fn is_why(error: &io::Error) -> bool {
        let errno = error.raw_os_error().map(Errno::from_raw);
        errno.is_some_and(Self::is)
    }
}

/// What to do when the socket gives no descriptor.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Otherwise {
    /// The process is gone, or the descriptor cannot be had: there is no evidence.
    Nothing,
    /// The socket does not tell us, though the process may be there.
    ByNumber,
    /// It is our fault.
    Exhausted,
}

impl Pinned {
    /// Holds on to the process that connected; `pid` is its number. None where that cannot be had.
    ///
    /// Whoever gets one by its number must still see that the process is of the user who connected:
    /// [`Pinned::is_certain`].
    ///
    /// # Errors
    ///
    /// When there is no descriptor left for it.
    pub fn of(
        stream: &UnixStream,
        mut pinning: Pinning,
        pid: i32,
    ) -> Result<Option<Self>, Exhausted> {
        if pinning >= Pinning::BySocket {
            match getsockopt(stream, sockopt::PeerPidfd) {
                Ok(fd) => return Ok(Some(Self { fd, pinning })),
                Err(errno) => match otherwise(errno) {
                    Otherwise::Exhausted => return Err(Exhausted),
                    Otherwise::Nothing => {
                        tracing::debug!(%errno, pid, "a peer's process cannot be held on to");
                        return Ok(None);
                    }
                    Otherwise::ByNumber => pinning = Pinning::ByNumber,
                },
            }
        }
        if pinning == Pinning::None {
            return Ok(None);
        }
        Self::by_number(pid)
    }

    /// One that was held on to before.
    pub fn again(fd: OwnedFd, pinning: Pinning) -> Self {
        Self { fd, pinning }
    }

    /// Holds on to a process of which the number is known to be its own at the moment. None where there is no
    /// such process.
    ///
    /// # Errors
    ///
    /// When there is no descriptor left for it.
    pub fn by_number(pid: i32) -> Result<Option<Self>, Exhausted> {
        match pidfd_open(pid) {
            Ok(fd) => Ok(Some(Self {
                fd,
                pinning: Pinning::ByNumber,
            })),
            Err(errno) if Exhausted::is(errno) => Err(Exhausted),
            Err(_) => Ok(None),
        }
    }

    /// How.
    pub fn pinning(&self) -> Pinning {
        self.pinning
    }

    /// Any process, as if it had connected.
    #[cfg(test)]
    pub(crate) fn process(pid: u32, pinning: Pinning) -> Self {
        let fd = pidfd_open(pid.cast_signed()).unwrap();
        Self { fd, pinning }
    }

    /// Whether it is certain that this is the process that connected.
    pub fn is_certain(&self) -> bool {
        self.pinning >= Pinning::BySocket
    }

    /// Whether the process has not ended. While it has not, its number is its own.
    pub fn is_alive(&self) -> bool {
        let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
        // Readable once the process has ended; an error here is no sign of life.
        poll(&mut fds, PollTimeout::ZERO) == Ok(0)
    }

    /// The inode of its control group in the unified hierarchy, where the kernel tells.
    pub fn control_group(&self) -> Option<u64> {
        if self.pinning < Pinning::WithControlGroup {
            return None;
        }
        pidfd_info(self.fd.as_fd()).ok()?.control_group
    }
}

impl AsFd for Pinned {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A security module may keep the descriptor from us: then the number is what is left.
fn otherwise(errno: Errno) -> Otherwise {
    match errno {
        _ if Exhausted::is(errno) => Otherwise::Exhausted,
        Errno::EACCES | Errno::EPERM | Errno::ENOPROTOOPT => Otherwise::ByNumber,
        _ => Otherwise::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn errors_mean_no_evidence_or_less_of_it() {
        for (errno, expected) in [
            (Errno::ENOPROTOOPT, Otherwise::ByNumber),
            (Errno::EACCES, Otherwise::ByNumber),
            (Errno::EPERM, Otherwise::ByNumber),
            (Errno::EINVAL, Otherwise::Nothing),
            (Errno::ESRCH, Otherwise::Nothing),
            (Errno::ENODATA, Otherwise::Nothing),
            (Errno::EMFILE, Otherwise::Exhausted),
            (Errno::ENFILE, Otherwise::Exhausted),
            (Errno::ENOMEM, Otherwise::Exhausted),
            (Errno::EBADF, Otherwise::Nothing),
        ] {
            assert_eq!(otherwise(errno), expected, "{errno}");
        }
    }

    #[tokio::test]
    async fn each_pinning_up_to_that_of_this_kernel_holds_our_own_process() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let me = std::process::id().cast_signed();
        for pinning in [
            Pinning::ByNumber,
            Pinning::BySocket,
            Pinning::WithControlGroup,
        ] {
            if pinning > Pinning::probe() {
                continue;
            }
            let process = Pinned::of(&ours, pinning, me).unwrap().unwrap();
            assert!(process.is_alive());
            assert_eq!(process.is_certain(), pinning > Pinning::ByNumber);
            let expected = pinning == Pinning::WithControlGroup;
            assert_eq!(process.control_group().is_some(), expected);
        }
        assert!(Pinned::of(&ours, Pinning::None, me).unwrap().is_none());
        assert!(Pinned::of(&ours, Pinning::ByNumber, -1).unwrap().is_none());
    }

    #[test]
    fn t18_a_process_that_has_ended_is_not_alive() {
        let pinning = Pinning::probe();
        if pinning == Pinning::None {
            return;
        }
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let process = Pinned::process(child.id(), pinning);
        assert!(process.is_alive());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!process.is_alive());
    }
}
