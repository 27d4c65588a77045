//! The system calls about a socket's peer that have no safe wrapper elsewhere.
//!
//! This is the only crate of the workspace that may say `unsafe`; it does nothing else, so that the
//! whole of it can be read in a few minutes.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

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

/// `SO_PASSRIGHTS` of `asm-generic/socket.h`, which all our targets use; Linux 6.16.
const SO_PASSRIGHTS: libc::c_int = 83;

/// Refuses descriptors that peers send along with data on this socket, and on all that connect to it
/// from now on: the sender gets `EPERM`.
///
/// # Errors
///
/// `ENOPROTOOPT` before Linux 6.16, where plain reads drop what is sent.
#[expect(
    unsafe_code,
    reason = "setsockopt of an option that is not known elsewhere has no safe wrapper"
)]
pub fn refuse_descriptors(socket: BorrowedFd<'_>) -> nix::Result<()> {
    let off: libc::c_int = 0;
    let length = libc::socklen_t::try_from(size_of_val(&off)).map_err(|_| Errno::EINVAL)?;
    // SAFETY: `off` is readable for `length` bytes and outlives the call; the descriptor is open because it
    // is borrowed.
    let status = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PASSRIGHTS,
            (&raw const off).cast(),
            length,
        )
    };
    Errno::result(status).map(drop)
}

/// A descriptor of the process with this number (`pidfd_open`, Linux 5.3).
///
/// # Errors
///
/// `ESRCH` when there is none, `ENOSYS` before Linux 5.3.
#[expect(unsafe_code, reason = "pidfd_open has no safe wrapper")]
pub fn pidfd_open(pid: i32) -> nix::Result<OwnedFd> {
    // SAFETY: the call takes two numbers and reads no memory.
    let status = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = Errno::result(status)?;
    let fd = libc::c_int::try_from(fd).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor, and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// What the kernel says about the process of a pidfd.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PidfdInfo {
    /// Its number, while it lives.
    pub pid: Option<i32>,
    /// The id of its control group in the unified hierarchy: the inode of its directory there.
    pub control_group: Option<u64>,
}

/// Asks about the process of a pidfd (`PIDFD_GET_INFO`, Linux 6.13).
///
/// # Errors
///
/// `ENOTTY` before Linux 6.13, `ESRCH` when the process has been reaped, `EREMOTE` when it is in no
/// pid namespace below ours.
#[expect(unsafe_code, reason = "ioctls have no safe wrapper")]
pub fn pidfd_info(pidfd: BorrowedFd<'_>) -> nix::Result<PidfdInfo> {
    // SAFETY: all bytes zero is a value of this struct of numbers.
    let mut info: libc::pidfd_info = unsafe { std::mem::zeroed() };
    info.mask = u64::from(libc::PIDFD_INFO_PID | libc::PIDFD_INFO_CGROUPID);
    // SAFETY: the number of the request says how long `info` is, the kernel writes no more than that,
    // and the descriptor is open because it is borrowed.
    let status = unsafe { libc::ioctl(pidfd.as_raw_fd(), libc::PIDFD_GET_INFO, &raw mut info) };
    Errno::result(status)?;
    let has = |bit: libc::c_uint| info.mask & u64::from(bit) != 0;
    let pid = i32::try_from(info.pid).ok();
    Ok(PidfdInfo {
        pid: pid.filter(|&pid| pid > 0 && has(libc::PIDFD_INFO_PID)),
        control_group: Some(info.cgroupid).filter(|_| has(libc::PIDFD_INFO_CGROUPID)),
    })
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
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
    fn a_file_has_no_peer_and_is_no_process() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(peer_groups(file.as_fd()), Err(Errno::ENOTSOCK));
        assert_eq!(refuse_descriptors(file.as_fd()), Err(Errno::ENOTSOCK));
        assert_eq!(pidfd_info(file.as_fd()), Err(Errno::ENOTTY));
    }

    #[test]
    fn a_process_is_known_by_its_descriptor_until_it_has_been_reaped() {
        let me = pidfd_open(std::process::id().cast_signed()).unwrap();
        match pidfd_info(me.as_fd()) {
            Ok(info) => assert_eq!(info.pid, Some(std::process::id().cast_signed())),
            // Before Linux 6.13.
            Err(errno) => assert_eq!(errno, Errno::ENOTTY),
        }
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let child_fd = pidfd_open(child.id().cast_signed()).unwrap();
        child.wait().unwrap();
        let info = pidfd_info(child_fd.as_fd());
        assert!(
            !matches!(info, Ok(PidfdInfo { pid: Some(_), .. })),
            "{info:?}"
        );
        assert!(pidfd_open(0).is_err());
    }

    #[test]
    fn t42_descriptors_are_refused_where_the_kernel_can() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        match refuse_descriptors(ours.as_fd()) {
            Ok(()) => {}
            Err(errno) => return assert_eq!(errno, Errno::ENOPROTOOPT),
        }
        let passed = [ours.as_raw_fd()];
        let message = [ControlMessage::ScmRights(&passed)];
        let data = [IoSlice::new(b"x")];
        let sent = sendmsg::<()>(theirs.as_raw_fd(), &data, &message, MsgFlags::empty(), None);
        assert_eq!(sent, Err(Errno::EPERM));
    }
}
