//! One table of the configuration file, read key by key into values that cannot be wrong.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use arcbroker_policy::{Diagnostics, Location, Scalar, Spanned, Table};
use arcbroker_policy_files::user_id;
use hyper::Uri;

use crate::owners::Owners;

/// Times that make sense in a configuration.
const DURATIONS: RangeInclusive<Duration> = Duration::from_mins(1)..=Duration::from_hours(24 * 365);

/// One table of the file, or the place where it could be, and where mistakes go.
pub(crate) struct Section<'t, 'd> {
    pub(crate) table: Option<Table<'t>>,
    pub(crate) diagnostics: &'d mut Diagnostics,
}

impl Section<'_, '_> {
    pub(crate) fn string(&mut self, key: &'static str) -> Option<Spanned<String>> {
        self.table.as_mut()?.string(key, self.diagnostics)
    }

    pub(crate) fn boolean(&mut self, key: &'static str, default: bool) -> bool {
        let read = self
            .table
            .as_mut()
            .and_then(|table| table.boolean(key, self.diagnostics));
        read.map_or(default, |value| value.value)
    }

    pub(crate) fn integer(
        &mut self,
        key: &'static str,
        range: RangeInclusive<i64>,
    ) -> Option<Spanned<i64>> {
        self.table.as_mut()?.integer(key, range, self.diagnostics)
    }

    pub(crate) fn count(&mut self, key: &'static str, default: usize) -> usize {
        self.count_to(key, 1_000_000, default)
    }

    pub(crate) fn count_to(&mut self, key: &'static str, most: i64, default: usize) -> usize {
        let read = self.integer(key, 1..=most);
        read.and_then(|value| usize::try_from(value.value).ok())
            .unwrap_or(default)
    }

    /// So many in a second; 0, the default, is no limit.
    pub(crate) fn rate(&mut self, key: &'static str) -> u32 {
        let read = self.integer(key, 0..=1_000_000);
        read.and_then(|value| u32::try_from(value.value).ok())
            .unwrap_or(0)
    }

    pub(crate) fn duration(&mut self, key: &'static str, default: Duration) -> Duration {
        let Some(text) = self.string(key) else {
            return default;
        };
        match humantime::parse_duration(&text.value) {
            Ok(duration) if DURATIONS.contains(&duration) => return duration,
            Ok(_) => self.error(
                &text,
                "this is out of range",
                "write a time from 1m to 365d",
            ),
            Err(_) => self.error(
                &text,
                "this is not a time",
                "write a number and a unit, for example \"90m\", \"24h\" or \"7d\"",
            ),
        }
        default
    }

    pub(crate) fn path(&mut self, key: &'static str, default: &str) -> PathBuf {
        match self.string(key) {
            Some(text) => self.absolute(&text).unwrap_or_default(),
            None => PathBuf::from(default),
        }
    }

    /// A path or a list of them, which may be empty; none where the key is missing.
    pub(crate) fn paths(&mut self, key: &'static str) -> Vec<PathBuf> {
        let read = self
            .table
            .as_mut()
            .and_then(|table| table.strings_or_none(key, self.diagnostics));
        let written = read.unwrap_or_default();
        written
            .iter()
            .filter_map(|text| self.absolute(text))
            .collect()
    }

    pub(crate) fn absolute(&mut self, text: &Spanned<String>) -> Option<PathBuf> {
        let path = PathBuf::from(&text.value);
        if path.is_absolute() {
            return Some(path);
        }
        self.error(text, "this is not an absolute path", "begin it with /");
        None
    }

    pub(crate) fn mode(&mut self, key: &'static str, default: u32) -> u32 {
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

    pub(crate) fn owners(&mut self, default: &[&str]) -> Vec<u32> {
        let Some(written) = self.written_owners() else {
            return default.iter().filter_map(|name| user_id(name)).collect();
        };
        let mut owners = Vec::new();
        for owner in written {
            match number(&owner.value) {
                Some(id) => owners.push(id),
                None => self.no_user(&owner, "it is left out"),
            }
        }
        owners
    }

    /// Those whose names are looked up again while the daemon runs.
    pub(crate) fn lasting_owners(&mut self, default: &[&str]) -> Owners {
        let Some(written) = self.written_owners() else {
            let names = default.iter().map(|&name| name.to_owned());
            return Owners::new(Vec::new(), names.collect());
        };
        let (mut ids, mut names) = (Vec::new(), Vec::new());
        for owner in written {
            let id = number(&owner.value);
            match owner.value {
                Scalar::String(ref name) if name.parse::<u32>().is_err() => {
                    if id.is_none() {
                        self.no_user(&owner, "it is looked up again when it is needed");
                    }
                    names.push(name.clone());
                }
                _ => match id {
                    Some(id) => ids.push(id),
                    None => self.no_user(&owner, "it is left out"),
                },
            }
        }
        Owners::new(ids, names)
    }

    fn written_owners(&mut self) -> Option<Vec<Spanned<Scalar>>> {
        self.table.as_mut()?.scalars("owners", self.diagnostics)
    }

    fn no_user(&mut self, owner: &Spanned<Scalar>, help: &str) {
        let message = "there is no such user on this system";
        self.diagnostics.warning_at(owner, message, help);
    }

    /// An endpoint whose address is one of those that are `allowed`; `problem` says why another is
    /// not.
    pub(crate) fn endpoint(
        &mut self,
        key: &'static str,
        default: &'static str,
        allowed: fn(IpAddr) -> bool,
        problem: &str,
    ) -> SocketAddr {
        let text = self.string(key);
        let address = address(text.as_ref().map_or(default, |text| text.value.as_str()));
        let problem = match address {
            Some(address) if allowed(address.ip()) => return address,
            Some(_) => problem,
            None => "this is not of the form http://ADDRESS:PORT with an IP address",
        };
        if let Some(text) = text {
            self.error(&text, problem, format!("write for example \"{default}\""));
        }
        SocketAddr::from(([127, 0, 0, 1], 0))
    }

    pub(crate) fn choice<T: Copy>(
        &mut self,
        key: &'static str,
        choices: &[(&str, T)],
    ) -> Option<T> {
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

    pub(crate) fn error(
        &mut self,
        at: &impl AsRef<Location>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.diagnostics.error_at(at, message, help);
    }
}

/// Of a user, by its number or its name.
fn number(user: &Scalar) -> Option<u32> {
    match user {
        Scalar::Integer(id) => u32::try_from(*id).ok(),
        Scalar::String(name) => user_id(name),
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
