//! What can go wrong on the way to an answer.

use std::{io, path::PathBuf, time::Duration};

use crate::{connect::OWNER_VARIABLE, wire};

/// Why there is no answer.
///
/// Texts called `description` come from the broker as they are: remove control characters before
/// they reach a terminal.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The broker, or this crate before sending, found the request to be malformed. Repeating it is of no use.
    #[error("the request was refused as malformed: {description}")]
    BadRequest {
        /// What is wrong with it.
        description: String,
        /// The number under which the broker's audit log has it.
        request_id: Option<String>,
    },
    /// No rule of the broker's policy allows it.
    #[error("denied: {description}")]
    Denied {
        /// What was denied, and what to do next.
        description: String,
        /// The number under which the broker's audit log has it.
        request_id: Option<String>,
    },
    /// A [`crate::blocking::Client`] was used on a thread that runs async code.
    #[error("a blocking client cannot be used in async code; use arcbroker_client::Client there")]
    InsideRuntime,
    /// What answered does not speak the broker's protocol.
    #[error("the answer is not one of an arcbroker: {0}")]
    Protocol(&'static str),
    /// Refused, but not by the broker's policy: by HIMDS, whose words the description has. Repeating it is of no use.
    #[error("refused, but not by the policy: {description}")]
    Refused {
        /// Who refused it, and why.
        description: String,
        /// The number under which the broker's audit log has it.
        request_id: Option<String>,
    },
    /// The runtime of a [`crate::blocking::Client`] could not be made.
    #[error("no runtime for the blocking client: {0}")]
    Runtime(#[source] io::Error),
    /// The answer is longer than [`wire::MAX_ANSWER`].
    #[error(
        "the answer is longer than {} bytes, so it was not read to its end",
        wire::MAX_ANSWER
    )]
    TooLarge,
    /// The call did not end within its deadline, connecting included.
    #[error("no answer within {} s", .0.as_secs_f32())]
    TooSlow(Duration),
    /// The broker is there, and has no token to give at present.
    #[error("no token at present: {description}")]
    Unavailable {
        /// When to ask again, if the broker said so: 1 to 300 seconds.
        retry_after: Option<Duration>,
        /// What is missing.
        description: String,
        /// The number under which the broker's audit log has it.
        request_id: Option<String>,
    },
    /// Neither a user id nor the name of a user of this system.
    #[error("no user is called {0:?} here; {OWNER_VARIABLE} takes a user id or a name")]
    UnknownOwner(String),
    /// Nobody can be talked to at the socket.
    #[error("no broker answers at {}: {source}", .path.display())]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The socket is served by a user that is not believed; nothing was sent.
    #[error("{} is served by uid {uid}, which is neither root nor you; if that is your broker, set {OWNER_VARIABLE}={uid}", .path.display())]
    WrongOwner {
        /// The socket.
        path: PathBuf,
        /// Who serves it.
        uid: u32,
    },
}

impl Error {
    /// Whether the same call may succeed later without anybody changing anything but the broker's
    /// being up.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::TooSlow(_) | Self::Unavailable { .. } => true,
            Self::Unreachable { source, .. } => source.kind() != io::ErrorKind::PermissionDenied,
            _ => false,
        }
    }

    pub(crate) fn bad_request(description: &str) -> Self {
        Self::BadRequest {
            description: description.to_owned(),
            request_id: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_socket_may_appear_and_a_forbidden_one_stays_forbidden() {
        let error = |kind: io::ErrorKind| Error::Unreachable {
            path: "/s".into(),
            source: kind.into(),
        };
        assert!(error(io::ErrorKind::NotFound).is_transient());
        assert!(error(io::ErrorKind::ConnectionRefused).is_transient());
        assert!(!error(io::ErrorKind::PermissionDenied).is_transient());
        assert!(!Error::Protocol("x").is_transient());
    }

    #[test]
    fn a_wrong_owner_is_told_with_the_way_out() {
        let error = Error::WrongOwner {
            path: "/s".into(),
            uid: 7,
        };
        assert_eq!(
            error.to_string(),
            "/s is served by uid 7, which is neither root nor you; if that is your broker, set ARCBROKER_SOCKET_OWNER=7"
        );
    }
}
