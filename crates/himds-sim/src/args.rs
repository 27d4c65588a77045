//! The command line.

use std::{fmt::Write as _, net::SocketAddr, path::PathBuf, time::Duration};

use clap::Parser;

use crate::{
    fault::Fault,
    fault_table,
    options::{AgentVersion, Identity, Options},
};

/// Simulates HIMDS, the metadata service of Azure Arc, or IMDS, that of an Azure VM.
///
/// It prints its address as its first line of output, and serves until SIGTERM or SIGINT. Its
/// challenge key files are real, and its tokens are real JWTs, signed by a key of its own
/// (/.well-known/jwks.json) and good for nothing but tests.
#[derive(Debug, Parser)]
#[command(version, after_help = AFTER, override_usage = "himds-sim --tokens-dir <DIR> [OPTIONS]")]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of the command line"
)]
pub struct Args {
    /// The address to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// The directory for challenge key files, made if it is not there; IMDS has none
    #[arg(long, value_name = "DIR", required_unless_present_any = ["imds", "list_faults"])]
    tokens_dir: Option<PathBuf>,
    /// Be IMDS: no challenge, api-version 2018-02-01 and later
    #[arg(long)]
    imds: bool,
    /// Lift the limits of IMDS: 20 token requests a second, 5 at a time, 5 other requests a second
    #[arg(long, requires = "imds")]
    no_rate_limits: bool,
    /// Listen on `[::1]` too, with the same port
    #[arg(long)]
    ipv6: bool,
    /// How long a token lives: 90s, 10m, 24h, 2d
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "24h")]
    lifetime: Duration,
    /// Remaining life at which a cached token is replaced, at most half of its life; not known of
    /// the real service
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "5m")]
    renew_at_remaining: Duration,
    /// The agent to be: from 1.66 it knows user-assigned identities and `bypass_cache`, before
    /// 1.15 `not_before` is empty, before 1.3 `resource` is
    #[arg(long, value_name = "VERSION", default_value = "1.67")]
    agent_version: AgentVersion,
    /// Another user-assigned identity of the machine; may be repeated, and replaces the one that
    /// it has without this
    #[arg(long, value_name = "CLIENT_ID[,OBJECT_ID[,RESOURCE_ID]]")]
    user_identity: Vec<Identity>,
    /// Tenant that tokens are of
    #[arg(long, value_name = "ID")]
    tenant: Option<String>,
    /// Name of the machine
    #[arg(long, value_name = "NAME")]
    machine: Option<String>,
    /// Cloud that the machine is in, which only the instance metadata tells: `AzurePublicCloud`,
    /// `AzureUSGovernmentCloud`, `AzureChinaCloud`, or any other name
    #[arg(long, value_name = "NAME")]
    cloud: Option<String>,
    /// Who owns the key files, by name or number; needs root
    #[arg(long, value_name = "USER")]
    key_owner: Option<String>,
    /// Permission bits of key files
    #[arg(long, value_name = "OCTAL", value_parser = mode, default_value = "0640")]
    key_mode: u32,
    /// How long a key that is not used is good for; not known of the real service
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "60s")]
    key_lifetime: Duration,
    /// A fault to have: --list-faults lists them; may be repeated
    #[arg(long, value_name = "NAME[=VALUE][:COUNT]")]
    fault: Vec<Fault>,
    /// Take commands on this Unix socket
    #[arg(long, value_name = "PATH")]
    control: Option<PathBuf>,
    /// List all faults, and do nothing else
    #[arg(long)]
    list_faults: bool,
}

const AFTER: &str = "\
Faults: a COUNT makes a fault go away after it has struck so often. A VALUE that itself ends in a
colon and digits needs a count after it: a number, or `*` for no end.

Control: PUT /fault {\"name\": …, \"value\": …, \"count\": …}, DELETE /fault[?name=…], GET /faults,
GET /journal, DELETE /journal:
  curl --unix-socket PATH -X PUT -d '{\"name\": \"starting\", \"value\": \"2\", \"count\": 3}' http://sim/fault

Exit status: 0 after SIGTERM or SIGINT, 1 if it cannot run, 2 for a wrong command line.";

impl Args {
    /// Whether only the list of faults is wanted.
    pub fn lists_faults(&self) -> bool {
        self.list_faults
    }

    /// How the simulator is to be set up.
    pub fn options(self) -> Options {
        let mut options = Options {
            listen: self.listen,
            ipv6: self.ipv6,
            imds: self.imds,
            rate_limits: !self.no_rate_limits,
            lifetime: self.lifetime,
            renew_at_remaining: self.renew_at_remaining,
            agent_version: self.agent_version,
            key_owner: self.key_owner,
            key_mode: self.key_mode,
            key_lifetime: self.key_lifetime,
            faults: self.fault,
            control: self.control,
            ..Options::new(self.tokens_dir.unwrap_or_else(|| PathBuf::from(".")))
        };
        let machine = &mut options.machine;
        if !self.user_identity.is_empty() {
            machine.user_identities = self.user_identity;
        }
        machine.tenant_id = self.tenant.unwrap_or_else(|| machine.tenant_id.clone());
        machine.name = self.machine.unwrap_or_else(|| machine.name.clone());
        machine.az_environment = self.cloud.unwrap_or_else(|| machine.az_environment.clone());
        options
    }
}

/// All faults as text for a terminal.
pub fn fault_list() -> String {
    let mut list = String::new();
    for spec in fault_table::all() {
        let name = format!("{}{}", spec.name, spec.takes);
        // Writing to a string cannot fail.
        let _ = writeln!(
            list,
            "{name:44} {:10} {}",
            spec.stage.to_string(),
            spec.about
        );
    }
    list
}

fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = match text.get(digits.len()..) {
        Some("s" | "") => 1,
        Some("m") => 60,
        Some("h") => 3600,
        Some("d") => 86400,
        _ => 0,
    };
    let seconds = digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(unit));
    match seconds {
        Some(seconds) if seconds > 0 && seconds <= 100 * 366 * 86400 => {
            Ok(Duration::from_secs(seconds))
        }
        _ => Err("write a time from 1s to 100 years like 90s, 10m, 24h or 2d".to_owned()),
    }
}

fn mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o7777);
    mode.ok_or_else(|| "write permission bits in octal like 0640".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn times_have_a_unit_and_are_not_nought() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("10m"), Ok(Duration::from_mins(10)));
        assert_eq!(duration("24h"), Ok(Duration::from_hours(24)));
        assert_eq!(duration("2d"), Ok(Duration::from_hours(48)));
        for text in [
            "",
            "0s",
            "s",
            "1w",
            "-1s",
            "1.5h",
            "99999999999999999999s",
            "18446744073709551615d",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn modes_are_octal() {
        assert_eq!(mode("0640"), Ok(0o640));
        assert_eq!(mode("4755"), Ok(0o4755));
        for text in ["", "8", "0o640", "17777"] {
            assert!(mode(text).is_err(), "{text}");
        }
    }
}
