//! The system calls about peers and their descriptors that have no safe wrapper elsewhere.
//!
//! This is the only crate of the workspace that may say `unsafe`; it does nothing else, so that the
//! whole of it can be read in a few minutes.

use std::collections::BTreeSet;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex};

use nix::errno::Errno;
use nix::libc;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

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
/// `SO_NETNS_COOKIE` of the same; Linux 5.14.
const SO_NETNS_COOKIE: libc::c_int = 71;

/// Refuses descriptors that peers send along with data on this socket, and on all that connect to it
/// from now on: the sender gets `EPERM`.
///
/// # Errors
///
/// `ENOPROTOOPT` before Linux 6.16, where plain reads drop what is sent.
pub fn refuse_descriptors(socket: BorrowedFd<'_>) -> nix::Result<()> {
    set_pass_rights(socket, 0)
}

/// Takes it back for this socket.
///
/// # Errors
///
/// `ENOPROTOOPT` before Linux 6.16, where nothing was refused.
pub fn allow_descriptors(socket: BorrowedFd<'_>) -> nix::Result<()> {
    set_pass_rights(socket, 1)
}

#[expect(
    unsafe_code,
    reason = "setsockopt of an option that is not known elsewhere has no safe wrapper"
)]
fn set_pass_rights(socket: BorrowedFd<'_>, value: libc::c_int) -> nix::Result<()> {
    let length = libc::socklen_t::try_from(size_of_val(&value)).map_err(|_| Errno::EINVAL)?;
    // SAFETY: `value` is readable for `length` bytes and outlives the call; the descriptor is open because it
    // is borrowed.
    let status = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PASSRIGHTS,
            (&raw const value).cast(),
            length,
        )
    };
    Errno::result(status).map(drop)
}

/// Bytes of room for descriptors: a header of 16, and as many of them as one message can carry (`SCM_MAX_FD` of
/// the kernel, 253), in multiples of 8. What there is no room for, the kernel closes within the call, and whoever
/// sent it says how long that takes.
const ROOM: usize = 1032;

/// Room for control data, aligned as it has to be.
#[repr(align(8))]
struct Room([u8; ROOM]);

/// Reads from a Unix socket without waiting, together with the descriptors that come along. They are
/// closed in programs that this one becomes.
///
/// There is room for all that a message can carry; the kernel drops those for which this process has no numbers left.
///
/// # Errors
///
/// Those of `recvmsg`; `EAGAIN` when there is nothing to read.
#[expect(
    unsafe_code,
    reason = "other wrappers lose the descriptors where the kernel had to drop some"
)]
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> nix::Result<(usize, Vec<OwnedFd>)> {
    let mut room = Room([0; ROOM]);
    let mut data = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    // SAFETY: all bytes zero is a value of this struct of numbers and pointers.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut data;
    message.msg_iovlen = 1;
    message.msg_control = room.0.as_mut_ptr().cast();
    message.msg_controllen = ROOM as _;
    let flags = libc::MSG_CMSG_CLOEXEC | libc::MSG_DONTWAIT;
    // SAFETY: `message` points to one buffer and to the room, both writable for the lengths that it names, and
    // they outlive the call; the descriptor is open because it is borrowed.
    let status = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) };
    let bytes = usize::try_from(Errno::result(status)?).map_err(|_| Errno::EINVAL)?;
    let mut descriptors = Vec::new();
    // SAFETY: the kernel has filled the room as far as `msg_controllen` says now, and these macros walk it.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    // SAFETY: where it is not null, it points to a header within the room.
    while let Some(header) = unsafe { next.as_ref() } {
        if (header.cmsg_level, header.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            // SAFETY: the data begins behind the header and is as long as the header says; the kernel has just made
            // these descriptors, and nobody else knows their numbers.
            unsafe {
                let first = libc::CMSG_DATA(next).cast::<[u8; size_of::<RawFd>()]>();
                let length = header.cmsg_len - libc::CMSG_LEN(0) as usize;
                for index in 0..length / size_of::<RawFd>() {
                    let number = RawFd::from_ne_bytes(first.add(index).read());
                    descriptors.push(OwnedFd::from_raw_fd(number));
                }
            }
        }
        // SAFETY: as above.
        next = unsafe { libc::CMSG_NXTHDR(&raw const message, next) };
    }
    Ok((bytes, descriptors))
}

/// Numbers that have been taken.
static TAKEN: Mutex<BTreeSet<RawFd>> = Mutex::new(BTreeSet::new());

/// Takes a descriptor that the program was started with, by its number: one of those that `LISTEN_FDS`
/// counts (`sd_listen_fds(3)`). From then on it is closed in programs that this one becomes.
///
/// # Errors
///
/// `EBADF` when nothing is open under this number or it is that of a standard stream, `EBUSY` when it has
/// been taken before.
#[expect(unsafe_code, reason = "a descriptor that was passed is a bare number")]
pub fn take_passed(number: RawFd) -> nix::Result<OwnedFd> {
    if number <= libc::STDERR_FILENO {
        return Err(Errno::EBADF);
    }
    // SAFETY: the call takes three numbers and touches no memory.
    let status = unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    Errno::result(status)?;
    if !TAKEN.lock().is_ok_and(|mut taken| taken.insert(number)) {
        return Err(Errno::EBUSY);
    }
    // SAFETY: it is open, it was handed to this program to be owned by it, and each number is taken once.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Waits for a descriptor to become readable. Must be called inside a tokio runtime.
///
/// # Errors
///
/// When it cannot be waited for.
#[expect(
    unsafe_code,
    reason = "a descriptor must stay open while it is registered"
)]
pub fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` gives one number all its life, and that stays open as long.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
}

/// The same for a listener that other threads use as well.
///
/// # Errors
///
/// When it cannot be waited for.
#[expect(
    unsafe_code,
    reason = "a descriptor must stay open while it is registered"
)]
pub fn watch_listener(listener: Arc<TcpListener>) -> io::Result<AsyncFd<Arc<TcpListener>>> {
    // SAFETY: a `TcpListener` gives one number all its life, and that stays open as long.
    Ok(unsafe { AsyncFd::register_with_interest(listener, Interest::READABLE) }?)
}

/// The number of the network namespace that a socket is in (`SO_NETNS_COOKIE`, Linux 5.14): unique since
/// the boot of the machine.
///
/// # Errors
///
/// `ENOPROTOOPT` before Linux 5.14.
#[expect(
    unsafe_code,
    reason = "getsockopt of an option that is not known elsewhere has no safe wrapper"
)]
pub fn network_namespace(socket: BorrowedFd<'_>) -> nix::Result<u64> {
    let mut cookie = 0_u64;
    let mut length = libc::socklen_t::try_from(size_of_val(&cookie)).map_err(|_| Errno::EINVAL)?;
    // SAFETY: `cookie` is writable for `length` bytes, every bit pattern is a valid u64, both outlive the call,
    // and the descriptor is open because it is borrowed.
    let status = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    Errno::result(status).map(|_| cookie)
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
mod tests;
