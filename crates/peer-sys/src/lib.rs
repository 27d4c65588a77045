//! The system calls about a socket's peer that have no safe wrapper elsewhere.
//!
//! This is the only crate of the workspace that may say `unsafe`; it does nothing else, so that the
//! whole of it can be read in a minute.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::libc;

/// Groups that fit without asking twice; more than most accounts have.
const USUAL: usize = 64;

/// The kernel's own limit (`NGROUPS_MAX`), so that no answer makes us allocate without bound.
const MOST: usize = 65_536;

/// The supplementary groups of a Unix socket's peer, as they were when it connected
/// (`SO_PEERGROUPS`, Linux 4.13).
///
/// The effective group need not be among them.
///
/// # Errors
///
/// `ENODATA` when the peer has no credentials, `ENOPROTOOPT` before Linux 4.13.
pub fn peer_groups(socket: BorrowedFd<'_>) -> nix::Result<Vec<u32>> {
    match groups_into(socket, USUAL) {
        Err((Errno::ERANGE, needed)) if needed <= MOST => {
            groups_into(socket, needed).map_err(|(errno, _)| errno)
        }
        other => other.map_err(|(errno, _)| errno),
    }
}

/// The groups, or the error and how many groups the kernel wanted to write.
#[expect(
    unsafe_code,
    reason = "getsockopt with a length of the caller's choice has no safe wrapper"
)]
fn groups_into(socket: BorrowedFd<'_>, room: usize) -> Result<Vec<u32>, (Errno, usize)> {
    let mut groups = vec![0_u32; room];
    let size = size_of::<u32>();
    let mut length = libc::socklen_t::try_from(room * size).map_err(|_| (Errno::EINVAL, 0))?;
    // SAFETY: `groups` is writable for `length` bytes, `length` outlives the call, and the file
    // descriptor is open because it is borrowed. The kernel writes at most `length` bytes of gids,
    // for which every bit pattern is a valid u32.
    let status = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERGROUPS,
            groups.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    let written = length as usize / size;
    if status == -1 {
        return Err((Errno::last(), written));
    }
    groups.truncate(written);
    Ok(groups)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use nix::unistd::getgroups;

    use super::*;

    #[test]
    fn the_groups_of_a_peer_are_those_of_its_process() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let mut expected: Vec<u32> = getgroups().unwrap().iter().map(|g| g.as_raw()).collect();
        let mut found = peer_groups(ours.as_fd()).unwrap();
        expected.sort_unstable();
        found.sort_unstable();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_file_has_no_peer() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(peer_groups(file.as_fd()), Err(Errno::ENOTSOCK));
    }
}
