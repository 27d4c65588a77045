//! Resources: what a token is for, compared byte by byte.

use std::{fmt, sync::Arc};

use crate::{
    Cloud, Guid,
    cloud::WellKnown,
    escape::{excerpt, visible},
    spelling::closest,
};

/// Bytes of the longest resource.
pub const MAX_RESOURCE: usize = 256;

/// The resource that a token is requested for: the `resource` parameter of the metadata services.
///
/// At most [`MAX_RESOURCE`] bytes of visible ASCII, with a scheme or in the form of a GUID. Nothing
/// is normalised, because the text is copied into the token: `https://vault.azure.net` and
/// `https://vault.azure.net/` are two resources.
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Resource(Arc<str>);

/// The text is not a resource.
///
/// Printed as what is wrong and what to write instead, in visible ASCII.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ResourceError {
    /// There is no text.
    Empty,
    /// More bytes than [`MAX_RESOURCE`].
    TooLong(usize),
    /// A character that is not visible ASCII.
    Character(char),
    /// A scope of the v2 endpoints; `resource` is the one that it belongs to.
    Scope {
        /// What was written.
        scope: String,
        /// What to write.
        resource: String,
    },
    /// Something like a host name.
    NoScheme(String),
    /// A word that is no well-known name.
    UnknownName(String),
    /// A well-known name that stands for nothing in this cloud.
    NotInCloud(&'static str, Cloud),
}

impl Resource {
    /// A resource in full, or a well-known name that stands for one in `cloud`.
    pub fn parse(text: &str, cloud: Cloud) -> Result<Self, ResourceError> {
        let Some(known) = WellKnown::named(text) else {
            return Self::exact(text);
        };
        let uri = known
            .uri(cloud)
            .ok_or(ResourceError::NotInCloud(known.name, cloud))?;
        Ok(Self(uri.into()))
    }

    /// A resource in full; well-known names are refused.
    pub fn exact(text: &str) -> Result<Self, ResourceError> {
        if text.is_empty() {
            return Err(ResourceError::Empty);
        }
        if text.len() > MAX_RESOURCE {
            return Err(ResourceError::TooLong(text.len()));
        }
        if let Some(bad) = text.chars().find(|character| !character.is_ascii_graphic()) {
            return Err(ResourceError::Character(bad));
        }
        if let Some(resource) = text
            .strip_suffix("/.default")
            .filter(|resource| !resource.is_empty())
        {
            return Err(ResourceError::Scope {
                scope: text.to_owned(),
                resource: resource.to_owned(),
            });
        }
        if has_scheme(text) || text.parse::<Guid>().is_ok() {
            return Ok(Self(text.into()));
        }
        let is_word = text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'*'));
        Err(if is_word {
            ResourceError::UnknownName(text.to_owned())
        } else {
            ResourceError::NoScheme(text.to_owned())
        })
    }

    /// A resource that no service has.
    pub(crate) fn numbered(number: usize) -> Self {
        Self(format!("urn:arcbroker:{number}").into())
    }

    /// The resource as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A dot is left out of the characters of a scheme, so that `vault.azure.net:443` is no resource.
fn has_scheme(text: &str) -> bool {
    text.split_once(':').is_some_and(|(scheme, rest)| {
        scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-'))
            && !matches!(rest, "" | "/" | "//")
    })
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl ResourceError {
    /// What is wrong.
    pub fn problem(&self) -> String {
        match self {
            Self::Empty => "the resource is empty".to_owned(),
            Self::TooLong(bytes) => {
                format!("the resource has {bytes} bytes, more than {MAX_RESOURCE}")
            }
            Self::Character(bad) => format!(
                "a resource does not contain `{}`",
                visible(&bad.to_string())
            ),
            Self::Scope { scope, .. } => format!("`{}` is a scope, not a resource", excerpt(scope)),
            Self::NoScheme(text) => format!("`{}` has no scheme", excerpt(text)),
            Self::UnknownName(name) => {
                format!("no well-known resource is named `{}`", excerpt(name))
            }
            Self::NotInCloud(name, cloud) => format!("`{name}` is not known in {cloud}"),
        }
    }

    /// What to write instead.
    pub fn help(&self) -> String {
        match self {
            Self::Empty => {
                "write one like https://vault.azure.net, or a name like keyvault".to_owned()
            }
            Self::TooLong(_) => "write the resource alone, not an address below it".to_owned(),
            Self::Character(_) => {
                "only visible ASCII characters are allowed, and no spaces".to_owned()
            }
            Self::Scope { resource, .. } => {
                let slash = if resource.ends_with('/') {
                    ": the slash before it belongs to the resource"
                } else {
                    ""
                };
                format!("drop the /.default and write {}{slash}", excerpt(resource))
            }
            Self::NoScheme(text) => format!("write https://{}", excerpt(text)),
            Self::UnknownName(name) => {
                let names: Vec<&str> = WellKnown::names().collect();
                let close = closest(name, &names)
                    .map(|close| format!("did you mean {close}? "))
                    .unwrap_or_default();
                format!(
                    "{close}known names: {}; or write the resource in full, with its scheme",
                    names.join(", ")
                )
            }
            Self::NotInCloud(..) => "write the resource in full, with its scheme".to_owned(),
        }
    }
}

impl fmt::Display for ResourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.problem(), self.help())
    }
}

