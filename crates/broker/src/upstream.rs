//! Where tokens come from: HIMDS or IMDS, whichever this machine has.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use arcbroker_policy::Identity;
use bytes::Bytes;
use hyper::StatusCode;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::time::timeout;

use crate::clock::Clock;
use crate::detect::{self, Choice};
use crate::dial::{Connector, DialError};
use crate::failure::{Cause, Failure};
use crate::himds::{self, Himds};
use crate::imds::{self, Imds};
use crate::issue::decode;
use crate::kind::Kind;
use crate::link::{LOCAL, Link};
use crate::lock::lock;
use crate::token::{AccessToken, FetchError, Key, TokenSource, Wanted};
use crate::window::{Pass, Window};

const TOKEN: &str = "/metadata/identity/oauth2/token";

/// How long it may take to find out who holds HIMDS's port, where nothing else tells that there is
/// an agent.
const LOOK: Duration = Duration::from_secs(1);

/// All but the unreserved characters of RFC 3986.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Where tokens come from.
#[derive(Clone, Debug)]
pub struct Options {
    /// The kind, as far as it is known.
    pub choice: Choice,
    /// Below which signs of a kind are looked for.
    pub root: PathBuf,
    /// HIMDS.
    pub himds: Himds,
    /// IMDS.
    pub imds: Imds,
}

/// The one of them that this machine has, through whatever makes connections to it.
#[derive(Debug)]
pub struct Upstream {
    options: Options,
    connector: Connector,
    clock: Clock,
    choice: Mutex<Choice>,
    /// What IMDS counts.
    window: Window,
    record: Mutex<Record>,
}

/// How it went so far.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Unix seconds.
    pub last_success_at: Option<u64>,
    /// Unix seconds, and what happened.
    pub last_failure: Option<(u64, String)>,
    /// Attempts to get a token.
    pub token_requests: u64,
}

impl Options {
    /// Looks for signs of a kind, unless one has been found or was configured.
    pub async fn decide(&mut self, connector: &Connector) {
        if !self.choice.is_settled() {
            self.choice = self.look(connector).await;
        }
    }

    /// Where tokens come from, as one name: what comes from elsewhere is somebody else's.
    pub fn source(&self) -> String {
        let (himds, imds) = (self.himds.endpoint, self.imds.endpoint);
        format!("{} of {himds} and {imds}", self.choice.kind.as_str())
    }

    async fn look(&self, connector: &Connector) -> Choice {
        let is_held = async {
            let dialled = timeout(LOOK, self.himds.dial(connector)).await;
            dialled.is_ok_and(|dialled| dialled.is_ok())
        };
        detect::choose(&self.root, self.himds.endpoint, is_held).await
    }
}

impl Upstream {
    /// [`Options::source`].
    pub fn source(&self) -> String {
        self.options.source()
    }

    /// Nothing is sent until something is asked for.
    pub fn new(options: Options, connector: Connector, clock: Clock) -> Self {
        let per_second = Kind::Imds.most_per_second().unwrap_or(u32::MAX);
        Self {
            choice: Mutex::new(options.choice.clone()),
            options,
            connector,
            clock,
            window: Window::new(per_second),
            record: Mutex::default(),
        }
    }

    /// The kind that is asked, and why it is this one.
    pub fn choice(&self) -> Choice {
        lock(&self.choice).clone()
    }

    /// The kind that is asked.
    pub fn kind(&self) -> Kind {
        lock(&self.choice).kind
    }

    /// Its address.
    pub fn endpoint(&self) -> SocketAddr {
        match self.kind() {
            Kind::Himds => self.options.himds.endpoint,
            Kind::Imds => self.options.imds.endpoint,
        }
    }

    /// Looks for signs again, where none was found and nothing has ever answered: the agent may
    /// have been installed meanwhile, or come up.
    pub async fn look_again(&self) {
        if self.choice().is_settled() || self.record().last_success_at.is_some() {
            return;
        }
        let choice = self.options.look(&self.connector).await;
        if choice.is_settled() {
            tracing::info!(kind = choice.kind.as_str(), reason = %choice.reason, "it is known now where tokens come from");
            *lock(&self.choice) = choice;
        }
    }

    /// How it went so far.
    pub fn record(&self) -> Record {
        self.with_record(|record| record.clone())
    }

