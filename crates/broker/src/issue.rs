//! What upstream's answer says: a token, or why there is none.

use arcbroker_client::Secret;
use arcbroker_policy::Identity;
use serde::{Deserialize, Deserializer};

use crate::kind::Kind;
use crate::token::{Claims, Issue, Key};

/// Bytes of a token: shorter is none, longer is not one of Entra's.
const TOKEN_SIZE: std::ops::RangeInclusive<usize> = 20..=16 * 1024;
/// Bytes of upstream's own words that are passed on.
const MAX_WORDS: usize = 200;

/// Why a 200 is no token. No variant carries text of the answer.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// Not a JSON object with an `access_token`.
    #[error("the answer is not JSON with the fields of a token (line {line}, column {column})")]
    Json {
        /// Where in the answer.
        line: usize,
        /// Where in the line.
        column: usize,
    },
    /// Not the text of a token.
    #[error("`access_token` is not 20 to 16384 bytes of visible ASCII")]
    Token,
    /// Not a bearer token.
    #[error("`token_type` is not Bearer")]
    Kind,
    /// Neither expiry.
    #[error("the answer has neither `expires_on` nor `expires_in`")]
    NoExpiry,
    /// A token for something else.
    #[error("the answer is for another resource than was asked for")]
    Resource,
    /// A token of somebody else.
    #[error("the answer does not confirm the identity that was asked for")]
    Identity,
}

/// The fields that we use. Anything may be a string or a number; extra fields are ignored.
#[derive(Deserialize)]
struct Answer {
    access_token: Secret,
    #[serde(default, deserialize_with = "seconds")]
    expires_on: Option<u64>,
    #[serde(default, deserialize_with = "seconds")]
    expires_in: Option<u64>,
    #[serde(default, deserialize_with = "seconds")]
    not_before: Option<u64>,
    #[serde(default)]
    resource: Option<String>,
    #[serde(default)]
    token_type: Option<String>,
    #[serde(default)]
    client_id: Option<String>,
    #[serde(default)]
    object_id: Option<String>,
    #[serde(default)]
    msi_res_id: Option<String>,
}

/// Reads a 200 answer of `kind` to a request for `key` at `wall` Unix seconds.
///
/// # Errors
///
/// [`IssueError`] when it is not a token for exactly what was asked.
pub fn decode(body: &[u8], key: &Key, kind: Kind, wall: u64) -> Result<Issue, IssueError> {
    let answer: Answer = serde_json::from_slice(body).map_err(|error| IssueError::Json {
        line: error.line(),
        column: error.column(),
    })?;
    let token = answer.access_token.reveal();
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
    if !TOKEN_SIZE.contains(&token.len()) || !token.bytes().all(plain) {
        return Err(IssueError::Token);
    }
    if answer
        .token_type
        .as_ref()
        .is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer"))
    {
        return Err(IssueError::Kind);
    }
    // Agents of 2020 left it empty.
    if answer
        .resource
        .as_ref()
        .is_some_and(|echo| !echo.is_empty() && echo != key.resource.as_str())
    {
        return Err(IssueError::Resource);
    }
    if !answer.confirms(&key.identity, kind) {
        return Err(IssueError::Identity);
    }
    let relative = || {
        answer
            .expires_in
            .and_then(|seconds| wall.checked_add(seconds))
    };
    let expires_on = answer
        .expires_on
        .or_else(relative)
        .ok_or(IssueError::NoExpiry)?;
    Ok(Issue {
        access_token: answer.access_token,
        expires_on,
        expires_in: answer.expires_in,
        not_before: answer
            .not_before
            .map(|seconds| seconds.to_string())
            .unwrap_or_default(),
        client_id: answer.client_id,
    })
}

impl Answer {
    /// Whether it is for the identity that was asked for.
    ///
    /// An agent that does not know the selector silently gives the token of the machine: what
    /// HIMDS does not echo, it has not understood. IMDS refuses what it does not understand, but
    /// is not known to echo each selector; where it is silent, the token itself must name the
    /// identity. That needs no trust in the token: whoever could forge it could forge the echo.
    fn confirms(&self, identity: &Identity, kind: Kind) -> bool {
        let claims = || match kind {
            Kind::Himds => Claims::default(),
            Kind::Imds => Claims::peek(self.access_token.reveal()),
        };
        let names = |echo: &Option<String>, claim: fn(Claims) -> Option<String>, asked: &str| {
            let echo = echo.clone().filter(|echo| !echo.is_empty());
            echo.or_else(|| claim(claims()))
                .is_some_and(|named| named.eq_ignore_ascii_case(asked))
        };
        match identity {
            Identity::System => true,
            Identity::ClientId(id) => {
                names(&self.client_id, |claims| claims.appid, &id.to_string())
            }
            Identity::ObjectId(id) => names(&self.object_id, |claims| claims.oid, &id.to_string()),
            Identity::ResourceId(id) => {
                names(&self.msi_res_id, |claims| claims.xms_mirid, id.as_str())
            }
        }
    }
}

/// What upstream says of a failure, in any of its dialects, fit to be passed on: printable, short.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Complaint {
    /// Its `error`.
    pub code: String,
    /// Its `error` and description together.
    pub words: String,
}

impl Complaint {
    /// Reads an error body; one that is not understood says nothing.
    pub fn decode(body: &[u8]) -> Self {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Body {
            error: String,
            error_description: String,
            message: String,
        }
        let body: Body = serde_json::from_slice(body).unwrap_or_default();
        let description = if body.error_description.is_empty() {
            &body.message
        } else {
            &body.error_description
        };
        let words = [&body.error, description].map(|text| printable(text));
        let words = words
            .iter()
            .filter(|text| !text.is_empty())
            .map(String::as_str)
            .collect::<Vec<_>>();
        Self {
            words: printable(&words.join(": ")),
            code: body.error,
        }
    }
}

fn printable(text: &str) -> String {
    let visible = |c: char| {
        if c.is_ascii_graphic() || c == ' ' {
            c
        } else {
            '?'
        }
    };
    text.chars().take(MAX_WORDS).map(visible).collect()
}

/// Whole seconds as a number or a string of digits; an empty string is nothing.
fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Seconds {
        Number(u64),
        Text(String),
    }
    match Option::<Seconds>::deserialize(deserializer)? {
        None => Ok(None),
        Some(Seconds::Number(seconds)) => Ok(Some(seconds)),
        Some(Seconds::Text(text)) if text.is_empty() => Ok(None),
        Some(Seconds::Text(text)) => {
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            let seconds = digits.then(|| text.parse().ok()).flatten();
            seconds
                .map(Some)
                .ok_or_else(|| serde::de::Error::custom("not whole seconds"))
        }
    }
}

#[cfg(test)]
mod tests;
