//! What the process gives up before it reads a line of configuration.

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, umask};

use crate::evidence::REMEMBERED;

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
    // Each connection takes up to two file descriptors.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)
}

/// How many of so many connections there are file descriptors for: each takes one for its socket and
/// one to hold on to the peer's process, which its other connections share.
///
/// A connection without the second could not be judged, and its owner would be told that no rule
/// allows what a rule does allow. So there are fewer of them instead.
pub fn affordable(connections: usize) -> usize {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(limit, _)| limit);
    let affordable = within(limit, connections);
    if affordable < connections {
        tracing::warn!(
            limit,
            connections,
            affordable,
            "there are too few file descriptors for so many connections: raise LimitNOFILE="
        );
    }
    affordable
}

fn within(limit: u64, connections: usize) -> usize {
    // For sockets, files, upstream, and whoever is turned away.
    const OTHERS: u64 = 384 + REMEMBERED;
    const FEWEST: usize = 16;
    let affordable = usize::try_from(limit.saturating_sub(OTHERS) / 2).unwrap_or(usize::MAX);
    connections.min(affordable.max(FEWEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_as_many_as_there_are_descriptors_for() {
        for (limit, wanted, expected) in [
            (16_384, 4096, 4096),
            (8192, 4096, 3776),
            (1024, 4096, 192),
            (1024, 8, 8),
            (0, 4096, 16),
            (u64::MAX, 4096, 4096),
        ] {
            assert_eq!(within(limit, wanted), expected, "{limit}");
        }
    }
}
