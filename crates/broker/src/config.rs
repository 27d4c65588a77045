//! The configuration file: text in, settings out, and every mistake in one go.
//!
//! Each part of the daemon has its own options type; only this module knows the file. Nothing
//! falls back to a default in silence: a key is read, missing, or a mistake.

use std::net::SocketAddr;
use std::path::PathBuf;

use arcbroker_client::wire::{DEFAULT_ADMIN_SOCKET, DEFAULT_TOKEN_SOCKET};
use arcbroker_policy::{Diagnostics, Document, Identity, Location, Scalar, Spanned, Table};
use hyper::Uri;

use crate::challenge::KeyFiles;
use crate::names::{group_id, user_id};
use crate::{audit, listen, logging, policy_files, upstream};

const HIMDS: &str = "http://127.0.0.1:40342";
const TOKENS_DIR: &str = "/var/opt/azcmagent/tokens";
const POLICY_DIR: &str = "/etc/arcbroker/policy.d";
const AUDIT_FILE: &str = "/var/log/arcbroker/audit.jsonl";
const TOKEN_MODE: u32 = 0o660;
const TOKEN_GROUP: &str = "arcbroker";
const ADMIN_MODE: u32 = 0o600;
/// HIMDS keeps its own limits; two at a time leave room for others.
const CONVERSATIONS: usize = 2;
const CONNECTIONS: usize = 4096;
const CONNECTIONS_PER_USER: usize = 1024;

/// What the daemon does; a change takes effect at the next start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where tokens come from.
    pub upstream: upstream::Options,
    /// Whose token a request without a selector gets.
    pub identity: Identity,
    /// The socket for callers.
    pub token: TokenSocket,
    /// The socket for the administrator.
    pub admin: listen::Options,
    /// Where the rules are.
    pub policy: policy_files::Options,
    /// Where decisions are recorded.
    pub audit: audit::Options,
    /// Connections in all, and of one user.
    pub connections: (usize, usize),
    /// What is logged.
    pub log: logging::Options,
}

/// The token socket, whose group is looked up when it is bound: `--check` must pass on a machine
/// where the package is not installed.
#[derive(Clone, Debug)]
pub struct TokenSocket {
    path: PathBuf,
    mode: u32,
    group: String,
}

/// Reads a configuration file.
///
/// `None` when there is any error; all of them are in `diagnostics`. Blocks: asks for users.
pub fn read(name: &str, bytes: &[u8], diagnostics: &mut Diagnostics) -> Option<Settings> {
    let document = Document::parse(name, bytes, diagnostics)?;
    let mut file = document.table();
    let (upstream, identity) = section(&mut file, "upstream", diagnostics, upstream);
    let (token, admin) = section(&mut file, "sockets", diagnostics, sockets);
    let policy = section(&mut file, "policy", diagnostics, policy);
    let audit = section(&mut file, "audit", diagnostics, audit);
    let connections = section(&mut file, "limits", diagnostics, limits);
    let log = section(&mut file, "log", diagnostics, log);
    file.finish(diagnostics);
    (!diagnostics.has_errors()).then_some(Settings {
        upstream,
        identity,
        token,
        admin,
        policy,
        audit,
        connections,
        log,
    })
}

impl TokenSocket {
    /// With the group as it is now. Blocks: asks for the group.
    ///
    /// # Errors
    ///
    /// A sentence, when there is no such group.
    pub fn resolve(&self) -> Result<listen::Options, String> {
        let group = group_id(&self.group).ok_or_else(|| {
            format!(
                "{}: there is no group `{}` on this system: make it (`groupadd --system {}`), or name another under \
                 [sockets] token-group",
                self.path.display(),
                self.group,
                self.group
            )
        })?;
        Ok(listen::Options {
            path: self.path.clone(),
            mode: self.mode,
            group: Some(group),
        })
    }
}

/// One table; without it, every key of it has its default.
fn section<T>(
    file: &mut Table<'_>,
    name: &'static str,
    diagnostics: &mut Diagnostics,
    read: fn(&mut Section<'_, '_>) -> T,
) -> T {
    let table = file.table(name, diagnostics);
    let mut section = Section { table, diagnostics };
    let value = read(&mut section);
    if let Some(table) = section.table {
        table.finish(diagnostics);
    }
    value
}

