//! The keys of the cache that clients ask for, who may, and the policy that says so.

/// A key: an identity and a resource.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// The client id of a user-assigned identity; none for the machine's own.
    pub client_id: Option<&'static str>,
    /// The resource, byte for byte.
    pub resource: &'static str,
    /// The one user who may have it.
    pub uid: u32,
}

/// How many identities there are.
pub const IDENTITIES: usize = 2;

const CLIENT_ID: &str = "8a3f2c1e-7b6d-4e5f-9a0b-1c2d3e4f5a6b";

/// Two resources of the machine's identity, and one of them for another identity: whatever is
/// confused with something else shows.
pub const KEYS: [Key; 3] = [
    Key {
        client_id: None,
        resource: "https://vault.azure.net",
        uid: 1001,
    },
    Key {
        client_id: None,
        resource: "https://management.azure.com/",
        uid: 1001,
    },
    Key {
        client_id: Some(CLIENT_ID),
        resource: "https://vault.azure.net",
        uid: 1002,
    },
];

/// What a user may not have, and what nobody may.
pub const FORBIDDEN: [(u32, Option<&str>, &str); 5] = [
    (1001, Some(CLIENT_ID), "https://vault.azure.net"),
    (1002, None, "https://management.azure.com/"),
    (1001, None, "https://management.azure.com"),
    (1001, None, "https://made-up.example"),
    (0, None, "https://vault.azure.net"),
];

/// The key that a rule can be taken away from.
pub const REVOCABLE: usize = 1;

impl Key {
    /// Whether the policy lets its user have upstream asked past its cache.
    pub fn may_bypass(self) -> bool {
        self.resource == "https://vault.azure.net"
    }

    /// The number of its identity.
    pub fn identity(self) -> usize {
        usize::from(self.client_id.is_some())
    }
}

/// The policy file; without the rule for [`REVOCABLE`] if it is revoked.
pub fn policy(revoked: bool) -> String {
    let mut text = "version = 1\n".to_owned();
    for (number, key) in KEYS.iter().enumerate() {
        if revoked && number == REVOCABLE {
            continue;
        }
        let (uid, resource) = (key.uid, key.resource);
        text += &format!(
            "[[rule]]\nname = \"key {number}\"\nuser = {uid}\nresources = [\"{resource}\"]\n"
        );
        if key.may_bypass() {
            text += "bypass-cache = true\n";
        }
        if let Some(id) = key.client_id {
            text += &format!("identity = \"client-id:{id}\"\n");
        }
    }
    text
}
