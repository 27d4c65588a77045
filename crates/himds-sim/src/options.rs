//! What the simulator imitates: which machine, which agent, which service.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use crate::{clock::Clock, fault::Fault};

/// How a simulator is set up. [`Options::new`] gives today's HIMDS on a free port.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Whether to listen on `[::1]` too, with the same port, as agents do since 1.38.
    pub ipv6: bool,
    /// Where challenge key files are written, made absolute but not otherwise changed.
    pub tokens_dir: PathBuf,
    /// Whether to be IMDS, which has no challenge, instead of HIMDS.
    pub imds: bool,
    /// Whether IMDS applies its documented limits: 20 token requests a second, 5 at a time, and
    /// 5 other requests a second.
    pub rate_limits: bool,
    /// How long a new token lives.
    pub lifetime: Duration,
    /// At which remaining life a cached token is replaced (not known of the real service).
    pub renew_at_remaining: Duration,
    /// Which version of the Azure Connected Machine agent to be.
    pub agent_version: AgentVersion,
    /// Who owns the key files, by name or uid; `None` leaves them with this process's user.
    pub key_owner: Option<String>,
    /// The permission bits of a key file.
    pub key_mode: u32,
    /// How long an unused key is good for.
    pub key_lifetime: Duration,
    /// The machine that tokens and instance metadata speak of.
    pub machine: Machine,
    /// Faults in force from the start.
    pub faults: Vec<Fault>,
    /// Path of the control socket, if there is to be one.
    pub control: Option<PathBuf>,
    /// The time to go by.
    pub clock: Clock,
}

impl Options {
    /// A HIMDS of today on a free port of 127.0.0.1, with its keys in `tokens_dir`.
    pub fn new(tokens_dir: impl Into<PathBuf>) -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            ipv6: false,
            tokens_dir: tokens_dir.into(),
            imds: false,
            rate_limits: true,
            lifetime: Duration::from_hours(24),
            renew_at_remaining: Duration::from_mins(5),
            agent_version: AgentVersion::default(),
            key_owner: None,
            key_mode: 0o640,
            key_lifetime: Duration::from_mins(1),
            machine: Machine::default(),
            faults: Vec::new(),
            control: None,
            clock: Clock::system(),
        }
    }
}

/// A version of the Azure Connected Machine agent, as far as its behaviour differs.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct AgentVersion {
    major: u32,
    minor: u32,
}

impl AgentVersion {
    /// The version `major.minor`.
    pub const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor }
    }

    /// Since 1.66 `bypass_cache=true` and user-assigned identities count, and the identity is echoed.
    pub(crate) fn knows_identities_and_bypass(self) -> bool {
        self >= Self::new(1, 66)
    }

    /// Agents of 2021 sent an empty `not_before`; that it ended with the last of them is a guess.
    pub(crate) fn blanks_not_before(self) -> bool {
        self < Self::new(1, 15)
    }

    /// Agents of 2020 sent an empty `resource`; that it ended with the last of them is a guess.
    pub(crate) fn blanks_resource(self) -> bool {
        self < Self::new(1, 3)
    }
}

impl Default for AgentVersion {
    fn default() -> Self {
        Self::new(1, 67)
    }
}

impl FromStr for AgentVersion {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split('.').map(str::parse::<u32>);
        match (parts.next(), parts.next(), parts.all(|part| part.is_ok())) {
            (Some(Ok(major)), Some(Ok(minor)), true) => Ok(Self { major, minor }),
            _ => Err(format!(
                "`{text}` is not an agent version; write one like 1.67"
            )),
        }
    }
}

/// A managed identity: the machine's own, or a user-assigned one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Identity {
    /// The application id, in tokens `appid`.
    pub client_id: String,
    /// The service principal's object id, in tokens `oid` and `sub`.
    pub object_id: String,
    /// The ARM resource id, in tokens `xms_mirid`.
    pub resource_id: String,
}

impl FromStr for Identity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split(',').map(str::trim).collect();
        let (client_id, object_id, resource_id) = match parts.as_slice() {
            [client_id] => (*client_id, OTHER_OBJECT_ID, String::new()),
            [client_id, object_id] => (*client_id, *object_id, String::new()),
            [client_id, object_id, resource_id] => {
                (*client_id, *object_id, (*resource_id).to_owned())
            }
            _ => {
                return Err(format!(
                    "`{text}` has more than three parts; write CLIENT_ID[,OBJECT_ID[,RESOURCE_ID]]"
                ));
            }
        };
        if client_id.is_empty() || object_id.is_empty() {
            return Err(format!(
                "`{text}` has an empty part; write CLIENT_ID[,OBJECT_ID[,RESOURCE_ID]]"
            ));
        }
        let resource_id = if resource_id.is_empty() {
            user_resource_id(client_id)
        } else {
            resource_id
        };
        Ok(Self {
            client_id: client_id.to_owned(),
            object_id: object_id.to_owned(),
            resource_id,
        })
    }
}

