//! What the process gives up before it reads a line of configuration.

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, umask};

/// Makes the memory of this process unreadable to others, and its files unreadable to strangers.
///
/// A core dump that is piped to a helper ignores the limit on its size; the dumpable flag is what
/// stops it.
///
/// # Errors
///
/// The kernel's; the process must not handle secrets then.
pub fn harden() -> Result<(), Errno> {
    prctl::set_dumpable(false)?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    umask(Mode::S_IWGRP | Mode::S_IRWXO);
    // Each connection is a file descriptor.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)
}
