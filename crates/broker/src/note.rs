//! What one daemon writes down for the next, in sealed memory: a line that says what it is, of which
//! version, and the SHA-256 of the rest, which is JSON.
//!
//! Nothing of it is on a disk. What is not understood, or was changed, is of no use and is dropped.

use std::io;
use std::os::fd::OwnedFd;

use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::digest::Digest;
use crate::sealed;

/// Bytes of the longest: a caller may have 65,536 groups.
const LONGEST: u64 = 1024 * 1024;

/// A kind of note with the version of its content: what a note of it begins with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind(pub(crate) &'static str);

/// Why a note is of no use.
#[derive(Debug, thiserror::Error)]
pub enum Useless {
    /// Another daemon's, or another version's.
    #[error("it is not of this version of arcbrokerd")]
    Version,
    /// Some of it has changed.
    #[error("it is damaged")]
    Damaged,
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
}

impl Kind {
    /// Writes one.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(crate) fn write(self, content: &impl Serialize) -> io::Result<OwnedFd> {
        let body = Zeroizing::new(serde_json::to_vec(content)?);
        let header = format!("{} {}\n", self.0, Digest::of(&body).hex(32));
        let whole = Zeroizing::new([header.as_bytes(), &body].concat());
        sealed::write(c"arcbroker", &whole)
    }

    /// Reads one.
    ///
    /// # Errors
    ///
    /// [`Useless`].
    pub(crate) fn read<T: DeserializeOwned>(self, memory: &OwnedFd) -> Result<T, Useless> {
        let whole = Zeroizing::new(sealed::read(memory, LONGEST)?);
        let mut lines = whole.splitn(2, |&byte| byte == b'\n');
        let (header, body) = (lines.next().unwrap_or_default(), lines.next());
        let digest = header
            .strip_prefix(self.0.as_bytes())
            .and_then(|rest| rest.strip_prefix(b" "))
            .ok_or(Useless::Version)?;
        let body = body.unwrap_or_default();
        if Digest::of(body).hex(32).as_bytes() != digest {
            return Err(Useless::Damaged);
        }
        serde_json::from_slice(body).map_err(|_| Useless::Damaged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: Kind = Kind("arcbroker-test 1");

    fn whole() -> Vec<u8> {
        let memory = KIND.write(&"content").unwrap();
        sealed::read(&memory, LONGEST).unwrap()
    }

    fn read(content: &[u8]) -> Result<String, Useless> {
        KIND.read(&sealed::write(c"test", content).unwrap())
    }

    #[test]
    fn a_note_is_read_again() {
        assert_eq!(read(&whole()).unwrap(), "content");
    }

    #[test]
    fn a_note_of_something_else_or_of_another_version_is_told_apart() {
        let text = String::from_utf8(whole()).unwrap();
        for other in [
            String::new(),
            "\n".to_owned(),
            "garbage".to_owned(),
            text.replacen("test 1", "test 2", 1),
            text.replacen("test 1", "test 11", 1),
            text.replacen("test", "token", 1),
        ] {
            let read = read(other.as_bytes());
            assert!(matches!(read, Err(Useless::Version)), "{other}: {read:?}");
        }
    }

    #[test]
    fn a_note_in_which_any_byte_was_changed_or_lost_is_refused() {
        let good = whole();
        for at in 0..good.len() {
            let mut changed = good.clone();
            if let Some(byte) = changed.get_mut(at) {
                *byte ^= 1;
            }
            assert!(read(&changed).is_err(), "at {at}");
            assert!(read(good.get(..at).unwrap()).is_err(), "until {at}");
        }
        let body = b"{}";
        let header = format!("{} {}\n", KIND.0, Digest::of(body).hex(32));
        let odd = read(&[header.as_bytes(), body].concat());
        assert!(matches!(odd, Err(Useless::Damaged)), "{odd:?}");
    }
}
