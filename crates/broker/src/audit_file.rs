//! The audit file: appended to by whole lines, and followed when it is rotated.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

const MODE: u32 = 0o640;

/// The longest line that is looked for at the end of a file; ours are a tenth of it.
const TAIL: u64 = 64 * 1024;

/// Why a record was not written.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}: the audit record was not written: {reason}", path.display())]
pub struct AuditError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub reason: String,
}

/// An open audit file.
#[derive(Debug)]
pub(crate) struct AuditFile {
    pub(crate) path: PathBuf,
    pub(crate) file: File,
}

impl AuditFile {
    /// Opens or makes the file, and gives its last line.
    pub(crate) fn open(path: PathBuf) -> Result<(Self, Option<Vec<u8>>), AuditError> {
        let opened = open(&path).and_then(|mut file| last_line(&mut file).map(|line| (file, line)));
        match opened {
            Ok((file, line)) => Ok((Self { path, file }, line)),
            Err(error) => Err(AuditError::new(&path, &error)),
        }
    }

    /// Appends all of it, or nothing: what a full disk has taken of it is cut off again.
    pub(crate) fn write(&mut self, lines: &[u8]) -> Result<(), AuditError> {
        let fail = |error: &io::Error| Err(AuditError::new(&self.path, error));
        match self.file.write(lines) {
            Ok(written) if written == lines.len() => Ok(()),
            Ok(written) => {
                let cut = self
                    .file
                    .metadata()
                    .map(|meta| meta.len().saturating_sub(written as u64));
                match cut.and_then(|length| self.file.set_len(length)) {
                    Ok(()) => fail(&io::Error::from(io::ErrorKind::StorageFull)),
                    Err(error) => fail(&error),
                }
            }
            Err(error) => fail(&error),
        }
    }

    /// Opens the path anew when it leads elsewhere by now.
    pub(crate) fn follow(&mut self) -> Result<(), AuditError> {
        let ours = self
            .file
            .metadata()
            .map(|meta| (meta.dev(), meta.ino()))
            .ok();
        let there = fs::symlink_metadata(&self.path)
            .map(|meta| (meta.dev(), meta.ino()))
            .ok();
        if ours.is_none() || ours != there {
            self.file = open(&self.path).map_err(|error| AuditError::new(&self.path, &error))?;
        }
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NOCTTY | OFlag::O_NONBLOCK;
    let file = File::options()
        .read(true)
        .append(true)
        .create(true)
        .mode(MODE)
        .custom_flags(flags.bits())
        .open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file",
        ))
    }
}

/// The last whole line. What a crash left behind without an end is cut off.
fn last_line(file: &mut File) -> io::Result<Option<Vec<u8>>> {
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut tail = Vec::new();
    file.take(TAIL).read_to_end(&mut tail)?;
    let whole = tail
        .iter()
        .rposition(|&byte| byte == b'\n')
        .map_or(0, |at| at + 1);
    if whole < tail.len() {
        file.set_len(length - (tail.len() - whole) as u64)?;
    }
    let line = tail
        .get(..whole.saturating_sub(1))
        .unwrap_or_default()
        .rsplit(|&byte| byte == b'\n')
        .next();
    Ok(line.filter(|line| !line.is_empty()).map(<[u8]>::to_vec))
}

impl AuditError {
    fn new(path: &Path, error: &io::Error) -> Self {
        Self {
            path: path.to_owned(),
            reason: error.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_whole_line_is_found_and_a_torn_one_is_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit");
        for (content, last, kept) in [
            ("", None, 0),
            ("one\n", Some("one"), 4),
            ("one\ntwo\n", Some("two"), 8),
            ("one\ntorn", Some("one"), 4),
            ("torn", None, 0),
        ] {
            fs::write(&path, content).unwrap();
            let (_, line) = AuditFile::open(path.clone()).unwrap();
            assert_eq!(line.as_deref(), last.map(str::as_bytes), "{content:?}");
            assert_eq!(fs::metadata(&path).unwrap().len(), kept, "{content:?}");
        }
    }

    #[test]
    fn a_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit");
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), &path).unwrap();
        let error = AuditFile::open(path.clone()).unwrap_err();
        assert!(
            error.to_string().starts_with(&path.display().to_string()),
            "{error}"
        );
        assert!(!dir.path().join("elsewhere").exists());
    }

    #[test]
    fn a_rotated_file_is_left_for_the_new_one() {
        let dir = tempfile::tempdir().unwrap();
        let (path, old) = (dir.path().join("audit"), dir.path().join("audit.1"));
        let (mut file, _) = AuditFile::open(path.clone()).unwrap();
        file.write(b"1\n").unwrap();
        fs::rename(&path, &old).unwrap();
        file.write(b"2\n").unwrap();
        file.follow().unwrap();
        file.write(b"3\n").unwrap();
        assert_eq!(
            (fs::read(&old).unwrap(), fs::read(&path).unwrap()),
            (b"1\n2\n".to_vec(), b"3\n".to_vec())
        );
    }
}
