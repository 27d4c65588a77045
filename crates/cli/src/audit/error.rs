//! Why audit records cannot be read.

use std::{
    io,
    path::{Path, PathBuf},
};

/// Why audit records cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{}: cannot be read: {error}", path.display())]
    Read { path: PathBuf, error: io::Error },
    #[error("the configuration names no audit file")]
    NoFile,
    #[error("`{0}` is no length of time")]
    Time(String),
}

impl Error {
    pub(crate) fn read(path: &Path, error: io::Error) -> Self {
        Self::Read {
            path: path.to_owned(),
            error,
        }
    }

    /// What to do next.
    pub(crate) fn advice(&self) -> Option<String> {
        Some(match self {
            Self::Read { error, .. } if error.kind() == io::ErrorKind::PermissionDenied => {
                "the audit file is not for everybody: say sudo before the command".to_owned()
            }
            Self::NoFile => {
                "records go to the journal: journalctl -t arcbrokerd, or name a file".to_owned()
            }
            Self::Time(_) => "write it like 7d, 12h or 30m".to_owned(),
            Self::Read { .. } => return None,
        })
    }
}
