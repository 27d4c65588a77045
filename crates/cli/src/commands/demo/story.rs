//! What the demo tells while it goes on.

use std::{fs, path::Path, time::Duration};

use arcbroker_client::{AccessToken, Client, Error, TokenRequest};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::Value;

use super::{Stage, services::Programs};
use crate::{
    clock,
    commands::{status, token},
    duration::human,
    exit::Failure,
    output::Page,
};

pub(super) fn simulator(stage: &Stage, himds: &str) -> Result<(), Failure> {
    Page::new()
        .line("1. A simulator of HIMDS stands in for the Azure Arc agent.")
        .field("   address", himds)
        .field("   keys", &shown(&stage.challenge_keys()))
        .print()
}

pub(super) fn broker(stage: &Stage) -> Result<(), Failure> {
    Page::new()
        .blank()
        .line("2. A broker, as it ships, with a rule for you: storage, keyvault and arm.")
        .field("   socket", &shown(&stage.token_socket()))
        .field("   policy", &shown(&stage.rules()))
        .print()
}

pub(super) async fn tokens(client: &Client) -> Result<(), Failure> {
    let request = TokenRequest::new("keyvault");
    // The broker is up before HIMDS has answered it.
    let token = token::ask(client, &request, Duration::from_secs(10))
        .await
        .map_err(Failure::Tokens)?;
    let mut page = Page::new();
    page.blank()
        .line("3. A token for keyvault: the broker answered the challenge of HIMDS for you.");
    describe(&mut page, &token);
    page.blank()
        .line("4. A token for graph, which no rule allows:");
    match client.token("graph").await {
        Err(Error::Denied { description, .. }) => page.field("   denied", &description),
        Err(error) => return Err(Failure::Tokens(error)),
        Ok(_) => page.line("   the broker gave one. This should not have happened."),
    };
    page.print()
}

pub(super) async fn status(client: &Client) -> Result<(), Failure> {
    let answer = client.status().await.map_err(Failure::Command)?;
    let mut page = Page::new();
    page.blank()
        .line("5. What an administrator sees with arcbroker status:")
        .blank();
    status::fill(&mut page, &answer, clock::now());
    page.print()
}

pub(super) fn audit(stage: &Stage) -> Result<(), Failure> {
    let path = stage.audit_log();
    let log = fs::read_to_string(&path).map_err(|source| super::Error::Stage { path, source })?;
    let mut page = Page::new();
    page.blank()
        .line("6. What the audit log has: a line for each decision, and never a token.")
        .blank();
    for line in log.lines() {
        page.line(line);
    }
    page.print()
}

pub(super) fn things_to_try(stage: &Stage, programs: &Programs) -> Result<(), Failure> {
    let arcbroker = quoted(&programs.arcbroker);
    let (tokens, admin) = (quoted(&stage.token_socket()), quoted(&stage.admin_socket()));
    Page::new()
        .blank()
        .line("Try in another terminal; Ctrl-C here ends everything and removes the directory.")
        .blank()
        .line(&format!(
            "curl -sS --unix-socket {tokens} -H Metadata:true 'http://localhost/metadata/identity/oauth2/token?api-version=2020-06-01&resource=https%3A%2F%2Fvault.azure.net'"
        ))
        .line(&format!("{arcbroker} --socket {tokens} token keyvault"))
        .line(&format!("{arcbroker} --socket {tokens} whoami"))
        .line(&format!("{arcbroker} --admin-socket {admin} status"))
        .print()
}

/// Enough to see that there is a token, too little to use it.
fn describe(page: &mut Page, token: &AccessToken) {
    let secret = token.secret.reveal();
    let start: String = secret.chars().take(10).collect();
    page.field(
        "   token",
        &format!("{start}… ({} characters)", secret.len()),
    )
    .field("   for", &token.resource)
    .field(
        "   expires",
        &format!("in {}", human(token.expires_in.as_secs())),
    );
    for (name, label) in [("aud", "   aud"), ("oid", "   oid")] {
        if let Some(value) = claim(secret, name) {
            page.field(label, &value);
        }
    }
}

/// A claim of a JSON Web Token whose signature nobody checks: for display only.
fn claim(token: &str, name: &str) -> Option<String> {
    let payload = token.split('.').nth(1)?;
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(payload).ok()?;
    let claims: Value = serde_json::from_slice(&bytes).ok()?;
    Some(claims.get(name)?.as_str()?.to_owned())
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// For a shell.
fn quoted(path: &Path) -> String {
    let path = shown(path);
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    if path.chars().all(plain) {
        return path;
    }
    format!("'{}'", path.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_read_where_there_are_any() {
        let payload = BASE64_URL_SAFE_NO_PAD.encode(r#"{"aud":"https://vault.azure.net","iat":1}"#);
        let token = format!("e30.{payload}.sig");
        assert_eq!(
            claim(&token, "aud").as_deref(),
            Some("https://vault.azure.net")
        );
        for (token, name) in [
            (token.as_str(), "oid"),
            (&token, "iat"),
            ("opaque", "aud"),
            ("a.!.b", "aud"),
        ] {
            assert_eq!(claim(token, name), None);
        }
    }

    #[test]
    fn a_path_is_one_word_of_a_shell() {
        assert_eq!(
            quoted(Path::new("/tmp/arcbroker-demo-x/run/token.sock")),
            "/tmp/arcbroker-demo-x/run/token.sock"
        );
        assert_eq!(quoted(Path::new("/a b/it's")), r"'/a b/it'\''s'");
    }
}
