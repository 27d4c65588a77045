//! How a command can end, and the exit code of each ending.

use std::{
    io::{self, ErrorKind},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use arcbroker_client::{Error, wire::Health};
use nix::unistd::{Uid, User};

use crate::{audit, commands::demo, duration::human, policy};

/// An exit code. Scripts depend on the numbers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Exit(u8);

impl Exit {
    pub(crate) const OK: Self = Self(0);
    pub(crate) const FAILED: Self = Self(1);
    pub(crate) const USAGE: Self = Self(2);
    /// As diff(1) says it.
    pub(crate) const TROUBLE: Self = Self(2);
    pub(crate) const DENIED: Self = Self(3);
    pub(crate) const UNREACHABLE: Self = Self(4);
    pub(crate) const UNAVAILABLE: Self = Self(5);
    /// As env(1) says it.
    pub(crate) const NOT_RUN: Self = Self(125);
    pub(crate) const CANNOT_RUN: Self = Self(126);
    pub(crate) const NO_PROGRAM: Self = Self(127);
    pub(crate) const USAGE_OF_STATUS: Self = Self(64);

    /// What `status` says with its code alone.
    pub(crate) fn of_health(health: Health) -> Self {
        match health {
            Health::Healthy => Self(0),
            Health::Degraded | Health::Starting => Self(1),
            Health::Failing => Self(2),
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.0)
    }
}

/// Why a command did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Of a command on audit records.
    #[error("{0}")]
    Audit(#[from] audit::Error),
    /// The same, where 1 says something else.
    #[error("{0}")]
    AuditTrouble(#[source] audit::Error),
    /// Of an administrator's command.
    #[error("{0}")]
    Command(#[source] Error),
    #[error("{0}")]
    Demo(#[from] demo::Error),
    /// No endpoint could be had for a program.
    #[error("{0}")]
    Endpoint(#[source] Error),
    /// There is an endpoint, but no program for it.
    #[error("{}: {source}", .program.display())]
    Program { program: PathBuf, source: io::Error },
    /// No loopback address to serve an endpoint on.
    #[error("no listener on a loopback address: {0}")]
    Loopback(#[source] io::Error),
    #[error("cannot write manual pages to {}: {source}", .directory.display())]
    Manual {
        directory: PathBuf,
        source: io::Error,
    },
    /// Something that was named does not exist, or not in this place.
    #[error("{0}")]
    Named(String),
    #[error("cannot write to standard output: {0}")]
    Output(#[source] io::Error),
    /// A closed pipe: whoever read has enough.
    #[error("nobody reads standard output")]
    ReaderGone,
    /// Of a command on policy files.
    #[error("{0}")]
    Policy(#[from] policy::Error),
    #[error("cannot start: {0}")]
    Start(#[source] io::Error),
    /// Of `status`, whose exit codes speak of the broker's health.
    #[error("{0}")]
    Status(#[source] Error),
    #[error("the token is good for {}, and {} are wanted", human(.left.as_secs()), human(.wanted.as_secs()))]
    TooShort { left: Duration, wanted: Duration },
    #[error("{0}")]
    Tokens(#[source] Error),
    /// A command line that asks for nothing sensible.
    #[error("{0}")]
    Usage(String),
    /// Of a command on policy files whose exit code 1 says that they differ.
    #[error("{0}")]
    Trouble(#[source] policy::Error),
}

impl Failure {
    pub(crate) fn exit(&self) -> Exit {
        match self {
            // Of `status`, the numbers below speak of health.
            Self::Status(_) | Self::Policy(policy::Error::Untold(_)) => Exit::UNREACHABLE,
            Self::Usage(_) => Exit::USAGE,
            Self::Endpoint(_) | Self::Loopback(_) => Exit::NOT_RUN,
            Self::Program { source, .. } if source.kind() == ErrorKind::NotFound => {
                Exit::NO_PROGRAM
            }
            Self::Program { .. } => Exit::CANNOT_RUN,
            Self::Audit(_)
            | Self::Demo(_)
            | Self::Manual { .. }
            | Self::Named(_)
            | Self::Output(_)
            | Self::Policy(_)
            | Self::Start(_) => Exit::FAILED,
            Self::AuditTrouble(_) | Self::Trouble(_) => Exit::TROUBLE,
            Self::ReaderGone => Exit::OK,
            Self::TooShort { .. } => Exit::UNAVAILABLE,
            Self::Command(error) | Self::Tokens(error) => match error {
                Error::Denied { .. } => Exit::DENIED,
                Error::TooSlow(_) | Error::Unreachable { .. } | Error::WrongOwner { .. } => {
                    Exit::UNREACHABLE
                }
                Error::Unavailable { .. } => Exit::UNAVAILABLE,
                _ => Exit::FAILED,
            },
        }
    }

    /// What to do next, where the message does not say it.
    pub(crate) fn advice(&self) -> Option<String> {
        match self {
            Self::Command(Error::Unreachable { source, .. })
                if source.kind() == ErrorKind::PermissionDenied =>
            {
                Some("the admin socket is for root: say sudo before the command".to_owned())
            }
            Self::Status(Error::Unreachable { source, .. })
                if source.kind() == ErrorKind::PermissionDenied =>
            {
                Some("the admin socket is for root: sudo arcbroker status".to_owned())
            }
            Self::TooShort { .. } => Some(
                "the broker replaces it by itself as soon as it gets another; see: sudo arcbroker status"
                    .to_owned(),
            ),
            Self::Command(error)
            | Self::Endpoint(error)
            | Self::Status(error)
            | Self::Tokens(error) => advice(error),
            Self::Audit(error) | Self::AuditTrouble(error) => error.advice(),
            Self::Policy(error) | Self::Trouble(error) => error.advice(),
            Self::Demo(error) => error.advice(),
            Self::Loopback(_)
            | Self::Named(_)
            | Self::Output(_)
            | Self::Program { .. }
            | Self::ReaderGone
            | Self::Start(_)
            | Self::Manual { .. }
            | Self::Usage(_) => None,
        }
    }
}

impl Failure {
    /// Lines that come before the sentence, if there are any.
    pub(crate) fn report(&self) -> Option<&str> {
        match self {
            Self::Policy(error) | Self::Trouble(error) => error.report(),
            _ => None,
        }
    }
}

fn advice(error: &Error) -> Option<String> {
    match error {
        Error::Denied { .. } => Some("see what you may have: arcbroker whoami".to_owned()),
        Error::Refused { .. } => Some(
            "an administrator can look with: sudo arcbroker status, and sudo azcmagent show"
                .to_owned(),
        ),
        Error::Unavailable { retry_after: Some(pause), .. } => Some(format!(
            "ask again in {}, or with --wait; see why: sudo arcbroker status",
            human(pause.as_secs())
        )),
        Error::TooSlow(_) | Error::Unavailable { .. } => Some("see why: sudo arcbroker status".to_owned()),
        Error::Unreachable { source, .. } if source.kind() == ErrorKind::PermissionDenied => Some(format!(
            "add the user to group arcbroker: usermod -aG arcbroker {}, then log in again",
            own_name()
        )),
        Error::Unreachable { .. } => Some(
            "is arcbrokerd running? systemctl status arcbroker (--socket and --admin-socket name other sockets)"
                .to_owned(),
        ),
        Error::Protocol(_) | Error::TooLarge => {
            Some("is that the socket of an arcbrokerd, and of the same version?".to_owned())
        }
        _ => None,
    }
}

fn own_name() -> String {
    let uid = Uid::effective();
    match User::from_uid(uid) {
        Ok(Some(user)) => user.name,
        Ok(None) | Err(_) => uid.to_string(),
    }
}
