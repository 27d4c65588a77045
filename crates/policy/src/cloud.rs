//! The clouds of Azure, and the well-known resources in each.

use std::fmt;

/// The cloud that a machine belongs to, and with it the URIs of the well-known resources.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Cloud {
    /// `AzurePublicCloud`
    #[default]
    Public,
    /// `AzureUSGovernmentCloud`
    UsGovernment,
    /// `AzureChinaCloud`, operated by 21Vianet
    China,
}

impl Cloud {
    /// All of them, the one that most machines are in first.
    pub const ALL: [Self; 3] = [Self::Public, Self::UsGovernment, Self::China];

    /// The cloud that `compute.azEnvironment` of the instance metadata names, also by the name that
    /// the command line of the Azure Arc agent has for it: which of the two the agent tells outside
    /// the public cloud is not documented.
    pub fn from_az_environment(name: &str) -> Option<Self> {
        match name {
            "AzureCloud" => Some(Self::Public),
            "AzureUSGovernment" => Some(Self::UsGovernment),
            _ => Self::ALL
                .into_iter()
                .find(|cloud| cloud.az_environment() == name),
        }
    }

    /// The name that the instance metadata uses.
    pub fn az_environment(self) -> &'static str {
        match self {
            Self::Public => "AzurePublicCloud",
            Self::UsGovernment => "AzureUSGovernmentCloud",
            Self::China => "AzureChinaCloud",
        }
    }
}

impl fmt::Display for Cloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.az_environment())
    }
}

/// A name that stands for a resource, and the resource in each cloud where it is known.
pub(crate) struct WellKnown {
    pub(crate) name: &'static str,
    public: Option<&'static str>,
    us_government: Option<&'static str>,
    china: Option<&'static str>,
}

impl WellKnown {
    pub(crate) fn named(name: &str) -> Option<&'static Self> {
        WELL_KNOWN.iter().find(|known| known.name == name)
    }

    pub(crate) fn names() -> impl Iterator<Item = &'static str> {
        WELL_KNOWN.iter().map(|known| known.name)
    }

    /// The name that stands for this URI, which has no slash at its end, and for the same with one.
    pub(crate) fn with_uri(stem: &str, cloud: Cloud) -> Option<&'static str> {
        let has = |known: &&Self| {
            let uri = known.uri(cloud).filter(|uri| uri.starts_with("https://"));
            uri.is_some_and(|uri| uri.strip_suffix('/').unwrap_or(uri) == stem)
        };
        WELL_KNOWN.iter().find(has).map(|known| known.name)
    }

    pub(crate) fn uri(&self, cloud: Cloud) -> Option<&'static str> {
        match cloud {
            Cloud::Public => self.public,
            Cloud::UsGovernment => self.us_government,
            Cloud::China => self.china,
        }
    }
}

const fn row(
    name: &'static str,
    public: &'static str,
    us_government: Option<&'static str>,
    china: Option<&'static str>,
) -> WellKnown {
    WellKnown {
        name,
        public: Some(public),
        us_government,
        china,
    }
}

const OSSRDBMS: [&str; 3] = [
    "https://ossrdbms-aad.database.windows.net",
    "https://ossrdbms-aad.database.usgovcloudapi.net",
    "https://ossrdbms-aad.database.chinacloudapi.cn",
];
const STORAGE: &str = "https://storage.azure.com";
const SERVICE_BUS: &str = "https://servicebus.azure.net";
const AKS: &str = "6dae42f8-4368-4678-94ff-3960e28e3630";

/// Written as each service's documentation has it: a slash at the end is part of the name.
///
/// None where a cloud has no such service or its URI is not confirmed. Container registries outside
/// the public cloud take a token for Resource Manager, and `acr` must not grant that unasked.
static WELL_KNOWN: [WellKnown; 17] = [
    row(
        "arm",
        "https://management.azure.com/",
        Some("https://management.usgovcloudapi.net/"),
        Some("https://management.chinacloudapi.cn"),
    ),
    row(
        "keyvault",
        "https://vault.azure.net",
        Some("https://vault.usgovcloudapi.net"),
        Some("https://vault.azure.cn"),
    ),
    row(
        "managedhsm",
        "https://managedhsm.azure.net",
        Some("https://managedhsm.usgovcloudapi.net"),
        None,
    ),
    row("storage", STORAGE, Some(STORAGE), Some(STORAGE)),
    row(
        "graph",
        "https://graph.microsoft.com/",
        Some("https://graph.microsoft.us/"),
        Some("https://microsoftgraph.chinacloudapi.cn"),
    ),
    row(
        "sql",
        "https://database.windows.net/",
        Some("https://database.usgovcloudapi.net/"),
        Some("https://database.chinacloudapi.cn/"),
    ),
    row(
        "postgres",
        OSSRDBMS[0],
        Some(OSSRDBMS[1]),
        Some(OSSRDBMS[2]),
    ),
    row("mysql", OSSRDBMS[0], Some(OSSRDBMS[1]), Some(OSSRDBMS[2])),
    row(
        "servicebus",
        SERVICE_BUS,
        Some(SERVICE_BUS),
        Some(SERVICE_BUS),
    ),
    row("eventhubs", "https://eventhubs.azure.net", None, None),
    row("cosmos", "https://cosmos.azure.com", None, None),
    row(
        "monitor",
        "https://monitor.azure.com",
        Some("https://monitor.azure.us"),
        Some("https://monitor.azure.cn"),
    ),
    row(
        "loganalytics",
        "https://api.loganalytics.io",
        Some("https://api.loganalytics.us"),
        Some("https://api.loganalytics.azure.cn"),
    ),
    row("acr", "https://containerregistry.azure.net", None, None),
    row("aks", AKS, Some(AKS), Some(AKS)),
    row("devops", "499b84ac-1321-427f-aa17-267ca6975798", None, None),
    row(
        "batch",
        "https://batch.core.windows.net/",
        Some("https://batch.core.usgovcloudapi.net/"),
        Some("https://batch.chinacloudapi.cn/"),
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::Resource;

    #[test]
    fn a_cloud_is_known_by_the_name_in_the_instance_metadata() {
        assert_eq!(
            Cloud::from_az_environment("AzureChinaCloud"),
            Some(Cloud::China)
        );
        assert_eq!(
            Cloud::from_az_environment("AzureUSGovernmentCloud"),
            Some(Cloud::UsGovernment)
        );
        assert_eq!(
            Cloud::from_az_environment("AzureUSGovernment"),
            Some(Cloud::UsGovernment)
        );
        assert_eq!(Cloud::from_az_environment("azurepubliccloud"), None);
        assert_eq!(Cloud::default().to_string(), "AzurePublicCloud");
    }

    #[test]
    fn every_well_known_resource_is_one() {
        let names: BTreeSet<&str> = WellKnown::names().collect();
        assert_eq!(names.len(), WELL_KNOWN.len());
        for known in &WELL_KNOWN {
            for cloud in Cloud::ALL {
                if let Some(uri) = known.uri(cloud) {
                    assert_eq!(Resource::exact(uri).unwrap().as_str(), uri);
                    assert_eq!(Resource::parse(known.name, cloud).unwrap().as_str(), uri);
                }
            }
        }
    }
}
