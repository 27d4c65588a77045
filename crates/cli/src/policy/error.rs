//! Why a command about the policy did not do what it was asked to.

use std::{
    io,
    path::{Path, PathBuf},
};

use arcbroker_policy::Diagnostics;

/// What is wrong with files, or with the rule that a command line makes.
#[derive(Debug)]
pub(crate) struct Mistakes {
    what: &'static str,
    /// One mistake after the other, each with its place: visible ASCII and newlines.
    report: String,
}

impl Mistakes {
    pub(crate) fn of_configuration(diagnostics: &Diagnostics) -> Self {
        Self::new("the configuration has mistakes", diagnostics)
    }

    pub(crate) fn new(what: &'static str, diagnostics: &Diagnostics) -> Self {
        Self {
            what,
            report: diagnostics.to_string(),
        }
    }
}

/// Why a command about the policy failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{}: cannot be read: {error}", path.display())]
    Read { path: PathBuf, error: io::Error },
    #[error("{}: cannot be written: {error}", path.display())]
    Write { path: PathBuf, error: io::Error },
    #[error("{}", .0.what)]
    Mistakes(Mistakes),
    #[error("there is no {kind} `{name}` on this system")]
    NoAccount { kind: &'static str, name: String },
    #[error("no rule is named `{0}`")]
    NoRule(String),
    #[error("{}: another command has held it for {seconds} s", dir.display())]
    Busy { dir: PathBuf, seconds: u64 },
    #[error("{}: somebody else has changed it meanwhile", .0.display())]
    Changed(PathBuf),
    #[error("{}: uid {owner} may not own policy files", path.display())]
    Owner { path: PathBuf, owner: u32 },
    #[error("arcbrokerd refuses the new policy, so that everything is as it was")]
    Refused { report: String },
    #[error("arcbrokerd refuses the policy, and the one from before stays in force")]
    NotReloaded { report: String },
    #[error("the files are changed, but whether arcbrokerd has taken that up is not known: {0}")]
    Untold(#[source] arcbroker_client::Error),
    #[error("{what} is written in a way that is not edited here, so nothing is changed")]
    Form { what: String, place: String },
    #[error(
        "this would change more than it should, so nothing is changed; this is a defect of arcbroker"
    )]
    Unsafe { report: String },
    #[error(
        "the rules list so much that it cannot be told what would change, so nothing is changed"
    )]
    TooMuch,
    #[error("{}: there are no rules to promote", .0.display())]
    NoShadow(PathBuf),
    #[error("{}: it and {} cannot change places: {error}", shadow.display(), live.display())]
    Exchange {
        live: PathBuf,
        shadow: PathBuf,
        error: io::Error,
    },
}

impl Error {
    pub(crate) fn read(path: &Path, error: io::Error) -> Self {
        Self::Read {
            path: path.to_owned(),
            error,
        }
    }

    pub(crate) fn write(path: &Path, error: io::Error) -> Self {
        Self::Write {
            path: path.to_owned(),
            error,
        }
    }

    /// Lines that come before the sentence.
    pub(crate) fn report(&self) -> Option<&str> {
        match self {
            Self::Mistakes(mistakes) => Some(&mistakes.report),
            Self::Refused { report } | Self::NotReloaded { report } | Self::Unsafe { report } => {
                Some(report)
            }
            _ => None,
        }
    }

    /// What to do next.
    pub(crate) fn advice(&self) -> Option<String> {
        Some(match self {
            Self::Read { error, .. } | Self::Write { error, .. }
                if error.kind() == io::ErrorKind::PermissionDenied =>
            {
                "these files are root's: say sudo before the command".to_owned()
            }
            Self::NoAccount { kind, .. } => {
                format!("make the {kind} first, or give its number")
            }
            Self::NoRule(_) => "see all names: arcbroker rules".to_owned(),
            Self::Busy { .. } | Self::Changed(_) => "try again".to_owned(),
            Self::Owner { .. } => {
                "[policy] owners in the configuration says who may: run this as one of them"
                    .to_owned()
            }
            Self::Untold(_) => "see: sudo arcbroker reload".to_owned(),
            Self::Form { place, .. } => format!("edit it by hand: {place}"),
            Self::TooMuch => {
                "name fewer subjects or resources, or edit the files by hand".to_owned()
            }
            Self::NoShadow(dir) => format!("write the next policy into {}", dir.display()),
            Self::Exchange { .. } => "both must be on one file system".to_owned(),
            _ => return None,
        })
    }
}
