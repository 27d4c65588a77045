//! The configuration file: text in, settings out, and every mistake in one go.
//!
//! Each part of the daemon has its own options type; only this module knows the file. Nothing
//! falls back to a default in silence: a key is read, missing, or a mistake.

use std::path::PathBuf;

use arcbroker_client::wire::{DEFAULT_ADMIN_SOCKET, DEFAULT_TOKEN_SOCKET};
use arcbroker_policy::{Cloud, Diagnostics, Document, Identity, Table};
use arcbroker_policy_files as policy_files;

use crate::confine::{Bounds, above, around};
use crate::kind::Kind;
use crate::section::Section;
use crate::{ability, audit, cache, detect, gate, listen, logging, registry, throttle, turns};

mod upstream;

const SHADOW_DIR: &str = "/etc/arcbroker/policy.shadow.d";
const POLICY_DIR: &str = "/etc/arcbroker/policy.d";
const PROC_ROOT: &str = "/proc";
const CGROUP_ROOT: &str = "/sys/fs/cgroup";
const UNITS_DIR: &str = "/run/systemd/units";
const AUDIT_FILE: &str = "/var/log/arcbroker/audit.jsonl";
const JOURNAL_SOCKET: &str = "/run/systemd/journal/socket";
const TOKEN_MODE: u32 = 0o660;
const TOKEN_GROUP: &str = "arcbroker";
const ADMIN_MODE: u32 = 0o600;
const CONNECTIONS: usize = 4096;
const CONNECTIONS_PER_USER: usize = 1024;
const CONNECTIONS_PER_UNIT: usize = 1024;
const ENDPOINTS: usize = 2048;
const ENDPOINTS_PER_USER: usize = 1024;
/// systemd holds no more (`FileDescriptorStoreMax=`), nor could it pass them all.
const MOST_ENDPOINTS: i64 = 2048;

/// What the daemon does; a change takes effect at the next start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where tokens come from.
    pub upstream: crate::upstream::Options,
    /// The cloud of the machine; `None` is to be found out.
    pub cloud: Option<Cloud>,
    /// Whose token a request without a selector gets.
    pub identity: Identity,
    /// The socket for callers.
    pub token: TokenSocket,
    /// The socket for the administrator.
    pub admin: listen::Options,
    /// Where the rules are.
    pub policy: policy_files::Options,
    /// Where those are that are only tried.
    pub shadow_dir: PathBuf,
    /// Where callers are looked at.
    pub callers: ability::Options,
    /// Where decisions are recorded.
    pub audit: audit::Options,
    /// How much of the token socket one caller may have.
    pub limits: gate::Options,
    /// How many programs may have endpoints.
    pub endpoints: registry::Options,
    /// How much upstream is asked for.
    pub turns: turns::Options,
    /// How much is kept, and for how long it is kept fresh.
    pub cache: cache::Options,
    /// What is logged.
    pub log: logging::Options,
    /// How the daemon shuts itself in.
    pub sandbox: Sandbox,
}

/// How the daemon shuts itself in.
#[derive(Clone, Debug)]
pub struct Sandbox {
    /// Whether it does.
    pub landlock: bool,
    /// Directories that it may read besides.
    pub read: Vec<PathBuf>,
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
    let upstream = section(&mut file, "upstream", diagnostics, upstream::read);
    let cache = section(&mut file, "cache", diagnostics, cache);
    let (token, admin) = section(&mut file, "sockets", diagnostics, sockets);
    let (policy, shadow_dir) = section(&mut file, "policy", diagnostics, policy);
    let callers = section(&mut file, "callers", diagnostics, callers);
    let audit = section(&mut file, "audit", diagnostics, audit);
    let (limits, endpoints) = section(&mut file, "limits", diagnostics, limits);
    let log = section(&mut file, "log", diagnostics, log);
    let sandbox = section(&mut file, "sandbox", diagnostics, sandbox);
    file.finish(diagnostics);
    (!diagnostics.has_errors()).then_some(Settings {
        upstream: upstream.options,
        cloud: upstream.cloud,
        identity: upstream.identity,
        token,
        admin,
        policy,
        shadow_dir,
        callers,
        audit,
        limits,
        endpoints,
        turns: upstream.turns,
        cache,
        log,
        sandbox,
    })
}

