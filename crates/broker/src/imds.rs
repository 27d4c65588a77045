//! A conversation with IMDS, the metadata service of an Azure VM: one question, one answer.
//!
//! There is no challenge and no key. The service is the host's, reached through a link-local
//! address that no router passes on.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;

use crate::dial::{Connector, DialError};
use crate::failure::Cause;
use crate::link::{Link, REMOTE};
use crate::owners::Owners;
use crate::token::Class;

/// The only address of IMDS.
pub const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254));

/// The version that brought tokens.
pub const API_VERSION: &str = "2018-02-01";

/// The version for documents: new enough to name the cloud, and older than `userData`, in which
/// people keep secrets.
pub const DOCUMENT_VERSION: &str = "2020-06-01";

/// How long it is not asked again for what it refused.
const REFUSED: Duration = Duration::from_secs(30);

/// Where IMDS is.
#[derive(Clone, Debug)]
pub struct Imds {
    /// [`ADDRESS`], or a stand-in on loopback.
    pub endpoint: SocketAddr,
    /// Who may hold an endpoint on loopback.
    pub owners: Owners,
}

impl Imds {
    /// A connection that is held by IMDS.
    ///
    /// On loopback, by one of the owners. At its own address there is nobody to ask about: the
    /// other end is a socket of no process of this machine. Only root could put one there.
    ///
    /// # Errors
    ///
    /// [`DialError`]; nobody was told anything then.
    pub async fn dial(&self, connector: &Connector) -> Result<Link, DialError> {
        if self.endpoint.ip().is_loopback() {
            Link::dial(connector, self.endpoint, &self.owners).await
        } else {
            Link::connect(connector, self.endpoint).await
        }
    }

    /// Asks for a token: the body of the 200.
    ///
    /// # Errors
    ///
    /// [`Cause`].
    pub async fn ask(&self, connector: &Connector, target: &str) -> Result<Bytes, Cause> {
        let mut link = self.dial(connector).await?;
        let answer = link.get(target, None, REMOTE).await?;
        if answer.status() == StatusCode::OK {
            return Ok(answer.into_body());
        }
        let mut cause = Cause::refusal(&answer);
        if let Cause::Status {
            class, retry_after, ..
        } = &mut cause
            && *class == Class::Refused
        {
            match answer.status() {
                // It never says so of what was asked for, but of itself: it is being updated, and
                // back soon.
                StatusCode::NOT_FOUND => *class = Class::Server,
                // "Do not try again", says its documentation.
                _ => *retry_after = retry_after.or(Some(REFUSED)),
            }
        }
        Err(cause)
    }
}