impl std::error::Error for ResourceError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        Resource::parse(text, Cloud::Public)
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn a_resource_is_kept_byte_for_byte() {
        for text in [
            "https://vault.azure.net",
            "https://vault.azure.net/",
            "HTTPS://Vault.azure.net//",
            "api://6dae42f8-4368-4678-94ff-3960e28e3630/x",
            "urn:example:one",
            "https://account.blob.core.windows.net/a%20b?x=1#y",
            "6DAE42F8-4368-4678-94ff-3960e28e3630",
            "https://x/.default/",
        ] {
            assert_eq!(Resource::parse(text, Cloud::China).unwrap().as_str(), text);
        }
        assert_ne!(Resource::exact("https://a"), Resource::exact("https://a/"));
        assert_ne!(Resource::exact("https://a"), Resource::exact("https://A"));
    }

    #[test]
    fn a_name_stands_for_the_uri_of_the_cloud() {
        for (name, cloud, uri) in [
            ("keyvault", Cloud::Public, "https://vault.azure.net"),
            ("keyvault", Cloud::China, "https://vault.azure.cn"),
            (
                "arm",
                Cloud::UsGovernment,
                "https://management.usgovcloudapi.net/",
            ),
            (
                "mysql",
                Cloud::Public,
                "https://ossrdbms-aad.database.windows.net",
            ),
            ("storage", Cloud::China, "https://storage.azure.com"),
            (
                "aks",
                Cloud::UsGovernment,
                "6dae42f8-4368-4678-94ff-3960e28e3630",
            ),
        ] {
            assert_eq!(Resource::parse(name, cloud).unwrap().as_str(), uri);
        }
        let error = Resource::parse("eventhubs", Cloud::China).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`eventhubs` is not known in AzureChinaCloud: write the resource in full, with its scheme"
        );
        assert!(matches!(
            Resource::exact("keyvault"),
            Err(ResourceError::UnknownName(_))
        ));
    }

    #[test]
    fn a_scope_is_refused_with_the_resource_to_write() {
        for (scope, help) in [
            (
                "https://x/.default",
                "drop the /.default and write https://x",
            ),
            (
                "https://x//.default",
                "drop the /.default and write https://x/: the slash before it belongs to the resource",
            ),
            (
                "6dae42f8-4368-4678-94ff-3960e28e3630/.default",
                "drop the /.default and write 6dae42f8-4368-4678-94ff-3960e28e3630",
            ),
        ] {
            assert_eq!(
                error(scope),
                format!("`{scope}` is a scope, not a resource: {help}")
            );
        }
    }

    #[test]
    fn every_refusal_says_what_to_write() {
        for (text, part) in [
            ("", "write one like https://vault.azure.net"),
            (
                "vault.azure.net",
                "`vault.azure.net` has no scheme: write https://vault.azure.net",
            ),
            ("vault.azure.net:443", "has no scheme"),
            ("/.default", "has no scheme"),
            ("https://", "has no scheme"),
            (":x", "has no scheme"),
            (
                "keyvualt",
                "did you mean keyvault? known names: arm, keyvault,",
            ),
            ("*", "no well-known resource is named `*`"),
            ("https://vault.azure.net ", "does not contain ` `"),
            (
                "https://v\u{430}ult.azure.net",
                "does not contain `\\u{430}`",
            ),
            ("https://x\r\nX: y", "does not contain `\\r`"),
            ("\u{feff}https://x", "does not contain `\\u{feff}`"),
        ] {
            assert!(error(text).contains(part), "{text}: {}", error(text));
        }
    }

    #[test]
    fn the_longest_resource_has_256_bytes() {
        let longest = format!("https://{}", "a".repeat(MAX_RESOURCE - 8));
        assert!(Resource::exact(&longest).is_ok());
        assert_eq!(
            Resource::exact(&format!("{longest}a")),
            Err(ResourceError::TooLong(257))
        );
    }
}
