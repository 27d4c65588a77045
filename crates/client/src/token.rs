//! A token: what to ask for, and what is got.

use std::{fmt::Write as _, time::Duration};

use sha2::{Digest, Sha256};

use crate::{
    Error, Secret,
    wire::{API_VERSION, MAX_RESOURCE, TokenAnswer, path},
};

/// What to ask for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TokenRequest {
    resource: String,
    identity: Identity,
    /// Hex digits of the SHA-256 of a token.
    refused: Option<String>,
}

impl TokenRequest {
    /// A token for `resource`, as the broker's default identity.
    ///
    /// `resource` is a URI, which is taken byte for byte (a slash at its end matters), or a short
    /// name such as `keyvault`, which the broker resolves. At most [`MAX_RESOURCE`] bytes.
    pub fn new(resource: impl Into<String>) -> Self {
        Self {
            resource: resource.into(),
            identity: Identity::Default,
            refused: None,
        }
    }

    /// Ask as this identity.
    #[must_use]
    pub fn with_identity(self, identity: Identity) -> Self {
        Self { identity, ..self }
    }

    /// Ask for another token than this one, which a resource has refused although it has not
    /// expired. The broker fetches a new one, once for all who hold the same.
    #[must_use]
    pub fn instead_of(self, refused: &AccessToken) -> Self {
        let digest = Sha256::digest(refused.secret.reveal().as_bytes());
        let hex = digest.iter().fold(String::new(), |mut hex, byte| {
            // Writing to a String cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        Self {
            refused: Some(hex),
            ..self
        }
    }

    /// Path and query.
    pub(crate) fn target(&self) -> Result<String, Error> {
        check(&self.resource)?;
        let mut target = format!("{}?api-version={API_VERSION}", path::TOKEN);
        push_parameter(&mut target, "resource", &self.resource);
        if let Some((key, value)) = self.identity.parameter() {
            if value.is_empty() || value.len() > MAX_SELECTOR {
                return Err(Error::bad_request("an identity has 1 to 1024 bytes"));
            }
            push_parameter(&mut target, key, value);
        }
        if let Some(refused) = &self.refused {
            push_parameter(&mut target, "token_sha256_to_refresh", refused);
        }
        Ok(target)
    }
}

/// Path and query of a command about the tokens for one resource, or about all.
pub(crate) fn command_target(path: &str, resource: Option<&str>) -> Result<String, Error> {
    let mut target = path.to_owned();
    if let Some(resource) = resource {
        check(resource)?;
        target.push_str("?resource=");
        push_encoded(&mut target, resource);
    }
    Ok(target)
}

fn check(resource: &str) -> Result<(), Error> {
    if resource.is_empty() {
        return Err(Error::bad_request("a resource is needed, such as keyvault"));
    }
    if resource.len() > MAX_RESOURCE {
        return Err(Error::bad_request("a resource has at most 256 bytes"));
    }
    Ok(())
}

impl From<&str> for TokenRequest {
    fn from(resource: &str) -> Self {
        Self::new(resource)
    }
}

impl From<String> for TokenRequest {
    fn from(resource: String) -> Self {
        Self::new(resource)
    }
}

/// Which managed identity of the machine to be.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Identity {
    /// The broker's default: the system-assigned one, unless its `[upstream] identity` names another.
    #[default]
    Default,
    /// The user-assigned one with this client id.
    ClientId(String),
    /// The user-assigned one with this object id.
    ObjectId(String),
    /// The user-assigned one with this Azure resource id.
    ResourceId(String),
}

impl Identity {
    /// HIMDS ignores `mi_res_id` and would answer as the system-assigned identity.
    fn parameter(&self) -> Option<(&'static str, &str)> {
        match self {
            Self::ClientId(id) => Some(("client_id", id)),
            Self::ObjectId(id) => Some(("object_id", id)),
            Self::ResourceId(id) => Some(("msi_res_id", id)),
            Self::Default => None,
        }
    }
}

/// An access token and how long it is good for.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct AccessToken {
    /// The token, for an `Authorization: Bearer` header; visible ASCII only.
    pub secret: Secret,
    /// When it expires, in Unix seconds.
    pub expires_on: u64,
    /// How long it was good for when the broker answered, by the stricter of the broker's clocks.
    pub expires_in: Duration,
    /// The resource it is for.
    pub resource: String,
    /// The client id of a user-assigned identity.
    pub client_id: Option<String>,
}

impl TryFrom<TokenAnswer> for AccessToken {
    type Error = Error;

