//! `arcbroker token`

use std::time::Duration;

use arcbroker_client::{AccessToken, Client, Error, TokenRequest, wire};
use serde::Serialize;
use tokio::time::Instant;

use crate::{
    args::{Format, Token},
    exit::{Exit, Failure},
    output,
};

pub(super) async fn run(client: &Client, args: &Token) -> Result<Exit, Failure> {
    let token = ask(client, &args.request(), args.wait)
        .await
        .map_err(Failure::Tokens)?;
    if let Some(wanted) = args.min_validity
        && token.expires_in < wanted
    {
        return Err(Failure::TooShort {
            left: token.expires_in,
            wanted,
        });
    }
    match args.format {
        Format::Json => output::print_json(&Document::new(&token))?,
        Format::Raw => output::print(&format!("{}\n", token.secret.reveal()))?,
    }
    Ok(Exit::OK)
}

/// Asks until there is a token, the broker says something final, or `wait` has passed. A call that
/// has begun is let end.
pub(super) async fn ask(
    client: &Client,
    request: &TokenRequest,
    wait: Duration,
) -> Result<AccessToken, Error> {
    let end = Instant::now() + wait;
    let mut pause = SHORTEST_PAUSE;
    loop {
        let error = match client.token(request.clone()).await {
            Err(error) if error.is_transient() => error,
            done => return done,
        };
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(error);
        }
        let wished = match error {
            Error::Unavailable { retry_after, .. } => retry_after,
            _ => None,
        };
        tokio::time::sleep(wished.unwrap_or(pause).min(left)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// The JSON for scripts: unlike the wire, with numbers as numbers.
#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    access_token: &'a str,
    /// Unix seconds.
    expires_on: u64,
    /// Seconds.
    expires_in: u64,
    resource: &'a str,
    token_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<&'a str>,
}

impl<'a> Document<'a> {
    fn new(token: &'a AccessToken) -> Self {
        Self {
            schema: wire::SCHEMA,
            access_token: token.secret.reveal(),
            expires_on: token.expires_on,
            expires_in: token.expires_in.as_secs(),
            resource: &token.resource,
            token_type: "Bearer",
            client_id: token.client_id.as_deref(),
        }
    }
}

const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