fn upstream(section: &mut Section<'_, '_>) -> (upstream::Options, Identity) {
    if let Some(kind) = section.string("kind") {
        match kind.value.as_str() {
            "auto" | "himds" => {}
            "imds" => section.error(
                &kind,
                "this version of arcbrokerd asks HIMDS only",
                "write \"himds\" or \"auto\"",
            ),
            _ => section.error(
                &kind,
                "this is no kind of upstream",
                "write \"himds\" or \"auto\"",
            ),
        }
    }
    let endpoint = section.endpoint("himds-endpoint", HIMDS, true);
    section.endpoint("imds-endpoint", "http://169.254.169.254", false);
    let dir = section.path("tokens-dir", TOKENS_DIR);
    let owners = section.owners(&["root", "himds"]);
    let identity = match section
        .string("identity")
        .map(|text| (text.value.parse(), text))
    {
        None => Identity::System,
        Some((Ok(identity), _)) => identity,
        Some((Err(error), text)) => {
            let error: arcbroker_policy::IdentityError = error;
            section.error(&text, error.problem(), error.help());
            Identity::System
        }
    };
    let keys = KeyFiles {
        dir,
        owners: owners.clone(),
    };
    (
        upstream::Options {
            endpoint,
            owners,
            keys,
            conversations: CONVERSATIONS,
        },
        identity,
    )
}

fn sockets(section: &mut Section<'_, '_>) -> (TokenSocket, listen::Options) {
    let token = TokenSocket {
        path: section.path("token", DEFAULT_TOKEN_SOCKET),
        mode: section.mode("token-mode", TOKEN_MODE),
        group: section
            .string("token-group")
            .map_or_else(|| TOKEN_GROUP.to_owned(), |group| group.value),
    };
    let admin = listen::Options {
        path: section.path("admin", DEFAULT_ADMIN_SOCKET),
        mode: ADMIN_MODE,
        group: None,
    };
    (token, admin)
}

fn policy(section: &mut Section<'_, '_>) -> policy_files::Options {
    let options = policy_files::Options {
        dir: section.path("dir", POLICY_DIR),
        owners: section.owners(&["root"]),
    };
    section.path("shadow-dir", "/etc/arcbroker/policy.shadow.d");
    options
}

fn audit(section: &mut Section<'_, '_>) -> audit::Options {
    let file = section.string("file");
    section.boolean("journald", true);
    let required = section.boolean("required", true);
    match file {
        Some(file) if file.value.is_empty() => {
            if required {
                section.error(
                    &file,
                    "without a file there is no record, and `required` wants one",
                    "name a file, or write required = false",
                );
            }
            audit::Options {
                file: None,
                required,
            }
        }
        Some(file) => audit::Options {
            file: section.absolute(&file),
            required,
        },
        None => audit::Options {
            file: Some(PathBuf::from(AUDIT_FILE)),
            required,
        },
    }
}

fn limits(section: &mut Section<'_, '_>) -> (usize, usize) {
    (
        section.count("connections", CONNECTIONS),
        section.count("connections-per-user", CONNECTIONS_PER_USER),
    )
}

fn log(section: &mut Section<'_, '_>) -> logging::Options {
    let level = section.choice("level", &logging::LEVELS);
    let format = section.choice("format", &logging::FORMATS);
    logging::Options {
        level: level.unwrap_or_default(),
        format: format.unwrap_or_default(),
    }
}

/// One table of the file, or the place where it could be, and where mistakes go.
struct Section<'t, 'd> {
    table: Option<Table<'t>>,
    diagnostics: &'d mut Diagnostics,
}

impl Section<'_, '_> {
    fn string(&mut self, key: &'static str) -> Option<Spanned<String>> {
        self.table.as_mut()?.string(key, self.diagnostics)
    }

    fn boolean(&mut self, key: &'static str, default: bool) -> bool {
        let read = self
            .table
            .as_mut()
            .and_then(|table| table.boolean(key, self.diagnostics));
        read.map_or(default, |value| value.value)
    }

