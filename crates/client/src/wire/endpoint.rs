//! How a program gets an endpoint of its own.
//!
//! A GET of [`path::ENDPOINT`](super::path::ENDPOINT) with an upgrade to [`ENDPOINT_PROTOCOL`]. After the 101 the
//! broker sends [`READY`]; the client answers with one byte and, along with it, a TCP listener on a
//! loopback address; the broker sends an [`EndpointAnswer`] or an [`ErrorAnswer`](super::ErrorAnswer) in one
//! line, and closes the connection.

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::Secret;

/// What the connection is upgraded to.
pub const ENDPOINT_PROTOCOL: &str = "arcbroker-endpoint/1";

/// The line that asks for the listener.
pub const READY: &str = "ready\n";

/// How long an endpoint is served: the parameter `lifetime`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Lifetime {
    /// As long as the process that asks, whatever it becomes.
    #[default]
    Process,
    /// As long as the process that started the one that asks.
    Parent,
    /// As long as anything runs in the unit of the process that asks.
    Unit,
}

impl Lifetime {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Process, Self::Parent, Self::Unit];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Parent => "parent",
            Self::Unit => "unit",
        }
    }

    /// The one with this word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|lifetime| lifetime.as_str() == word)
    }
}

impl fmt::Display for Lifetime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An endpoint that is served.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct EndpointAnswer {
    /// [`super::SCHEMA`].
    pub schema: u32,
    /// Where it is.
    pub address: SocketAddr,
    /// What every request must have: 64 hex digits.
    pub secret: Secret,
}