impl Settings {
    /// What the daemon needs once its configuration is read; `are_sockets_passed` is whether it binds
    /// none itself.
    pub fn bounds(&self, are_sockets_passed: bool) -> Bounds {
        let choice = &self.upstream.choice;
        let may_be = |kind| !choice.is_settled() || choice.kind == kind;
        let mut read = vec![
            self.callers.proc.clone(),
            self.callers.cgroup.clone(),
            above(&self.callers.units, 1),
        ];
        if !choice.is_settled() {
            read.push(self.upstream.root.join(detect::CHASSIS_DIR));
        }
        if may_be(Kind::Himds) {
            // The agent's directory may be replaced while the daemon runs, with all in it.
            read.extend(around(&self.upstream.himds.keys.dir, 2));
        }
        read.extend(around(&self.policy.dir, 1));
        read.extend(around(&self.shadow_dir, 1));
        read.extend_from_slice(&self.sandbox.read);
        // So may that of the records, or something be mounted over it, where it is not a mount of the unit.
        let levels = if are_sockets_passed { 1 } else { 2 };
        let mut write: Vec<_> = self
            .audit
            .file
            .iter()
            .flat_map(|file| around(file, levels))
            .collect();
        if !are_sockets_passed {
            write.extend([above(&self.token.path, 1), above(&self.admin.path, 1)]);
        }
        let ports = [
            (Kind::Himds, self.upstream.himds.endpoint.port()),
            (Kind::Imds, self.upstream.imds.endpoint.port()),
        ];
        let connect = ports
            .into_iter()
            .filter_map(|(kind, port)| may_be(kind).then_some(port))
            .collect();
        let bounds = Bounds {
            read,
            write,
            connect,
        };
        bounds.with_names()
    }

    /// Where the rules are that are only tried; who may write them is the same.
    pub fn shadow(&self) -> policy_files::Options {
        policy_files::Options {
            dir: self.shadow_dir.clone(),
            ..self.policy.clone()
        }
    }
}

impl TokenSocket {
    /// With the group as it is now. Blocks: asks for the group.
    ///
    /// # Errors
    ///
    /// A sentence, when there is no such group.
    pub fn resolve(&self) -> Result<listen::Options, String> {
        let group = policy_files::group_id(&self.group).ok_or_else(|| {
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

fn cache(section: &mut Section<'_, '_>) -> cache::Options {
    let defaults = cache::Options::default();
    cache::Options {
        interest: section.duration("keep-fresh", defaults.interest),
        ..defaults
    }
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

fn policy(section: &mut Section<'_, '_>) -> (policy_files::Options, PathBuf) {
    let options = policy_files::Options {
        dir: section.path("dir", POLICY_DIR),
        owners: section.owners(&["root"]),
        // What this machine can do is found out when the policy is read.
        units: Ok(()),
    };
    (options, section.path("shadow-dir", SHADOW_DIR))
}

fn callers(section: &mut Section<'_, '_>) -> ability::Options {
    ability::Options {
        proc: section.path("proc-root", PROC_ROOT),
        cgroup: section.path("cgroup-root", CGROUP_ROOT),
        units: section.path("units-dir", UNITS_DIR),
    }
}

fn audit(section: &mut Section<'_, '_>) -> audit::Options {
    let file = section.string("file");
    let journald = section.boolean("journald", true);
    let socket = section.path("journal-socket", JOURNAL_SOCKET);
    let required = section.boolean("required", true);
    let path = match &file {
        None => Some(PathBuf::from(AUDIT_FILE)),
        Some(file) if file.value.is_empty() => None,
        Some(file) => section.absolute(file),
    };
    if let (Some(file), true, false) = (&file, required, journald)
        && file.value.is_empty()
    {
        section.error(
            file,
            "without a file and without the journal there is no record, and `required` wants one",
            "name a file, or write journald = true or required = false",
        );
    }
    audit::Options {
        file: path,
        journal: journald.then_some(socket),
        required,
    }
}

fn limits(section: &mut Section<'_, '_>) -> (gate::Options, registry::Options) {
    let connections = gate::Options {
        all: section.count("connections", CONNECTIONS),
        per_user: section.count("connections-per-user", CONNECTIONS_PER_USER),
        per_unit: section.count("connections-per-unit", CONNECTIONS_PER_UNIT),
        requests: throttle::Options {
            per_user: section.rate("requests-per-second-per-user"),
            per_unit: section.rate("requests-per-second-per-unit"),
        },
    };
    let endpoints = registry::Options {
        all: section.count_to("endpoints", MOST_ENDPOINTS, ENDPOINTS),
        per_user: section.count_to("endpoints-per-user", MOST_ENDPOINTS, ENDPOINTS_PER_USER),
    };
    (connections, endpoints)
}

fn log(section: &mut Section<'_, '_>) -> logging::Options {
    let level = section.choice("level", &logging::LEVELS);
    let format = section.choice("format", &logging::FORMATS);
    logging::Options {
        level: level.unwrap_or_default(),
        format: format.unwrap_or_default(),
    }
}

fn sandbox(section: &mut Section<'_, '_>) -> Sandbox {
    Sandbox {
        landlock: section.boolean("landlock", true),
        read: section.paths("read"),
    }
}

#[cfg(test)]
mod tests;
