//! A conversation with HIMDS: make sure who it is, ask, be challenged, read the key, ask again.
//!
//! The order matters. Who holds the port is known before anything is sent or believed, and once
//! more before a key file is opened; every attempt has a challenge of its own, because a key is
//! used once.

use std::net::SocketAddr;

use bytes::Bytes;
use hyper::StatusCode;

use crate::challenge::KeyFiles;
use crate::dial::{Connector, DialError};
use crate::failure::Cause;
use crate::link::{LOCAL, Link, REMOTE};
use crate::owners::Owners;

/// The one api-version that every agent in use knows, for tokens and for documents.
pub const API_VERSION: &str = "2020-06-01";

/// Where HIMDS is and what is believed of it.
#[derive(Clone, Debug)]
pub struct Himds {
    /// Its address: always loopback.
    pub endpoint: SocketAddr,
    /// Who may hold the endpoint.
    pub owners: Owners,
    /// Where it puts key files.
    pub keys: KeyFiles,
}

impl Himds {
    /// A connection that is held by HIMDS.
    ///
    /// # Errors
    ///
    /// [`DialError`]; nobody was told anything then.
    pub async fn dial(&self, connector: &Connector) -> Result<Link, DialError> {
        Link::dial(connector, self.endpoint, &self.owners).await
    }

    /// Asks for a token: the body of the 200.
    ///
    /// # Errors
    ///
    /// [`Cause`].
    pub async fn ask(&self, connector: &Connector, target: &str) -> Result<Bytes, Cause> {
        let mut link = self.dial(connector).await?;
        let challenge = link.get(target, None, LOCAL).await?;
        match challenge.status() {
            StatusCode::UNAUTHORIZED => {}
            StatusCode::OK => return Err(Cause::Unchallenged),
            _ => return Err(Cause::refusal(&challenge)),
        }
        let (mut link, is_another) = self.attested(connector, link).await?;
        let authorization = self.keys.read(&self.keys.locate(challenge.headers())?)?;
        let answer = match link.get(target, Some(&authorization), REMOTE).await {
            // Closed after the challenge, and noticed just now: the key has not left, and is good.
            Err(DialError::Closed(_)) if !is_another => {
                let mut link = self.dial(connector).await?;
                link.get(target, Some(&authorization), REMOTE).await?
            }
            answered => answered?,
        };
        match answer.status() {
            StatusCode::OK => Ok(answer.into_body()),
            StatusCode::UNAUTHORIZED => Err(Cause::StaleKey),
            _ => Err(Cause::refusal(&answer)),
        }
    }

    /// A connection that is held by HIMDS at this moment: the same one, unless it has been closed.
    /// Whether it is another is said, because one attempt makes two connections at most.
    async fn attested(
        &self,
        connector: &Connector,
        mut link: Link,
    ) -> Result<(Link, bool), DialError> {
        if link.attest(&self.owners)? && link.is_open().await {
            return Ok((link, false));
        }
        Ok((self.dial(connector).await?, true))
    }
}
