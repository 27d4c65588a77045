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
    /// User ids that may own the directory and the files.
    pub owners: Vec<u32>,
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
        self.owners.contains(&stat.st_uid) && stat.st_mode & Mode::S_IWOTH.bits() == 0
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
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;

    use nix::sys::stat::Mode;
    use nix::unistd::{geteuid, mkfifo};
    use tempfile::TempDir;

    use super::*;

    const NAME: &str = "6f9b3c1e-0000-4000-8000-1234567890ab.key";

    fn key_files() -> (TempDir, KeyFiles) {
        let dir = tempfile::tempdir().unwrap();
        let owners = vec![geteuid().as_raw()];
        let files = KeyFiles {
            dir: dir.path().to_owned(),
            owners,
        };
        (dir, files)
    }

    fn challenge(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(
                WWW_AUTHENTICATE,
                HeaderValue::from_bytes(value.as_bytes()).unwrap(),
            );
        }
        headers
    }

    fn name() -> KeyName {
        KeyName::parse(NAME).unwrap()
    }

    #[test]
    fn u02_the_scheme_may_be_in_any_case_and_a_trailing_space_is_nothing() {
        let (dir, files) = key_files();
        let path = format!("{}/{NAME}", dir.path().display());
        for value in [
            format!("Basic realm={path}"),
            format!("basic realm={path}"),
            format!("BASIC Realm={path} "),
        ] {
            assert_eq!(
                files.locate(&challenge(&[&value])).unwrap(),
                name(),
                "{value}"
            );
        }
    }

    #[test]
    fn u03_a_realm_that_is_not_exactly_a_key_file_of_the_directory_is_refused() {
        let (dir, files) = key_files();
        let dir = dir.path().display();
        for realm in [
            String::new(),
            NAME.to_owned(),
            format!("{dir}"),
            format!("{dir}/"),
            format!("{dir}/.key"),
            format!("{dir}/a.txt"),
            format!("{dir}/a.key.txt"),
            format!("{dir}/a..key"),
            format!("{dir}/.a.key"),
            format!("{dir}/../a.key"),
            format!("{dir}/./a.key"),
            format!("{dir}//a.key"),
            format!("{dir}/sub/a.key"),
            format!("{dir}/a%2e.key"),
            format!("{dir}/a\u{e9}.key"),
            format!("{dir}/{}.key", "a".repeat(125)),
            "/etc/shadow".to_owned(),
            "/etc/a.key".to_owned(),
            format!("file://{dir}/a.key"),
        ] {
            assert!(
                files
                    .locate(&challenge(&[&format!("Basic realm={realm}")]))
                    .is_err(),
                "{realm}"
            );
        }
    }

    #[test]
    fn a_challenge_of_another_form_is_refused() {
        let (dir, files) = key_files();
        let path = format!("{}/{NAME}", dir.path().display());
        for value in [
            format!("Basic realm=\"{path}\""),
            format!("Basic realm={path}, charset=UTF-8"),
            format!("Basic realm={path} charset=UTF-8"),
            format!("Basic  realm={path}"),
            format!("Basic realm = {path}"),
            format!("Basic realm={path}=x"),
            format!("Bearer realm={path}"),
            format!("realm={path}"),
            format!("Basic {path}"),
            "Basic".to_owned(),
            String::new(),
            format!("Basic realm={path}{}", "a".repeat(5000)),
        ] {
            let error = files.locate(&challenge(&[&value])).unwrap_err();
            assert!(
                matches!(error, ChallengeError::Form | ChallengeError::Name),
                "{value}: {error}"
            );
        }
        assert!(matches!(
            files.locate(&challenge(&[])),
            Err(ChallengeError::Missing)
        ));
        let good = format!("Basic realm={path}");
        assert!(matches!(
            files.locate(&challenge(&[&good, &good])),
            Err(ChallengeError::Several)
        ));
    }

    #[test]
    fn u04_a_directory_behind_a_link_is_known_by_both_its_paths() {
        let (dir, _) = key_files();
        let (real, link) = (
            dir.path().canonicalize().unwrap().join("real"),
            dir.path().join("link"),
        );
        fs::create_dir(&real).unwrap();
        symlink(&real, &link).unwrap();
        let files = KeyFiles {
            dir: link.clone(),
            owners: vec![geteuid().as_raw()],
        };
        fs::write(real.join(NAME), "k3y").unwrap();
        for parent in [&real, &link] {
            let header = challenge(&[&format!("Basic realm={}/{NAME}", parent.display())]);
            let name = files.locate(&header).unwrap();
            assert_eq!(files.read(&name).unwrap(), "Basic k3y");
        }
    }

    #[test]
    fn u01_the_key_goes_verbatim_without_the_newline_and_is_marked_sensitive() {
        let (dir, files) = key_files();
        for (content, expected) in [
            ("k3y==", "Basic k3y=="),
            ("k3y\n", "Basic k3y"),
            ("k3y\r\n", "Basic k3y"),
        ] {
            fs::write(dir.path().join(NAME), content).unwrap();
            let header = files.read(&name()).unwrap();
            assert_eq!(header, expected);
            assert_eq!(format!("{header:?}"), "Sensitive");
        }
    }

    #[test]
    fn u06_size_is_bounded() {
        let (dir, files) = key_files();
        for (size, good) in [(0, false), (1, true), (4096, true), (4097, false)] {
            fs::write(dir.path().join(NAME), vec![b'k'; size]).unwrap();
            assert_eq!(files.read(&name()).is_ok(), good, "{size}");
        }
        File::create(dir.path().join(NAME))
            .unwrap()
            .set_len(1 << 30)
            .unwrap();
        assert!(matches!(files.read(&name()), Err(ChallengeError::Size)));
    }

    #[test]
    fn u05_only_a_regular_file_with_one_name_is_read() {
        let (dir, files) = key_files();
        let (path, other) = (dir.path().join(NAME), dir.path().join("other"));
        fs::write(&other, "secret").unwrap();
        let make: [(&str, &dyn Fn()); 5] = [
            ("symlink", &|| symlink(&other, &path).unwrap()),
            ("hard link", &|| fs::hard_link(&other, &path).unwrap()),
            ("fifo", &|| mkfifo(&path, Mode::S_IRWXU).unwrap()),
            ("directory", &|| fs::create_dir(&path).unwrap()),
            ("socket", &|| drop(UnixListener::bind(&path).unwrap())),
        ];
        for (kind, make) in make {
            make();
            let error = files.read(&name()).unwrap_err();
            assert!(
                matches!(error, ChallengeError::Kind | ChallengeError::Linked),
                "{kind}: {error}"
            );
            fs::remove_file(&path)
                .or_else(|_| fs::remove_dir(&path))
                .unwrap();
        }
    }

    #[test]
    fn the_owner_and_the_mode_must_be_right() {
        let (dir, files) = key_files();
        let path = dir.path().join(NAME);
        fs::write(&path, "k3y").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o602)).unwrap();
        assert!(matches!(files.read(&name()), Err(ChallengeError::Owner(_))));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(
            files.read(&name()),
            Err(ChallengeError::DirectoryOwner { .. })
        ));
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        assert!(files.read(&name()).is_ok());
        let strict = KeyFiles {
            owners: vec![geteuid().as_raw() + 1],
            ..files
        };
        assert!(matches!(
            strict.read(&name()),
            Err(ChallengeError::DirectoryOwner { .. })
        ));
    }

    #[test]
    fn what_is_no_header_value_is_refused_without_being_shown() {
        let (dir, files) = key_files();
        for content in [
            "MARKER\r\nX: y",
            "MARKER \u{e9}",
            "MARKER\0",
            "MAR KER",
            "\n",
            "MARKER\n\n",
        ] {
            fs::write(dir.path().join(NAME), content).unwrap();
            let error = files.read(&name()).unwrap_err();
            assert!(
                !format!("{error} {error:?}").contains("MARKER"),
                "{error:?}"
            );
        }
    }

    #[test]
    fn u07_a_key_that_is_gone_is_told_apart_from_one_that_may_not_be_read() {
        let (_dir, files) = key_files();
        assert!(matches!(files.read(&name()), Err(ChallengeError::Absent)));
        assert!(matches!(refused(Errno::EACCES), ChallengeError::Denied));
    }
}
