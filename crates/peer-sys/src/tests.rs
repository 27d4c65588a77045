use std::io::IoSlice;
use std::net::Shutdown;
use std::os::fd::{AsFd, IntoRawFd};
use std::os::unix::net::UnixStream;

use nix::fcntl::{FcntlArg, fcntl};
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
    assert_eq!(send(&theirs, &[&ours]), Err(Errno::EPERM));
    allow_descriptors(ours.as_fd()).unwrap();
    assert_eq!(send(&theirs, &[&ours]), Ok(1));
}

fn send(through: &UnixStream, passed: &[&dyn AsRawFd]) -> nix::Result<usize> {
    let passed: Vec<RawFd> = passed.iter().map(|fd| fd.as_raw_fd()).collect();
    let message = [ControlMessage::ScmRights(&passed)];
    let data = [IoSlice::new(b"x")];
    sendmsg::<()>(
        through.as_raw_fd(),
        &data,
        &message,
        MsgFlags::empty(),
        None,
    )
}

fn is_closed_on_exec(fd: &OwnedFd) -> bool {
    fcntl(fd, FcntlArg::F_GETFD).unwrap() & libc::FD_CLOEXEC != 0
}

#[test]
fn all_descriptors_of_a_message_are_received_and_not_inherited() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut buffer = [0; 8];
    assert_eq!(
        receive(ours.as_fd(), &mut buffer).err(),
        Some(Errno::EAGAIN)
    );
    let file = std::fs::File::open("/dev/null").unwrap();
    for sent in [0, 1, 2, 5, 253] {
        let files: Vec<&dyn AsRawFd> = vec![&file; sent];
        send(&theirs, &files).unwrap();
        let (bytes, descriptors) = receive(ours.as_fd(), &mut buffer).unwrap();
        assert_eq!((bytes, descriptors.len()), (1, sent));
        assert!(descriptors.iter().all(is_closed_on_exec));
    }
    // Not dropped: a child that another test starts at this moment may hold a copy until its `exec`.
    theirs.shutdown(Shutdown::Both).unwrap();
    assert_eq!(receive(ours.as_fd(), &mut buffer).unwrap().0, 0);
}

#[test]
fn what_was_passed_is_taken_once() {
    let number = std::fs::File::open("/dev/null").unwrap().into_raw_fd();
    let taken = take_passed(number).unwrap();
    assert!(is_closed_on_exec(&taken));
    assert_eq!(take_passed(number).err(), Some(Errno::EBUSY));
    for number in [-1, 0, 2, 1_000_000] {
        assert_eq!(take_passed(number).err(), Some(Errno::EBADF), "{number}");
    }
}

#[test]
fn sockets_of_one_network_namespace_have_one_number() {
    let numbers = [(); 2].map(|()| {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        network_namespace(socket.as_fd())
    });
    assert!(
        matches!(numbers, [Ok(one), Ok(other)] if one == other && one != 0)
            || numbers == [Err(Errno::ENOPROTOOPT); 2],
        "{numbers:?}"
    );
}
