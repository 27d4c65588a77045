//! HIMDS's challenge: a 401 that names a key file, which is read here and nowhere else.
//!
//! Whoever answers on the port chooses the text of the challenge, so the text may choose nothing
//! but a name inside one directory. Every rule is checked on what was opened, not on a path.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use hyper::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};
use zeroize::Zeroizing;

use crate::owners::Owners;

/// Bytes of the longest key; every Azure SDK has the same limit.
const MAX_KEY: u64 = 4096;
/// Bytes of the longest challenge that is looked at.
const MAX_CHALLENGE: usize = 4096;
/// Bytes of the longest name of a key file.
const MAX_NAME: usize = 128;

/// Where key files are, and who may have made them.
#[derive(Clone, Debug)]
pub struct KeyFiles {
    /// HIMDS's tokens directory.
    pub dir: PathBuf,
    /// Who may own the directory and the files.
    pub owners: Owners,
}

/// The name of a key file inside the tokens directory.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KeyName(CString);

/// Why a challenge is not answered. No variant carries text of the challenge or of a file.
#[derive(Debug, thiserror::Error)]
pub enum ChallengeError {
    /// No header.
    #[error("it has no WWW-Authenticate header")]
    Missing,
    /// More than one header.
    #[error("it has several WWW-Authenticate headers")]
    Several,
    /// Not of the form `Basic realm=PATH`.
    #[error("it is not of the form `Basic realm=PATH`")]
    Form,
    /// The file is elsewhere.
    #[error("it names a file outside {}", .0.display())]
    Elsewhere(PathBuf),
    /// The name is not one of a key file.
    #[error("it names a file that is not called like a key file")]
    Name,
    /// The directory cannot be used.
    #[error("{} cannot be opened: {source}", dir.display())]
    Directory {
        /// The tokens directory.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The directory may not be trusted.
    #[error("{} is owned by uid {uid} or writable by everybody; it must belong to root or himds", dir.display())]
    DirectoryOwner {
        /// The tokens directory.
        dir: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// The file is not there.
    #[error("the key file is not there")]
    Absent,
    /// The file may not be read.
    #[error("the key file may not be read; the user of arcbrokerd must be in group himds")]
    Denied,
    /// Not a regular file.
    #[error("the key file is not a regular file")]
    Kind,
    /// It has a second name somewhere.
    #[error("the key file has hard links")]
    Linked,
    /// Somebody else made it.
    #[error(
        "the key file is owned by uid {0} or writable by everybody; it must belong to root or himds"
    )]
    Owner(u32),
    /// Empty or too large.
    #[error("the key file is empty or larger than 4096 bytes")]
    Size,
    /// Not a header value.
    #[error("the key file holds something else than visible ASCII")]
    Content,
    /// Reading failed otherwise.
    #[error("the key file cannot be read: {0}")]
    Read(io::Error),
}

impl KeyFiles {
    /// The key file that a 401 names. Touches no file.
    ///
    /// # Errors
    ///
    /// [`ChallengeError`] when the challenge is not exactly what HIMDS sends.
    pub fn locate(&self, headers: &HeaderMap) -> Result<KeyName, ChallengeError> {
        let mut values = headers.get_all(WWW_AUTHENTICATE).iter();
        let value = values.next().ok_or(ChallengeError::Missing)?;
        if values.next().is_some() {
            return Err(ChallengeError::Several);
        }
        let path = realm(value).ok_or(ChallengeError::Form)?;
        let (parent, name) = path.rsplit_once('/').ok_or_else(|| self.elsewhere())?;
        if !self.is_dir(parent) {
            return Err(self.elsewhere());
        }
        KeyName::parse(name).ok_or(ChallengeError::Name)
    }

    /// The key, as the value of an `Authorization` header.
    ///
    /// # Errors
    ///
    /// [`ChallengeError`] when the file is not a key that HIMDS made for us. A file that is not a
    /// small regular file with one name and the right owner is not even opened.
    pub fn read(&self, name: &KeyName) -> Result<HeaderValue, ChallengeError> {
        let dir = self.open_dir()?;
        let look =
            fstatat(&dir, name.0.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW).map_err(refused)?;
        self.check(&look)?;
        let file = File::from(open_beneath(&dir, name).map_err(refused)?);
        // The name may have been given to another file since: this look is the one that counts.
        self.check(&fstat(&file).map_err(refused)?)?;
        authorization(file)
    }

    /// The directory as configured, and its real path where a link leads to it: HIMDS may say
    /// either. Byte for byte, because comparing paths would forgive `/./` and `//`.
    fn is_dir(&self, parent: &str) -> bool {
        let plain: PathBuf = self.dir.components().collect();
        let same = |dir: PathBuf| dir.as_os_str() == parent;
        same(plain) || self.dir.canonicalize().is_ok_and(same)
    }

    fn elsewhere(&self) -> ChallengeError {
        ChallengeError::Elsewhere(self.dir.clone())
    }

