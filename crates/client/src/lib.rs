//! Access tokens from the arcbroker daemon, over its Unix socket.
//!
//! On a server enabled for Azure Arc, `arcbrokerd` keeps one fresh token for each resource and hands
//! it to the local processes that its policy allows. This crate asks for one: [`Client`] in async
//! code on tokio, [`blocking::Client`] everywhere else.
//!
//! # A complete program
//!
//! ```no_run
//! use arcbroker_client::{Client, Error, Identity, TokenRequest};
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> Result<(), Error> {
//!     // $ARCBROKER_SOCKET, or /run/arcbroker/token.sock.
//!     let client = Client::from_env()?;
//!
//!     // Ask each time a token is needed: the broker caches and refreshes, so that you need not.
//!     match client.token("https://vault.azure.net").await {
//!         Ok(token) => send_request(token.secret.reveal()),
//!         Err(Error::Denied { description, .. }) => eprintln!("ask the administrator: {description}"),
//!         Err(error) if error.is_transient() => eprintln!("try again soon: {error}"),
//!         Err(error) => return Err(error),
//!     }
//!
//!     // As another identity of the machine.
//!     let identity = Identity::ClientId("00001111-aaaa-2222-bbbb-3333cccc4444".to_owned());
//!     let token = client.token(TokenRequest::new("storage").with_identity(identity)).await?;
//!     println!("good for {} s", token.expires_in.as_secs());
//!     Ok(())
//! }
//!
//! fn send_request(_bearer: &str) {}
//! ```
//!
//! The same without async:
//!
//! ```no_run
//! # fn main() -> Result<(), arcbroker_client::Error> {
//! let client = arcbroker_client::blocking::Client::from_env()?;
//! let token = client.token("keyvault")?;
//! # drop(token); Ok(()) }
//! ```
//!
//! # What it guarantees
//!
//! - Before a request is sent, the owner of the socket's server is asked of the kernel. Only root,
//!   the user of this process, and the user named by `ARCBROKER_SOCKET_OWNER` are believed, so that
//!   nobody else can hand out tokens of his own making.
//! - Every call ends within its deadline, and reads at most [`wire::MAX_ANSWER`] bytes.
//! - A connection that the broker closed before it answered, as in a restart, costs one new
//!   connection and no error.
//! - A token is never part of an [`Error`] or of a `Debug` output.
//!
//! # Features
//!
//! `transport` (default) is everything above. Without it only [`wire`] and [`Secret`] are left, and with `chain`
//! the digest that links audit records.

#![forbid(unsafe_code)]

#[cfg(feature = "chain")]
pub mod chain;
pub mod secret;
pub mod wire;

#[cfg(feature = "transport")]
mod admin;
#[cfg(feature = "transport")]
pub mod blocking;
#[cfg(feature = "transport")]
mod client;
#[cfg(feature = "transport")]
mod connect;
#[cfg(feature = "transport")]
mod endpoint;
#[cfg(feature = "transport")]
mod error;
#[cfg(feature = "transport")]
mod token;
#[cfg(feature = "transport")]
mod transport;

pub use secret::Secret;

#[cfg(feature = "transport")]
pub use {
    admin::Case,
    client::{ADMIN_SOCKET_VARIABLE, Client, DEFAULT_DEADLINE, SOCKET_VARIABLE},
    connect::{OWNER_VARIABLE, Owner},
    error::Error,
    token::{AccessToken, Identity, TokenRequest},
};
