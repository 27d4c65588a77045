//! Which managed identity of the machine a token is for.

use std::{fmt, str::FromStr, sync::Arc};

use crate::{Guid, escape::excerpt};

const CLIENT_ID: &str = "client-id:";
const OBJECT_ID: &str = "object-id:";
const RESOURCE_ID: &str = "resource-id:";

/// A managed identity: the system-assigned one of the machine, or one that a user assigned to it.
///
/// Its text form, in policy files and in the audit log, is `system`, `client-id:GUID`,
/// `object-id:GUID` or `resource-id:/subscriptions/...`. Two forms of the same identity are
/// different here: only Entra knows that they are the same.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Identity {
    /// The machine's own.
    #[default]
    System,
    /// By the application id of its service principal.
    ClientId(Guid),
    /// By the object id of its service principal.
    ObjectId(Guid),
    /// By its id in Azure Resource Manager.
    ResourceId(ArmId),
}

/// An id in Azure Resource Manager: `/subscriptions/...`, compared byte by byte.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ArmId(Arc<str>);

/// The text names no identity.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum IdentityError {
    /// Neither `system` nor one of the prefixes.
    Form(String),
    /// What should be a GUID is none.
    Guid(String),
    /// What should be an id in Azure Resource Manager is none.
    ArmId(String),
}

impl Identity {
    /// The identity with this client id.
    pub fn client_id(guid: &str) -> Result<Self, IdentityError> {
        parse_guid(guid).map(Self::ClientId)
    }

    /// The identity with this object id.
    pub fn object_id(guid: &str) -> Result<Self, IdentityError> {
        parse_guid(guid).map(Self::ObjectId)
    }

    /// The identity with this id in Azure Resource Manager.
    pub fn resource_id(id: &str) -> Result<Self, IdentityError> {
        ArmId::parse(id).map(Self::ResourceId)
    }
}

impl FromStr for Identity {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        if text == "system" {
            Ok(Self::System)
        } else if let Some(guid) = text.strip_prefix(CLIENT_ID) {
            Self::client_id(guid)
        } else if let Some(guid) = text.strip_prefix(OBJECT_ID) {
            Self::object_id(guid)
        } else if let Some(id) = text.strip_prefix(RESOURCE_ID) {
            Self::resource_id(id)
        } else {
            Err(IdentityError::Form(text.to_owned()))
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System => f.write_str("system"),
            Self::ClientId(guid) => write!(f, "{CLIENT_ID}{guid}"),
            Self::ObjectId(guid) => write!(f, "{OBJECT_ID}{guid}"),
            Self::ResourceId(id) => write!(f, "{RESOURCE_ID}{}", id.as_str()),
        }
    }
}

impl ArmId {
    const MAX: usize = 512;

    fn parse(id: &str) -> Result<Self, IdentityError> {
        let rest = id.strip_prefix("/subscriptions/").unwrap_or_default();
        let is_visible = id.bytes().all(|byte| byte.is_ascii_graphic());
        if rest.is_empty() || id.len() > Self::MAX || !is_visible {
            return Err(IdentityError::ArmId(id.to_owned()));
        }
        Ok(Self(id.into()))
    }

    /// The id as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn parse_guid(text: &str) -> Result<Guid, IdentityError> {
    text.parse()
        .map_err(|_| IdentityError::Guid(text.to_owned()))
}

impl IdentityError {
    /// What is wrong.
    pub fn problem(&self) -> String {
        match self {
            Self::Form(text) => format!("`{}` is no identity", excerpt(text)),
            Self::Guid(text) => format!("`{}` is no GUID", excerpt(text)),
            Self::ArmId(text) => format!("`{}` is no id of Azure Resource Manager", excerpt(text)),
        }
    }

    /// What to write instead.
    pub fn help(&self) -> &'static str {
        match self {
            Self::Form(_) => {
                "write system, client-id:GUID, object-id:GUID or resource-id:/subscriptions/..."
            }
            Self::Guid(_) => "write it like 6dae42f8-4368-4678-94ff-3960e28e3630",
            Self::ArmId(_) => {
                "write it like /subscriptions/.../userAssignedIdentities/NAME, in at most 512 characters of visible ASCII"
            }
        }
    }
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.problem(), self.help())
    }
}

impl std::error::Error for IdentityError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_form_is_read_and_written() {
        for text in [
            "system",
            "client-id:6dae42f8-4368-4678-94ff-3960e28e3630",
            "object-id:6dae42f8-4368-4678-94ff-3960e28e3630",
            "resource-id:/subscriptions/S/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/n",
        ] {
            assert_eq!(text.parse::<Identity>().unwrap().to_string(), text);
        }
        assert_eq!(Identity::default(), Identity::System);
    }

    #[test]
    fn guids_are_numbers_and_resource_ids_are_names() {
        let lower = Identity::client_id("6dae42f8-4368-4678-94ff-3960e28e3630").unwrap();
        assert_eq!(
            "client-id:6DAE42F8-4368-4678-94FF-3960E28E3630".parse(),
            Ok(lower.clone())
        );
        assert_ne!(
            Identity::object_id("6dae42f8-4368-4678-94ff-3960e28e3630").unwrap(),
            lower
        );
        assert_ne!(
            Identity::resource_id("/subscriptions/A"),
            Identity::resource_id("/subscriptions/a")
        );
    }

    #[test]
    fn a_refusal_says_what_to_write() {
        for (text, part) in [
            ("", "write system, client-id:GUID"),
            ("System", "`System` is no identity"),
            ("client-id:x", "`x` is no GUID"),
            (
                "client-id: 6dae42f8-4368-4678-94ff-3960e28e3630",
                "is no GUID",
            ),
            (
                "resource-id:subscriptions/x",
                "is no id of Azure Resource Manager",
            ),
            (
                "resource-id:/subscriptions/",
                "is no id of Azure Resource Manager",
            ),
            (
                "resource-id:/subscriptions/\u{1b}[2J",
                "`/subscriptions/\\u{1b}[2J` is no id",
            ),
        ] {
            let error = text.parse::<Identity>().unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        assert!(Identity::resource_id(&format!("/subscriptions/{}", "a".repeat(500))).is_err());
    }
}
