//! The environment that makes every Azure SDK ask an endpoint, and nothing else.
//!
//! SDKs take the first source that they find signs of. So the signs of App Service are set, and those that
//! would come before it are removed; `docs/exec.md` says which program looks for which.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;

use arcbroker_client::wire::{EndpointAnswer, path};
use arcbroker_policy::shell_word;

/// What would lead a program elsewhere.
const REMOVED: [&str; 6] = [
    "IDENTITY_SERVER_THUMBPRINT",
    "IMDS_ENDPOINT",
    "MSI_ENDPOINT",
    "MSI_SECRET",
    "AZURE_POD_IDENTITY_AUTHORITY_HOST",
    "AZURE_FEDERATED_TOKEN_FILE",
];

/// Of both spellings, some programs read the one and some the other.
const NO_PROXY: [&str; 2] = ["NO_PROXY", "no_proxy"];
/// What no proxy is asked for: the secret would go to it.
const LOCAL: [&str; 3] = ["127.0.0.1", "localhost", "::1"];

/// Changes to the environment of a program.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Environment {
    set: Vec<(&'static str, OsString)>,
    removed: Vec<&'static str>,
}

impl Environment {
    /// Of a program with this endpoint; `known` is the environment as it is.
    pub(crate) fn of(
        endpoint: &EndpointAnswer,
        imds: bool,
        known: impl Fn(&str) -> Option<OsString>,
    ) -> Self {
        let secret = endpoint.secret.reveal();
        let address = format!("http://{}", endpoint.address);
        let within = format!("{address}/{secret}");
        let mut set: Vec<(&str, OsString)> = vec![
            ("IDENTITY_ENDPOINT", format!("{address}/msi/token").into()),
            ("IDENTITY_HEADER", secret.into()),
            // Terraform cannot send the header.
            (
                "ARM_MSI_ENDPOINT",
                format!("{within}{}", path::TOKEN).into(),
            ),
        ];
        // What somebody has chosen is left alone.
        for (name, value) in [
            ("ARM_USE_MSI", "true"),
            ("AZURE_TOKEN_CREDENTIALS", "ManagedIdentityCredential"),
        ] {
            if known(name).is_none_or(|value| value.is_empty()) {
                set.push((name, value.into()));
            }
        }
        let other = |name| NO_PROXY.into_iter().find(|spelling| *spelling != name);
        for name in NO_PROXY {
            let value = known(name).or_else(|| other(name).and_then(&known));
            set.push((name, without_proxy(value.unwrap_or_default())));
        }
        let mut removed = REMOVED.to_vec();
        if imds {
            const HOST: &str = "AZURE_POD_IDENTITY_AUTHORITY_HOST";
            set.push((HOST, within.into()));
            removed.retain(|name| *name != HOST);
        }
        Self { set, removed }
    }

    /// To be set.
    pub(crate) fn set(&self) -> impl Iterator<Item = (&'static str, &OsStr)> {
        self.set
            .iter()
            .map(|(name, value)| (*name, value.as_os_str()))
    }

    /// To be removed.
    pub(crate) fn removed(&self) -> &[&'static str] {
        &self.removed
    }

    /// Commands for a shell.
    pub(crate) fn for_shell(&self) -> String {
        let mut text = String::new();
        for name in &self.removed {
            writeln!(text, "unset {name}").unwrap_or_default();
        }
        for (name, value) in self.set() {
            let value = value.to_string_lossy();
            writeln!(text, "export {name}={}", shell_word(&value)).unwrap_or_default();
        }
        text
    }

    /// Lines for a file of systemd's, which has no way to remove something.
    pub(crate) fn for_systemd(&self) -> String {
        let mut text = String::new();
        for (name, value) in self.set() {
            let value = value.to_string_lossy();
            let quoted = value.replace('\\', "\\\\").replace('"', "\\\"");
            writeln!(text, "{name}=\"{quoted}\"").unwrap_or_default();
        }
        text
    }
}

