//! Memory that is written once: whoever holds its descriptor can read it, and nobody can change it.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};

/// Nothing in it can change any more.
const SEALS: SealFlag = SealFlag::F_SEAL_SEAL
    .union(SealFlag::F_SEAL_SHRINK)
    .union(SealFlag::F_SEAL_GROW)
    .union(SealFlag::F_SEAL_WRITE);

/// Writes it. `name` is what `/proc/PID/fd` shows.
///
/// # Errors
///
/// The kernel's.
pub(crate) fn write(name: &CStr, content: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(create(name)?);
    file.write_all(content)?;
    fcntl(&file, FcntlArg::F_ADD_SEALS(SEALS))?;
    Ok(file.into())
}

/// Reads all of it, if it is sealed and has at most so many bytes.
///
/// # Errors
///
/// `InvalidData` where it is something else, or the kernel's.
pub(crate) fn read(memory: &OwnedFd, most: u64) -> io::Result<Vec<u8>> {
    if !is_sealed(memory) {
        return Err(invalid("it is not sealed memory"));
    }
    let file = File::from(memory.try_clone()?);
    let length = file.metadata()?.len();
    if length > most {
        return Err(invalid("it is too large"));
    }
    let mut content = vec![0; usize::try_from(length).map_err(|_| invalid("it is too large"))?];
    // Whoever wrote it left its position at the end.
    file.read_exact_at(&mut content, 0)?;
    Ok(content)
}

/// Whether it is such memory.
pub(crate) fn is_sealed(descriptor: impl AsFd) -> bool {
    fcntl(descriptor, FcntlArg::F_GET_SEALS)
        .is_ok_and(|seals| SealFlag::from_bits_retain(seals).contains(SEALS))
}

/// Where the kernel can have it so (6.3), it can never be executed; some systems allow no other
/// (`vm.memfd_noexec`).
fn create(name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let never_run = MFdFlags::from_bits_retain(libc::MFD_NOEXEC_SEAL);
    match memfd_create(name, flags | never_run) {
        Err(Errno::EINVAL) => memfd_create(name, flags),
        made => made,
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_as_often_as_wanted_and_cannot_be_changed() {
        let memory = write(c"test", b"content").unwrap();
        for _ in 0..2 {
            assert_eq!(read(&memory, 7).unwrap(), b"content");
        }
        let file = File::from(memory);
        assert_eq!(
            file.write_at(b"x", 0).unwrap_err().raw_os_error(),
            Some(libc::EPERM)
        );
        assert!(file.set_len(0).is_err() && file.set_len(100).is_err());
    }

    #[test]
    fn what_is_too_large_or_can_be_changed_is_refused() {
        let memory = write(c"test", b"content").unwrap();
        let refused = read(&memory, 6).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
        let open = create(c"test").unwrap();
        assert!(!is_sealed(&open));
        assert!(read(&open, 100).is_err());
        let (pipe, _end) = nix::unistd::pipe().unwrap();
        assert!(read(&pipe, 100).is_err());
    }
}