    fn count(&mut self, key: &'static str, default: usize) -> usize {
        let read = self
            .table
            .as_mut()
            .and_then(|table| table.integer(key, 1..=1_000_000, self.diagnostics));
        read.and_then(|value| usize::try_from(value.value).ok())
            .unwrap_or(default)
    }

    fn path(&mut self, key: &'static str, default: &str) -> PathBuf {
        match self.string(key) {
            Some(text) => self.absolute(&text).unwrap_or_default(),
            None => PathBuf::from(default),
        }
    }

    fn absolute(&mut self, text: &Spanned<String>) -> Option<PathBuf> {
        let path = PathBuf::from(&text.value);
        if path.is_absolute() {
            return Some(path);
        }
        self.error(text, "this is not an absolute path", "begin it with /");
        None
    }

    fn mode(&mut self, key: &'static str, default: u32) -> u32 {
        let Some(text) = self.string(key) else {
            return default;
        };
        match u32::from_str_radix(&text.value, 8) {
            Ok(mode) if mode & !0o777 == 0 && text.value.len() >= 3 => {
                if mode & 0o002 != 0 {
                    let message = "with this mode every user of the machine may connect";
                    self.diagnostics.warning_at(
                        &text,
                        message,
                        "the policy still decides; \"0660\" lets only the group in",
                    );
                }
                mode
            }
            _ => {
                self.error(
                    &text,
                    "this is not a file mode",
                    "write three or four octal digits, for example \"0660\"",
                );
                default
            }
        }
    }

    fn owners(&mut self, default: &[&str]) -> Vec<u32> {
        let read = self
            .table
            .as_mut()
            .and_then(|table| table.scalars("owners", self.diagnostics));
        let Some(written) = read else {
            return default.iter().filter_map(|name| user_id(name)).collect();
        };
        let mut owners = Vec::new();
        for owner in written {
            let id = match &owner.value {
                Scalar::Integer(id) => u32::try_from(*id).ok(),
                Scalar::String(name) => user_id(name),
            };
            match id {
                Some(id) => owners.push(id),
                None => self.diagnostics.warning_at(
                    &owner,
                    "there is no such user on this system",
                    "it is left out",
                ),
            }
        }
        owners
    }

    fn endpoint(&mut self, key: &'static str, default: &'static str, loopback: bool) -> SocketAddr {
        let text = self.string(key);
        let address = address(text.as_ref().map_or(default, |text| text.value.as_str()));
        let problem = match address {
            Some(address) if address.ip().is_loopback() || !loopback => return address,
            Some(_) => {
                "this is not a loopback address: a token asked for there would cross the network"
            }
            None => "this is not of the form http://ADDRESS:PORT with an IP address",
        };
        if let Some(text) = text {
            self.error(&text, problem, format!("write for example \"{default}\""));
        }
        SocketAddr::from(([127, 0, 0, 1], 0))
    }

    fn choice<T: Copy>(&mut self, key: &'static str, choices: &[(&str, T)]) -> Option<T> {
        let text = self.string(key)?;
        let chosen = choices
            .iter()
            .find(|(name, _)| *name == text.value)
            .map(|(_, choice)| *choice);
        if chosen.is_none() {
            let names: Vec<_> = choices
                .iter()
                .map(|(name, _)| format!("\"{name}\""))
                .collect();
            self.error(
                &text,
                "this is none of the choices",
                format!("write one of {}", names.join(", ")),
            );
        }
        chosen
    }

    fn error(
        &mut self,
        at: &impl AsRef<Location>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.diagnostics.error_at(at, message, help);
    }
}

/// An http address without a path, and without a name: names can be made to lead elsewhere.
fn address(text: &str) -> Option<SocketAddr> {
    let uri: Uri = text.parse().ok()?;
    let host = uri.host()?;
    let ip = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host)
        .parse()
        .ok()?;
    let plain =
        uri.scheme_str() == Some("http") && matches!(uri.path(), "" | "/") && uri.query().is_none();
    plain.then_some(SocketAddr::new(ip, uri.port_u16().unwrap_or(80)))
}

#[cfg(test)]
mod tests;