    /// A document about the machine, which needs no key.
    ///
    /// # Errors
    ///
    /// As for a token; the owner of the socket is checked here as well.
    pub async fn document(&self, path: &str) -> Result<Bytes, FetchError> {
        let kind = self.kind();
        let version = match kind {
            Kind::Himds => himds::API_VERSION,
            Kind::Imds => imds::DOCUMENT_VERSION,
        };
        let result = async {
            let _pass = self.pass(kind).await;
            let mut link = self.dial(kind).await?;
            let target = format!("{path}?api-version={version}");
            let answer = link.get(&target, None, LOCAL).await?;
            match answer.status() {
                StatusCode::OK => Ok(answer.into_body()),
                _ => Err(Cause::refusal(&answer)),
            }
        };
        self.note(kind, result.await)
    }

    async fn dial(&self, kind: Kind) -> Result<Link, DialError> {
        match kind {
            Kind::Himds => self.options.himds.dial(&self.connector).await,
            Kind::Imds => self.options.imds.dial(&self.connector).await,
        }
    }

    async fn converse(&self, kind: Kind, wanted: &Wanted) -> Result<AccessToken, Cause> {
        let _pass = self.pass(kind).await;
        self.with_record(|record| record.token_requests += 1);
        let target = target(kind, wanted);
        let body = match kind {
            Kind::Himds => self.options.himds.ask(&self.connector, &target).await?,
            Kind::Imds => self.options.imds.ask(&self.connector, &target).await?,
        };
        self.accept(kind, &body, &wanted.key)
    }

    /// Waits where every request counts.
    async fn pass(&self, kind: Kind) -> Option<Pass<'_>> {
        match kind {
            Kind::Himds => None,
            Kind::Imds => Some(self.window.pass().await),
        }
    }

    fn accept(&self, kind: Kind, body: &[u8], key: &Key) -> Result<AccessToken, Cause> {
        let now = self.clock.now();
        let issue = decode(body, key, kind, now.wall.as_secs())?;
        let token = AccessToken::new(&issue, &key.resource, now).ok_or(Cause::Expired)?;
        // Only a sign that something is odd: the token is the resource's to judge, not ours.
        if token
            .claims()
            .aud
            .as_ref()
            .is_some_and(|aud| aud != key.resource.as_str())
        {
            tracing::warn!(resource = %key.resource, "the audience of the token is not the resource that was asked for");
        }
        Ok(token)
    }

    fn note<T>(&self, kind: Kind, result: Result<T, Cause>) -> Result<T, FetchError> {
        let now = self.clock.now();
        let result = result.map_err(|cause| Failure { kind, cause });
        self.with_record(|record| match &result {
            Ok(_) => record.last_success_at = Some(now.wall.as_secs()),
            Err(failure) => record.last_failure = Some((now.wall.as_secs(), failure.to_string())),
        });
        result.map_err(FetchError::from)
    }

    fn with_record<T>(&self, f: impl FnOnce(&mut Record) -> T) -> T {
        f(&mut lock(&self.record))
    }
}

impl TokenSource for Upstream {
    async fn fetch(&self, wanted: &Wanted) -> Result<AccessToken, FetchError> {
        let kind = self.kind();
        self.note(kind, self.converse(kind, wanted).await)
    }
}

/// Path and query of a token request. HIMDS ignores `mi_res_id` in silence, so that a resource id
/// always goes as `msi_res_id`, which both kinds know.
fn target(kind: Kind, Wanted { key, bypass }: &Wanted) -> String {
    let version = match kind {
        Kind::Himds => himds::API_VERSION,
        Kind::Imds => imds::API_VERSION,
    };
    let encode = |text: &str| utf8_percent_encode(text, ESCAPED).to_string();
    let selector = match &key.identity {
        Identity::System => String::new(),
        Identity::ClientId(id) => format!("&client_id={}", encode(&id.to_string())),
        Identity::ObjectId(id) => format!("&object_id={}", encode(&id.to_string())),
        Identity::ResourceId(id) => format!("&msi_res_id={}", encode(id.as_str())),
    };
    let bypass = if *bypass { "&bypass_cache=true" } else { "" };
    format!(
        "{TOKEN}?api-version={version}&resource={}{selector}{bypass}",
        encode(key.resource.as_str())
    )
}

#[cfg(test)]
mod tests;
