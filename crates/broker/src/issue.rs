//! What upstream's answer says: a token, or why there is none.

use arcbroker_client::Secret;
use arcbroker_policy::Identity;
use serde::{Deserialize, Deserializer};

use crate::token::{Issue, Key};

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
    #[error(
        "the answer does not confirm the identity that was asked for: the agent may be older than 1.66"
    )]
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

/// Reads a 200 answer to a request for `key` at `wall` Unix seconds.
///
/// # Errors
///
/// [`IssueError`] when it is not a token for exactly what was asked.
pub fn decode(body: &[u8], key: &Key, wall: u64) -> Result<Issue, IssueError> {
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
    if !answer.confirms(&key.identity) {
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
    /// An agent that does not know the selector silently gives the token of the machine.
    fn confirms(&self, identity: &Identity) -> bool {
        let echoes = |echo: &Option<String>, asked: &str| {
            echo.as_ref()
                .is_some_and(|echo| echo.eq_ignore_ascii_case(asked))
        };
        match identity {
            Identity::System => true,
            Identity::ClientId(id) => echoes(&self.client_id, &id.to_string()),
            Identity::ObjectId(id) => echoes(&self.object_id, &id.to_string()),
            Identity::ResourceId(id) => echoes(&self.msi_res_id, id.as_str()),
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
mod tests {
    use arcbroker_policy::{Cloud, Resource};
    use serde_json::{Value, json};

    use super::*;

    const WALL: u64 = 1_000;

    fn key(identity: Identity) -> Key {
        Key {
            identity,
            resource: Resource::parse("https://vault.azure.net", Cloud::Public).unwrap(),
        }
    }

    fn read(body: &Value) -> Result<Issue, IssueError> {
        decode(body.to_string().as_bytes(), &key(Identity::System), WALL)
    }

    fn good() -> Value {
        json!({
            "access_token": "a.token.of.twenty.bytes", "refresh_token": "", "expires_in": "85458",
            "expires_on": "90000", "not_before": "700", "resource": "https://vault.azure.net", "token_type": "Bearer",
        })
    }

    fn with(field: &str, value: Value) -> Value {
        let mut body = good();
        body[field] = value;
        body
    }

    fn without(fields: &[&str]) -> Value {
        let mut body = good();
        for field in fields {
            body.as_object_mut().unwrap().remove(*field);
        }
        body
    }

    #[test]
    fn what_himds_sends_is_read() {
        let issue = read(&good()).unwrap();
        assert_eq!(
            (
                issue.expires_on,
                issue.expires_in,
                issue.not_before.as_str()
            ),
            (90_000, Some(85_458), "700")
        );
    }

    #[test]
    fn u14_expires_on_counts_and_expires_in_stands_in() {
        assert_eq!(
            read(&without(&["expires_on"])).unwrap().expires_on,
            WALL + 85_458
        );
        assert_eq!(read(&without(&["expires_in"])).unwrap().expires_on, 90_000);
        assert!(matches!(
            read(&without(&["expires_in", "expires_on"])),
            Err(IssueError::NoExpiry)
        ));
    }

    #[test]
    fn u15_an_expiry_may_be_a_number_but_nothing_else() {
        assert_eq!(
            read(&with("expires_on", json!(90_000))).unwrap().expires_on,
            90_000
        );
        for bad in [
            json!("tomorrow"),
            json!("-1"),
            json!(-1),
            json!(1.5),
            json!("1e9"),
            json!(true),
            json!(["1"]),
        ] {
            assert!(read(&with("expires_on", bad.clone())).is_err(), "{bad}");
        }
    }

    #[test]
    fn old_agents_leave_fields_empty() {
        let issue = read(&with("not_before", json!(""))).unwrap();
        assert_eq!(issue.not_before, "");
        assert!(read(&with("resource", json!(""))).is_ok());
    }

    #[test]
    fn a_token_for_something_else_is_refused() {
        assert!(matches!(
            read(&with("resource", json!("https://vault.azure.net/"))),
            Err(IssueError::Resource)
        ));
        assert!(matches!(
            read(&with("token_type", json!("pop"))),
            Err(IssueError::Kind)
        ));
        for bad in [
            "",
            "short",
            "has a space in the middle",
            "has\u{e9}accents-in-the-middle",
            r#"has"quotes-in-the-middle"#,
        ] {
            assert!(
                matches!(
                    read(&with("access_token", json!(bad))),
                    Err(IssueError::Token)
                ),
                "{bad}"
            );
        }
    }

    #[test]
    fn u12_a_user_assigned_identity_must_be_confirmed() {
        let id = "11111111-2222-3333-4444-555555555555";
        let identity: Identity = format!("client-id:{id}").parse().unwrap();
        let read = |body: Value| decode(body.to_string().as_bytes(), &key(identity.clone()), WALL);
        assert!(matches!(read(good()), Err(IssueError::Identity)));
        assert!(matches!(
            read(with("client_id", json!("other"))),
            Err(IssueError::Identity)
        ));
        assert_eq!(
            read(with("client_id", json!(id)))
                .unwrap()
                .client_id
                .as_deref(),
            Some(id)
        );
    }

    #[test]
    fn u18_what_is_not_a_token_answer_is_refused_without_being_shown() {
        for body in [
            "",
            "MARKER",
            "[]",
            "{}",
            r#"{"access_token":7}"#,
            r#"{"access_token":"MARKER.MARKER.MARKER.MA"#,
        ] {
            let error = decode(body.as_bytes(), &key(Identity::System), WALL).unwrap_err();
            assert!(
                !format!("{error} {error:?}").contains("MARKER"),
                "{error:?}"
            );
        }
        let twice = r#"{"access_token":"a.token.of.twenty.bytes","access_token":"another.token.of.twenty.b","expires_in":"9"}"#;
        assert!(decode(twice.as_bytes(), &key(Identity::System), WALL).is_err());
    }

    #[test]
    fn a_complaint_is_short_and_printable_in_every_dialect() {
        let himds =
            Complaint::decode(br#"{"error":"identity_not_found","error_description":"no\nsuch"}"#);
        assert_eq!(himds.code, "identity_not_found");
        assert_eq!(himds.words, "identity_not_found: no?such");
        assert_eq!(Complaint::decode(br#"{"message":"m"}"#).words, "m");
        let both = Complaint::decode(br#"{"error":"e","error_description":"d","message":"m"}"#);
        assert_eq!(both.words, "e: d");
        assert_eq!(Complaint::decode(b"<html>"), Complaint::default());
        let long = json!({ "error": "x".repeat(500) }).to_string();
        assert_eq!(Complaint::decode(long.as_bytes()).words.len(), MAX_WORDS);
    }
}