/// The machine that is imitated.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The Entra tenant.
    pub tenant_id: String,
    /// The subscription that the machine is a resource of.
    pub subscription_id: String,
    /// Its resource group.
    pub resource_group: String,
    /// Its name.
    pub name: String,
    /// Its Azure region.
    pub location: String,
    /// The cloud that it is in, as `azEnvironment` of the instance metadata tells it.
    pub az_environment: String,
    /// Its VM id.
    pub vm_id: String,
    /// Client id of the system-assigned identity.
    pub client_id: String,
    /// Object id of the system-assigned identity.
    pub object_id: String,
    /// The user-assigned identities that it has.
    pub user_identities: Vec<Identity>,
}

impl Machine {
    /// The machine's ARM resource id, as an Arc server or as an Azure VM.
    pub fn resource_id(&self, imds: bool) -> String {
        let provider = if imds {
            "Microsoft.Compute/virtualMachines"
        } else {
            "Microsoft.HybridCompute/machines"
        };
        format!(
            "/subscriptions/{}/resourceGroups/{}/providers/{provider}/{}",
            self.subscription_id, self.resource_group, self.name
        )
    }

    /// The same as tokens spell it: in `xms_mirid` the group's key is lower case.
    pub(crate) fn system_identity(&self, imds: bool) -> Identity {
        Identity {
            client_id: self.client_id.clone(),
            object_id: self.object_id.clone(),
            resource_id: self
                .resource_id(imds)
                .replace("/resourceGroups/", "/resourcegroups/"),
        }
    }
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            tenant_id: "5f3a6f2e-8c1d-4e57-9a40-2b7d1c9e6a10".to_owned(),
            subscription_id: SUBSCRIPTION_ID.to_owned(),
            resource_group: GROUP.to_owned(),
            name: "sim-machine-1".to_owned(),
            location: "westeurope".to_owned(),
            az_environment: "AzurePublicCloud".to_owned(),
            vm_id: "0e9c4d7a-63b2-4f18-8d5e-91a7c2f3b604".to_owned(),
            client_id: "b1d8a6f4-2c3e-4975-8e60-7a91f0c5d312".to_owned(),
            object_id: "9f2e7c10-5a4b-4d83-b6c1-30e8d7a9f425".to_owned(),
            user_identities: vec![Identity {
                client_id: OTHER_CLIENT_ID.to_owned(),
                object_id: OTHER_OBJECT_ID.to_owned(),
                resource_id: user_resource_id("sim-identity-1"),
            }],
        }
    }
}

const SUBSCRIPTION_ID: &str = "c4a1e2b8-7d60-4f39-a5c2-18e9b3d07f46";
const GROUP: &str = "sim-group";
const OTHER_CLIENT_ID: &str = "3e7b5a90-d1c4-4286-9f0e-6c28a4b7e153";
const OTHER_OBJECT_ID: &str = "d86c1f35-0b9a-47e2-85d4-f2a3e6107c98";

fn user_resource_id(name: &str) -> String {
    format!(
        "/subscriptions/{SUBSCRIPTION_ID}/resourcegroups/{GROUP}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{name}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number_and_not_by_text() {
        let version: AgentVersion = "1.9.20".parse().unwrap();
        assert!(!version.knows_identities_and_bypass());
        assert!(
            "2.0"
                .parse::<AgentVersion>()
                .unwrap()
                .knows_identities_and_bypass()
        );
        for text in ["", "1", "1.x", "1.2.x", "one"] {
            assert!(text.parse::<AgentVersion>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_identity_needs_a_client_id_only() {
        let identity: Identity = "abc".parse().unwrap();
        assert_eq!(identity.client_id, "abc");
        assert!(
            identity
                .resource_id
                .ends_with("/userAssignedIdentities/abc")
        );
        assert_eq!("a,b,/c".parse::<Identity>().unwrap().resource_id, "/c");
        for text in ["", "a,", "a,b,c,d"] {
            assert!(text.parse::<Identity>().is_err(), "{text}");
        }
    }
}
