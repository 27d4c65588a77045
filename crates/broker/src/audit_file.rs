//! The audit file: appended to by whole lines, and followed when it is rotated.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use crate::lane::{AuditError, Taken};

const MODE: u32 = 0o640;
const FLAGS: OFlag = OFlag::O_NOFOLLOW
    .union(OFlag::O_NOCTTY)
    .union(OFlag::O_NONBLOCK);

/// The longest line that is looked for at the end of a file; ours are a tenth of it.
const TAIL: u64 = 64 * 1024;

/// Bytes that are written at one time, so that what waited for room is written as far as there is
/// room.
const PIECE: usize = 64 * 1024;

/// An open audit file.
#[derive(Debug)]
pub(crate) struct AuditFile {
    pub(crate) path: PathBuf,
    pub(crate) file: File,
    /// Bytes at the end that are no whole line and could not be cut off yet.
    torn: u64,
}

impl AuditFile {
    /// Opens or makes the file, and gives the last line of it, or of the one before where this one
    /// is new: logrotate(8) calls that `PATH.1`.
    pub(crate) fn open(path: PathBuf) -> Result<(Self, Option<Vec<u8>>), AuditError> {
        let opened = open(&path).and_then(|mut file| {
            let line = mend(&mut file)?;
            let line = line.or_else(|| last_line_of_rotated(&path));
            Ok((file, line))
        });
        match opened {
            Ok((file, line)) => Ok((
                Self {
                    path,
                    file,
                    torn: 0,
                },
                line,
            )),
            Err(error) => Err(AuditError::new(&path, &error)),
        }
    }

    /// Appends lines as far as it can, none of them in part.
    pub(crate) fn take(&mut self, lines: &[u8]) -> Taken {
        let mut taken = 0;
        while let Some(piece) = lines.get(taken..).and_then(first_piece) {
            if let Err(error) = self.write(piece) {
                return (taken, Err(error));
            }
            taken += piece.len();
        }
        (taken, Ok(()))
    }

    /// Appends all of it, or nothing: what a full disk has taken of it is cut off again.
    fn write(&mut self, lines: &[u8]) -> Result<(), AuditError> {
        if self.file.metadata().is_ok_and(|meta| meta.nlink() == 0) {
            // Somebody has removed it: what is written to it now is lost.
            self.follow()?;
        }
        self.cut().map_err(|error| self.error(&error))?;
        match self.file.write(lines) {
            Ok(written) if written == lines.len() => Ok(()),
            Ok(written) => {
                self.torn = written as u64;
                let error = match self.cut() {
                    Ok(()) => io::ErrorKind::StorageFull.into(),
                    Err(error) => error,
                };
                Err(self.error(&error))
            }
            Err(error) => Err(self.error(&error)),
        }
    }

    fn cut(&mut self) -> io::Result<()> {
        if self.torn > 0 {
            let length = self.file.metadata()?.len();
            self.file.set_len(length.saturating_sub(self.torn))?;
            self.torn = 0;
        }
        Ok(())
    }

    fn error(&self, error: &io::Error) -> AuditError {
        AuditError::new(&self.path, error)
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
            self.file = open(&self.path).map_err(|error| self.error(&error))?;
            self.torn = 0;
        }
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    let file = File::options()
        .read(true)
        .append(true)
        .create(true)
        .mode(MODE)
        .custom_flags(FLAGS.bits())
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
fn mend(file: &mut File) -> io::Result<Option<Vec<u8>>> {
    let length = file.metadata()?.len();
    let tail = read_tail(file, length)?;
    let whole = whole_lines(&tail);
    if whole == 0 && length > TAIL {
        let what = "its end is not that of an audit log: move it away";
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    if whole < tail.len() {
        file.set_len(length - (tail.len() - whole) as u64)?;
    }
    Ok(last_line(&tail))
}

fn last_line_of_rotated(path: &Path) -> Option<Vec<u8>> {
    let mut rotated = path.as_os_str().to_owned();
    rotated.push(".1");
    let mut file = File::options()
        .read(true)
        .custom_flags(FLAGS.bits())
        .open(rotated)
        .ok()?;
    let metadata = file.metadata().ok().filter(fs::Metadata::is_file)?;
    last_line(&read_tail(&mut file, metadata.len()).ok()?)
}

fn read_tail(file: &mut File, length: u64) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut tail = Vec::new();
    file.take(TAIL).read_to_end(&mut tail)?;
    Ok(tail)
}

/// Whole lines up to the size of one write, or one line that is longer.
fn first_piece(lines: &[u8]) -> Option<&[u8]> {
    let is_end = |byte: &u8| *byte == b'\n';
    let window = lines.get(..PIECE).unwrap_or(lines);
    let end = window
        .iter()
        .rposition(is_end)
        .or_else(|| lines.iter().position(is_end))?;
    lines.get(..=end)
}

/// Bytes up to the last newline.
fn whole_lines(tail: &[u8]) -> usize {
    let newline = tail.iter().rposition(|&byte| byte == b'\n');
    newline.map_or(0, |at| at + 1)
}

fn last_line(tail: &[u8]) -> Option<Vec<u8>> {
    let whole = tail.get(..whole_lines(tail).checked_sub(1)?)?;
    whole
        .rsplit(|&byte| byte == b'\n')
        .next()
        .map(<[u8]>::to_vec)
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
    fn a_new_file_goes_on_from_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit");
        fs::write(dir.path().join("audit.1"), "one\ntwo\n").unwrap();
        let (_, line) = AuditFile::open(path.clone()).unwrap();
        assert_eq!(line.as_deref(), Some(&b"two"[..]));
        fs::write(&path, "three\n").unwrap();
        let (_, line) = AuditFile::open(path).unwrap();
        assert_eq!(line.as_deref(), Some(&b"three"[..]));
    }

    #[test]
    fn a_file_that_is_no_log_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit");
        let length = TAIL + 1;
        File::create(&path).unwrap().set_len(length).unwrap();
        assert!(AuditFile::open(path.clone()).is_err());
        assert_eq!(fs::metadata(&path).unwrap().len(), length);
    }

    #[test]
    fn a_file_that_was_removed_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit");
        let (mut file, _) = AuditFile::open(path.clone()).unwrap();
        fs::remove_file(&path).unwrap();
        file.take(b"1\n").1.unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"1\n");
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
        file.take(b"1\n").1.unwrap();
        fs::rename(&path, &old).unwrap();
        file.take(b"2\n").1.unwrap();
        file.follow().unwrap();
        file.take(b"3\n").1.unwrap();
        assert_eq!(
            (fs::read(&old).unwrap(), fs::read(&path).unwrap()),
            (b"1\n2\n".to_vec(), b"3\n".to_vec())
        );
    }
}