    fn try_from(answer: TokenAnswer) -> Result<Self, Error> {
        if !answer.token_type.eq_ignore_ascii_case("bearer") {
            return Err(Error::Protocol("its token is not a bearer token"));
        }
        let secret = answer.access_token;
        if secret.reveal().is_empty() || !secret.reveal().bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Error::Protocol("its token cannot be put into a header"));
        }
        let seconds = |text: &str| {
            text.parse::<u64>()
                .map_err(|_| Error::Protocol("a time in it is not a number of seconds"))
        };
        Ok(Self {
            secret,
            expires_on: seconds(&answer.expires_on)?,
            expires_in: Duration::from_secs(seconds(&answer.expires_in)?),
            resource: answer.resource,
            client_id: answer.client_id,
        })
    }
}

fn push_parameter(target: &mut String, key: &str, value: &str) {
    target.push('&');
    target.push_str(key);
    target.push('=');
    push_encoded(target, value);
}

/// Percent-encodes all but the unreserved characters of RFC 3986.
pub(crate) fn push_encoded(target: &mut String, value: &str) {
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            target.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(target, "%{byte:02X}");
        }
    }
}

/// Bytes of the longest identity; Azure's resource ids stay below 600.
const MAX_SELECTOR: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const START: &str = "/metadata/identity/oauth2/token?api-version=2020-06-01";

    fn answer() -> TokenAnswer {
        TokenAnswer {
            access_token: Secret::from("MARKER".to_owned()),
            refresh_token: String::new(),
            expires_in: "3599".into(),
            not_before: String::new(),
            resource: "https://vault.azure.net".into(),
            token_type: "Bearer".into(),
            client_id: None,
            expires_on: "1700000000".into(),
        }
    }

    #[test]
    fn b20_a_refused_token_is_named_by_its_digest_and_not_sent() {
        let refused = AccessToken::try_from(TokenAnswer {
            access_token: Secret::from("test_token".to_owned()),
            ..answer()
        });
        let request = TokenRequest::new("arm").instead_of(&refused.unwrap());
        // The vector of Microsoft's specification.
        let digest = "cc0af97287543b65da2c7e1476426021826cab166f1e063ed012b855ff819656";
        assert_eq!(
            request.target().unwrap(),
            format!("{START}&resource=arm&token_sha256_to_refresh={digest}")
        );
    }

    #[test]
    fn a_resource_is_encoded_and_otherwise_left_alone() {
        for (resource, encoded) in [
            ("keyvault", "keyvault"),
            (
                "https://vault.azure.net/",
                "https%3A%2F%2Fvault.azure.net%2F",
            ),
            ("a b&c=d#ü\r\n", "a%20b%26c%3Dd%23%C3%BC%0D%0A"),
        ] {
            let target = TokenRequest::from(resource).target().unwrap();
            assert_eq!(target, format!("{START}&resource={encoded}"));
        }
    }

    #[test]
    fn an_identity_is_named_as_himds_knows_it() {
        for (identity, end) in [
            (Identity::Default, ""),
            (Identity::ClientId("c".into()), "&client_id=c"),
            (Identity::ObjectId("o".into()), "&object_id=o"),
            (Identity::ResourceId("/s/x".into()), "&msi_res_id=%2Fs%2Fx"),
        ] {
            let request = TokenRequest::new("arm").with_identity(identity);
            assert_eq!(
                request.target().unwrap(),
                format!("{START}&resource=arm{end}")
            );
        }
    }

    #[test]
    fn what_cannot_be_a_request_is_not_sent() {
        let long = TokenRequest::new("r".repeat(MAX_RESOURCE + 1));
        let nobody = TokenRequest::new("arm").with_identity(Identity::ClientId(String::new()));
        for request in [TokenRequest::new(""), long, nobody] {
            assert!(matches!(request.target(), Err(Error::BadRequest { .. })));
        }
        assert!(TokenRequest::new("r".repeat(MAX_RESOURCE)).target().is_ok());
    }

    #[test]
    fn a_token_is_taken_with_its_times_and_kept_out_of_debug() {
        let token = AccessToken::try_from(answer()).unwrap();
        assert_eq!(token.secret.reveal(), "MARKER");
        assert_eq!(token.expires_on, 1_700_000_000);
        assert_eq!(token.expires_in, Duration::from_secs(3599));
        assert!(!format!("{token:?}").contains("MARKER"));
    }

    #[test]
    fn what_cannot_be_a_bearer_token_is_refused() {
        let changes: [fn(&mut TokenAnswer); 5] = [
            |a| a.token_type = "pop".into(),
            |a| a.access_token = Secret::from(String::new()),
            |a| a.access_token = Secret::from("a\x1b[2Jb".to_owned()),
            |a| a.expires_on = "soon".into(),
            |a| a.expires_in = "-1".into(),
        ];
        for change in changes {
            let mut answer = answer();
            change(&mut answer);
            assert!(matches!(
                AccessToken::try_from(answer),
                Err(Error::Protocol(_))
            ));
        }
    }
}