/// Adds what is missing to a list of what no proxy is asked for.
fn without_proxy(known: OsString) -> OsString {
    let text = known.to_string_lossy().into_owned();
    let has = |name: &str| text.split(',').any(|part| part.trim() == name);
    if has("*") {
        return known;
    }
    let mut list = known;
    for name in LOCAL.into_iter().filter(|name| !has(name)) {
        if !list.is_empty() {
            list.push(",");
        }
        list.push(name);
    }
    list
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use arcbroker_client::{Secret, wire::SCHEMA};

    use super::*;

    fn environment(imds: bool, known: &[(&str, &str)]) -> Environment {
        let endpoint = EndpointAnswer {
            schema: SCHEMA,
            address: "127.0.0.1:4141".parse().unwrap(),
            secret: Secret::from("5ec2e7".to_owned()),
        };
        let known: BTreeMap<_, _> = known.iter().copied().collect();
        Environment::of(&endpoint, imds, |name| known.get(name).map(OsString::from))
    }

    fn set(environment: &Environment, name: &str) -> Option<String> {
        let mut all = environment.set();
        let found = all.find(|(other, _)| *other == name);
        found.map(|(_, value)| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn a15_what_leads_elsewhere_is_removed_and_the_endpoint_is_named_in_each_way() {
        let environment = environment(false, &[]);
        for (name, value) in [
            ("IDENTITY_ENDPOINT", "http://127.0.0.1:4141/msi/token"),
            ("IDENTITY_HEADER", "5ec2e7"),
            (
                "ARM_MSI_ENDPOINT",
                "http://127.0.0.1:4141/5ec2e7/metadata/identity/oauth2/token",
            ),
            ("ARM_USE_MSI", "true"),
            ("AZURE_TOKEN_CREDENTIALS", "ManagedIdentityCredential"),
            ("NO_PROXY", "127.0.0.1,localhost,::1"),
            ("no_proxy", "127.0.0.1,localhost,::1"),
        ] {
            assert_eq!(set(&environment, name).as_deref(), Some(value), "{name}");
        }
        assert_eq!(environment.removed(), REMOVED);
    }

    #[test]
    fn an_authority_host_is_ours_or_none() {
        const HOST: &str = "AZURE_POD_IDENTITY_AUTHORITY_HOST";
        let known = [(HOST, "http://elsewhere")];
        let without = environment(false, &known);
        assert!(without.removed().contains(&HOST) && set(&without, HOST).is_none());
        let with = environment(true, &known);
        assert!(!with.removed().contains(&HOST));
        assert_eq!(
            set(&with, HOST).as_deref(),
            Some("http://127.0.0.1:4141/5ec2e7")
        );
    }

    #[test]
    fn a11_lists_of_what_no_proxy_is_asked_for_are_added_to() {
        for (known, name, value) in [
            (
                vec![("NO_PROXY", "corp.example, localhost")],
                "NO_PROXY",
                "corp.example, localhost,127.0.0.1,::1",
            ),
            (
                vec![("NO_PROXY", "corp.example")],
                "no_proxy",
                "corp.example,127.0.0.1,localhost,::1",
            ),
            (
                vec![("NO_PROXY", "a"), ("no_proxy", "b")],
                "no_proxy",
                "b,127.0.0.1,localhost,::1",
            ),
            (vec![("no_proxy", "*")], "NO_PROXY", "*"),
        ] {
            let environment = environment(false, &known);
            assert_eq!(set(&environment, name).as_deref(), Some(value), "{known:?}");
        }
    }

    #[test]
    fn what_somebody_has_chosen_stays() {
        let known = [("ARM_USE_MSI", "false"), ("AZURE_TOKEN_CREDENTIALS", "")];
        let environment = environment(false, &known);
        assert_eq!(set(&environment, "ARM_USE_MSI"), None);
        assert!(set(&environment, "AZURE_TOKEN_CREDENTIALS").is_some());
    }

    #[test]
    fn shells_and_systemd_read_what_is_printed() {
        let environment = environment(false, &[("NO_PROXY", "a b\"c")]);
        let shell = environment.for_shell();
        assert!(
            shell.starts_with("unset IDENTITY_SERVER_THUMBPRINT\n"),
            "{shell}"
        );
        assert!(
            shell.contains("\nexport IDENTITY_HEADER=5ec2e7\n"),
            "{shell}"
        );
        assert!(
            shell.contains("\nexport NO_PROXY='a b\"c,127.0.0.1,localhost,::1'\n"),
            "{shell}"
        );
        let systemd = environment.for_systemd();
        assert!(systemd.starts_with("IDENTITY_ENDPOINT=\"http://127.0.0.1:4141/msi/token\"\n"));
        assert!(
            systemd.contains("\nNO_PROXY=\"a b\\\"c,127.0.0.1,localhost,::1\"\n"),
            "{systemd}"
        );
    }
}