    fn open_dir(&self) -> Result<OwnedFd, ChallengeError> {
        let dir = || self.dir.clone();
        let open = File::options()
            .read(true)
            .custom_flags(OFlag::O_DIRECTORY.bits())
            .open(&self.dir);
        let open = open.map_err(|source| match source.kind() {
            io::ErrorKind::PermissionDenied => ChallengeError::Denied,
            _ => ChallengeError::Directory { dir: dir(), source },
        })?;
        let stat = fstat(&open).map_err(|errno| ChallengeError::Directory {
            dir: dir(),
            source: errno.into(),
        })?;
        if self.is_trusted(&stat) {
            Ok(open.into())
        } else {
            Err(ChallengeError::DirectoryOwner {
                dir: dir(),
                uid: stat.st_uid,
            })
        }
    }

    fn check(&self, stat: &FileStat) -> Result<(), ChallengeError> {
        let kind = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
        match u64::try_from(stat.st_size) {
            _ if kind != SFlag::S_IFREG => Err(ChallengeError::Kind),
            _ if stat.st_nlink > 1 => Err(ChallengeError::Linked),
            _ if !self.is_trusted(stat) => Err(ChallengeError::Owner(stat.st_uid)),
            Ok(1..=MAX_KEY) => Ok(()),
            _ => Err(ChallengeError::Size),
        }
    }

    fn is_trusted(&self, stat: &FileStat) -> bool {
        self.owners.contains(stat.st_uid) && stat.st_mode & Mode::S_IWOTH.bits() == 0
    }
}

impl KeyName {
    fn parse(name: &str) -> Option<Self> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        let fits = name.len() <= MAX_NAME && !name.starts_with('.') && name.bytes().all(plain);
        let stem = name.strip_suffix(".key")?;
        (fits && !stem.is_empty() && !name.contains(".."))
            .then(|| CString::new(name).ok().map(Self))?
    }
}

/// The path in `Basic realm=PATH`, with nothing before, between or behind.
fn realm(value: &HeaderValue) -> Option<&str> {
    let text = value
        .to_str()
        .ok()
        .filter(|text| text.len() <= MAX_CHALLENGE)?
        .trim_end_matches(' ');
    let (scheme, parameter) = text.split_once(' ')?;
    let (name, path) = parameter.split_once('=')?;
    let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'=' | b'"' | b',' | b'%');
    (scheme.eq_ignore_ascii_case("basic")
        && name.eq_ignore_ascii_case("realm")
        && path.bytes().all(plain))
    .then_some(path)
}

/// Opens without following a link, without waiting for a writer, and without leaving the directory.
fn open_beneath(dir: &OwnedFd, name: &KeyName) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY
        | OFlag::O_CLOEXEC
        | OFlag::O_NOFOLLOW
        | OFlag::O_NONBLOCK
        | OFlag::O_NOCTTY;
    let resolve = ResolveFlag::RESOLVE_BENEATH
        | ResolveFlag::RESOLVE_NO_SYMLINKS
        | ResolveFlag::RESOLVE_NO_MAGICLINKS
        | ResolveFlag::RESOLVE_NO_XDEV;
    match openat2(
        dir,
        name.0.as_c_str(),
        OpenHow::new().flags(flags).resolve(resolve),
    ) {
        // Before Linux 5.6, or filtered. The name is one plain component, so that only a mount on
        // the file itself could still lead elsewhere, and that takes root.
        Err(Errno::ENOSYS | Errno::EPERM) => openat(dir, name.0.as_c_str(), flags, Mode::empty()),
        other => other,
    }
}

fn refused(errno: Errno) -> ChallengeError {
    match errno {
        Errno::ENOENT => ChallengeError::Absent,
        Errno::EACCES => ChallengeError::Denied,
        Errno::ELOOP | Errno::ENXIO | Errno::EXDEV => ChallengeError::Kind,
        other => ChallengeError::Read(other.into()),
    }
}

/// `Basic` and the key verbatim: it is opaque, and not the base64 of anything of ours.
fn authorization(file: File) -> Result<HeaderValue, ChallengeError> {
    // Sized in advance: a buffer that grows leaves its former self behind.
    let mut value = Zeroizing::new(Vec::with_capacity(MAX_CHALLENGE + 64));
    value.extend_from_slice(b"Basic ");
    let scheme = value.len();
    file.take(MAX_KEY + 1)
        .read_to_end(&mut value)
        .map_err(ChallengeError::Read)?;
    if value.last() == Some(&b'\n') {
        value.pop();
        if value.last() == Some(&b'\r') {
            value.pop();
        }
    }
    let key = value.get(scheme..).unwrap_or_default();
    if key.is_empty() || key.len() as u64 > MAX_KEY {
        return Err(ChallengeError::Size);
    }
    if !key.iter().all(u8::is_ascii_graphic) {
        return Err(ChallengeError::Content);
    }
    let mut header = HeaderValue::from_bytes(&value).map_err(|_| ChallengeError::Content)?;
    header.set_sensitive(true);
    Ok(header)
}

#[cfg(test)]
mod tests;
