//! Requests on an endpoint that do not come from the program that it was made for.

/// Why a request is not the program's own.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stray {
    /// It is addressed to another name: somebody's DNS leads here.
    Host,
    /// A browser sends it for a page.
    Browser,
    /// It has come through a proxy.
    Proxy,
    /// It does not have the secret.
    Secret,
    /// Another user sends it.
    User,
    /// Whoever sent it is gone.
    Gone,
}

/// A request that is not the program's own, and who sent it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Strayed {
    /// Why it is not.
    pub why: Stray,
    /// The user who sent it, where the kernel tells.
    pub uid: Option<u32>,
}

impl Stray {
    /// The word for it in an audit record.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Browser => "browser",
            Self::Proxy => "proxy",
            Self::Secret => "secret",
            Self::User => "user",
            Self::Gone => "gone",
        }
    }
}
