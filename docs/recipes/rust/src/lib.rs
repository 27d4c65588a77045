//! What the recipes share: requests to a service with a token of the broker.

use std::error::Error;

use arcbroker_client::{AccessToken, blocking::Client};
use ureq::{
    Agent,
    tls::{RootCerts, TlsConfig},
};

pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A token for a resource, a URI or a short name. Ask each time: the broker caches and refreshes.
pub fn token(resource: &str) -> Result<AccessToken> {
    Ok(Client::from_env()?.token(resource)?)
}

/// The value of the `Authorization` header.
pub fn bearer(resource: &str) -> Result<String> {
    Ok(format!("Bearer {}", token(resource)?.secret.reveal()))
}

/// A client of https that goes through the proxy that the environment names, if any.
pub fn agent() -> Agent {
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::PlatformVerifier)
        .build();
    Agent::config_builder().tls_config(tls).build().into()
}

/// `N` arguments of the program.
pub fn arguments<const N: usize>(usage: &str) -> Result<[String; N]> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    words
        .try_into()
        .map_err(|_| format!("usage: {usage}").into())
}
