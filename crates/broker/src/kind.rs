//! Which service gives the tokens: its name, and what it lets be asked of it.

use std::fmt;

/// A service on the machine that gives tokens.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// The Azure Arc agent's, on loopback, with a challenge.
    Himds,
    /// That of an Azure VM's host, without one.
    Imds,
}

impl Kind {
    /// As the configuration and `status` write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Himds => "himds",
            Self::Imds => "imds",
        }
    }

    /// Conversations at one time. What HIMDS bears is not documented, and two leave room for
    /// others; IMDS answers 429 to the sixth.
    pub fn conversations(self) -> usize {
        match self {
            Self::Himds => 2,
            Self::Imds => 5,
        }
    }

    /// Requests for tokens in a second, where the service has a limit: above it, it answers 429.
    pub fn most_per_second(self) -> Option<u32> {
        match self {
            Self::Himds => None,
            Self::Imds => Some(20),
        }
    }
}

/// As messages and documents write it.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Himds => "HIMDS",
            Self::Imds => "IMDS",
        })
    }
}
